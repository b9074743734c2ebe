"""The checkpoints of a W&B run: versions of the model artifacts that it logged, and the files that it saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import wandb
from wandb.apis.public import File, Run

from integrations.listing import Series, choose, found_in, series_of
from integrations.scratch import scratch_folder
from integrations.tracker import CheckpointFile, CheckpointListing, CheckpointRef
from integrations.wandb_artifacts import artifact_series, is_model
from integrations.wandb_connection import WandbConnection
from integrations.wandb_fetch import SAVED, digest_of_saved, fetch_checkpoint, patient_streams
from integrations.wandb_history import HistorySteps
from integrations.wandb_manifest import Manifest, Manifests
from integrations.wandb_references import size_of
from integrations.wandb_steps import LoggedArtifact
from spectral_edge.errors import NotFoundError

_PAGE: Final = 100
"""Versions, or files, asked for at once."""


def list_checkpoints(
    connection: WandbConnection, manifests: Manifests, run: Run, series: str | None
) -> CheckpointListing:
    """One of the series that `run` offers, by the rule of :func:`choose`; artifacts win a tie.

    Raises:
        NoStepError: There are checkpoints, and the step of none of them can be told.
        NotFoundError: There are checkpoints, and no series has a name like `series`; or the run has been deleted.
    """
    name = run.name or run.id
    logged, logged_left_out = _series_of_artifacts(connection, manifests, run, name)
    files = SavedFiles(connection, manifests, run)
    found = found_in(files, name)
    if found.stepless and not found.series and not logged:
        raise found.no_step().of_run(name)
    left_out = (*logged_left_out, *found.left_out)
    return choose([logged, series_of(found, files)], series, name, left_out)


def _series_of_artifacts(
    connection: WandbConnection, manifests: Manifests, run: Run, name: str
) -> tuple[list[Series], tuple[str, ...]]:
    artifacts = _model_artifacts(connection, run, name)
    with connection.errors(run=name), patient_streams() as streams:
        read = manifests.of_artifacts(connection, artifacts, name, streams)
    logged = [
        LoggedArtifact(
            collection=artifact.name.partition(":")[0],
            version=artifact.version,
            aliases=tuple(artifact.aliases),
            metadata=artifact.metadata,
            history_step=None,
            files=ManifestFiles(connection, manifests, manifest, name),
        )
        for artifact, manifest in zip(artifacts, read, strict=True)
    ]
    found = artifact_series(logged, name, run.id)
    if sum(len(series.checkpoints) for series in found[0]) >= len(logged):
        return found
    # Something has no step yet: the history is read for that alone, since a long one takes many requests.
    steps = HistorySteps(connection, run)
    rows = [steps.at(artifact.history_step) for artifact in artifacts]
    in_history = [replace(each, history_step=row) for each, row in zip(logged, rows, strict=True)]
    return artifact_series(in_history, name, run.id)


def _model_artifacts(connection: WandbConnection, run: Run, name: str) -> list[wandb.Artifact]:
    """The versions that hold models and whose upload was completed, oldest first."""
    try:
        with connection.errors(run=name):
            artifacts = list(run.logged_artifacts(per_page=_PAGE))
    except TypeError:  # wandb's classes take it for granted that the run is there
        raise NotFoundError("the run has been deleted.", run=name) from None
    kept = [each for each in artifacts if each.state == "COMMITTED" and is_model(each.type)]
    return sorted(kept, key=lambda each: (str(each.created_at), _number(each.version)))


def _number(version: str) -> int:
    digits = version.removeprefix("v")
    return int(digits) if digits.isdecimal() else -1


@dataclass(frozen=True)
class ManifestFiles:
    """The files of one version of an artifact."""

    connection: WandbConnection
    manifests: Manifests
    manifest: Manifest
    run_name: str

    @property
    def location(self) -> str:
        """ENTITY/PROJECT/COLLECTION:VERSION."""
        return self.manifest.location

    @cached_property
    def paths(self) -> frozenset[str]:
        """Their names in the artifact."""
        return frozenset(self.manifest.entries)

    def described(self, path: str) -> CheckpointFile:
        """Size and digest of one; the store of a reference is asked where it was logged without looking at it."""
        entry = self.manifest.entries[path]
        if entry.reference is None or entry.file.size:
            return entry.file
        return replace(entry.file, size=size_of(self.connection, entry, self.run_name))

    @contextmanager
    def brought(self, paths: Sequence[str]) -> Iterator[Sequence[Path]]:
        """The files, downloaded for the time of the block."""
        wanted = CheckpointRef("metadata", 0, "metadata", tuple(map(self.described, paths)), self.location)
        with scratch_folder("metadata") as folder:
            yield fetch_checkpoint(self.connection, self.manifests, self.run_name, wanted, folder)


@dataclass(frozen=True)
class SavedFiles:
    """The files that the run saved (`run.save`); listed once, at the first use."""

    connection: WandbConnection
    manifests: Manifests
    run: Run

    @property
    def location(self) -> str:
        """`saved:ENTITY/PROJECT/RUN`."""
        return f"{SAVED}{self.run.entity}/{self.run.project}/{self.run.id}"

    @cached_property
    def paths(self) -> frozenset[str]:
        """Their names in the run's folder."""
        return frozenset(self._files)

    def described(self, path: str) -> CheckpointFile:
        """Size of one, and its digest where W&B tells it."""
        file = self._files[path]
        digest = digest_of_saved(file)
        return CheckpointFile(path, file.size, None if digest is None else digest.text)

    @contextmanager
    def brought(self, paths: Sequence[str]) -> Iterator[Sequence[Path]]:
        """The files, downloaded for the time of the block."""
        wanted = CheckpointRef("metadata", 0, "metadata", tuple(map(self.described, paths)), self.location)
        with scratch_folder("metadata") as folder:
            name = self.run.name or self.run.id
            yield fetch_checkpoint(self.connection, self.manifests, name, wanted, folder)

    @cached_property
    def _files(self) -> dict[str, File]:
        with self.connection.errors(run=self.run.name or self.run.id):
            return {file.name: file for file in self.run.files(per_page=_PAGE)}
