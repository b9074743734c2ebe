"""One writer at a time in a local store."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

from spectral_edge.errors import StoreLockedError
from spectral_edge.store_errors import store_errors

LOCK_FILE: Final = ".write-lock"
HOLDER_FILE: Final = ".write-lock.holder"


@contextmanager
def write_lock(folder: Path, timeout: float) -> Iterator[None]:
    """Hold the write lock of the store in `folder`; waits up to `timeout` seconds for it.

    The kernel holds the lock for the open file, so a killed process leaves nothing that must be cleaned up.

    Raises:
        StoreLockedError: Another process held the lock all the while.
        AccessDeniedError, DiskFullError: The lock file cannot be written.
    """
    lock = FileLock(folder / LOCK_FILE)
    # Beside the lock file: some versions of filelock empty the lock file itself when they try to take it.
    holder = folder / HOLDER_FILE
    with store_errors(str(folder / LOCK_FILE)):
        _acquire(lock, holder, timeout)
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _acquire(lock: BaseFileLock, holder: Path, timeout: float) -> None:
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise StoreLockedError(
            f"another writer ({_read(holder)}) held the write lock for more than {timeout:g} s.",
            file=lock.lock_file,
            left_behind="nothing of this audit",
            next_step="wait for it to end, then run the same command again; a killed process holds no lock",
        ) from error


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "unknown"
