"""`spectral-edge audit --dask` of trackers that have to be downloaded from, with credentials of each process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, random_walk, write_safetensors
from distributed import LocalCluster
from fault_proxy import FaultProxy, fault_proxy
from mlflow import MlflowClient
from safetensors.torch import save
from same_tables import assert_same_audit
from servers import S3_CREDENTIALS, mlflow_server, postgres, s3
from wandb_double import Double, wandb_environment

from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables

OURS, OF_WORKERS = "token-6f1d2c-of-the-audit", "token-93ab7e-of-the-workers"
AUDIT = ("--window", "3", "--annotate", "none", "--json")

SETTINGS = """
spool = "{spool}"

[trackers.prod]
kind = "mlflow"
uri = "{mlflow}"
token = {{env = "PROD_TOKEN"}}

[trackers.team]
kind = "wandb"
base_url = "{wandb}"
api_key = {{file = "key"}}
entity = "team"
"""


@pytest.fixture
def storage() -> Iterator[str]:
    with s3("artifacts") as address:
        yield address


@pytest.fixture
def server(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """MLflow on PostgreSQL that hands artifacts through to S3. Everybody here has the credentials of S3."""
    env = {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": storage}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    options = ("--artifacts-destination", "s3://artifacts/proxied")
    with (
        postgres() as backend,
        mlflow_server(tmp_path, backend, *options, env=env) as address,
        fault_proxy(address) as proxy,
    ):
        yield proxy


@pytest.fixture
def workers(server: FaultProxy) -> Iterator[str]:
    """A worker with a token of its own for the server."""
    own: dict[str, Any] = {"env": {"PROD_TOKEN": OF_WORKERS}, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with LocalCluster(n_workers=1, threads_per_worker=1, **own) as started:
        assert not server.credentials
        yield started.scheduler_address


def log(folder: Path, address: str, experiment: str, location: str | None = None) -> None:
    """A run of six checkpoints."""
    client = MlflowClient(address)
    run = client.create_run(client.create_experiment(experiment, artifact_location=location), run_name=experiment)
    write_safetensors(folder / experiment, random_walk(6))
    client.log_artifacts(run.info.run_id, str(folder / experiment), "checkpoints")


def tables(store: Path, name: str) -> RunTables:
    """Of the one run of that name."""
    opened, of_key = Store.open(store, create=False), ("tracker", "project", "run_id", "run_name")
    [row] = [row for row in opened.runs_table().to_pylist() if row["run_name"] == name]
    found = opened.read_run(RunKey(*(row[field] for field in of_key)))
    assert found is not None
    return found


def test_mlflow_and_wandb_by_workers_with_credentials_of_their_own(
    tmp_path: Path, server: FaultProxy, storage: str, workers: str, with_server: Callable[[Path], CommandLine]
) -> None:
    log(tmp_path, server.address, "proxied")
    log(tmp_path, server.address, "direct", "s3://artifacts/direct")
    with Double() as double:
        double.put_run("team", "toy", "one", display_name="toy", state="finished")
        for index, weights in enumerate(random_walk(6)):
            files = {"model.safetensors": save(weights)}
            double.put_artifact("team", "toy", "one", "model-one", files, metadata={"step": 100 * index})
        (tmp_path / "key").write_text(double.key)
        (tmp_path / "key").chmod(0o600)
        (tmp_path / "spectral-edge.toml").write_text(
            SETTINGS.format(spool=tmp_path / "spool", mlflow=server.address, wandb=double.url)
        )
        environment = {
            **with_server(tmp_path).environment,
            **wandb_environment(tmp_path / "home", double),
            "WANDB_API_KEY": "of-another-server",
            "MLFLOW_S3_ENDPOINT_URL": storage,
            "PROD_TOKEN": OURS,
        }
        command = CommandLine(tmp_path, environment)
        alone = command.run("audit", "prod:proxied", "prod:direct", "team:toy", *AUDIT, "--store", "here")
        assert alone.code == 0, alone.err
        for sources, where, tokens in (
            (("prod:proxied",), workers, {OURS, OF_WORKERS}),
            (("prod:direct", "team:toy"), "local:2", {OURS}),
        ):
            server.credentials.clear()
            done = command.run("audit", *sources, *AUDIT, "--store", "there", "--dask", where, "--shards", "2")
            assert done.code == 0, done.err
            assert server.credentials == {f"Bearer {token}" for token in tokens}
            assert not any(secret in done.out + done.err for secret in (OURS, OF_WORKERS, double.key))
        assert not double.problems
    for name in ("proxied", "direct", "toy"):
        assert_same_audit(tables(tmp_path / "there", name), tables(tmp_path / "here", name))
    assert not (tmp_path / "spool").exists()
