"""The PNG, and what is drawn."""

from __future__ import annotations

import itertools
import math
import struct
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from synthetic_runs import make_failed, make_run, small_store

from spectral_edge.report import run_chart_png
from spectral_edge.report.charts import chart_spec, filled
from spectral_edge.report.drawn import drawn_groups, group_order
from spectral_edge.report.palette import LIGHT, PAGE
from spectral_edge.tables import build

AGAIN = "import sys; from synthetic_runs import make_run; from spectral_edge.report import run_chart_png; "
AGAIN += "sys.stdout.buffer.write(run_chart_png(make_run(checkpoints=30, change_at=15)))"


def _size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_the_png_is_the_same_in_another_process() -> None:
    here = Path(__file__).parent
    other = subprocess.run([sys.executable, "-c", AGAIN], cwd=here, capture_output=True, check=True).stdout
    assert other == run_chart_png(make_run(checkpoints=30, change_at=15))


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
