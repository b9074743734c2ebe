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
    """Two workers with a token of their own for the server."""
    own: dict[str, Any] = {"env": {"PROD_TOKEN": OF_WORKERS}, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with LocalCluster(n_workers=2, threads_per_worker=1, **own) as started:
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


def test_mlflow_by_workers_with_a_token_of_their_own(
    tmp_path: Path, server: FaultProxy, storage: str, workers: str, with_server: Callable[[Path], CommandLine]
) -> None:
    log(tmp_path, server.address, "proxied")
    log(tmp_path, server.address, "direct", "s3://artifacts/direct")
    (tmp_path / "spectral-edge.toml").write_text(
        f'spool = "{tmp_path}/spool"\n[trackers.prod]\nkind = "mlflow"\nuri = "{server.address}"\n'
        'token = {env = "PROD_TOKEN"}\n'
    )
    environment = {"PROD_TOKEN": OURS, "MLFLOW_S3_ENDPOINT_URL": storage}
    command = CommandLine(tmp_path, {**with_server(tmp_path).environment, **environment})
    alone = command.run("audit", "prod:proxied", "prod:direct", *AUDIT, "--store", "here")
    assert alone.code == 0, alone.err
    for name, where, tokens in (("proxied", workers, {OURS, OF_WORKERS}), ("direct", "local:2", {OURS})):
        server.credentials.clear()
        done = command.run("audit", f"prod:{name}", *AUDIT, "--store", "there", "--dask", where, "--shards", "2")
        assert done.code == 0, done.err
        assert server.credentials == {f"Bearer {token}" for token in tokens}
        assert_same_audit(tables(tmp_path / "there", name), tables(tmp_path / "here", name))
    assert not (tmp_path / "spool").exists()


def test_wandb_by_workers_that_read_the_key_by_themselves(
    tmp_path: Path, with_server: Callable[[Path], CommandLine]
) -> None:
    with Double() as double:
        double.put_run("team", "toy", "one", display_name="one", state="finished", config={}, summary={}, history=[])
        for index, weights in enumerate(random_walk(6)):
            files = {"model.safetensors": save(weights)}
            double.put_artifact("team", "toy", "one", "model-one", files, metadata={"step": 100 * index})
        environment = {**with_server(tmp_path).environment, **wandb_environment(tmp_path / "home", double)}
        del environment["WANDB_API_KEY"], environment["WANDB_BASE_URL"]
        (tmp_path / "key").write_text(double.key)
        (tmp_path / "key").chmod(0o600)
        (tmp_path / "spectral-edge.toml").write_text(
            f'[trackers.team]\nkind = "wandb"\nbase_url = "{double.url}"\napi_key = {{file = "key"}}\nentity = "team"\n'
        )
        command = CommandLine(tmp_path, environment)
        for store, flags in {"there": ("--dask", "local:2", "--shards", "2"), "here": ()}.items():
            done = command.run("audit", "team:toy", *AUDIT, "--store", store, *flags)
            assert done.code == 0, done.err
            assert double.key not in done.out + done.err
        assert not double.problems
    assert_same_audit(tables(tmp_path / "there", "one"), tables(tmp_path / "here", "one"))
