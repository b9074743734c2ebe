"""The sentence."""

from __future__ import annotations

from itertools import permutations

import pytest
from synthetic_runs import make_failed, make_run, small_store

from spectral_edge.report import verdict
from spectral_edge.report.verdict import lead_phrase, probability, strongest
from spectral_edge.tables import RunTables


def said(run: RunTables) -> str:
    return verdict(run.summary, run.transitions.to_pylist())


def test_a_change_comes_with_its_interval_and_error_rate() -> None:
    assert said(make_run()) == (
        "The spectrum of group total changed at step 1,840 (between 1,780 and 1,960; gap opening; q = 0.01, chance of "
        "any report in a run without a change: 5 %), with 3 further changes reported. "
        "The metric moved: test_accuracy 340 steps later (180 to 460)."
    )


def test_no_change_is_not_claimed_to_be_none() -> None:
    text = said(make_run(change_at=None))
    assert text.startswith("No change of the spectrum is established in 90 full windows")
    assert "5 %" in text
    assert "does not say that nothing changed" in text


def test_a_short_run_says_why_nothing_was_tested() -> None:
    assert said(small_store()[5]) == (
        "No change of the spectrum is established. "
        "Changes were not tested: 7 checkpoints, and a window of 10 updates needs at least 41."
    )
    assert "there is no full window" in said(make_run(groups=(), checkpoints=2, windows=0, change_at=None))


def test_a_failed_run_says_nothing_of_the_spectrum() -> None:
    assert said(make_failed("x", "Bad.")) == "This run could not be audited, so nothing is said of its spectrum."


@pytest.mark.parametrize("run", small_store(), ids=lambda run: run.key.run_name)
def test_nothing_is_foretold(run: RunTables) -> None:
    assert not any(word in said(run).lower() for word in ("will", "grok", "predict", "soon", "forecast"))


@pytest.mark.parametrize(
    ("lead", "low", "high", "words"),
    [
        (340, 180, 460, "acc 340 steps later (180 to 460)"),
        (-1, -3, -1, "acc 1 step earlier (\N{MINUS SIGN}3 to \N{MINUS SIGN}1)"),
        (180, -40, 300, "acc 180 steps later (\N{MINUS SIGN}40 to 300; the order is not established)"),
        (0, -5, 5, "acc at the same step (\N{MINUS SIGN}5 to 5; the order is not established)"),
        (1200, None, None, "acc 1,200 steps later"),
        (None, None, None, None),
    ],
)
def test_order_in_time_is_told_as_measured(lead: int | None, low: int | None, high: int | None, words: str) -> None:
    row = {"metric_name": "acc", "lead_steps": lead, "lead_low": low, "lead_high": high}
    assert lead_phrase(row) == words


def test_the_smallest_q_speaks_and_an_unknown_one_last() -> None:
    change = {"group": "total", "kind": "rotation"}
    rows = [change | {"q_value": q, "onset_step": s} for q, s in ((0.03, 5), (None, 1), (0.01, 9), (0.01, 7))]
    assert strongest(rows) == rows[3]
    assert strongest([]) is None


@pytest.mark.parametrize(("p", "words"), [(0.0123, "0.012"), (0.0, "< 0.001"), (1.0, "1"), (None, "unknown")])
def test_probabilities_are_never_a_false_zero(p: float | None, words: str) -> None:
    assert probability(p) == words


def test_settings_that_cannot_be_read_cost_only_the_rate() -> None:
    text = said(make_run(settings="not JSON"))
    assert "q = 0.01)" in text
    assert "chance" not in text


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = make_run().transitions.to_pylist()
    alike = [row | {"q_value": 0.01, "onset_step": 1840} for row in rows]
    told = {(best["group"], best["kind"]) for order in permutations(alike) if (best := strongest(order))}
    assert told == {("total", "gap_opening")}
