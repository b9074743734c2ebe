"""Spectral analysis of training trajectories from checkpoints.

    from spectral_edge import analyse

    run = analyse("runs/my-run", metric="val_accuracy", learning_rate="lr")
    run  # in a notebook: the verdict with its error rate, the picture, the changes

What may be relied on, and how anything of it ends: docs/api.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectral_edge.api import analyse, read_checkpoint
    from spectral_edge.audited_run import AuditedRun
    from spectral_edge.recorded import analyse_recorded
    from spectral_edge.recorder import Recorder
    from spectral_edge.run_list import RunList
    from spectral_edge.series import FurtherMetric, MetricSeries, TrainingRecord
    from spectral_edge.settings import Settings
    from spectral_edge.store import Store

__all__ = [
    "AuditedRun",
    "FurtherMetric",
    "MetricSeries",
    "Recorder",
    "RunList",
    "Settings",
    "Store",
    "TrainingRecord",
    "analyse",
    "analyse_recorded",
    "read_checkpoint",
]

_HOMES = {
    "AuditedRun": "audited_run",
    "FurtherMetric": "series",
    "MetricSeries": "series",
    "Recorder": "recorder",
    "RunList": "run_list",
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


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__]
