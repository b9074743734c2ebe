"""Trajectories with a known answer: checkpoints on disk, and the float64 matrix of their updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from spectral_edge.band import Band, Matrix
from spectral_edge.gram import LocalCheckpoint

State = dict[str, torch.Tensor]


def write_checkpoints(
    folder: Path, states: Sequence[State], *, shards: int = 1, every: int = 10
) -> list[LocalCheckpoint]:
    """One checkpoint a state, in safetensors, its tensors dealt over `shards` files."""
    checkpoints = []
    for index, state in enumerate(states):
        files = []
        for shard in range(shards):
            part = {name: state[name].contiguous() for name in sorted(state)[shard::shards]}
            file = folder / f"step_{index * every}-{shard}.safetensors"
            save_file(part, file)
            files.append(file)
        checkpoints.append(LocalCheckpoint(index * every, f"step_{index * every}", tuple(files)))
    return checkpoints


def update_matrix(states: Sequence[State], names: Sequence[str]) -> Matrix:
    """X with all updates as rows, formed in float64: shape (T, P)."""
    rows = [np.concatenate([state[name].double().numpy().ravel() for name in names]) for state in states]
    return np.diff(np.asarray(rows), axis=0)


def band_of(updates: Matrix, lags: int) -> Band:
    """The band by definition, from the full Gram matrix."""
    gram = updates @ updates.T
    return band_of_gram(gram, lags, updates.shape[1])


def band_of_gram(gram: Matrix, lags: int, n_parameters: int) -> Band:
    """The band of a full Gram matrix, shape (T, T)."""
    count = len(gram)
    values = np.zeros((count, lags + 1))
    for update in range(count):
        for lag in range(min(update, lags) + 1):
            values[update, lag] = gram[update, update - lag]
    return Band(values, n_parameters, np.zeros(count))


def random_states(shapes: Mapping[str, tuple[int, ...]], count: int, seed: int, scale: float = 1e-3) -> list[State]:
    """A random walk of parameters with some drift, in float32."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    drift = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    states = [state]
    for _ in range(count - 1):
        state = {
            name: value + scale * (torch.randn(value.shape, generator=generator) + 0.5 * drift[name])
            for name, value in state.items()
        }
        states.append(state)
    return states


def trained_states(count: int, seed: int) -> list[State]:
    """A small network trained with AdamW on a fixed task: a real trajectory, a checkpoint every 5 steps."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 48), torch.nn.GELU(), torch.nn.LayerNorm(48), torch.nn.Linear(48, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    inputs, labels = torch.randn(256, 16), torch.randint(0, 4, (256,))
    states = []
    for step in range(5 * count):
        if step % 5 == 0:
            states.append({name: value.detach().clone() for name, value in model.state_dict().items()})
        batch = torch.randint(0, 256, (32,))
        loss = torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return states
