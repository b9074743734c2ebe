"""The demo's runs in an embedded MLflow: trained by two processes, logged as a training script would."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run
from safetensors.torch import save_file

from pipelines.demo_training import Recipe, Snapshot, train

EXPERIMENT = "spectral-edge-demo"
RECIPE_TAG = "demo.recipe"
WORKERS = 2


@dataclass(frozen=True)
class DemoTracking:
    """The embedded MLflow of one demo folder: SQLite for the records, a folder for the files, no server."""

    folder: Path

    @property
    def uri(self) -> str:
        """What MLFLOW_TRACKING_URI has to say."""
        return f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where checkpoints lie."""
        return self.folder.resolve() / "mlartifacts"

    def client(self) -> MlflowClient:
        """A client of this MLflow; its database is made when it is not there."""
        return MlflowClient(self.uri)

    def experiment_id(self) -> str:
        """The demo's experiment, made when it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        client = self.client()
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return client.create_experiment(EXPERIMENT, artifact_location=self.artifacts.as_uri())


def train_missing(
    recipes: Sequence[Recipe], tracking: DemoTracking, say: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Train all of `recipes` that have no finished run yet, two at a time; `say` hears of it, line by line.

    Runs that an earlier, interrupted demo left unfinished are deleted from the experiment first.

    Returns:
        Run id by recipe name.
    """
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    experiment = tracking.experiment_id()
    finished = _finished_runs(recipes, tracking, experiment)
    missing = [recipe for recipe in recipes if recipe.name not in finished]
    if not missing:
        say(f"all {len(recipes)} runs are trained already")
        return finished
    say(f"training {len(missing)} small models, {WORKERS} at a time")
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = {pool.submit(train_and_log, recipe, tracking, experiment): recipe for recipe in missing}
        for future in as_completed(waiting):
            recipe = waiting[future]
            finished[recipe.name] = future.result()
            say(f"trained {recipe.name}: {recipe.steps} steps, {recipe.checkpoints} checkpoints")
    return finished


def _finished_runs(recipes: Sequence[Recipe], tracking: DemoTracking, experiment: str) -> dict[str, str]:
    client = tracking.client()
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


def train_and_log(recipe: Recipe, tracking: DemoTracking, experiment: str) -> str:
    """Train by `recipe` and log params, metrics and checkpoints to one new run; returns its id.

    The run stays RUNNING when training is interrupted.
    """
    client = tracking.client()
    run_id: str = client.create_run(experiment, run_name=recipe.name, tags={RECIPE_TAG: recipe.fingerprint}).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in recipe.params().items()])
    with tempfile.TemporaryDirectory() as scratch:
        for snapshot in train(recipe):
            now = time.time_ns() // 1_000_000
            client.log_batch(run_id, [Metric(p.name, p.value, now, p.step) for p in snapshot.points])
            _keep_checkpoint(client, run_id, recipe, snapshot, Path(scratch))
    client.set_terminated(run_id)
    return run_id


def _keep_checkpoint(client: MlflowClient, run_id: str, recipe: Recipe, snapshot: Snapshot, scratch: Path) -> None:
    if recipe.keeping == "logged model":
        _log_model(client, run_id, snapshot, scratch)
        return
    file = scratch / f"step_{snapshot.step:06d}.{recipe.keeping}"
    if recipe.keeping == "pt":
        state = {"step": snapshot.step, "model": snapshot.model_state, "optimizer": snapshot.optimizer_state}
        torch.save(state, file)
    else:
        save_file(snapshot.model_state, file)
    client.log_artifact(run_id, str(file), "checkpoints")
    file.unlink()


def _log_model(client: MlflowClient, run_id: str, snapshot: Snapshot, scratch: Path) -> None:
    """One MLflow 3 logged model, linked to the run with its step."""
    file = scratch / "model.safetensors"
    save_file(snapshot.model_state, file)
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name=f"checkpoint-{snapshot.step}", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(scratch))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, snapshot.step)])
