"""Processes that annotate a run at the same time, and one that is held up while it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

from mlflow import MlflowClient

from integrations import mlflow_annotations, mlflow_lease
from integrations.tracker import Annotation, TrackedRun, Tracker, WriteReceipt
from spectral_edge.errors import SpectralEdgeError


def annotate(
    tracker: Tracker, run: TrackedRun, annotation: Annotation, start: Barrier, told: Queue[str | WriteReceipt]
) -> None:
    """Annotate when all others are ready; tells the receipt, or the name of the error."""
    tracker.annotation_state(run)  # connected
    start.wait(60)
    told.put(_outcome(tracker, run, annotation))


def tag(uri: str, run_id: str, tags: Mapping[str, str], start: Barrier) -> None:
    """Set tags as a user does, one by one."""
    client = MlflowClient(uri)
    client.get_run(run_id)
    start.wait(60)
    for key, value in tags.items():
        client.set_tag(run_id, key, value)


def annotate_held_up(
    tracker: Tracker, run: TrackedRun, annotation: Annotation, told: Queue[str | WriteReceipt]
) -> None:
    """Annotate, and be stopped in the middle, as by a machine that sleeps."""
    mlflow_lease.TRUST = 0.3  # type: ignore[misc]  # ours is the only test in this process
    write_files = mlflow_annotations._write_files

    def stopped(*arguments: Any) -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        return write_files(*arguments)

    mlflow_annotations._write_files = stopped
    told.put(_outcome(tracker, run, annotation))


def _outcome(tracker: Tracker, run: TrackedRun, annotation: Annotation) -> str | WriteReceipt:
    try:
        return tracker.annotate(run, annotation)
    except SpectralEdgeError as error:
        return type(error).__name__
