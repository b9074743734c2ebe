"""Spectral analysis of training trajectories from checkpoints.

    from spectral_edge import analyse

    run = analyse("runs/my-run")
    run.gaps.to_pandas()

All else that is public: the error classes in :mod:`spectral_edge.errors`, and the columns in
:mod:`spectral_edge.tables`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectral_edge.api import analyse, read_checkpoint
    from spectral_edge.recorded import analyse_recorded
    from spectral_edge.recorder import Recorder
    from spectral_edge.series import MetricSeries, TrainingRecord
    from spectral_edge.settings import Settings
    from spectral_edge.store import Store

__all__ = [
    "MetricSeries",
    "Recorder",
    "Settings",
    "Store",
    "TrainingRecord",
    "analyse",
    "analyse_recorded",
    "read_checkpoint",
]

_HOMES = {
    "MetricSeries": "series",
    "Recorder": "recorder",
    "Settings": "settings",
    "Store": "store",
    "TrainingRecord": "series",
    "analyse": "api",
    "analyse_recorded": "recorded",
    "read_checkpoint": "api",
}


def __getattr__(name: str) -> Any:
    """Load the public names on first use: `spectral-edge query` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spectral_edge' has no attribute '{name}'")
    return getattr(import_module(f"spectral_edge.{_HOMES[name]}"), name)
