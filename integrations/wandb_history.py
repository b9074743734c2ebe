"""A W&B run's metrics by training step, complete, on the axis that the run itself gave them.

W&B numbers the rows of a history by itself (`_step`); `define_metric` names the metric that counts training steps where
those are not the same. Rows are read with wandb's scan, which leaves out none; what W&B draws is a sample.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wandb.apis.public import Run

from integrations.wandb_connection import WandbConnection
from integrations.wandb_values import StepMetrics, is_training_metric
from spectral_edge.series import MetricSeries

ROW: Final = "_step"
"""What W&B calls the number of a row."""
_PAGE: Final = 1000
"""Numbers of rows that are asked for at once; more may be thinned out by the server."""
_LARGEST_STEP: Final = 10**18


def metric_names(run: Run) -> tuple[str, ...]:
    """Names of the metrics with numbers that the run logged itself, sorted."""
    keys = _told(run).get("keys")
    numeric = (name for name, about in keys.items() if _holds_numbers(about)) if isinstance(keys, Mapping) else ()
    return tuple(sorted(filter(is_training_metric, numeric)))


def metric_series(connection: WandbConnection, run: Run, name: str) -> MetricSeries:
    """The complete history of metric `name` by training step; at a repeated step, the point that was logged last."""
    axis = StepMetrics.of_config(run.rawconfig).of(name) or ROW
    points = [
        (step, value)
        for row in _rows(connection, run, axis, name)
        for step, value in [(_step(row.get(axis)), _value(row.get(name)))]
        if step is not None and value is not None
    ]
    return MetricSeries.from_points(name, [step for step, _ in points], [value for _, value in points])


class HistorySteps:
    """The training step of a row of the history, by the row's number; the history is read only where that differs."""

    def __init__(self, connection: WandbConnection, run: Run) -> None:
        self._connection, self._run = connection, run
        self._axis = common_axis(StepMetrics.of_config(run.rawconfig))
        self._known: list[tuple[int, int]] | None = None

    def at(self, number: int | None) -> int | None:
        """The training step of the last row up to `number` that tells one; None where none does."""
        if number is None or self._axis is None:
            return number
        if self._known is None:
            self._known = sorted(self._read(self._axis))
        behind = bisect_right(self._known, number, key=lambda row: row[0])
        return self._known[behind - 1][1] if behind else None

    def _read(self, axis: str) -> Iterator[tuple[int, int]]:
        for row in _rows(self._connection, self._run, ROW, axis):
            number, step = _step(row.get(ROW)), _step(row.get(axis))
            if number is not None and step is not None:
                yield number, step


def common_axis(told: StepMetrics) -> str | None:
    """The metric that counts the training steps of the whole run; None where W&B's numbers of rows do."""
    every = [step for start, step in told.patterns if not start]
    named = {*told.exact.values(), *(step for _, step in told.patterns)}
    return every[0] if every else next(iter(named)) if len(named) == 1 else None


def _rows(connection: WandbConnection, run: Run, *keys: str) -> Iterator[dict[str, Any]]:
    """The rows that hold all `keys`, in their order."""
    # A few rows with large numbers (the training step, given with each) come on one page.
    lines, last = run.history_line_count, _told(run).get("lastStep")
    page = max(_PAGE, last + 1) if isinstance(last, int) and lines is not None and lines <= _PAGE else _PAGE
    with connection.errors(run=run.name or run.id):
        # Not from wandb's cache, which would grow in the user's home.
        yield from run.scan_history(keys=[*dict.fromkeys(keys)], page_size=page, use_cache=False)


def _told(run: Run) -> Mapping[str, Any]:
    """What the server says of the history as a whole."""
    return run.history_keys if isinstance(run.history_keys, Mapping) else {}


def _holds_numbers(about: object) -> bool:
    kinds = about.get("typeCounts") if isinstance(about, Mapping) else None
    if not isinstance(kinds, list):
        return True  # an older server: what turns out to hold none is an empty series
    return any(isinstance(kind, Mapping) and kind.get("type") == "number" for kind in kinds)


def _step(value: object) -> int | None:
    """`value` if it is a number that can be a step; what is no whole number is none."""
    number = _value(value)
    return int(number) if number is not None and 0 <= number < _LARGEST_STEP and number == int(number) else None


def _value(value: object) -> float | None:
    """`value` as a number; W&B writes those that JSON lacks as words (`NaN`)."""
    if isinstance(value, str) and value in {"NaN", "Infinity", "-Infinity"}:
        return float(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
