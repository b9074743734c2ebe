"""Calibration on control runs: the rank rule, its uncertainty, and that it keeps what it promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.negatives.agreement import SHORTEST, partition
from benchmarks.negatives.kinds import SEGMENT
from benchmarks.negatives.lead import order_of
from benchmarks.negatives.runs import eligible
from benchmarks.synthetic_updates import NULLS, band_of_gram, planted
from spectral_edge.arrangements import fewest_blocks, smallest_p
from spectral_edge.calibration import SMALLEST_Q, calibrate, fewest_controls, rate_at, strongest
from spectral_edge.errors import UsageError
from spectral_edge.permutation import contrasts
from spectral_edge.settings import Settings
from spectral_edge.transitions import EXCESS, KINDS, fewest_updates, find_changes

SETTINGS = Settings()
Q_VALUES = st.floats(SMALLEST_Q, 1.0)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_change_is_reported_where_the_setting_reaches_the_smallest_q(strength: float) -> None:
    bands = {"total": band_of_gram(planted(50, 25, strength, np.random.default_rng(3)), SETTINGS.lags)}
    found = strongest(bands, SETTINGS)
    assert found.tests == len(KINDS)
    for setting in (found.q_value, found.q_value * 0.99):
        reported = find_changes(bands, replace(SETTINGS, false_alarm_rate=min(setting, 0.999))).changes
        assert bool(reported) == (found.q_value <= min(setting, 0.999))
    if found.change is not None:
        assert found.change.q_value == found.q_value


def test_what_was_not_tested_has_no_change() -> None:
    gram = NULLS["random walk (independent updates)"](20, np.random.default_rng(0))
    found = strongest({"total": band_of_gram(gram, SETTINGS.lags)}, SETTINGS)
    assert (found.q_value, found.change, found.tests) == (1.0, None, 0)


@given(st.lists(Q_VALUES, min_size=19, max_size=120), st.sampled_from([0.05, 0.1, 0.2]))
def test_the_setting_lies_just_below_the_score_of_its_rank(q_values: list[float], target: float) -> None:
    told = calibrate(q_values, target)
    assert told.rank / (len(q_values) + 1) <= target < (told.rank + 1) / (len(q_values) + 1)
    of_rank = sorted(q_values)[told.rank - 1]
    if told.setting is None:
        assert of_rank < SMALLEST_Q * 1.01
    else:
        assert of_rank * 0.98 < told.setting < of_rank
        assert rate_at(q_values, told.setting).share <= target
    assert told.low < told.expected < told.high


def test_values_at_powers_of_ten() -> None:
    assert calibrate([1.0] * 19).setting == 0.999
    assert calibrate([0.1] * 19).setting == 0.0999
    assert calibrate([0.008] * 19).setting == 0.00799
    assert calibrate([SMALLEST_Q] * 19).setting is None


def test_the_rank_rule_keeps_its_target_and_its_interval() -> None:
    """Of 4,000 draws of controls with continuous scores: the true rate's mean is k/(n + 1), its 95 % range as told."""
    rng, n = np.random.default_rng(1), 40
    rates = []
    for _ in range(4000):
        q_values = rng.uniform(SMALLEST_Q, 1, n)
        told = calibrate(q_values.tolist())
        assert told.setting is not None
        rates.append((told.setting - SMALLEST_Q) / (1 - SMALLEST_Q))
    assert told.rank == 2
    assert np.mean(rates) == pytest.approx(2 / 41, abs=0.003)
    assert np.quantile(rates, [0.025, 0.975]) == pytest.approx([told.low, told.high], abs=0.01)


@pytest.mark.parametrize(("target", "fewest"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.3, 3), (0.9, 1)])
def test_too_few_controls_are_refused(target: float, fewest: int) -> None:
    assert fewest_controls(target) == fewest
    assert calibrate([0.5] * fewest, target).rank >= 1
    with pytest.raises(UsageError, match=f"needs at least {fewest}"):
        calibrate([0.5] * (fewest - 1), target)


def test_a_target_out_of_range_is_refused() -> None:
    for target in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="`target` must lie between 0 and 1"):
            calibrate([0.5] * 100, target)


def test_rates_have_clopper_pearson_intervals() -> None:
    assert rate_at([0.01] * 0 + [0.2] * 20, 0.05).interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    assert rate_at([0.05, 0.2], 0.05).hits == 1
    assert rate_at([], 0.05).interval == (0.0, 1.0)


@pytest.mark.parametrize(("blocks", "length"), [(4, 2), (5, 3), (6, 2)])
@pytest.mark.parametrize("sides", [1, 2])
def test_the_smallest_p_value_by_enumeration(blocks: int, length: int, sides: int) -> None:
    """All arrangements, over all places at which the first block may begin, of a clear step in the middle."""
    items = blocks * length
    series = np.where(np.arange(items) < blocks // 2 * length, 0.0, 1.0)

    def scans(rows: np.ndarray) -> np.ndarray:
        difference, weight = contrasts(rows, 1, 1)
        values = difference * weight
        return np.asarray((np.abs(values) if sides == 2 else values).max(axis=1))

    observed, shares = scans(series[None])[0], []
    for first in range(length):
        cuts = np.arange(first, items, length)
        pieces = [piece for piece in np.split(series, cuts) if len(piece)]
        rows = np.array([np.concatenate(order) for order in permutations(pieces)])
        shares.append((scans(rows) >= observed - 1e-12).mean())
    assert np.mean(shares) == pytest.approx(smallest_p(blocks, length, sides=sides))


@pytest.mark.parametrize("window", [3, 4, 5, 6, 8, 10, 12, 20, 40])
def test_the_fewest_updates_let_every_kind_be_reported_by_itself(window: int) -> None:
    """One group, one stretch: with one block less, the clearest change of some kind could not have q <= 5 %."""
    block, rate = window // 2, 0.05 / EXCESS
    blocks = fewest_updates(window) // block
    assert fewest_updates(window) == blocks * block
    assert len(KINDS) * smallest_p(blocks, block, sides=2) <= rate < len(KINDS) * smallest_p(blocks - 1, block, sides=2)
    assert fewest_blocks(rate / len(KINDS), block, sides=2) == blocks
    assert blocks == {3: 12, 4: 11, 5: 11, 6: 10, 8: 10, 10: 9, 12: 9, 20: 9, 40: 8}[window]


def test_a_segment_without_an_event_is_the_first_in_which_the_metrics_stand_still() -> None:
    count, settled = 100, 30
    fitted = np.linspace(0.9, 1.0, count)
    held_out = np.where(np.arange(count) < settled, 0.5, 0.9)
    loss = np.full(count, 0.1)
    metrics = np.stack([fitted, held_out, loss], axis=1)
    assert eligible(metrics, 0.0) == settled
    assert eligible(metrics, fitted[35]) == 35
    assert eligible(metrics[: settled + SEGMENT - 1], 0.0) is None
    metrics[60, 2] = 0.2  # an event in every segment that is left
    assert eligible(metrics, 0.0) is None


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=11), st.floats(0.05, 2))
def test_optimal_partitioning_by_enumeration(values: list[float], variance: float) -> None:
    series = np.array(values)
    n = len(series)

    def cost(cuts: tuple[int, ...]) -> float:
        pieces = np.split(series, cuts)
        return sum(((p - p.mean()) ** 2).sum() for p in pieces) / variance + 2 * np.log(n) * len(cuts)

    possible = [
        cuts
        for pieces in range(n // SHORTEST)
        for cuts in combinations(range(SHORTEST, n - SHORTEST + 1), pieces)
        if min(np.diff([0, *cuts, n])) >= SHORTEST
    ]
    found = tuple(partition(series, variance))
    assert found in possible
    assert cost(found) == pytest.approx(min(map(cost, possible)), abs=1e-7)


def test_an_order_is_established_only_by_an_interval_without_zero() -> None:
    assert order_of({"lead_low": 25, "lead_high": 300}) == "leads"
    assert order_of({"lead_low": -25, "lead_high": 300}) == "not established"
    assert order_of({"lead_low": 0, "lead_high": 300}) == "not established"
    assert order_of({"lead_low": -300, "lead_high": -25}) == "follows"
    assert order_of({"lead_low": None, "lead_high": None}) == "no metric onset"
