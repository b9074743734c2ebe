"""How much of one checkpoint file may be copied to scratch, so that a few bytes cannot fill the disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from spectral_edge.checkpoints.raw_file import Bytes, RawFile, ScratchFile
from spectral_edge.errors import CheckpointFormatError

EXPANSION: Final = 32
"""Most bytes in scratch for each byte of the file. Weights hardly compress; deflate makes 1032 of one at worst."""

ALLOWED_AT_ONCE: Final = 64 * 2**20
"""Bytes that a file may come to whatever its own size: small models are mostly zeros when training begins."""


class CopyAllowance:
    """Counts what is copied out of `file`, up to :data:`EXPANSION` times its size and :data:`ALLOWED_AT_ONCE` more."""

    def __init__(self, file: RawFile) -> None:
        self._file = file
        self._limit = EXPANSION * file.size + ALLOWED_AT_ONCE
        self._left = self._limit

    def take(self, count: int, tensor: str) -> None:
        """Ask for `count` bytes more, for the tensor of that name.

        Raises:
            CheckpointFormatError: That is more than the file may come to.
        """
        self._left -= count
        if self._left < 0:
            raise CheckpointFormatError(
                f"its tensors would come to more than {self._limit} bytes when decompressed, "
                f"the limit for a file of {self._file.size}.",
                file=self._file.name,
                tensor=tensor,
                next_step="if the file is sound, save it without compression.",
            )


def append_all(scratch: ScratchFile, pieces: Iterable[bytes | Bytes]) -> int:
    """Write `pieces` one behind the other and return the offset where the first begins.

    Raises:
        DiskFullError: No room for them.
    """
    begin = None
    for piece in pieces:
        at = scratch.append(np.frombuffer(piece, dtype=np.uint8))
        begin = at if begin is None else begin
    return begin or 0
