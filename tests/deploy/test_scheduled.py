"""What scheduled flows take, and what deployments say; no server is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr

from pipelines.deployments import PLANS, planned
from pipelines.scheduled import OF_THE_MACHINE, Changes, audit_sources
from pipelines.settings import AuditSettings, load_settings
from spectral_edge.errors import UsageError


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


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_deployment_may_do_what_it_is_told(plan: Any) -> None:
    plan.flow.validate_parameters(dict(plan.parameters))


def test_schedules_of_the_toml_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(
        'sources = ["dir:runs"]\n[schedules.nightly]\ncron = "15 3 * * *"\ntimezone = "Europe/Berlin"\n'
        "[schedules.monthly]\nactive = false\n"
    )
    settings = load_settings()
    plans = {plan.name: plan for plan in planned(settings.schedules, settings.sources)}
    assert plans["nightly"].when == "15 3 * * * Europe/Berlin"
    assert plans["nightly"].parameters["sources"] == ["dir:runs"]
    assert plans["monthly"].when == "only when asked"
    assert plans["hourly"].when == "30 * * * * UTC"


@pytest.mark.parametrize("line", ['cron = "every night"', 'timezone = "Atlantis"'])
def test_schedules_that_cannot_be_are_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(f"[schedules.nightly]\n{line}\n")
    with pytest.raises(UsageError, match="the schedule nightly cannot be"):
        planned(load_settings().schedules, ("dir:runs",))


@pytest.mark.parametrize("line", ["[schedules.fortnightly]", '[schedules.nightly]\ncrom = "0 1 * * *"'])
def test_schedules_that_are_not_known_are_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(f"{line}\n")
    with pytest.raises(UsageError, match="`schedules` must be a table"):
        load_settings()
