"""A plain folder as a tracker: `dir:PATH`. Which folders are runs is told in folder_runs.py."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from integrations.file_errors import file_errors
from integrations.file_examine import folder_finding
from integrations.finding import Finding
from integrations.folder_annotations import state_of_folder, write_to_folder
from integrations.folder_metrics import folder_metrics
from integrations.folder_retract import retract_folder
from integrations.folder_runs import is_recording, run_files, run_params, run_places
from integrations.listing import choose, found_in, series_of
from integrations.recordings import recorded_listing, recorded_series
from integrations.tracker import (
    Annotation,
    AnnotationState,
    Capabilities,
    CheckpointFile,
    CheckpointListing,
    CheckpointRef,
    Criteria,
    Listed,
    Needed,
    PartFetched,
    RetractReceipt,
    Selection,
    TrackedRun,
    WriteReceipt,
)
from spectral_edge.errors import FetchInterruptedError, NotFoundError, UsageError
from spectral_edge.series import MetricSeries
from spectral_edge.suggestions import meant
from spectral_edge.tables import RunKey


class FolderTracker:
    """Runs in folders of this machine. A run's `url` is the URI of its folder, or of its file of recorded sketches."""

    kind: Final = "dir"
    capabilities: Final = Capabilities(
        local_checkpoints=True,
        writes_metrics=True,
        writes_files=True,
        overwrites_metrics=True,
        local_metrics=True,
    )

    def check(self) -> str:
        """One line for `doctor`."""
        return "folders of this machine; annotations go to spectral_edge/ in each run's folder"

    def examine(self, run: TrackedRun | None) -> Iterator[Finding]:
        """Whether the folder may be written to; see `Tracker.examine`."""
        return iter(() if run is None else (folder_finding("write", _folder_written_of(run)),))

    def runs(self, selection: Selection) -> Iterator[TrackedRun]:
        """The runs in or below the folder `selection.container`, by path."""
        require_told_by_folders(selection.criteria)
        places = run_places(Path(selection.container).expanduser())
        runs = {run.key.run_id: run for run in map(self._tracked, places)}
        for run_id in selection.run_ids:
            if run_id not in runs:
                raise NotFoundError("no such run.", run=run_id, file=selection.container, next_step=meant(run_id, runs))
        named = [runs[run_id] for run_id in selection.run_ids or runs]
        since = selection.criteria.since
        return iter([run for run in named if since is None or _is_written_since(_place_of(run), since)])

    def checkpoints(self, run: TrackedRun, series: str | None = None) -> CheckpointListing:
        """The checkpoints in the run's folder. Warnings tell of files left out and of broken rows of its metrics.

        Raises:
            CheckpointFormatError: The run is a file of recorded sketches, and that is damaged.
        """
        place, name = _place_of(run), run.key.run_name
        if is_recording(place):
            return recorded_listing(place, series, name)
        files = _FolderFiles(place)
        with file_errors(run=name):
            found = found_in(files, name)
            if found.stepless and not found.series:
                raise found.no_step().of_run(name)
            listing = choose([series_of(found, files)], series, name, found.left_out)
        return replace(listing, warnings=listing.warnings + folder_metrics(files.folder).warnings)

    def contents(self, run: TrackedRun, checkpoints: Sequence[CheckpointRef]) -> tuple[str | None, ...]:  # noqa: ARG002 - the Protocol's
        """None: file systems keep no digests, and to make them is to read everything."""
        return (None,) * len(checkpoints)

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:  # noqa: ARG002 - the Protocol's; nothing is copied
        """The paths where the files lie; nothing is copied."""
        paths = tuple(Path(checkpoint.location, file.path) for file in checkpoint.files)
        for path, file in zip(paths, checkpoint.files, strict=True):
            with file_errors(run=run.key.run_name, file=str(path)):
                size = path.stat().st_size
            if size != file.size and not is_recording(path):
                raise FetchInterruptedError(
                    f"has {size} bytes now, {file.size} when it was listed: it is still being written.",
                    run=run.key.run_name,
                    file=str(path),
                )
        return paths

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
        """Columns of numbers in the run's metrics file, or what was recorded, sorted; empty when it has none."""
        return tuple(sorted(_metrics(run)))

    def metric_series(self, run: TrackedRun, name: str) -> MetricSeries:
        """One column of the run's metrics file; empty when it has no such column."""
        return _metrics(run).get(name) or MetricSeries.from_points(name, [], [])

    def annotation_state(self, run: TrackedRun) -> AnnotationState | None:
        """What the folder says of an earlier annotation."""
        return state_of_folder(_place_of(run))

    def annotate(self, run: TrackedRun, annotation: Annotation, *, replace: bool = False) -> WriteReceipt:  # noqa: ARG002 - files are always replaced
        """Write `annotation` to the run's folder; see `Tracker.annotate`."""
        return write_to_folder(_place_of(run), annotation, run=run.key.run_name)

    def retract(self, run: TrackedRun, *, dry_run: bool = False) -> RetractReceipt:
        """Delete our files in the run's folder; see `Tracker.retract`."""
        return retract_folder(_place_of(run), run=run.key.run_name, dry_run=dry_run)

    def _tracked(self, place: Path) -> TrackedRun:
        folder = place.parent if is_recording(place) else place
        name = (place.stem if is_recording(place) else place.name) or str(place)
        digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
        return TrackedRun(
            key=RunKey(self.kind, place.parent.name or str(place.parent), f"{name}-{digest}", name),
            state="unknown",
            started_at=None,
            ended_at=None,
            params=run_params(folder),
            tags={},
            url=place.as_uri(),
            listed=_listed(place),
        )


def _listed(place: Path) -> Listed | None:
    """Sizes and times of the run's files: all that a listing of its checkpoints goes by. None when one goes away."""
    try:
        stats = [(str(path), path.stat()) for path in _files_of(place)]
        told = [(path, status.st_size, status.st_mtime_ns) for path, status in stats]
        changed = max(mtime for _, _, mtime in told) / 1e9
        return Listed.of(told, state_of_folder(place), datetime.fromtimestamp(changed, UTC))
    except (OSError, ValueError):
        return None


def _files_of(place: Path) -> list[Path]:
    """What the run at `place` consists of."""
    return [place] if is_recording(place) else [place / path for path in run_files(place)]


def require_told_by_folders(criteria: Criteria) -> None:
    """Refuse what folders cannot tell.

    Raises:
        UsageError: `criteria` asks for a filter, or for a state.
    """
    asked = [f"`{name}`" for name, value in (("filter", criteria.filter), ("state", criteria.states)) if value]
    if asked:
        raise UsageError(
            f"{' and '.join(asked)} cannot be applied to dir: sources: a folder tells no state of its run, and has no "
            "language for filters.",
            next_step="name the folders that are wanted, or select by age with `since`.",
        )


def _is_written_since(place: Path, since: datetime) -> bool:
    """Whether the newest of the run's files is that new. One that has just gone is left to whoever reads the run."""
    try:
        return any(path.stat().st_mtime >= since.timestamp() for path in _files_of(place))
    except OSError:
        return True


def _metrics(run: TrackedRun) -> Mapping[str, MetricSeries]:
    place = _place_of(run)
    return recorded_series(place) if is_recording(place) else folder_metrics(place).series


def _folder_written_of(run: TrackedRun) -> Path:
    """The folder in which annotations of `run` are made."""
    place = _place_of(run)
    return place.parent if is_recording(place) else place


def _place_of(run: TrackedRun) -> Path:
    """The folder, or the file of recorded sketches, that `run` is."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(run.url).path)))


@dataclass(frozen=True)
class _FolderFiles:
    """The files of the run in `folder`."""

    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder)

    @cached_property
    def paths(self) -> frozenset[str]:
        return frozenset(run_files(self.folder))

    def described(self, path: str) -> CheckpointFile:
        # As Git's index does: a stat tells that nothing changed; reading all bytes to find that out would be the audit.
        status = (self.folder / path).stat()
        return CheckpointFile(path, status.st_size, f"mtime:{status.st_mtime_ns}")

    def brought(self, paths: Sequence[str]) -> AbstractContextManager[Sequence[Path]]:
        return nullcontext([self.folder / path for path in paths])
