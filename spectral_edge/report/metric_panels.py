"""The panels of the run's own metrics: the evaluation metric with those on its scale, and the further ones."""

from __future__ import annotations

from typing import Final

import altair as alt

from spectral_edge.report.palette import Palette

METRIC: Final = alt.NamedData("metric")
POINTS: Final = alt.NamedData("points")

_DASHES: Final = [[1, 0], [5, 2], [2, 2], [7, 2, 2, 2], [1, 3], [9, 3], [3, 1]]
"""So that lines can be told apart without colours."""


def metric_marks(x: alt.X, across: alt.Scale, palette: Palette) -> list[alt.Chart]:
    """The interval of the metric's onset, its means before and after, and the lines.

    Args:
        x: The axis of steps.
        across: Its scale, for layers over other columns.
        palette: The colours.
    """
    tips = [
        alt.Tooltip("name:N", title="metric"),
        alt.Tooltip("value:Q", title="mean", format=".4"),
        alt.Tooltip("part:N", title="over the checkpoints"),
        alt.Tooltip("onset:Q", title="moves at", format=","),
        alt.Tooltip("low:Q", title="from", format=","),
        alt.Tooltip("high:Q", title="to", format=","),
    ]
    base = alt.Chart(METRIC)
    color = alt.value(palette.directions[0])
    band = base.transform_filter("datum.part === 'after'").mark_rect(opacity=0.12)
    interval = band.encode(x=alt.X("low:Q", scale=across), x2="high:Q", color=color, tooltip=tips)
    mean = base.mark_line(strokeWidth=1, opacity=0.7, strokeDash=[1, 3])
    levels = mean.encode(x=x, y=_y(), detail="part:N", color=color, tooltip=tips)
    return [interval, levels, *_lines(x, "datum.beside", palette)]


def further_marks(x: alt.X, palette: Palette) -> list[alt.Chart]:
    """The lines of the metrics that are not on the scale of the evaluation metric."""
    return _lines(x, "!datum.beside", palette)


def _y() -> alt.Y:
    axis = alt.Axis(format="~g", tickCount=2)
    return alt.Y("value:Q", title=None, axis=axis, scale=alt.Scale(zero=False, nice=True, padding=5))


def _lines(x: alt.X, which: str, palette: Palette) -> list[alt.Chart]:
    colors = [*palette.directions, palette.change, palette.gap, palette.ink, palette.further]
    legend = alt.Legend(title=None, symbolType="stroke")
    color = alt.Color("name:N", sort=None, scale=alt.Scale(range=colors), legend=legend)
    dash = alt.StrokeDash("name:N", sort=None, scale=alt.Scale(range=_DASHES), legend=legend)
    base = alt.Chart(POINTS).transform_filter(which).encode(x=x, y=_y())
    line = base.mark_line(strokeWidth=1.5, strokeJoin="round").encode(detail="part:N", color=color, strokeDash=dash)
    if not palette.interactive:
        return [line]
    tips = [
        alt.Tooltip("name:N", title="metric"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("value:Q", format=".4"),
    ]
    # What the pointer finds: a line itself tells of no point.
    return [line, base.mark_point(size=60, opacity=0, filled=True, aria=False).encode(detail="name:N", tooltip=tips)]
