"""From a run's file names to its trajectory: which checkpoints there are, and of which step.

The rules, in order:

1. Which files hold weights, and which of them are one checkpoint together, is told in :mod:`weight_files`.
2. The step comes from a word in the file name (`step_10`, `checkpoint-10`), else from one in the nearest folder's name,
   else from a bare number (`model_10.pt`, `10/model.pt`), file before folder. An epoch counts where there is no step.
   A number behind any other word (`gpt-2`) counts only in a series of at least three. A number that is the same in all
   files of a series is not what counts them. Of shards it is the name that they share, and of a folder of
   torch.distributed.checkpoint the folder's (`step_10/`, `epoch=0-step=8.ckpt/`).
3. Files whose paths differ in such numbers only form a layout. One layout is the trajectory: one whose suffix says that
   it is a model before one of .npz, .npy, .h5, .hdf5 and .tar, which serve for anything; then the one with most steps;
   then safetensors before all others; then by name. All else is left out, with a warning that names it.
4. Of checkpoints in the layout that tell the same step, the last by name is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from spectral_edge.checkpoints.step_names import Wording, numbers_told, without_numbers
from spectral_edge.checkpoints.weight_files import (
    CheckpointFiles,
    checkpoints_among,
    listed,
    serves_for_anything,
    shown,
    split_suffix,
)
from spectral_edge.errors import NoStepError

Source = Literal["file_name", "folder_name"]

_TIERS: Final = ((Wording.STEP, Wording.CHECKPOINT), (Wording.NUMBER,), (Wording.EPOCH,), (Wording.SERIES,))
_SERIES_LENGTH: Final = 3
_FOLDER_SUFFIX: Final = ".ckpt"
"""Lightning gives it to folders too."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """One checkpoint of a run: `paths` has one entry unless it is sharded; an index or `.metadata` comes last."""

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
    def preference(self) -> tuple[bool, int, bool, str]:
        """Sorts the layout to be taken to the front."""
        _, suffix = split_suffix(self.name)
        steps = {found.step for found in self.checkpoints}
        return serves_for_anything(suffix), -len(steps), suffix != ".safetensors", self.name


def find_trajectory(paths: Iterable[str]) -> FoundTrajectory:
    """The trajectory among `paths`, all files of one run (relative, POSIX), by the rules in this module's docstring.

    Raises:
        NoStepError: There are checkpoint files, and none tells a step.
    """
    every = sorted(set(paths), key=lambda path: (_natural(path), path))  # `step_03` and `step_3` are a tie
    found, warnings = checkpoints_among(every)
    candidates = [_candidate(files) for files in found]
    members: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        members[candidate.layout].append(candidate)
    settled = {name: _settled(name, same) for name, same in members.items()}
    layouts = sorted((layout for layout in settled.values() if layout), key=lambda layout: layout.preference)
    stepless = [candidate.paths[0] for candidate in candidates if settled[candidate.layout] is None]
    if stepless and not layouts:
        raise NoStepError(
            f"none of the run's {len(stepless)} checkpoints tells its training step: {listed(stepless)}.",
            next_step="name them by step, for example `step_000100.pt`, `model-step=100.ckpt` or `checkpoint-100/`.",
        )
    if stepless:
        warnings.append(f"left out, the name tells no step: {listed(stepless)}")
    if not layouts:
        return FoundTrajectory((), tuple(warnings))
    chosen, *others = layouts
    warnings += [
        f"left out, not named like {shown(chosen.name)}: {listed([found.paths[0] for found in layout.checkpoints])}"
        for layout in others
    ]
    if chosen.wording is Wording.EPOCH:
        warnings.append(f"steps are counted in epochs: {shown(chosen.name)} tells no optimizer step")
    return FoundTrajectory(_without_repeats(chosen, warnings), tuple(warnings))


def _candidate(files: CheckpointFiles) -> _Candidate:
    told, layout = _told(files.whole)
    return _Candidate(files.paths, told, layout)


def _told(path: PurePosixPath) -> tuple[dict[_Teller, int], str]:
    """The numbers that count for `path`, in order of preference, and the path with those parts' numbers taken out."""
    stem, suffix = split_suffix(path.name)
    parts = [stem, *(folder.removesuffix(_FOLDER_SUFFIX) for folder in reversed(path.parts[:-1]))]
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
    return preferred, "/".join(reversed(layout)) + suffix


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
            left_out = listed([found.paths[0] for found in same[:-1]])
            warnings.append(
                f"step {step} occurs {len(same)} times: kept {shown(same[-1].paths[0])}, left out {left_out}"
            )
    return tuple(same[-1] for same in by_step.values())


def _natural(path: str) -> tuple[tuple[str, int, str], ...]:
    """Sorts `step_9` before `step_10`. Digits are compared as text, by length first: a name may hold thousands."""
    return tuple(
        (text, len(digits.lstrip("0")), digits.lstrip("0")) for text, digits in re.findall(r"(\D*)(\d*)", path)
    )
