"""What scheduled flows take, and what deployments say; no server is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr

from pipelines.deployments import PLANS, planned
from pipelines.registration import limits
from pipelines.scheduled import OF_THE_MACHINE, Changes, audit_sources, looks
from pipelines.settings import AuditSettings, load_settings
from spectral_edge.errors import UsageError

TRACKERS = """
[trackers.done]
kind = "mlflow"
uri = "http://127.0.0.1:9"
state = ["finished"]

[trackers.late]
kind = "mlflow"
uri = "http://127.0.0.1:9"
since = "30m"
concurrency_limit = "slow-server"

[trackers.lab]
kind = "dir"
path = "."
"""


def test_nothing_secret_and_no_place_is_a_parameter() -> None:
    offered = set(Changes.model_fields)
    assert offered == set(AuditSettings.model_fields) - OF_THE_MACHINE
    assert {"window", "metric", "force"} <= offered
    for name in offered:
        annotation = AuditSettings.model_fields[name].annotation
        assert not {SecretStr, Path} & {annotation, *get_args(annotation)}, name


@pytest.mark.parametrize(
    "parameters",
    [
        {"sources": ["no source"]},
        {"sources": "dir:runs"},
        {"runs": "some"},
        {"new_within": "3 hours"},
        {"changes": {"window": 2}},
        {"changes": {"workers": 65}},
        {"changes": {"tracking_uri": "postgresql://u:p@host/db"}},
        {"changes": {"store": "/elsewhere"}},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError):
        audit_sources.validate_parameters(parameters)


@pytest.mark.parametrize(
    ("source", "parameter", "expected"),
    [
        ("mlflow:a", "all", [((), None)]),
        ("mlflow:a", "running and new", [(("running",), None), (("finished", "failed", "killed", "unknown"), "2h")]),
        ("dir:a", "running and new", [((), "2h")]),
        ("lab:a", "running and new", [((), "2h")]),
        ("done:a", "all", [(("finished",), None)]),
        ("done:a", "running and new", [(("finished",), "2h")]),
        ("late:a", "running and new", [(("running",), "30m"), (("finished", "failed", "killed", "unknown"), "30m")]),
    ],
    ids=str,
)
def test_which_runs_are_looked_at(
    source: str, parameter: Any, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(TRACKERS)
    found = [look.of_source(source) for look in looks(source, parameter, "2h", load_settings())]
    assert [(look.state, look.since) for look in found] == expected


def test_one_limit_for_each_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(TRACKERS)
    sources = ("mlflow:a", "mlflow:b", "done:a", "done:b", "late:a", "dir:c")
    assert limits(sources, load_settings()) == ("done", "slow-server", "spectral-edge-dir", "spectral-edge-mlflow")


def test_registering_loads_no_tracker_and_no_torch() -> None:
    code = (
        "import sys, pipelines.deploy_command, pipelines.registration, pipelines.serve_command, pipelines.interrupted\n"
        "assert not {'torch', 'mlflow', 'wandb', 'deltalake'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_deployment_may_do_what_it_is_told(plan: Any) -> None:
    plan.flow.validate_parameters(dict(plan.parameters))


def test_schedules_of_the_toml_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(
        'sources = ["dir:runs"]\n[schedules.nightly]\ncron = "15 3 * * *"\ntimezone = "Europe/Berlin"\n'
        "[schedules.monthly]\nactive = false\nmax_minutes = 90\n"
    )
    settings = load_settings()
    plans = {plan.name: plan for plan in planned(settings.schedules, settings.sources)}
    assert plans["nightly"].when == "15 3 * * * Europe/Berlin"
    assert plans["nightly"].parameters["sources"] == ["dir:runs"]
    assert plans["monthly"].when == "only when asked"
    assert plans["monthly"].parameters["changes"] == {"recheck": True, "max_minutes": 90}
    assert plans["hourly"].when == "30 * * * * UTC"


@pytest.mark.parametrize("line", ['cron = "every night"', 'timezone = "Atlantis"'])
def test_schedules_that_cannot_be_are_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(f"[schedules.nightly]\n{line}\n")
    with pytest.raises(UsageError, match="the schedule nightly cannot be"):
        planned(load_settings().schedules, ("dir:runs",))


def test_a_compaction_takes_no_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text("[schedules.weekly]\nmax_minutes = 10\n")
    with pytest.raises(UsageError, match="the schedule weekly audits nothing"):
        planned(load_settings().schedules, ("dir:runs",))


@pytest.mark.parametrize("line", ["[schedules.fortnightly]", '[schedules.nightly]\ncrom = "0 1 * * *"'])
def test_schedules_that_are_not_known_are_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(f"{line}\n")
    with pytest.raises(UsageError, match="`schedules` must be a table"):
        load_settings()
