"""What a run is told to log: derived from the test, with the numbers of the run's own steps."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge import advice as ad
from spectral_edge.band import Matrix
from spectral_edge.permutation import contrasts
from spectral_edge.settings import Settings
from spectral_edge.transitions import MetricChange, fewest_updates, find_changes
from tests.spectral.trajectories import band_of

W = 10
NEED = fewest_updates(W) + 1


def told(steps: Matrix, *, stretches: int = 1, identical: int = 0, metric: MetricChange | None = None) -> list[str]:
    at = np.asarray(steps, dtype=np.int64)
    return list(ad.advice(at, Settings(window=W), stretches=stretches, identical=identical, metric=metric))


def test_too_few_checkpoints_are_told_which_spacing_suffices() -> None:
    steps = 100 * np.arange(31)
    [line] = told(steps, stretches=0)
    assert line.startswith(f"Changes were not tested: 31 checkpoints, {NEED} are needed for windows of 10 updates: ")
    assert "log one every 50 steps instead of 100" in line
    assert f"train to step {100 * (NEED - 1):,}" in line
    assert "take --window 7" in line
    assert fewest_updates(7) <= 30 < fewest_updates(8)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(3, NEED - 1), st.integers(0, 10**6), st.integers(1, 10**4), st.floats(0, 0.9), st.integers(0, 2**32 - 1)
)
def test_what_is_advised_is_enough(count: int, start: int, spacing: int, jitter: float, seed: int) -> None:
    """Followed to the letter, each way gives as many checkpoints as the test needs, within the steps there are."""
    shake = np.random.default_rng(seed).uniform(-jitter, jitter, count - 1)
    steps = start + np.concatenate([[0], np.cumsum(np.maximum(1, spacing * (1 + shake)).astype(int))])
    line = told(steps, stretches=0)[0]
    if denser := re.search(r"every ([\d,]+) step", line):
        every = int(denser[1].replace(",", ""))
        assert (steps[-1] - steps[0]) // every + 1 >= NEED
    if longer := re.search(r"train to step ([\d,]+)", line):
        until = int(longer[1].replace(",", ""))
        assert (until - steps[0]) // int(np.median(np.diff(steps))) + 1 >= NEED
    if narrower := re.search(r"--window (\d+)", line):
        assert fewest_updates(int(narrower[1])) <= count - 1
    assert denser or longer


def test_a_run_of_few_steps_is_not_told_to_log_between_steps() -> None:
    [line] = told(np.arange(12), stretches=0)
    assert "log one" not in line
    assert f"train to step {NEED - 1}" in line


def test_identical_checkpoints_are_the_reason_where_there_are_enough() -> None:
    [line] = told(np.arange(NEED + 5), stretches=0, identical=3)
    assert "3 checkpoints" in line
    assert "needed" not in line


def test_enough_and_even_checkpoints_get_no_advice() -> None:
    assert told(100 * np.arange(NEED)) == []
    odd_end = np.append(100 * np.arange(NEED + 20), 100 * (NEED + 19) + 7)
    assert told(odd_end) == []  # a last checkpoint at the end of training does not spoil the run


def test_a_spacing_that_grows_is_uneven() -> None:
    [line] = told(np.unique(np.geomspace(1, 10_000, 80).astype(int)))
    assert line.startswith("Checkpoints are too uneven: they lie 1 to ")
    assert re.search(r"log one every \d+ steps? throughout", line)


@pytest.mark.parametrize("factor", [1.5, 1.6])
def test_a_factor_within_the_limit_is_even(factor: float) -> None:
    apart = np.where(np.arange(60) % 2, 100, int(100 * factor))
    assert bool(told(np.concatenate([[0], np.cumsum(apart)]))) == (factor > ad.SPACING_LIMIT)


def test_the_part_of_a_run_in_which_a_change_can_be_placed() -> None:
    """The scan's own positions, moved to checkpoints as spectral_edge/transitions.py does."""
    updates = 60
    positions = len(contrasts(np.zeros(updates - W + 1), W // 2, W)[1])
    first = W // 2 + W - 1 + 1  # the checkpoint after update W // 2 + W - 1
    assert (ad.first_change(W), ad.last_change(W, updates + 1)) == (first, first + positions - 1)


def moved(checkpoint: int, low: int, high: int) -> MetricChange:
    return MetricChange(checkpoint, low, high, before=0.1, after=0.9, p_value=0.01)


def test_a_metric_that_moves_too_early_or_too_late() -> None:
    steps, first, last = 100 * np.arange(61), ad.first_change(W), ad.last_change(W, 61)
    [early] = told(steps, metric=moved(first - 5, first - 6, first - 4))
    assert early.startswith("Checkpoints are too sparse: the metric moves at step 1,000, ")
    assert "from step 1,500 on" in early
    every = int(re.findall(r"every (\d+) steps until then", early)[0])
    assert every * first < 1000
    [late] = told(steps, metric=moved(last + 3, last, last + 4))
    assert f"until step {100 * last:,}" in late
    until = int(re.findall(r"train to step ([\d,]+)", late)[0].replace(",", ""))
    assert ad.last_change(W, until // 100 + 1) > last + 3
    for checkpoint in (first, last):
        assert told(steps, metric=moved(checkpoint, checkpoint, checkpoint)) == []


@pytest.mark.parametrize("missing", [0, 1])
def test_what_is_needed_is_what_the_test_takes(missing: int) -> None:
    updates = np.random.default_rng(0).standard_normal((NEED - 1 - missing, 30))
    chosen = Settings(window=W)
    assert (find_changes({"total": band_of(updates, chosen.lags)}, chosen).stretches == 0) == bool(missing)
