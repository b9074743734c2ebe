"""Sequential permutations: p-values valid wherever they stop, and power that no fixed number of draws ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from spectral_edge.band import Matrix
from spectral_edge.permutation import STOP_AFTER, Draws, Orders, Scanner, permutation_scan, settle

ITEMS = 4


def scripted(maxima: Sequence[float], observed: float = 0.5) -> Draws:
    """Draws whose maxima are given in advance, over and over; the observed is what the order of all items gives."""
    served = [0]

    def scan(orders: Orders) -> Matrix:
        if served[0] == 0 and len(orders) == 1:
            served[0] = 1
            return np.full((1, 1, 1), observed)
        at = np.arange(served[0] - 1, served[0] - 1 + len(orders)) % len(maxima)
        served[0] += len(orders)
        return np.asarray(maxima, dtype=np.float64)[at][:, None, None]

    return Draws(lambda: scan, ITEMS, 1)


def of_uniform(seed: int, tests: int, effects: Sequence[float] = ()) -> list[Draws]:
    """Independent tests of exchangeable values; those with an effect have an observed value of that size instead."""
    rng = np.random.default_rng(seed)
    observed = rng.random(tests)
    observed[: len(effects)] = effects

    def draws(value: float, stream: np.random.Generator) -> Draws:
        first = [True]

        def scan(orders: Orders) -> Matrix:
            if first[0]:
                first[0] = False
                return np.full((1, 1, 1), value)
            return stream.random((len(orders), 1, 1))

        return Draws(lambda: scan, ITEMS, 1)

    return [draws(value, stream) for value, stream in zip(observed, rng.spawn(tests), strict=True)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30).filter(any), st.integers(1, 3000))
def test_the_p_value_told_is_never_below_the_exact_one_and_never_grows(maxima: list[float], until: int) -> None:
    draws = scripted(maxima)
    told = []
    for wanted in (until // 3, until // 2, until):
        draws.until(wanted)
        told.append(draws.p_values[0])
    reaching = np.flatnonzero(np.resize(maxima, STOP_AFTER * len(maxima) + 1))
    exact = STOP_AFTER / (reaching[STOP_AFTER - 1] + 1)
    assert told == sorted(told, reverse=True)
    assert told[-1] >= exact
    draws.until(10**6)
    assert draws.p_values[0] == exact


def test_a_tie_by_rounding_counts() -> None:
    draws = scripted([0.5 - 1e-13])
    draws.until(STOP_AFTER)
    assert draws.p_values[0] == 1.0


@pytest.mark.parametrize("tests", [1, 20])
def test_p_values_are_superuniform_when_tests_stop_each_other(tests: int) -> None:
    """Exchangeable values, some tests with a strong effect: P(p <= x) <= x for the others, within binomial noise."""
    p_values = []
    for seed in range(1000 // tests):
        effects = [2.0] * (tests // 4)
        stretches = of_uniform(seed, tests, effects)
        settle(stretches, 0.2)
        p_values += [stretch.p_values[0] for stretch in stretches[len(effects) :]]
    for level in (0.01, 0.05, 0.2, 0.5):
        share = np.mean(np.asarray(p_values) <= level)
        assert share <= level + 3.3 * np.sqrt(level * (1 - level) / len(p_values))
    assert np.mean(np.asarray(p_values) <= 0.5) > 0.4


def test_a_run_without_a_change_is_given_one_as_often_as_stated() -> None:
    """The smallest adjusted p-value of 20 tests is at most 0.1 in at most 10 % of runs."""
    reports = 0
    for seed in range(300):
        stretches = of_uniform(1000 + seed, 20)
        settle(stretches, 0.1)
        reports += false_discovery_control([stretch.p_values[0] for stretch in stretches]).min() <= 0.1
    assert reports <= 300 * 0.1 + 3.3 * np.sqrt(300 * 0.1 * 0.9)
    assert reports > 5


@pytest.mark.parametrize("changes", [1, 5, 100])
def test_strong_changes_among_many_tests_are_found_at_the_same_cost(changes: int) -> None:
    """400 tests; 999 permutations could find none of fewer than 8 changes. However many, the draws are 10 m / rate."""
    tests, rate = 400, 0.05
    stretches = of_uniform(3, tests, [2.0] * changes)
    settle(stretches, rate)
    q_values = false_discovery_control([stretch.p_values[0] for stretch in stretches])
    assert (q_values[:changes] <= rate).all()
    assert sum(stretch.drawn for stretch in stretches[:changes]) <= 2 * STOP_AFTER * tests / rate + 2000 * changes


@settings(deadline=None, max_examples=25)
@given(st.floats(0.01, 0.2), st.floats(1, 5))
def test_decisions_at_a_higher_rate_do_not_depend_on_the_resolution(resolution: float, factor: float) -> None:
    effects = [0.999, 0.99, 0.98, 0.97, 2.0]
    fine, coarse = of_uniform(4, 12, effects), of_uniform(4, 12, effects)
    settle(fine, 0.005)
    settle(coarse, resolution)
    decided = [
        false_discovery_control([one.p_values[0] for one in stretches]) <= resolution * factor
        for stretches in (fine, coarse)
    ]
    assert (decided[0] == decided[1]).all()


def test_a_single_test_by_permuting_values() -> None:
    values = np.random.default_rng(5).standard_normal(24)

    def scanned(series: Matrix) -> Scanner | Matrix:
        return np.abs(series[:, :12].mean(axis=1) - series[:, 12:].mean(axis=1))[:, None, None]

    for added, most in ((0.0, 1.0), (5.0, 0.011)):
        rows = values + added * (np.arange(24) < 12)
        scan = permutation_scan(lambda orders, rows=rows: rows[orders], scanned, 24, 1, 0.01)
        assert scan.values.shape == (1, 1)
        assert (scan.p_values[0] <= most) == (added > 0 or most == 1.0)
