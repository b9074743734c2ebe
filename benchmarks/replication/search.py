"""What was tried so that brackets or commands generalise late: seed 5, which no table uses.

    python -m benchmarks.replication.search

A line a trial: the steps at which training accuracy is 0.99 and held-out accuracy 0.5 and 0.95, held-out accuracy when
the training data are fitted and at most. About five minutes of one core; nothing is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.replication.recipes import Recipe
from benchmarks.replication.table import Row, Table
from benchmarks.replication.training import FITTED, GENERALISED, METRICS, train

SEED: Final = 5
_DYCK = Recipe("brackets", "dyck", "grokking", seed=SEED, batch=32, steps=3000)
_COMMANDS = Recipe("commands", "commands", "grokking", seed=SEED, batch=48, steps=2500, embeddings_times=8.0)

TRIED: Final = (
    replace(_DYCK, share=50 / 600),
    replace(_DYCK, share=50 / 600, embeddings_times=8.0),
    replace(_DYCK, share=50 / 600, embeddings_times=8.0, matrices_times=3.0),
    replace(_DYCK, share=30 / 600, embeddings_times=8.0),
    replace(_DYCK, share=100 / 600, embeddings_times=8.0, matrices_times=3.0),
    replace(_COMMANDS, share=0.08),
    replace(_COMMANDS, share=0.12),
)


def trial(recipe: Recipe) -> Row:
    """Train by `recipe` and tell when it fitted and generalised."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = train(recipe, Path(folder))
    step, fitted, held_out = (metrics[:, METRICS.index(name)] for name in METRICS[:3])
    first = {level: _first(step, held_out >= level) for level in (0.5, GENERALISED)}
    fit = _first(step, fitted >= FITTED)
    return {
        "task": recipe.task,
        "share": float(recipe.share or 0.0),
        "embeddings x": recipe.embeddings_times or 1.0,
        "matrices x": recipe.matrices_times or 1.0,
        "steps": int(step[-1]),
        "fitted": fit or "never",
        "held-out 0.5": first[0.5] or "never",
        "held-out 0.95": first[GENERALISED] or "never",
        "held-out at the fit": float(held_out[step == fit][0]) if fit else float("nan"),
        "held-out at most": float(held_out.max()),
    }


def _first(step: np.ndarray, reached: np.ndarray) -> int | None:
    return int(step[np.argmax(reached)]) if reached.any() else None


def search(recipes: Sequence[Recipe] = TRIED) -> Table:
    """All trials."""
    torch.set_num_threads(1)
    return Table("search", "Late generalisation of sequences: what was tried", "none", [trial(one) for one in recipes])


if __name__ == "__main__":
    print(search().text())
