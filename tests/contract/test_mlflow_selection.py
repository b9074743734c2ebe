"""Contract: which runs a name, a pattern, a filter, states and an age select, on every store of MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
import requests
from labs import Lab, Logged, MlflowLab, trained

from integrations.selection import STATES, Criteria, RunState, Selection
from integrations.tracker import AUDIT_OF, TrackedRun
from spectral_edge.errors import NotFoundError, UsageError

NOW = int(time.time() * 1000)
DAY = 86_400_000
MADE_UP: Sequence[tuple[str, RunState, int, int | None]] = (
    # status, the state it is, days since the start, days since the end
    ("RUNNING", "running", 1, None),
    ("RUNNING", "running", 9, None),
    ("SCHEDULED", "running", 2, None),
    ("FINISHED", "finished", 1, 0),
    ("FINISHED", "finished", 9, 3),
    ("FINISHED", "finished", 9, 8),
    ("FINISHED", "finished", 2, None),  # set so by hand, with no end
    ("FAILED", "failed", 3, 2),
    ("FAILED", "failed", 9, 9),
    ("KILLED", "killed", 6, 5),
)
SOME_STATES: Sequence[tuple[RunState, ...]] = ((), ("running",), ("finished", "killed"), STATES)
SOME_FILTERS: Mapping[str | None, Sequence[int]] = {
    None: range(len(MADE_UP)),
    "metrics.loss < 6 and tags.team = 'vision'": (0, 2, 4),
    'tags.team = "it\'s"': range(1, len(MADE_UP), 2),
}


@pytest.fixture(params=("mlflow-sqlite", "mlflow-file", "mlflow-server"))
def mlflow_lab(request: pytest.FixtureRequest, make_lab: Callable[[str], Lab]) -> MlflowLab:
    """Each kind of store in turn."""
    lab = make_lab(request.param)
    assert isinstance(lab, MlflowLab)
    return lab


def experiments(lab: MlflowLab, *names: str) -> str:
    """Experiments with one bare run each, called after the experiment; gives what all their names begin with."""
    prefix = f"{time.monotonic_ns()}-"
    for name in names:
        lab.client.create_run(lab.client.create_experiment(prefix + name), run_name=name)
    return prefix


def listed(lab: MlflowLab, text: str, *run_ids: str, criteria: Criteria = Criteria()) -> list[TrackedRun]:  # noqa: B008 - frozen
    return list(lab.tracker.runs(Selection(text, run_ids, criteria)))


def names(lab: MlflowLab, text: str, *run_ids: str, criteria: Criteria = Criteria()) -> list[str]:  # noqa: B008 - frozen
    return [run.key.run_name for run in listed(lab, text, *run_ids, criteria=criteria)]


def test_a_name_comes_before_a_pattern(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    prefix = experiments(lab, "team-*", "team-a", "team-[ab]", "team-b/c", "other")
    assert names(lab, f"{prefix}team-*") == ["team-*"]
    assert names(lab, f"{prefix}team-[ab]") == ["team-[ab]"]
    assert names(lab, f"{prefix}team-[ab]*") == ["team-a", "team-b/c"]
    assert names(lab, f"{prefix}team-?") == ["team-*", "team-a"]
    assert names(lab, f"{prefix}*[[]*") == ["team-[ab]"]
    assert names(lab, f"{prefix}*/c") == ["team-b/c"]
    assert names(lab, f"{prefix}*") == ["other", "team-*", "team-[ab]", "team-a", "team-b/c"]
    assert {run.key.project for run in listed(lab, "*")} >= {f"{prefix}other", f"{prefix}team-b/c"}
    assert names(lab, lab.client.get_experiment_by_name(f"{prefix}team-*").experiment_id) == ["team-*"]

    lab.client.delete_experiment(lab.client.get_experiment_by_name(f"{prefix}team-*").experiment_id)
    assert names(lab, f"{prefix}team-*") == ["team-[ab]", "team-a", "team-b/c"]
    with pytest.raises(NotFoundError, match=r"no experiment whose name matches '.*TEAM-\*' at .*choose one of"):
        listed(lab, f"{prefix}TEAM-*")


def test_a_name_comes_before_an_id(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    first = lab.client.create_experiment(f"{time.monotonic_ns()}-of this id")
    lab.client.create_run(first, run_name="by id")
    assert names(lab, first) == ["by id"]
    lab.client.create_run(lab.client.create_experiment(first), run_name="by name")
    assert names(lab, first) == ["by name"]


def test_a_run_must_be_in_the_experiments_that_are_meant(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    prefix = experiments(lab, "a", "b/c", "d")
    ids = {run.key.run_name: run.key.run_id for run in listed(lab, f"{prefix}*")}
    assert names(lab, f"{prefix}b/c", ids["b/c"]) == ["b/c"]
    assert names(lab, f"{prefix}[ab]*", ids["b/c"], ids["a"]) == ["b/c", "a"]
    with pytest.raises(NotFoundError, match="the run is not in experiment"):
        listed(lab, f"{prefix}[ab]*", ids["d"])


def make_up(lab: MlflowLab) -> tuple[str, list[TrackedRun]]:
    """Runs of every state and age in two experiments; what selects all of them, and what they are."""
    prefix = f"{time.monotonic_ns()}-"
    both = [lab.client.create_experiment(prefix + name) for name in ("a", "b")]
    for number, (status, _, start, end) in enumerate(MADE_UP):
        tags = {"team": "it's" if number % 2 else "vision"}
        run = lab.client.create_run(both[number % 2], start_time=NOW - start * DAY, run_name=str(number), tags=tags)
        if end is None:
            lab.client.update_run(run.info.run_id, status=status)
        else:
            lab.client.set_terminated(run.info.run_id, status, NOW - end * DAY)
        lab.client.log_metric(run.info.run_id, "loss", float(number))
    return f"{prefix}*", listed(lab, f"{prefix}*")


def test_states_ages_and_filters_select_exactly(mlflow_lab: MlflowLab) -> None:
    text, runs = make_up(mlflow_lab)
    assert {(run.key.run_name, run.state) for run in runs} == {
        (str(number), state) for number, (_, state, _, _) in enumerate(MADE_UP)
    }
    for states, age, (filter_text, passing) in product(SOME_STATES, (None, 3), SOME_FILTERS.items()):
        since = None if age is None else datetime.fromtimestamp((NOW - age * DAY) / 1000, UTC)
        criteria = Criteria(filter_text, states, since)
        wanted = [
            run.key
            for run in runs
            for number, (_, state, start, end) in [(int(run.key.run_name), MADE_UP[int(run.key.run_name)])]
            if number in passing
            if not states or state in states
            if age is None or start <= age or (end is not None and end <= age)
        ]
        assert [run.key for run in listed(mlflow_lab, text, criteria=criteria)] == wanted, criteria
        if states == ("finished", "killed"):
            by_id = listed(mlflow_lab, text, *(run.key.run_id for run in runs), criteria=criteria)
            assert [run.key for run in by_id] == wanted, criteria


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("metrics.loss < 1 OR metrics.loss > 2", "Invalid clause"),
        ("tags.team = 'vision", "Invalid clause"),
        ("status IN ('FINISHED', 'FAILED')", "Only .*run_id.* attributes support"),
        ("loss is low", "Invalid clause"),
        ("attributes.nonsense = 'x'", "Invalid attribute key 'nonsense'"),
        ("tags.team = 'vision'; tags.team = 'x'", "multiple expression"),
    ],
)
def test_a_wrong_filter_is_told_with_the_reason(mlflow_lab: MlflowLab, wrong: str, reason: str) -> None:
    text = mlflow_lab.project().container
    run_id = mlflow_lab.log(Selection(text), Logged())
    for criteria in (Criteria(wrong), Criteria(wrong, ("finished",), datetime.now(UTC))):
        with pytest.raises(UsageError, match=f"`filter` .* was refused: .*{reason}") as caught:
            listed(mlflow_lab, text, criteria=criteria)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=f"`filter` .* was refused: .*{reason}"):
        listed(mlflow_lab, text, run_id, criteria=Criteria(wrong))


def test_what_is_no_run_of_a_users_is_left_out(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    prefix = experiments(lab, "mine", "gateway", "demo", "gone")
    ids = {name: lab.client.get_experiment_by_name(prefix + name).experiment_id for name in ("gateway", "demo", "gone")}
    lab.client.set_experiment_tag(ids["gateway"], "mlflow.experiment.isGateway", "true")
    lab.client.set_experiment_tag(ids["demo"], "mlflow.demo.version.traces", "3")
    lab.client.delete_experiment(ids["gone"])
    [mine] = listed(lab, f"{prefix}*")
    assert mine.key.run_name == "mine"
    assert names(lab, f"{prefix}demo") == ["demo"]

    experiment = lab.client.get_experiment_by_name(f"{prefix}mine").experiment_id
    tags = {AUDIT_OF: mine.key.run_id, "mlflow.parentRunId": mine.key.run_id}
    results = lab.client.create_run(experiment, run_name="results", tags=tags).info.run_id
    assert names(lab, f"{prefix}mine") == ["mine"]
    with pytest.raises(UsageError, match=f"made this run .* audited: {mine.key.run_id}"):
        listed(lab, f"{prefix}mine", results)


def test_parents_and_children_are_runs_alike(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    project = lab.project()
    parent = lab.log(project, Logged("parent", trained(1, 2)))
    child = lab.log(project, Logged("child", trained(3, 4, 5), tags={"mlflow.parentRunId": parent}))
    lab.log(project, Logged("bare child", tags={"mlflow.parentRunId": child}))
    found = {run.key.run_name: lab.tracker.checkpoints(run) for run in lab.tracker.runs(project)}
    steps = {name: [ref.step for ref in listing.checkpoints] for name, listing in found.items()}
    assert steps == {"parent": [1, 2], "child": [3, 4, 5], "bare child": []}
    assert found["bare child"].warnings == ()


def test_many_experiments_take_few_searches(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = MlflowLab(tmp_path, server)
    prefix = experiments(lab, *"edcba")
    sent: list[str] = []
    send = requests.Session.send
    monkeypatch.setattr(
        requests.Session,
        "send",
        lambda session, request, **options: (sent.append(request.path_url), send(session, request, **options))[1],
    )

    def searches() -> int:
        sent.clear()
        assert names(lab, f"{prefix}*") == list("abcde")
        return sum(path.endswith("/runs/search") for path in sent)

    assert searches() == 1
    monkeypatch.setattr("integrations.mlflow_runs._EXPERIMENTS", 2)
    assert searches() == 3
