"""The chart of one run: panels over the same training steps, drawn by Altair from :mod:`spectral_edge.report.drawn`.

Reading help built into every panel: a line is dashed and its points are hollow where windows are short; a grey ground
lies under stretches without a regime; a reported change is a line at its onset within a band over the onset's interval.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import altair as alt
import vl_convert

from spectral_edge.report.drawn import Drawn, drawn_groups
from spectral_edge.report.metric_lines import metric_lines
from spectral_edge.report.palette import LIGHT, Palette
from spectral_edge.report.panels import WIDTH, WINDOWS, ZOOMED, panels
from spectral_edge.report.verdict import verdict
from spectral_edge.tables import RunTables

Spec = dict[str, Any]

VEGA_LITE: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""The Vega-Lite version that Altair writes, as vl-convert names it."""

_FONT: Final = "Liberation Sans, Arial, Helvetica, sans-serif"
_READING: Final = (
    "Dashed, hollow points: short windows. Grey ground: no regime given. Band and line: onset of a change."
)


def run_chart_svg(tables: RunTables) -> str:
    """An SVG of group `total` (or the run's first group): the same text for the same tables, and nothing to load.

    A run without any window gives a picture that says so.
    """
    transitions = tables.transitions.to_pylist()
    groups = drawn_groups(tables.gaps, transitions, tables.summary, metric_lines(tables.metrics))
    name, drawn = next(iter(groups.items()), ("total", None))
    about = f"{_on_one_line(tables.key.project)} \N{MIDDLE DOT} parameter group {_on_one_line(name)}"
    lines = [about, *textwrap.wrap(verdict(tables.summary, transitions), 110)]
    if drawn is None:
        spec = _empty_chart_spec(LIGHT)
    else:
        spec = filled(chart_spec(LIGHT), drawn)
        lines.append(_READING)
    spec["title"] = _title(_on_one_line(tables.key.run_name), lines)
    svg: str = vl_convert.vegalite_to_svg(_printable(spec), vl_version=VEGA_LITE, allowed_base_urls=[])
    return svg


def run_chart_png(tables: RunTables) -> bytes:
    """The same as a PNG: the same bytes for the same tables."""
    return png_of(run_chart_svg(tables))


def png_of(svg: str) -> bytes:
    """What :func:`run_chart_svg` drew, as a PNG."""
    png: bytes = vl_convert.svg_to_png(svg, scale=1.5)
    return png


def _title(name: str, lines: list[str]) -> dict[str, Any]:
    # A space at the end, as Vega fails on a text that is the name of a property of every JavaScript object: toString.
    texts = {"text": f"{name} ", "subtitle": [f"{line} " for line in lines]}
    look = {"fontSize": 15, "subtitleFontSize": 11.5, "subtitlePadding": 5, "subtitleLineHeight": 15, "offset": 14}
    return {"anchor": "start", "frame": "group", "limit": WIDTH} | texts | look


@lru_cache(maxsize=2)
def chart_spec(palette: Palette) -> Spec:
    """The chart as Vega-Lite, without data: :func:`filled` (or the page's script) brings one group's data.

    Built once a process, because Altair takes a second to check it against its schema: take care not to change it.
    """
    chart = alt.vconcat(*panels(palette), data=WINDOWS, spacing=10).resolve_scale(
        x="independent", color="independent", strokeDash="independent"
    )
    spec = cast("Spec", _with_rows(chart).properties(autosize="pad").configure(**config(palette)).to_dict())
    for panel in spec["vconcat"] if palette.interactive else []:
        for layer in panel["layer"]:
            layer["mark"]["clip"] = {"expr": ZOOMED}
    return spec


def _empty_chart_spec(palette: Palette) -> Spec:
    """A chart that says that there is nothing to draw."""
    words = alt.Chart(alt.InlineData([{}])).mark_text(text="No window of updates: nothing to draw.", size=13)
    chart = words.encode(color=alt.value(palette.muted)).properties(width=WIDTH, height=80)
    return cast("Spec", chart.configure(**config(palette)).to_dict())


def filled(spec: Spec, drawn: Drawn) -> Spec:
    """`spec` with the data of one group, without the panels that this group has nothing for. Page.js does the same."""
    points = drawn.points()
    empty = {
        "transitions": not drawn.transitions,
        "metric": not any(point["beside"] for point in points),
        "further": all(point["beside"] for point in points),
        "learning_rate": not drawn.knows("learning_rate"),
    }
    first, last = drawn.steps
    steps = {"first": first, "last": last, "whole_first": first, "whole_last": last}
    return spec | {
        "params": [*({"name": name, "value": value} for name, value in steps.items()), *spec.get("params", [])],
        "vconcat": [panel for panel in spec["vconcat"] if not empty.get(panel["name"], False)],
        "datasets": {
            "windows": [drawn.windows()],
            "stretches": drawn.stretches,
            "transitions": drawn.transitions,
            "metric": drawn.metric,
            "points": points,
        },
    }


def _with_rows(chart: alt.VConcatChart) -> alt.VConcatChart:
    """Columns (one record of lists) to one record a window, with what the panels derive from it."""
    columns = ["step", "short", "k_star", "regime", "singular_values", "overlap", "gap_ratio", "rotation_degrees"]
    texts = {
        "sigma_text": "join(slice(datum.singular_values, 0, 4), ', ')"
        " + (length(datum.singular_values) > 4 ? ', \N{HORIZONTAL ELLIPSIS}' : '')",
        "overlap_text": "join(datum.overlap, ', ')",
        "window_text": "datum.short ? 'short' : 'full'",
        "above": "datum.singular_values[datum.k_star - 1]",
        "below": "datum.singular_values[datum.k_star]",
    }
    rows = chart.transform_flatten([*columns, "gram_change_relative", "learning_rate"])
    return rows.transform_calculate(**texts)


def config(palette: Palette) -> Mapping[str, Any]:
    """Look of the chart; `height` of bars and strips is set where they are drawn."""
    quiet = {
        "labelColor": palette.muted,
        "labelFontSize": 10.5,
        "titleColor": palette.muted,
        "titleFontWeight": "normal",
    }
    return {
        "font": _FONT,
        "background": palette.paper,
        "padding": 14,
        "view": {"stroke": None},
        "axis": quiet | {"gridColor": palette.grid, "domainColor": palette.grid, "tickColor": palette.grid},
        "axisY": {"minExtent": 66, "maxExtent": 66, "domain": False, "ticks": False, "labelPadding": 6},
        "title": {
            "anchor": "start",
            "fontSize": 11.5,
            "fontWeight": "bold",
            "color": palette.ink,
            "subtitleColor": palette.muted,
            "offset": 6,
            "frame": "group",
        },
        "legend": quiet
        | {
            "orient": "top",
            "offset": 2,
            "symbolStrokeWidth": 2,
            "symbolOpacity": 1,
            "columnPadding": 12,
            "rowPadding": 2,
        },
    }


def _printable(value: Any) -> Any:
    """`value` with no control character in any text: vl-convert aborts the process where a name holds one."""
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value)
    if isinstance(value, dict):
        return {_printable(name): _printable(entry) for name, entry in value.items()}
    return [_printable(entry) for entry in value] if isinstance(value, list | tuple) else value


def _on_one_line(name: str) -> str:
    return " ".join(name.split()) or "(no name)"
