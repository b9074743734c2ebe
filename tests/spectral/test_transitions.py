"""The detector: its null, a planted change, and what it leaves unsaid. benchmarks/transitions.py measures the rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic_updates import NULLS, autoregressive, band_of_gram, gram_of, planted
from spectral_edge.band import Band, Matrix
from spectral_edge.permutation import block_permutations, contrasts
from spectral_edge.settings import Settings
from spectral_edge.transitions import EXCESS, KINDS, fewest_updates, find_changes, metric_change
from spectral_edge.window_series import WindowSeries, window_series
from spectral_edge.windows import windows

SETTINGS = Settings()


def bands(gram: Matrix) -> dict[str, Band]:
    return {"total": band_of_gram(gram, SETTINGS.lags)}


def test_block_permutations_are_permutations_of_whole_blocks() -> None:
    orders = block_permutations(23, 5, 200, np.random.default_rng(0))
    assert (np.sort(orders, axis=1) == np.arange(23)).all()
    joints = (np.diff(orders, axis=1) != 1).sum(axis=1)
    assert joints.max() <= 5
    assert len({tuple(order) for order in orders.tolist()}) > 150


def test_contrasts_by_definition() -> None:
    series = np.random.default_rng(1).standard_normal((3, 20))
    difference, weight = contrasts(series, 4, 3)
    assert difference.shape == (3, 20 - 8 - 3 + 2)
    for entry in range(difference.shape[1]):
        before, after = series[:, : 4 + entry], series[:, 4 + entry + 2 :]
        np.testing.assert_allclose(difference[:, entry], after.mean(axis=1) - before.mean(axis=1))
        b, a = before.shape[1], after.shape[1]
        np.testing.assert_allclose(weight[entry], np.sqrt(a * b / (a + b)))


def test_window_series_agree_with_the_windows() -> None:
    gram = gram_of(autoregressive(30, 0.5, np.random.default_rng(3)))
    log_ratio, position, log_angle = window_series(gram, 10)
    found = windows(band_of_gram(gram, 20), Settings(lags=20))
    sigma = found.singular_values[found.full]
    np.testing.assert_allclose(log_ratio, np.log(sigma[:, :5] / sigma[:, 1:6]).max(axis=1), rtol=1e-9)
    assert (position < 5).all()
    np.testing.assert_allclose(np.cos(np.exp(log_angle)), found.overlap[found.full][1:, 0], rtol=1e-9)


@pytest.mark.parametrize(("window", "updates"), [(3, 14), (10, 33)])
def test_what_is_remembered_of_windows_is_what_they_are(
    window: int, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Series of many orders at once and again, against each rearranged matrix by itself, with little memory too."""
    gram = gram_of(autoregressive(updates, 0.3, np.random.default_rng(window)))
    orders = block_permutations(updates, window // 2, 60, np.random.default_rng(1))
    alone = [window_series(gram[np.ix_(order, order)], window) for order in orders]
    for kept in (10**7, 1):
        monkeypatch.setattr("spectral_edge.window_series._KEPT", kept)
        followed = WindowSeries(gram, window)
        for part in (orders[:20], orders, orders[::-1][:7]):
            found = followed(part)
        for series, one in zip(found, zip(*alone[::-1][:7], strict=True), strict=True):
            np.testing.assert_allclose(series, np.array(one), rtol=1e-7)


@pytest.mark.parametrize("family", NULLS)
def test_runs_without_a_change(family: str) -> None:
    """6 runs of each family: more than 2 reports at a rate of 5 % have a chance of 0.2 %."""
    rng = np.random.default_rng(5)
    reports = sum(bool(find_changes(bands(NULLS[family](60, rng)), SETTINGS).changes) for _ in range(6))
    assert reports <= 2


@pytest.mark.parametrize("onset", [25, 35])
def test_a_planted_change_is_found_where_it_is(onset: int) -> None:
    gram = planted(60, onset, 1.5, np.random.default_rng(onset))
    (opening,) = [change for change in find_changes(bands(gram), SETTINGS).changes if change.kind == "gap_opening"]
    assert opening.low <= onset <= opening.high
    assert abs(opening.update - onset) <= SETTINGS.window // 2
    assert opening.effect > 0.5
    assert opening.q_value <= SETTINGS.false_alarm_rate


def test_a_collapse_is_an_opening_in_reverse() -> None:
    gram = planted(60, 30, 1.0, np.random.default_rng(1))[::-1, ::-1]
    kinds = {change.kind for change in find_changes(bands(gram), SETTINGS).changes}
    assert "gap_collapse" in kinds
    assert "gap_opening" not in kinds


def test_results_repeat() -> None:
    gram = planted(60, 30, 0.5, np.random.default_rng(2))
    assert find_changes(bands(gram), SETTINGS) == find_changes(bands(gram), SETTINGS)


def test_too_short_a_run_is_not_tested() -> None:
    enough = fewest_updates(SETTINGS.window)
    gram = gram_of(autoregressive(enough, 0.0, np.random.default_rng(0)))
    assert find_changes(bands(gram), SETTINGS).stretches == 1
    assert find_changes(bands(gram[:-1, :-1]), SETTINGS).stretches == 0


def test_a_long_run_is_tested_in_stretches_and_one_change_told_once() -> None:
    gram = planted(150, 75, 2.0, np.random.default_rng(4))
    tested = find_changes(bands(gram), SETTINGS, resolution=SETTINGS.false_alarm_rate)
    openings = [change for change in tested.changes if change.kind == "gap_opening"]
    assert tested.stretches == 4
    assert len(openings) == 1
    assert openings[0].low <= 75 <= openings[0].high


def test_a_lone_change_among_many_tests_is_found() -> None:
    """One strong change in 14 stretches of one group, 56 tests: p-values of 1 in 1,000 could not reach q <= 5 %."""
    gram = planted(440, 270, 5.0, np.random.default_rng(0))
    rate = EXCESS * SETTINGS.false_alarm_rate  # that the adjusted p-value itself is at most 5 %
    tested = find_changes(bands(gram), replace(SETTINGS, false_alarm_rate=rate), resolution=rate)
    assert tested.stretches * len(KINDS) == 56
    openings = [change for change in tested.changes if change.kind == "gap_opening"]
    assert len(openings) == 1
    assert openings[0].low <= 270 <= openings[0].high
    assert openings[0].p_value < 0.001


def test_a_zero_update_is_not_tested() -> None:
    gram = gram_of(autoregressive(60, 0.0, np.random.default_rng(0)))
    gram[20, :] = gram[:, 20] = 0.0
    assert find_changes(bands(gram), SETTINGS).stretches == 0


class TestMetricChange:
    def test_a_step_is_found(self) -> None:
        rng = np.random.default_rng(0)
        values = np.where(np.arange(60) < 37, 0.1, 0.9) + 0.02 * rng.standard_normal(60)
        found = metric_change(values, SETTINGS)
        assert found is not None
        assert found.checkpoint == 37
        assert found.low <= 37 <= found.high

    def test_noise_is_none(self) -> None:
        rng = np.random.default_rng(1)
        assert sum(metric_change(rng.standard_normal(60), SETTINGS) is not None for _ in range(20)) <= 4

    def test_unknown_values_are_none(self) -> None:
        values = np.where(np.arange(60) < 37, 0.1, 0.9)
        values[3] = np.nan
        assert metric_change(values, SETTINGS) is None
        assert metric_change(values[4:30], SETTINGS) is None
