"""Which tensors of a checkpoint are the model's parameters, and what they are called.

Two steps, each by rules that depend on names alone, so that all checkpoints of a run are treated alike:

1. :func:`find_state_dict` (torch files only): a training loop wraps the model's tensors in a dictionary together with
   the optimizer, counters and averages.
2. :func:`parameters` (all formats): wrappers' prefixes go, and what is not a trained parameter is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch

from spectral_edge.checkpoints.block_reader import StoredTensor
from spectral_edge.errors import CheckpointFormatError

_WRAPPERS: Final = (
    "model_state_dict",
    "state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
    "checkpoint",
)
"""Keys under which loops keep the model, the most telling first (Lightning's is `state_dict`)."""

_DEPTH: Final = 4

_BESIDE: Final = frozenset({"opt", "rng", "extra", "loss", "losses", "metrics", "history", "hparams", "args", "config"})
_BESIDE_BEGIN: Final = ("optim", "sched", "scaler", "callback", "loop")
_AVERAGED: Final = frozenset({"ema", "swa", "averaged", "shadow"})

_OPTIMIZER: Final = frozenset({"optim", "optimizer", "optimizers"})

_STATISTICS: Final = frozenset({"running_mean", "running_var", "num_batches_tracked"})

_INNER_WRAPPER: Final = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OUTER_WRAPPERS: Final = ("module.", "model.")


def find_state_dict(loaded: object) -> dict[str, torch.Tensor]:
    """The model's tensors by name, from what a torch file holds.

    Under one of the usual keys (`model_state_dict`, `state_dict`, `model`, `module`, `net`, ...), nested up to three
    times, or the dictionary itself. Where none of the keys is there, dictionaries side by side (`generator`,
    `discriminator`) are taken together, each name led by its key; optimizers, schedulers, averages and the like are
    not. Where tensors and dictionaries of tensors lie side by side, those that hold more entries count.

    Raises:
        CheckpointFormatError: No tensors by name.
    """
    found = _search(loaded, _DEPTH, set())
    if not found:
        raise CheckpointFormatError(
            f"expected a dictionary with the model's tensors by name, got {_described(loaded)}."
        )
    return found


def _search(value: object, depth: int, seen: set[int]) -> dict[str, torch.Tensor]:
    # A hostile dictionary may contain itself: each is looked into once.
    if not isinstance(value, Mapping) or depth == 0 or id(value) in seen:
        return {}
    seen.add(id(value))
    for wrapper in _WRAPPERS:
        inside = _search(value.get(wrapper), depth - 1, seen)
        if inside:
            return inside
    named = {key: item for key, item in value.items() if isinstance(key, str)}
    tensors = {key: item for key, item in named.items() if isinstance(item, torch.Tensor)}
    parts = {
        f"{key}.{name}": tensor
        for key, item in named.items()
        if not _is_beside_the_model(key)
        for name, tensor in _search(item, depth - 1, seen).items()
    }
    return max(tensors, parts, key=_entries)


def _entries(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _words(key: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", key.lower())


def _is_beside_the_model(key: str) -> bool:
    return any(word in _BESIDE | _AVERAGED or word.startswith(_BESIDE_BEGIN) for word in _words(key))


def _described(loaded: object) -> str:
    if not isinstance(loaded, Mapping):
        return f"a `{type(loaded).__name__}`"
    keys = [ascii(key)[:40] for key in list(loaded)[:8]]
    return f"one with the keys {', '.join(keys)}{', ...' if len(loaded) > 8 else ''}" if keys else "an empty one"


def parameters(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The trained parameters among the floating point `tensors`, under their plain names, sorted by name.

    Names: the inner wrappers of torch.compile, FSDP and activation checkpointing (`_orig_mod.` and so on) go wherever
    they stand; `module.` (DataParallel, DDP) and `model.` (Lightning) go, again and again, when all names carry them.
    Left out: running statistics of normalisation layers; averaged copies and optimizer state (by the first part of
    the name); tensors without entries; and of tensors at the same place in the file (tied weights) all but the first.

    Raises:
        CheckpointFormatError: Nothing is left, or two names become one.
    """
    plain = dict(zip(plain_names(tensors), tensors.values(), strict=True))
    if len(plain) < len(tensors):
        raise CheckpointFormatError("two tensors have the same name once the wrappers' prefixes are stripped.")
    first_at: dict[object, str] = {}
    for name, tensor in sorted(plain.items(), key=lambda item: item[0]):
        if tensor.info.n_parameters and not _is_no_parameter(name):
            first_at.setdefault(tensor.place, name)
    if not first_at:
        raise CheckpointFormatError("no floating point tensor in it is a model's parameter.")
    return {name: plain[name] for name in first_at.values()}


def _is_no_parameter(name: str) -> bool:
    parts = name.split(".")
    if parts[-1] in _STATISTICS:
        return True
    # Only the first part: further down, `ema` may be a layer (as in Mega) and `optim` a user's word.
    return len(parts) > 1 and any(word in _AVERAGED | _OPTIMIZER for word in _words(parts[0]))


def plain_names(names: Iterable[str]) -> list[str]:
    """`names`, in their order, without the prefixes of wrappers."""
    plain = [_INNER_WRAPPER.sub("", name) for name in names]
    while (prefix := _shared_prefix(plain)) is not None:
        plain = [name.removeprefix(prefix) for name in plain]
    return plain


def _shared_prefix(names: list[str]) -> str | None:
    for prefix in _OUTER_WRAPPERS:
        if names and all(name.startswith(prefix) and name != prefix for name in names):
            return prefix
    return None
