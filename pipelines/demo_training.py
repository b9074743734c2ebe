"""The training loop of the demo: five small runs, each a recipe that is trained the same way twice.

The four runs on modular addition follow the recipe of the grokking papers (AdamW, weight decay 1, beta_2 0.98). With
these seeds and weight decay, validation accuracy jumps near step 1,200; without weight decay it never does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from pipelines.demo_tasks import Split, Task, data_of, model_of

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.98)
BATCH_SIZE = 256
CLIP_NORM = 1.0
LOG_EVERY = 10
EVALUATE_EVERY = 25

Schedule = Literal["constant", "cosine"]
Keeping = Literal["pt", "safetensors", "logged model"]


@dataclass(frozen=True)
class Recipe:
    """One run: what is learnt, how, for how many optimizer steps, and how its checkpoints are kept."""

    name: str
    task: Task
    seed: int
    weight_decay: float
    schedule: Schedule
    keeping: Keeping
    steps: int = 3000
    checkpoint_every: int = 50

    @property
    def fingerprint(self) -> str:
        """This recipe as JSON with sorted keys: equal for equal recipes."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def checkpoints(self) -> int:
        """Checkpoints that a complete run has."""
        return self.steps // self.checkpoint_every

    def params(self) -> dict[str, str | float]:
        """What a training script logs as the run's parameters."""
        return {
            "task": self.task,
            "seed": self.seed,
            "optimizer": "AdamW",
            "lr": LEARNING_RATE,
            "lr_scheduler": self.schedule,
            "weight_decay": self.weight_decay,
            "beta1": BETAS[0],
            "beta2": BETAS[1],
            "batch_size": BATCH_SIZE,
            "clip_norm": CLIP_NORM,
            "steps": self.steps,
        }


RECIPES = (
    Recipe("addition-wd1-seed2", "modular addition", 2, 1.0, "constant", "pt"),
    Recipe("addition-wd1-seed8", "modular addition", 8, 1.0, "constant", "safetensors"),
    Recipe("addition-wd0-seed2", "modular addition", 2, 0.0, "constant", "pt"),
    Recipe("addition-wd0-seed8", "modular addition", 8, 0.0, "constant", "safetensors"),
    Recipe("digits-cosine", "digits", 2, 0.01, "cosine", "logged model"),
)


@dataclass(frozen=True)
class Point:
    """One value of one metric at one optimizer step."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Snapshot:
    """The state at a checkpoint, and the metrics since the last one.

    The tensors are the live ones: whoever keeps a snapshot writes it down before training goes on.
    """

    step: int
    points: tuple[Point, ...]
    model_state: dict[str, Any]
    optimizer_state: dict[str, Any]


def train(recipe: Recipe) -> Iterator[Snapshot]:
    """Train by `recipe` in this process; one snapshot each `checkpoint_every` steps."""
    torch.manual_seed(recipe.seed)
    training, validation = data_of(recipe.task, recipe.seed)
    model = model_of(recipe.task)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=recipe.weight_decay, fused=True
    )
    points: list[Point] = []
    for step in range(1, recipe.steps + 1):
        rate = LEARNING_RATE * _share_of_peak(recipe, step)
        loss = _take_step(model, optimizer, training, rate)
        if step % LOG_EVERY == 0:
            points += [Point("train_loss", step, loss), Point("learning_rate", step, rate)]
        if step % EVALUATE_EVERY == 0:
            points += _evaluate(model, training, validation, step)
        if step % recipe.checkpoint_every == 0:
            yield Snapshot(step, tuple(points), model.state_dict(), optimizer.state_dict())
            points.clear()


def _share_of_peak(recipe: Recipe, step: int) -> float:
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - 1) / recipe.steps))


def _take_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Split, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    batch = torch.randint(0, len(data.labels), (BATCH_SIZE,))
    loss = functional.cross_entropy(model(data.inputs[batch]), data.labels[batch])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _evaluate(model: nn.Module, training: Split, validation: Split, step: int) -> list[Point]:
    seen, unseen = model(training.inputs), model(validation.inputs)
    return [
        Point("train_accuracy", step, _accuracy(seen, training.labels)),
        Point("val_accuracy", step, _accuracy(unseen, validation.labels)),
        Point("val_loss", step, functional.cross_entropy(unseen, validation.labels).item()),
    ]


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()
