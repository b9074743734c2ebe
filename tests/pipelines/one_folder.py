"""A run in a folder, and its audits without Prefect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from integrations.folder_tracker import FolderTracker
from integrations.tracker import RunState, Selection, TrackedRun
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.results import RunResult
from pipelines.settings import load_settings
from spectral_edge.store import Store
from spectral_edge.tables import RunTables

SIZE = 60
TENSOR = "layers.0.mlp.weight"


def weights(count: int, seed: int = 0) -> np.ndarray:
    """A random walk, shape (count, SIZE)."""
    return np.cumsum(np.random.default_rng(seed).normal(size=(count, SIZE)), axis=0)


def write(folder: Path, index: int, row: np.ndarray) -> Path:
    """Checkpoint number `index` of the run, ten steps after the one before."""
    folder.mkdir(exist_ok=True)
    path = folder / f"step_{10 * index}.safetensors"
    save_file({TENSOR: torch.tensor(row, dtype=torch.float32)}, path)
    return path


def audit(
    folder: Path, state: RunState = "unknown", *, tracker: FolderTracker | None = None, **flags: Any
) -> RunResult:
    """Audit the run in `folder`: windows of three updates and no annotations, unless `flags` say otherwise."""
    settings = load_settings(**{"window": 3, "annotate": "none", **flags})
    store = Store.open(settings.store)
    job = Job(Scope.of(tracker or FolderTracker(), settings, store), store, "cpu")
    return audit_one(job, tracked(folder, state))


def tracked(folder: Path, state: RunState = "unknown") -> TrackedRun:
    """The run in `folder`."""
    [run] = FolderTracker().runs(Selection(str(folder)))
    return replace(run, state=state)


def tables(folder: Path, store: str = "spectral-edge-store") -> RunTables:
    """What the store says of the run in `folder`."""
    found = Store.open(store).read_run(tracked(folder).key)
    assert found is not None
    return found
