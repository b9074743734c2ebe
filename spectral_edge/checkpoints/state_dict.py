"""Which tensors of a checkpoint are the model's parameters, what the others are, and what all are called.

Two steps, each by rules that depend on names alone, so that all checkpoints of a run are treated alike:

1. :func:`find_state_dict` (torch's formats only): a training loop wraps the model's tensors in a dictionary together
   with the optimizer, counters and averages.
2. :func:`parameters` (all formats): wrappers' prefixes go, and each tensor is of one `Kind`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from spectral_edge.checkpoints.block_reader import StoredTensor
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind

PARAMETERS: Final[frozenset[Kind]] = frozenset({"parameters"})

_OF_MODEL: Final[frozenset[Kind]] = frozenset({"parameters", "buffers", "tied"})

_TRAINED: Final = "current_model_state"
"""Where Lightning's WeightAveraging keeps the trained model; its `state_dict` holds the averaged copy then."""

_WRAPPERS: Final = (
    _TRAINED,
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
_DEPTH_BESIDE: Final = 8
_LONGEST_NAME: Final = 1000

_BESIDE: Final = frozenset({"opt", "rng", "extra", "loss", "losses", "metrics", "history", "hparams", "args", "config"})
_BESIDE_BEGIN: Final = ("optim", "sched", "scaler", "callback", "loop")
_AVERAGED: Final = frozenset({"ema", "swa", "averaged", "shadow"})

_COUNT_OF_AVERAGED: Final = "n_averaged"
"""A counter that torch's AveragedModel keeps beside the `module.` that it wraps."""

_OPTIMIZER: Final = frozenset({"optim", "optimizer", "optimizers"})

_STATISTICS: Final = frozenset({"running_mean", "running_var", "num_batches_tracked"})

_INNER_WRAPPER: Final = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OUTER_WRAPPERS: Final = ("module.", "model.")


@dataclass(frozen=True)
class Leaf:
    """A tensor in the nested dictionaries that a file holds.

    `entries` is the number of its entries, and `is_buffer` says that a module has it as one; a dictionary of tensors
    does not tell.
    """

    entries: int
    is_buffer: bool


def find_state_dict(loaded: object, kinds: frozenset[Kind] = PARAMETERS) -> dict[str, Leaf]:
    """The tensors by name, from what a torch file holds: dictionaries and lists within each other, and leaves.

    The model's lie under one of the usual keys (`model_state_dict`, `state_dict`, `model`, `module`, `net`, ...),
    nested up to three times, or in the dictionary itself. Where none of the keys is there, dictionaries side by side
    (`generator`, `discriminator`) are taken together, each name led by its key; optimizers, schedulers, averages and
    the like are not. Where tensors and dictionaries of tensors lie side by side, those that hold more entries count.

    An averaged copy's tensors are called `averaged.<name>` and an optimizer's `optimizer.<path>`; where there are
    several copies or optimizers, the key of each follows the first word.

    Args:
        loaded: What the file holds.
        kinds: Which tensors to give; the model's are not told apart here.

    Raises:
        CheckpointFormatError: No tensors of these kinds by name, or two by the same name.
    """
    found = _search(loaded, _DEPTH, set())
    if not kinds & _OF_MODEL:
        found = {name: leaf for name, leaf in found.items() if _kind_of_copy(name) in kinds}
    if "averaged" in kinds:
        _add(found, _led("averaged", ((key, _averaged(item)) for key, item in _beside(loaded, _is_averaged))))
    if "optimizer" in kinds:
        _add(found, _led("optimizer", ((key, dict(_leaves(item))) for key, item in _beside(loaded, _is_optimizer))))
    if not found:
        raise CheckpointFormatError(
            f"expected a dictionary with the model's tensors by name, got {_described(loaded)}."
            if kinds & _OF_MODEL
            else f"holds no tensors of the kinds asked for: {', '.join(sorted(kinds))}."
        )
    return found


def _search(value: object, depth: int, seen: set[int]) -> dict[str, Leaf]:
    # A hostile dictionary may contain itself: each is looked into once.
    if not isinstance(value, Mapping) or depth == 0 or id(value) in seen:
        return {}
    seen.add(id(value))
    for wrapper in _WRAPPERS:
        inside = _search(value.get(wrapper), depth - 1, seen)
        if inside:
            return inside
    named = {key: item for key, item in value.items() if isinstance(key, str)}
    tensors = {key: item for key, item in named.items() if isinstance(item, Leaf)}
    parts = {
        f"{key}.{name}": tensor
        for key, item in named.items()
        if isinstance(item, Mapping) and not _is_beside_the_model(key)
        for name, tensor in _search(item, depth - 1, seen).items()
    }
    return max(tensors, parts, key=_entries)


def _entries(tensors: Mapping[str, Leaf]) -> int:
    return sum(tensor.entries for tensor in tensors.values())


def _words(key: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", key.lower())


def _is_beside_the_model(key: str) -> bool:
    return any(word in _BESIDE | _AVERAGED or word.startswith(_BESIDE_BEGIN) for word in _words(key))


def _is_optimizer(key: str) -> bool:
    return any(word == "opt" or word.startswith("optim") for word in _words(key))


def _is_averaged(key: str) -> bool:
    return not _is_optimizer(key) and any(word in _AVERAGED for word in _words(key))


def _beside(loaded: object, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, object]]:
    """What lies under a wanted key, nearest first, and the keys that lead to it."""
    pending, seen = deque([("", loaded, _DEPTH)]), {id(loaded)}
    while pending:
        path, value, depth = pending.popleft()
        if not isinstance(value, Mapping) or depth == 0:
            continue
        for key, item in value.items():
            if isinstance(key, str) and isinstance(item, (Mapping, list)) and id(item) not in seen:
                seen.add(id(item))
                if is_wanted(key) or (is_wanted is _is_averaged and key == "state_dict" and _TRAINED in value):
                    yield path + key, item
                elif len(path + key) < _LONGEST_NAME:
                    pending.append((f"{path}{key}.", item, depth - 1))


def _averaged(copy: object) -> dict[str, Leaf]:
    found = _search(copy, _DEPTH, set()) or dict(_leaves(copy))
    found = {name: leaf for name, leaf in found.items() if name != _COUNT_OF_AVERAGED}
    return dict(zip(plain_names(found), found.values(), strict=True))


def _leaves(value: object) -> Iterator[tuple[str, Leaf]]:
    """All tensors within `value`, each named by the keys and numbers that lead to it."""
    pending: list[tuple[str, object, int]] = [("", value, _DEPTH_BESIDE)]
    seen = {id(value)}
    while pending:
        path, inner, depth = pending.pop()
        items = inner.items() if isinstance(inner, Mapping) else enumerate(inner) if isinstance(inner, list) else ()
        for key, item in items:
            name = f"{path}.{key}" if path else str(key)
            if not isinstance(key, (str, int)) or len(name) > _LONGEST_NAME:
                continue
            if isinstance(item, Leaf):
                yield name, item
            elif depth and id(item) not in seen:
                seen.add(id(item))
                pending.append((name, item, depth - 1))


def _led(first: str, copies: Iterable[tuple[str, Mapping[str, Leaf]]]) -> Iterator[tuple[str, Leaf]]:
    """The tensors of all copies, with `first` before their names, and each copy's key where there are several."""
    held = [(key, copy) for key, copy in copies if copy]
    for key, copy in held:
        for name, leaf in copy.items():
            yield f"{first}.{name}" if len(held) == 1 else f"{first}.{key}.{name}", leaf


def _add(found: dict[str, Leaf], more: Iterable[tuple[str, Leaf]]) -> None:
    for name, leaf in more:
        if name in found:
            raise CheckpointFormatError(f"two tensors come to have the same name, {ascii(name)[:100]}.")
        found[name] = leaf


def _described(loaded: object) -> str:
    if isinstance(loaded, Leaf):
        return "a tensor alone"
    if not isinstance(loaded, Mapping):
        return "a list" if isinstance(loaded, list) else "none"
    keys = [ascii(key)[:40] for key in list(loaded)[:8]]
    return f"one with the keys {', '.join(keys)}{', ...' if len(loaded) > 8 else ''}" if keys else "an empty one"


def parameters(
    tensors: Mapping[str, StoredTensor],
    buffers: Collection[str] = (),
    kinds: frozenset[Kind] = PARAMETERS,
) -> dict[str, StoredTensor]:
    """Those of the floating point `tensors` that are of one of `kinds`, under their plain names, sorted by name.

    Names: the inner wrappers of torch.compile, FSDP and activation checkpointing (`_orig_mod.` and so on) go wherever
    they stand; `module.` (DataParallel, DDP) and `model.` (Lightning) go, again and again, when all names carry them.
    Averaged copies and the optimizer's state are told by the first part of the name and keep theirs. Buffers are those
    said to be and the running statistics of normalisation layers. Of parameters at the same place in the file the first
    by name counts, and the others are tied to it. Tensors without entries are of no kind.

    Args:
        tensors: A checkpoint's tensors by name.
        buffers: Names of those that are known to be buffers.
        kinds: Which tensors to give.

    Raises:
        CheckpointFormatError: Nothing is left, or two names become one.
    """
    model = [name for name in tensors if _kind_of_copy(name) is None]
    plain = {name: name for name in tensors} | dict(zip(model, plain_names(model), strict=True))
    by_name = {plain[name]: tensor for name, tensor in tensors.items() if tensor.info.n_parameters}
    if len(set(plain.values())) < len(tensors):
        raise CheckpointFormatError("two tensors have the same name once the wrappers' prefixes are stripped.")
    known = frozenset(plain[name] for name in buffers if name in plain)
    kept, first_at = {}, set()
    for name, tensor in sorted(by_name.items(), key=lambda item: item[0]):
        kind = _kind(name, known)
        if kind == "parameters":
            kind = "tied" if tensor.place in first_at else kind
            first_at.add(tensor.place)
        if kind in kinds:
            kept[name] = tensor
    if not kept:
        raise CheckpointFormatError(
            "no floating point tensor in it is a model's parameter."
            if kinds == PARAMETERS
            else f"no floating point tensor in it is of the kinds asked for: {', '.join(sorted(kinds))}."
        )
    return kept


def _kind(name: str, buffers: Collection[str]) -> Kind:
    copy = _kind_of_copy(name)
    if copy is not None:
        return copy
    return "buffers" if name in buffers or name.rpartition(".")[2] in _STATISTICS else "parameters"


def _kind_of_copy(name: str) -> Kind | None:
    # Only the first part: further down, `ema` may be a layer (as in Mega) and `optim` a user's word.
    first, dot, _ = name.partition(".")
    return _kind_of_part(first) if dot else None


@lru_cache(maxsize=1024)
def _kind_of_part(part: str) -> Kind | None:
    words = _words(part)
    if any(word in _OPTIMIZER for word in words):
        return "optimizer"
    return "averaged" if any(word in _AVERAGED for word in words) else None


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
