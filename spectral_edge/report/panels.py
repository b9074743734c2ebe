"""The panels of a run's chart: marks, scales, and the grounds that they share."""

from __future__ import annotations

from typing import Final

import altair as alt

from spectral_edge.report.metric_panels import further_marks, metric_marks
from spectral_edge.report.palette import REGIMES, Palette

WIDTH: Final = 660
"""Width of a panel in pixels; the page's script replaces it by the screen's."""

WINDOWS: Final = alt.NamedData("windows")
STRETCHES: Final = alt.NamedData("stretches")
CHANGES: Final = alt.NamedData("transitions")

ZOOMED: Final = "first > whole_first || last < whole_last"
"""Whether a part of the run is looked at. Else nothing is clipped, so that lines at a panel's edge stay whole."""

_SIGMA: Final = "\N{GREEK SMALL LETTER SIGMA}"
_STEP: Final = "step:Q"
_TOOLTIP: Final = (
    alt.Tooltip("step:Q", title="step", format=","),
    alt.Tooltip("sigma_text:N", title="singular values"),
    alt.Tooltip("k_star:Q", title="k*"),
    alt.Tooltip("gap_ratio:Q", title="gap ratio", format=".4"),
    alt.Tooltip("overlap_text:N", title="overlap"),
    alt.Tooltip("rotation_degrees:Q", title="rotation (degrees)", format=".3"),
    alt.Tooltip("gram_change_relative:Q", title="relative change of the Gram", format=".3"),
    alt.Tooltip("learning_rate:Q", title="learning rate", format=".3"),
    alt.Tooltip("regime:N", title="regime"),
    alt.Tooltip("window_text:N", title="window"),
)


def panels(palette: Palette) -> list[alt.LayerChart]:
    """All panels from top to bottom, named by what they draw. Their data is named, not held."""
    p = palette
    sigma = f"Singular values {_SIGMA} (parameter units, log scale)"
    # Short windows have no such change: a layer of their points would be empty, of which Vega complains.
    change = _series("gram_change_relative", "linear", p, last=True)[:1]
    return [
        _regimes(p),
        _changes(p),
        _panel("singular_values", sigma, 150, p, *_sigma(p)),
        _panel("gap_ratio", "Gap ratio at k* (log scale)", 80, p, *_series("gap_ratio", "log", p)),
        _panel("k_star", "k*, directions above the gap", 56, p, *_k_star(p)),
        _panel("overlap", "Overlap with the window before", 80, p, *_overlap(p)),
        _panel("rotation_degrees", "Rotation of the leading k* directions (degrees)", 56, p, *_rotation(p)),
        _metric(p),
        _further(p),
        _panel("learning_rate", "Learning rate", 44, p, *_series("learning_rate", "linear", p)),
        _panel("gram_change_relative", "Change of the Gram matrix / its trace", 80, p, *change),
    ]


def _x(*, labels: bool) -> alt.X:
    axis = alt.Axis(
        title="training step (optimizer steps)" if labels else None,
        labels=labels,
        ticks=labels,
        format=",d",
        tickCount=7,
        labelFlush=True,
    )
    return alt.X(_STEP, axis=axis, scale=_across())


def _across(*, whole: bool = False) -> alt.Scale:
    """The steps looked at, or those of the whole run, whatever a layer holds."""
    ends = ("whole_first", "whole_last") if whole else ("first", "last")
    return alt.Scale(domain=[alt.ExprRef(end) for end in ends], nice=False, zero=False)


def _panel(name: str, title: str, height: int, palette: Palette, *marks: alt.Chart) -> alt.LayerChart:
    """Marks over the grounds that every panel shares, and under its rules."""
    layers = [*_under(palette), *marks, *_onsets(palette), *_pointer(name, palette)]
    return alt.LayerChart(layer=layers, name=name, title=title, height=height, width=WIDTH)


def _under(palette: Palette) -> list[alt.Chart]:
    """Grey ground under stretches without a regime, and the interval of each onset."""
    ground = alt.Chart(STRETCHES).transform_filter("datum.regime === 'undetermined'").mark_rect(opacity=0.35)
    band = alt.Chart(CHANGES).mark_rect(opacity=0.14)
    return [
        ground.encode(x=alt.X("from:Q", scale=_across()), x2="to:Q", color=alt.value(palette.grid)),
        band.encode(x=alt.X("onset_low:Q", scale=_across()), x2="onset_high:Q", color=alt.value(palette.change)),
    ]


def _onsets(palette: Palette, *, whole: bool = False) -> list[alt.Chart]:
    rule = alt.Chart(CHANGES).mark_rule(strokeWidth=1.25)
    return [rule.encode(x=alt.X("onset_step:Q", scale=_across(whole=whole)), color=alt.value(palette.change))]


def _pointer(name: str, palette: Palette) -> list[alt.Chart]:
    """A line at the window nearest to the pointer, with all its numbers; nothing in an image."""
    if not palette.interactive:
        return []
    near = alt.selection_point(
        name=f"near_{name}", fields=["step"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    seen = alt.condition(near, alt.value(0.7), alt.value(0))
    rule = alt.Chart().mark_rule(strokeWidth=1).encode(x=alt.X(_STEP, scale=_across()), tooltip=list(_TOOLTIP))
    return [rule.encode(opacity=seen, color=alt.value(palette.muted)).add_params(near)]


def _series(column: str, scale: str, palette: Palette, *, last: bool = False) -> tuple[alt.Chart, ...]:
    """One column as a line; dashed, with hollow points, over short windows."""
    axis = alt.Axis(format="~g", tickCount=2)
    kind = alt.Scale(type="log", nice=False, domainMin=1) if scale == "log" else alt.Scale(zero=False, nice=True)
    y = alt.Y(f"{column}:Q", title=None, axis=axis, scale=kind)
    return _marked(alt.Chart().encode(x=_x(labels=last), y=y, color=alt.value(palette.ink)), palette)


def _marked(chart: alt.Chart, palette: Palette) -> tuple[alt.Chart, ...]:
    dash = alt.StrokeDash("short:N", legend=None, scale=alt.Scale(domain=[False, True], range=[[1, 0], [2, 3]]))
    line = chart.mark_line(strokeWidth=1.5, strokeJoin="round").encode(strokeDash=dash)
    hollow = chart.mark_point(size=16, strokeWidth=1, fill=palette.paper).transform_filter("datum.short")
    return line, hollow


def _sigma(palette: Palette) -> tuple[alt.Chart, ...]:
    """Singular values, the three leading ones in colour, and the gap at k* as an area.

    The area moves in steps: between two windows with another k* there is no gap that a slope could show.
    """
    y = alt.Y("sigma:Q", title=None, scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~g", tickCount=4))
    gap = alt.Chart().transform_filter("datum.below > 0").mark_area(opacity=0.22, interpolate="step")
    shaded = gap.encode(x=_x(labels=False), y=alt.Y("above:Q"), y2="below:Q", color=alt.value(palette.gap))
    each = (
        alt.Chart()
        .transform_calculate(j="sequence(1, length(datum.singular_values) + 1)", sigma="datum.singular_values")
        .transform_flatten(["sigma", "j"])
        .transform_filter("datum.sigma > 0")
        .transform_calculate(direction=f"datum.j <= 3 ? '{_SIGMA}' + datum.j : 'further {_SIGMA}'")
    )
    drawn = each.encode(x=_x(labels=False), y=y, detail="j:N", color=_direction(palette, _SIGMA, further=True))
    return shaded, *_marked(drawn, palette)


def _overlap(palette: Palette) -> tuple[alt.Chart, ...]:
    each = (
        alt.Chart()
        .transform_calculate(j="sequence(1, length(datum.overlap) + 1)", value="datum.overlap")
        .transform_flatten(["value", "j"])
        .transform_calculate(direction="'v' + datum.j")
    )
    y = alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3))
    drawn = each.encode(x=_x(labels=False), y=y, detail="j:N", color=_direction(palette, "v", further=False))
    return _marked(drawn, palette)


def _direction(palette: Palette, letter: str, *, further: bool) -> alt.Color:
    names = [f"{letter}{j}" for j in (1, 2, 3)] + [f"further {_SIGMA}"] * further
    scale = alt.Scale(domain=names, range=[*palette.directions, palette.further][: len(names)])
    return alt.Color("direction:N", scale=scale, legend=alt.Legend(title=None, symbolType="stroke"))


def _k_star(palette: Palette) -> tuple[alt.Chart, ...]:
    axis = alt.Axis(tickMinStep=1, labelExpr="datum.value % 1 ? '' : datum.label", format="d")
    y = alt.Y("k_star:Q", title=None, scale=alt.Scale(domainMin=0, nice=False), axis=axis)
    base = alt.Chart().encode(x=_x(labels=False), y=y, color=alt.value(palette.ink))
    dots = base.mark_point(size=14, filled=True, shape="square").transform_filter("!datum.short")
    return base.mark_line(strokeWidth=0.75, interpolate="step", opacity=0.6), dots, _marked(base, palette)[1]


def _rotation(palette: Palette) -> tuple[alt.Chart, ...]:
    axis = alt.Axis(values=[0, 45, 90])
    y = alt.Y("rotation_degrees:Q", title=None, scale=alt.Scale(domain=[0, 90]), axis=axis)
    return _marked(alt.Chart().encode(x=_x(labels=False), y=y, color=alt.value(palette.ink)), palette)


def _metric(palette: Palette) -> alt.LayerChart:
    """The run's own metric with the interval of its onset, and what else was logged on its scale."""
    marks = metric_marks(_x(labels=False), _across(), palette)
    layers = [*_under(palette), *marks, *_onsets(palette)]
    return alt.LayerChart(layer=layers, name="metric", title="Metric", height=60, width=WIDTH)


def _further(palette: Palette) -> alt.LayerChart:
    layers = [*_under(palette), *further_marks(_x(labels=False), palette), *_onsets(palette)]
    return alt.LayerChart(layer=layers, name="further", title="Further metrics", height=60, width=WIDTH)


def _regimes(palette: Palette) -> alt.LayerChart:
    """The regime strip of the whole run: full height where one is given, a thin line where none is.

    In the page, steps that are marked here are those that all other panels show.
    """
    scale = alt.Scale(domain=list(REGIMES), range=list(palette.regimes))
    color = alt.Color("regime:N", scale=scale, legend=alt.Legend(title=None, symbolType="square"))
    tips = [alt.Tooltip("regime:N"), alt.Tooltip("from:Q", format=","), alt.Tooltip("to:Q", format=",")]
    reason = alt.Tooltip("reason:N", title="why")
    base = alt.Chart(STRETCHES).encode(
        x=alt.X("from:Q", axis=None, scale=_across(whole=True)), x2="to:Q", color=color, tooltip=[*tips, reason]
    )
    given = base.transform_filter("datum.regime !== 'undetermined'").mark_rect(y=0, y2=18)
    none = base.transform_filter("datum.regime === 'undetermined'").mark_rect(y=7, y2=11)
    layers = [*_brush(palette), given, none, *_onsets(palette, whole=True)]
    title = "Regime, whole run (drag: look at a part)" if palette.interactive else "Regime"
    return alt.LayerChart(layer=layers, name="regimes", title=title, height=18, width=WIDTH)


def _brush(palette: Palette) -> list[alt.Chart]:
    """What the pointer marks, and a line along the windows that are looked at, however they were chosen.

    The mark is selection `looked_at` over column `step`, to which page.js listens.
    """
    if not palette.interactive:
        return []
    unseen = alt.BrushConfig(fillOpacity=0, strokeOpacity=0)
    brush = alt.selection_interval(name="looked_at", encodings=["x"], mark=unseen, zoom=False)
    ground = alt.Chart(WINDOWS).mark_rect(y=-4, y2=22, opacity=0)
    x = alt.X(_STEP, axis=None, scale=_across(whole=True))
    inside = alt.Chart(WINDOWS).transform_filter(f"({ZOOMED}) && datum.step >= first && datum.step <= last")
    shown = inside.mark_line(y=16.5, strokeWidth=3).encode(x=x, color=alt.value(palette.ink))
    return [ground.encode(x=x).add_params(brush), shown]


def _changes(palette: Palette) -> alt.LayerChart:
    """Reported changes by kind: the interval of each onset, and where the run's own metric moved."""
    y = alt.Y("row:N", title=None, sort=None, axis=alt.Axis(grid=False, domain=False, ticks=False))
    named = alt.Chart(CHANGES).transform_calculate(row="replace(datum.kind, '_', ' ')")
    tips = [
        alt.Tooltip("row:N", title="change"),
        alt.Tooltip("onset_step:Q", title="onset", format=","),
        alt.Tooltip("onset_low:Q", title="from", format=","),
        alt.Tooltip("onset_high:Q", title="to", format=","),
    ]
    base = named.encode(y=y, color=alt.value(palette.change), tooltip=tips)
    bar = base.mark_bar(height=5, opacity=0.35, cornerRadius=2).encode(
        x=alt.X("onset_low:Q", axis=None, scale=_across()), x2="onset_high:Q"
    )
    tick = base.mark_tick(thickness=2, height=12).encode(x=alt.X("onset_step:Q", scale=_across()))
    metric = (
        alt.Chart(CHANGES)
        .transform_filter("isValid(datum.metric_onset)")
        .transform_aggregate(groupby=["metric_name", "metric_onset"])
        .transform_calculate(row="'metric'")
        .mark_point(shape="diamond", size=44, filled=True, opacity=1)
        .encode(
            x=alt.X("metric_onset:Q", scale=_across()),
            y=y,
            color=alt.value(palette.directions[0]),
            tooltip=[alt.Tooltip("metric_name:N", title="metric"), alt.Tooltip("metric_onset:Q", title="moved at")],
        )
    )
    layers = [bar, tick, metric]
    height = alt.Step(15)
    return alt.LayerChart(layer=layers, name="transitions", title="Reported changes", height=height, width=WIDTH)
