"""Errors of the operating system in our words, for every tracker that touches files."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from spectral_edge.errors import (
    AccessDeniedError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    TrackerUnavailableError,
    UsageError,
)

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_BAD_NAME: Final = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ELOOP})


def from_os_error(error: OSError, *, run: str | None = None, file: str | None = None) -> SpectralEdgeError:
    """The error of our tree that tells what `error` means; `file` defaults to the one that `error` names."""
    where = file or (None if error.filename is None else str(error.filename))
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return no_room(reason, run=run, file=where)
    if error.errno in _NOT_ALLOWED:
        return AccessDeniedError(f"{reason}.", run=run, file=where, next_step="check the owner and mode of the folder.")
    if error.errno in _NOT_THERE:
        return NotFoundError(f"{reason}.", run=run, file=where)
    if error.errno in _BAD_NAME:
        return UsageError(f"{reason}.", run=run, file=where)
    return TrackerUnavailableError(f"the operating system answered: {reason}.", run=run, file=where)


def no_room(reason: str, *, run: str | None = None, file: str | None = None) -> DiskFullError:
    """The disk, a quota or a size limit leaves no room."""
    return DiskFullError(f"{reason}.", run=run, file=file, next_step="free some space and start the same audit again.")


def says_no_room(text: str) -> bool:
    """Whether `text`, a message of a library that swallowed the error itself, tells of a full disk."""
    return any(f"[Errno {number}]" in text for number in _NO_ROOM)


@contextmanager
def file_errors(*, run: str | None = None, file: str | None = None) -> Iterator[None]:
    """Turn errors of the operating system inside the block into ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SpectralEdgeError):
            raise
        raise from_os_error(error, run=run, file=file) from error
