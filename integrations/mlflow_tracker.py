"""MLflow as a tracker: any tracking URI, checkpoints from artifacts and logged models, annotations on the runs.

Only `MlflowClient` is used: the fluent API changes the state and end time of the runs it opens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace as fields_replaced
from functools import cached_property
from pathlib import Path
from typing import Final

import mlflow
from mlflow.entities import Run

from integrations.credentials import MlflowAccess
from integrations.finding import Finding
from integrations.mlflow_annotations import METRIC_PREFIX, state_of, write_annotation
from integrations.mlflow_checkpoints import list_checkpoints
from integrations.mlflow_child import ADVICE, child_of, take_back_children, write_to_child
from integrations.mlflow_connection import MlflowConnection
from integrations.mlflow_examine import examine
from integrations.mlflow_experiments import all_experiments
from integrations.mlflow_fetch import contents_kept, fetch_checkpoint, fetch_part
from integrations.mlflow_retract import retract_run
from integrations.mlflow_runs import selected_runs
from integrations.tracker import (
    Annotation,
    AnnotationState,
    Capabilities,
    CheckpointListing,
    CheckpointRef,
    Into,
    Needed,
    PartFetched,
    RetractReceipt,
    Selection,
    TrackedRun,
    WriteReceipt,
)
from spectral_edge.series import MetricSeries


class MlflowTracker:
    """Runs of an MLflow tracking server, database or folder.

    Args:
        tracking_uri: Where the runs are; None takes MLFLOW_TRACKING_URI, or MLflow's own default.
        into: Where annotations go: to the `run` itself, or to a `child` run of it.
        access: Where the runs are and who we are there, in place of `tracking_uri`.
    """

    kind: Final = "mlflow"

    def __init__(self, tracking_uri: str | None = None, into: Into = "run", access: MlflowAccess | None = None) -> None:
        self._connection = MlflowConnection(tracking_uri, access)
        self._into = into

    @cached_property
    def capabilities(self) -> Capabilities:
        """What this tracker can do. Checkpoints are local when every experiment keeps its artifacts on this disk."""
        return Capabilities(
            local_checkpoints=not self._connection.is_server and self._artifacts_are_here(),
            writes_metrics=True,
            writes_files=True,
            overwrites_metrics=False,
            results_apart=self._into == "child",
        )

    def check(self) -> str:
        """Address, version and whether we are let in; writes nothing."""
        count = len(all_experiments(self._connection))
        return f"MLflow at {self._connection.address}: {count} experiments visible (client {mlflow.__version__})"

    def examine(self, run: TrackedRun | None) -> Iterator[Finding]:
        """Versions, clocks and rights; see `Tracker.examine`."""
        if run is None:
            yield from examine(self._connection, None, None)
            return
        info = self._run(run).info
        yield from examine(self._connection, info.experiment_id, info.artifact_uri)

    def runs(self, selection: Selection) -> Iterator[TrackedRun]:
        """The active runs of experiment `selection.container` (its name or id), by start time."""
        return iter(selected_runs(self._connection, selection, self.kind, self._into))

    def checkpoints(self, run: TrackedRun, series: str | None = None) -> CheckpointListing:
        """One trajectory among the run's artifacts and its logged models: the longest, unless `series` names one."""
        with self._connection.errors(run=run.key.run_name):
            return list_checkpoints(self._connection, self._run(run), series)

    def contents(self, run: TrackedRun, checkpoints: Sequence[CheckpointRef]) -> tuple[str | None, ...]:
        """By the digests that S3 keeps, where this machine reaches it; see `Tracker.contents`."""
        return contents_kept(self._connection, run.key.run_name, checkpoints)

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
        """The checkpoint's files where they lie on this disk, or else copied below `folder`."""
        return fetch_checkpoint(self._connection, run.key.run_name, checkpoint, folder)

    def fetch_part(
        self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path, needed: Needed
    ) -> PartFetched | None:
        """What is needed of the checkpoint's files, where their store gives ranges; see `Tracker.fetch_part`."""
        return fetch_part(self._connection, run.key.run_name, checkpoint, folder, needed)

    def metric_names(self, run: TrackedRun) -> tuple[str, ...]:
        """Names of the run's own metrics, sorted."""
        names = self._run(run).data.metrics
        return tuple(sorted(name for name in names if not name.startswith(METRIC_PREFIX)))

    def metric_series(self, run: TrackedRun, name: str) -> MetricSeries:
        """The complete history of metric `name`: at a repeated step, the point that was logged last."""
        with self._connection.errors(run=run.key.run_name):
            history = self._connection.client.get_metric_history(run.key.run_id, name)
        points = sorted(history, key=lambda point: (point.step, point.timestamp))
        return MetricSeries.from_points(name, [point.step for point in points], [point.value for point in points])

    def annotation_state(self, run: TrackedRun) -> AnnotationState | None:
        """What the tags of the run, or of its child, say of an earlier annotation, read fresh."""
        read = self._run(run)
        with self._connection.errors(run=run.key.run_name):
            carrier = read if self._into == "run" else child_of(self._connection, read)
        return None if carrier is None else state_of(carrier)

    def annotate(self, run: TrackedRun, annotation: Annotation, *, replace: bool = False) -> WriteReceipt:
        """Write `annotation` to the run, or to its child; see `Tracker.annotate`."""
        with self._connection.errors(run=run.key.run_name):
            if self._into == "child":
                return write_to_child(self._connection, self._run(run), annotation, replace=replace)
            return write_annotation(self._connection.client, self._run(run), annotation, replace=replace)

    def retract(self, run: TrackedRun, *, dry_run: bool = False) -> RetractReceipt:
        """Take back tags, files and the note section, and delete child runs; MLflow keeps the run's metric points.

        See `Tracker.retract`.
        """
        with self._connection.errors(run=run.key.run_name):
            read = self._run(run)
            receipt = retract_run(self._connection, read, dry_run=dry_run)
            children = take_back_children(self._connection, read, dry_run=dry_run)
        advice = " ".join(filter(None, [receipt.advice, ADVICE if children else ""]))
        return fields_replaced(receipt, child_runs=children, advice=advice)

    def _run(self, run: TrackedRun) -> Run:
        with self._connection.errors(run=run.key.run_name):
            return self._connection.client.get_run(run.key.run_id)

    def _artifacts_are_here(self) -> bool:
        places = (self._connection.artifacts(found.artifact_location) for found in all_experiments(self._connection))
        return all(place.folder is not None for place in places)
