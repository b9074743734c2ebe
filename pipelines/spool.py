"""Folders for downloads in flight: one an audit, gone when it ends, and swept after a kill -9.

Each folder holds a lock that its process keeps for as long as it lives. The kernel releases it at any death, so a later
audit can tell a folder that is in use from one that was left.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from integrations.file_errors import from_os_error

_LOCK: Final = "spectral-edge.lock"
_PREFIX: Final = "audit-"
_UNLOCKED_SECONDS: Final = 60.0
"""A folder is made before its lock; one without a lock is left alone for this long."""


@contextmanager
def spool_folder(root: Path, name: str) -> Iterator[Path]:
    """A fresh folder below `root` whose name contains `name`; removed with all that is in it.

    Raises:
        AccessDeniedError: `root` cannot be written to.
        DiskFullError: No room for even a folder.
    """
    folder, lock = _claim(root, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        lock.release()
        _remove_if_empty(root)


def sweep(root: Path) -> int:
    """Remove the folders below `root` that audits killed by force have left; returns how many."""
    left = [folder for folder in root.glob(f"{_PREFIX}*") if _is_left(folder)] if root.is_dir() else []
    for folder in left:
        # Another audit may be sweeping too; whoever comes second finds nothing.
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        _remove_if_empty(root)
    return len(left)


def _claim(root: Path, name: str) -> tuple[Path, FileLock]:
    while True:
        folder = root / f"{_PREFIX}{name}-{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir(parents=True, mode=0o700)
            lock = FileLock(folder / _LOCK, timeout=0)
            lock.acquire()
        except (Timeout, FileNotFoundError):
            continue  # a sweeper was quicker: take another name
        except OSError as error:
            raise from_os_error(error, file=str(root)) from error
        return folder, lock


def _is_left(folder: Path) -> bool:
    lock_file = folder / _LOCK
    try:
        if not lock_file.exists():
            return time.time() - folder.stat().st_mtime > _UNLOCKED_SECONDS
        with FileLock(lock_file, timeout=0):
            return True
    except (Timeout, FileNotFoundError, NotADirectoryError):
        return False


def _remove_if_empty(root: Path) -> None:
    with suppress(OSError):  # another audit's folder is in it
        root.rmdir()
