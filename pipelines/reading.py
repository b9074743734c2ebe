"""Fetching the checkpoints of one run and summing over them: all parameters or one part of them, here or on a worker.

Nothing here knows settings, store or Prefect: a worker of a cluster needs this module, a tracker, and room on its disk.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from integrations.tracker import CheckpointRef, TrackedRun, Tracker
from pipelines.fetching import fetch_segments
from pipelines.share import Share, comes_in_shares
from pipelines.spool import spool_folder
from spectral_edge import interruption
from spectral_edge.blocks import WHOLE, Shard
from spectral_edge.gram import TrajectoryPass
from spectral_edge.settings import Settings
from spectral_edge.trajectory import Trajectory


@dataclass
class Costs:
    """What a run has cost so far. It grows while checkpoints are read, so that a failure can tell it too.

    `versions` tells by checkpoint's name which version of its files was read, where only a part of them was fetched.
    """

    bytes_fetched: int = 0
    bytes_read: int = 0
    seconds_fetch: float = 0.0
    seconds_gram: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, other: Costs) -> None:
        """Both together; seconds of several workers are added up."""
        self.bytes_fetched += other.bytes_fetched
        self.bytes_read += other.bytes_read
        self.seconds_fetch += other.seconds_fetch
        self.seconds_gram += other.seconds_gram


@dataclass(frozen=True)
class Reading:
    """What is read, and with how much of the machine.

    Attributes:
        run: The checkpoints' run.
        refs: By increasing step.
        analysis: Uses `lags` and `include`.
        device: Where products are formed.
        spool: Folder for downloads in flight.
        max_disk: Bytes that they may take.
        threads: Threads of the pass; as many as there are cores when None.
        shard: The part of the parameters that is summed.
    """

    run: TrackedRun
    refs: tuple[CheckpointRef, ...]
    analysis: Settings
    device: str
    spool: Path
    max_disk: int
    threads: int | None = None
    shard: Shard = WHOLE

    def comes_in_shares(self, tracker: Tracker) -> bool:
        """Whether parts of these checkpoints can be fetched without the rest; asks for the heads of the last one."""
        share = Share(WHOLE, frozenset(self.analysis.include))
        with spool_folder(self.spool, _name(self.refs)) as folder:
            return comes_in_shares(tracker, self.run, self.refs[-1], share, folder)


def read(
    tracker: Tracker,
    reading: Reading,
    costs: Costs,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
    on_fetched: Callable[[int], None] = lambda _: None,
) -> Trajectory:
    """Fetch and read what `reading` says; `costs` grows meanwhile.

    Raises:
        CheckpointError: A file is damaged, asks for code to be run, or holds NaN or Inf.
        TrajectoryError: The checkpoints form no trajectory.
        DiskFullError: `max_disk` is too small for this run, or there is no room.
        FetchInterruptedError: A download ended early.
    """
    lags = reading.analysis.lags

    def count_bytes(n_read: int) -> None:
        interruption.check()
        costs.bytes_read += n_read
        on_bytes(n_read)

    with spool_folder(reading.spool, _name(reading.refs)) as folder:
        the_pass = TrajectoryPass(
            reading.analysis, reading.device, scratch=folder, threads=reading.threads, shard=reading.shard
        )
        segments = fetch_segments(
            tracker,
            reading.run,
            reading.refs,
            keep=lags + 1,
            max_disk=reading.max_disk,
            folder=folder,
            on_fetched=on_fetched,
            share=None if reading.shard == WHOLE else Share(reading.shard, frozenset(reading.analysis.include)),
        )
        with closing(segments):
            for segment in segments:
                costs.seconds_fetch += segment.seconds_waited
                costs.bytes_fetched += segment.bytes_fetched
                costs.versions |= segment.versions
                started = time.monotonic()
                the_pass.extend(segment.old, segment.new, count_bytes)
                costs.seconds_gram += time.monotonic() - started
        return the_pass.result()


def _name(refs: tuple[CheckpointRef, ...]) -> str:
    """For people who look into the spool; the folder's own name is made unique anyway."""
    return hashlib.sha256(repr([ref.name for ref in refs]).encode()).hexdigest()[:12]
