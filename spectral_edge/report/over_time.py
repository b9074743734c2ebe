"""The charts over all runs: regimes over the course of training, and where in it changes were found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, cast

import altair as alt
import numpy as np

from spectral_edge.report.charts import Spec, config
from spectral_edge.report.palette import PAGE, REGIMES, Palette
from spectral_edge.report.panels import WIDTH
from spectral_edge.report.view import RunView

BINS: Final = 50
"""Equal parts of a run's steps, from its first checkpoint to its last."""

_AT: Final = alt.Scale(domain=[0, 100], nice=False)


def shares_of_regimes(views: Sequence[RunView]) -> list[dict[str, Any]]:
    """How many runs are in which regime at the middle of each part of their training, by the group drawn first."""
    counts = np.zeros((BINS, len(REGIMES)), dtype=int)
    middles = (np.arange(BINS) + 0.5) * 100 / BINS
    for view in views:
        ends = np.array([band.left + band.width for band in view.strip])
        names = [band.regime if band.regime in REGIMES else "undetermined" for band in view.strip]
        if names:
            at = np.minimum(np.searchsorted(ends, middles), len(names) - 1)
            counts[np.arange(BINS), [REGIMES.index(names[one]) for one in at]] += 1
    return [
        {"at": float(middles[part]), "regime": regime, "runs": int(counts[part, rank]), "rank": rank}
        for part in range(BINS)
        for rank, regime in enumerate(REGIMES)
    ]


def changes_in_time(views: Sequence[RunView]) -> list[dict[str, Any]]:
    """Every reported change of the group drawn first, by how far into its run it begins, in percent."""
    return [
        {
            "at": at,
            "step": mark["onset_step"],
            "kind": mark["kind"].replace("_", " "),
            "project": view.row["project"],
            "run": view.row["run_name"] or view.row["run_id"],
        }
        for view in views
        for drawn in list(view.groups.values())[:1]
        for at, mark in zip(view.onsets, drawn.transitions, strict=True)
    ]


@lru_cache(maxsize=1)
def overview_spec() -> Spec:
    """Both charts as Vega-Lite, without data. Built once a process: take care not to change it."""
    chart = alt.vconcat(_regimes(PAGE), _changes(PAGE), spacing=14)
    chart = chart.resolve_scale(x="independent", y="independent", color="independent")
    return cast("Spec", chart.properties(autosize="pad").configure(**config(PAGE)).to_dict())


def _regimes(palette: Palette) -> alt.Chart:
    scale = alt.Scale(domain=list(REGIMES), range=list(palette.regimes))
    tips = [
        alt.Tooltip("regime:N"),
        alt.Tooltip("runs:Q"),
        alt.Tooltip("at:Q", title="of training, percent", format=".0f"),
    ]
    chart = alt.Chart(alt.NamedData("shares"), name="shares", title="Regimes over training (runs)")
    drawn: alt.Chart = (
        chart.mark_area(interpolate="step")
        .encode(
            x=alt.X("at:Q", scale=_AT, axis=None),
            y=alt.Y(
                "runs:Q", title=None, stack="zero", axis=alt.Axis(tickCount=3, format="d", minExtent=104, maxExtent=104)
            ),
            color=alt.Color("regime:N", scale=scale, legend=alt.Legend(title=None, symbolType="square")),
            order="rank:Q",
            tooltip=tips,
        )
        .properties(width=WIDTH, height=110)
    )
    return drawn


def _changes(palette: Palette) -> alt.Chart:
    tips = [
        alt.Tooltip("run:N"),
        alt.Tooltip("project:N"),
        alt.Tooltip("kind:N", title="change"),
        alt.Tooltip("step:Q", title="onset", format=","),
    ]
    axis = alt.Axis(title="training, from the first checkpoint to the last (percent)", tickCount=6, labelFlush=True)
    rows = alt.Axis(grid=False, domain=False, ticks=False, labelLimit=100, minExtent=104, maxExtent=104)
    chart = alt.Chart(alt.NamedData("changes"), name="changes", title="Reported changes, by project")
    drawn: alt.Chart = (
        chart.mark_tick(thickness=1.5, height=13, opacity=0.75)
        .encode(
            x=alt.X("at:Q", scale=_AT, axis=axis),
            y=alt.Y("project:N", title=None, axis=rows),
            color=alt.value(palette.change),
            tooltip=tips,
        )
        .properties(width=WIDTH, height=alt.Step(18))
    )
    return drawn
