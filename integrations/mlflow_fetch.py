"""Bringing a checkpoint of MLflow to disk: left in place where it lies on this machine, otherwise downloaded."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from integrations.mlflow_connection import ArtifactRoot, MlflowConnection
from integrations.tracker import CheckpointFile, CheckpointRef
from spectral_edge.errors import FetchInterruptedError, NotFoundError, TransientError


def fetch_checkpoint(
    connection: MlflowConnection, run_name: str, checkpoint: CheckpointRef, folder: Path
) -> tuple[Path, ...]:
    """The checkpoint's files where they lie on this disk, or else copied below `folder`; see `Tracker.fetch`."""
    root = connection.artifacts(checkpoint.location)
    if root.folder is not None:
        paths = tuple(root.folder / file.path for file in checkpoint.files)
        for path, file in zip(paths, checkpoint.files, strict=True):
            _verify(path, file, run_name)
        return paths
    with connection.errors(run=run_name, file=checkpoint.name):
        folder.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix=f"step-{checkpoint.step}-", dir=folder))
    try:
        return tuple(
            _download(connection, root, file, run_name, home / f"{number:03d}")
            for number, file in enumerate(checkpoint.files)
        )
    except BaseException:  # also when the audit is being stopped
        shutil.rmtree(home, ignore_errors=True)
        raise


def _download(
    connection: MlflowConnection, root: ArtifactRoot, file: CheckpointFile, run_name: str, home: Path
) -> Path:
    """Fetch one file into the new folder `home`, under a name of ours: the tracker's may be as odd as it likes."""
    try:
        with connection.errors(run=run_name, file=file.path):
            home.mkdir()
            landed = root.download(file.path, home)
            _verify(landed, file, run_name)
            return landed.rename(home / re.sub(r"[^A-Za-z0-9._=-]", "_", Path(file.path).name)[-100:])
    except TransientError as error:
        details = error.details() | {"left_behind": "nothing"}
        raise FetchInterruptedError(error.what, **details) from None


def _verify(path: Path, file: CheckpointFile, run_name: str) -> None:
    if not path.is_file():
        raise NotFoundError("the file is gone.", run=run_name, file=file.path)
    size = path.stat().st_size
    if size != file.size:
        raise FetchInterruptedError(f"got {size} bytes, the tracker lists {file.size}.", run=run_name, file=file.path)
