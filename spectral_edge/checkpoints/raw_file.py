"""Files read by position.

Checkpoints are not memory-mapped: a mapped file that is cut short while it is read kills the process (SIGBUS), and the
touched pages of thirty open checkpoints would count as this process's memory. Reading by position costs the same one
copy, and a missing byte is an error that can be reported.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from spectral_edge.checkpoints.protocol import Location
from spectral_edge.errors import (
    AccessDeniedError,
    CheckpointFormatError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    UsageError,
)

Bytes = NDArray[np.uint8]

# Opening a named pipe would wait for a writer that never comes; a regular file ignores O_NONBLOCK.
_READ_ONLY: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def file_error(error: OSError, name: str) -> SpectralEdgeError:
    """What the file system said about the file `name`, as one of this package's errors."""
    said = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFoundError("there is no such file.", file=name)
        case errno.EACCES | errno.EPERM:
            return AccessDeniedError(f"the file system refused access: {said}.", file=name)
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return DiskFullError(
                f"no room to write: {said}.", file=name, next_step="free space, or give another scratch folder."
            )
        case errno.EMFILE | errno.ENFILE:
            return UsageError(
                "too many files are open at once.", file=name, next_step="raise the limit: `ulimit -n 65536`."
            )
        case _:
            return CheckpointFormatError(f"the file cannot be read: {said}.", file=name)


class RawFile:
    """One open regular file, or a range of its bytes, read by position; safe to read from several threads.

    `size` is the number of its bytes, and `begin` where the first of them lies in the file on disk: 0 for a whole file.

    Args:
        descriptor: An open descriptor, owned by this object from now on.
        name: What messages call the file.

    Raises:
        CheckpointFormatError: Not a regular file.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name
        self.begin = 0
        status = os.fstat(descriptor)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise CheckpointFormatError("expected a regular file, got a folder, pipe or device.", file=name)

    @classmethod
    def open(cls, path: Path) -> RawFile:
        """Open the file at `path` for reading.

        Raises:
            NotFoundError: There is none.
            AccessDeniedError: It may not be read.
            CheckpointFormatError: Not a regular file.
        """
        try:
            descriptor = os.open(path, _READ_ONLY)
        except OSError as error:
            raise file_error(error, str(path)) from error
        return cls(descriptor, str(path))

    def part(self, offset: int, length: int, name: str | None = None) -> RawFile:
        """The bytes `offset:offset + length` as a file of its own, for archives inside of files.

        It reads through this file's descriptor and is closed with it; closing the part alone does nothing.

        Args:
            offset: Its first byte.
            length: Number of its bytes.
            name: What messages call it; None for this file's name.

        Raises:
            CheckpointFormatError: The file does not have these bytes.
        """
        if offset < 0 or not 0 <= length <= self.size - offset:
            raise CheckpointFormatError(
                f"truncated: got {self.size} bytes, expected {length} from byte {offset} on.", file=self.name
            )
        return _Part(self, offset, length, self.name if name is None else name)

    def read(self, offset: int, count: int) -> Bytes:
        """Bytes `offset:offset + count`: shape (count,), fresh memory.

        Raises:
            CheckpointFormatError: The file ends earlier, or is closed.
        """
        data = np.empty(count, dtype=np.uint8)
        self.read_into(offset, data)
        return data

    def read_into(self, offset: int, out: Bytes) -> None:
        """Bytes `offset:offset + len(out)` into `out`.

        Raises:
            CheckpointFormatError: The file ends earlier, or is closed.
        """
        done = 0
        while done < len(out):
            try:
                got = os.preadv(self._descriptor, [out[done:].data], offset + done)
            except OSError as error:
                raise file_error(error, self.name) from error
            if got == 0:
                raise CheckpointFormatError(
                    f"ends at byte {offset + done}, expected {len(out) - done} more; it had {self.size} when opened.",
                    file=self.name,
                )
            done += got

    def location(self, offset: int) -> Location:
        """Byte `offset` as the system knows it; the descriptor is -1, with which nothing can be read, once closed."""
        return Location(self._descriptor, offset)

    def write(self, data: Bytes, offset: int) -> None:
        """Put `data`, shape (n,), at `offset`.

        Raises:
            DiskFullError: No room for it.
        """
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self._descriptor, data[done:].data, offset + done)
            except OSError as error:
                raise file_error(error, self.name) from error

    def close(self) -> None:
        """Close the file and its parts; reading afterwards is an error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            # Never read through a number that the system may already have given to another file.
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Part(RawFile):
    """A range of the bytes of `whole`."""

    def __init__(self, whole: RawFile, offset: int, length: int, name: str) -> None:
        self._descriptor = -1  # it owns none: there is nothing to close, and nothing to write to
        self._whole = whole
        self._offset = offset
        self.name = name
        self.begin = whole.begin + offset
        self.size = length

    def read_into(self, offset: int, out: Bytes) -> None:
        """As a file's own, and no further than its end."""
        if not 0 <= offset <= self.size - len(out):
            raise CheckpointFormatError(
                f"ends at byte {self.size}, expected {len(out)} bytes from byte {offset} on.", file=self.name
            )
        self._whole.read_into(self._offset + offset, out)

    def location(self, offset: int) -> Location:
        """As the whole file's."""
        return self._whole.location(self._offset + offset)


class ScratchFile:
    """Room on disk for tensors that cannot be read where they lie.

    Nothing is created until something is written. The file has no name from the start (it is unlinked while open), so
    that it is gone when closed and also when the process is killed.

    Args:
        folder: Where to make it; None for the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: RawFile | None = None
        self._end = 0

    @property
    def file(self) -> RawFile:
        """The file itself.

        Raises:
            DiskFullError: No room for it.
            NotFoundError: The folder does not exist.
        """
        if self._file is None:
            try:
                with tempfile.TemporaryFile(dir=self._folder) as made:
                    self._file = RawFile(os.dup(made.fileno()), "scratch file")
            except OSError as error:
                raise file_error(error, f"scratch file in {self._folder or tempfile.gettempdir()}") from error
        return self._file

    def append(self, data: Bytes) -> int:
        """Write `data`, shape (n,), behind what is there and return the offset where it begins.

        Raises:
            DiskFullError: No room for it.
        """
        begin = self._end
        self.file.write(data, begin)
        self._end += len(data)
        return begin

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
