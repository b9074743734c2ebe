"""Weights & Biases as a tracker: runs of a server's projects, checkpoints from artifacts and saved files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import wandb

from integrations.contents import contents_told
from integrations.credentials import WandbAccess
from integrations.finding import Finding
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
from integrations.wandb_annotations import state_of_run, write_annotation
from integrations.wandb_connection import WandbConnection
from integrations.wandb_examine import examine
from integrations.wandb_fetch import fetch_checkpoint, fetch_part
from integrations.wandb_history import metric_names, metric_series
from integrations.wandb_listing import list_checkpoints
from integrations.wandb_manifest import Manifests
from integrations.wandb_retract import retract_run
from integrations.wandb_runs import selected_runs
from spectral_edge.series import MetricSeries


class WandbTracker:
    """Runs of the W&B server that WANDB_BASE_URL names.

    Args:
        into: Where annotations go: to the `run` itself, or to an audit run beside it (`child`).
        access: Another server, or another key, than wandb finds by itself.
    """

    kind: Final = "wandb"

    def __init__(self, into: Into = "child", access: WandbAccess | None = None) -> None:
        self._access = access
        self._connection = WandbConnection(access)
        self._manifests = Manifests()
        self._into = into
        self.capabilities = Capabilities(
            local_checkpoints=False,
            writes_metrics=True,
            writes_files=True,
            overwrites_metrics=into == "child",  # another audit gets another run; a history takes no row back
            results_apart=into == "child",
        )

    def __reduce__(self) -> tuple[type[WandbTracker], tuple[Into, WandbAccess | None]]:
        return (type(self), (self._into, self._access))  # nothing that was read travels to another process, and no key

    def check(self) -> str:
        """Address, user and version; writes nothing."""
        with self._connection.errors():
            viewer = self._connection.api.viewer
        return f"W&B at {self._connection.address}: signed in as {viewer.username} (client {wandb.__version__})"

    def examine(self, run: TrackedRun | None) -> Iterator[Finding]:
        """The server's clock and our rights; see `Tracker.examine`."""
        return examine(self._connection, None if run is None else run.key.project)

    def runs(self, selection: Selection) -> Iterator[TrackedRun]:
        """The runs of `selection.container` (ENTITY/PROJECT, or a pattern on the project's name), by creation."""
        return iter(selected_runs(self._connection, selection, self.kind, self._into))

    def checkpoints(self, run: TrackedRun, series: str | None = None) -> CheckpointListing:
        """One trajectory among the run's model artifacts and saved files: the longest, unless `series` names one."""
        return list_checkpoints(self._connection, self._manifests, self._run(run), series)

    def contents(self, run: TrackedRun, checkpoints: Sequence[CheckpointRef]) -> tuple[str | None, ...]:  # noqa: ARG002 - the Protocol's; the listing told them
        """By the digests of W&B; see `Tracker.contents`."""
        return contents_told(checkpoints)

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
        """The checkpoint's files below `folder`; what refers to a file of this machine becomes a link to it."""
        return fetch_checkpoint(self._connection, self._manifests, run.key.run_name, checkpoint, folder)

    def fetch_part(
        self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path, needed: Needed
    ) -> PartFetched | None:
        """What is needed of the checkpoint's files, where their store gives ranges; see `Tracker.fetch_part`."""
        return fetch_part(self._connection, self._manifests, run.key.run_name, checkpoint, folder, needed)

    def metric_names(self, run: TrackedRun) -> tuple[str, ...]:
        """Names of the run's own metrics, sorted."""
        return metric_names(self._run(run))

    def metric_series(self, run: TrackedRun, name: str) -> MetricSeries:
        """The complete history of metric `name`, by the metric that the run counts its steps with."""
        return metric_series(self._connection, self._run(run), name)

    def annotation_state(self, run: TrackedRun) -> AnnotationState | None:
        """What the run's summary, or its audit run, says of an earlier annotation, read fresh."""
        return state_of_run(self._connection, run, self._into)

    def annotate(self, run: TrackedRun, annotation: Annotation, *, replace: bool = False) -> WriteReceipt:
        """Write `annotation` beside the run, or into it; see `Tracker.annotate`."""
        return write_annotation(self._connection, run, annotation, into=self._into, replace=replace)

    def retract(self, run: TrackedRun, *, dry_run: bool = False) -> RetractReceipt:
        """Delete audit runs, and take back summary keys, tags and the section of the notes; see `Tracker.retract`."""
        return retract_run(self._connection, run, dry_run=dry_run)

    def _run(self, run: TrackedRun) -> wandb.apis.public.Run:
        return self._connection.run(run.key.project, run.key.run_id, run.key.run_name)
