"""Annotations of runs in W&B folders: a folder beside the run's own, which the SDK writes and `wandb sync` uploads.

The SDK writes it in a hidden folder; it is moved to its place when it is complete, so that a half-written one is never
seen. The folders of the audited run are only read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from integrations.tracker import OUR_NAME, Annotation, AnnotationState, Leftover, RetractReceipt, WriteReceipt
from integrations.wandb_folders import RunFolder, annotations_beside
from integrations.wandb_log import UnreadableLogError
from integrations.wandb_offline_run import MADE, written_run
from integrations.wandb_results import FINISHED, STARTED
from integrations.wandb_run_log import RunLog, read_run
from spectral_edge.errors import RunBusyError

_HIDDEN: Final = ".spectral_edge-"
"""How the names of folders begin that are being written, or deleted."""
_UPLOADED: Final = "it was uploaded: delete the run in W&B first, then the folder."


def state_beside(folders: Sequence[RunFolder]) -> AnnotationState | None:
    """What the newest annotation of the run in `folders` says of itself; None when there is none."""
    marks = [marks for found in annotations_beside(folders, MADE) if (marks := _marks(found)) != (None, None)]
    return AnnotationState.of_marks(*marks[-1]) if marks else None


def write_beside(folders: Sequence[RunFolder], log: RunLog, annotation: Annotation, *, run: str) -> WriteReceipt:
    """Write `annotation` to a folder beside `folders`, those of the run that `log` tells of.

    Earlier ones are deleted when the new one is in its place, but for those that have been uploaded.

    Raises:
        AccessDeniedError: The folder around may not be written.
        DiskFullError: No room; nothing half-written is left.
        RunBusyError: Another process is writing annotations of this run.
    """
    home = folders[0].path.parent
    with file_errors(run=run, file=str(home)), _alone(folders[0].path, run):
        _sweep(home, log.run_id)
        earlier = annotations_beside(folders, MADE)
        current = [found for found in earlier if _marks(found) == (annotation.mark, annotation.mark)]
        if current:
            _delete_unsynced([found for found in earlier if found not in current[-1:]])
            return WriteReceipt(0, 0, 0)
        with _scratch(home, log.run_id) as scratch:
            made = written_run(scratch, log, annotation, run)
            size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
            _put(made, home)
        _delete_unsynced(earlier)
    return WriteReceipt(
        len(annotation.metrics), len(annotation.files), size, tuple(_said(folders, home / made.name, earlier))
    )


def take_back_beside(folders: Sequence[RunFolder], *, run: str, dry_run: bool) -> RetractReceipt:
    """Delete the folders with annotations of a run, or only look; those that have been uploaded stay.

    Raises:
        AccessDeniedError: The folder around may not be written.
        RunBusyError: Another process is writing annotations of this run.
    """
    home = folders[0].path.parent
    with file_errors(run=run, file=str(home)), _alone(folders[0].path, run):
        found = annotations_beside(folders, MADE)
        ours = [each for each in found if not each.is_synced]
        files = sorted({path.name for each in ours for path in (each.path / "files" / OUR_NAME).glob("*")})
        if not dry_run:
            _delete_unsynced(ours)
            _sweep(home, folders[0].run_id)
    uploaded = (each for each in found if each.is_synced)
    return RetractReceipt(
        files=tuple(files),
        child_runs=tuple(each.run_id for each in ours),
        leftovers=tuple(Leftover(f"run {each.run_id} and its folder {each.path}", _UPLOADED) for each in uploaded),
    )


def _said(folders: Sequence[RunFolder], made: Path, earlier: Sequence[RunFolder]) -> Iterator[str]:
    """How the annotation gets to W&B, the run itself first, and what an earlier one left there."""
    unsent = [folder.path for folder in folders if not folder.is_synced and folder.path.name.startswith("offline-")]
    commands = " && ".join(f"wandb sync {shlex.quote(str(path))}" for path in (*unsent, made))
    yield f"the annotation is a run of its own, in a folder beside; to upload it: {commands}"
    for folder in earlier:
        if folder.is_synced:
            yield f"the run {folder.run_id} in W&B holds an earlier annotation, and can be deleted there."


def _marks(folder: RunFolder) -> tuple[str | None, str | None]:
    """The marks of the annotation begun and of the one finished in `folder`."""
    try:
        summary = read_run([folder.log]).summary
    except (OSError, UnreadableLogError):
        return None, None  # unreadable counts as none: it is written again
    ours = summary.get(STARTED), summary.get(FINISHED)
    started, finished = (mark if isinstance(mark, str) else None for mark in ours)
    return started, finished


@contextmanager
def _alone(folder: Path, run: str) -> Iterator[None]:
    """Inside the block no other process writes annotations of the run whose first folder is `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN}:
                raise RunBusyError(
                    "another process is writing annotations of this run.",
                    run=run,
                    left_behind="nothing was written",
                    next_step="run the same command again when it has finished.",
                ) from error
            # Some network file systems lock no folders; each writer has a hidden folder of its own in any case.
        yield
    finally:
        os.close(handle)


def _hidden(run_id: str) -> str:
    return f"{_HIDDEN}{hashlib.sha256(run_id.encode()).hexdigest()[:16]}-"


@contextmanager
def _scratch(home: Path, run_id: str) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=_hidden(run_id), dir=home))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sweep(home: Path, run_id: str) -> None:
    """Remove what a killed writer left."""
    for path in home.glob(f"{_hidden(run_id)}*"):
        shutil.rmtree(path, ignore_errors=True)


def _put(made: Path, home: Path) -> None:
    """Move the folder `made` to `home`, and make that outlive a power cut."""
    for path in made.rglob("*"):
        _keep(path)
    made.rename(home / made.name)
    _keep(home)


def _keep(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _delete_unsynced(found: Sequence[RunFolder]) -> None:
    """Delete annotations that nobody has uploaded; each is hidden first, so that none is seen in parts."""
    for folder in found:
        if not folder.is_synced:
            gone = Path(tempfile.mkdtemp(prefix=_hidden(folder.audit_of or ""), dir=folder.path.parent))
            folder.path.rename(gone / folder.path.name)
            shutil.rmtree(gone)
