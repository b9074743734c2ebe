"""From a run's file names to its trajectory: which files are checkpoints, of which step, and which belong together.

The rules, in order:

1. A checkpoint file has one of the suffixes .safetensors, .pt, .pth, .ckpt, or is a `pytorch_model*.bin` or the like,
   and is not named after an optimizer, scheduler, random state, training arguments or an averaged copy.
2. Shards (`model-00001-of-00003`) are one checkpoint; an incomplete set is left out.
3. The step comes from a word in the file name (`step_10`, `checkpoint-10`), else from one in the nearest folder's name,
   else from a bare number (`model_10.pt`, `10/model.pt`), file before folder. An epoch counts where there is no step.
   A number behind any other word (`gpt-2`) counts only in a series of at least three. A number that is the same in all
   files of a series is not what counts them.
4. Files whose paths differ in such numbers only form a layout. One layout is the trajectory: the one with most steps,
   then safetensors before torch, then by name. All else is left out, with a warning that names it.
5. Of files in the layout that tell the same step, the last by name is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from spectral_edge.checkpoints.step_names import Wording, numbers_told, without_numbers
from spectral_edge.errors import NoStepError

Source = Literal["file_name", "folder_name"]

INDEX_SUFFIX: Final = ".index.json"
"""Ending of the files that tell which shard holds which tensor."""

_SUFFIXES: Final = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin"})
_BIN: Final = re.compile(r"(pytorch_|diffusion_pytorch_|adapter_)?model([-_.].*)?\.bin", re.IGNORECASE)
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})")
_BESIDE: Final = re.compile(
    r"(?:^|[^a-z])(?:optim\w*|sched\w*|lr_scheduler|grad_scaler|scaler|rng\w*|random_states?|training_args|trainer_state"
    r"|ema|swa|dataloader)(?![a-z])|^opt(?:_state\w*)?$",
    re.IGNORECASE,
)
_TIERS: Final = ((Wording.STEP, Wording.CHECKPOINT), (Wording.NUMBER,), (Wording.EPOCH,), (Wording.SERIES,))
_SERIES_LENGTH: Final = 3
_EXAMPLES: Final = 5


@dataclass(frozen=True)
class FoundCheckpoint:
    """One checkpoint of a run: `paths` has one entry unless it is sharded; an index comes last."""

    step: int
    step_source: Source
    paths: tuple[str, ...]


@dataclass(frozen=True)
class FoundTrajectory:
    """A run's checkpoints by strictly increasing step, and what was left out and why."""

    checkpoints: tuple[FoundCheckpoint, ...]
    warnings: tuple[str, ...] = ()


_Teller = tuple[Wording, int]
"""How and where a path tells a number: 0 is the file's name, 1 the nearest folder's."""


@dataclass(frozen=True)
class _Candidate:
    """One checkpoint before its step is settled: the numbers its path tells, the preferred first, and its layout."""

    paths: tuple[str, ...]
    told: dict[_Teller, int]
    layout: str


@dataclass(frozen=True)
class _Layout:
    """The checkpoints of one layout by step, repeated steps included, and by what word the step is told."""

    name: str
    wording: Wording
    checkpoints: tuple[FoundCheckpoint, ...]

    @property
    def preference(self) -> tuple[int, bool, str]:
        """Sorts the layout to be taken to the front."""
        steps = {found.step for found in self.checkpoints}
        return -len(steps), not self.name.endswith(".safetensors"), self.name


def is_checkpoint_file(path: str) -> bool:
    """Whether the file at `path` (relative, POSIX) holds a model's weights, as far as its name tells."""
    parts = PurePosixPath(path).parts
    if not parts or parts[-1].startswith("."):
        return False
    name = PurePosixPath(parts[-1])
    if name.suffix.lower() not in _SUFFIXES or (name.suffix.lower() == ".bin" and not _BIN.fullmatch(name.name)):
        return False
    return not _BESIDE.search(name.stem) and not any(_BESIDE.fullmatch(folder) for folder in parts[:-1])


def find_trajectory(paths: Iterable[str]) -> FoundTrajectory:
    """The trajectory among `paths`, all files of one run (relative, POSIX), by the rules in this module's docstring.

    Raises:
        NoStepError: There are checkpoint files, and none tells a step.
    """
    every = sorted(set(paths), key=_natural)
    candidates, warnings = _candidates([path for path in every if is_checkpoint_file(path)], frozenset(every))
    members: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        members[candidate.layout].append(candidate)
    settled = {name: _settled(name, same) for name, same in members.items()}
    layouts = sorted((layout for layout in settled.values() if layout), key=lambda layout: layout.preference)
    stepless = [candidate.paths[0] for candidate in candidates if settled[candidate.layout] is None]
    if stepless and not layouts:
        raise NoStepError(
            f"none of the run's {len(stepless)} checkpoints tells its training step: {_listed(stepless)}.",
            next_step="name them by step, for example `step_000100.pt`, `model-step=100.ckpt` or `checkpoint-100/`.",
        )
    if stepless:
        warnings.append(f"left out, the name tells no step: {_listed(stepless)}")
    if not layouts:
        return FoundTrajectory((), tuple(warnings))
    chosen, *others = layouts
    warnings += [
        f"left out, not named like {_shown(chosen.name)}: {_listed([found.paths[0] for found in layout.checkpoints])}"
        for layout in others
    ]
    if chosen.wording is Wording.EPOCH:
        warnings.append(f"steps are counted in epochs: {_shown(chosen.name)} tells no optimizer step")
    return FoundTrajectory(_without_repeats(chosen, warnings), tuple(warnings))


def _candidates(paths: Sequence[str], every: frozenset[str]) -> tuple[list[_Candidate], list[str]]:
    """One candidate for each file or complete set of shards, and a warning for each incomplete set."""
    sets: dict[tuple[PurePosixPath, int], list[str]] = defaultdict(list)
    for path in paths:
        whole = PurePosixPath(path)
        shard = _SHARD.fullmatch(whole.stem)
        if shard:
            sets[whole.with_name(shard["stem"] + whole.suffix), int(shard["total"])].append(path)
        else:
            sets[whole, 1].append(path)
    candidates, warnings = [], []
    for (whole, total), files in sets.items():
        if len(files) == total:
            index = f"{whole}{INDEX_SUFFIX}"
            told, layout = _told(whole)
            candidates.append(_Candidate((*files, index) if index in every else tuple(files), told, layout))
        else:
            warnings.append(f"left out, got {len(files)} of its {total} files: {_listed(files)}")
    return candidates, warnings


def _told(path: PurePosixPath) -> tuple[dict[_Teller, int], str]:
    """The numbers that count for `path`, in order of preference, and the path with those parts' numbers taken out."""
    parts = [path.stem, *reversed(path.parts[:-1])]
    told = [numbers_told(part) for part in parts]
    counting = _counting({wording for numbers in told for wording in numbers})
    kept = [
        {
            wording: number
            for wording, number in numbers.items()
            if wording in counting or (place == 0 and wording is Wording.NUMBER)
        }
        for place, numbers in enumerate(told)
    ]
    layout = [without_numbers(part) if numbers else part for part, numbers in zip(parts, kept, strict=True)]
    preferred: dict[_Teller, int] = {
        (wording, place): numbers[wording]
        for tier in _TIERS
        for place, numbers in enumerate(kept)
        for wording in tier
        if wording in numbers
    }
    return preferred, "/".join(reversed(layout)) + path.suffix.lower()


def _counting(wordings: set[Wording]) -> set[Wording]:
    """Which wordings may tell the step of a path that has these; a folder's bare number not beside a word for step."""
    if wordings & {Wording.STEP, Wording.CHECKPOINT}:
        return {Wording.STEP, Wording.CHECKPOINT, Wording.EPOCH}
    if wordings & {Wording.NUMBER, Wording.EPOCH}:
        return {Wording.NUMBER, Wording.EPOCH}
    return {Wording.SERIES}


def _settled(name: str, members: Sequence[_Candidate]) -> _Layout | None:
    """The layout's steps: by the first teller whose number is not the same in all; None when nothing tells."""
    shared = [teller for teller in members[0].told if all(teller in member.told for member in members)]
    values = {teller: {member.told[teller] for member in members} for teller in shared}
    usable = [teller for teller in shared if teller[0] is not Wording.SERIES or len(values[teller]) >= _SERIES_LENGTH]
    if not usable:
        return None
    teller = next((teller for teller in usable if len(values[teller]) > 1), usable[0])
    source: Source = "file_name" if teller[1] == 0 else "folder_name"
    found = [FoundCheckpoint(member.told[teller], source, member.paths) for member in members]
    return _Layout(name, teller[0], tuple(sorted(found, key=lambda each: each.step)))


def _without_repeats(layout: _Layout, warnings: list[str]) -> tuple[FoundCheckpoint, ...]:
    """One checkpoint a step, the last by name; the others are named in `warnings`."""
    by_step: dict[int, list[FoundCheckpoint]] = defaultdict(list)
    for found in layout.checkpoints:
        by_step[found.step].append(found)
    for step, same in by_step.items():
        if len(same) > 1:
            left_out = _listed([found.paths[0] for found in same[:-1]])
            warnings.append(
                f"step {step} occurs {len(same)} times: kept {_shown(same[-1].paths[0])}, left out {left_out}"
            )
    return tuple(same[-1] for same in by_step.values())


def _natural(path: str) -> tuple[tuple[str, int, str], ...]:
    """Sorts `step_9` before `step_10`. Digits are compared as text, by length first: a name may hold thousands."""
    return tuple(
        (text, len(digits.lstrip("0")), digits.lstrip("0")) for text, digits in re.findall(r"(\D*)(\d*)", path)
    )


def _shown(path: str) -> str:
    return f"`{ascii(path)[1:-1][:160]}`"


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(_shown(path) for path in paths[:_EXAMPLES])
    return shown + (f" and {len(paths) - _EXAMPLES} more" if len(paths) > _EXAMPLES else "")
