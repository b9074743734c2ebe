"""A run on an MLflow server that is audited while it trains: what is fetched, read and written each time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from one_folder import SIZE, weights, write
from same_tables import assert_same_audit
from servers import mlflow_server

from integrations.locate import locate
from integrations.tracker import OUR_NAME
from pipelines.decisions import Scope
from pipelines.forecast import forecast
from pipelines.one_run import Job, audit_one
from pipelines.results import RunResult
from pipelines.settings import AuditSettings, load_settings
from spectral_edge.errors import AnnotationConflictError
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables

SOURCE, COUNT, BEFORE, LAGS = "mlflow:growing", 20, 15, 8


class Training:
    """A run that goes on, on the server at `address`: `log(n)` brings it to `n` checkpoints."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.client = address, MlflowClient(address)
        self.paths = [write(folder, index, row) for index, row in enumerate(weights(COUNT))]
        self.run_id = str(self.client.create_run(self.client.create_experiment("growing")).info.run_id)
        self.logged = 0

    def log(self, count: int) -> None:
        now = int(time.time() * 1000)
        for index in range(self.logged, count):
            self.client.log_artifact(self.run_id, str(self.paths[index]), "checkpoints")
            self.client.log_batch(self.run_id, metrics=[Metric("lr", 1e-3, now, 10 * index)])
        self.logged = count

    def size(self, first: int) -> int:
        """Bytes of the checkpoints logged from `first` on."""
        return sum(path.stat().st_size for path in self.paths[first : self.logged])

    def points(self) -> dict[tuple[str, int], tuple[float, int]]:
        """Every metric point of ours: value and timestamp by key and step. No step has two."""
        found = [
            point
            for key in self.client.get_run(self.run_id).data.metrics
            if key.startswith(OUR_NAME)
            for point in self.client.get_metric_history(self.run_id, key)
        ]
        points = {(point.key, point.step): (point.value, point.timestamp) for point in found}
        assert len(points) == len(found)
        return points

    def settings(self, **flags: Any) -> AuditSettings:
        return load_settings(**{"window": 4, "lags": LAGS, "tracking_uri": self.address, **flags})

    def audit(self, **flags: Any) -> RunResult:
        settings = self.settings(**flags)
        tracker, selection = locate(SOURCE, tracking_uri=self.address)
        store = Store.open(settings.store)
        [run] = tracker.runs(selection)
        return audit_one(Job(Scope.of(tracker, settings, store), store, "cpu"), run)

    def tables(self, store: str = "spectral-edge-store") -> RunTables:
        found = Store.open(store).read_run(RunKey("mlflow", "growing", self.run_id, ""))
        assert found is not None
        return found


def test_new_checkpoints_are_all_that_is_fetched_read_and_written(tmp_path: Path) -> None:
    backend = f"sqlite:///{tmp_path}/mlflow.db"
    with mlflow_server(tmp_path, backend, "--artifacts-destination", str(tmp_path / "artifacts")) as address:
        training = Training(address, tmp_path / "logged")
        training.log(BEFORE)
        assert training.audit().outcome == "audited"
        before = training.points()

        training.log(COUNT)
        window = training.size(BEFORE - LAGS - 1)
        [foreseen] = forecast(SOURCE, training.settings()).runs
        assert (foreseen.action, foreseen.new_checkpoints) == ("extend", COUNT - BEFORE)
        assert foreseen.bytes_to_fetch == foreseen.bytes_to_read == window
        done = training.audit()
        assert (done.outcome, done.new_checkpoints, done.bytes_fetched) == ("extended", COUNT - BEFORE, window)
        assert done.bytes_read == (COUNT - BEFORE + LAGS + 1) * SIZE * 4

        after = training.points()
        assert {point: after[point] for point in before} == before
        new = after.keys() - before.keys()
        assert {step for _, step in new} == {10 * index for index in range(BEFORE, COUNT)}
        assert done.writes == len(new) + 4  # and four files
        assert training.audit().outcome == "unchanged"

        assert training.audit(store="whole", annotate="none").bytes_fetched == training.size(0)
        assert_same_audit(training.tables(), training.tables("whole"))

        conflict = r"metrics of an audit with other settings.*the tables in .*-store are the new ones; nothing was writ"
        with pytest.raises(AnnotationConflictError, match=conflict):
            training.audit(window=5)
        assert training.points() == after
        assert training.tables().gaps["window"].unique().to_pylist() == [5]
        assert training.audit(window=5, annotate="summary").outcome == "updated"
