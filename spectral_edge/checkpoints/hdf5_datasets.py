"""The datasets of an HDF5 file as tensors: where their entries lie, or a copy where they are cut in chunks.

Contiguous and compact datasets are read in place. Chunked ones, compressed by gzip or not, are put together in scratch.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import torch

from spectral_edge.checkpoints.block_reader import StoredTensor
from spectral_edge.checkpoints.copies import CopyAllowance, append_all
from spectral_edge.checkpoints.hdf5_objects import (
    ATTRIBUTE,
    DATASPACE,
    DATATYPE,
    EXTERNAL_FILES,
    FILTERS,
    LAYOUT,
    UNDEFINED,
    Hdf5File,
    Message,
    tree_leaves,
)
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import Bytes, ScratchFile
from spectral_edge.errors import CheckpointFormatError

_DIMENSIONS: Final = 32

_SLAB: Final = 128 * 2**20
"""Bytes of chunks that are put together in memory: those that share their first indices."""

_FLOAT: Final = 1
_OPAQUE: Final = 5
_COMPACT, _CONTIGUOUS, _CHUNKED = range(3)
_DEFLATE: Final = 1
_SHUFFLE: Final = 2


def _float_type(size: int, exponent: tuple[int, int], mantissa: int, bias: int) -> bytes:
    """The datatype message of little-endian IEEE numbers: bits of exponent (place, count) and mantissa (count)."""
    sign = 8 * size - 1
    return struct.pack("<4BIHH4BI", 0x11, 0x20, sign, 0, size, 0, 8 * size, *exponent, 0, mantissa, bias)


_FLOATING: Final[Mapping[bytes, torch.dtype]] = {
    _float_type(8, (52, 11), 52, 1023): torch.float64,
    _float_type(4, (23, 8), 23, 127): torch.float32,
    _float_type(2, (10, 5), 10, 15): torch.float16,
    _float_type(2, (7, 8), 7, 127): torch.bfloat16,
}
_BFLOAT16_MARK: Final = b"dtype\0"
"""Keras keeps bfloat16 as opaque bytes, and gives such datasets alone an attribute of this name."""


@dataclass(frozen=True)
class Dataset:
    """One dataset of floating point numbers, before its entries are looked for."""

    path: str
    info: TensorInfo
    messages: Sequence[Message]

    @property
    def n_bytes(self) -> int:
        """Bytes of its entries."""
        return self.info.n_parameters * self.info.dtype.itemsize


def floating_dataset(file: Hdf5File, path: str, messages: Sequence[Message]) -> Dataset | None:
    """The dataset with these header messages; None when it holds no entries, or no floating point numbers.

    Raises:
        CheckpointFormatError: Damaged, kept outside of the file, or numbers of a type that cannot be read.
    """
    if _find(messages, EXTERNAL_FILES) is not None:
        raise file.error("its entries are kept in another file, which is not followed", path)
    dtype = _dtype(file, path, messages)
    shape = _shape(file, path, messages)
    return None if dtype is None or 0 in shape else Dataset(path, TensorInfo(shape, dtype), messages)


def stored_dataset(file: Hdf5File, dataset: Dataset, scratch: ScratchFile, allowance: CopyAllowance) -> StoredTensor:
    """Where the entries of `dataset` lie; chunked ones are copied to `scratch` first.

    Raises:
        CheckpointFormatError: Damaged or truncated, a layout or filter that cannot be read, or too much to copy.
        DiskFullError: No room for the copy.
    """
    layout = _required(file, dataset.path, dataset.messages, LAYOUT)
    version, kind = struct.unpack_from("<BB", layout.data)
    if version != 3 or kind > _CHUNKED:
        file.newer(f"version {version} of HDF5's layouts, of kind {kind}", dataset.path)
    count = dataset.info.n_parameters
    if kind == _CHUNKED:
        tree = int.from_bytes(layout.data[3:11], "little")
        begin = append_all(scratch, Chunks(file, dataset, allowance).row_major())
        return StoredTensor.at(dataset.info, scratch.file, begin, (file.name, file.begin + tree, count))
    if kind == _CONTIGUOUS:
        address, size = struct.unpack_from("<QQ", layout.data, 2)
    else:
        address, size = layout.address + 4, int.from_bytes(layout.data[2:4], "little")
    if address == UNDEFINED:
        raise file.error("its entries were never written", dataset.path)
    if size != dataset.n_bytes:
        raise file.error(f"got {size} bytes, expected {dataset.n_bytes} for its shape", dataset.path)
    if address + size > file.size:
        raise file.error(f"truncated: it runs past the end at {file.size}", dataset.path)
    return StoredTensor.at(dataset.info, file.file, file.begin + address, (file.name, file.begin + address, count))


def _find(messages: Sequence[Message], kind: int) -> Message | None:
    return next((message for message in messages if message.kind == kind), None)


def _required(file: Hdf5File, path: str, messages: Sequence[Message], kind: int) -> Message:
    found = _find(messages, kind)
    if found is None:
        raise file.error(f"damaged: its header lacks message {kind}", path)
    if found.shared:
        raise file.error("its type is kept apart from it, which Keras never does", path)
    return found


def _shape(file: Hdf5File, path: str, messages: Sequence[Message]) -> tuple[int, ...]:
    data = _required(file, path, messages, DATASPACE).data
    version, rank, _, kind = struct.unpack_from("<4B", data)
    if version not in {1, 2} or rank > _DIMENSIONS:
        raise file.error("damaged: no shape in its header", path)
    if version == 2 and kind == 2:  # a dataset without a shape has no entries
        return (0,)
    return struct.unpack_from(f"<{rank}Q", data, 8 if version == 1 else 4)


def _dtype(file: Hdf5File, path: str, messages: Sequence[Message]) -> torch.dtype | None:
    data = _required(file, path, messages, DATATYPE).data
    kind, size = struct.unpack_from("<B3xI", data)
    if kind & 15 == _FLOAT:
        dtype = _FLOATING.get(bytes([0x11]) + data[1:20])
        if dtype is None:
            raise file.error("got floating point numbers of an unusual type, expected little-endian IEEE ones", path)
        return dtype
    if kind & 15 == _OPAQUE and size <= 2:
        marked = any(_BFLOAT16_MARK in message.data[:32] for message in messages if message.kind == ATTRIBUTE)
        if size == 2 and marked:
            return torch.bfloat16
        raise file.error(f"{size} bytes an entry, and nothing tells which numbers they are", path)
    return None


class Chunks:
    """The chunks of one dataset.

    Raises:
        CheckpointFormatError: They do not tile the dataset, are compressed by another filter than gzip, or are so wide
            that putting them together takes too much memory.
    """

    def __init__(self, file: Hdf5File, dataset: Dataset, allowance: CopyAllowance) -> None:
        self._file = file
        self._dataset = dataset
        self._itemsize = dataset.info.dtype.itemsize
        layout = _required(file, dataset.path, dataset.messages, LAYOUT).data
        (rank,) = struct.unpack_from("<2xB", layout)
        tree, *sides = struct.unpack_from(f"<3xQ{rank}I", layout)  # the last side is an entry's bytes
        if len(sides) != len(dataset.info.shape) + 1 or sides[-1] != self._itemsize or 0 in sides or len(sides) < 2:
            raise self._error("damaged: its chunks have another shape than it has")
        self._extents = tuple(sides[:-1])
        self._chunk_bytes = math.prod(sides)
        grid = [-(-whole // part) for whole, part in zip(dataset.info.shape, self._extents, strict=True)]
        slab = self._chunk_bytes * math.prod(grid[1:])
        if slab > _SLAB:
            raise self._error(f"its chunks make {slab} bytes side by side, the limit is {_SLAB}: save it unchunked")
        allowance.take(self._chunk_bytes * math.prod(grid), dataset.path)
        self._filters = self._pipeline()
        self._chunks = self._index(tree, grid)

    def row_major(self) -> Iterator[Bytes]:
        """The dataset's bytes, chunks with the same first indices at a time."""
        shape, extents = self._dataset.info.shape, self._extents
        slab = np.empty((extents[0], *shape[1:]), dtype=f"u{self._itemsize}")
        for first, corners in groupby(sorted(self._chunks), key=lambda corner: corner[0]):
            for corner in corners:
                chunk = self._chunk(corner)
                inside = [slice(0, end - at) for at, end in zip(corner, shape, strict=True)]
                goes = [slice(at, at + extent) for at, extent in zip(corner[1:], extents[1:], strict=True)]
                part = chunk[tuple(inside)]
                slab[(slice(0, len(part)), *goes)] = part
            yield slab[: shape[0] - first].reshape(-1).view(np.uint8)

    def _index(self, tree: int, grid: list[int]) -> dict[tuple[int, ...], tuple[int, int, int]]:
        """Address, stored bytes and skipped filters of each chunk by its corner."""
        key = struct.Struct(f"<II{len(grid) + 1}QQ")
        found: dict[tuple[int, ...], tuple[int, int, int]] = {}
        for entry in tree_leaves(self._file, tree, 1, key.size, set()):
            size, skipped, *corner, _, address = key.unpack(entry)
            found[tuple(corner)] = (address, size, skipped)
            if size > 2 * self._chunk_bytes + 1024:
                raise self._error("damaged: a chunk takes more bytes compressed than not")
        aligned = all(
            at % extent == 0 and at < whole
            for corner in found
            for at, extent, whole in zip(corner, self._extents, self._dataset.info.shape, strict=True)
        )
        if not aligned or len(found) != math.prod(grid):
            raise self._error(f"got {len(found)} chunks, expected {math.prod(grid)} that tile it")
        return found

    def _pipeline(self) -> list[int]:
        """The filters' numbers, in the order in which they were applied."""
        message = _find(self._dataset.messages, FILTERS)
        if message is None:
            return []
        version, count = struct.unpack_from("<BB", message.data)
        if version != 1:
            self._file.newer(f"version {version} of HDF5's filters", self._dataset.path)
        filters, at = [], 8
        for _ in range(count):
            number, name_length, _, n_values = struct.unpack_from("<4H", message.data, at)
            at += 8 + -(-name_length // 8) * 8 + 4 * (n_values + n_values % 2)
            filters.append(number)
        if not set(filters) <= {_DEFLATE, _SHUFFLE}:
            raise self._error(f"compressed by HDF5's filters {filters}, expected gzip or none: save it uncompressed")
        return filters

    def _chunk(self, corner: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]:
        address, size, skipped = self._chunks[corner]
        data = self._file.read_chunk(address, size)
        for place, number in reversed(list(enumerate(self._filters))):
            if not skipped >> place & 1:
                data = self._inflated(data) if number == _DEFLATE else self._unshuffled(data)
        if len(data) != self._chunk_bytes:
            raise self._error(f"damaged: a chunk of {len(data)} bytes, expected {self._chunk_bytes}")
        return np.frombuffer(data, dtype=f"u{self._itemsize}").reshape(self._extents)

    def _inflated(self, data: bytes) -> bytes:
        inflater = zlib.decompressobj()
        try:
            return inflater.decompress(data, self._chunk_bytes + 1)
        except zlib.error as error:
            raise self._error(f"damaged: {error}") from error

    def _unshuffled(self, data: bytes) -> bytes:
        if len(data) % self._itemsize:
            raise self._error("damaged: a chunk of a broken number of entries")
        return np.frombuffer(data, dtype=np.uint8).reshape(self._itemsize, -1).T.tobytes()

    def _error(self, what: str) -> CheckpointFormatError:
        return self._file.error(what, self._dataset.path)
