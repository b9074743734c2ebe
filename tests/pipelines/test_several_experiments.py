"""One source that means several experiments: what each command makes of it, and one that is deleted meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from integrations.selection import Criteria
from pipelines.audit import prepare
from pipelines.doctor import findings_on
from pipelines.forecast import forecast
from pipelines.one_run import audit_one
from pipelines.retract import Request, Retractor
from pipelines.settings import AuditSettings, load_settings
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.store import Store

SOURCE = "mlflow:team-*"
NAMES = ("team-a", "team-b", "team-c/nested")


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    """An MLflow database with a finished run of the same name in each of three experiments, and one bare run."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for number, name in enumerate((*NAMES, "other")):
        experiment = client.create_experiment(name, artifact_location=(tmp_path / "artifacts" / str(number)).as_uri())
        run_id = client.create_run(experiment, run_name="run", tags={"number": str(number)}).info.run_id
        for step, row in enumerate(np.cumsum(np.random.default_rng(number).normal(size=(6, 64)), axis=0)):
            path = tmp_path / f"step_{step}.safetensors"
            save_file({"layers.0.mlp.weight": torch.tensor(row)}, path)
            client.log_artifact(run_id, str(path), "checkpoints")
        client.set_terminated(run_id)
    client.create_run(client.get_experiment_by_name("team-b").experiment_id, run_name="bare")
    return client


def settings_for(client: MlflowClient, **flags: object) -> AuditSettings:
    return load_settings(window=3, tracking_uri=client.tracking_uri, **flags)


def test_all_that_follows_the_selection_knows_the_experiments(client: MlflowClient) -> None:
    settings = settings_for(client)
    foreseen = forecast(SOURCE, settings)
    assert [(run.project, run.action) for run in foreseen.runs] == [
        ("team-a", "audit"),
        ("team-b", "audit"),
        ("team-b", "report_no_checkpoints"),
        ("team-c/nested", "audit"),
    ]
    assert [row["project"] for row in foreseen.rows] == [run.project for run in foreseen.runs]
    assert "project" not in forecast("mlflow:team-b", settings).rows[0]
    assert list(findings_on([SOURCE], settings))[-1].seen.endswith("4 runs in 3 projects selected.")
    finished = settings_for(client, state="finished", filter="tags.number != '1'", since="1d")
    assert [run.project for run in forecast(SOURCE, finished).runs] == ["team-a", "team-c/nested"]

    job, runs = prepare(SOURCE, settings)
    results = [audit_one(job, run) for run in runs]
    assert [(result.project, result.outcome) for result in results] == [
        ("team-a", "audited"),
        ("team-b", "audited"),
        ("team-b", "no_checkpoints"),
        ("team-c/nested", "audited"),
    ]
    assert sorted(Store.open(settings.store).runs_table()["project"].to_pylist()) == list(NAMES)
    assert [run.action for run in forecast(SOURCE, settings).runs if run.action != "report_no_checkpoints"] == (
        ["nothing"] * 3
    )

    criteria = Criteria(filter="tags.number = '2'")
    request = Request(SOURCE, store=settings.store, tracking_uri=client.tracking_uri, criteria=criteria)
    work = Retractor.of(request)
    taken = [work.retract(run, dry_run=False) for run in work.runs]
    assert [(run.project, run.outcome, run.rows) for run in taken] == [("team-c/nested", "retracted", True)]
    assert sorted(Store.open(settings.store).runs_table()["project"].to_pylist()) == ["team-a", "team-b"]


def test_an_experiment_that_is_deleted_meanwhile_stops_no_other(client: MlflowClient) -> None:
    job, runs = prepare(SOURCE, settings_for(client))
    client.delete_experiment(client.get_experiment_by_name("team-a").experiment_id)
    outcomes = {}
    for run in runs:
        try:
            outcomes[run.key.project, run.key.run_name] = audit_one(job, run).outcome
        except SpectralEdgeError as error:
            outcomes[run.key.project, run.key.run_name] = str(error)
    deleted = outcomes.pop(("team-a", "run"))
    assert deleted.startswith("run run: ")
    assert "deleted" in deleted
    assert outcomes == {
        ("team-b", "run"): "audited",
        ("team-b", "bare"): "no_checkpoints",
        ("team-c/nested", "run"): "audited",
    }
    assert [run.key.project for run in prepare(SOURCE, job.scope.settings)[1]] == ["team-b", "team-b", "team-c/nested"]
