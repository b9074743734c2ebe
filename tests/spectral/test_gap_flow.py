"""The gap flow fit: closed-form relaxations, invariances, what is refused, and the trap of noise around a constant."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gap_flow import deviation, gaps, plain, windowed
from spectral_edge.band import Matrix
from spectral_edge.gap_flow import GapFlow, fewest_windows, fit, gap_flows, gap_flows_of_rows

WINDOW = 5
COUNT = 3 * fewest_windows(WINDOW)


def damped(seed: int, damping: float = 0.1, count: int = COUNT) -> Matrix:
    return 5 + windowed(deviation(count + WINDOW, damping, np.random.default_rng(seed)), WINDOW, count)


def interval(flow: GapFlow) -> tuple[float, float]:
    assert flow.b_low is not None
    assert flow.b_high is not None
    return flow.b_low, flow.b_high


@given(level=st.floats(-5.0, 5.0), rate=st.floats(0.003, 0.02), seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_an_exact_relaxation_at_uneven_steps_gives_back_a_and_b(level: float, rate: float, seed: int) -> None:
    """Noise far below the way back: the solution of dg/dt = a - b g alone decides."""
    rng = np.random.default_rng(seed)
    steps = np.concatenate([[0], np.cumsum(rng.integers(1, 5, 300))])
    g = np.empty(len(steps))
    g[0] = level + 10
    for i in range(1, len(steps)):
        g[i] = level + (g[i - 1] - level) * math.exp(-rate * (steps[i] - steps[i - 1]))
    g += 1e-7 * rng.standard_normal(len(g))
    flow = fit(steps, g, WINDOW)
    assert flow.b == pytest.approx(rate, rel=1e-3)
    assert flow.a == pytest.approx(level * rate, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("damping", [0.03, 0.1])
def test_the_median_estimate_is_near_the_truth_and_most_intervals_hold_it(damping: float) -> None:
    flows = [fit(np.arange(6 * COUNT), damped(seed, damping, 6 * COUNT), WINDOW) for seed in range(40)]
    assert np.median([math.inf if flow.b is None else flow.b for flow in flows]) == pytest.approx(damping, rel=0.35)
    covered = sum(low <= damping <= high for low, high in map(interval, flows))
    assert covered >= 33  # of 40 at 95 %: fewer than 33 has a chance of 0.1 %
    for flow in flows:
        low, high = interval(flow)
        assert flow.b is None or low <= flow.b <= high
        if flow.b is not None and flow.a is not None:
            assert flow.a / flow.b == pytest.approx(5, abs=3)


@pytest.mark.parametrize("kind", ["independent noise", "constant, window noise", "free walk", "free walk and drift"])
def test_without_damping_it_is_found_no_more_often_than_stated(kind: str) -> None:
    rng = np.random.default_rng(3)
    runs = [gaps(kind, COUNT, WINDOW, rng) for _ in range(100)]
    flows = [fit(np.arange(COUNT), g, WINDOW) for g in runs]
    assert sum(flow.damped for flow in flows) <= 9  # of 100 at 3.5 %: more has a chance of 1 %
    if "noise" in kind:  # the trap: the plain regression calls nearly all of them damped
        assert np.mean([b / error > 1.645 for b, error in map(plain, runs)]) > 0.9
        assert all(c is not None and c < 0 for c in (flow.correlation for flow in flows))


def test_strong_damping_is_found() -> None:
    flows = [fit(np.arange(6 * COUNT), damped(seed, 0.1, 6 * COUNT), WINDOW) for seed in range(20)]
    assert sum(flow.damped for flow in flows) >= 16


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(0, 50), every=st.integers(1, 1000))
@settings(max_examples=30, deadline=None)
def test_units_of_gap_and_time_change_the_fit_as_units_do(seed: int, scale: float, shift: float, every: int) -> None:
    g = damped(seed)
    plain_fit = fit(np.arange(COUNT), g, WINDOW)
    other = fit(7 + every * np.arange(COUNT), scale * g + shift, WINDOW)
    assert other.p_value == pytest.approx(plain_fit.p_value, rel=1e-6)
    assert interval(other) == pytest.approx(tuple(end / every for end in interval(plain_fit)), rel=1e-6)
    if plain_fit.b is not None and other.b is not None and plain_fit.a is not None:
        assert other.b == pytest.approx(plain_fit.b / every, rel=1e-6)
        assert other.a == pytest.approx((scale * plain_fit.a + shift * plain_fit.b) / every, rel=1e-5, abs=1e-9)


def test_stretches_are_cut_where_k_changes_and_short_ones_say_why_not() -> None:
    long = fewest_windows(WINDOW)
    rng = np.random.default_rng(0)
    sigma = np.tile(np.array([10.0, 5, 4, 3, 2]), (long + 30, 1))
    sigma[:long, 0] += rng.standard_normal(long)
    sigma[long:, 1] = 9.5  # k* goes from 1 to 2
    sigma[-10:] = [10.0, 0, 0, 0, 0]  # and then there is no ratio
    steps = 10 * np.arange(long + 30)
    first, second, third = gap_flows("total", steps, sigma)
    assert (first.k_star, first.windows, first.testable) == (1, long, True)
    assert (first.first_step, first.last_step) == (0, 10 * (long - 1))
    assert (second.k_star, second.windows, second.p_value) == (2, 20, None)
    assert second.untestable == f"k* stays the same for 20 windows, {long} are needed at W = 5"
    assert third.untestable == "no gap: fewer than two singular values are resolved"


def test_capped_and_uncapped_positions_differ_and_are_told() -> None:
    sigma = np.tile(np.array([8.0, 4, 3.9, 3.8, 0.1]), (20, 1))
    [capped] = gap_flows("total", np.arange(20), sigma, capped=True)
    [uncapped] = gap_flows("total", np.arange(20), sigma, capped=False)
    assert (capped.k_star, capped.capped) == (1, True)
    assert (uncapped.k_star, uncapped.capped) == (4, False)


def test_rows_of_the_table_give_the_same_in_any_order() -> None:
    rng = np.random.default_rng(1)
    count = fewest_windows(WINDOW)
    sigma = np.sort(rng.random((count, WINDOW)), axis=1)[:, ::-1] + np.array([20.0, 0, 0, 0, 0])
    rows = [
        {"group": "total", "short": False, "step": 3 * i, "singular_values": row.tolist()}
        for i, row in enumerate(sigma)
    ]
    short = {"group": "total", "short": True, "step": -3, "singular_values": [1.0, 0.5]}
    shuffled = [rows[i] for i in rng.permutation(count)]
    assert gap_flows_of_rows([*shuffled, short]) == {"total": gap_flows("total", 3 * np.arange(count), sigma)}


def test_a_gap_that_does_not_move_is_not_fitted() -> None:
    flow = fit(np.arange(COUNT), np.full(COUNT, 2.0), WINDOW)
    assert flow.untestable == "the gap does not move at all"
    assert (flow.b, flow.p_value, flow.correlation) == (None, None, None)
