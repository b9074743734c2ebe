"""The PNG, and what is drawn."""

from __future__ import annotations

import itertools
import math
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import hypothesis.strategies as st
import pytest
from hypothesis import given
from synthetic_runs import make_failed, make_run, small_store
from test_untrusted import CORPUS

from spectral_edge.report import png_of, run_chart_png, run_chart_svg
from spectral_edge.report.charts import chart_spec, filled, told_group
from spectral_edge.report.drawn import drawn_groups, group_order
from spectral_edge.report.metric_lines import POINTS_DRAWN, metric_lines
from spectral_edge.report.palette import LIGHT, PAGE
from spectral_edge.tables import build

AGAIN = "import sys; from synthetic_runs import make_run; from spectral_edge.report import run_chart_svg; "
AGAIN += "sys.stdout.buffer.write(run_chart_svg(make_run(checkpoints=30, change_at=15)).encode())"
SVG = "{http://www.w3.org/2000/svg}"
SHAPES = {"svg", "g", "path", "line", "rect", "text", "tspan"}
"""Elements that can neither load nor run anything."""


def _size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_the_pictures_are_the_same_in_another_process_and_again() -> None:
    here = Path(__file__).parent
    other = subprocess.run([sys.executable, "-c", AGAIN], cwd=here, capture_output=True, check=True).stdout.decode()
    run = make_run(checkpoints=30, change_at=15)
    assert other == run_chart_svg(run) == run_chart_svg(run)
    assert png_of(other) == run_chart_png(run)


def test_the_svg_holds_shapes_and_text_and_loads_nothing() -> None:
    svg = run_chart_svg(make_run(checkpoints=30, change_at=15))
    elements = list(ET.fromstring(svg).iter())
    assert {one.tag.removeprefix(SVG) for one in elements} <= SHAPES
    assert not [name for one in elements for name in one.attrib if "href" in name or name.startswith("on")]
    assert "url(" not in svg
    assert len(svg) < 150_000


@pytest.mark.parametrize("text", CORPUS)
def test_names_are_text_in_the_svg(text: str) -> None:
    run = make_run(text, project=text, checkpoints=16, change_at=8, metric_name=text, groups=(text,))
    elements = list(ET.fromstring(run_chart_svg(run)).iter())
    assert {one.tag.removeprefix(SVG) for one in elements} <= SHAPES
    assert not [name for one in elements for name in one.attrib if "href" in name or name.startswith("on")]
    words = " ".join(text.split())
    if words.isprintable():
        assert any((one.text or "").startswith(words[:40]) for one in elements)


def test_names_with_control_characters_are_drawn() -> None:
    """vl-convert aborts the process, which no exception tells of, where a text is not XML."""
    run = make_run("a\x1b\x00b", project="c\x08", checkpoints=16, change_at=8, metric_name="\x1fd", groups=("\x01",))
    assert _size(run_chart_png(run))


@pytest.mark.parametrize("name", ["constructor", "__proto__"])
def test_names_that_javascript_has_itself_are_drawn(name: str) -> None:
    run = make_run(name, project=name, checkpoints=16, change_at=8, metric_name=name, groups=("total", name))
    assert _size(run_chart_png(run, name))


def test_the_png_tells_runs_apart() -> None:
    assert run_chart_png(make_run(checkpoints=30, seed=1)) != run_chart_png(make_run(checkpoints=30, seed=2))


@pytest.mark.parametrize("run", small_store(), ids=lambda run: run.key.run_name)
def test_every_kind_of_run_has_a_png(run: object) -> None:
    width, height = _size(run_chart_png(run))
    assert width > 900
    assert height > 100


def test_a_very_long_name_does_not_widen_the_png() -> None:
    usual = _size(run_chart_png(make_run(checkpoints=20, change_at=None)))
    long = _size(run_chart_png(make_run("name " * 100, project="x" * 250, checkpoints=20, change_at=None)))
    assert long[0] <= 1.1 * usual[0]


def test_panels_without_data_are_left_out() -> None:
    run = make_run(change_at=None, learning_rate=False)
    drawn = drawn_groups(run.gaps, [], run.summary)["total"]
    named = [panel["name"] for panel in filled(chart_spec(LIGHT), drawn)["vconcat"]]
    assert "learning_rate" not in named
    assert "transitions" not in named
    assert {"regimes", "singular_values", "gap_ratio", "k_star", "overlap", "gram_change_relative"} < set(named)


def test_filling_leaves_the_template_as_it_was() -> None:
    before = repr(chart_spec(PAGE))
    run = make_run()
    filled(chart_spec(PAGE), drawn_groups(run.gaps, run.transitions.to_pylist(), run.summary)["total"])
    assert repr(chart_spec(PAGE)) == before


def test_stretches_cover_the_run_without_overlap() -> None:
    run = make_run(blurred=range(50, 75))
    stretches = drawn_groups(run.gaps, [], run.summary)["total"].stretches
    assert stretches[0]["from"] == 0
    assert stretches[-1]["to"] == run.summary["step_last"]
    pairs = list(itertools.pairwise(stretches))
    assert all(one["to"] == other["from"] for one, other in pairs)
    assert all((one["regime"], one["reason"]) != (other["regime"], other["reason"]) for one, other in pairs)
    blurred = [(s["from"], s["to"]) for s in stretches if "rounding" in (s["reason"] or "")]
    assert blurred == [(2000, 3000)]


def test_what_is_drawn_is_the_table() -> None:
    run = make_run()
    drawn = drawn_groups(run.gaps, run.transitions.to_pylist(), run.summary)
    assert list(drawn) == ["total", "attention", "mlp", "embedding"]
    rows = [row for row in run.gaps.to_pylist() if row["group"] == "mlp"]
    windows = drawn["mlp"].windows()
    assert windows["step"] == [row["step"] for row in rows]
    for kept, row in zip(windows["singular_values"], rows, strict=True):
        assert kept == row["singular_values"]
    assert [len(overlap) for overlap in windows["overlap"]][-1] == 3


def test_a_metric_that_moved_is_drawn_as_two_levels_and_one_that_did_not_is_not() -> None:
    run = make_run()
    drawn = drawn_groups(run.gaps, [], run.summary)["mlp"]
    onset = run.summary["metric_onset"]
    assert [(row["step"], row["value"]) for row in drawn.metric] == [
        (0, 0.1),
        (onset, 0.1),
        (onset, 0.9),
        (run.summary["step_last"], 0.9),
    ]
    still = make_run(change_at=None)
    still_drawn = drawn_groups(still.gaps, [], still.summary)["total"]
    assert still_drawn.metric == []
    assert "metric" not in [panel["name"] for panel in filled(chart_spec(LIGHT), still_drawn)["vconcat"]]


def test_metrics_of_one_direction_share_a_panel_and_all_their_extremes_are_drawn() -> None:
    run = make_run()
    lines = metric_lines(run.metrics)
    assert [(line.series.name, line.beside) for line in lines] == [
        ("test_accuracy", True),
        ("train_accuracy", True),
        ("train_loss", False),
    ]
    drawn = drawn_groups(run.gaps, [], run.summary, lines)["mlp"]
    for line in lines:
        kept = [row["value"] for row in run.metrics.to_pylist() if row["name"] == line.series.name]
        shown = [point["value"] for point in drawn.points() if point["name"] == line.series.name]
        assert len(kept) > POINTS_DRAWN >= len(shown)
        assert (min(shown), max(shown), shown[0], shown[-1]) == (min(kept), max(kept), kept[0], kept[-1])
    panels = [panel["name"] for panel in filled(chart_spec(LIGHT), drawn)["vconcat"]]
    assert panels[panels.index("metric") + 1] == "further"
    assert run_chart_png(run) != run_chart_png(replace(run, metrics=run.metrics.slice(0, 0)))


def test_without_values_the_means_stand_for_the_metric() -> None:
    run = make_run()
    drawn = drawn_groups(run.gaps, [], run.summary)["total"]
    assert [(point["step"], point["value"]) for point in drawn.points()] == [
        (row["step"], row["value"]) for row in drawn.metric
    ]
    panels = {panel["name"] for panel in filled(chart_spec(LIGHT), drawn)["vconcat"]}
    assert ("metric" in panels, "further" in panels) == (True, False)


def test_a_run_without_an_evaluation_metric_still_shows_the_others() -> None:
    run = make_run(metric=False)
    points = [
        {"name": "loss", "role": "other", "higher_is_better": False, "step": 40 * i, "value": 1.0} for i in (0, 5)
    ]
    rate = {"name": "lr", "role": "learning_rate", "step": 0, "value": 0.1}
    drawn = drawn_groups(run.gaps, [], run.summary, metric_lines(build("metrics", [*points, rate])))["total"]
    panels = {panel["name"] for panel in filled(chart_spec(LIGHT), drawn)["vconcat"]}
    assert ("metric" in panels, "further" in panels) == (False, True)
    assert {point["name"] for point in drawn.points()} == {"loss"}


def test_points_beyond_the_axis_are_not_drawn() -> None:
    run = make_run(metric=False)
    points = [{"name": "loss", "role": "other", "step": step, "value": 1.0} for step in (-40, 0, 3960, 4000)]
    drawn = drawn_groups(run.gaps, [], run.summary, metric_lines(build("metrics", points)))["total"]
    assert [point["step"] for point in drawn.points()] == [0, 3960]


LISTS = st.lists(st.none() | st.lists(st.floats(allow_infinity=False) | st.none(), max_size=4), min_size=1, max_size=6)


@given(LISTS)
def test_lists_come_back_whatever_their_lengths(lists: list[list[float | None] | None]) -> None:
    rows = [
        {"group": "total", "step": at, "step_first": 0, "singular_values": values, "overlap": []}
        for at, values in enumerate(lists)
    ]
    drawn = drawn_groups(build("gaps", rows), [], {})["total"]
    for kept, values in zip(drawn.windows()["singular_values"], lists, strict=True):
        expected = [None if one is None or math.isnan(one) else one for one in values or []]
        while expected and expected[-1] is None:
            expected.pop()
        assert kept == expected


def test_groups_stand_in_reading_order() -> None:
    groups = ["layer.10", "norm", "layer.2", "total", "mlp", "attention", "odd"]
    assert group_order(groups) == ["total", "attention", "mlp", "norm", "odd", "layer.2", "layer.10"]


def test_a_failed_run_has_a_png_that_says_so() -> None:
    assert run_chart_png(make_failed("a", "Bad.")) != run_chart_png(make_failed("b", "Bad."))


def test_a_chart_is_of_the_group_that_the_verdict_names() -> None:
    run = make_run(checkpoints=60, change_at=30)
    row = run.transitions.to_pylist()[0] | {"group": "mlp"}
    only = replace(run, transitions=build("transitions", [row]))
    assert run_chart_png(only) == run_chart_png(only, "mlp") != run_chart_png(only, "total")
    assert told_group(("total", "mlp"), []) == told_group(("total",), [row]) == "total"
