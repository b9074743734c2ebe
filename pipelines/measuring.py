"""A run's trajectory: from the store's band as far as that goes, from the checkpoints for the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from integrations.recordings import records_as_listed
from integrations.tracker import CheckpointRef, TrackedRun
from pipelines import cluster, progress
from pipelines.decisions import Decision, Scope
from pipelines.reading import Costs, Reading, read
from spectral_edge.errors import TrajectoryError, ZeroUpdatesError
from spectral_edge.recorded import Recorded, sketch_warnings
from spectral_edge.resuming import lags_of, with_new_checkpoints
from spectral_edge.trajectory import Trajectory


@dataclass(frozen=True)
class Measured:
    """A run's trajectory and how it came about, in the words of :class:`pipelines.results.RunResult`."""

    trajectory: Trajectory
    how: Literal["audited", "extended", "reanalysed"]


def measure(scope: Scope, run: TrackedRun, decision: Decision, device: str, costs: Costs) -> Measured:
    """Do what `decision` says of the checkpoints of `run`; all are read where new ones do not continue what is known.

    Raises:
        CheckpointError: A file is damaged, asks for code to be run, or holds NaN or Inf.
        TrajectoryError: The checkpoints form no trajectory.
        DiskFullError: `max_disk` is too small for this run, or there is no room.
        FetchInterruptedError: A download ended early.
    """
    if decision.listing.is_recorded:
        return _recorded(scope, run, decision, costs)
    known = decision.known
    if known is not None and decision.action == "reanalyse":
        return Measured(known, "reanalysed")
    reading = _Reading(scope, run, device, costs)
    if known is not None and (whole := _extended(reading, decision, known)):
        return Measured(whole, "extended")
    return Measured(reading.read(decision.listing.checkpoints, scope.analysis.lags), "audited")


def _extended(reading: _Reading, decision: Decision, known: Trajectory) -> Trajectory | None:
    """What is known, followed by what is new; None when the new checkpoints do not continue it."""
    try:
        tail = reading.read(decision.to_read, lags_of(known))
    except ZeroUpdatesError:
        return None  # only the last checkpoints stand still: the run as a whole need not
    return with_new_checkpoints(known, tail, [ref.name for ref in decision.listing.checkpoints])


def _recorded(scope: Scope, run: TrackedRun, decision: Decision, costs: Costs) -> Measured:
    """The same of a run that recorded sketches. What they cannot tell is an error, and how far they err a warning."""
    if scope.analysis.include != ("parameters",):
        raise TrajectoryError(
            f"only parameters were recorded, and {', '.join(scope.analysis.include)} were asked for.",
            run=run.key.run_name,
            next_step="leave out --include, or audit checkpoints of this run.",
        )
    listed, known = decision.listing.checkpoints, decision.known
    # Nothing is copied: only trackers with `local_checkpoints` list recordings.
    (path,) = scope.tracker.fetch(run, listed[-1], scope.settings.spool)
    recorded = records_as_listed(path, listed, run.key.run_name)
    warnings = sketch_warnings(recorded.file.header, scope.analysis.window)
    if known is not None and decision.action == "reanalyse":
        return Measured(replace(known, warnings=warnings + known.warnings), "reanalysed")
    if known is not None and (whole := _records_extended(recorded, known, len(decision.to_read), costs)):
        return Measured(replace(whole, warnings=warnings + whole.warnings), "extended")
    recorded.require_enough()
    whole = _records(recorded, len(listed), scope.analysis.lags, costs)
    return Measured(replace(whole, warnings=warnings + whole.warnings), "audited")


def _records_extended(recorded: Recorded, known: Trajectory, count: int, costs: Costs) -> Trajectory | None:
    try:
        tail = _records(recorded, count, lags_of(known), costs)
    except ZeroUpdatesError:
        return None
    return with_new_checkpoints(known, tail, recorded.names)


def _records(recorded: Recorded, count: int, lags: int, costs: Costs) -> Trajectory:
    """The last `count` records."""
    started = time.monotonic()
    costs.bytes_read += sum(record.size for record in recorded.records[-count:])
    try:
        return recorded.since(len(recorded.records) - count, lags)
    finally:
        costs.seconds_gram += time.monotonic() - started


@dataclass(frozen=True)
class _Reading:
    """How checkpoints of one run are read."""

    scope: Scope
    run: TrackedRun
    device: str
    costs: Costs

    def read(self, refs: Sequence[CheckpointRef], lags: int) -> Trajectory:
        """Fetch and read `refs`, on the cluster if there is one."""
        settings, tracker = self.scope.settings, self.scope.tracker
        is_local = tracker.capabilities.local_checkpoints
        n_bytes = sum(ref.size for ref in refs)
        shown = progress.current().run_started(self.run.key, len(refs), 0 if is_local else n_bytes, n_bytes)
        reading = Reading(
            self.run,
            tuple(refs),
            replace(self.scope.analysis, lags=lags),
            self.device,
            settings.spool,
            settings.max_disk_per_run,
        )
        on_cluster = cluster.current()
        if on_cluster is not None:
            return on_cluster.read(reading, self.costs, shown, lambda: is_local or reading.comes_in_shares(tracker))
        return read(tracker, reading, self.costs, on_bytes=shown.read, on_fetched=shown.fetched)
