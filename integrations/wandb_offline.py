"""Folders that the W&B SDK wrote on this machine as a tracker: `wandb-offline:PATH`, without a network and a login.

Configuration, history and artifacts are read from the runs' transaction logs. They are not written to: annotations go
to folders beside them, which `wandb sync` uploads as runs of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import wandb

from integrations.contents import contents_told
from integrations.file_errors import file_errors
from integrations.file_examine import folder_finding
from integrations.finding import Finding
from integrations.listing import choose, found_in, series_of
from integrations.selection import RunState
from integrations.tracker import (
    Annotation,
    AnnotationState,
    Capabilities,
    CheckpointListing,
    CheckpointRef,
    Needed,
    PartFetched,
    RetractReceipt,
    Selection,
    TrackedRun,
    WriteReceipt,
)
from integrations.wandb_artifacts import artifact_series
from integrations.wandb_folders import RunFolder, folders_of, runs_in
from integrations.wandb_log import UnreadableLogError
from integrations.wandb_offline_annotations import state_beside, take_back_beside, write_beside
from integrations.wandb_offline_files import SAVED, SavedFiles, StagedFiles, missing_files
from integrations.wandb_run_log import RunLog, read_run
from integrations.wandb_steps import LoggedArtifact
from integrations.wandb_values import is_training_metric, params_of
from spectral_edge.errors import FetchInterruptedError, NotFoundError, UsageError
from spectral_edge.series import MetricSeries
from spectral_edge.suggestions import meant
from spectral_edge.tables import RunKey

SILENCE: Final = 3600.0
"""Seconds without a change after which a log that tells no end is that of a run that was killed. The SDK writes what it
has every fifteen seconds."""


class WandbOfflineTracker:
    """Runs in W&B folders of this machine. A run's `url` is the URI of its first folder."""

    kind: Final = "wandb-offline"
    capabilities: Final = Capabilities(
        local_checkpoints=True,
        writes_metrics=True,
        writes_files=True,
        overwrites_metrics=True,
        results_apart=True,
        local_metrics=True,
    )

    def check(self) -> str:
        """One line for `doctor`."""
        return (
            f"folders of W&B on this machine, no network (wandb {wandb.__version__}); annotations go to folders beside"
        )

    def examine(self, run: TrackedRun | None) -> Iterator[Finding]:
        """Whether the folder may be written to; see `Tracker.examine`."""
        return iter(() if run is None else (folder_finding("write", _folders(run)[0].path.parent),))

    def runs(self, selection: Selection) -> Iterator[TrackedRun]:
        """The runs in the folder `selection.container`, by the time they began; annotations of ours are none."""
        criteria = selection.criteria
        if criteria.filter is not None:
            raise UsageError(
                "`filter` cannot be applied to wandb-offline: sources: filters are in the language of W&B's server.",
                next_step="name the folders that are wanted, or select by `state` and `since`.",
            )
        runs = [self._tracked(folders) for folders in runs_in(Path(selection.container).expanduser())]
        known = {run.key.run_id for run in runs}
        for run_id in selection.run_ids:
            if run_id not in known:
                raise NotFoundError(
                    "no such run.", run=run_id, file=selection.container, next_step=meant(run_id, known)
                )
        named = [run for run in runs if not selection.run_ids or run.key.run_id in selection.run_ids]
        return iter([run for run in named if criteria.admit(run.state, run.started_at, run.ended_at)])

    def checkpoints(self, run: TrackedRun, series: str | None = None) -> CheckpointListing:
        """One trajectory among the run's artifacts and saved files: the longest, unless `series` names one.

        Warnings tell of what could not be read of its logs, and of saved files that are gone.
        """
        name, folders = run.key.run_name, _folders(run)
        log = _log_of(folders, name)
        artifacts = [
            LoggedArtifact(record.name, "", record.aliases, record.metadata, log.step_of(record), files)
            for record, files in zip(log.artifacts, _staged(log, name), strict=True)
        ]
        saved = SavedFiles(tuple(folder.path for folder in folders))
        with file_errors(run=name):
            models, left_out = artifact_series(artifacts, name, log.run_id)
            found = found_in(saved, name)
            if found.stepless and not found.series and not models:
                raise found.no_step().of_run(name)
            left_out = (*log.damage, *left_out, *found.left_out, *missing_files(saved, log.saved))
            return choose([models, series_of(found, saved)], series, name, left_out)

    def contents(self, run: TrackedRun, checkpoints: Sequence[CheckpointRef]) -> tuple[str | None, ...]:  # noqa: ARG002 - the Protocol's; the listing told them
        """By the digests of W&B; see `Tracker.contents`."""
        return contents_told(checkpoints)

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
        """The paths where saved files lie; for files of an artifact, links below `folder` that have their names."""
        name, folders = run.key.run_name, _folders(run)
        paths = [file.path for file in checkpoint.files]
        if checkpoint.location == SAVED:
            saved = SavedFiles(tuple(each.path for each in folders))
            with file_errors(run=name):
                places = [saved.place(path) for path in paths]
        else:
            staged = _staged(_log_of(folders, name), name)[int(checkpoint.location)]
            with file_errors(run=name):
                places = [staged.verified(path) for path in paths]
        for place, file in zip(places, checkpoint.files, strict=True):
            size = place.stat().st_size
            if size != file.size:
                raise FetchInterruptedError(
                    f"has {size} bytes now, {file.size} when it was listed: it is still being written.",
                    run=name,
                    file=file.path,
                )
        if checkpoint.location == SAVED:
            return tuple(places)
        with file_errors(run=name, file=str(folder)):
            return _linked(folder / f"artifact-{checkpoint.location}", paths, places)

    def fetch_part(
        self,
        run: TrackedRun,  # noqa: ARG002 - the Protocol's; nothing is copied
        checkpoint: CheckpointRef,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        needed: Needed,  # noqa: ARG002
    ) -> PartFetched | None:
        """None: nothing has to be fetched."""
        return None

    def metric_names(self, run: TrackedRun) -> tuple[str, ...]:
        """Names of the run's own metrics, sorted."""
        columns = _log_of(_folders(run), run.key.run_name).history.columns
        return tuple(sorted(filter(is_training_metric, columns)))

    def metric_series(self, run: TrackedRun, name: str) -> MetricSeries:
        """The complete history of metric `name`, by the step metric that the run defined for it."""
        log = _log_of(_folders(run), run.key.run_name)
        return log.history.series(name, log.axes.of(name))

    def annotation_state(self, run: TrackedRun) -> AnnotationState | None:
        """What the folders beside the run's say of an earlier annotation."""
        return state_beside(_folders(run))

    def annotate(self, run: TrackedRun, annotation: Annotation, *, replace: bool = False) -> WriteReceipt:  # noqa: ARG002 - folders are always replaced
        """Write `annotation` to a folder beside the run's; see `Tracker.annotate`."""
        folders = _folders(run)
        return write_beside(folders, _log_of(folders, run.key.run_name), annotation, run=run.key.run_name)

    def retract(self, run: TrackedRun, *, dry_run: bool = False) -> RetractReceipt:
        """Delete the folders with annotations that were not uploaded; see `Tracker.retract`."""
        return take_back_beside(_folders(run), run=run.key.run_name, dry_run=dry_run)

    def _tracked(self, folders: Sequence[RunFolder]) -> TrackedRun:
        log = _log_of(folders, folders[0].run_id)
        project = log.project or "uncategorized"  # as the server calls it
        return TrackedRun(
            key=RunKey(
                self.kind, f"{log.entity}/{project}" if log.entity else project, log.run_id, log.name or log.run_id
            ),
            state=_state(log, folders),
            started_at=log.started_at,
            ended_at=_end(log),
            params=params_of(log.config),
            tags=dict.fromkeys(log.tags, "true"),
            url=folders[0].path.as_uri(),
        )


def _folders(run: TrackedRun) -> tuple[RunFolder, ...]:
    """The run's folders as they are now."""
    folder = Path(os.fsdecode(unquote_to_bytes(urlsplit(run.url).path)))
    with file_errors(run=run.key.run_name, file=str(folder)):
        return folders_of(folder, run=run.key.run_name)


def _log_of(folders: Sequence[RunFolder], name: str) -> RunLog:
    """What the logs in `folders` say, read again when they have changed."""
    with file_errors(run=name):
        statuses = [folder.log.stat() for folder in folders]
        found = tuple(
            (folder.log, status.st_mtime_ns, status.st_size) for folder, status in zip(folders, statuses, strict=True)
        )
        try:
            return _read(found)
        except UnreadableLogError as error:
            raise NotFoundError(
                f"its log is no longer readable: {error}.", run=name, file=str(folders[0].log)
            ) from error


@lru_cache(maxsize=4)  # asked for once a metric and once a checkpoint
def _read(logs: tuple[tuple[Path, int, int], ...]) -> RunLog:
    return read_run([path for path, _mtime_ns, _size in logs])


def _staged(log: RunLog, name: str) -> list[StagedFiles]:
    return [StagedFiles(record, number, name) for number, record in enumerate(log.artifacts)]


def _linked(home: Path, paths: Sequence[str], places: Sequence[Path]) -> tuple[Path, ...]:
    """Links in `home` that are called `paths` and lead to `places`: a reader tells formats by the endings of names."""
    links = tuple(home / path for path in paths)
    for link, place in zip(links, places, strict=True):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place.absolute())
    return links


def _state(log: RunLog, folders: Sequence[RunFolder]) -> RunState:
    if log.exit_code is not None:
        return "finished" if log.exit_code == 0 else "failed"
    with file_errors(run=log.name):
        changed = max(folder.log.stat().st_mtime for folder in folders)
    return "running" if time.time() - changed < SILENCE else "killed"


def _end(log: RunLog) -> datetime | None:
    if log.exit_code is None or log.started_at is None or log.runtime is None:
        return None
    return log.started_at + timedelta(seconds=log.runtime)
