"""The demo's runs as offline runs of W&B, in a folder, with no account: each way in which people keep checkpoints."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import wandb

from integrations.locate import locate
from pipelines.demo_logging import EXPERIMENT, save_checkpoint
from pipelines.demo_training import Point, Recipe, Snapshot, train
from pipelines.wording import command_text

RECIPE_KEY = "demo_recipe"


@dataclass(frozen=True)
class WandbDemo:
    """The W&B folder of one demo folder. `data` keeps the files of artifacts, which W&B puts elsewhere by default."""

    folder: Path
    tracking_uri: None = None

    @property
    def source(self) -> str:
        """See `DemoTracking.source`."""
        return f"wandb-offline:{self.folder}"

    @property
    def where_to_look(self) -> tuple[str, ...]:
        """See `DemoTracking.where_to_look`."""
        runs = shlex.quote(str(self.folder / "wandb"))
        return (
            f"W&B          {runs}/offline-run-*: what was logged and, in runs of their own, what was found;",
            f"             with an account, `{command_text('wandb')} sync` and these folders show it in {EXPERIMENT}",
        )

    def finished(self, recipes: Sequence[Recipe]) -> dict[str, str]:
        """See `DemoTracking.finished`."""
        home = self.folder / "wandb"
        if not home.is_dir() or not any(home.iterdir()):
            home.mkdir(parents=True, exist_ok=True)
            return {}
        tracker, selection = locate(self.source)
        names = {recipe.fingerprint: recipe.name for recipe in recipes}
        finished: dict[str, str] = {}
        for run in tracker.runs(selection):
            name = names.get(run.params.get(RECIPE_KEY, ""))
            if name is not None and run.state == "finished":
                finished[name] = run.key.run_id
            elif RECIPE_KEY in run.params:
                shutil.rmtree(unquote(urlsplit(run.url).path))
        return finished

    def train_and_log(self, recipe: Recipe) -> str:
        """See `DemoTracking.train_and_log`. The run's log has no end when training is interrupted."""
        data = self.folder.resolve() / "data"
        data.mkdir(parents=True, exist_ok=True)
        # This process does nothing else, and W&B takes these from nowhere but the environment.
        os.environ |= {"WANDB_DATA_DIR": str(data), "WANDB_CACHE_DIR": str(data), "WANDB_ERROR_REPORTING": "false"}
        run = wandb.init(
            project=EXPERIMENT,
            name=recipe.name,
            config={**recipe.params(), RECIPE_KEY: recipe.fingerprint},
            dir=str(self.folder.resolve()),
            mode="offline",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )
        run.define_metric("optimizer_step")
        run.define_metric("*", step_metric="optimizer_step")
        for snapshot in train(recipe):
            for step, points in _by_step(snapshot.points):
                run.log({"optimizer_step": step, **{point.name: point.value for point in points}})
            _keep_checkpoint(run, recipe, snapshot)
        run.finish()
        return str(run.id)


def _by_step(points: Sequence[Point]) -> list[tuple[int, list[Point]]]:
    found: dict[int, list[Point]] = defaultdict(list)
    for point in points:
        found[point.step].append(point)
    return sorted(found.items())


def _keep_checkpoint(run: wandb.Run, recipe: Recipe, snapshot: Snapshot) -> None:
    """As a saved file, as a version of one artifact with the step in its metadata, or as an artifact of its own."""
    if recipe.keeping == "pt":
        folder = Path(run.dir, "checkpoints")
        folder.mkdir(exist_ok=True)
        run.save(str(save_checkpoint(recipe, snapshot, folder)), base_path=run.dir, policy="now")
        return
    folder = Path(run.dir, os.pardir, "scratch")
    folder.mkdir(exist_ok=True)
    file = save_checkpoint(recipe, snapshot, folder)
    if recipe.keeping == "logged model":
        run.log_model(str(file), name=f"{recipe.name}-step-{snapshot.step}")
    else:
        artifact = wandb.Artifact(f"model-{run.id}", "model", metadata={"step": snapshot.step})
        artifact.add_file(str(file))
        run.log_artifact(artifact)
    shutil.rmtree(folder)  # W&B has copied it
