"""`spectral-edge deploy` and `prefect deploy --all` against a real Prefect server, and a real worker process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from scheduled_machine import HOURLY, MONTHLY, NIGHTLY, WEEKLY, Machine, until
from wandb_double import Double, wandb_environment

from pipelines.interrupted import nothing_is_planned
from spectral_edge.store import Store
from tests.e2e.command_line import Answer
from tests.json_documents import require_schema

PREFECT_YAML = Path(__file__).parents[2] / "deploy" / "prefect.yaml"
NAMES = {"nightly", "hourly", "weekly", "monthly"}
SETTINGS = """
sources = ["dir:runs", "wb:toy"]

[trackers.wb]
kind = "wandb"
base_url = "{address}"
api_key = {{block = "secret/wandb-team"}}
entity = "team"
concurrency_limit = "wandb-at-once"

[trackers.gone]
kind = "wandb"
base_url = "{address}"
api_key = {{block = "secret/nobodys"}}
entity = "team"

[trackers.lab]
kind = "dir"
path = "."
"""


def _told(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a deployment says, without where and when it was registered."""
    keys = ("entrypoint", "description", "tags", "enforce_parameter_schema", "parameter_openapi_schema")
    schedules = [
        (one["schedule"]["cron"], one["schedule"]["timezone"], one["active"]) for one in deployment["schedules"]
    ]
    return {key: deployment[key] for key in keys} | {
        "schedules": schedules,
        "limit": deployment["global_concurrency_limit"]["limit"],
        "collision": deployment["concurrency_options"]["collision_strategy"],
        "environment": deployment["job_variables"],
    }


@dataclass(frozen=True)
class Registered:
    """What `spectral-edge deploy` said and what the server held: after a dry run, after one call, after a second."""

    planned_before: bool
    dry: Answer
    nothing: dict[str, Any]
    first: Answer
    once: dict[str, Any]
    second: Answer
    again: dict[str, Any]


@pytest.fixture(scope="module")
def double() -> Iterator[Double]:
    with Double() as served:
        served.put_run("team", "toy", "run", display_name="run")
        yield served
        assert not served.problems


@pytest.fixture(scope="module")
def registered(machine: Machine, double: Double) -> Registered:
    (machine.folder / "spectral-edge.toml").write_text(SETTINGS.format(address=double.url))

    def call(*more: str) -> tuple[Answer, dict[str, Any]]:
        answer = machine.command.run("deploy", "--json", *more)
        assert (answer.code, answer.err) == (0, "")
        require_schema("deploy", answer.json)
        return answer, machine.server.deployments()

    return Registered(_is_planned(machine), *call("--dry-run"), *call(), *call())


def test_a_dry_run_registers_nothing(registered: Registered) -> None:
    would = registered.dry.json["registered"]
    assert {one["kind"] for one in would} == {"work pool", "concurrency limit", "deployment", "automation"}
    assert would == registered.first.json["registered"]
    assert registered.nothing == {}


def test_twice_is_the_same_as_once(machine: Machine, registered: Registered) -> None:
    assert registered.once.keys() == NAMES
    assert registered.once["nightly"]["parameters"] == {
        "runs": "all",
        "changes": {"max_minutes": 300},
        "sources": ["dir:runs", "wb:toy"],
    }
    assert registered.once["weekly"]["parameters"] == {}
    assert {one["did"] for one in registered.first.json["registered"]} == {"created"}
    assert {one["did"] for one in registered.second.json["registered"]} == {"updated", "there already"}
    once, again = (
        {name: (found["id"], _told(found)) for name, found in held.items()}
        for held in (registered.once, registered.again)
    )
    assert again == once
    limits = {one["name"]: one["limit"] for one in machine.server.ask("/v2/concurrency_limits/filter", {})}
    assert (limits["spectral-edge-dir"], limits["wandb-at-once"]) == (1, 1)
    [pool] = machine.server.ask("/work_pools/filter", {})
    assert (pool["name"], pool["type"]) == ("spectral-edge", "process")
    [automation] = machine.server.ask("/automations/filter", {})
    assert automation["enabled"]


def test_prefects_own_command_registers_the_same(machine: Machine, registered: Registered, tmp_path: Path) -> None:
    ours = registered.again
    shutil.copy(PREFECT_YAML, tmp_path / "prefect.yaml")
    said = machine.prefect("--no-prompt", "deploy", "--all", cwd=tmp_path, SPECTRAL_EDGE_FOLDER=str(machine.folder))
    assert said.count("successfully created") == len(NAMES), said
    theirs = machine.server.deployments()
    assert {name: _told(found) for name, found in theirs.items()} == {
        name: _told(found) for name, found in ours.items()
    }
    assert {name: found["pull_steps"] for name, found in theirs.items()} == {
        name: found["pull_steps"] for name, found in ours.items()
    }


@pytest.fixture(scope="module")
def working(machine: Machine, double: Double, registered: Registered, tmp_path_factory: Any) -> Iterator[Path]:
    """A worker, in a folder that is not that of the runs."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    led = wandb_environment(tmp_path_factory.mktemp("wandb"), double)
    del led["WANDB_API_KEY"], led["WANDB_BASE_URL"]
    with machine.worker(elsewhere, **led):
        yield elsewhere


def test_a_worker_audits_compacts_and_tells(machine: Machine, working: Path) -> None:
    server = machine.server
    told = {"sources": ["dir:runs"], "changes": {"max_runs": 1}}
    assert server.end(server.start(NIGHTLY, **told))["type"] == "COMPLETED"
    [row] = Store.open(machine.folder / "spectral-edge-store").runs_table().to_pylist()
    assert row["status"] == "ok"
    summary = server.artifact("spectral-edge-summary")
    assert "1 of 1 audits went well" in summary["description"]
    assert "The budget is spent" in summary["data"]
    assert server.end(server.start(WEEKLY))["type"] == "COMPLETED"
    assert '"runs"' in server.artifact("spectral-edge-compaction")["data"]
    assert not (working / "spectral-edge-store").exists()


def test_a_worker_uses_named_trackers_and_secrets_of_prefect(machine: Machine, working: Path, double: Double) -> None:
    server = machine.server
    server.keep_secret("wandb-team", double.key)
    run = server.start(HOURLY, sources=["lab:runs", "wb:toy", "gone:toy"], runs="all")
    ended = server.end(run)
    summary = server.artifact("spectral-edge-summary")["data"]
    assert ended["type"] == "FAILED"
    assert "2 of 3 audits went well" in ended["message"], summary
    assert "there is no Prefect block secret/nobodys" in summary
    assert double.key not in summary
    assert [call for call in double.calls if call.operation]


@pytest.mark.usefixtures("registered")
def test_the_server_refuses_parameters_out_of_bounds(machine: Machine) -> None:
    found = machine.server.ask(f"/deployments/name/{MONTHLY}")
    refused = (
        {"changes": {"window": 2}},
        {"changes": {"tracking_uri": "x"}},
        {"sources": ["no source"]},
        {"runs": "some"},
    )
    for parameters in refused:
        answer = machine.server.refusal(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        assert answer == 409, parameters


def test_the_server_plans_the_scheduled_runs(machine: Machine, registered: Registered) -> None:
    assert not registered.planned_before

    def planned() -> bool:
        runs = machine.server.ask("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        return len({run["deployment_id"] for run in runs if run["auto_scheduled"]}) == len(NAMES)

    assert until(planned, "scheduled runs of each deployment")
    assert _is_planned(machine)


def _is_planned(machine: Machine) -> bool:
    """As `serve` sees it."""
    with SyncPrefectClient(api=machine.server.address) as client:
        return not nothing_is_planned(client)


def test_without_a_server_it_says_what_needs_none(tmp_path: Path, machine: Machine) -> None:
    nowhere = machine.command_in(tmp_path, PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "home"))
    [error] = nowhere.run("deploy", "dir:runs").errors
    assert "no Prefect server is named" in error
    assert "spectral-edge serve" in error
