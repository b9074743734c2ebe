"""Tensors that a checkpoint keeps as rectangular chunks, as sharded training writes them, made into one.

Chunks along the first dimension are runs of the flattened tensor and are read where they lie, and so are all others
whose runs are long. A tensor in many short runs (sharded by columns) is gathered into a scratch file, since a block of
it would need thousands of reads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from spectral_edge.checkpoints.block_reader import Place, StoredTensor, Stretch
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import Bytes, RawFile, ScratchFile

_SHORTEST_RUN: Final = 1 << 16
"""Bytes of a run, on average, from which reading it by itself costs little."""

_SLAB: Final = 1 << 24
"""Bytes that are gathered at once."""

_MOST_CUT_DIMENSIONS: Final = 4
"""Checking a tiling takes 2^d corners a chunk; meshes cut a tensor along two dimensions, seldom three."""

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""A chunk's offsets within the tensor and its sizes, both by dimension."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a tensor: its place within the tensor, and the file and offset of its row-major bytes."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: RawFile
    at: int

    @property
    def n_entries(self) -> int:
        """Number of entries."""
        return math.prod(self.sizes)


@dataclass(frozen=True)
class _Run:
    """`count` consecutive entries of the flattened tensor from `start` on, and where their bytes lie."""

    start: int
    count: int
    file: RawFile
    at: int


def flaw_of_tiling(shape: tuple[int, ...], boxes: Sequence[Box]) -> str | None:
    """What is wrong with `boxes` as a tiling of a tensor of `shape`; None when each entry is in exactly one.

    The indicator function of a set of half-open boxes is told by the signed corners of the boxes, so the boxes tile the
    whole exactly when their corners add up to the whole's: no comparison of pairs, which for a hostile file would
    take hours.
    """
    for offsets, sizes in boxes:
        if not len(offsets) == len(sizes) == len(shape):
            return f"a chunk has {len(offsets)} offsets and {len(sizes)} sizes for {len(shape)} dimensions"
        if any(offset < 0 or size < 0 for offset, size in zip(offsets, sizes, strict=True)) or any(
            offset + size > extent for offset, size, extent in zip(offsets, sizes, shape, strict=True)
        ):
            return f"a chunk with offsets {offsets} and sizes {sizes} lies outside of it"
    held, expected = sum(math.prod(sizes) for _, sizes in boxes), math.prod(shape)
    if held != expected:
        return f"its chunks hold {held} entries of {expected}: they {'overlap' if held > expected else 'lack some'}"
    cut = [
        axis
        for axis, extent in enumerate(shape)
        if any(offsets[axis] or sizes[axis] != extent for offsets, sizes in boxes)
    ]
    if len(cut) > _MOST_CUT_DIMENSIONS:
        return f"it is cut along {len(cut)} dimensions, the most that is read is {_MOST_CUT_DIMENSIONS}"
    corners: Counter[tuple[int, ...]] = Counter()
    for offsets, sizes in boxes:
        _add_corners(corners, [(offsets[axis], offsets[axis] + sizes[axis]) for axis in cut], 1)
    _add_corners(corners, [(0, shape[axis]) for axis in cut], -1)
    return "its chunks overlap and lack some entries" if any(corners.values()) else None


def _add_corners(corners: Counter[tuple[int, ...]], spans: Sequence[tuple[int, int]], sign: int) -> None:
    for ends in product((0, 1), repeat=len(spans)):
        corner = tuple(span[end] for span, end in zip(spans, ends, strict=True))
        corners[corner] += sign * (-1) ** sum(ends)


def tensor_of_chunks(info: TensorInfo, chunks: Sequence[Chunk], scratch: ScratchFile) -> StoredTensor:
    """The tensor that `chunks` make up; they must tile it (:func:`flaw_of_tiling`), and it must have entries.

    Raises:
        CheckpointFormatError: A chunk's bytes are not there.
        DiskFullError: No room in `scratch` for a tensor that must be gathered.
    """
    kept = [chunk for chunk in chunks if chunk.n_entries]
    first = min(kept, key=lambda chunk: chunk.offsets)
    place: Place = (first.file.name, first.file.begin + first.at, info.n_parameters)
    n_runs = sum(math.prod(chunk.sizes[: _run_axis(info.shape, chunk)]) for chunk in kept)
    if n_runs > len(kept) and info.n_parameters * info.dtype.itemsize < n_runs * _SHORTEST_RUN:
        return StoredTensor.at(info, scratch.file, _gathered(info, kept, scratch), place)
    runs = sorted((run for chunk in kept for run in _runs(info, chunk)), key=lambda run: run.start)
    return StoredTensor(info, tuple(Stretch(run.start + run.count, run.file, run.at) for run in runs), place)


def _run_axis(shape: tuple[int, ...], chunk: Chunk) -> int:
    """The last dimension along which the chunk is not the whole tensor: from it on its entries are one run."""
    return max((axis for axis, extent in enumerate(shape) if chunk.sizes[axis] != extent), default=0)


def _runs(info: TensorInfo, chunk: Chunk) -> Iterator[_Run]:
    axis = _run_axis(info.shape, chunk)
    count = math.prod(chunk.sizes[axis:])
    steps = [math.prod(info.shape[dimension + 1 :]) for dimension in range(len(info.shape))]
    begin = sum(offset * step for offset, step in zip(chunk.offsets, steps, strict=True))
    for number, index in enumerate(np.ndindex(chunk.sizes[:axis])):
        start = begin + sum(place * step for place, step in zip(index, steps[:axis], strict=True))
        yield _Run(start, count, chunk.file, chunk.at + number * count * info.dtype.itemsize)


def _gathered(info: TensorInfo, chunks: Sequence[Chunk], scratch: ScratchFile) -> int:
    """Write the whole tensor to `scratch`, a slab at a time, and return the offset where it begins."""
    begin, *_ = [scratch.append(slab.reshape(-1)) for slab in _slabs(info, chunks)]
    return begin


def _slabs(info: TensorInfo, chunks: Sequence[Chunk]) -> Iterator[Bytes]:
    """The tensor's bytes in order, in parts of limited size: some rows along one dimension, all of those behind it."""
    shape, width = info.shape, info.dtype.itemsize
    axis = next(axis for axis in range(len(shape)) if math.prod(shape[axis + 1 :]) * width <= _SLAB)
    inner = shape[axis + 1 :]
    rows = _SLAB // (math.prod(inner) * width)
    for outer in np.ndindex(shape[:axis]):
        for first in range(0, shape[axis], rows):
            slab = np.empty((min(rows, shape[axis] - first), *inner, width), dtype=np.uint8)
            for chunk in chunks:
                _place(chunk, outer, first, slab)
            yield slab


def _place(chunk: Chunk, outer: tuple[int, ...], first: int, slab: Bytes) -> None:
    """Put into `slab`, which is rows `first` on of the tensor's part at `outer`, what `chunk` has of it."""
    axis = len(outer)
    begin = max(first, chunk.offsets[axis])
    end = min(first + len(slab), chunk.offsets[axis] + chunk.sizes[axis])
    within = [index - offset for index, offset in zip(outer, chunk.offsets, strict=False)]
    if begin >= end or not all(0 <= index < size for index, size in zip(within, chunk.sizes, strict=False)):
        return
    before = 0
    for index, size in zip((*within, begin - chunk.offsets[axis]), chunk.sizes, strict=False):
        before = before * size + index
    part = (end - begin, *chunk.sizes[axis + 1 :], slab.shape[-1])
    row = math.prod(part[1:])
    held = chunk.file.read(chunk.at + before * row, math.prod(part)).reshape(part)
    behind = zip(chunk.offsets[axis + 1 :], chunk.sizes[axis + 1 :], strict=True)
    slab[(slice(begin - first, end - first), *(slice(offset, offset + size) for offset, size in behind))] = held
