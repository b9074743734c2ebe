"""What an audit stores of its run's metric, and the scorecard that it stores beside: always whole, whatever the run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.analysis import Provenance, analyse_run, failed_run
from spectral_edge.band import Matrix
from spectral_edge.errors import CheckpointError
from spectral_edge.scorecard import PREDICTIONS
from spectral_edge.series import MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables, build
from spectral_edge.trajectory import Trajectory
from tests.spectral.trajectories import band_of

KEY = RunKey("dir", "invented", "run", "run")
FROM = Provenance("fingerprint", "finished", "")
NAMES = sorted(prediction.name for prediction in PREDICTIONS)
EVERY = 10
MOVED = 25
"""Checkpoint from which the metric stands on its new level."""


def audited(updates: Matrix, metric: Matrix | None, chosen: Settings, **record: Any) -> RunTables:
    steps = EVERY * np.arange(len(updates) + 1)
    series = None if metric is None else MetricSeries.from_points("accuracy", steps, metric)
    trajectory = Trajectory(tuple(steps.tolist()), {"total": band_of(updates, chosen.lags)})
    return analyse_run(KEY, trajectory, TrainingRecord(metric=series, **record), chosen, FROM)


def columns(tables: RunTables) -> dict[str, Any]:
    return {name.removeprefix("metric_"): value for name, value in tables.summary.items() if "metric_" in name}


def noise(updates: int = 59) -> Matrix:
    return np.random.default_rng(0).standard_normal((updates, 200))


def level(before: float, after: float, n: int = 60) -> Matrix:
    values = np.where(np.arange(n) < MOVED, before, after)
    return np.asarray(values + 0.01 * np.random.default_rng(1).standard_normal(n))


@pytest.mark.parametrize(("before", "after"), [(0.2, 0.9), (0.9, 0.2)])
@pytest.mark.parametrize("higher", [True, False])
def test_a_shift_has_a_place_two_means_and_a_direction(before: float, after: float, higher: bool) -> None:
    """There is no change of the spectrum beside it: the run's updates are noise."""
    values = level(before, after)
    tables = audited(noise(), values, Settings(window=5), higher_is_better=higher)
    assert tables.transitions.num_rows == 0
    found = columns(tables)
    assert (found["name"], found["higher_is_better"], found["onset"]) == ("accuracy", higher, EVERY * MOVED)
    assert found["onset_low"] <= EVERY * MOVED <= found["onset_high"]
    assert found["before"] == pytest.approx(values[:MOVED].mean())
    assert found["after"] == pytest.approx(values[MOVED:].mean())
    assert 0 < found["p_value"] <= 0.05
    [first] = [row for row in tables.scorecard.to_pylist() if row["prediction"] == "gap_before_metric"]
    gained = (after > before) == higher
    assert (first["outcome"], first["lacks"]) == (("fails", None) if gained else ("not_testable", "gain of the metric"))


def test_no_established_shift_is_told_from_none_that_could_be_tested() -> None:
    chosen = Settings(window=5)
    calm = columns(audited(noise(), np.random.default_rng(8).standard_normal(60), chosen))
    assert calm["p_value"] > 0.05
    late = level(0.2, 0.9)
    late[0] = math.nan
    untested = columns(audited(noise(), late, chosen))
    assert untested["p_value"] is None
    for found in (calm, untested):
        assert found["higher_is_better"] is True
        assert {found[name] for name in ("onset", "onset_low", "onset_high", "before", "after")} == {None}
    assert set(columns(audited(noise(), None, chosen)).values()) == {None}


def test_the_scorecard_of_an_audit_names_the_audit() -> None:
    tables = audited(noise(), level(0.2, 0.9), Settings(window=5))
    assert sorted(tables.scorecard["prediction"].to_pylist()) == NAMES
    for name in ("audit_id", "settings_hash", "schema_version", "run_id"):
        assert set(tables.scorecard[name].to_pylist()) == {tables.summary[name]}


def test_a_failed_audit_has_a_scorecard_that_says_so() -> None:
    tables = failed_run(KEY, CheckpointError("broken"), Settings(), FROM)
    assert sorted(tables.scorecard["prediction"].to_pylist()) == NAMES
    assert set(tables.scorecard["lacks"].to_pylist()) == {"an audit that succeeded"}


@given(
    seed=st.integers(0, 10_000),
    updates=st.integers(2, 70),
    parameters=st.integers(1, 8),
    window=st.integers(3, 6),
    still=st.sampled_from([0.0, 0.3, 1.0]),
    scale=st.sampled_from([0.0, 1e-45, 1e-9, 1.0, 1e38]),
    known=st.sampled_from([None, "all", "some", "constant"]),
    rate=st.sampled_from([None, 0.0, 1e-3]),
)
@settings(max_examples=60, deadline=None)
def test_every_audit_has_every_prediction(
    seed: int, updates: int, parameters: int, window: int, still: float, scale: float, known: str | None, rate: Any
) -> None:
    """Also of runs that stand still, hardly move, have fewer parameters than updates, or a metric with holes."""
    rng = np.random.default_rng(seed)
    made = scale * rng.standard_normal((updates, parameters)) * (rng.random((updates, 1)) >= still)
    metric = None if known is None else rng.standard_normal(updates + 1)
    if metric is not None and known == "some":
        metric[rng.random(updates + 1) < 0.3] = math.nan
    if metric is not None and known == "constant":
        metric[:] = 0.5
    record = {"constant_learning_rate": rate, "optimizer": "AdamW", "weight_decay": 0.1}
    rows = audited(made, metric, Settings(window=window), **record).scorecard
    assert sorted(rows["prediction"].to_pylist()) == NAMES
    assert set(rows["outcome"].to_pylist()) <= {"holds", "fails", "not_testable"}
    assert rows.schema == build("scorecard", []).schema
