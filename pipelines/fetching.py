"""The sliding window of files on disk: checkpoints come in segments, and leave when no later update needs them.

An update's inner products reach `lags` updates back, so a segment of new checkpoints is read beside the `lags` + 1
checkpoints before it (theory 2). Everything older is deleted. While one segment is read, the next is on its way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from integrations.tracker import CheckpointRef, TrackedRun, Tracker
from pipelines.share import Share
from pipelines.wording import size_text
from spectral_edge import interruption
from spectral_edge.errors import CheckpointError, DiskFullError, TrackerUnavailableError
from spectral_edge.gram import LocalCheckpoint

PARALLEL_FETCHES: Final = 4

_HEADS_DIFFER: Final = 64 << 10
"""Bytes by which what is fetched of a file, beside the share itself, may differ between checkpoints."""


@dataclass(frozen=True)
class Arrived:
    """A checkpoint that is on the disk, how many bytes came for it, and which version, where only a part came."""

    checkpoint: LocalCheckpoint
    n_bytes: int
    version: str | None = None


@dataclass(frozen=True)
class Plan:
    """Which checkpoints are fetched together.

    Attributes:
        segments: Index ranges, one after another, that cover every checkpoint once.
        ahead: Whether a segment is fetched while the one before it is read.
        peak: Most bytes that lie on disk at any time.
    """

    segments: tuple[range, ...]
    ahead: bool
    peak: int


@dataclass(frozen=True)
class Segment:
    """Checkpoints on disk: `new` ones, the `old` ones just before them, and what the new ones have cost.

    `versions` tells, by the new ones' names, which version of their files it was, where only a part was fetched.
    """

    old: tuple[LocalCheckpoint, ...]
    new: tuple[LocalCheckpoint, ...]
    bytes_fetched: int
    seconds_waited: float
    versions: Mapping[str, str] = field(default_factory=dict)


def plan_segments(sizes: Sequence[int], keep: int, limit: int) -> Plan:
    """Divide checkpoints of `sizes` bytes so that a segment and the `keep` checkpoints before it fit into `limit`.

    Fetching ahead halves the segments, and shorter segments mean that kept checkpoints are read more often. So it is
    done only where a segment still holds at least as many bytes as are kept.

    Raises:
        DiskFullError: Not even one checkpoint and those it is compared with fit.
    """
    if sum(sizes) <= limit:
        return Plan((range(len(sizes)),), ahead=False, peak=sum(sizes))
    needed = max(sum(sizes[max(0, i - keep) : i + 1]) for i in range(len(sizes)))
    if needed > limit:
        raise _too_small(needed, limit, keep - 1)
    kept = max(sum(sizes[i : i + keep]) for i in range(len(sizes)))
    half = (limit - kept) // 2
    ahead = half >= max(kept, *sizes)

    def room(start: int) -> int:
        return half if ahead else limit - sum(sizes[max(0, start - keep) : start])

    segments = tuple(_fill(sizes, room))
    return Plan(segments, ahead, _peak(sizes, segments, keep, ahead=ahead))


def _fill(sizes: Sequence[int], room: Callable[[int], int]) -> Iterator[range]:
    """Segments as long as `room`, the bytes a segment that begins at an index may take, allows."""
    start = 0
    while start < len(sizes):
        stop, taken, allowed = start + 1, sizes[start], room(start)
        while stop < len(sizes) and taken + sizes[stop] <= allowed:
            taken += sizes[stop]
            stop += 1
        yield range(start, stop)
        start = stop


def _peak(sizes: Sequence[int], segments: Sequence[range], keep: int, *, ahead: bool) -> int:
    last = [*segments[1:], segments[-1]] if ahead else segments
    return max(
        sum(sizes[max(0, segment.start - keep) : until.stop]) for segment, until in zip(segments, last, strict=True)
    )


def bytes_to_read(sizes: Sequence[int], plan: Plan, keep: int) -> int:
    """Bytes of all segments, each with the `keep` checkpoints before it, which are read again."""
    return sum(sum(sizes[max(0, segment.start - keep) : segment.stop]) for segment in plan.segments)


def _too_small(needed: int, limit: int, lags: int) -> DiskFullError:
    return DiskFullError(
        f"a checkpoint and the {lags + 1} before it that it is compared with take {size_text(needed)}, "
        f"but `max_disk` allows {size_text(limit)} to each of the runs in flight.",
        next_step=f"raise --max-disk above {size_text(needed)} for each run at once, or lower --lags (now {lags}).",
    )


def fetch_segments(
    tracker: Tracker,
    run: TrackedRun,
    checkpoints: Sequence[CheckpointRef],
    *,
    keep: int,
    max_disk: int,
    folder: Path,
    on_fetched: Callable[[int], None],
    share: Share | None = None,
) -> Generator[Segment]:
    """The run's checkpoints on disk, segment by segment, never more than `max_disk` bytes in `folder`.

    Close the iterator (or exhaust it) before `folder` is removed. `on_fetched` is told the bytes of each checkpoint,
    from the thread that fetched it. Where a `share` is given, and the tracker can, no more is fetched than that needs.

    Raises:
        DiskFullError: `max_disk` is too small for this run, or the disk has less room than the plan needs.
        FetchInterruptedError: A download ended early.
    """
    if tracker.capabilities.local_checkpoints:
        local = [_local(ref, tracker.fetch(run, ref, folder)) for ref in checkpoints]
        yield Segment((), tuple(local), bytes_fetched=0, seconds_waited=0.0)
        return
    started = time.monotonic()
    window = _Window(tracker, run, folder, on_fetched, share)
    try:
        plan = plan_segments(window.sizes(checkpoints), keep, max_disk)
        _require_room(folder, plan.peak)
        yield from _slide(window, plan, checkpoints, keep, started)
    finally:
        window.close()


def _slide(
    window: _Window, plan: Plan, checkpoints: Sequence[CheckpointRef], keep: int, started: float
) -> Iterator[Segment]:
    on_disk: list[LocalCheckpoint] = []
    pending = window.request(checkpoints, plan.segments[0])
    for number, segment in enumerate(plan.segments):
        interruption.check()
        arrived = [future.result() for future in pending]
        new = [each.checkpoint for each in arrived]
        waited = time.monotonic() - started
        following = plan.segments[number + 1] if number + 1 < len(plan.segments) else range(0)
        if plan.ahead:
            pending = window.request(checkpoints, following)
        versions = {each.checkpoint.name: each.version for each in arrived if each.version is not None}
        yield Segment(tuple(on_disk[-keep:]), tuple(new), sum(each.n_bytes for each in arrived), waited, versions)
        started = time.monotonic()
        on_disk.extend(new)
        window.drop(range(segment.start - keep, segment.stop - keep))
        if not plan.ahead:
            pending = window.request(checkpoints, following)


class _Window:
    """The files of one run that lie in `folder`, each checkpoint in a folder of its own."""

    def __init__(
        self, tracker: Tracker, run: TrackedRun, folder: Path, on_fetched: Callable[[int], None], share: Share | None
    ) -> None:
        self._tracker, self._run, self._folder, self._on_fetched = tracker, run, folder, on_fetched
        self._share = share
        self._first: Arrived | None = None
        self._pool = ThreadPoolExecutor(PARALLEL_FETCHES, thread_name_prefix="fetch")

    def sizes(self, checkpoints: Sequence[CheckpointRef]) -> list[int]:
        """Bytes that each will take. What a share takes is known from the first, which is fetched for that."""
        if self._share is not None:
            self._first = self._part(self._share, checkpoints[0], self._new_place(0))
        if self._first is None:
            self._share = None  # whole files, then
            return [ref.size for ref in checkpoints]
        most = self._first.n_bytes + _HEADS_DIFFER * len(checkpoints[0].files)
        return [min(ref.size, most) for ref in checkpoints]

    def request(self, checkpoints: Sequence[CheckpointRef], indices: range) -> list[Future[Arrived]]:
        return [self._pool.submit(self._fetch, checkpoints[index], index) for index in indices]

    def drop(self, indices: range) -> None:
        for index in indices:
            if index >= 0:
                shutil.rmtree(self._place(index))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _place(self, index: int) -> Path:
        return self._folder / f"{index:06d}"

    def _new_place(self, index: int) -> Path:
        place = self._place(index)
        with file_errors(file=str(place)):
            place.mkdir(exist_ok=True)
        return place

    def _fetch(self, ref: CheckpointRef, index: int) -> Arrived:
        if index == 0 and self._first is not None:
            return self._first
        place = self._new_place(index)
        if self._share is None:
            checkpoint = _local(ref, self._tracker.fetch(self._run, ref, place))
            self._on_fetched(ref.size)
            return Arrived(checkpoint, ref.size)
        part = self._part(self._share, ref, place)
        if part is None:
            raise TrackerUnavailableError(
                "its store gave ranges of the first checkpoint's files, and gives none of this one's.",
                run=self._run.key.run_name,
                file=ref.name,
                next_step="start the audit again, with --shards 1 where it comes back.",
            )
        return part

    def _part(self, share: Share, ref: CheckpointRef, place: Path) -> Arrived | None:
        needed = share.of_next()
        try:
            part = self._tracker.fetch_part(self._run, ref, place, needed)
        except CheckpointError as error:
            error.file = ref.name
            raise
        if part is None:
            return None
        self._on_fetched(part.n_bytes)
        return Arrived(replace(_local(ref, part.files), pieces=needed.pieces), part.n_bytes, part.version)


def _local(ref: CheckpointRef, files: tuple[Path, ...]) -> LocalCheckpoint:
    return LocalCheckpoint(step=ref.step, name=ref.name, files=files)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"needs {size_text(needed)} for downloads, and {size_text(free)} are free.",
            file=str(folder),
            left_behind="nothing was fetched",
            next_step="free some room, name another --spool, or lower --max-disk.",
        )
