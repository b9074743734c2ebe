"""The demo's training: two processes, each run logged as a training script would log it, wherever runs are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file

from pipelines.demo_training import Recipe, Snapshot

EXPERIMENT = "spectral-edge-demo"
WORKERS = 2


class DemoTracking(Protocol):
    """Where the runs of one demo folder are kept. It is sent to the processes that train."""

    @property
    def source(self) -> str:
        """What an audit of these runs is given."""
        ...

    @property
    def tracking_uri(self) -> str | None:
        """What MLflow needs to find them; None where they are not in MLflow."""
        ...

    @property
    def where_to_look(self) -> tuple[str, ...]:
        """Lines for people: how to see the runs in their tracker."""
        ...

    def finished(self, recipes: Sequence[Recipe]) -> dict[str, str]:
        """Ids of finished runs of `recipes` by their name. What an interrupted demo left unfinished is deleted."""
        ...

    def train_and_log(self, recipe: Recipe) -> str:
        """Train by `recipe` and log params, metrics and checkpoints to one new run; returns its id."""
        ...


def train_missing(
    recipes: Sequence[Recipe], tracking: DemoTracking, say: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Train all of `recipes` that have no finished run yet, two at a time; `say` hears of it, line by line.

    Returns:
        Run id by recipe name.
    """
    finished = tracking.finished(recipes)
    missing = [recipe for recipe in recipes if recipe.name not in finished]
    if not missing:
        say(f"all {len(recipes)} runs are trained already")
        return finished
    say(f"training {len(missing)} small models, {WORKERS} at a time")
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = {pool.submit(tracking.train_and_log, recipe): recipe for recipe in missing}
        for future in as_completed(waiting):
            recipe = waiting[future]
            finished[recipe.name] = future.result()
            say(f"trained {recipe.name}: {recipe.steps} steps, {recipe.checkpoints} checkpoints")
    return finished


def save_checkpoint(recipe: Recipe, snapshot: Snapshot, folder: Path) -> Path:
    """Write a checkpoint as `recipe` keeps them: weights alone, or a training state with the optimizer's."""
    if recipe.keeping == "pt":
        file = folder / f"step_{snapshot.step:06d}.pt"
        torch.save({"step": snapshot.step, "model": snapshot.model_state, "optimizer": snapshot.optimizer_state}, file)
        return file
    name = "model" if recipe.keeping == "logged model" else f"step_{snapshot.step:06d}"
    file = folder / f"{name}.safetensors"
    save_file(snapshot.model_state, file)
    return file
