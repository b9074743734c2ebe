"""The training loop: checkpoints into a folder, metrics at each of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from benchmarks.replication.models import network
from benchmarks.replication.recipes import Recipe
from benchmarks.replication.tasks import IGNORED, Split, second_task, task_data

METRICS: Final = ("step", "train_accuracy", "held_out_accuracy", "held_out_loss", "train_loss", "learning_rate")
FITTED, GENERALISED = 0.99, 0.95
"""Accuracies from which training data count as fitted, and held-out data as generalised to."""

_SCORED: Final = 400
"""Examples on which accuracies are measured, at most."""


def train(recipe: Recipe, folder: Path) -> np.ndarray:
    """Train by `recipe`; checkpoints, the initial one included, become `folder`/step_N.safetensors.

    Returns:
        Columns METRICS, one row a checkpoint. The held-out metric is always that of the first task.
    """
    torch.manual_seed(recipe.seed)
    data = task_data(recipe.task, recipe.seed, recipe.share)
    model = network(recipe.task)
    _enlarge(model, recipe)
    optimizers = _optimizers(recipe, model)
    seen = data.training
    rows = [_checkpoint(model, seen, data.held_out, 0, recipe, folder)]
    generalised = 0
    for step in range(1, recipe.steps + 1):
        if step == recipe.fine_tune_at + 1 and recipe.fine_tune_at:
            seen = second_task(data, recipe.seed)
        _take_step(model, optimizers, seen, rate_at(recipe, step), recipe)
        if step % recipe.every == 0:
            rows.append(_checkpoint(model, seen, data.held_out, step, recipe, folder))
            if not generalised and rows[-1][2] >= GENERALISED:
                generalised = step
            if recipe.kind == "grokking" and generalised and step >= recipe.beyond * generalised + 10 * recipe.every:
                break
    return np.array(rows)


@torch.no_grad()
def _enlarge(model: nn.Module, recipe: Recipe) -> None:
    for name, weight in model.named_parameters():
        factor = recipe.embeddings_times if "embedding" in name else recipe.matrices_times
        if factor is not None and weight.ndim == 2:
            weight.mul_(factor)


def rate_at(recipe: Recipe, step: int) -> float:
    """Learning rate of optimizer step `step`, which is 1 at the first."""
    if recipe.schedule == "constant":
        return recipe.rate
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (max(step, 1) - 1) / recipe.steps))


def _optimizers(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    rate, decay = recipe.rate, recipe.weight_decay
    if recipe.optimizer == "SGD":
        return [torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)]
    hidden: list[nn.Parameter] = []
    if recipe.optimizer == "Muon":  # made for the matrices of hidden layers; the rest is AdamW's, as its authors do it
        hidden = [p for name, p in model.named_parameters() if name.startswith("layers.") and p.ndim == 2]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    ]
    if hidden:
        found.append(torch.optim.Muon(hidden, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return found


def _take_step(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], data: Split, rate: float, recipe: Recipe
) -> None:
    batch = torch.randint(0, len(data.labels), (recipe.batch,))
    loss = _loss(model(data.inputs[batch]), data.labels[batch])
    for optimizer in optimizers:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = rate
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def _checkpoint(
    model: nn.Module, seen: Split, held_out: Split, step: int, recipe: Recipe, folder: Path
) -> tuple[float, ...]:
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / f"step_{step}.safetensors")
    fitted, loss = _score(model, seen)
    unseen, unseen_loss = _score(model, held_out)
    return (step, fitted, unseen, unseen_loss, loss, rate_at(recipe, step))


def _score(model: nn.Module, data: Split) -> tuple[float, float]:
    """Share of examples of which every scored label is right, and the loss."""
    inputs, labels = data.inputs[:_SCORED], data.labels[:_SCORED]
    logits = model(inputs)
    right = (logits.argmax(dim=-1) == labels) | (labels == IGNORED)
    if right.ndim == 2:
        right = right.all(dim=1)
    return right.double().mean().item(), _loss(logits, labels).item()
