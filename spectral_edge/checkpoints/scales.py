"""Floats of one byte with their scales: what a checkpoint keeps of them, turned back into the numbers meant.

A format for training or serving in float8 divides a tensor by a scale, so that its largest entry fits, and keeps the
scale beside it; the number meant is the product of both. Known, for a tensor `layer.weight`:

- `layer.weight_scale_inv`: DeepSeek-V3 and Transformer Engine, whose name for what is multiplied is "inverse scale";
- `layer.weight_scale`: compressed-tensors (vLLM, llm-compressor) and FBGEMM.

A scale holds for the whole tensor, for each row, or for each block. Blocks are of 128 entries a side where the scale's
shape allows it (DeepSeek's), else the tensor's extent divided by the scale's. A tensor without a scale is taken as it
is. Not read: torchao's, which are objects of classes of its own, and microscaling formats (MX, NVFP4), whose scales are
exponents alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from spectral_edge.checkpoints.block_reader import StoredTensor
from spectral_edge.errors import CheckpointFormatError

_ENDINGS: Final = ("_scale_inv", "_scale")
_OF_ACTIVATIONS: Final = ("input_scale", "input_scale_ub", "output_scale", "activation_scale")
"""Kept beside a tensor for what it is multiplied with: no parameters."""

_BLOCK: Final = 128

Values = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Scale:
    """The scale of a tensor of `shape`: one entry of `stored` for each block of `blocks` entries a side.

    Rows are what is left of the shape when its last axis, the columns, is taken off.
    """

    stored: StoredTensor
    shape: tuple[int, ...]
    blocks: tuple[int, ...]

    def __call__(self, values: torch.Tensor, start: int) -> None:
        """Multiply `values`, float32 entries `start:start + len(values)`, by their scales, which are not spread out."""
        columns, done, entries = self.shape[-1], 0, values.numpy()
        while done < len(entries):
            row, column = divmod(start + done, columns)
            n_rows = 0 if column else (len(entries) - done) // columns
            count = n_rows * columns or min(columns - column, len(entries) - done)
            part = entries[done : done + count]
            if n_rows:
                self._scale_rows(part.reshape(n_rows, columns), row)
            else:
                self._scale_columns(part, row, column)
            done += count

    def _scale_rows(self, values: Values, row: int) -> None:
        """Whole rows from `row` on: shape (rows, columns)."""
        block, columns = self.blocks[-1], self.shape[-1]
        across = -(-columns // block)
        of_rows = self._places(np.arange(row, row + len(values)))
        first, last = int(of_rows[0]), int(of_rows[-1])
        scales = self._read(first * across, (last + 1) * across).reshape(-1, across)[of_rows - first]
        whole = columns // block
        blocks = as_strided(values, (len(values), whole, block), (4 * columns, 4 * block, 4))
        blocks *= scales[:, :whole, None]
        values[:, whole * block :] *= scales[:, whole:]

    def _scale_columns(self, values: Values, row: int, column: int) -> None:
        """A part of one row, from `column` on: shape (entries,)."""
        block = self.blocks[-1]
        begin = int(self._places(np.array([row]))[0]) * -(-self.shape[-1] // block)
        scales = self._read(begin + column // block, begin + (column + len(values) - 1) // block + 1)
        to_edge = min(len(values), block - column % block)
        values[:to_edge] *= scales[0]
        whole = (len(values) - to_edge) // block
        blocks = values[to_edge : to_edge + whole * block].reshape(whole, block)
        blocks *= scales[1 : 1 + whole, None]
        values[to_edge + whole * block :] *= scales[1 + whole :]

    def _places(self, rows: Rows) -> Rows:
        """The row of the scale for each of `rows`; never decreasing when they are not."""
        places, stride = np.zeros_like(rows), 1
        for extent, block in zip(reversed(self.shape[:-1]), reversed(self.blocks[:-1]), strict=True):
            places += rows % extent // block * stride
            rows = rows // extent
            stride *= -(-extent // block)
        return places

    def _read(self, start: int, stop: int) -> Values:
        scales = torch.empty(stop - start, dtype=self.stored.info.read_dtype)
        self.stored.read_into(start, scales)
        return scales.float().numpy()


def with_scales(tensors: Mapping[str, StoredTensor], names: Iterable[str]) -> dict[str, StoredTensor]:
    """`tensors` whose floats of one byte come multiplied by their scales, without these scales.

    Args:
        tensors: A checkpoint's floating point tensors by name, of all its files.
        names: The names of all its tensors.

    Raises:
        CheckpointFormatError: A scale of a shape that fits no blocks, or of numbers that cannot be read, or two scales.
    """
    known = frozenset(names)
    scaled = dict(tensors)
    beside: set[str] = set()
    for name, tensor in tensors.items():
        if tensor.info.dtype.itemsize > 1:
            continue
        found = [name + ending for ending in _ENDINGS if name + ending in known]
        if len(found) > 1:
            raise CheckpointFormatError(
                f"it has two scales, {found[0]!a} and {found[1]!a}.", file=tensor.file.name, tensor=name
            )
        layer = name.rpartition(".")[0]
        beside.update(found, (f"{layer}.{ending}" if layer else ending for ending in _OF_ACTIVATIONS))
        if found:
            scaled[name] = replace(tensor, rescale=_scale(name, tensor, found[0], tensors.get(found[0])))
    return {name: tensor for name, tensor in scaled.items() if name not in beside}


def _scale(name: str, tensor: StoredTensor, scale_name: str, scale: StoredTensor | None) -> _Scale | None:
    if scale is None or scale.info.dtype.itemsize == 1:
        raise CheckpointFormatError(
            f"its scale {scale_name!a} is not of float32, bfloat16, float16 or float64: a microscaling format.",
            file=tensor.file.name,
            tensor=name,
            next_step="save the weights in bfloat16 or float32.",
        )
    shape = tensor.info.shape or (1,)
    if not tensor.info.n_parameters:
        return None
    blocks = _blocks(shape, scale.info.shape)
    if blocks is None:
        raise CheckpointFormatError(
            f"got a scale of shape {scale.info.shape} for a tensor of shape {shape}, expected one number, one for each "
            f"row, or one for each block.",
            file=scale.file.name,
            tensor=scale_name,
        )
    return _Scale(scale, shape, blocks)


def _blocks(shape: tuple[int, ...], counts: tuple[int, ...]) -> tuple[int, ...] | None:
    """Entries of a block along each axis of `shape`, given how many scales there are along each; None: none fit."""
    if math.prod(counts) == 1:
        return shape
    if len(counts) == 1 and counts[0] == shape[0]:
        counts = (*counts, *[1] * (len(shape) - 1))
    if len(counts) != len(shape):
        return None
    sides = [_side(extent, count) for extent, count in zip(shape, counts, strict=True)]
    return tuple(sides) if all(sides) else None


def _side(extent: int, count: int) -> int:
    """Entries of a block along an axis of `extent` entries and `count` scales; 0 when none fits."""
    if count == -(-extent // _BLOCK) and count > 1:
        return _BLOCK
    return extent // count if count and extent % count == 0 else 0
