"""The regime of a window and the reasons for which it stays undetermined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.synthetic_updates import autoregressive
from spectral_edge.band import Matrix
from spectral_edge.regimes import STEADY_BELOW, Reading, got_worse, read_regimes
from spectral_edge.series import MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.windows import Windows, windows
from tests.spectral.trajectories import band_of

SETTINGS = Settings(window=5)
STEPS = np.arange(41, dtype=np.int64) * 10
CONSTANT = TrainingRecord(constant_learning_rate=1e-3)


def run(updates: Matrix) -> Windows:
    return windows(band_of(updates, SETTINGS.lags), SETTINGS)


def quiet_then_bursts() -> Matrix:
    updates = autoregressive(40, 0.0, np.random.default_rng(0), dimensions=300)
    updates[30:] *= np.array([9.0, 0.1] * 5)[:, None]
    return updates


def readings(record: TrainingRecord, updates: Matrix | None = None) -> list[Reading]:
    return read_regimes(run(quiet_then_bursts() if updates is None else updates), STEPS, record, SETTINGS)


def metric(values: Matrix, *, higher_is_better: bool = True) -> TrainingRecord:
    return replace(
        CONSTANT, metric=MetricSeries.from_points("val/acc", STEPS, values), higher_is_better=higher_is_better
    )


def shrinking() -> Matrix:
    updates = autoregressive(40, 0.0, np.random.default_rng(0), dimensions=300)
    updates[20:] *= 0.3
    return updates


def test_small_and_steady_updates_are_a_plateau() -> None:
    found = readings(CONSTANT, shrinking())
    # The last window that holds a large update ends at update 23, which is reading 22, and the next compares with it.
    # From update 36 on more than half of the past is as small.
    assert {reading.regime for reading in found[24:34]} == {"plateau"}
    assert found[-1].regime == "undetermined"
    assert "update norm 0.3" in str(found[30].reason)


def test_neither_updates_as_large_as_ever_nor_bursts_are_given_a_name() -> None:
    found = readings(CONSTANT)
    assert {reading.regime for reading in found[10:]} == {"undetermined"}
    assert all("too little to tell a regime reliably" in str(reading.reason) for reading in found[10:])
    assert "Gram change" in str(found[30].reason)


def test_small_updates_whose_spectrum_changes_are_no_plateau() -> None:
    updates = shrinking()
    updates[31:] *= np.array([0.1, 1.0, 0.1, 0.01, 0.001, 0.1, 0.001, 0.01, 1.0])[:, None]
    change = run(updates).scalars["gram_change_relative"]
    found = readings(CONSTANT, updates)
    fast = [index for index in range(10, 39) if change[index] >= STEADY_BELOW * np.nanmedian(change[:index])]
    assert len(fast) > 3
    assert {found[index].regime for index in fast} == {"undetermined"}


def test_short_windows_and_a_short_past() -> None:
    found = readings(CONSTANT)
    assert found[0] == Reading("undetermined", "short window: 2 of 5 updates")
    assert found[3].reason == "no full window before this one to compare with"
    assert found[4].reason == "only 0 earlier full windows to compare with, 5 are needed"


def test_unknown_learning_rate() -> None:
    assert {reading.reason for reading in readings(TrainingRecord())[9:]} == {"learning rate unknown"}


def test_a_learning_rate_that_drops_within_the_window() -> None:
    rate = MetricSeries.from_points("lr", STEPS, np.where(STEPS < 200, 1e-3, 1e-4))
    found = readings(TrainingRecord(learning_rate=rate))
    reasons = [reading.reason or "" for reading in found]
    assert all("changes within the window" in reason for reason in reasons[18:23])
    assert not any("changes within the window" in reason for reason in [*reasons[9:17], *reasons[26:]])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_forgetting_needs_a_metric_that_got_worse(higher_is_better: bool) -> None:
    sign = 1.0 if higher_is_better else -1.0
    wobble = 0.001 * (-1.0) ** np.arange(41)
    learned = np.where(STEPS < 100, 0.1, 0.9)
    worse = sign * np.where(STEPS < 320, learned, 0.3) + wobble
    better = sign * np.where(STEPS < 320, 0.3, 0.9) + wobble
    names = [{r.regime for r in readings(metric(m, higher_is_better=higher_is_better))[10:]} for m in (worse, better)]
    assert "forgetting" in names[0]
    assert "forgetting" not in names[1]


def test_a_metric_got_worse_when_it_never_lost_as_much() -> None:
    learned = np.array([0.1, 0.5, 0.9, 0.9, 0.88, 0.9, 0.9, 0.9])
    assert got_worse(np.append(learned, [0.9, 0.5]), 2)
    assert not got_worse(np.append(learned, [0.9, 0.85]), 2)  # it lost 0.02 before, and 0.05 is no three times that
    assert not got_worse(np.append([0.1, 0.5, 0.9, 0.9, 0.9, 0.9], [0.9, 0.85]), 2)  # a sixteenth of its range
    assert not got_worse(np.append([0.1, 0.9, 0.2, 0.9, 0.3, 0.9], [0.9, 0.2]), 1)  # it goes up and down
    assert not got_worse(np.append(learned, [np.nan, 0.5]), 1)
    assert not got_worse(np.full(6, np.nan), 2)


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30), st.integers(1, 10))
def test_whether_a_metric_got_worse_has_no_unit(values: list[float], updates: int) -> None:
    whole = np.round(np.array(values), 3)
    updates = min(updates, len(values) - 1)
    found = got_worse(whole, updates)
    assert got_worse(4.0 * whole, updates) == found  # a power of two: exact
    if found:
        assert whole[-1] < whole[-updates - 1]


def test_rounding_that_drowns_the_updates() -> None:
    band = band_of(quiet_then_bursts(), SETTINGS.lags)
    drowned = replace(band, rounding_energy=band.values[:, 0])
    found = read_regimes(windows(drowned, SETTINGS), STEPS, CONSTANT, SETTINGS)
    assert {reading.reason for reading in found[9:]} == {
        "rounding to the checkpoints' dtype makes up 100% of the updates' energy"
    }
