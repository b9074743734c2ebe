"""Tensors kept as chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.checkpoints import chunk_tiling
from spectral_edge.checkpoints.block_reader import StoredTensor
from spectral_edge.checkpoints.chunk_tiling import Box, Chunk, flaw_of_tiling, tensor_of_chunks
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A shape of up to four dimensions and a tiling of it by repeated cuts, not on a grid, in any order."""
    shape = draw(st.lists(st.integers(1, 6), max_size=4).map(tuple))
    boxes: list[Box] = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6)) if shape else 0):
        offsets, sizes = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        size = draw(st.integers(0, sizes[axis]))  # 0: a rank that holds nothing of the tensor
        boxes.append((offsets, (*sizes[:axis], size, *sizes[axis + 1 :])))
        moved = (*offsets[:axis], offsets[axis] + size, *offsets[axis + 1 :])
        boxes.append((moved, (*sizes[:axis], sizes[axis] - size, *sizes[axis + 1 :])))
    return shape, draw(st.permutations(boxes))


def _counted(shape: tuple[int, ...], boxes: list[Box]) -> np.ndarray:
    """How many boxes each entry is in: the plain way to check a tiling."""
    counts = np.zeros(shape, dtype=int)
    for offsets, sizes in boxes:
        counts[tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))] += 1
    return counts


@given(tilings())
def test_a_tiling_has_no_flaw(tiling: tuple[tuple[int, ...], list[Box]]) -> None:
    assert (_counted(*tiling) == 1).all()
    assert flaw_of_tiling(*tiling) is None


_shape = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@settings(max_examples=300)
@given(data=st.data())
def test_boxes_at_random_are_judged_as_counting_judges_them(data: st.DataObject) -> None:
    shape = data.draw(_shape)
    boxes = []
    for _ in range(data.draw(st.integers(1, 5))):
        ends = [sorted(data.draw(st.tuples(*[st.integers(0, extent)] * 2))) for extent in shape]
        boxes.append((tuple(a for a, _ in ends), tuple(b - a for a, b in ends)))
    assert (flaw_of_tiling(shape, boxes) is None) == bool((_counted(shape, boxes) == 1).all())


@pytest.mark.parametrize(
    ("shape", "boxes", "flaw"),
    [
        ((4,), [((0,), (3,))], "hold 3 entries of 4: they lack some"),
        ((4,), [((0,), (3,)), ((2,), (2,))], "hold 5 entries of 4: they overlap"),
        ((4,), [((0,), (3,)), ((2,), (1,))], "overlap and lack some"),
        ((4,), [((0,), (2,)), ((0,), (2,))], "overlap and lack some"),
        ((4,), [((0,), (2,)), ((3,), (2,))], r"offsets \(3,\) and sizes \(2,\) lies outside"),
        ((4,), [((-1,), (4,))], "lies outside"),
        ((4,), [((0,), (-4,))], "lies outside"),
        ((4,), [((0, 0), (4, 1))], "2 offsets and 2 sizes for 1 dimensions"),
        ((4,), [((0,), (4, 1))], "1 offsets and 2 sizes for 1 dimensions"),
        ((2,) * 5, [(index, (1,) * 5) for index in np.ndindex((2,) * 5)], "cut along 5 dimensions"),
        ((4,), [], "lack some"),
    ],
)
def test_a_flaw_is_told(shape: tuple[int, ...], boxes: list[Box], flaw: str) -> None:
    with pytest.raises(ValueError, match=flaw):
        raise ValueError(flaw_of_tiling(shape, boxes))


def test_ten_thousand_chunks_are_checked_at_once() -> None:
    """By pairs this would be 50 million comparisons."""
    boxes = [((row, column), (1, 1)) for row in range(100) for column in range(100)]
    assert flaw_of_tiling((100, 100), boxes) is None
    assert flaw_of_tiling((100, 100), [*boxes[:-1], boxes[0]]) is not None


@contextmanager
def _stored(tensor: torch.Tensor, boxes: list[Box]) -> Iterator[tuple[StoredTensor, ScratchFile]]:
    """`tensor` kept as chunks in one file, with a byte before each."""
    with TemporaryDirectory() as folder, ScratchFile(Path(folder)) as scratch:
        path, content, places = Path(folder, "chunks"), b"", []
        for offsets, sizes in boxes:
            part = tensor[tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))]
            places.append(len(content) + 1)
            content += b"x" + part.contiguous().reshape(-1).numpy().tobytes()
        path.write_bytes(content)
        with RawFile.open(path) as file:
            chunks = [Chunk(*box, file, at) for box, at in zip(boxes, places, strict=True)]
            yield tensor_of_chunks(TensorInfo(tuple(tensor.shape), tensor.dtype), chunks, scratch), scratch


def _read(stored: StoredTensor) -> torch.Tensor:
    begin, parts = 0, []
    for stretch in stored.stretches:
        count = (stretch.stop - begin) * stored.info.dtype.itemsize
        parts.append(stretch.file.read(stretch.offset, count))
        begin = stretch.stop
    return torch.from_numpy(np.concatenate(parts)).view(stored.info.dtype).reshape(stored.info.shape)


@settings(max_examples=150, deadline=None)
@given(
    tiling=tilings(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    shortest_run=st.sampled_from([1, 10**9]),
    slab=st.sampled_from([8, 50, 1 << 24]),
)
def test_chunks_make_the_tensor(
    tiling: tuple[tuple[int, ...], list[Box]], dtype: torch.dtype, shortest_run: int, slab: int
) -> None:
    shape, boxes = tiling
    tensor = torch.arange(math.prod(shape), dtype=dtype).reshape(shape)
    with (
        mock.patch.object(chunk_tiling, "_SHORTEST_RUN", shortest_run),
        mock.patch.object(chunk_tiling, "_SLAB", slab),
        _stored(tensor, boxes) as (stored, _),
    ):
        assert torch.equal(_read(stored), tensor)


ROWS: list[Box] = [((0, 0), (3, 4)), ((3, 0), (5, 4))]
COLUMNS: list[Box] = [((0, 0), (8, 1)), ((0, 1), (8, 3))]


def test_rows_are_read_in_place_and_columns_gathered() -> None:
    tensor = torch.arange(32.0).reshape(8, 4)
    with _stored(tensor, ROWS) as (stored, scratch):
        assert [stretch.stop for stretch in stored.stretches] == [12, 32]
        assert scratch.append(np.zeros(1, dtype=np.uint8)) == 0
        assert stored.place == (stored.file.name, 1, 32)
    with _stored(tensor, COLUMNS) as (stored, scratch):
        assert [stretch.file for stretch in stored.stretches] == [scratch.file]
        assert stored.place[0] != scratch.file.name
        assert torch.equal(_read(stored), tensor)


def test_columns_in_long_runs_are_read_in_place() -> None:
    tensor = torch.arange(2.0 * 40_000).reshape(2, 40_000)
    boxes: list[Box] = [((0, 0), (2, 20_000)), ((0, 20_000), (2, 20_000))]
    with _stored(tensor, boxes) as (stored, scratch):
        assert len(stored.stretches) == 4
        assert scratch.append(np.zeros(1, dtype=np.uint8)) == 0
        assert torch.equal(_read(stored), tensor)
