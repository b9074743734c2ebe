"""Folders that are gone when their block ends, and that the next audit sweeps when the process was killed inside it.

Each folder holds a lock that its process keeps for as long as it lives. The kernel releases it at any death, so that a
folder in use can be told from one that was left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from integrations.file_errors import from_os_error

_LOCK: Final = "spectral-edge.lock"
_PREFIX: Final = "spectral-edge-tmp-"
_UNLOCKED_SECONDS: Final = 60.0
"""A folder is made before its lock; one without a lock is left alone for this long."""


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A fresh, empty folder in the system's place for such, removed with all that is in it.

    Raises:
        AccessDeniedError: That place cannot be written to.
        DiskFullError: No room for even a folder.
    """
    with locked_folder(Path(tempfile.gettempdir()), f"{_PREFIX}{name}-") as folder:
        content = folder / "content"  # apart from the lock
        content.mkdir()
        yield content


def sweep_scratch() -> int:
    """Remove what processes of this user that were killed have left; returns how many folders that were."""
    return sweep_folders(Path(tempfile.gettempdir()), _PREFIX)


@contextmanager
def locked_folder(root: Path, prefix: str) -> Iterator[Path]:
    """A fresh folder below `root` whose name begins with `prefix`; removed with all that is in it.

    Raises:
        AccessDeniedError: `root` cannot be written to.
        DiskFullError: No room for even a folder.
    """
    folder, lock = _claim(root, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        lock.release()


def sweep_folders(root: Path, prefix: str) -> int:
    """Remove the folders below `root` with this prefix whose process is gone; returns how many."""
    return sum(_swept(folder) for folder in root.glob(f"{prefix}*")) if root.is_dir() else 0


def _claim(root: Path, prefix: str) -> tuple[Path, FileLock]:
    while True:
        folder = root / f"{prefix}{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir(parents=True, mode=0o700)
            lock = FileLock(folder / _LOCK, timeout=0)
            lock.acquire()
        except (Timeout, FileNotFoundError, FileExistsError):
            continue  # a sweeper was quicker: take another name
        except OSError as error:
            raise from_os_error(error, file=str(root)) from error
        if (folder / _LOCK).exists():
            return folder, lock
        lock.release()  # it was of a file that a sweeper has removed


def _swept(folder: Path) -> bool:
    """Remove `folder` if its process is gone; whether it was."""
    lock_file = folder / _LOCK
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False  # somebody else's
        if not lock_file.exists():
            is_left = time.time() - folder.stat().st_mtime > _UNLOCKED_SECONDS
            if is_left:
                shutil.rmtree(folder, ignore_errors=True)
            return is_left
        # Not by FileLock, which makes the file, and the folder, when they have just been removed.
        with lock_file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another audit may be sweeping too; whoever comes second finds nothing.
            shutil.rmtree(folder, ignore_errors=True)
            return True
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return False
