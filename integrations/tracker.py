"""All that crosses the border between a tracker and the rest of the program.

A tracker lists runs and their checkpoints, brings a checkpoint's files to disk, tells the run's own metrics, and takes
annotations. What a tracker can do is declared in its :class:`Capabilities`; nothing outside asks for its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol

from integrations.annotation import (
    Annotation,
    AnnotationState,
    Leftover,
    Level,
    MetricPoint,
    RetractReceipt,
    WriteReceipt,
)
from integrations.finding import Finding
from integrations.selection import Criteria, RunState, Selection
from spectral_edge.series import MetricSeries
from spectral_edge.tables import RunKey

StepSource = Literal[
    "logged_model", "metadata", "alias", "file_name", "folder_name", "model_name", "history", "metric_time", "record"
]
"""How a training step was found: with the logged model; recorded beside the weights; in an alias of the version; in a
name; from the row of the run's history at which the version was logged; by the time at which its metrics were; or with
the sketch that a recorder made of the model."""
Into = Literal["run", "child"]
"""Where annotations go: to the run itself, or to a run of their own that belongs to it: nested in it (MLflow), or
beside it (W&B)."""

OUR_NAME: Final = "spectral_edge"
"""Names all that we write to a run: tags `spectral_edge.*`, metrics `spectral_edge/*`, files in `spectral_edge/`."""
AUDIT_OF: Final = "spectral_edge.audit_of"
"""Tag of a run that spectral-edge made for results: the id of the run that was audited. Such runs are never audited."""
OUR_FILES: Final = frozenset({"gaps.parquet", "spectrum.html", "spectrum.png", "spectrum.svg"})
"""Files that an annotation has held in this or an earlier version: what may be deleted again in `spectral_edge/`."""

__all__ = [
    "AUDIT_OF",
    "OUR_NAME",
    "Annotation",
    "AnnotationState",
    "Capabilities",
    "CheckpointFile",
    "CheckpointListing",
    "CheckpointRef",
    "Criteria",
    "Into",
    "Leftover",
    "Level",
    "Listed",
    "MetricPoint",
    "MetricSeries",
    "Needed",
    "OtherSeries",
    "PartFetched",
    "RetractReceipt",
    "RunState",
    "Selection",
    "StepSource",
    "TrackedRun",
    "Tracker",
    "WriteReceipt",
]


@dataclass(frozen=True)
class Capabilities:
    """What a tracker can do. The engine asks these, never the tracker's name."""

    local_checkpoints: bool
    """Checkpoints already lie on this machine's disk: `fetch` copies nothing and costs no disk."""
    writes_metrics: bool
    """Takes metrics by training step."""
    writes_files: bool
    """Takes files."""
    overwrites_metrics: bool
    """A metric written again replaces what was there (False: it becomes a second point)."""
    results_apart: bool = False
    """Metrics and files go to a run of their own, not to the audited one."""
    local_metrics: bool = False
    """The run's own metrics lie on this machine's disk: to read one more costs no request."""


@dataclass(frozen=True)
class Listed:
    """What the listing of runs tells by itself, with no further request, of a run that may be passed over.

    Attributes:
        stamp: Changes with the run's state, end, parameters, metrics and outputs, and not with what we write.
        annotation: What an earlier audit wrote, as far as the listing shows that; None when nothing, or not shown.
        changed_at: When the run's files last changed, where a tracker knows no end of runs.
    """

    stamp: str
    annotation: AnnotationState | None = None
    changed_at: datetime | None = None

    @classmethod
    def of(cls, told: object, annotation: AnnotationState | None, changed_at: datetime | None = None) -> Listed:
        """With a stamp of `told`, which is what JSON can hold, in an order of its own."""
        text = json.dumps(told, sort_keys=True, default=str)
        return cls(hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32], annotation, changed_at)


@dataclass(frozen=True)
class TrackedRun:
    """One run as its tracker describes it. `params` and `tags` are tracker text: untrusted.

    `listed` is None for a run whose checkpoints may become more without the listing of runs showing it: one that has
    not ended.
    """

    key: RunKey
    state: RunState
    started_at: datetime | None
    ended_at: datetime | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    url: str
    listed: Listed | None = None


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint: `path` is the tracker's own name of it, `size` in bytes."""

    path: str
    size: int
    digest: str | None = None


@dataclass(frozen=True)
class CheckpointRef:
    """One checkpoint of a run, not yet fetched.

    `name` is what messages call it (an artifact path, a file name); `step` counts optimizer steps; `files` has one
    entry unless the checkpoint is sharded. `location` is private to the tracker that made it.
    """

    name: str
    step: int
    step_source: StepSource
    files: tuple[CheckpointFile, ...]
    location: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


Needed = Callable[[Sequence[Path]], Mapping[Path, Sequence[range]] | None]
"""Given a checkpoint's files of which only the heads are there: the bytes needed of each; None when all are."""


@dataclass(frozen=True)
class PartFetched:
    """A checkpoint of which some bytes came, at their place in files of the right size. The rest reads as zeros.

    Attributes:
        files: In the order of `CheckpointRef.files`.
        n_bytes: How many bytes came.
        version: What tells the files apart from others that may be there later under the same names.
    """

    files: tuple[Path, ...]
    n_bytes: int
    version: str


@dataclass(frozen=True)
class OtherSeries:
    """A series of checkpoints that a run offers beside the one that was taken, and how many checkpoints it has."""

    name: str
    checkpoints: int


@dataclass(frozen=True)
class CheckpointListing:
    """A run's trajectory, by increasing step, and what was left out of it and why.

    `series` is the name of the series of checkpoints that was taken, None where the run has none; `others` are those
    that were not. Where `is_recorded`, the checkpoints are records of one file of sketches (spectral_edge.recorded),
    which `fetch` gives for any of them; `sketch_size` is that of its smallest sketch, None where it holds the model
    itself.
    """

    checkpoints: tuple[CheckpointRef, ...]
    warnings: tuple[str, ...] = ()
    series: str | None = None
    others: tuple[OtherSeries, ...] = ()
    is_recorded: bool = False
    sketch_size: int | None = None

    @property
    def step_source(self) -> str | None:
        """How the steps were found; several ways are separated by commas. None without checkpoints."""
        return ", ".join(sorted({ref.step_source for ref in self.checkpoints})) or None


class Tracker(Protocol):
    """A place where runs live. Implementations raise only errors of spectral_edge.errors."""

    @property
    def kind(self) -> str:
        """The word for it in tables and sources: mlflow, wandb, wandb-offline, dir."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this tracker can do."""
        ...

    def check(self) -> str:
        """Ask the tracker who it is, without writing; one line for `doctor` (address, version, access)."""
        ...

    def examine(self, run: TrackedRun | None) -> Iterator[Finding]:
        """What can be told, without writing, of the tracker and of the rights to write to `run`, for `doctor`.

        Raises:
            SpectralEdgeError: The tracker does not answer, or refuses us.
        """
        ...

    def runs(self, selection: Selection) -> Iterator[TrackedRun]:
        """The selected runs that are not deleted and not of our own making, in a stable order.

        Raises:
            UsageError: The tracker refused the selection's filter, or cannot tell what it asks for.
            NotFoundError: No such experiment, folder or run.
            AccessDeniedError: The tracker refused us.
            TrackerUnavailableError: The tracker did not answer.
        """
        ...

    def checkpoints(self, run: TrackedRun, series: str | None = None) -> CheckpointListing:
        """The run's checkpoints by increasing step, one trajectory; what is left out is named with the reason.

        Args:
            run: Whose checkpoints.
            series: Which of the series that the run offers: a glob on the name. None leaves the choice to
                :func:`integrations.listing.choose`.

        Raises:
            NoStepError: There are checkpoints, and the step of none of them can be told.
            NotFoundError: There are checkpoints, and no series has such a name.
        """
        ...

    def contents(self, run: TrackedRun, checkpoints: Sequence[CheckpointRef]) -> tuple[str | None, ...]:
        """A digest of the content of each of `checkpoints`, as the store of its files keeps it; nothing is downloaded.

        Equal digests mean equal bytes, whatever the run, its tracker and the step. None where the store keeps nothing
        that could be relied on: sizes, times and checksums of 32 bits are not.

        Raises:
            NotFoundError, AccessDeniedError, TrackerUnavailableError: The store was to be asked.
        """
        ...

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
        """Bring the checkpoint's files to disk and return their paths, in the order of `checkpoint.files`.

        A tracker with `local_checkpoints` returns the paths where they lie; others write below `folder`, which the
        caller owns and removes. Sizes are verified.

        Raises:
            FetchInterruptedError: The download ended early. Nothing half-written is left in `folder`.
            DiskFullError: No room. Nothing half-written is left in `folder`.
        """
        ...

    def fetch_part(
        self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path, needed: Needed
    ) -> PartFetched | None:
        """As `fetch`, but of .safetensors files no more than `needed` says; None, and nothing, where it cannot be.

        It takes a store that gives ranges and tells versions of a file apart: all bytes are of one version. They are
        held to no digest, as stores keep digests of whole files only.

        Raises:
            CheckpointError: The head of a file is damaged.
            FetchInterruptedError, DiskFullError: As `fetch`.
        """
        ...

    def metric_names(self, run: TrackedRun) -> tuple[str, ...]:
        """Names of the metrics that the run logged itself; those of spectral-edge are left out."""
        ...

    def metric_series(self, run: TrackedRun, name: str) -> MetricSeries:
        """One of the run's metrics by step, complete."""
        ...

    def annotation_state(self, run: TrackedRun) -> AnnotationState | None:
        """What an earlier audit wrote, read fresh; None when nothing."""
        ...

    def annotate(self, run: TrackedRun, annotation: Annotation, *, replace: bool = False) -> WriteReceipt:
        """Write `annotation` to the run; safe to repeat after a kill at any point, with no doubled metric point.

        What marks the annotation as complete is written last. State, end time, parameters, tags, metrics and note
        text that are not ours stay as they are. When the run already carries exactly this annotation, nothing is
        written.

        Args:
            run: The run to annotate.
            annotation: What to write.
            replace: Write over metrics that have other values, where otherwise AnnotationConflictError is raised. A
                tracker without `overwrites_metrics` (MLflow) then shows two points at the same step, of which the
                later one is valid; its chart draws both. A run that has only grown needs no `replace`.

        Raises:
            AccessDeniedError: We may read but not write.
            NotFoundError: The run has been deleted.
            RunBusyError: Another process is writing to the run.
            AnnotationConflictError: The tracker lacks `overwrites_metrics`, the run carries other values at the same
                steps, from an audit with other settings or of other checkpoints, and `replace` is False. Nothing was
                written.
        """
        ...

    def retract(self, run: TrackedRun, *, dry_run: bool = False) -> RetractReceipt:
        """Take back all that `annotate` wrote to the run and that can be taken back; says what stays.

        What marks the annotation as complete goes first: after a kill at any point, another `retract` takes back the
        rest, and another `annotate` writes everything again, with no doubled metric point. A run without anything of
        ours is not written to. State, end time, parameters, tags, metrics, files and note text that are not ours stay
        as they are.

        Args:
            run: The run to take annotations from.
            dry_run: Only look; nothing is written.

        Raises:
            AccessDeniedError: We may read but not write.
            NotFoundError: The run has been deleted.
            RunBusyError: Another process is writing to the run.
        """
        ...
