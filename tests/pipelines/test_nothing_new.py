"""Runs that have ended and of which the listing tells nothing new: no request is made about any of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy, fault_proxy
from looked_at import audit_all
from mlflow import MlflowClient
from one_folder import weights, write
from servers import mlflow_server

from pipelines.settings import load_settings
from spectral_edge.query import query
from spectral_edge.store import Store

DAY = 86_400_000
_numbers = itertools.count(1)


class Training:
    """An experiment on a server whose requests are counted."""

    def __init__(self, proxy: FaultProxy, folder: Path) -> None:
        self.proxy, self.client, self.folder = proxy, MlflowClient(proxy.address), folder
        self.name = f"many-{next(_numbers)}"
        self.experiment = self.client.create_experiment(self.name)
        self.ids: dict[str, str] = {}

    def run(self, name: str, count: int, *, ended: float | None = 2.0) -> None:
        """A run of `count` checkpoints that ended so many days ago; None: it goes on."""
        then = int(time.time() * 1000 - (ended or 0) * DAY)
        self.ids[name] = str(self.client.create_run(self.experiment, then, run_name=name).info.run_id)
        self.client.log_metric(self.ids[name], "val_loss", 0.5, timestamp=then, step=10)
        self.log(name, 0, count)
        if ended is not None:
            self.client.set_terminated(self.ids[name], end_time=then)

    def log(self, name: str, first: int, count: int) -> None:
        for index, row in list(enumerate(weights(count)))[first:]:
            self.client.log_artifact(self.ids[name], str(write(self.folder, index, row)), "checkpoints")

    def audit(self, **flags: Any) -> tuple[dict[str, str], list[str]]:
        given = {"window": 3, "annotate": "summary", "tracking_uri": self.proxy.address, **flags}
        self.proxy.requests.clear()
        return audit_all(f"mlflow:{self.name}", load_settings(**given))

    @property
    def asked(self) -> list[str]:
        """What was asked since the last audit began, but whether the server is there and which experiment is meant."""
        lines = [request.partition("?")[0].rstrip() for request in self.proxy.requests]
        return [line for line in lines if "/health" not in line and "/experiments/" not in line]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    folder = tmp_path_factory.mktemp("server")
    backend, artifacts = f"sqlite:///{folder}/mlflow.db", ("--artifacts-destination", str(folder / "artifacts"))
    with mlflow_server(folder, backend, *artifacts) as server, fault_proxy(server) as relay:
        yield relay


@pytest.fixture
def training(proxy: FaultProxy, tmp_path: Path) -> Training:
    return Training(proxy, tmp_path / "logged")


ONE_PAGE = ["POST /api/2.0/mlflow/runs/search"]


@pytest.mark.parametrize("into", ["run", "child"])
def test_nothing_new_costs_one_page(training: Training, into: str) -> None:
    for days, (name, count) in enumerate({"good": 6, "too short": 2, "bare": 0}.items()):
        training.run(name, count, ended=3.0 - days / 2)
    first = {"good": "audited", "too short": "failed", "bare": "no_checkpoints"}
    assert training.audit(into=into) == (first, ["good", "too short", "bare"])
    again = {**first, "good": "unchanged"}
    assert training.audit(into=into) == (again, [])
    assert training.asked == ONE_PAGE
    assert training.audit(into=into, recheck=True)[0] == again
    assert len(training.asked) > len(ONE_PAGE) + 3
    assert training.audit(into=into, annotate="none") == (again, [])


def test_what_the_page_tells_is_looked_at(training: Training) -> None:
    training.run("run", 6)
    training.audit()
    run_id = training.ids["run"]

    def looked_at() -> bool:
        looked = training.audit() == ({"run": "unchanged"}, ["run"])
        assert training.audit() == ({"run": "unchanged"}, [])
        return looked

    training.client.log_metric(run_id, "val_loss", 0.5, step=11)
    assert looked_at()
    training.client.log_param(run_id, "batch", "8")
    assert looked_at()
    training.client.log_param(run_id, "optimizer", "adamw")  # which table `runs` tells
    assert training.audit() == ({"run": "reanalysed"}, ["run"])
    assert training.audit() == ({"run": "unchanged"}, [])
    training.client.set_tag(run_id, "mlflow.note.content", "mine")  # where our section is too
    assert training.audit() == ({"run": "unchanged"}, [])
    training.client.delete_tag(run_id, "spectral_edge.annotated")
    assert training.audit() == ({"run": "updated"}, ["run"])
    training.client.set_terminated(run_id, "KILLED", int(time.time() * 1000) - 2 * DAY)
    assert training.audit() == ({"run": "updated"}, ["run"])
    assert training.audit() == ({"run": "unchanged"}, [])
    assert training.audit(window=4)[0] == {"run": "reanalysed"}


def test_metrics_cost_a_request_each_and_a_look_reads_two(training: Training) -> None:
    training.run("run", 6)
    run_id = training.ids["run"]
    for name in ("val_acc", "train_loss", "train_acc", "test_f1", "grad_norm", "lr"):
        for step in range(0, 60, 10):
            training.client.log_metric(run_id, name, 0.5 + step, step=step)

    def histories() -> int:
        return sum("/metrics/get-history" in request for request in training.asked)

    training.audit()
    assert histories() == 4  # the metric, the learning rate, and two further ones
    kept = query(Store.open(load_settings().store), "select distinct role, name from metrics order by all").to_pylist()
    assert [tuple(row.values()) for row in kept] == [
        ("learning_rate", "lr"),
        ("metric", "val_acc"),
        ("other", "train_acc"),
        ("other", "train_loss"),
    ]
    training.audit(recheck=True)
    assert histories() == 2
    training.client.log_metric(run_id, "val_acc", 0.9, step=50)
    assert training.audit(recheck=True) == ({"run": "reanalysed"}, ["run"])


def test_what_the_page_does_not_tell_waits_for_a_recheck(training: Training) -> None:
    training.run("run", 6)
    training.audit()
    training.log("run", 6, 8)
    training.client.delete_tag(training.ids["run"], "spectral_edge.regime")
    assert training.audit() == ({"run": "unchanged"}, [])
    assert training.audit(recheck=True) == ({"run": "audited"}, ["run"])


def test_runs_that_go_on_or_ended_today_are_looked_at(training: Training) -> None:
    training.run("goes on", 6, ended=None)
    training.run("today", 6, ended=0.5)
    training.audit()
    training.log("goes on", 6, 7)
    training.log("today", 6, 7)
    assert training.audit()[0] == {"goes on": "audited", "today": "audited"}
    training.client.set_terminated(training.ids["goes on"])
    assert training.audit()[0] == {"goes on": "updated", "today": "unchanged"}
