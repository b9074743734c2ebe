"""The run's own metrics as lines over the training steps: what is drawn of table `metrics`, in the page and as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from spectral_edge.metric_points import thinned
from spectral_edge.series import MetricSeries

METRIC_COLUMNS: Final = ("tracker", "project", "run_id", "name", "role", "higher_is_better", "step", "value")
"""The columns of table `metrics` that the report reads."""
POINTS_DRAWN: Final = 160
"""Points of one line: a panel is 660 pixels wide. The store has more."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class MetricLine:
    """One metric of a run. `beside` says whether it is drawn in the panel of the evaluation metric.

    Metrics that are better in the same direction share a panel: losses one, accuracies the other.
    """

    series: MetricSeries
    beside: bool

    def points(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """Rows for the chart, of the steps from `first` to `last`."""
        for step, value in zip(self.series.steps.tolist(), self.series.values.tolist(), strict=True):
            if first <= step <= last:
                yield {"name": self.series.name, "step": step, "value": value, "part": "", "beside": self.beside}


def metric_lines(metrics: pa.Table) -> tuple[MetricLine, ...]:
    """What is drawn of one run's rows of table `metrics`: the evaluation metric first, then the others by name.

    The learning rate is not among them: table `gaps` has it, window by window.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in metrics.select([*METRIC_COLUMNS[3:]]).to_pylist():
        if row["role"] != "learning_rate":
            found.setdefault((row["role"], row["name"]), []).append(row)
    higher = next((rows[0]["higher_is_better"] for (role, _), rows in found.items() if role == "metric"), None)
    return tuple(
        MetricLine(
            thinned(_series(name, rows), POINTS_DRAWN),
            beside=higher is not None and rows[0]["higher_is_better"] == higher,
        )
        for (_, name), rows in sorted(found.items())  # role `metric` comes before `other`
    )


def _series(name: str, rows: Sequence[Row]) -> MetricSeries:
    steps = np.array([row["step"] for row in rows], dtype=np.int64)
    return MetricSeries.from_points(name, steps, np.array([row["value"] for row in rows], dtype=np.float64))


def points_drawn(lines: Sequence[MetricLine], levels: Sequence[Row], first: int, last: int) -> list[dict[str, Any]]:
    """Rows of dataset `points`. Where the store has no values of the metric, its means stand for them. Page.js does so.

    Args:
        lines: Of the run.
        levels: The means before and after the metric moves, as rows of dataset `metric`.
        first: First step of the axis.
        last: Last step of the axis.
    """
    drawn = [point for line in lines for point in line.points(first, last)]
    return drawn or [
        {name: row[name] for name in ("name", "step", "value", "part")} | {"beside": True} for row in levels
    ]
