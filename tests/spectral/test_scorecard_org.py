"""Over runs: counts, intervals, contrasts with their confounds, tables, the store, and a real run."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.scorecard import (
    ORG,
    PREDICTIONS,
    SCORES,
    OrgScore,
    Score,
    Share,
    org_table,
    scorecard_of_org,
    scorecard_of_run,
    scores_of_store,
    scores_table,
)
from spectral_edge.series import MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables, build
from spectral_edge.trajectory import Trajectory
from tests.spectral.scorecard_runs import BEFORE, LONG, MIDDLE, ONSET, falling_g23, run_tables
from tests.spectral.trajectories import band_of_gram

GOLDEN = Path(__file__).parent.parent / "golden/golden_B_wd1_s42_S40.npz"


def org_of(runs: list[RunTables], test: str) -> OrgScore:
    [found] = [one for one in scorecard_of_org(scored(runs)) if one.prediction == test]
    return found


def scored(runs: list[RunTables]) -> list[Score]:
    return [score for tables in runs for score in scorecard_of_run(tables, until=MIDDLE)]


def with_decay(count: int, changed: int, *, decay: float = 1.0, optimizer: str = "AdamW") -> list[RunTables]:
    return [
        run_tables(
            name=f"{optimizer}-{decay}-{index}",
            weight_decay=decay,
            optimizer=optimizer,
            changes=BEFORE if index < changed else (),
        )
        for index in range(count)
    ]


def test_counts_and_the_interval_over_runs() -> None:
    found = org_of([*with_decay(7, 6), run_tables(name="short", tested=0)], "gap_dynamics_need_decay")
    assert (found.holds, found.fails, found.not_testable, found.lacks) == (6, 1, 1, (("enough checkpoints", 1),))
    assert found.share.interval() == pytest.approx((beta.ppf(0.025, 6, 2), beta.ppf(0.975, 7, 1)))


def test_no_run_has_no_share() -> None:
    assert (Share(0, 0).value, Share(0, 0).interval(), str(Share(0, 0))) == (None, None, "-")
    for one in scorecard_of_org([]):
        assert (one.holds, one.fails, one.not_testable, one.lacks) == (0, 0, 0, ())


@pytest.mark.parametrize(
    ("decayed", "plain", "outcome", "p_value"),
    [((5, 5), (5, 0), "holds", 2 / 252), ((5, 0), (5, 5), "fails", 2 / 252), ((3, 3), (3, 0), "not_testable", 0.1)],
)
def test_a_contrast_needs_runs_enough(
    decayed: tuple[int, int], plain: tuple[int, int], outcome: str, p_value: float
) -> None:
    """Fisher's p of the extreme table is two of C(10, 5) and two of C(6, 3) arrangements."""
    runs = [*with_decay(*decayed), *with_decay(*plain, decay=0.0)]
    contrast = org_of(runs, "gap_dynamics_need_decay").contrast
    assert contrast is not None
    assert contrast.outcome == outcome
    assert contrast.p_value == pytest.approx(p_value)
    assert (contrast.more.hits, contrast.more.total) == (decayed[1], decayed[0])
    assert "weight decay (1 against 0)" in contrast.confounds


def test_confounds_name_what_else_differs() -> None:
    runs = [*with_decay(3, 3, optimizer="Muon"), *with_decay(3, 0, decay=0.0, optimizer="SGD")]
    contrast = org_of(runs, "gap_dynamics_need_decay").contrast
    assert contrast is not None
    assert "optimizer (Muon against SGD)" in contrast.confounds
    assert "length" not in contrast.confounds
    longer = [*runs, *(run_tables(LONG, name=f"long-{i}", weight_decay=0.0) for i in range(9))]
    contrast = org_of(longer, "gap_dynamics_need_decay").contrast
    assert contrast is not None
    assert "length (median 12 against 40 windows)" in contrast.confounds


def test_an_empty_side_has_no_contrast() -> None:
    contrast = org_of(with_decay(5, 5), "gap_dynamics_need_decay").contrast
    assert contrast is not None
    assert (contrast.outcome, contrast.p_value, contrast.confounds) == (
        "not_testable",
        None,
        "no run with no weight decay",
    )


def test_optimizers_stand_against_each_other() -> None:
    runs = [
        *with_decay(5, 0, optimizer="Muon"),
        *with_decay(5, 0, optimizer="AdamW"),
        *with_decay(5, 0, optimizer="SGD"),
    ]
    found = org_of(runs, "k_star_by_optimizer")
    assert (found.holds, found.fails, found.not_testable) == (5, 5, 5)
    assert found.contrast is not None
    assert (found.contrast.more, found.contrast.less) == (Share(5, 5), Share(5, 5))
    assert found.contrast.outcome == "not_testable"


def test_g23_that_declines_more_in_controls_fails_the_contrast() -> None:
    moved = [run_tables(falling_g23(1.2), name=f"m{i}", changes=BEFORE, onset=ONSET) for i in range(5)]
    controls = [run_tables(falling_g23(9.0), name=f"c{i}", changes=BEFORE) for i in range(5)]
    found = org_of([*moved, *controls], "g23_declines")
    assert found.contrast is not None
    assert (found.contrast.outcome, found.contrast.more, found.contrast.less) == ("fails", Share(0, 5), Share(5, 5))
    assert (found.holds, found.fails, found.not_testable) == (0, 5, 5)


@cache
def mixed() -> tuple[Score, ...]:
    runs = [*with_decay(3, 2), *with_decay(3, 1, decay=0.0), *with_decay(2, 0, optimizer="Muon")]
    runs += [run_tables(falling_g23(3.0), name=f"g{i}", changes=BEFORE, onset=ONSET) for i in range(2)]
    return tuple(scored(runs))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_order_of_runs_does_not_matter(seed: int) -> None:
    shuffled = list(mixed())
    random.Random(seed).shuffle(shuffled)
    assert scorecard_of_org(shuffled) == scorecard_of_org(mixed())


def test_tables_hold_every_score_and_prediction() -> None:
    scores = list(mixed())
    rows = scores_table(scores)
    assert rows.schema == SCORES
    assert rows.num_rows == len(scores) == 10 * len(PREDICTIONS)
    first = rows.to_pylist()[0]
    assert (first["prediction"], first["outcome"]) == (PREDICTIONS[0].name, scores[0].finding.outcome)
    by_test = org_table(scorecard_of_org(scores))
    assert by_test.schema == ORG
    assert by_test["prediction"].to_pylist() == [prediction.name for prediction in PREDICTIONS]
    total = sum(by_test[name].to_pylist()[0] for name in ("holds", "fails", "not_testable"))
    assert total == 10


def test_a_store_says_what_its_runs_say(tmp_path: Path) -> None:
    """Projects are scored apart: the onset until which controls are looked at is that of their own project."""
    store = Store.open(tmp_path / "store")
    runs = [
        run_tables(falling_g23(3.0), name="a", changes=BEFORE, onset=ONSET),
        run_tables(falling_g23(3.0), name="b", changes=BEFORE),
        run_tables(falling_g23(3.0), name="c", changes=BEFORE, project="other"),
    ]
    for tables in runs:
        store.write_run(tables)
    store.write_run(old := run_tables(falling_g23(3.0), name="d", changes=BEFORE, onset=ONSET, earlier=True))
    runs.insert(2, old)
    found = scores_of_store(store)
    untils = [MIDDLE, MIDDLE, MIDDLE, None]
    assert found == [s for one, until in zip(runs, untils, strict=True) for s in scorecard_of_run(one, until=until)]
    assert [score.finding.event for score in found if score.prediction == "g23_declines"] == [True, True, None, None]
    assert {score.run.key.run_id for score in scores_of_store(store, "other")} == {"c"}
    assert scores_of_store(store, "none such") == []


def test_what_is_in_the_table_is_read_and_not_computed_again(tmp_path: Path) -> None:
    tables = run_tables(falling_g23(3.0), name="a", changes=BEFORE, onset=ONSET)
    rows = [row | {"why": "as stored"} for row in reversed(tables.scorecard.to_pylist())]
    store = Store.open(tmp_path / "store")
    store.write_run(replace(tables, scorecard=build("scorecard", rows)))
    found = scores_of_store(store)
    assert [score.prediction for score in found] == [prediction.name for prediction in PREDICTIONS]
    assert {score.finding.why for score in found} == {"as stored"}


def test_controls_are_as_if_computed_from_all_their_rows(tmp_path: Path) -> None:
    """Attention before the total, windows of another run beside, no window at all, and too few before the onset."""
    store = Store.open(tmp_path / "store")
    late = (ONSET[0] - 160, ONSET[0] - 160, ONSET[0] - 160)
    runs = [
        run_tables(falling_g23(3.0), name="a", changes=BEFORE, onset=late),
        run_tables(falling_g23(2.0), name="b", groups=("total", "attention")),
        run_tables(LONG, name="c"),
        run_tables(LONG[:2], name="d"),
        run_tables(np.empty((0, 5)), name="e"),
        run_tables(falling_g23(3.0), name="f", onset=ONSET, gain=-0.1),
    ]
    for tables in runs:
        store.write_run(tables)
    assert scores_of_store(store) == [s for one in runs for s in scorecard_of_run(one, until=late[0])]


def test_a_real_grokking_run() -> None:
    """Its outcomes when first computed; the Gram matrices are from other code (tests/golden/README.md)."""
    with np.load(GOLDEN) as golden:
        grams = {"total": golden["K_total"][:60, :60], "attention": golden["K_attn"][:60, :60]}
        metrics = golden["M"][:60]
    settings_ = Settings(window=5)
    bands = {name: band_of_gram(gram, settings_.lags, 39_791) for name, gram in grams.items()}
    steps = np.concatenate([[0], metrics[:, 0]]).astype(np.int64)
    record = TrainingRecord(
        learning_rate=MetricSeries.from_points("lr", steps, np.full(61, 1e-3)),
        metric=MetricSeries.from_points("held_out", steps, np.concatenate([[0.0], metrics[:, 4]])),
        optimizer="AdamW",
        weight_decay=1.0,
    )
    trajectory = Trajectory(tuple(steps.tolist()), bands)
    key = RunKey("dir", "golden", "wd1", "wd1")
    scores = scorecard_of_run(analyse_run(key, trajectory, record, settings_, Provenance("f", "finished", "")))
    told = {score.prediction: score.finding for score in scores}
    assert {name: found.outcome for name, found in told.items()} == {
        "gap_before_metric": "not_testable",
        "gap_dynamics_need_decay": "holds",
        "k_star_by_optimizer": "fails",
        "three_phases": "fails",
        "three_phases_attention": "fails",
        "stability_order": "holds",
        "overlap_order": "holds",
        "noise_threshold": "not_testable",
        "adiabatic_elementwise": "fails",
        "adiabatic_operator": "fails",
        "g23_declines": "holds",
        "gap_damping": "not_testable",
        "davis_kahan": "holds",
    }
    until = told["gap_before_metric"].numbers["metric_onset_low"]
    eigenvalues = [np.linalg.eigvalsh(grams["attention"][i : i + 5, i : i + 5])[::-1] for i in range(56)]
    g23 = [values[1] - values[2] for values, step in zip(eigenvalues, steps[5:], strict=True) if step <= until]
    assert told["g23_declines"].value == pytest.approx(max(g23) / g23[-1], rel=1e-6)
    assert told["g23_declines"].n == len(g23)
    assert told["k_star_by_optimizer"].value == 1
    assert told["davis_kahan"].n == 35
