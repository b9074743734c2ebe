"""What a researcher has of a run's training, whatever its form, as a :class:`TrainingRecord`.

A metric may be a column of a log (a CSV, JSON lines or Parquet file, a data frame), a mapping of steps to values, or a
series of pandas whose index are the steps. What cannot be joined with the checkpoints is an error here, and not a
warning: it was named on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from spectral_edge.errors import AccessDeniedError, NotFoundError, UsageError
from spectral_edge.metric_direction import higher_is_better
from spectral_edge.series import MetricSeries, Steps, TrainingRecord
from spectral_edge.settings import Settings

METRICS_FILES: Final = tuple(
    f"{stem}.{ending}"
    for stem in ("metrics", "log", "history", "training_log")
    for ending in ("csv", "jsonl", "ndjson")
)
"""Names looked for in the run's folder; the first that is there counts. Lightning's CSVLogger writes metrics.csv."""
STEP_COLUMNS: Final = ("step", "global_step", "_step", "iteration")
"""Names of the column of training steps."""

_NAMES_SHOWN: Final = 20


class Points(Protocol):
    """Values by training step: a mapping, or a series of pandas whose index are the steps."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Pairs of a step and its value."""
        ...


class Frame(Protocol):
    """A table with named columns: a data frame of pandas or Polars, an Arrow table."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table, as Arrow's interface in C."""
        ...


Metric = MetricSeries | Points | str
LearningRate = Metric | float
Log = str | Path | Frame | Mapping[str, Sequence[Any]]


def record_of(
    metric: Metric | None, learning_rate: LearningRate | None, log: Log | None, *, folder: Path, settings: Settings
) -> TrainingRecord:
    """The training record that is meant.

    Args:
        metric: The held-out metric: its column in `log`, or its values. `settings.metric` when None.
        learning_rate: The rate: its column in `log`, its values, or the one number that held throughout.
            `settings.learning_rate_metric` when None.
        log: A table with a column of steps; the metrics file in `folder` when None.
        folder: Of the checkpoints.
        settings: Also says which values of the metric are better, unless its name does.

    Raises:
        UsageError: Something given is none of these, or has no such column.
        NotFoundError: No such file.
        AccessDeniedError: The file may not be read.
    """
    metric = settings.metric if metric is None else metric
    learning_rate = settings.learning_rate_metric if learning_rate is None else learning_rate
    table = None
    if isinstance(metric, str) or isinstance(learning_rate, str):
        table = _table(_default_log(folder) if log is None else log)
    series = None if metric is None else _series("metric", metric, table)
    higher, doubt = _direction(series, settings)
    if isinstance(learning_rate, int | float):
        return TrainingRecord(
            constant_learning_rate=float(learning_rate), metric=series, higher_is_better=higher, warnings=doubt
        )
    rate = None if learning_rate is None else _series("learning_rate", learning_rate, table)
    return TrainingRecord(learning_rate=rate, metric=series, higher_is_better=higher, warnings=doubt)


def require_same_axis(record: TrainingRecord, steps: Steps) -> None:
    """See that metric and learning rate count the steps that the checkpoints do.

    Raises:
        UsageError: One of them counts others, as epochs, or holds no value.
    """
    for series in (record.metric, record.learning_rate):
        if series is None or series.shares_axis_with(steps):
            continue
        if len(series.steps) == 0:
            raise UsageError(f"{series.name!r} holds no finite value.")
        raise UsageError(
            f"{series.name!r} has values at steps {series.steps[0]} to {series.steps[-1]}, the checkpoints lie at "
            f"{steps[0]} to {steps[-1]}: they do not count the same.",
            next_step="give it by the steps that the names of the checkpoints count; if those are epochs, by epochs.",
        )


def _series(what: str, given: MetricSeries | Points | str, table: pa.Table | None) -> MetricSeries:
    if isinstance(given, MetricSeries):
        return given
    if isinstance(given, str):
        if table is None:
            raise UsageError(f"there is no log to find {what} {given!r} in.")
        return _column(table, given)
    try:
        points = [(step, value) for step, value in given.items()]
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"`{what}` must be the name of a column of `log`, a mapping of steps to values, or a series of pandas by "
            f"step, got {type(given).__name__}."
        ) from error
    name = getattr(given, "name", None)
    return _joined(str(name) if name is not None else what, [step for step, _ in points], [one for _, one in points])


def _column(table: pa.Table, name: str) -> MetricSeries:
    numbers = [field.name for field in table.schema if _is_number(field.type)]
    steps = next((column for column in STEP_COLUMNS if column in numbers), None)
    if steps is None:
        raise UsageError(
            f"the log has no column of steps ({', '.join(STEP_COLUMNS)}); its columns of numbers: {_listed(numbers)}.",
            next_step="rename the column that holds them to `step`.",
        )
    if name not in numbers:
        near = get_close_matches(name, numbers, n=1)
        kind = "holds text" if name in table.column_names else "is not there"
        raise UsageError(
            f"column {name!r} of the log {kind}; its columns of numbers: {_listed(numbers)}.",
            next_step=f"did you mean {near[0]!r}?" if near else None,
        )
    rows = table.select(list(dict.fromkeys((steps, name)))).drop_null()
    return _joined(name, rows.column(steps).to_pylist(), rows.column(name).to_pylist())


def _joined(name: str, steps: Sequence[Any], values: Sequence[Any]) -> MetricSeries:
    try:
        at = np.asarray([float(step) for step in steps])
        told = np.asarray([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name!r} holds something that is no number: {error}.") from error
    odd = at[~(np.isfinite(at) & (at == np.round(at)) & (abs(at) < 2**53))]
    if len(odd):
        raise UsageError(f"{name!r} has a value at step {odd[0]:g}, which is no whole number.")
    return MetricSeries.from_points(name, at.astype(np.int64), told)


def _default_log(folder: Path) -> Path:
    found = next((folder / name for name in METRICS_FILES if (folder / name).is_file()), None)
    if found is None:
        raise UsageError(
            f"`log` is not given, and there is no metrics.csv or metrics.jsonl in {folder}.",
            next_step="give the file or the data frame as `log`, or the values themselves: {0: 0.1, 500: 0.4}.",
        )
    return found


def _table(log: Log) -> pa.Table:
    if isinstance(log, str | Path):
        return _read(Path(log))
    try:
        if getattr(getattr(log, "index", None), "name", None) in STEP_COLUMNS:  # the index of a data frame of pandas
            log = log.reset_index()  # type: ignore[union-attr]
        return pa.table(log)
    except (TypeError, ValueError) as error:  # ArrowException is one of the two
        raise UsageError(
            f"`log` must be a file, a data frame or a mapping of names to columns, got {type(log).__name__}: {error}."
        ) from error


def _read(path: Path) -> pa.Table:
    readers = {
        ".csv": pa.csv.read_csv,
        ".jsonl": pa.json.read_json,
        ".ndjson": pa.json.read_json,
        ".parquet": pa.parquet.read_table,
    }
    if path.suffix.lower() not in readers:
        raise UsageError(f"`log` must end in {', '.join(readers)}, got {path.name!r}.")
    try:
        return readers[path.suffix.lower()](path)
    except FileNotFoundError as error:
        raise NotFoundError("there is no such file.", file=str(path)) from error
    except PermissionError as error:
        raise AccessDeniedError("may not be read.", file=str(path)) from error
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot be read as {path.suffix[1:].upper()}: {error}", file=str(path)) from error


def _direction(metric: MetricSeries | None, settings: Settings) -> tuple[bool, tuple[str, ...]]:
    if settings.metric_direction is not None or metric is None:
        return settings.metric_direction != "lower", ()
    told = higher_is_better(metric.name)
    if told is not None:
        return told, ()
    doubt = f"the name of metric {metric.name!r} does not tell its direction: higher was taken as better"
    return True, (f"{doubt} (Settings(metric_direction='lower') for the other).",)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (", ".join(map(repr, names[:_NAMES_SHOWN])) or "none") + more
