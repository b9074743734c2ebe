"""The demo's runs in MLflow: two processes train and log real, very short runs."""

import dataclasses
from pathlib import Path

import pytest
import torch
from mlflow.artifacts import download_artifacts
from safetensors.torch import load_file

from pipelines.demo_logging import train_missing
from pipelines.demo_mlflow import RECIPE_TAG, MlflowDemo
from pipelines.demo_training import Recipe, train

RECIPES = (
    Recipe("as-pt", "modular addition", 1, 1.0, "constant", "pt", steps=60, checkpoint_every=20),
    Recipe("as-safetensors", "modular addition", 1, 1.0, "constant", "safetensors", steps=60, checkpoint_every=20),
    Recipe("as-models", "digits", 1, 0.01, "cosine", "logged model", steps=60, checkpoint_every=20),
)
STEPS = [20, 40, 60]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> MlflowDemo:
    return MlflowDemo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def run_ids(tracking: MlflowDemo, told: list[str]) -> dict[str, str]:
    return train_missing(RECIPES, tracking, told.append)


def test_every_recipe_becomes_one_finished_run(tracking: MlflowDemo, run_ids: dict[str, str], told: list[str]) -> None:
    runs = tracking.client().search_runs([tracking.experiment_id()])
    assert {run.info.run_name: run.info.run_id for run in runs} == run_ids
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert told[0] == "training 3 small models, 2 at a time"
    assert set(told[1:]) == {f"trained {recipe.name}: 60 steps, 3 checkpoints" for recipe in RECIPES}


def test_params_and_metrics_are_logged_by_optimizer_step(tracking: MlflowDemo, run_ids: dict[str, str]) -> None:
    client = tracking.client()
    data = client.get_run(run_ids["as-pt"]).data
    assert data.params["optimizer"] == "AdamW"
    assert (data.params["lr"], data.params["weight_decay"], data.params["seed"]) == ("0.001", "1.0", "1")
    assert data.params["lr_scheduler"] == "constant"
    logged = {
        (name, point.step, point.value)
        for name in data.metrics
        for point in client.get_metric_history(run_ids["as-pt"], name)
    }
    trained = {(point.name, point.step, point.value) for snapshot in train(RECIPES[0]) for point in snapshot.points}
    assert logged == trained


def test_a_pt_checkpoint_holds_the_wrapped_state_at_its_step(tracking: MlflowDemo, run_ids: dict[str, str]) -> None:
    files = checkpoint_files(tracking, run_ids["as-pt"])
    assert [file.name for file in files] == [f"step_{step:06d}.pt" for step in STEPS]
    for file, snapshot in zip(files, train(RECIPES[0]), strict=True):
        state = torch.load(file, weights_only=True)
        assert state["step"] == snapshot.step
        assert_same_weights(state["model"], snapshot.model_state)


def test_a_safetensors_checkpoint_holds_the_weights_at_its_step(tracking: MlflowDemo, run_ids: dict[str, str]) -> None:
    files = checkpoint_files(tracking, run_ids["as-safetensors"])
    assert [file.name for file in files] == [f"step_{step:06d}.safetensors" for step in STEPS]
    for file, snapshot in zip(files, train(RECIPES[1]), strict=True):
        assert_same_weights(load_file(file), snapshot.model_state)


def test_logged_models_are_ready_and_linked_to_the_run_with_their_step(
    tracking: MlflowDemo, run_ids: dict[str, str], tmp_path: Path
) -> None:
    client = tracking.client()
    outputs = client.get_run(run_ids["as-models"]).outputs.model_outputs
    step_of = {output.model_id: output.step for output in outputs}
    assert sorted(step_of.values()) == STEPS
    models = client.search_logged_models([tracking.experiment_id()])
    assert {model.model_id: model.name for model in models} == {
        model_id: f"checkpoint-{step}" for model_id, step in step_of.items()
    }
    assert {model.status.value for model in models} == {"READY"}
    last = next(model for model in models if step_of[model.model_id] == STEPS[-1])
    folder = download_artifacts(artifact_uri=last.artifact_location, dst_path=str(tmp_path))
    assert_same_weights(load_file(Path(folder, "model.safetensors")), list(train(RECIPES[2]))[-1].model_state)


def test_complete_runs_are_not_trained_again(tracking: MlflowDemo, run_ids: dict[str, str]) -> None:
    again: list[str] = []
    assert train_missing(RECIPES, tracking, again.append) == run_ids
    assert again == ["all 3 runs are trained already"]


def test_an_interrupted_run_is_replaced_and_others_stay(tmp_path: Path) -> None:
    tracking = MlflowDemo(tmp_path / "new" / "folder")
    experiment, client = tracking.experiment_id(), tracking.client()
    recipe = dataclasses.replace(RECIPES[2], steps=20)
    half_done = client.create_run(experiment, tags={RECIPE_TAG: recipe.fingerprint}).info.run_id
    of_somebody_else = client.create_run(experiment, run_name="mine").info.run_id
    run_ids = train_missing([recipe], tracking)
    active = {run.info.run_id for run in client.search_runs([experiment])}
    assert active == {run_ids[recipe.name], of_somebody_else}
    assert client.get_run(half_done).info.lifecycle_stage == "deleted"


def checkpoint_files(tracking: MlflowDemo, run_id: str) -> list[Path]:
    folder = download_artifacts(run_id=run_id, artifact_path="checkpoints", tracking_uri=tracking.tracking_uri)
    return sorted(Path(folder).iterdir())


def assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
