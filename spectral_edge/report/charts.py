"""The chart of one run: panels over the same training steps, drawn by Altair from :mod:`spectral_edge.report.drawn`.

Reading help built into every panel: a line is dashed and its points are hollow where windows are short; a grey ground
lies under stretches without a regime; a reported change is a line at its onset within a band over the onset's interval.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import altair as alt
import vl_convert

from spectral_edge.errors import UsageError
from spectral_edge.report.drawn import Drawn, Row, drawn_groups
from spectral_edge.report.metric_lines import metric_lines
from spectral_edge.report.palette import LIGHT, Palette
from spectral_edge.report.panels import WIDTH, WINDOWS, ZOOMED, panels
from spectral_edge.report.verdict import strongest, verdict
from spectral_edge.tables import RunTables

Spec = dict[str, Any]
Chart = TypeVar("Chart", bound=alt.VConcatChart)

VEGA_LITE: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""The Vega-Lite version that Altair writes, as vl-convert names it."""

PNG_SCALE: Final = 1.5
"""Pixels of a PNG for each pixel of the chart."""

_FONT: Final = "Liberation Sans, Arial, Helvetica, sans-serif"
_READING: Final = (
    "Dashed, hollow points: short windows. Grey ground: no regime given. Band and line: onset of a change."
)


def run_chart_svg(tables: RunTables, group: str | None = None) -> str:
    """An SVG of one parameter group, as :func:`titled` says: the same text for the same tables, and nothing to load.

    A run without any window gives a picture that says so.
    """
    return svg_of(_run_chart_spec(tables, group))


def run_chart_png(tables: RunTables, group: str | None = None) -> bytes:
    """The same as a PNG: the same bytes for the same tables."""
    return png_of(run_chart_svg(tables, group))


def svg_of(spec: Spec) -> str:
    """A chart as SVG; nothing is fetched for it."""
    svg: str = vl_convert.vegalite_to_svg(printable(spec), vl_version=VEGA_LITE, allowed_base_urls=[])
    return svg


def png_of(svg: str) -> bytes:
    """What :func:`run_chart_svg` drew, as a PNG."""
    png: bytes = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    return png


def titled(tables: RunTables, group: str | None) -> tuple[dict[str, Any], Drawn | None]:
    """A chart's title, which says the verdict, and what is drawn under it; nothing where the run has no window.

    Args:
        tables: The run.
        group: The parameter group; :func:`told_group` when None.

    Raises:
        UsageError: The run has no such group.
    """
    transitions = tables.transitions.to_pylist()
    groups = drawn_groups(tables.gaps, transitions, tables.summary, metric_lines(tables.metrics))
    if group is not None and groups and group not in groups:
        raise UsageError(
            f"there is no parameter group {group!r}; there are: {', '.join(groups)}.", run=tables.key.run_name
        )
    name = group or told_group(groups, transitions)
    about = f"{_on_one_line(tables.key.project)} \N{MIDDLE DOT} parameter group {_on_one_line(name)}"
    lines = [about, *textwrap.wrap(verdict(tables.summary, transitions), 110), *([_READING] if groups else [])]
    return _title(_on_one_line(tables.key.run_name), lines), groups.get(name)


def told_group(groups: Collection[str], transitions: Sequence[Row]) -> str:
    """The group whose chart stands for the run: of the change that the verdict names, else `total` or the first one."""
    change = strongest(transitions)
    if change is not None and change["group"] in groups:
        return str(change["group"])
    return next(iter(groups), "total")


def _run_chart_spec(tables: RunTables, group: str | None) -> Spec:
    title, drawn = titled(tables, group)
    if drawn is None:
        return chart_without_windows(LIGHT, alt.VConcatChart).to_dict() | {"title": title}
    return filled(chart_spec(LIGHT), drawn) | {"title": title}


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
    return chart(palette, alt.VConcatChart).to_dict()


def chart(palette: Palette, kind: type[Chart], without: Collection[str] = ()) -> Chart:
    """The same as an Altair chart of class `kind`, without some panels."""
    layers = [panel for panel in panels(palette) if panel.name not in without]
    for panel in layers if palette.interactive else []:
        for layer in panel.layer:
            layer.mark.clip = alt.ExprRef(ZOOMED)
    whole = kind(vconcat=layers, data=WINDOWS, spacing=10).resolve_scale(
        x="independent", color="independent", strokeDash="independent"
    )
    return cast("Chart", _with_rows(whole).properties(autosize="pad").configure(**config(palette)))


def chart_without_windows(palette: Palette, kind: type[Chart]) -> Chart:
    """A chart that says that there is nothing to draw."""
    words = alt.Chart(alt.InlineData([{}])).mark_text(text="No window of updates: nothing to draw.", size=13)
    words = words.encode(color=alt.value(palette.muted)).properties(width=WIDTH, height=80)
    return cast("Chart", kind(vconcat=[words]).configure(**config(palette)))


def filled(spec: Spec, drawn: Drawn) -> Spec:
    """`spec` with the data of one group, without the panels that this group has nothing for. Page.js does the same."""
    params = [{"name": name, "value": value} for name, value in steps_of(drawn).items()]
    return spec | {
        "params": [*params, *spec.get("params", [])],
        "vconcat": [panel for panel in spec["vconcat"] if panel["name"] not in empty_panels(drawn)],
        "datasets": datasets(drawn),
    }


def steps_of(drawn: Drawn) -> dict[str, int]:
    """What the chart's scales refer to: the steps of the whole run, and those that are looked at."""
    first, last = drawn.steps
    return {"first": first, "last": last, "whole_first": first, "whole_last": last}


def empty_panels(drawn: Drawn) -> frozenset[str]:
    """Names of the panels that a group has nothing for."""
    beside = {point["beside"] for point in drawn.points()}
    has = {
        "transitions": bool(drawn.transitions),
        "metric": True in beside,
        "further": False in beside,
        "learning_rate": drawn.knows("learning_rate"),
    }
    return frozenset(name for name, is_drawn in has.items() if not is_drawn)


def datasets(drawn: Drawn) -> dict[str, list[dict[str, Any]]]:
    """The data of one group under the names that the panels use."""
    return {
        "windows": [drawn.windows()],
        "stretches": drawn.stretches,
        "transitions": drawn.transitions,
        "metric": drawn.metric,
        "points": drawn.points(),
    }


def _with_rows(chart: Chart) -> Chart:
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


def printable(value: Any) -> Any:
    """`value` with no control character in any text: vl-convert aborts the process where a name holds one."""
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value)
    if isinstance(value, dict):
        return {printable(name): printable(entry) for name, entry in value.items()}
    return [printable(entry) for entry in value] if isinstance(value, list | tuple) else value


def _on_one_line(name: str) -> str:
    return " ".join(name.split()) or "(no name)"
