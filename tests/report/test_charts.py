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
from spectral_edge.report.drawn import drawn_groups, group_order, rounded
from spectral_edge.report.palette import LIGHT, PAGE

AGAIN = "import sys; from synthetic_runs import make_run; from spectral_edge.report import run_chart_png; "
AGAIN += "sys.stdout.buffer.write(run_chart_png(make_run(checkpoints=30, change_at=15)))"


def _size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_the_png_is_the_same_in_another_process() -> None:
    here = Path(__file__).parent
    other = subprocess.run([sys.executable, "-c", AGAIN], cwd=here, capture_output=True, check=True).stdout
    assert other == run_chart_png(make_run(checkpoints=30, change_at=15))


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
    filled(chart_spec(PAGE), drawn_groups(make_run().gaps, make_run().transitions.to_pylist(), make_run().summary)["total"])
    assert repr(chart_spec(PAGE)) == before


def test_stretches_cover_the_run_without_overlap() -> None:
    run = make_run(blurred=range(50, 75))
    stretches = drawn_groups(run.gaps, [], run.summary)["total"]["stretches"]
    assert stretches[0]["from"] == 0
    assert stretches[-1]["to"] == run.summary["step_last"]
    pairs = list(itertools.pairwise(stretches))
    assert all(one["to"] == other["from"] for one, other in pairs)
    assert all((one["regime"], one["reason"]) != (other["regime"], other["reason"]) for one, other in pairs)
    blurred = [(s["from"], s["to"]) for s in stretches if "rounding" in (s["reason"] or "")]
    assert blurred == [(2000, 3000)]


def test_what_is_drawn_is_the_table_to_six_digits() -> None:
    run = make_run()
    drawn = drawn_groups(run.gaps, run.transitions.to_pylist())
    assert list(drawn) == ["total", "attention", "mlp", "embedding"]
    rows = [row for row in run.gaps.to_pylist() if row["group"] == "mlp"]
    windows = drawn["mlp"]["windows"]
    assert windows["step"] == [row["step"] for row in rows]
    for kept, row in zip(windows["singular_values"], rows, strict=True):
        assert kept == pytest.approx(row["singular_values"], rel=5e-6)
    assert [len(overlap) for overlap in windows["overlap"]][-1] == 3


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_rounding_keeps_six_digits_and_drops_what_json_has_no_word_for(value: float) -> None:
    kept = rounded(value)
    if kept is None:
        assert not math.isfinite(value)
    else:
        assert abs(kept - value) <= 5.0000001e-6 * abs(value) + 5e-324


def test_groups_stand_in_reading_order() -> None:
    groups = ["layer.10", "norm", "layer.2", "total", "mlp", "attention", "odd"]
    assert group_order(groups) == ["total", "attention", "mlp", "norm", "odd", "layer.2", "layer.10"]


def test_a_failed_run_has_a_png_that_says_so() -> None:
    assert run_chart_png(make_failed("a", "Bad.")) != run_chart_png(make_failed("b", "Bad."))
