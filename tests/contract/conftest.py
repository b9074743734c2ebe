"""The trackers that must pass the contract, on real servers that are started once a session."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import fault_proxy
from fetch_ways import RANGE, SWITCH, TO_S3, TRIES, Way
from guarded import guarded_server
from labs import FolderLab, Lab, MlflowLab
from servers import S3_CREDENTIALS, mlflow_server, postgres, s3
from wandb_double import Double, wandb_environment
from wandb_labs import WandbLab
from wandb_offline_lab import WandbOfflineLab

LABS = ("folder", "mlflow-sqlite", "mlflow-file", "mlflow-server", "wandb", "wandb-offline")


@pytest.fixture(scope="session", autouse=True)
def _quiet_mlflow() -> Iterator[None]:
    """No telemetry, no lines on stdout, and the folder store that MLflow 3.17 wants to be asked for."""
    wanted = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    with _variables(wanted):
        yield


@pytest.fixture(scope="session", autouse=True)
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    """A W&B server in memory, where wandb finds its way in this process and in those that it starts."""
    with Double() as served, _variables(wandb_environment(tmp_path_factory.mktemp("wandb"), served)):
        yield served
        assert not served.problems


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that a killed process left behind is taken over soon."""
    monkeypatch.setattr("integrations.mlflow_lease.SILENCE", 0.5)
    monkeypatch.setattr("integrations.wandb_audit_run.SILENCE", 0.5)


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    """The address of an S3 server with the bucket `artifacts`."""
    with s3("artifacts") as address:
        yield address


@pytest.fixture(scope="session")
def runs_database() -> Iterator[str]:
    """A PostgreSQL server, for MLflow servers to keep runs in."""
    with postgres() as uri:
        yield uri


@pytest.fixture(scope="session")
def proxied(storage: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Options and environment of a server that hands artifacts through to S3."""
    env = {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": storage}
    return ("--artifacts-destination", "s3://artifacts/proxied"), env


@pytest.fixture(scope="session")
def server(
    runs_database: str, proxied: tuple[tuple[str, ...], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """`mlflow server` on PostgreSQL, artifacts proxied to S3."""
    options, env = proxied
    with mlflow_server(tmp_path_factory.mktemp("server"), runs_database, *options, env=env) as address:
        yield address


@pytest.fixture(scope="session")
def guarded(
    server: str,
    runs_database: str,
    proxied: tuple[tuple[str, ...], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The same with basic authentication, over the runs of `server`, which has made the database's tables."""
    options, env = proxied
    with guarded_server(tmp_path_factory.mktemp("guarded"), runs_database, *options, env=env) as address:
        yield address


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for an MLflow database in SQLite, which takes seconds to create, and its artifacts."""
    return tmp_path_factory.mktemp("sqlite")


@pytest.fixture(scope="session")
def forks() -> Any:
    """Processes forked from a clean one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    trackers = ["mlflow_tracker", "folder_tracker", "wandb_tracker", "wandb_offline"]
    ours = ["killed", "at_once", *(f"integrations.{name}" for name in trackers)]
    mlflows = ["mlflow.store.tracking.sqlalchemy_store", "alembic.command"]
    # What wandb imports when something is first logged, which takes seconds, and many where each call is traced.
    wandbs = ["_generated.fragments", "_generated.operations", "_internal_artifact", "_models.pagination"]
    wandbs = [*(f"wandb.sdk.artifacts.{name}" for name in wandbs), "wandb.sdk.launch.inputs.internal"]
    context.set_forkserver_preload([*ours, *mlflows, *wandbs])
    return context


@pytest.fixture
def make_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Lab]:
    """Builds a lab by name."""

    def make(name: str) -> Lab:
        if name == "folder":
            return FolderLab(tmp_path)
        if name == "wandb":
            return WandbLab(tmp_path, request.getfixturevalue("double"))
        if name == "wandb-offline":
            return WandbOfflineLab(tmp_path)
        if name == "mlflow-server":
            return MlflowLab(tmp_path, request.getfixturevalue("server"))
        if name == "mlflow-file":
            return MlflowLab(tmp_path, (tmp_path / "mlruns").as_uri())
        home = request.getfixturevalue("database")
        return MlflowLab(tmp_path, f"sqlite:///{home}/mlflow.db", (home / "artifacts").as_uri())

    return make


@pytest.fixture(params=LABS)
def lab(request: pytest.FixtureRequest, make_lab: Callable[[str], Lab]) -> Lab:
    """Each lab in turn."""
    return make_lab(request.param)


@pytest.fixture(scope="session")
def folder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow server` that keeps its artifacts in a folder, which it hands through."""
    folder = tmp_path_factory.mktemp("folder-server")
    place = ("--artifacts-destination", str(folder / "artifacts"))
    with mlflow_server(folder, f"sqlite:///{folder}/mlflow.db", *place) as address:
        yield address


@pytest.fixture
def make_way(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Way]]:
    """Builds a way by name: small ranges, few tries, no waiting."""
    monkeypatch.setattr("integrations.download.RANGE", RANGE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(TRIES - 1))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with ExitStack() as proxies:

        def make(name: str) -> Way:
            tracking = request.getfixturevalue("folder_server" if name == "folder" else "server")
            storage = request.getfixturevalue("storage")
            store = proxies.enter_context(fault_proxy(storage))
            server = proxies.enter_context(fault_proxy(tracking, {storage: store.address}))
            location = f"s3://artifacts/fetch-{time.monotonic_ns()}" if name == "s3" else None
            if name == "s3":
                for variable, value in {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": store.address}.items():
                    monkeypatch.setenv(variable, value)
            if name == "through":
                monkeypatch.setenv(SWITCH, "false")
            return Way(name, tracking, store if name in TO_S3 else server, server, location, tmp_path)

        yield make
