"""The training loop of the negatives: weights in memory, metrics at each checkpoint, Gram matrices out."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from benchmarks.negatives.kinds import Kind
from spectral_edge.groups import cells, group_of_names, groups

METRICS = ("train", "held out", "loss")
_RANDOM_EXAMPLES = 300
"""Random labels are learnt by heart in seconds when there are few."""


def train(kind: Kind, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Train once.

    Returns:
        Columns METRICS, one row a checkpoint, the initial one included; and the Gram matrix of all updates of each
        group, float64.
    """
    torch.manual_seed(seed)
    (inputs, targets), held_out = _data(kind, seed)
    model = _model(kind, inputs.shape[1], 1 if targets.dtype == torch.float32 else 10)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=kind.rate, weight_decay=0.0, fused=True)
    if kind.optimizer == "SGD":
        optimizer = torch.optim.SGD(model.parameters(), lr=kind.rate, momentum=0.9)
    rows, kept = [_measured(model, (inputs, targets), held_out)], [_weights(model)]
    steps = kind.every * kind.checkpoints
    for step in range(steps):
        if kind.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = kind.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        batch = torch.randint(0, len(targets), (kind.batch,))
        optimizer.zero_grad()
        _loss(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        if (step + 1) % kind.every == 0:
            rows.append(_measured(model, (inputs, targets), held_out))
            kept.append(_weights(model))
    return np.array(rows), _grams(kept)


def _model(kind: Kind, inputs: int, outputs: int) -> nn.Module:
    if kind.hidden == 0:
        return nn.Sequential(OrderedDict(head=nn.Linear(inputs, outputs)))
    layers = OrderedDict(mlp=nn.Linear(inputs, kind.hidden), relu=nn.ReLU(), head=nn.Linear(kind.hidden, outputs))
    return nn.Sequential(layers)


Split = tuple[torch.Tensor, torch.Tensor]


def _data(kind: Kind, seed: int) -> tuple[Split, Split]:
    rng = np.random.default_rng(seed)
    if kind.task == "teacher":
        inputs = rng.standard_normal((8000, 20))
        hidden = np.maximum(inputs @ rng.standard_normal((20, 8)), 0)
        clean = hidden @ rng.standard_normal(8)
        targets = (clean - clean.mean()) / clean.std() + 0.5 * rng.standard_normal(len(clean))
    else:
        digits = load_digits()
        inputs, targets = digits.data / 16, digits.target
        if kind.task == "regression":
            targets = (targets - targets.mean()) / targets.std()
        if kind.task == "random labels":
            targets = rng.integers(0, 10, len(targets))
    order = torch.from_numpy(rng.permutation(len(inputs)))
    n_training = _RANDOM_EXAMPLES if kind.task == "random labels" else len(inputs) // 2
    x = torch.tensor(inputs, dtype=torch.float32)
    y = torch.tensor(targets, dtype=torch.float32 if kind.task in {"teacher", "regression"} else torch.int64)
    seen, unseen = order[:n_training], order[n_training:]
    return (x[seen], y[seen]), (x[unseen], y[unseen])


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.dtype == torch.float32:
        return functional.mse_loss(outputs[:, 0], targets)
    return functional.cross_entropy(outputs, targets)


@torch.no_grad()
def _measured(model: nn.Module, seen: Split, unseen: Split) -> tuple[float, float, float]:
    outputs = model(seen[0])
    return _score(outputs, seen[1]), _score(model(unseen[0]), unseen[1]), _loss(outputs, seen[1]).item()


def _score(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    if targets.dtype == torch.float32:
        return 1 - (outputs[:, 0] - targets).square().mean().item() / targets.var().item()
    return (outputs.argmax(dim=1) == targets).double().mean().item()


def _weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().astype(np.float64).ravel() for name, tensor in model.state_dict().items()}


def _grams(kept: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    updates = {name: np.diff(np.stack([weights[name] for weights in kept]), axis=0) for name in kept[0]}
    assigned = cells(updates)
    return {
        group: np.sum([updates[name] @ updates[name].T for name in group_of_names(assigned, group)], axis=0)
        for group in groups(assigned.values())
    }
