"""The demo's runs in an embedded MLflow: SQLite for the records, a folder for the files, no server."""

from __future__ import annotations

import logging
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run

from pipelines.demo_logging import EXPERIMENT, save_checkpoint
from pipelines.demo_training import Recipe, Snapshot, train
from pipelines.wording import command_text

RECIPE_TAG = "demo.recipe"


@dataclass(frozen=True)
class MlflowDemo:
    """The embedded MLflow of one demo folder."""

    folder: Path

    @property
    def source(self) -> str:
        """See `DemoTracking.source`."""
        return f"mlflow:{EXPERIMENT}"

    @property
    def tracking_uri(self) -> str:
        """What MLFLOW_TRACKING_URI has to say."""
        return f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"

    @property
    def where_to_look(self) -> tuple[str, ...]:
        """See `DemoTracking.where_to_look`."""
        return (
            f"MLflow       {command_text('mlflow')} ui --backend-store-uri {shlex.quote(self.tracking_uri)}",
            f"             then open the experiment {EXPERIMENT}, at the address that it prints",
        )

    @property
    def artifacts(self) -> Path:
        """Where checkpoints lie."""
        return self.folder.resolve() / "mlartifacts"

    def client(self) -> MlflowClient:
        """A client of this MLflow; its database is made when it is not there."""
        return MlflowClient(self.tracking_uri)

    def experiment_id(self) -> str:
        """The demo's experiment, made when it is not there."""
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        client = self.client()
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return client.create_experiment(EXPERIMENT, artifact_location=self.artifacts.as_uri())

    def finished(self, recipes: Sequence[Recipe]) -> dict[str, str]:
        """See `DemoTracking.finished`."""
        experiment, client = self.experiment_id(), self.client()
        names = {recipe.fingerprint: recipe.name for recipe in recipes}
        finished: dict[str, str] = {}
        runs: list[Run] = client.search_runs([experiment])
        for run in runs:
            name = names.get(run.data.tags.get(RECIPE_TAG, ""))
            if name is not None and run.info.status == "FINISHED":
                finished[name] = run.info.run_id
            elif RECIPE_TAG in run.data.tags:
                client.delete_run(run.info.run_id)
        return finished

    def train_and_log(self, recipe: Recipe) -> str:
        """See `DemoTracking.train_and_log`. The run stays RUNNING when training is interrupted."""
        client = self.client()
        tags = {RECIPE_TAG: recipe.fingerprint}
        run_id: str = client.create_run(self.experiment_id(), run_name=recipe.name, tags=tags).info.run_id
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in recipe.params().items()])
        with tempfile.TemporaryDirectory() as scratch:
            for snapshot in train(recipe):
                now = time.time_ns() // 1_000_000
                client.log_batch(run_id, [Metric(p.name, p.value, now, p.step) for p in snapshot.points])
                _keep_checkpoint(client, run_id, recipe, snapshot, Path(scratch))
        client.set_terminated(run_id)
        return run_id


def _keep_checkpoint(client: MlflowClient, run_id: str, recipe: Recipe, snapshot: Snapshot, scratch: Path) -> None:
    file = save_checkpoint(recipe, snapshot, scratch)
    if recipe.keeping == "logged model":
        _log_model(client, run_id, snapshot.step, scratch)
    else:
        client.log_artifact(run_id, str(file), "checkpoints")
    file.unlink()


def _log_model(client: MlflowClient, run_id: str, step: int, folder: Path) -> None:
    """One MLflow 3 logged model, linked to the run with its step."""
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name=f"checkpoint-{step}", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
