"""Tensors that lie as plain runs of bytes in open files, read block by block: the reader behind every format."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from spectral_edge.checkpoints.protocol import CheckpointReader, Location, Span, TensorInfo
from spectral_edge.checkpoints.raw_file import Bytes, RawFile
from spectral_edge.errors import CheckpointFormatError

Place = tuple[str, int, int]
"""File, address of the first entry, number of entries: two names with the same place are one tensor."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive entries of a flattened tensor, up to entry `stop`, that lie as plain bytes from `offset` on."""

    stop: int
    file: RawFile
    offset: int


@dataclass(frozen=True)
class StoredTensor:
    """Where the row-major bytes of one tensor lie: in one stretch, or in several one after the other.

    `place` is where the checkpoint itself keeps them, which differs from the stretches' for a copy in a scratch file.
    `rescale`, where there is one, is given values as they were read and the number of the first, and corrects them in
    place: for numbers kept with scales beside them.
    """

    info: TensorInfo
    stretches: tuple[Stretch, ...]
    place: Place
    rescale: Callable[[torch.Tensor, int], None] | None = None

    @classmethod
    def at(cls, info: TensorInfo, file: RawFile, offset: int, place: Place | None = None) -> StoredTensor:
        """A tensor whose bytes lie together from byte `offset` of `file` on."""
        count = info.n_parameters
        return cls(info, (Stretch(count, file, offset),), place or (file.name, offset, count))

    @property
    def file(self) -> RawFile:
        """The file that messages about this tensor name: that of its first entry."""
        return self.stretches[0].file

    def read_into(self, start: int, out: torch.Tensor) -> None:
        """Put entries `start:start + len(out)` into `out`, of the info's `read_dtype`.

        Raises:
            CheckpointFormatError: The file has lost bytes since it was opened.
        """
        if not len(out):  # torch cannot view an empty tensor as another dtype
            return
        dtype = self.info.dtype
        raw = out if out.dtype is dtype else torch.empty(len(out), dtype=dtype)
        _read_stretches(self.stretches, dtype.itemsize, start, raw.view(torch.uint8).numpy())
        if dtype.itemsize == 1:  # looking values up takes a fifth of the time of converting them
            np.take(_float32_values(dtype), raw.view(torch.uint8).numpy(), out=out.numpy(), mode="clip")
        elif raw is not out:
            out.copy_(raw)
        if self.rescale is not None:
            self.rescale(out, start)

    def location(self) -> Location | None:
        """Where the bytes of the whole tensor lie; None where they lie in several places or change on the way."""
        info = self.info
        if len(self.stretches) != 1 or info.dtype is not info.read_dtype or self.rescale is not None:
            return None
        file, offset = self.stretches[0].file, self.stretches[0].offset
        is_there = 0 <= offset <= file.size - info.n_parameters * info.dtype.itemsize
        return file.location(offset) if is_there else None  # `read_into` says what is missing

    def spans(self, start: int, stop: int) -> tuple[Span, ...] | None:
        """The bytes of entries `start:stop` in the files that were opened; None where others are needed beside them."""
        if self.rescale is not None:
            return None
        size, found, begin = self.info.dtype.itemsize, [], 0
        for stretch in self.stretches:
            first, last = max(start, begin), min(stop, stretch.stop)
            if first < last:
                at = stretch.file.begin + stretch.offset
                found.append(Span(stretch.file.name, at + (first - begin) * size, at + (last - begin) * size))
            begin = stretch.stop
        return tuple(found)


@dataclass(frozen=True)
class FileContents:
    """What one file of a checkpoint holds: all tensors' `names` as written, and the floating point `tensors`.

    `buffers` are the names of those that the file itself tells to be buffers.
    """

    names: frozenset[str]
    tensors: Mapping[str, StoredTensor]
    buffers: frozenset[str] = frozenset()


class BlockReader(CheckpointReader):
    """Reads blocks of `stored` tensors; memory does not grow with the size of the checkpoint.

    Args:
        stored: The tensors by name; their order is kept.
        resources: The open files; closed together with this reader.
    """

    def __init__(self, stored: Mapping[str, StoredTensor], resources: ExitStack) -> None:
        self._tensors = MappingProxyType({name: tensor.info for name, tensor in stored.items()})
        self._stored = dict(stored)
        self._resources = resources

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Shapes and dtypes by name, sorted by name."""
        return self._tensors

    def read_into(self, name: str, start: int, stop: int, out: torch.Tensor) -> None:
        """Put entries `start:stop` of the flattened (row-major) tensor `name` into `out`; safe to call from threads.

        Raises:
            CheckpointFormatError: No such tensor or entries, or the file has lost bytes since it was opened.
        """
        stored = self._stored.get(name)
        if stored is None:
            raise CheckpointFormatError("the checkpoint holds no such tensor.", tensor=name)
        info = stored.info
        if not 0 <= start <= stop <= info.n_parameters:
            raise CheckpointFormatError(
                f"got a request for entries {start}:{stop}, expected a range within 0:{info.n_parameters}.",
                file=stored.file.name,
                tensor=name,
            )
        stored.read_into(start, out)

    def read_block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """As `read_into`, in memory of its own: shape (stop - start,)."""
        info = self._tensors.get(name)
        out = torch.empty(max(0, stop - start), dtype=torch.float32 if info is None else info.read_dtype)
        self.read_into(name, start, stop, out)
        return out

    def location(self, name: str) -> Location | None:
        """Where the bytes of `name` lie; None where `read_into` has to gather or change them, or raises."""
        stored = self._stored.get(name)
        return None if stored is None else stored.location()

    def spans(self, name: str, start: int, stop: int) -> tuple[Span, ...] | None:
        """The bytes that entries `start:stop` of `name` are made of; None where more than these are needed.

        Only for tensors that are read where they lie: those that were copied to a scratch file name that.
        """
        return self._stored[name].spans(start, stop)

    def close(self) -> None:
        """Release the files; may be called twice."""
        self._resources.close()

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _float32_values(dtype: torch.dtype) -> NDArray[np.float32]:
    """The numbers that the 256 bytes stand for in a dtype of one byte: shape (256,)."""
    values: NDArray[np.float32] = torch.arange(256, dtype=torch.uint8).view(dtype).float().numpy()
    return values


def _read_stretches(stretches: tuple[Stretch, ...], itemsize: int, start: int, out: Bytes) -> None:
    """Fill `out` with the bytes of the entries from `start` on."""
    done, begin = 0, 0
    first = bisect_right(stretches, start, key=lambda stretch: stretch.stop)
    if first:
        begin = stretches[first - 1].stop
    for stretch in stretches[first:]:
        count = min(len(out) - done, (stretch.stop - max(begin, start)) * itemsize)
        offset = stretch.offset + (max(begin, start) - begin) * itemsize
        stretch.file.read_into(offset, out[done : done + count])
        done, begin = done + count, stretch.stop
        if done == len(out):
            return
