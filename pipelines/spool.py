"""Folders for downloads in flight: one an audit, gone when it ends, and swept after a kill -9.

How a folder in use is told from one that was left is in :mod:`integrations.scratch`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from integrations.scratch import locked_folder, sweep_folders
from pipelines import stopping

_PREFIX: Final = "audit-"


@contextmanager
def spool_folder(root: Path, name: str) -> Iterator[Path]:
    """A fresh folder below `root` whose name contains `name`; removed with all that is in it.

    Raises:
        AccessDeniedError: `root` cannot be written to.
        DiskFullError: No room for even a folder.
    """

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_if_empty(root)

    try:
        with locked_folder(root, f"{_PREFIX}{name}-") as folder, stopping.at_hard_stop(remove):
            yield folder
    finally:
        _remove_if_empty(root)


def sweep(root: Path) -> int:
    """Remove the folders below `root` that audits killed by force have left; returns how many."""
    left = sweep_folders(root, _PREFIX)
    if left:
        _remove_if_empty(root)
    return left


def _remove_if_empty(root: Path) -> None:
    with suppress(OSError):  # another audit's folder is in it
        root.rmdir()
