"""A process that annotates a run or takes that back, and is killed at its n-th statement that may write."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

# Seconds that the fork server spends once, in the place of each process.
import wandb.sdk.artifacts._generated.artifact_by_id
import wandb.sdk.artifacts._generated.artifact_type
import wandb.sdk.artifacts._models.pagination  # noqa: F401

from integrations.tracker import Annotation, TrackedRun, Tracker

# Every line of ours that writes, and in MLflow the calls that one statement of ours is split into.
_WRITING_FILES = (
    "mlflow_annotations.py",
    "mlflow_child.py",
    "mlflow_lease.py",
    "mlflow_retract.py",
    "mlflow_tags.py",
    "folder_annotations.py",
    "folder_retract.py",
    "wandb_offline_annotations.py",
    "wandb_offline_run.py",
    "wandb_annotations.py",
    "wandb_audit_run.py",
    "wandb_page.py",
    "wandb_results.py",
    "wandb_retract.py",
)
_WRITING_FUNCTIONS = (
    "_write",
    "_try",
    "release",
    "take_back",
    "delete_tags",
    "_made",
    "take_back_children",
    "_write_files",
    "_write_note",
    "_tag",
    "write_to_folder",
    "_write_whole",
    "_sweep",
    "retract_run",
    "delete",
    "retract_folder",
    "_delete",
    "write_beside",
    "written_run",
    "_log",
    "_put",
    "_delete_unsynced",
    "take_back_beside",
    "write_annotation",
    "_write_beside",
    "write_audit_run",
    "_claimed",
    "log_results",
    "_log_files",
    "put_on_page",
    "_send",
    "_delete_superseded",
    "delete_audit_run",
)
_MLFLOW_CALLS = (
    "log_batch",
    "_log_run_metric",
    "set_tag",
    "log_artifact",
    "delete_tag",
    "delete_artifacts",
    "create_run",
    "delete_run",
)


def annotate(
    tracker: Tracker, run: TrackedRun, annotation: Annotation, kill_at: int, counted: Queue[int] | None
) -> None:
    """Annotate; at statement number `kill_at` send this very process SIGKILL. Tells how many statements there were."""
    _killed(tracker, run, lambda: tracker.annotate(run, annotation), kill_at, counted)


def retract(tracker: Tracker, run: TrackedRun, kill_at: int, counted: Queue[int] | None) -> None:
    """Likewise, take back."""
    _killed(tracker, run, lambda: tracker.retract(run), kill_at, counted)


def _killed(
    tracker: Tracker, run: TrackedRun, work: Callable[[], object], kill_at: int, counted: Queue[int] | None
) -> None:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # the fork server may be older than the variables of this session
    os.environ.pop("WANDB_SERVICE", None)  # a service process of its own, which ends soon after this one
    tracker.annotation_state(run)  # opens the store, which takes seconds when each of its calls is traced
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            count()
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if name in _WRITING_FUNCTIONS and file.endswith(_WRITING_FILES):
            return on_line
        if name in _MLFLOW_CALLS and f"{os.sep}mlflow{os.sep}" in file:
            count()
        return None

    sys.settrace(on_call)
    work()
    sys.settrace(None)
    if counted is not None:
        counted.put(seen)
