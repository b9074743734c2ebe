"""What every checkpoint format offers: names, shapes, dtypes, and blocks of numbers.

A reader never executes anything that comes from the file, and gives any part of a tensor without loading the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of one tensor in a checkpoint."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_parameters(self) -> int:
        """Number of entries."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def read_dtype(self) -> torch.dtype:
        """The dtype that blocks come in: the file's own, but float32 for floats of one byte."""
        return self.dtype if self.dtype.itemsize > 1 else torch.float32


class Location(NamedTuple):
    """Where a tensor's row-major bytes lie together: in the open file `descriptor`, from byte `offset` on."""

    descriptor: int
    offset: int


class Span(NamedTuple):
    """Bytes `begin:end` of the file that was opened as `file`."""

    file: str
    begin: int
    end: int


class CheckpointReader(AbstractContextManager["CheckpointReader"], Protocol):
    """One open checkpoint.

    `tensors` maps each trainable tensor's name (prefixes of wrappers stripped) to its shape and dtype, floating point
    only, in a stable order. Closing releases the file.
    """

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Shapes and dtypes by name."""
        ...

    def read_into(self, name: str, start: int, stop: int, out: torch.Tensor) -> None:
        """Put entries `start:stop` of the flattened (row-major) tensor `name` into `out`; safe to call from threads.

        Args:
            name: One of `tensors`.
            start: First entry.
            stop: One behind the last entry.
            out: Shape (stop - start,), of the tensor's `read_dtype`, contiguous, in this machine's memory.

        Raises:
            CheckpointFormatError: The bytes are not there.
        """
        ...

    def read_block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """As `read_into`, in memory of its own: shape (stop - start,)."""
        ...

    def location(self, name: str) -> Location | None:
        """Where the bytes lie that `read_into` gives, so that many reads need no call each; valid until `close`.

        None where they lie in several places or change on the way.
        """
        ...

    def spans(self, name: str, start: int, stop: int) -> tuple[Span, ...] | None:
        """The bytes that entries `start:stop` of tensor `name` are made of; None where more than these are needed."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...
