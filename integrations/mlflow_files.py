"""The files below one artifact root of MLflow, as listings of checkpoints need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlflow.entities import FileInfo

from integrations.mlflow_connection import ArtifactRoot, MlflowConnection
from integrations.mlflow_fetch import fetch_checkpoint
from integrations.scratch import scratch_folder
from integrations.tracker import CheckpointFile, CheckpointRef


@dataclass(frozen=True)
class ArtifactFiles:
    """The artifacts of the run `run_name`, or of one of its logged models; listed once, at the first use."""

    connection: MlflowConnection
    root: ArtifactRoot
    run_name: str

    @property
    def location(self) -> str:
        """The URI of the root."""
        return self.root.uri

    @cached_property
    def paths(self) -> frozenset[str]:
        """Their names, relative to the root."""
        return frozenset(self._entries)

    def described(self, path: str) -> CheckpointFile:
        """Size of one; and where it lies on this machine's disk, the time of its last change."""
        # Artifact stores tell a size and nothing else.
        folder = self.root.folder
        digest = None if folder is None else f"mtime:{(folder / path).stat().st_mtime_ns}"
        return CheckpointFile(path, self._entries[path].file_size or 0, digest)

    @contextmanager
    def brought(self, paths: Sequence[str]) -> Iterator[Sequence[Path]]:
        """The files on this machine's disk: where they lie, or downloaded for the time of the block."""
        wanted = CheckpointRef("metadata", 0, "metadata", tuple(map(self.described, paths)), self.location)
        with scratch_folder("metadata") as folder:
            yield fetch_checkpoint(self.connection, self.run_name, wanted, folder)

    @cached_property
    def _entries(self) -> dict[str, FileInfo]:
        return {entry.path: entry for entry in self.root.files()}
