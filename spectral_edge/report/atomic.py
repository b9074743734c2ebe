"""Writing a file whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from spectral_edge.errors import AccessDeniedError, DiskFullError, SpectralEdgeError, UsageError

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def write_atomically(content: str | bytes, output: Path) -> None:
    """Write `content`, text as UTF-8, to `output`, which afterwards holds either all of it or what it held before.

    Raises:
        UsageError: No file can have this path.
        AccessDeniedError: The file system refuses.
        DiskFullError: No room, or more than a file may hold.
    """
    if output.is_dir():
        raise UsageError(f"`output` must be a file, got the folder {output}.", next_step="add a file name.")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _named(error, output) from error


def _named(error: OSError, output: Path) -> SpectralEdgeError:
    what = f"The report cannot be written: {error.strerror}."
    here, left = str(output), "nothing new; what was there before is as it was"
    if error.errno in _NO_ROOM:
        return DiskFullError(what, file=here, left_behind=left, next_step="make room, or write it to another disk.")
    if error.errno in _REFUSED:
        return AccessDeniedError(what, file=here, left_behind=left, next_step="choose a folder you may write to.")
    return UsageError(what, file=here, left_behind=left, next_step="choose another path.")
