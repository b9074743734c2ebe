"""Reads what a Recorder wrote, as a trajectory that is analysed like one from checkpoints (theory 2).

    run = analyse_recorded("run.sketch")
    run.gaps.to_pandas()

All that follows from a sketch is an estimate. The trajectory says so in its warnings, and so does the run's row in
table `runs`; :class:`Recorded` has the error of each group.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.audited_run import AuditedRun
from spectral_edge.band import Band, Matrix, total
from spectral_edge.errors import AccessDeniedError, NonFiniteError, NotFoundError, TooFewCheckpointsError
from spectral_edge.groups import Cell, groups
from spectral_edge.metric_points import MOST_FURTHER
from spectral_edge.series import FurtherMetric, MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.sketching import relative_error
from spectral_edge.sketching.record_file import Header, Record, RecordFile, read_file
from spectral_edge.sketching.sketcher import CellSketch
from spectral_edge.tables import RunKey
from spectral_edge.trajectory import Trajectory, checked

SERIES: Final = "recorded sketches"
"""What tables call the series of a recorded run."""


@dataclass(frozen=True)
class Recorded:
    """A recorded run.

    Attributes:
        file: What was read.
        records: Those of its records that count, by increasing step. A run that went back to a checkpoint records some
            steps twice, and the later record counts.
    """

    file: RecordFile
    records: tuple[Record, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """Training step of each record, strictly increasing."""
        return tuple(record.step for record in self.records)

    @cached_property
    def relative_errors(self) -> dict[str, float]:
        """Expected standard error of a singular value over the value, by group (spectral_edge.sketching).

        A group of several cells is at least as exact as its least exact cell, which is what is told; 0 means exact.
        """
        return {
            group: max(_error(one) for one in self.file.header.cells if one.cell in members)
            for group, members in groups(one.cell for one in self.file.header.cells).items()
        }

    @property
    def sketch_size(self) -> int | None:
        """Fewest numbers kept of a part of the model that has more parameters; None where everything is exact."""
        return min(self.file.header.sketch_sizes, default=None)

    @property
    def names(self) -> list[str]:
        """What messages call each record."""
        return [f"record {index + 1} (step {record.step})" for index, record in enumerate(self.records)]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the file does not count, one sentence each."""
        told = []
        if self.file.torn:
            told.append(f"{self.file.torn} bytes at the end of {self.file.path.name} are no whole record; left out.")
        if superseded := len(self.file.records) - len(self.records):
            told.append(
                f"The run went back to earlier steps; {superseded} record(s) that it went over again are left out."
            )
        return tuple(told)

    def digest(self, record: Record) -> str:
        """Identifies one record's content: checksums of the file's header and of the record."""
        return f"crc32:{zlib.crc32(self.file.header.to_bytes()):08x}{record.checksum:08x}"

    @property
    def learning_rate(self) -> MetricSeries:
        """The learning rate that was recorded; empty when none was."""
        return self._series("learning_rate", [record.learning_rate for record in self.records])

    @property
    def metrics(self) -> dict[str, MetricSeries]:
        """The metrics that were recorded, by name."""
        names = sorted({name for record in self.records for name in record.metrics})
        return {name: self._series(name, [record.metrics.get(name) for record in self.records]) for name in names}

    def training_record(self, metric: str | None = None, *, higher_is_better: bool = True) -> TrainingRecord:
        """What the run recorded of its own training.

        Args:
            metric: Name of the held-out metric to compare with; none when None.
            higher_is_better: Which of its values are better.

        Raises:
            NotFoundError: No such metric was recorded.
        """
        recorded = self.metrics
        if metric is not None and metric not in recorded:
            raise NotFoundError(
                f"metric {metric!r} was not recorded; there are: {', '.join(recorded) or 'none'}.",
                file=str(self.file.path),
            )
        rate = self.learning_rate
        others = [series for name, series in recorded.items() if name != metric][:MOST_FURTHER]
        return TrainingRecord(
            learning_rate=rate if len(rate.steps) else None,
            metric=None if metric is None else recorded[metric],
            higher_is_better=higher_is_better,
            further=tuple(map(FurtherMetric, others)),
        )

    def trajectory(self, settings: Settings | None = None) -> Trajectory:
        """The estimated band of every group, with warnings that tell how exact it is.

        Args:
            settings: Uses `lags` and `window`; the defaults when None.

        Raises:
            TooFewCheckpointsError: Fewer than three records.
            NonFiniteError: The model held NaN or Inf at a record.
            ZeroUpdatesError: All records hold the same model.
        """
        chosen = settings or Settings()
        self.require_enough()
        warnings = (*sketch_warnings(self.file.header, chosen.window), *self.left_out)
        return replace(self.since(0, chosen.lags), warnings=warnings)

    def require_enough(self) -> None:
        """Three records make the shortest window.

        Raises:
            TooFewCheckpointsError: There are fewer.
        """
        if len(self.records) < 3:
            raise TooFewCheckpointsError(
                f"holds {len(self.records)} record(s), need at least 3: two updates make the shortest window.",
                file=str(self.file.path),
                next_step="record more often (a smaller `every`), or train longer.",
            )

    def since(self, first: int, lags: int) -> Trajectory:
        """The estimated band over the records from index `first` on. All of them are read and checked, none before.

        Raises:
            CheckpointFormatError: A record is damaged.
            NonFiniteError: The model held NaN or Inf at a record.
            ZeroUpdatesError: All records hold the same model.
        """
        records, names = self.records[first:], self.names[first:]
        bands = self._bands(records, lags, names)
        of_groups = {group: total(bands[cell] for cell in sorted(members)) for group, members in groups(bands).items()}
        return checked(Trajectory(self.steps[first:], of_groups), names)

    def _bands(self, records: tuple[Record, ...], lags: int, names: list[str]) -> dict[Cell, Band]:
        cells = self.file.header.cells
        starts = np.cumsum([0, *(one.size for one in cells)])[:-1]
        values = np.zeros((len(cells), len(records) - 1, lags + 1))
        energy = np.zeros((len(cells), len(records)))
        updates: deque[Matrix] = deque(maxlen=lags + 1)
        before: Matrix | None = None
        for index, state in enumerate(self.file.sketches(records)):
            if not np.isfinite(state).all():
                raise NonFiniteError(f"the model held NaN or Inf at {names[index]}.", file=str(self.file.path))
            with np.errstate(over="ignore", invalid="ignore"):
                energy[:, index] = np.add.reduceat(state**2, starts)
                if before is not None:
                    updates.appendleft(state - before)
                    for lag, earlier in enumerate(updates):
                        values[:, index - 1, lag] = np.add.reduceat(updates[0] * earlier, starts)
            if not (np.isfinite(energy[:, index]).all() and np.isfinite(values[:, index - 1]).all()):
                raise NonFiniteError(
                    f"the weights are so large at {names[index]} that products of updates overflow float64.",
                    file=str(self.file.path),
                )
            before = state
        rounding = np.array([one.rounding_eps**2 / 3 for one in cells])[:, None] * (energy[:, 1:] + energy[:, :-1])
        return {one.cell: Band(values[i], one.n_parameters, rounding[i]) for i, one in enumerate(cells)}

    def _series(self, name: str, values: list[float | None]) -> MetricSeries:
        told = [(step, value) for step, value in zip(self.steps, values, strict=True) if value is not None]
        return MetricSeries.from_points(name, [step for step, _ in told], [value for _, value in told])


def read_run(path: str | Path, *, check: bool = True) -> Recorded:
    """What a Recorder wrote to `path`. Nothing in the file is executed.

    Args:
        path: The file.
        check: Whether all sketches are read and checked at once, or each when it is asked for.

    Raises:
        NotFoundError: No such file.
        AccessDeniedError: It may not be read.
        CheckpointFormatError: It is no such file, or damaged.
    """
    try:
        file = read_file(Path(path), check=check)
    except PermissionError as error:
        raise AccessDeniedError("may not be read.", file=str(path)) from error
    except OSError as error:
        raise NotFoundError(f"cannot be read: {error.strerror}.", file=str(path)) from error
    kept: list[Record] = []
    for record in file.records:
        while kept and kept[-1].step >= record.step:
            kept.pop()
        kept.append(record)
    return Recorded(file, tuple(kept))


def read_recorded(path: str | Path, settings: Settings | None = None) -> Trajectory:
    """The trajectory that a Recorder wrote to `path`: see read_run and Recorded.trajectory for what it raises."""
    return read_run(path).trajectory(settings)


def analyse_recorded(
    path: str | Path, *, settings: Settings | None = None, record: TrainingRecord | None = None
) -> AuditedRun:
    """Spectra, regimes and transitions of a recorded run. Nothing is written.

    Args:
        path: The file.
        settings: The defaults when None. `metric` names the held-out metric among those recorded.
        record: Learning rate and held-out metric; those that were recorded when None.

    Raises:
        SpectralEdgeError: As :func:`read_run`, :meth:`Recorded.trajectory`, :meth:`Recorded.training_record`.
    """
    chosen = settings or Settings()
    started = time.perf_counter()
    recorded = read_run(path)
    trajectory = recorded.trajectory(chosen)
    told = record or recorded.training_record(chosen.metric, higher_is_better=chosen.metric_direction != "lower")
    file = Path(path).resolve()
    status = file.stat()
    provenance = Provenance(
        fingerprint=hashlib.sha256(repr((file.name, recorded.file.end, recorded.steps)).encode()).hexdigest(),
        state="unknown",
        url=file.as_uri(),
        series=SERIES,
        step_source="record",
        sketch_size=recorded.sketch_size,
        bytes_read=status.st_size,
        seconds_gram=time.perf_counter() - started,
    )
    key = RunKey("dir", file.parent.name, file.name, file.stem)
    return AuditedRun.of(analyse_run(key, trajectory, told, chosen, provenance))


def sketch_warnings(header: Header, window: int) -> tuple[str, ...]:
    """How far numbers from such sketches err in windows of `window` updates, one sentence each; empty when exact."""
    sizes = header.sketch_sizes
    if not sizes:
        return ()
    alone, together = relative_error(sizes[0]), relative_error(sizes[0], window)
    estimates = (
        f"All numbers are estimates from sketches of {_range(sizes)} numbers for each part of the model. The "
        f"expected relative error of a singular value is {alone:.1%}, and {together:.1%} among {window} that lie "
        "together; what is closer than that is not told apart, nor is k* there. Changes of the Gram matrix come out "
        "too large, so that regimes may differ from those of checkpoints."
    )
    small = f"A sketch of {sizes[0]} numbers is small for windows of {window} updates: take at least {10 * window}."
    return (estimates, small) if sizes[0] < 10 * window else (estimates,)


def _error(one: CellSketch) -> float:
    return relative_error(one.size) if one.size < one.n_parameters else 0.0


def _range(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
