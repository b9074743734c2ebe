"""From a run's file names to its trajectory: which checkpoints there are, and of which step.

The rules, in order:

1. Which files hold weights, and which of them are one checkpoint together, is told in :mod:`weight_files`.
2. The step comes from a word in the file name (`step_10`, `checkpoint-10`), else from one in the nearest folder's name,
   else from a bare number (`model_10.pt`, `10/model.pt`), file before folder. An epoch counts where there is no step.
   A number behind any other word (`gpt-2`) counts only in a series of at least three. A number that is the same in all
   files of a series is not what counts them. Of shards it is the name that they share, and of a folder of
   torch.distributed.checkpoint the folder's (`step_10/`, `epoch=0-step=8.ckpt/`). A step that was recorded beside the
   weights is taken instead of the name's, see :func:`find_series`.
3. Files whose paths differ in such numbers only form a series. One series is the trajectory: one whose suffix says that
   it is a model before one of .npz, .npy, .h5, .hdf5 and .tar, which serve for anything; then the one with most steps;
   then safetensors before all others; then by name. All else is left out, with a warning that names it.
4. Of checkpoints in the series that tell the same step, the last by name is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spectral_edge.checkpoints.layouts import Candidate, FoundCheckpoint, Layout, candidate_of, settled
from spectral_edge.checkpoints.step_names import Wording
from spectral_edge.checkpoints.weight_files import checkpoints_among, listed, shown
from spectral_edge.errors import NoStepError


@dataclass(frozen=True)
class FoundSeries:
    """Checkpoints of one run whose names differ only in their numbers, by strictly increasing step.

    Attributes:
        name: Their path, with `#` for the numbers.
        checkpoints: One for each step.
        warnings: What was left out of the series, and that it counts epochs.
    """

    name: str
    checkpoints: tuple[FoundCheckpoint, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundFiles:
    """All that was found among the files of a run.

    Attributes:
        series: The preferred one first.
        stepless: The first file of each checkpoint of which no step is known.
        doubtful: The first file of each other checkpoint whose step no word for step or checkpoint tells: it may be
            an epoch, or another number.
        warnings: Incomplete checkpoints.
    """

    series: tuple[FoundSeries, ...]
    stepless: tuple[str, ...]
    doubtful: tuple[str, ...]
    warnings: tuple[str, ...]

    def no_step(self) -> NoStepError:
        """The error for a run of which no checkpoint tells a step."""
        return NoStepError(
            f"none of the run's {len(self.stepless)} checkpoints tells its training step: {listed(self.stepless)}.",
            next_step="name them by step, for example `step_000100.pt`, `model-step=100.ckpt` or `checkpoint-100/`.",
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Warnings that name what belongs to no series."""
        if not self.stepless:
            return self.warnings
        return (*self.warnings, f"left out, the name tells no step: {listed(self.stepless)}")


@dataclass(frozen=True)
class FoundTrajectory:
    """A run's checkpoints by strictly increasing step, and what was left out and why."""

    checkpoints: tuple[FoundCheckpoint, ...]
    warnings: tuple[str, ...] = ()
    series: str | None = None
    """The name of the series that was taken; None where there is none."""


def find_series(paths: Iterable[str], recorded: Mapping[str, int] | None = None) -> FoundFiles:
    """Every series among `paths`, all files of one run (relative, POSIX), by the rules in this module's docstring.

    Args:
        paths: Names of files.
        recorded: The training step of a checkpoint that was written down beside it, by the name of its first file.
            It counts in a series of which all checkpoints have one, no two the same.
    """
    every = sorted(set(paths), key=lambda path: (_natural(path), path))  # `step_03` and `step_3` are a tie
    files, warnings = checkpoints_among(every)
    candidates = [candidate_of(each) for each in files]
    members: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        members[candidate.layout].append(candidate)
    layouts = {name: settled(name, same, recorded or {}) for name, same in members.items()}
    preferred = sorted((layout for layout in layouts.values() if layout), key=lambda layout: layout.preference)
    stepless = tuple(candidate.paths[0] for candidate in candidates if layouts[candidate.layout] is None)
    doubtful = tuple(found.paths[0] for layout in preferred if not layout.is_sure for found in layout.checkpoints)
    return FoundFiles(tuple(map(_series, preferred)), stepless, doubtful, tuple(warnings))


def find_trajectory(paths: Iterable[str]) -> FoundTrajectory:
    """The trajectory among `paths`, all files of one run (relative, POSIX), by the rules in this module's docstring.

    Raises:
        NoStepError: There are checkpoint files, and none tells a step.
    """
    found = find_series(paths)
    if not found.series:
        if found.stepless:
            raise found.no_step()
        return FoundTrajectory((), found.warnings)
    chosen, *others = found.series
    passed_over = (
        f"left out, not named like {shown(chosen.name)}: {listed([each.paths[0] for each in series.checkpoints])}"
        for series in others
    )
    return FoundTrajectory(chosen.checkpoints, (*found.left_out, *passed_over, *chosen.warnings), chosen.name)


def _series(layout: Layout) -> FoundSeries:
    warnings = []
    if layout.wording is Wording.EPOCH:
        warnings.append(f"steps are counted in epochs: {shown(layout.name)} tells no optimizer step")
    checkpoints = _without_repeats(layout, warnings)
    return FoundSeries(layout.name, checkpoints, tuple(warnings))


def _without_repeats(layout: Layout, warnings: list[str]) -> tuple[FoundCheckpoint, ...]:
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
