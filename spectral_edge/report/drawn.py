"""What is drawn of a run: few columns, by parameter group.

Charts in the page and charts as PNG are fed the same structure, so they cannot tell different things. Columns keep
their names of :mod:`spectral_edge.tables`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spectral_edge.band import Matrix
from spectral_edge.report.metric_lines import MetricLine, points_drawn

OVERLAPS_DRAWN: Final = 3
"""Leading directions whose overlap is drawn; the rest of the list is noise over noise."""

_LISTS: Final = ("singular_values", "overlap")
_REALS: Final = ("gap_ratio", "rotation_degrees", "gram_change_relative", "learning_rate")
_AS_IS: Final = ("step", "short", "k_star", "regime")
GAP_COLUMNS: Final = (
    *("tracker", "project", "run_id", "group", "step_first", "regime_reason"),
    *_LISTS,
    *_AS_IS,
    *_REALS,
)
"""The columns of table `gaps` that the report reads."""

_TRANSITION_FIELDS: Final = ("kind", "onset_step", "onset_low", "onset_high", "metric_name", "metric_onset")
_GROUP_ORDER: Final = ("total", "attention", "mlp", "embedding", "norm", "other")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drawn:
    """What a chart needs of one group; windows are ordered by step.

    Attributes:
        steps: First and last step of the axis.
        counted: Columns `step`, `short`, `k_star` and `regime`, one entry a window.
        measured: The other columns: shape (windows,), or (windows, directions) for lists; NaN where there is no number.
        stretches: Maximal runs of windows of one regime.
        transitions: Onset and interval of each reported change, by onset.
        metric: Means of the run's metric before and after its onset; empty where no onset is established.
        lines: The run's own metrics, whatever the group.
    """

    steps: tuple[int, int]
    counted: Mapping[str, list[Any]]
    measured: Mapping[str, Matrix]
    stretches: list[dict[str, Any]]
    transitions: list[dict[str, Any]]
    metric: list[dict[str, Any]]
    lines: tuple[MetricLine, ...] = ()

    def points(self) -> list[dict[str, Any]]:
        """Dataset `points` of the charts: what is drawn of the run's own metrics."""
        return points_drawn(self.lines, self.metric, *self.steps)

    def knows(self, column: str) -> bool:
        """Whether any window has a number in this column."""
        return bool(np.isfinite(self.measured[column]).any())

    def windows(self) -> dict[str, list[Any]]:
        """All columns as lists, null where there is no number, as charts take them."""
        return {**self.counted, **{name: _as_lists(values) for name, values in self.measured.items()}}


def group_order(groups: Iterable[str]) -> list[str]:
    """Group names as people expect them: total, the kinds of layer, then layers by number."""

    def rank(group: str) -> tuple[int, int, str]:
        known = _GROUP_ORDER.index(group) if group in _GROUP_ORDER else len(_GROUP_ORDER)
        number = re.search(r"\d{1,9}", group)
        return known, int(number.group()) if number else 0, group

    return sorted(set(groups), key=rank)


def drawn_groups(
    gaps: pa.Table, transitions: Sequence[Row], summary: Row, lines: tuple[MetricLine, ...] = ()
) -> dict[str, Drawn]:
    """What is drawn of one run, by group in reading order.

    Args:
        gaps: The run's rows of table `gaps`, with at least :data:`GAP_COLUMNS`.
        transitions: The run's rows of table `transitions`.
        summary: The run's row of table `runs`.
        lines: The run's own metrics.
    """
    names = gaps.column("group")
    return {
        group: _drawn(
            gaps.filter(pc.equal(names, group)).sort_by("step").combine_chunks(),
            [row for row in transitions if row["group"] == group],
            summary,
            lines,
        )
        for group in group_order(name for name in pc.unique(names).to_pylist() if name is not None)
    }


def _drawn(gaps: pa.Table, transitions: Sequence[Row], summary: Row, lines: tuple[MetricLine, ...]) -> Drawn:
    onsets = sorted(transitions, key=lambda row: (row["onset_step"], row["kind"]))
    marks = [{name: row[name] for name in _TRANSITION_FIELDS} for row in onsets]
    steps = _extent(gaps, marks)
    lists = {name: _padded(gaps.column(name)) for name in _LISTS}
    lists["overlap"] = lists["overlap"][:, :OVERLAPS_DRAWN]
    return Drawn(
        steps=steps,
        counted={name: gaps.column(name).to_pylist() for name in _AS_IS},
        measured=lists | {name: _reals(gaps.column(name)) for name in _REALS},
        stretches=_stretches(gaps),
        transitions=marks,
        metric=_metric(summary, *steps),
        lines=lines,
    )


def _reals(column: pa.ChunkedArray) -> Matrix:
    return np.asarray(column.to_numpy(), dtype=float)


def _padded(column: pa.ChunkedArray) -> Matrix:
    """A column of lists as a matrix, shape (rows, longest list), NaN after the end of each."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    longest = int(lengths.max(initial=0))
    inside = np.arange(longest) < lengths[:, None]
    matrix = np.full(inside.shape, np.nan)
    matrix[inside] = pc.list_flatten(column).to_numpy()
    return matrix


def _as_lists(values: Matrix) -> list[Any]:
    if values.ndim == 1:
        return [value if np.isfinite(value) else None for value in values.tolist()]
    ends = [int(known[-1]) + 1 if len(known := np.flatnonzero(row)) else 0 for row in np.isfinite(values)]
    return [_as_lists(row[:end]) for row, end in zip(values, ends, strict=True)]


def _extent(gaps: pa.Table, marks: Sequence[Row]) -> tuple[int, int]:
    """First and last step of the axis: all windows, and a metric's onset that may lie beyond them."""
    told = [mark[name] for mark in marks for name in ("onset_low", "onset_high", "metric_onset")]
    steps = [*gaps.column("step_first").to_pylist(), *gaps.column("step").to_pylist(), *told]
    known = [step for step in steps if step is not None]
    return min(known, default=0), max(known, default=1)


def _metric(summary: Row, first: int, last: int) -> list[dict[str, Any]]:
    """The two levels of the run's metric as the ends of two lines, and the onset's interval between them."""
    names = ("metric_onset", "metric_onset_low", "metric_onset_high", "metric_before", "metric_after")
    onset, low, high, before, after = (summary.get(name) for name in names)
    if onset is None or before is None or after is None or not np.isfinite([before, after]).all():
        return []
    told = {"name": summary["metric_name"], "onset": onset, "low": low, "high": high}
    ends = (
        (first, before, "before"),
        (onset, before, "before"),
        (onset, after, "after"),
        (max(last, onset), after, "after"),
    )
    return [told | {"step": step, "value": value, "part": part} for step, value, part in ends]


def _stretches(gaps: pa.Table) -> list[dict[str, Any]]:
    """Maximal runs of windows of one regime, each from the end of the window before to the end of its last window."""
    found: list[dict[str, Any]] = []
    steps, regimes, reasons = (gaps.column(name).to_pylist() for name in ("step", "regime", "regime_reason"))
    begin = gaps.column("step_first")[0].as_py() if len(steps) else 0
    for step, regime, reason in zip(steps, (name or "undetermined" for name in regimes), reasons, strict=True):
        if found and found[-1]["regime"] == regime and _alike(found[-1]["reason"], reason):
            found[-1]["to"] = step
        else:
            found.append({"from": begin, "to": step, "regime": regime, "reason": reason})
        begin = step
    return found


def _alike(one: str | None, other: str | None) -> bool:
    """Whether two reasons differ in their numbers only."""
    return one == other or re.sub(r"[\d.,]+", "#", one or "") == re.sub(r"[\d.,]+", "#", other or "")
