"""The demo's runs as offline runs of W&B: every way of keeping checkpoints there is found, with its steps."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from integrations.locate import locate
from integrations.tracker import TrackedRun, Tracker
from pipelines.demo_logging import train_missing
from pipelines.demo_training import Recipe, train
from pipelines.demo_wandb import RECIPE_KEY, WandbDemo

STEPS = [20, 40, 60]
RECIPES = (
    Recipe("saved", "modular addition", 1, 1.0, "constant", "pt", steps=60, checkpoint_every=20),
    Recipe("versions", "modular addition", 1, 1.0, "constant", "safetensors", steps=60, checkpoint_every=20),
    Recipe("models", "digits", 1, 0.01, "cosine", "logged model", steps=60, checkpoint_every=20),
)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> WandbDemo:
    return WandbDemo(tmp_path_factory.mktemp("demo") / "new")


@pytest.fixture(scope="module")
def run_ids(tracking: WandbDemo) -> dict[str, str]:
    return train_missing(RECIPES, tracking)


def tracked(tracking: WandbDemo) -> tuple[Tracker, dict[str, TrackedRun]]:
    tracker, selection = locate(tracking.source)
    return tracker, {run.key.run_name: run for run in tracker.runs(selection)}


def test_every_recipe_becomes_one_finished_run(tracking: WandbDemo, run_ids: dict[str, str]) -> None:
    _, runs = tracked(tracking)
    assert {name: run.key.run_id for name, run in runs.items()} == run_ids
    assert {run.state for run in runs.values()} == {"finished"}
    for recipe in RECIPES:
        assert json.loads(runs[recipe.name].params[RECIPE_KEY]) == dataclasses.asdict(recipe)
        assert runs[recipe.name].params["optimizer"] == "AdamW"


@pytest.mark.parametrize(
    ("name", "series", "source"),
    [
        ("saved", "checkpoints/step_#.pt", "file_name"),
        ("versions", "artifact:model-{id}", "metadata"),
        ("models", "artifact:models-step-#", "model_name"),
    ],
)
def test_its_checkpoints_are_found_however_they_are_kept(
    tracking: WandbDemo, run_ids: dict[str, str], name: str, series: str, source: str
) -> None:
    tracker, runs = tracked(tracking)
    listing = tracker.checkpoints(runs[name])
    assert [ref.step for ref in listing.checkpoints] == STEPS
    assert (listing.series, listing.step_source) == (series.format(id=run_ids[name]), source)
    assert not listing.warnings


def test_metrics_and_weights_are_those_of_the_training(
    tracking: WandbDemo, run_ids: dict[str, str], tmp_path: Path
) -> None:
    tracker, runs = tracked(tracking)
    run = runs["versions"]
    snapshots = list(train(RECIPES[1]))
    trained = [point for snapshot in snapshots for point in snapshot.points if point.name == "val_loss"]
    series = tracker.metric_series(run, "val_loss")
    assert list(zip(series.steps.tolist(), series.values.tolist(), strict=True)) == [
        (point.step, point.value) for point in trained
    ]
    (file,) = tracker.fetch(run, tracker.checkpoints(run).checkpoints[-1], tmp_path)
    assert {name: value.tolist() for name, value in load_file(file).items()} == {
        name: value.tolist() for name, value in snapshots[-1].model_state.items()
    }


def test_complete_runs_are_not_trained_again_and_interrupted_ones_are_replaced(tracking: WandbDemo) -> None:
    finished = train_missing(RECIPES, tracking)
    log = next((tracking.folder / "wandb").glob(f"*-{finished['models']}/*.wandb"))
    log.write_bytes(log.read_bytes()[:-200])  # the end of the log is missing, as of a run that was killed
    said: list[str] = []
    again = train_missing(RECIPES, tracking, said.append)
    assert said == ["training 1 small models, 2 at a time", "trained models: 60 steps, 3 checkpoints"]
    assert again["models"] != finished["models"]
    assert {name: again[name] for name in ("saved", "versions")} == {
        name: finished[name] for name in ("saved", "versions")
    }
    assert not log.exists()
