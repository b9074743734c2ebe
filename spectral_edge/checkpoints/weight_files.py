"""Which of a run's files hold a model's weights, and which of these are one checkpoint together, by their names alone.

1. A file with one of the suffixes .safetensors, .pt, .pth, .ckpt, .keras, .weights.h5, .pth.tar, .pt.tar, .ckpt.tar,
   .distcp, or a `pytorch_model*.bin` or the like, holds weights. One with .npz, .npy, .h5, .hdf5 or .tar, which serve
   for anything, does when its name is a number or has a word for the model or for training time (`params_100.npz`,
   `step_5.npy`) and none for results (`step_5_predictions.npy`). No file does that is hidden, or named after an
   optimizer, scheduler, random state, training arguments or an averaged copy, or lies in a folder of such a name.
2. Shards (`model-00001-of-00003`) are one checkpoint, together with their index; an incomplete set is left out.
3. A folder with `.metadata` and .distcp files, as torch.distributed.checkpoint writes it, is one checkpoint; other
   files in it are not looked at. .distcp files without `.metadata` are left out: it is written last.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

INDEX_SUFFIX: Final = ".index.json"
"""Ending of the files that tell which shard holds which tensor."""

DCP_METADATA: Final = ".metadata"
"""Name of the file in which torch.distributed.checkpoint tells what lies where; the only hidden file that counts."""

DCP_DATA: Final = ".distcp"
"""Suffix of the files beside it."""

_SUFFIX: Final = re.compile(r"(?:\.weights\.h5|\.(?:pth|pt|ckpt)\.tar|\.[^.]*)\Z", re.IGNORECASE)
_OF_MODELS: Final = frozenset(
    {
        ".safetensors",
        ".pt",
        ".pt2",
        ".pth",
        ".ckpt",
        ".keras",
        ".weights.h5",
        ".pth.tar",
        ".pt.tar",
        ".ckpt.tar",
        DCP_DATA,
    }
)
_OF_ANYTHING: Final = frozenset({".npz", ".npy", ".h5", ".hdf5", ".tar"})
_WEIGHTS: Final = re.compile(
    r"\A\d+\Z|(?<![a-z])(?:model|net|network|weights?|params?|parameters|theta|state|state_dict|snapshot|checkpoints?"
    r"|ckpts?|chkpts?|steps?|timesteps?|iters?|iterations?|updates?|epochs?|ep)(?![a-z])",
    re.IGNORECASE,
)
_RESULTS: Final = re.compile(
    r"\A(?:loss|losses|metrics?|eval|acc|accuracy)(?![a-z])|(?<![a-z])(?:preds?|predictions?|outputs?|logits|grads?"
    r"|gradients?|activations?|features?|labels?|samples?|images?|tokens?|data|dataset|results?|history|stats|scores?)"
    r"(?![a-z])",
    re.IGNORECASE,
)
_BIN: Final = re.compile(r"(pytorch_|diffusion_pytorch_|adapter_)?model([-_.].*)?\.bin", re.IGNORECASE)
_BESIDE: Final = re.compile(
    r"(?:^|[^a-z])(?:optim\w*|sched\w*|lr_scheduler|grad_scaler|scaler|rng\w*|random_states?|training_args|trainer_state"
    r"|ema|swa|dataloader)(?![a-z])|^opt(?:_state\w*)?$",
    re.IGNORECASE,
)
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})")
_EXAMPLES: Final = 5


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint; an index or `.metadata` comes last. `whole` is the name that tells the step."""

    whole: PurePosixPath
    paths: tuple[str, ...]


def split_suffix(name: str) -> tuple[str, str]:
    """A file's name without its suffix, and the suffix in lower case: `.pth.tar` and `.weights.h5` are one."""
    found = _SUFFIX.search(name)
    return (name[: found.start()], found[0].lower()) if found else (name, "")


def serves_for_anything(suffix: str) -> bool:
    """Whether files with this suffix (of :func:`split_suffix`) often hold something else than a model."""
    return suffix in _OF_ANYTHING


def is_checkpoint_file(path: str) -> bool:
    """Whether the file at `path` (relative, POSIX) holds a model's weights, as far as its name tells."""
    parts = PurePosixPath(path).parts
    if not parts or parts[-1].startswith("."):
        return False
    stem, suffix = split_suffix(parts[-1])
    if suffix == ".bin":
        holds = _BIN.fullmatch(parts[-1]) is not None
    elif suffix in _OF_ANYTHING:
        holds = _WEIGHTS.search(stem) is not None and not _RESULTS.search(stem)
    else:
        holds = suffix in _OF_MODELS
    return holds and not _BESIDE.search(stem) and not any(_BESIDE.fullmatch(folder) for folder in parts[:-1])


def checkpoints_among(paths: Sequence[str]) -> tuple[list[CheckpointFiles], list[str]]:
    """The checkpoints among `paths`, all files of one run without repeats, and a warning for each incomplete one."""
    every = frozenset(paths)
    distributed = {path.parent for path in map(PurePosixPath, paths) if path.suffix.lower() == DCP_DATA} & {
        path.parent for path in map(PurePosixPath, paths) if path.name == DCP_METADATA
    }
    sets: dict[tuple[PurePosixPath, int | None], list[str]] = defaultdict(list)
    for path in filter(is_checkpoint_file, paths):
        whole, total = _belongs_to(PurePosixPath(path))
        if whole.name == DCP_METADATA or whole.parent not in distributed:
            sets[whole, total].append(path)
    found, warnings = [], []
    for (whole, total), files in sets.items():
        last = str(whole) if total is None else f"{whole}{INDEX_SUFFIX}"
        if total is None and last not in every:
            warnings.append(f"left out, no `{DCP_METADATA}` beside it: {listed(files)}")
        elif total is not None and len(files) != total:
            warnings.append(f"left out, got {len(files)} of its {total} files: {listed(files)}")
        else:
            found.append(CheckpointFiles(whole, (*files, last) if last in every else tuple(files)))
    return found, warnings


def _belongs_to(path: PurePosixPath) -> tuple[PurePosixPath, int | None]:
    """What the checkpoint of the file at `path` is called, and of how many files it is; None where no name tells."""
    stem, suffix = split_suffix(path.name)
    if suffix == DCP_DATA:
        return path.with_name(DCP_METADATA), None
    shard = _SHARD.fullmatch(stem)
    if shard is None:
        return path, 1
    return path.with_name(shard["stem"] + path.name[len(stem) :]), int(shard["total"])


def shown(path: str) -> str:
    """`path` as messages show it: any name becomes short printable ASCII."""
    return f"`{ascii(path)[1:-1][:160]}`"


def listed(paths: Iterable[str]) -> str:
    """The first of `paths` as messages show them, and how many more there are."""
    every = list(paths)
    first = ", ".join(shown(path) for path in every[:_EXAMPLES])
    return first + (f" and {len(every) - _EXAMPLES} more" if len(every) > _EXAMPLES else "")
