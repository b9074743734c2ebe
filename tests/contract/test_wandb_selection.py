"""Contract: which runs a name, a pattern, a filter, states and an age select on W&B, and at which price."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from wandb_double import Double

from integrations.selection import STATES, Criteria, RunState, Selection
from integrations.tracker import TrackedRun
from integrations.wandb_tracker import WandbTracker
from spectral_edge.errors import NotFoundError, UsageError

NOW = datetime.now(UTC).replace(microsecond=0)
MADE_UP: Sequence[tuple[str, RunState, int, int | None]] = (
    # W&B's state, the state it is, days since the start, days since the last sign of life
    ("running", "running", 1, 0),
    ("running", "running", 9, 0),
    ("pending", "unknown", 2, None),
    ("finished", "finished", 1, 0),
    ("finished", "finished", 9, 3),
    ("finished", "finished", 9, 8),
    ("failed", "failed", 3, 2),
    ("crashed", "failed", 9, 9),
    ("crashed", "failed", 9, 1),
    ("killed", "killed", 6, 5),
)
SOME_STATES: Sequence[tuple[RunState, ...]] = ((), ("running",), ("finished", "killed"), STATES)
SOME_FILTERS: Mapping[str | None, Sequence[int]] = {
    None: range(len(MADE_UP)),
    '{"config.number": {"$lt": 6}, "tags": "vision"}': (0, 2, 4),
    '{"$or": [{"summary_metrics.loss": {"$gte": 8}}, {"display_name": "1"}]}': (1, 8, 9),
}


def listed(container: str, *run_ids: str, criteria: Criteria | None = None) -> list[TrackedRun]:
    return list(WandbTracker().runs(Selection(container, run_ids, criteria or Criteria())))


def names(container: str, *run_ids: str) -> list[str]:
    return [run.key.run_name for run in listed(container, *run_ids)]


def moment(days: int) -> str:
    return (NOW - timedelta(days=days)).isoformat().replace("+00:00", "Z")


@pytest.fixture
def team(double: Double) -> str:
    """A team of its own."""
    return f"team-{time.monotonic_ns()}"


def projects(double: Double, team: str, *wanted: str) -> None:
    """Projects with one run each, named like them."""
    for name in wanted:
        double.put_run(team, name, f"id-{name}", display_name=name)


def make_up(double: Double, team: str) -> list[TrackedRun]:
    """Runs of every state and age in two projects."""
    for number, (state, _, start, end) in enumerate(MADE_UP):
        double.put_run(
            team,
            "ab"[number % 2],
            f"id{number}",
            state=state,
            config={"number": number},
            summary={"loss": float(number)},
            display_name=str(number),
            tags=["nlp" if number % 2 else "vision"],
            created_at=moment(start),
            heartbeat_at=None if end is None else moment(end),
        )
    return listed(f"{team}/*")


def test_a_pattern_means_the_projects_of_the_entity_that_it_matches(double: Double, team: str) -> None:
    projects(double, team, "vision-b", "vision-a", "nlp", "[ab]")
    assert names(f"{team}/*") == ["[ab]", "nlp", "vision-a", "vision-b"]
    assert names(f"{team}/vision-*") == ["vision-a", "vision-b"]
    assert names(f"{team}/[nv]*") == ["nlp", "vision-a", "vision-b"]
    assert names(f"{team}/[ab]") == ["[ab]"]  # a name comes before a pattern
    assert {run.key.project for run in listed(f"{team}/nlp")} == {f"{team}/nlp"}
    with pytest.raises(NotFoundError, match=r"matches 'VISION-\*' .*choose one of vision-"):
        listed(f"{team}/VISION-*")


def test_what_is_not_there_is_told_with_what_is(double: Double, team: str) -> None:
    projects(double, team, "modular-addition")
    with pytest.raises(NotFoundError, match="choose one of modular-addition"):
        listed(f"{team}/modular-additon")
    with pytest.raises(NotFoundError, match=f"'{team}x' is none"):
        listed(f"{team}x/modular-addition")
    with pytest.raises(NotFoundError, match=f"{team}x"):
        listed(f"{team}x/*")


def test_a_run_must_be_in_the_projects_that_are_meant(double: Double, team: str) -> None:
    projects(double, team, "a", "b", "c")
    assert names(f"{team}/[ab]", "id-b", "id-a") == ["b", "a"]
    with pytest.raises(NotFoundError, match="no such run") as caught:
        listed(f"{team}/[ab]", "id-c")
    assert caught.value.run == "id-c"


def test_states_ages_and_filters_select_exactly(double: Double, team: str) -> None:
    runs = make_up(double, team)
    assert {(run.key.run_name, run.state) for run in runs} == {
        (str(number), state) for number, (_, state, _, _) in enumerate(MADE_UP)
    }
    for states, age, (filter_text, passing) in product(SOME_STATES, (None, 3), SOME_FILTERS.items()):
        criteria = Criteria(filter_text, states, None if age is None else NOW - timedelta(days=age))
        wanted = [
            run.key
            for run in runs
            for number, (_, state, start, end) in [(int(run.key.run_name), MADE_UP[int(run.key.run_name)])]
            if number in passing
            if not states or state in states
            if age is None or start <= age or (end is not None and end <= age and state != "running")
        ]
        assert [run.key for run in listed(f"{team}/*", criteria=criteria)] == wanted, criteria
        if states == ("finished", "killed"):
            by_id = listed(f"{team}/*", *(run.key.run_id for run in runs), criteria=criteria)
            assert [run.key for run in by_id] == wanted, criteria


def test_runs_come_by_creation_and_have_all_that_is_told_of_them(double: Double, team: str) -> None:
    config = {"optimizer": {"name": "AdamW", "betas": [0.9, 0.99]}, "_wandb": {"t": {}}}
    double.put_run(team, "p", "b", created_at=moment(1), heartbeat_at=moment(0), config=config, tags=["mine"])
    double.put_run(team, "p", "a", created_at=moment(2))
    second, first = listed(f"{team}/p")
    assert (second.key.run_id, second.key.run_name, first.key.run_id) == ("a", "a", "b")
    assert first.params == {"optimizer.name": "AdamW", "optimizer.betas": "[0.9, 0.99]"}
    assert first.tags == {"mine": "true"}
    assert (first.started_at, first.ended_at) == (NOW - timedelta(days=1), NOW)
    assert first.url == f"{double.url}/{team}/p/runs/b"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("loss < 1", "is no JSON: .*"),
        ('["loss"]', "is no JSON object"),
        ('{"$foo": []}', r"was refused: .*\$foo"),
        ('{"nonsense": 1}', "was refused: .*nonsense"),
    ],
)
def test_a_wrong_filter_is_told_with_the_reason(double: Double, team: str, wrong: str, reason: str) -> None:
    projects(double, team, "p")
    for run_ids in ((), ("id-p",)):
        with pytest.raises(UsageError, match=f"`filter` .*{reason}") as caught:
            listed(f"{team}/p", *run_ids, criteria=Criteria(wrong))
        assert "\n" not in str(caught.value)
        assert "JSON object in the words of W&B" in str(caught.value)


def test_runs_made_for_results_are_left_out(double: Double, team: str) -> None:
    projects(double, team, "p")
    ours = {"spectral_edge": {"audit_of": "id-p"}}
    double.put_run(team, "p", "results", job_type="spectral-audit", config=ours)
    double.put_run(team, "p", "theirs", job_type="spectral-audit", display_name="theirs")
    double.put_run(team, "p", "likewise", config={"spectral_edge": {"audit_of": "x"}}, display_name="likewise")
    assert names(f"{team}/p") == ["p", "likewise", "theirs"]
    with pytest.raises(UsageError, match=r"made this run .* audited: id-p"):
        listed(f"{team}/p", "results")


def test_a_thousand_runs_take_a_request_for_each_hundred(
    double: Double, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("integrations.wandb_runs._PAGE", 2)
    for number in range(5):
        double.put_run(team, "p", f"run{number}", config={"lr": 0.1}, summary={"loss": 1.0})
    tracker = WandbTracker()
    tracker.check()
    double.calls.clear()
    runs = list(tracker.runs(Selection(f"{team}/p")))
    assert [run.params for run in runs] == [{"lr": "0.1"}] * 5
    assert double.operations() == ["Runs"] * 3


def test_a_deleted_run_is_gone_for_a_tracker_that_has_read_it(double: Double, team: str) -> None:
    projects(double, team, "p")
    tracker = WandbTracker()
    (run,) = tracker.runs(Selection(f"{team}/p"))
    assert tracker.metric_names(run) == ()
    double.delete_run(team, "p", "id-p")
    assert list(tracker.runs(Selection(f"{team}/p"))) == []
    with pytest.raises(NotFoundError) as caught:
        tracker.metric_names(run)
    assert caught.value.run == "p"


def test_no_folder_is_left_of_runs_that_were_read(
    double: Double, team: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    projects(double, team, "p")
    (run,) = listed(f"{team}/p")
    WandbTracker().metric_names(run)
    assert not list(tmp_path.iterdir())
