"""What the replication's tables are made of, each held against a slower or independent way to the same number."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.replication.confusion import CLASSES, balanced, best_rule, products, products_before
from benchmarks.replication.contrasts import Labelled, truth
from benchmarks.replication.intervals import Share, area, bootstrap
from benchmarks.replication.kinds import best_cut, held_out_table, kinds_table, moving
from benchmarks.replication.order import decline, horizons
from benchmarks.replication.phases import events, phases
from benchmarks.replication.positions import threshold_table
from benchmarks.replication.precision import now, plateaus, precision_table
from benchmarks.replication.recipes import CONTROLS, FAMILIES, Recipe
from benchmarks.replication.runs import Run
from benchmarks.replication.shape import hill, three_phases
from benchmarks.replication.statistics import HISTORY, against_history, statistics
from spectral_edge import Settings

W4 = Settings(window=4)
GROKKING = replace(FAMILIES[0], every=1)


def made(updates: np.ndarray, train: np.ndarray, held_out: np.ndarray, recipe: Recipe = GROKKING) -> Run:
    """A run of given updates and accuracies, a checkpoint each step."""
    count = len(updates)
    metrics = np.zeros((count + 1, 6))
    metrics[:, 0], metrics[:, 1], metrics[:, 2], metrics[:, 5] = np.arange(count + 1), train, held_out, 1e-3
    gram = updates @ updates.T
    parameters = {"total": updates.shape[1], "attention": updates.shape[1]}
    return Run(recipe, metrics, {"total": gram, "attention": gram}, parameters, {"seconds_train": 0, "seconds_pass": 0})


def steps_to(count: int, *levels: tuple[int, float]) -> np.ndarray:
    """A metric that jumps to each level at its step."""
    values = np.zeros(count + 1)
    for step, level in levels:
        values[step:] = level
    return values


def noise(count: int, seed: int = 0, parameters: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, parameters))


GROKKED = made(noise(60), steps_to(60, (5, 1.0)), steps_to(60, (15, 0.6), (25, 1.0)))
MEMORISED = made(noise(60, 1), steps_to(60, (5, 1.0)), steps_to(60, (15, 0.1)))


def test_phases_of_a_run_that_groks() -> None:
    label = phases(GROKKED, 4)
    spans = {phase: (np.flatnonzero(label == phase)[[0, -1]]).tolist() for phase in dict.fromkeys(label.tolist())}
    # 1.3 x 25 = 32.5
    assert spans == {
        "fitting": [0, 4], "plateau": [5, 14], "rise": [15, 24], "at": [25, 28], "between": [29, 32], "post": [33, 60]
    }  # fmt: skip


def test_phases_of_a_run_that_does_not() -> None:
    assert phases(MEMORISED, 4).tolist() == ["fitting"] * 9 + ["quiet"] * 52
    assert not events(MEMORISED).grokked


def test_windows_that_hold_a_part_of_the_drop_are_forgetting() -> None:
    recipe = replace(FAMILIES[3], every=1, fine_tune_at=30)
    held_out = steps_to(60, (5, 1.0), (32, 0.7), (34, 0.41), (40, 0.4))
    run = made(noise(60), steps_to(60, (5, 1.0)), held_out, recipe)
    label = phases(run, 4)
    # 90 % of the drop from 1.0 to 0.4 is reached at step 34; the window that ends at 38 begins there.
    assert np.flatnonzero(label == "forgetting").tolist() == list(range(31, 38))
    assert set(label[38:]) == {"forgotten"}
    assert set(label[9:31]) == {"quiet"}


def test_coarser_runs_have_the_same_phases_at_the_checkpoints_that_are_left() -> None:
    assert set(phases(GROKKED, 4)[::2][:15]) == set(phases(GROKKED.coarser(2), 4)[:15])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_the_area_is_the_share_of_pairs(higher: list[int], lower: list[int]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in higher for b in lower]
    assert area(np.array(higher, float), np.array(lower, float)) == pytest.approx(float(np.mean(pairs)))


def test_intervals_of_nothing_and_of_something() -> None:
    assert math.isnan(bootstrap([math.nan])[0])
    mean, low, high, count = bootstrap([0.2, math.nan, 0.4, 0.9])
    assert (mean, count) == (pytest.approx(0.5), 3)
    assert 0.2 <= low < mean < high <= 0.9
    assert str(Share(0, 24)) == "0/24 [0.00, 0.14]"  # 1 - 0.025^(1/24) = 0.142


def test_the_decline_is_that_of_the_singular_values_of_the_updates() -> None:
    updates = noise(48) * np.linspace(3, 1, 48)[:, None]
    run = made(updates, np.ones(49), np.zeros(49))
    sparse = updates.reshape(12, 4, -1).sum(axis=1)
    gaps = []
    for stop in range(3, 11):  # the tenth sparse update ends at step 40
        sigma = np.linalg.svd(sparse[max(0, stop - 5) : stop], compute_uv=False)
        gaps.append(sigma[1] ** 2 - sigma[2] ** 2)
    assert decline(run, 0, 40) == pytest.approx(max(gaps) / gaps[-1])
    assert decline(run, 8, 40) == pytest.approx(max(gaps[4:]) / gaps[-1])  # windows that begin at step 8 or later
    assert math.isnan(decline(run, 30, 40))


def test_a_run_that_does_not_grok_is_looked_at_for_as_long_as_those_that_do() -> None:
    assert [one.step for one in horizons([GROKKED, MEMORISED])] == [25, 25]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 3))
def test_the_noise_threshold_ratio_never_passes_its_bound(seed: int, drift: float) -> None:
    updates = noise(20, seed) + drift * noise(1, seed + 1)
    row = threshold_table([made(updates, np.ones(21), np.zeros(21))], W4).rows[0]
    assert float(str(row["highest"])) <= float(str(row["bound"])) * (1 + 1e-9)


@given(st.lists(st.floats(-3, 3), min_size=9, max_size=16))
def test_the_hill_is_the_best_of_all_cuts(series: list[float]) -> None:
    values = np.array(series)
    heights = {
        (a, b): min(values[a:b].mean() - values[:a].mean(), values[a:b].mean() - values[b:].mean())
        for a in range(3, len(values) - 5)
        for b in range(a + 3, len(values) - 2)
    }
    assert hill(values, 3).height == pytest.approx(max(heights.values()))


def test_a_planted_hill_is_found_and_a_lasting_rise_is_none() -> None:
    direction = noise(1, 5)[0] * 3
    updates = noise(90, 6)
    hilly, rising = updates.copy(), updates.copy()
    hilly[30:60] += direction
    rising[30:] += direction
    best, p_value = three_phases(hilly @ hilly.T, W4)
    assert p_value <= 0.01
    assert abs(best.rise - 28) <= 4
    assert abs(best.fall - 58) <= 4
    assert three_phases(rising @ rising.T, W4)[1] > 0.05
    assert three_phases(updates @ updates.T, W4)[1] > 0.05


def test_statistics_agree_with_the_products_columns() -> None:
    values = statistics(GROKKED, W4)
    gaps = [
        row for row in GROKKED.audit(W4).gaps.to_pylist() if row["group"] == "total" and row["gram_change"] is not None
    ]
    for ours, column in {
        "A sigma2 plain": "adiabatic",
        "A relative sigma2 plain": "adiabatic_relative",
        "||dG||/trG": "gram_change_relative",
        "update norm": "update_norm",
        "step": "step",
    }.items():
        np.testing.assert_allclose(values.values[ours], [row[column] for row in gaps], rtol=1e-9)


def test_history_is_the_median_of_earlier_windows() -> None:
    found = against_history(np.array([2.0, 4.0, 9.0, 1.0]), 2)
    assert np.isnan(found[:2]).all()
    assert found[2:].tolist() == [3.0, 0.25]


def labelled_run(run: Run) -> Labelled:
    windows = statistics(run, W4)
    return Labelled(run, windows, phases(run, 4)[windows.checkpoint])


def test_the_best_rule_scores_what_counting_gives_and_the_products_regime_is_one() -> None:
    recipe = replace(FAMILIES[3], every=1, fine_tune_at=30)
    forgot = made(noise(60, 2), steps_to(60, (5, 1.0)), steps_to(60, (5, 1.0), (31, 0.2)), recipe)
    runs = [labelled_run(run) for run in (GROKKED, MEMORISED, forgot)]
    assert {name for one in runs for name in truth(one.phase)} >= set(CLASSES)
    for statistic in ("||dG||/trG", HISTORY):
        rule, score = best_rule(runs, statistic)
        assert score == pytest.approx(balanced(runs, rule.read))
        assert score >= 1 / 3 - 0.1
    assert set(products(runs[0], W4)) <= {*CLASSES, "undetermined"}
    # Before, the product read its regime from the same ratio at 1.5 and 3, wherever it read one at all.
    ratio, regime = runs[0].windows.values[HISTORY], products_before(runs[0], W4)
    read = regime != "undetermined"
    expected = np.where(ratio < 1.5, "plateau", np.where(ratio < 3, "transition", "unstable"))
    assert read.any()
    assert (regime[read] == expected[read]).all()


def shrunk(held_out: np.ndarray, seed: int) -> Run:
    """Updates that become small at step 30, which reads as a plateau for as long as most of the past is larger."""
    updates = noise(60, seed)
    updates[30:] *= 0.3
    return made(updates, steps_to(60, (5, 1.0)), held_out)


def test_precision_counts_runs_and_windows_that_are_named_rightly() -> None:
    rising = shrunk(steps_to(60, (30, 0.6), (45, 0.96)), 3)  # small updates while the metric rises
    still = shrunk(steps_to(60, (10, 0.6), (12, 0.96)), 4)  # after it rose
    runs = [labelled_run(rising), labelled_run(still)]
    readings = [now(one, W4) == "plateau" for one in runs]
    assert readings[0].any()
    assert readings[1].any()
    right = [
        float(np.isin(one.phase[named], ("plateau", "post", "quiet")).mean())
        for one, named in zip(runs, readings, strict=True)
    ]
    assert right == [0.0, 1.0]
    rows = {(row["rule"], row["runs"], row["regime"]): row for row in precision_table(runs, W4).rows}
    row = rows["now", "development", "plateau"]
    assert (row["named in"], row["wrong anywhere"], row["mostly right in"]) == ("2/2", 1, "1/2 [0.01, 0.99]")
    assert str(row["right"]).startswith("0.50 [0.00, 1.00]")
    assert rows["now", "new seeds", "plateau"]["named in"] == "0/0"


def test_thresholds_of_a_plateau_are_scored_on_the_worst_kind() -> None:
    rising = shrunk(steps_to(60, (30, 0.6), (45, 0.96)), 3)
    never = next(one for one in plateaus([[labelled_run(rising)]], W4) if (one.steady, one.small) == (1.5, 0.6))
    assert never.worst == 0.0
    still = shrunk(steps_to(60, (10, 0.6), (12, 0.96)), 4)
    found = plateaus([[labelled_run(still)]], W4)
    assert found[0].worst >= 0.85
    assert next(one for one in found if (one.steady, one.small) == (1.5, 0.6)).worst == 1.0


def test_a_kind_held_out_has_no_part_in_the_choice() -> None:
    held_out = steps_to(60, (15, 0.6), (25, 1.0))
    told = []
    for family, sign in (("a", 1), ("b", 1), ("c", -1)):
        updates = noise(60, 7)
        updates[15:29] *= 4.0**sign
        updates[33:] *= 4.0**-sign
        told.append(made(updates, steps_to(60, (5, 1.0)), held_out, replace(GROKKING, family=family)))
    moved = moving([labelled_run(run) for run in told], 4)
    assert [one.family for one in moved] == ["a", "b", "c"]
    table = {row["statistic"]: row for row in kinds_table(moved).rows}
    norm = table["update norm"]
    assert float(str(norm["a"])) > 0.9
    assert float(str(norm["lowest"])) == float(str(norm["c"])) < 0.3
    rows = {row["kind held out"]: row for row in held_out_table(moved).rows}
    assert (rows["c"]["chosen"], rows["c"]["threshold"]) == best_cut(moved[:2])[:2]
    above = moved[2].values[str(rows["c"]["chosen"])] >= float(str(rows["c"]["threshold"]))
    halves = [np.mean(above[moved[2].moves]), np.mean(~above[~moved[2].moves])]
    assert rows["c"]["balanced, held out"] == pytest.approx(np.mean(halves))


def test_the_controls_have_the_decay_of_the_runs_that_grok_and_hashes_of_old_recipes_stay() -> None:
    assert {family.weight_decay for family in FAMILIES if family.family in CONTROLS} == {GROKKING.weight_decay}
    # That of the first run that was trained, from its file's name.
    assert FAMILIES[0].hash == "7f928b1bc836"
