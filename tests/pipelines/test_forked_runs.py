"""Runs that begin with the checkpoints of another: what is fetched, and that the tables are those of a full reading."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric
from one_folder import TENSOR, weights
from safetensors.torch import save
from same_tables import assert_same_audit
from servers import S3_CREDENTIALS, s3
from wandb_double import Double, wandb_environment

from pipelines.audit import prepare
from pipelines.one_run import audit_one
from pipelines.results import RunResult
from pipelines.settings import load_settings
from spectral_edge.store import Store
from spectral_edge.tables import RunTables

SHARED, LAGS = 40, 6
_numbers = itertools.count(1)
PARENT = weights(SHARED + 5)
FORK = np.concatenate([PARENT[:SHARED], PARENT[SHARED - 1] + weights(8, seed=1)])
OTHER = np.concatenate([PARENT[:10], PARENT[10:20] + 0.001, PARENT[20:SHARED]])
"""As long as what is shared; its files have the same names and sizes."""


def content(row: np.ndarray) -> bytes:
    return save({TENSOR: torch.tensor(row, dtype=torch.float32)})


SIZE = len(content(PARENT[0]))


@dataclass
class Runs:
    """Runs in one project; `put(name, rows)` logs one."""

    source: str
    settings: dict[str, Any]

    def put(self, name: str, rows: Sequence[np.ndarray], first_step: int = 0) -> None:
        raise NotImplementedError

    def audit(self, name: str, **flags: Any) -> RunResult:
        settings = load_settings(**{"window": 3, "lags": LAGS, "annotate": "none", **self.settings, **flags})
        job, runs = prepare(self.source, settings)
        [run] = [run for run in runs if run.key.run_name == name]
        return audit_one(job, run)

    def tables(self, name: str, store: str = "spectral-edge-store") -> RunTables:
        settings = load_settings(store=store, **self.settings)
        [key] = [run.key for run in prepare(self.source, settings)[1] if run.key.run_name == name]
        found = Store.open(store).read_run(key)
        assert found is not None
        return found


@dataclass
class WandbRuns(Runs):
    double: Double
    project: str

    def put(self, name: str, rows: Sequence[np.ndarray], first_step: int = 0) -> None:
        self.double.put_run("team", self.project, name, summary={"loss": 0.5}, display_name=name)
        for index, row in enumerate(rows):
            files = {"model.safetensors": content(row)}
            self.double.put_artifact(
                "team", self.project, name, f"model-{name}", files, metadata={"step": first_step + 10 * index}
            )


@dataclass
class MlflowRuns(Runs):
    client: MlflowClient
    experiment: str
    folder: Path

    def put(self, name: str, rows: Sequence[np.ndarray], first_step: int = 0) -> None:
        run_id = self.client.create_run(self.experiment, run_name=name).info.run_id
        folder = self.folder / name
        folder.mkdir(parents=True)
        for index, row in enumerate(rows):
            (folder / f"step_{first_step + 10 * index}.safetensors").write_bytes(content(row))
        self.client.log_artifacts(run_id, str(folder), "checkpoints")
        self.client.log_batch(run_id, metrics=[Metric("loss", 0.5, 0, 10)])


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in S3_CREDENTIALS.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def double(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double() as served:
        for name, value in wandb_environment(tmp_path_factory.mktemp("home"), served).items():
            environment.setenv(name, value)
        yield served
        assert not served.problems


@pytest.fixture(scope="module")
def mlflow_on_s3(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with s3("artifacts") as address:
        environment.setenv("MLFLOW_S3_ENDPOINT_URL", address)
        yield MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture(params=["wandb", "mlflow"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Runs:
    project = f"forks-{next(_numbers)}"
    if request.param == "wandb":
        return WandbRuns(f"wandb:team/{project}", {}, request.getfixturevalue("double"), project)
    client: MlflowClient = request.getfixturevalue("mlflow_on_s3")
    experiment = client.create_experiment(project, f"s3://artifacts/{project}")
    settings = {"tracking_uri": client.tracking_uri}
    return MlflowRuns(f"mlflow:{project}", settings, client, experiment, tmp_path / "logged")


def test_a_fork_is_read_from_where_it_leaves(runs: Runs) -> None:
    runs.put("parent", PARENT)
    runs.put("fork", FORK, first_step=5)  # it counts its steps otherwise
    assert runs.audit("parent").bytes_fetched == len(PARENT) * SIZE
    forked = runs.audit("fork")
    assert (forked.outcome, forked.new_checkpoints, forked.known_of) == ("extended", 8, "parent")
    assert forked.bytes_fetched == (8 + LAGS + 1) * SIZE
    assert runs.audit("fork").outcome == "unchanged"

    assert runs.audit("fork", store="whole").bytes_fetched == len(FORK) * SIZE
    assert_same_audit(runs.tables("fork"), runs.tables("fork", "whole"))


def test_a_copy_is_not_read_at_all(runs: Runs) -> None:
    runs.put("parent", PARENT)
    runs.put("copy", PARENT[:SHARED])
    runs.audit("parent")
    copied = runs.audit("copy")
    assert (copied.outcome, copied.known_of, copied.bytes_fetched) == ("reanalysed", "parent", 0)
    assert runs.audit("copy", store="whole").bytes_fetched == SHARED * SIZE
    assert_same_audit(runs.tables("copy"), runs.tables("copy", "whole"))
    assert runs.audit("copy", force=True).bytes_fetched == SHARED * SIZE


def test_names_and_sizes_are_not_enough(runs: Runs) -> None:
    runs.put("parent", PARENT)
    runs.put("other", OTHER)
    runs.audit("parent")
    other = runs.audit("other")
    # Ten checkpoints are the same: with the L + 1 before the others read once more, three of them are not read.
    assert (other.outcome, other.new_checkpoints, other.known_of) == ("extended", SHARED - 10, "parent")
    assert other.bytes_fetched == (SHARED - 10 + LAGS + 1) * SIZE
    assert runs.audit("other", store="whole").outcome == "audited"
    assert_same_audit(runs.tables("other"), runs.tables("other", "whole"))


def test_what_serves_nothing_is_not_taken(runs: Runs) -> None:
    runs.put("parent", PARENT)
    runs.put("fork", FORK)
    runs.audit("parent", window=3, lags=4)  # it holds fewer lags than are asked for
    assert runs.audit("fork").outcome == "audited"
    runs.put("late", FORK[2:])  # begins with another checkpoint
    assert runs.audit("late").outcome == "audited"
