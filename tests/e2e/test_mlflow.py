"""MLflow experiments end to end: from the runs, through the store, back to the runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from command_line import CommandLine, random_walk, write_safetensors
from mlflow import MlflowClient
from mlflow.entities import Metric
from servers import mlflow_server

from integrations.tracker import OUR_NAME

CHECKPOINTS = 14
KILL_SECONDS = 120


def log_run(client: MlflowClient, experiment: str, name: str, folder: Path, *, seed: int) -> str:
    """A run as a training loop logs it, not yet ended; returns its id."""
    run_id = str(client.create_run(experiment, run_name=name).info.run_id)
    paths = write_safetensors(folder, random_walk(CHECKPOINTS, seed=seed))
    for path in paths:
        client.log_artifact(run_id, str(path), "checkpoints")
    now = int(time.time() * 1000)
    points = [
        Metric(key, value, now, 100 * i)
        for i in range(CHECKPOINTS)
        for key, value in (("lr", 1e-3), ("val_loss", 1 / (i + 1)))
    ]
    client.log_batch(run_id, metrics=points)
    return run_id


def links_in_prefect(command: CommandLine) -> list[str]:
    """The links that audits have put on Prefect's pages, as Markdown."""
    asked = {"artifacts": {"key": {"any_": ["spectral-edge-audit-page"]}}}
    answer = httpx.post(f"{command.environment['PREFECT_API_URL']}/artifacts/filter", json=asked)
    return [artifact["data"] for artifact in answer.raise_for_status().json()]


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_an_experiment_in_sqlite(tmp_path: Path, sqlite: str, with_server: Callable[[Path], CommandLine]) -> None:
    client = MlflowClient(sqlite)
    experiment = client.create_experiment("toy", artifact_location=(tmp_path / "artifacts").as_uri())
    done = log_run(client, experiment, "done", tmp_path / "done", seed=1)
    client.set_terminated(done)
    going = log_run(client, experiment, "going", tmp_path / "going", seed=2)
    client.create_run(experiment, run_name="bare")
    before = client.get_run(done).info
    command = with_server(tmp_path)
    arguments = ("audit", "mlflow:toy", "--tracking-uri", sqlite, "--window", "4")

    first = command.run(*arguments, "--json")
    assert first.code == 0, first.err
    [source] = first.json["sources"]
    outcomes = {run["run_name"]: run["outcome"] for run in source["runs"]}
    assert outcomes == {"done": "audited", "going": "audited", "bare": "no_checkpoints"}

    run = client.get_run(done)
    assert (run.info.status, run.info.end_time) == (before.status, before.end_time)
    assert any(name.startswith(f"{OUR_NAME}/total/") for name in run.data.metrics)
    assert f"{OUR_NAME}.status" in run.data.tags
    assert client.list_artifacts(done, OUR_NAME)

    second = command.run(*arguments)
    assert second.code == 0
    assert second.out == "3 runs, nothing new, 1 without checkpoints: 0 bytes fetched, 0 writes.\n"

    client.set_terminated(going)
    third = command.run(*arguments)
    assert third.out.startswith("3 runs, 1 updated from the store, 1 without checkpoints: 0 bytes fetched,")
    states = {row["run_name"]: row["state"] for row in command.run("runs", "--json").json}
    assert states == {"done": "finished", "going": "finished"}


def test_some_runs_of_several_experiments(
    tmp_path: Path, sqlite: str, with_server: Callable[[Path], CommandLine]
) -> None:
    client = MlflowClient(sqlite)
    for seed, (name, status) in enumerate((("a", "FINISHED"), ("b/c", "FINISHED"), ("d", "FAILED"))):
        place = (tmp_path / "artifacts" / str(seed)).as_uri()
        experiment = client.create_experiment(f"team-{name}", artifact_location=place)
        client.set_terminated(log_run(client, experiment, "run", tmp_path / str(seed), seed=seed), status)
    command = with_server(tmp_path)
    selected = ("mlflow:team-*", "--tracking-uri", sqlite, "--state", "finished", "--since", "1h")
    audit = command.run("audit", *selected, "--filter", "metrics.lr > 0", "--window", "4", "--json")
    assert audit.code == 0, audit.err
    runs = audit.json["sources"][0]["runs"]
    assert [(run["project"], run["run_name"], run["outcome"]) for run in runs] == [
        ("team-a", "run", "audited"),
        ("team-b/c", "run", "audited"),
    ]
    retract = command.run("retract", *selected, "--filter", "metrics.lr < 0", "--yes")
    assert (retract.code, retract.out) == (0, "0 runs: nothing taken back.\n")
    wrong = command.run("audit", *selected, "--filter", "metrics.lr", "--dry-run")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)
    assert "`filter` 'metrics.lr' was refused" in wrong.err


def test_a_server_whose_audit_is_killed_while_it_fetches(
    tmp_path: Path, sqlite: str, with_server: Callable[[Path], CommandLine]
) -> None:
    spool = tmp_path / "spool"
    with mlflow_server(tmp_path, sqlite, "--artifacts-destination", str(tmp_path / "artifacts")) as address:
        client = MlflowClient(address)
        run_id = log_run(client, client.create_experiment("remote"), "remote", tmp_path / "logged", seed=3)
        size = sum(path.stat().st_size for path in (tmp_path / "logged").iterdir())
        command = CommandLine(
            tmp_path,
            {**with_server(tmp_path).environment, "MLFLOW_TRACKING_URI": address, "SPECTRAL_EDGE_SPOOL": str(spool)},
        )
        what = ("audit", "mlflow:remote", "--window", "4", "--lags", "4")
        arguments = (*what, "--annotate", "summary", "--max-disk", str(size * 2 // 3))

        forecast = command.run(*arguments, "--dry-run", "--json").json["sources"][0]["runs"][0]
        assert forecast["bytes_to_fetch"] == size < forecast["bytes_to_read"]
        assert forecast["requests"] >= CHECKPOINTS

        process = command.start(*arguments)
        deadline = time.monotonic() + KILL_SECONDS
        while not list(spool.rglob("*.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert list(spool.rglob("*.safetensors")), "the kill came before the first file or after the last"

        last = command.run(*arguments, "--json")
        assert last.code == 0, last.err
        [run] = last.json["sources"][0]["runs"]
        assert (run["outcome"], run["bytes_fetched"]) == ("audited", size)
        assert not spool.exists()
        run = client.get_run(run_id)
        assert f"{OUR_NAME}.status" in run.data.tags
        page = f"{address}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
        assert f"[remote]({page})" in links_in_prefect(command)

    unreachable = command.run(*arguments)
    assert unreachable.code == 1
    assert len(unreachable.errors) == 1
    assert address in unreachable.errors[0]
