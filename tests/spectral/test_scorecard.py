"""Each prediction on runs in which it holds, fails, or cannot be told; none holds without what it needs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.band import Matrix
from spectral_edge.scorecard import PREDICTIONS, Finding, MetricOnset, RunFacts, scorecard_of_run
from spectral_edge.scoring.evidence import COLUMNS
from spectral_edge.scoring.finding import decided
from spectral_edge.scoring.stored import scores_of_rows
from spectral_edge.spectrum import rotation_bound, stability
from spectral_edge.tables import RunTables
from tests.spectral.scorecard_runs import (
    BEFORE,
    HOLDING,
    LONG,
    MIDDLE,
    ONSET,
    TIMED,
    W,
    adiabatic,
    damped,
    falling_g23,
    hill,
    operator,
    run_tables,
    spectra,
)

NAMES = [prediction.name for prediction in PREDICTIONS]
METRIC_TESTS = ("gap_before_metric", "adiabatic_elementwise", "adiabatic_operator", "g23_declines")
WITHOUT_GAPS = ("gap_before_metric", "gap_dynamics_need_decay")


def finding(tables: RunTables, test: str, **known: Any) -> Finding:
    [found] = [score.finding for score in scorecard_of_run(tables, **known) if score.prediction == test]
    return found


def test_every_prediction_has_a_run_in_which_it_holds() -> None:
    assert list(HOLDING) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_where_it_should(name: str) -> None:
    found = finding(HOLDING[name](), name)
    assert (found.outcome, found.lacks) == ("holds", "")
    assert found.value is not None
    assert found.threshold is not None
    assert found.n > 0


AFTER = ((MIDDLE + 60, MIDDLE + 50, MIDDLE + 70),)
FAILING = {
    "gap_before_metric": lambda: run_tables(LONG, changes=AFTER, onset=ONSET),
    "gap_dynamics_need_decay": lambda: run_tables(LONG, weight_decay=0.0, changes=BEFORE),
    "k_star_by_optimizer": lambda: run_tables(optimizer="torch.optim.AdamW"),
    "three_phases": lambda: run_tables(spectra(np.linspace(8.0, 2.0, 60))),
    "three_phases_attention": lambda: run_tables(spectra(np.linspace(8.0, 2.0, 60)), groups=("attention",)),
    "stability_order": lambda: run_tables(columns={"stability": np.zeros((12, W))}),
    "overlap_order": lambda: run_tables(columns={"overlap": np.tile([0.5, 0.6, 0.5, 0.5, 0.5], (12, 1))}),
    "noise_threshold": lambda: run_tables(n_parameters=10**9, columns={"noise_threshold_ratio": np.full(12, 8.0)}),
    "adiabatic_elementwise": lambda: run_tables(LONG, **TIMED, columns=adiabatic(300.0, 1.0)),
    "adiabatic_operator": lambda: run_tables(LONG, **TIMED, columns=operator(0.01, 50.0)),
    "g23_declines": lambda: run_tables(falling_g23(1.5), **TIMED),
    "gap_damping": lambda: run_tables(spectra(2 + np.exp(0.03 * np.arange(120)))),
    "davis_kahan": lambda: run_tables(columns={"gram_change_operator": np.full(12, 0.1)}),
}


@pytest.mark.parametrize("name", NAMES)
def test_it_fails_where_it_should(name: str) -> None:
    found = finding(FAILING[name](), name)
    assert (found.outcome, found.lacks) == ("fails", "")


SHORT = spectra(np.full(W - 1, 3.0))
UNTESTABLE: list[tuple[str, Any, str]] = [
    ("gap_before_metric", lambda: run_tables(LONG, **TIMED, tested=0), "enough checkpoints"),
    ("gap_before_metric", lambda: run_tables(LONG, **TIMED, metric=None), "evaluation metric"),
    ("gap_before_metric", lambda: run_tables(LONG), "change of the metric"),
    ("gap_before_metric", lambda: run_tables(LONG, **TIMED, gain=-0.2), "gain of the metric"),
    ("gap_before_metric", lambda: run_tables(LONG, **TIMED, metric_tested=False), "a test of the metric"),
    ("gap_before_metric", lambda: run_tables(LONG, **TIMED, earlier=True), "audited by an earlier version"),
    ("g23_declines", lambda: run_tables(LONG, **TIMED, earlier=True), "audited by an earlier version"),
    ("adiabatic_operator", lambda: run_tables(LONG, **TIMED, earlier=True), "audited by an earlier version"),
    (
        "gap_before_metric",
        lambda: run_tables(LONG, changes=AFTER, onset=(70, 70, 70)),
        "time before the metric's onset",
    ),
    ("gap_before_metric", lambda: run_tables(LONG[:2], **TIMED), "full windows"),
    ("gap_before_metric", lambda: run_tables(LONG, changes=BEFORE), "change of the metric"),
    ("gap_before_metric", lambda: run_tables(LONG, changes=((240, 200, 300),), onset=ONSET), "order in time"),
    ("gap_dynamics_need_decay", lambda: run_tables(weight_decay=None), "weight decay"),
    ("gap_dynamics_need_decay", lambda: run_tables(weight_decay=math.nan), "weight decay"),
    ("gap_dynamics_need_decay", lambda: run_tables(weight_decay=0.0, tested=0), "enough checkpoints"),
    ("k_star_by_optimizer", lambda: run_tables(optimizer="SGD"), "optimizer Muon or AdamW"),
    ("k_star_by_optimizer", lambda: run_tables(optimizer=None), "optimizer Muon or AdamW"),
    ("k_star_by_optimizer", lambda: run_tables(SHORT, optimizer="Muon"), "full windows"),
    ("three_phases", lambda: run_tables(hill()[::2]), "windows without a common update"),
    ("three_phases_attention", lambda: run_tables(hill()), "group attention"),
    ("stability_order", lambda: run_tables(SHORT), "full windows"),
    ("overlap_order", lambda: run_tables(SHORT), "full windows"),
    ("noise_threshold", run_tables, "20 within the definition's bound"),
    ("adiabatic_elementwise", lambda: run_tables(LONG, columns={"learning_rate": [None] * 40}), "learning rate"),
    ("adiabatic_operator", lambda: run_tables(LONG[:24], **TIMED), "full windows around the metric's change"),
    (
        "g23_declines",
        lambda: run_tables(LONG, changes=BEFORE, onset=(70, 60, 80)),
        "full windows before the metric changes",
    ),
    ("gap_damping", run_tables, f"{14 * W + 1} windows of one k*"),
    ("davis_kahan", lambda: run_tables(columns={"gram_change_operator": np.full(12, 1e3)}), "a bound below 1"),
]


@pytest.mark.parametrize(("name", "tables", "lacks"), UNTESTABLE, ids=[f"{one[0]}: {one[2]}" for one in UNTESTABLE])
def test_what_lacks_is_named(name: str, tables: Any, lacks: str) -> None:
    found = finding(tables(), name)
    assert (found.outcome, found.lacks) == ("not_testable", lacks)
    assert len(found.why) > 20


def test_a_noisy_constant_gap_leaves_damping_open() -> None:
    """The correlation of g with dg/dt is clearly negative here, which would be no evidence."""
    noise = 0.3 * np.random.default_rng(4).standard_normal(200 + W - 1)
    sigma = spectra(5 + np.convolve(noise, np.ones(W) / W, "valid"))
    assert finding(run_tables(sigma), "gap_damping").lacks == "a sign of b"


def test_an_onset_known_from_the_series_comes_before_the_tables() -> None:
    known = MetricOnset(300, 280, 320, improved=True)
    silent = run_tables(LONG)
    assert finding(silent, "gap_before_metric", onset=known).outcome == "fails"
    assert finding(run_tables(LONG, changes=BEFORE), "gap_before_metric", onset=known).outcome == "holds"
    worse = replace(known, improved=False)
    assert finding(run_tables(LONG, **TIMED), "gap_before_metric", onset=worse).lacks == "gain of the metric"
    assert finding(run_tables(LONG, **TIMED), "gap_before_metric", onset="none").lacks == "change of the metric"


def test_a_metric_that_changes_in_a_run_without_any_change_of_the_spectrum_is_a_failure() -> None:
    found = finding(run_tables(LONG, onset=ONSET), "gap_before_metric")
    assert (found.outcome, found.numbers["metric_onset"]) == ("fails", MIDDLE)


def test_an_audit_by_an_earlier_version_says_what_to_do() -> None:
    assert "audit the run again" in finding(run_tables(LONG, **TIMED, earlier=True), "gap_before_metric").why


def test_a_lower_value_is_a_gain_where_lower_is_better() -> None:
    tables = run_tables(LONG, **TIMED, gain=-0.2)
    tables = replace(tables, runs=_with(tables.runs, "metric_higher_is_better", [False]))
    assert finding(tables, "gap_before_metric").outcome == "holds"


def test_a_failed_audit_is_named() -> None:
    tables = run_tables(LONG, **TIMED)
    failed = replace(tables, runs=_with(tables.runs, "status", ["failed"]))
    assert {score.finding.lacks for score in scorecard_of_run(failed)} == {"an audit that succeeded"}


def test_rows_of_the_table_are_read_back_as_the_scores_that_they_are() -> None:
    for tables in [make() for make in (*HOLDING.values(), *FAILING.values())]:
        facts = RunFacts.of(tables.summary)
        assert scores_of_rows(facts, tables.scorecard.to_pylist()) == scorecard_of_run(tables)
        assert set(tables.scorecard["audit_id"].to_pylist()) == {tables.audit_id}


def test_the_interval_of_the_metrics_onset_decides() -> None:
    """The change ends at 90, the metric's onset lies in [85, 300]: the order is open, whatever its best guess."""
    found = finding(run_tables(LONG, changes=BEFORE, onset=(MIDDLE, 85, 300)), "gap_before_metric")
    assert found.lacks == "order in time"
    assert found.numbers["metric_onset_low"] == 85


def test_a_run_without_onset_is_a_control_of_g23_until_the_given_step() -> None:
    tables = run_tables(falling_g23(3.0), changes=BEFORE)
    assert finding(tables, "g23_declines").side is None
    found = finding(tables, "g23_declines", until=MIDDLE)
    assert (found.outcome, found.event, found.side) == ("not_testable", True, "no change of the metric established")
    assert found.value == pytest.approx(3.0)
    assert finding(tables, "g23_declines", until=MIDDLE - 120).event is False


def test_a_is_that_of_one_window_length_around_the_onset() -> None:
    """What A does long before and long after is not asked."""
    a = np.full(40, 1e4)
    a[21 - W : 21], a[21 : 21 + W] = 0.01, 1.0
    assert finding(run_tables(LONG, **TIMED, columns={"adiabatic": a}), "adiabatic_elementwise").outcome == "holds"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_decides_nothing(value: float) -> None:
    assert decided(True, "said", value=value, threshold=0, n=1).outcome == "not_testable"
    assert decided(True, "said", value=1, threshold=0, n=1, numbers={"beside": value}).outcome == "not_testable"


def test_g23_is_that_of_attention_where_there_is_any() -> None:
    assert (
        finding(run_tables(falling_g23(3.0), **TIMED, groups=("total", "attention")), "g23_declines").group
        == "attention"
    )


def test_stability_can_come_out_either_way() -> None:
    """Distances are to the window before: where lambda_1 falls towards its old neighbour, direction 2 is safer."""
    before, now = np.array([[3.0, 2.0, 0.1], [3.0, 1.0, 0.1]]), np.array([[2.1, 1.5, 0.1], [3.0, 1.0, 0.1]])
    found = stability(rotation_bound(before, now, np.array([0.2, 0.2])))
    assert (found[:, 0] > found[:, 1]).tolist() == [False, True]


@given(name=st.sampled_from(METRIC_TESTS), optimizer=st.sampled_from(["AdamW", "Muon", None]))
@settings(max_examples=12, deadline=None)
def test_without_a_metric_no_test_of_it_holds(name: str, optimizer: str | None) -> None:
    for tables in (HOLDING[name](), run_tables(LONG, changes=BEFORE, optimizer=optimizer, metric=None)):
        silent = replace(tables, runs=_with(tables.runs, "metric_name", [None]))
        for known in (None, MetricOnset(*ONSET, improved=True)):
            assert finding(silent, name, onset=known).outcome == "not_testable"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_GAPS])
def test_no_test_of_windows_holds_on_nan(name: str) -> None:
    tables = HOLDING[name]()
    for column in COLUMNS:
        if pa.types.is_floating(tables.gaps.schema.field(column).type) or column.startswith("k_star"):
            tables = replace(tables, gaps=_with(tables.gaps, column, [None] * len(tables.gaps)))
        elif pa.types.is_list(tables.gaps.schema.field(column).type):
            tables = replace(tables, gaps=_with(tables.gaps, column, [[math.nan] * W] * len(tables.gaps)))
    assert finding(tables, name).outcome == "not_testable"


@given(name=st.sampled_from(NAMES), row=st.integers(1, 12), column=st.sampled_from(COLUMNS[4:]))
@settings(max_examples=60, deadline=None)
def test_one_nan_row_neither_breaks_a_test_nor_turns_failure_into_success(name: str, row: int, column: str) -> None:
    tables = FAILING[name]()
    values = tables.gaps[column].to_pylist()
    values[row] = [math.nan] * W if isinstance(values[row], list) else None
    poisoned = replace(tables, gaps=_with(tables.gaps, column, values))
    assert finding(poisoned, name).outcome != "holds"


def test_a_run_whose_audit_failed_is_testable_in_nothing() -> None:
    tables = run_tables(np.empty((0, W)), tested=0, optimizer=None, weight_decay=None, metric=None)
    tables = replace(tables, gaps=tables.gaps.slice(0, 0))
    assert {score.finding.outcome for score in scorecard_of_run(tables)} == {"not_testable"}


@given(seed=st.integers(0, 10_000), width=st.integers(3, 5), parameters=st.integers(3, 12))
@settings(max_examples=60, deadline=None)
def test_no_direction_turns_further_than_the_bound(seed: int, width: int, parameters: int) -> None:
    """Against singular vectors formed in R^P, with fewer and with more parameters than updates in a window."""
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((width + 6, parameters)) * np.geomspace(1, 0.01, parameters)
    updates[4:] *= rng.choice([0.1, 1.0, 3.0])
    sigma, vectors, operators = _windows(updates, width)
    change = np.array([np.nan, *(np.linalg.norm(b - a) for a, b in pairwise(operators))])
    bound = rotation_bound(sigma[:-1], sigma[1:], change[1:])
    for t in range(1, len(sigma)):
        for j in range(min(width, parameters)):
            cosine = abs(vectors[t - 1][j] @ vectors[t][j])
            assert max(0.0, 1 - cosine**2) <= bound[t - 1, j] ** 2 * (1 + 1e-9) + 1e-9


def _windows(updates: Matrix, width: int) -> tuple[Matrix, list[Matrix], list[Matrix]]:
    stacks = [updates[start : start + width] for start in range(len(updates) - width + 1)]
    parts = [np.linalg.svd(stack, full_matrices=False) for stack in stacks]
    sigma = np.array([np.pad(s, (0, width - len(s))) for _, s, _ in parts])
    return sigma, [v for _, _, v in parts], [stack.T @ stack for stack in stacks]


def _with(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values, field.type))


def test_damping_needs_the_longest_stretch_alone() -> None:
    """A first stretch that is too short to test does not decide."""
    sigma = damped()
    sigma[:3, 1] = sigma[:3, 0] - 1e-3
    assert finding(run_tables(sigma), "gap_damping").outcome == "holds"
