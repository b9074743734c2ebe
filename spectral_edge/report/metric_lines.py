"""The run's own metrics as lines over the training steps: what is drawn of table `metrics`, in the page and as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    known = (pc.field("role") != "learning_rate") & pc.field("name").is_valid() & pc.field("step").is_valid()
    rows = metrics.filter(known).sort_by([("role", "ascending"), ("name", "ascending")]).combine_chunks()
    lines = list(_by_metric(rows))  # role `metric` comes before `other`
    higher = next((told for role, told, _ in lines if role == "metric"), None)
    return tuple(
        MetricLine(thinned(series, POINTS_DRAWN), beside=higher is not None and told == higher)
        for _, told, series in lines
    )


def _by_metric(rows: pa.Table) -> Iterator[tuple[str, bool | None, MetricSeries]]:
    """Role, direction and points of each metric in `rows`, which are sorted by role and name."""
    codes = [rows[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("role", "name")]
    begins = np.flatnonzero(np.any([np.diff(code, prepend=-1) for code in codes], axis=0)).tolist()
    steps, values = rows["step"].to_numpy(), rows["value"].to_numpy()
    for begin, end in pairwise([*begins, len(steps)]):
        role, name, higher = (rows[column][begin].as_py() for column in ("role", "name", "higher_is_better"))
        yield role, higher, MetricSeries.from_points(name, steps[begin:end], values[begin:end])


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
