"""From files to a listing of checkpoints: what every tracker that keeps checkpoints as files does alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from integrations.file_errors import file_errors
from integrations.step_metadata import MAX_BYTES, UnreadableRecordError, record_beside, recorded_step
from integrations.tracker import CheckpointFile, CheckpointListing, CheckpointRef, OtherSeries
from spectral_edge.checkpoints import FoundFiles, find_series, find_trajectory, shown
from spectral_edge.errors import NoStepError, NotFoundError

_RECORDS_AT_ONCE: Final = 64
"""Records that are brought to this machine together: with their largest size, a bound on the disk they take."""


class RunFiles(Protocol):
    """The files of one run or logged model."""

    @property
    def location(self) -> str:
        """What :class:`CheckpointRef` keeps of where they are."""
        ...

    @property
    def paths(self) -> frozenset[str]:
        """Their names, relative and POSIX."""
        ...

    def described(self, path: str) -> CheckpointFile:
        """Size and digest of one."""
        ...

    def brought(self, paths: Sequence[str]) -> AbstractContextManager[Sequence[Path]]:
        """Some small ones, on this machine's disk inside the block."""
        ...


@dataclass(frozen=True)
class Series:
    """One trajectory that a run offers: its name, and what was left out of it."""

    name: str
    checkpoints: tuple[CheckpointRef, ...]
    warnings: tuple[str, ...] = ()


def found_in(files: RunFiles, run: str) -> FoundFiles:
    """The series among `files`. Steps recorded beside the weights are read, and count, where the names leave doubt.

    A name leaves doubt when no word for step or checkpoint tells its number: an epoch, another number, or none.
    """
    found = find_series(files.paths)
    beside = {path: record_beside(path, files.paths) for path in (*found.doubtful, *found.stepless)}
    recorded, warnings = read_records(files, sorted({record for record in beside.values() if record}), run)
    if not recorded and not warnings:
        return found
    steps = {path: recorded[record] for path, record in beside.items() if record in recorded}
    better = find_series(files.paths, steps)
    return FoundFiles(better.series, better.stepless, better.doubtful, (*better.warnings, *warnings))


def read_records(files: RunFiles, records: Sequence[str], run: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """The step that each of `records` tells, by its path, and a sentence for each that tells none."""
    small = [path for path in records if files.described(path).size <= MAX_BYTES]
    steps: dict[str, int] = {}
    refused = {path: f"it is larger than {MAX_BYTES:,} bytes" for path in records if path not in small}
    for start in range(0, len(small), _RECORDS_AT_ONCE):
        some = small[start : start + _RECORDS_AT_ONCE]
        with files.brought(some) as brought:
            for path, file in zip(some, brought, strict=True):
                try:
                    with file_errors(run=run, file=path):
                        steps[path] = recorded_step(file)
                except UnreadableRecordError as error:
                    refused[path] = str(error)
    return steps, tuple(_sentences(refused))


def series_of(found: FoundFiles, files: RunFiles) -> list[Series]:
    """The series that were found, the preferred one first."""
    return [
        Series(
            series.name,
            tuple(
                CheckpointRef(
                    name=checkpoint_name(checkpoint.paths),
                    step=checkpoint.step,
                    step_source=checkpoint.step_source,
                    files=tuple(map(files.described, checkpoint.paths)),
                    location=files.location,
                )
                for checkpoint in series.checkpoints
            ),
            series.warnings,
        )
        for series in found.series
    ]


def choose(
    kinds: Sequence[Sequence[Series]], wanted: str | None, run: str, left_out: Sequence[str] = ()
) -> CheckpointListing:
    """One of the series that `run` offers.

    Of each kind the first is considered, and of these the longest is taken; in a tie, that of the earlier kind. The
    others are named in the warnings, unless the choice was the user's.

    Args:
        kinds: Series by kind, each sorted with the preferred one first.
        wanted: A glob on names of series; None allows all.
        run: The run's name.
        left_out: Warnings about what belongs to no series.

    Raises:
        NotFoundError: There are series, and none has such a name.
    """
    offered = tuple(chain(*kinds))
    if not offered:
        return CheckpointListing((), tuple(left_out))
    matching = [[series for series in kind if _matches(series.name, wanted)] for kind in kinds]
    if not any(matching):
        names = ", ".join(f"{shown(series.name)} ({len(series.checkpoints)})" for series in offered)
        raise NotFoundError(
            f"no series of its checkpoints has a name like {wanted!r}.",
            run=run,
            next_step=f"with `--series`, name one of these, or leave it out: {names}.",
        )
    chosen = max((kind[0] for kind in matching if kind), key=lambda series: len(series.checkpoints))
    others = tuple(OtherSeries(other.name, len(other.checkpoints)) for other in offered if other is not chosen)
    passed_over = (
        f"the series {shown(other.name)} also holds {_count(other.checkpoints)}; {shown(chosen.name)} was taken, "
        f"which holds {_count(len(chosen.checkpoints))}"
        for other in others
        if wanted is None
    )
    return CheckpointListing(chosen.checkpoints, (*left_out, *chosen.warnings, *passed_over), chosen.name, others)


def checkpoint_name(paths: Sequence[str]) -> str:
    """What messages call a checkpoint: its file, or the folder of its shards."""
    return paths[0] if len(paths) == 1 else str(PurePosixPath(paths[0]).parent)


def named_step(name: str) -> int | None:
    """The training step that the name of a folder tells; None when it tells none."""
    steps = steps_of([f"{name}/model.safetensors"])
    return steps[0] if steps else None


def steps_of(paths: Iterable[str]) -> tuple[int, ...]:
    """The steps of the trajectory among `paths`; empty when there is none, or none whose steps can be told."""
    try:
        return tuple(checkpoint.step for checkpoint in find_trajectory(paths).checkpoints)
    except NoStepError:
        return ()


def _count(checkpoints: int) -> str:
    return f"{checkpoints} checkpoint{'' if checkpoints == 1 else 's'}"


def _matches(name: str, wanted: str | None) -> bool:
    return wanted is None or name == wanted or fnmatchcase(name, wanted)


def _sentences(refused: dict[str, str]) -> Iterator[str]:
    for reason in sorted(set(refused.values())):
        paths = [path for path, why in refused.items() if why == reason]
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield f"{shown(paths[0])}{more} tells no step: {reason}"
