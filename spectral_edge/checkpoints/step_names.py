"""What a file's or folder's name tells of the training step."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final


class Wording(Enum):
    """How a name tells a number, the most trustworthy first."""

    STEP = auto()
    """After or before a word for step: `step_10`, `global_step5`, `iter_0001000`, `10000_steps`."""
    CHECKPOINT = auto()
    """After a word for checkpoint: `checkpoint-500`, `ckpt_100`."""
    NUMBER = auto()
    """The number alone, or after a word for the model: `100`, `model_00100`, `sd_50`; Keras puts a loss behind it:
    `weights.02-0.35`."""
    EPOCH = auto()
    """After or before a word for epoch: `epoch=3`, `ep10`."""
    SERIES = auto()
    """After any other word: `gpt-500` may be step 500 or a model's name. Only a series of such names tells."""


_COUNT: Final = r"(?P<count>\d{1,18})"
_UNIT: Final = r"(?P<unit>[km])?"
_END: Final = r"(?![a-z0-9])(?!\.\d)"
_START: Final = r"(?<![a-z])"
_APART: Final = r"(?<![a-z0-9])(?<!\d\.)"
_LINK: Final = r"[-_=. ]{0,2}"
_STEP_WORDS: Final = r"(?:(?:global|train|training)[-_ ]?)?(?:steps?|timesteps?|iters?|iterations?|updates?)"
_CHECKPOINT_WORDS: Final = r"(?:checkpoints?|ckpts?|chkpts?)"
_MODEL_WORDS: Final = r"(?:model|net|network|weights?|params?|state|state_dict|sd|save|snapshot)"
_EPOCH_WORDS: Final = r"(?:epochs?|ep)"

# Patterns of one wording in order: the word before the number is read first (in `epoch_3_step_10`, 3 is no step).
_PATTERNS: Final[dict[Wording, tuple[re.Pattern[str], ...]]] = {
    wording: tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
    for wording, patterns in {
        Wording.STEP: (
            f"{_START}{_STEP_WORDS}{_LINK}{_COUNT}{_UNIT}{_END}",
            f"{_APART}{_COUNT}{_UNIT}[-_ ]?{_STEP_WORDS}{_END}",
        ),
        Wording.CHECKPOINT: (f"{_START}{_CHECKPOINT_WORDS}{_LINK}{_COUNT}{_UNIT}{_END}",),
        Wording.NUMBER: (rf"\A(?:(?:.*[^a-z0-9])?{_MODEL_WORDS}[-_=. ])?{_COUNT}(?:-\d+\.\d+)?\Z",),
        Wording.EPOCH: (
            f"{_START}{_EPOCH_WORDS}{_LINK}{_COUNT}{_END}",
            f"{_APART}{_COUNT}[-_ ]?{_EPOCH_WORDS}{_END}",
        ),
        Wording.SERIES: (rf"\A(?:.*[^a-z0-9])?(?P<word>[a-z][a-z0-9]*)[-_=. ]{_COUNT}\Z",),
    }.items()
}

_NOT_STEPS: Final = frozenset(
    {"seed", "fold", "run", "trial", "exp", "experiment", "version", "v", "task", "job", "id", "stage", "split"}
    | {"rank", "part", "shard", "worker", "gpu", "device", "node", "member", "group"}
    | {"expert", "layer", "block", "head", "heads", "size", "dim", "width", "depth", "lr", "wd", "bs", "batch"}
)
"""Words whose number counts something else than training."""

_UNITS: Final = {"k": 1_000, "m": 1_000_000}

_NUMBERS: Final = re.compile(r"(?:(?<==)-)?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?:[km](?![a-z]))?", re.IGNORECASE)


def numbers_told(part: str) -> dict[Wording, int]:
    """The numbers that one part of a path tells, by wording; `part` is a folder's name or a file's without suffix."""
    told: dict[Wording, int] = {}
    for wording, patterns in _PATTERNS.items():
        found = next((match for pattern in patterns if (match := pattern.search(part))), None)
        if found is not None and found.groupdict().get("word", "").lower() not in _NOT_STEPS:
            told[wording] = int(found["count"]) * _UNITS.get((found.groupdict().get("unit") or "").lower(), 1)
    return told


def without_numbers(part: str) -> str:
    """`part` with each number replaced by `#`: names of one series become the same."""
    return _NUMBERS.sub("#", part)
