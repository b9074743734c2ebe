"""What is drawn of a run: few columns, few digits, by parameter group.

Charts in the page and charts as PNG are fed the same structure, so they cannot tell different things. Columns keep
their names of :mod:`spectral_edge.tables`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

OVERLAPS_DRAWN: Final = 3
"""Leading directions whose overlap is drawn; the rest of the list is noise over noise."""

_REALS: Final = ("gap_ratio", "rotation_degrees", "gram_change_relative", "learning_rate")
_AS_IS: Final = ("step", "short", "k_star", "regime")
GAP_COLUMNS: Final = (
    *("tracker", "project", "run_id", "group", "step_first", "regime_reason", "singular_values", "overlap"),
    *_AS_IS,
    *_REALS,
)
"""The columns of table `gaps` that the report reads."""

_TRANSITION_FIELDS: Final = ("kind", "onset_step", "onset_low", "onset_high", "metric_name", "metric_onset")
_GROUP_ORDER: Final = ("total", "attention", "mlp", "embedding", "norm", "other")

Drawn = dict[str, Any]
"""What a chart needs of one group; see :func:`drawn_group`."""


def rounded(value: float | None) -> float | None:
    """`value` to 6 significant digits; None where it is null, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def group_order(groups: Iterable[str]) -> list[str]:
    """Group names as people expect them: total, the kinds of layer, then layers by number."""

    def rank(group: str) -> tuple[int, int, str]:
        known = _GROUP_ORDER.index(group) if group in _GROUP_ORDER else len(_GROUP_ORDER)
        number = re.search(r"\d{1,9}", group)
        return known, int(number.group()) if number else 0, group

    return sorted(set(groups), key=rank)


def drawn_groups(gaps: pa.Table, transitions: Sequence[Mapping[str, Any]]) -> dict[str, Drawn]:
    """What is drawn of one run, by group in reading order.

    Args:
        gaps: The run's rows of table `gaps`, with at least :data:`GAP_COLUMNS`.
        transitions: The run's rows of table `transitions`.
    """
    names = gaps.column("group")
    return {
        group: drawn_group(
            gaps.filter(pc.equal(names, group)).sort_by("step"),
            [row for row in transitions if row["group"] == group],
        )
        for group in group_order(name for name in pc.unique(names).to_pylist() if name is not None)
    }


def drawn_group(gaps: pa.Table, transitions: Sequence[Mapping[str, Any]]) -> Drawn:
    """One group's chart data.

    Returns:
        `steps`: first and last step of the axis. `windows`: column name to list, one entry a window, by step.
        `stretches`: maximal runs of windows of one regime. `transitions`: onset and interval of each reported change,
        by onset.
    """
    columns: Drawn = {name: gaps.column(name).to_pylist() for name in _AS_IS}
    columns |= {name: [rounded(v) for v in gaps.column(name).to_pylist()] for name in _REALS}
    columns["singular_values"] = [_rounded_list(v) for v in gaps.column("singular_values").to_pylist()]
    columns["overlap"] = [_rounded_list(v)[:OVERLAPS_DRAWN] for v in gaps.column("overlap").to_pylist()]
    onsets = sorted(transitions, key=lambda row: (row["onset_step"], row["kind"]))
    marks = [{name: row[name] for name in _TRANSITION_FIELDS} for row in onsets]
    return {
        "steps": _extent(gaps, marks),
        "windows": columns,
        "stretches": _stretches(gaps),
        "transitions": marks,
    }


def _extent(gaps: pa.Table, marks: Sequence[Mapping[str, Any]]) -> list[int]:
    """First and last step of the axis: all windows, and a metric's onset that may lie beyond them."""
    told = [mark[name] for mark in marks for name in ("onset_low", "onset_high", "metric_onset")]
    steps = [*gaps.column("step_first").to_pylist(), *gaps.column("step").to_pylist(), *told]
    known = [step for step in steps if step is not None]
    return [min(known, default=0), max(known, default=1)]


def _rounded_list(values: Sequence[float | None] | None) -> list[float | None]:
    return [rounded(value) for value in values or ()]


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
    return re.sub(r"[\d.,]+", "#", one or "") == re.sub(r"[\d.,]+", "#", other or "")
