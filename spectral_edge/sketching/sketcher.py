"""The sketch of a model: one count sketch for each cell of its parameters (theory 2 and 8).

Sketches are linear, so the sketch of an update is the difference of the sketches of two states, and sketches of parts
(tensors, shards, hosts) add up to that of the whole. Cells are sketched apart: a group's inner product is then the sum
over its cells, and carries no error from products of one cell's parameters with another's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

from spectral_edge.band import Matrix
from spectral_edge.errors import UsageError
from spectral_edge.groups import CATEGORIES, Cell, cells
from spectral_edge.sketching.signs import Key, add_signed, add_signed_on_device, key_of

DEFAULT_SIZE: Final = 1024
"""Numbers kept of each cell. The standard error of a singular value is then 2.2 %, of a ratio of two 3.1 %
(docs/recorder.md)."""

SMALLEST_SIZE: Final = 10
LARGEST_SIZE: Final = 1 << 20

_ON_HOST: Final = 1 << 20
"""Parameters copied at a time where their type or device is not one that the compiled loop reads."""


class Piece(NamedTuple):
    """Consecutive entries of a tensor, as one process holds them.

    Attributes:
        name: The tensor's name.
        first: Index of the first of them in the whole tensor, read row by row.
        values: The entries; any shape, floating point.
    """

    name: str
    first: int
    values: torch.Tensor


@dataclass(frozen=True)
class CellSketch:
    """How one cell is sketched.

    Attributes:
        cell: Category and layer.
        n_parameters: P, its parameters.
        size: Numbers kept of them: at most P, and with P the products are exact.
        rounding_eps: Largest relative rounding error of its parameters' types; 0 where all are float32 or wider.
    """

    cell: Cell
    n_parameters: int
    size: int
    rounding_eps: float = 0.0


class Sketcher:
    """The sketch of models with certain tensors. It stores no matrix: the map follows from seed and names.

    Args:
        tensors: Entries of each tensor by name, all of them whole, whatever part of them this process holds.
        size: Numbers to keep of each cell; at least 10 W for windows of W updates.
        sizes: Other sizes for some categories (`attention`, `mlp`, ...).
        by_layer: Whether layers are sketched apart. Without, a record is smaller and there are no groups `layer.N`.
        seed: Chooses the map.
        dtypes: Type of each tensor, for the share of rounding in updates; float32 where none is told.

    Raises:
        UsageError: A size out of range, an unknown category, or no tensor.
    """

    def __init__(
        self,
        tensors: Mapping[str, int],
        size: int = DEFAULT_SIZE,
        *,
        sizes: Mapping[str, int] | None = None,
        by_layer: bool = True,
        seed: int = 0,
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        chosen = dict.fromkeys(CATEGORIES, size) | dict(sizes or {})
        _check_sizes(tensors, chosen)
        of_tensor = {
            name: cell if by_layer else Cell(cell.category, "") for name, cell in cells(sorted(tensors)).items()
        }
        self._place: dict[str, tuple[int, int]] = {}
        counts: dict[Cell, int] = {}
        rounding: dict[Cell, float] = {}
        in_order = sorted(set(of_tensor.values()))
        for name, cell in of_tensor.items():
            self._place[name] = (in_order.index(cell), counts.get(cell, 0))
            counts[cell] = counts.get(cell, 0) + tensors[name]
            rounding[cell] = max(rounding.get(cell, 0.0), _rounding_eps((dtypes or {}).get(name, torch.float32)))
        self.cells = tuple(
            CellSketch(cell, counts[cell], min(chosen[cell.category], counts[cell]), rounding[cell])
            for cell in in_order
        )
        self.seed = seed
        self.layout = hashlib.sha256(repr(sorted(tensors.items())).encode()).hexdigest()
        self._keys: list[Key] = [key_of(seed, *one.cell) for one in self.cells]
        self._starts = np.cumsum([0, *(one.size for one in self.cells)])

    @property
    def numbers(self) -> int:
        """Numbers in the sketch of a model."""
        return int(self._starts[-1])

    def sketch(self, pieces: Iterable[Piece]) -> Matrix:
        """The sketch of `pieces`: shape (numbers,), float64, in the parameters' unit.

        Products and sums are float64 whatever the parameters' type: the difference of two sketches of a model is
        smaller than they are by as much as an update is smaller than the model.
        """
        sums = np.zeros(self.numbers)
        for piece in pieces:
            index, place = self._place[piece.name]
            part = sums[self._starts[index] : self._starts[index + 1]]
            _add(piece.values.detach().reshape(-1), place + piece.first, self._keys[index], part)
        return sums


def relative_error(size: int, equal: int = 1) -> float:
    """Standard error of a singular value over the value, for a sketch of `size` numbers: sqrt((m + 1) / size) / 2.

    sigma^2 is the squared norm of the window's updates combined by u, whose sketch has a relative variance of 2 / size;
    half of that standard deviation is sigma's (m = 1). Of m singular values that lie closer together than their errors
    the sketch gives the eigenvalues of a Wishart matrix, which repel each other: they spread by (m + 1) / size.

    Args:
        size: Numbers that are kept.
        equal: m, how many singular values lie together.
    """
    return math.sqrt((equal + 1) / size) / 2


def variance(a: Matrix, b: Matrix, size: int) -> float:
    """Variance of the inner product of the sketches of `a` and `b`, both of shape (P,), over seeds; exact.

    (|a|^2 |b|^2 + <a, b>^2 - the same summed over rows) / size: only entries of different rows can meet in a bucket,
    each two with a chance of 1 / size, and the signs leave of their products what is squared.
    """
    rows = -(-len(a) // size)
    padded = np.zeros((2, rows * size))
    padded[:, : len(a)] = a, b
    by_row = padded.reshape(2, rows, size)
    squares = (by_row**2).sum(axis=2)
    products = (by_row[0] * by_row[1]).sum(axis=1)
    all_pairs = squares[0].sum() * squares[1].sum() + products.sum() ** 2
    return float(all_pairs - (squares[0] * squares[1] + products**2).sum()) / size


def _add(values: torch.Tensor, first: int, key: Key, sums: Matrix) -> None:
    if values.device.type == "cuda":
        on_device = torch.zeros(len(sums), dtype=torch.float64, device=values.device)
        add_signed_on_device(values, first, key, on_device)
        sums += on_device.cpu().numpy()
    elif values.device.type == "cpu" and values.dtype in {torch.float32, torch.float64}:
        add_signed(values.numpy(), first, key, sums)
    else:
        for start in range(0, len(values), _ON_HOST):
            block = values[start : start + _ON_HOST].cpu().double().numpy()
            add_signed(block, first + start, key, sums)


def _rounding_eps(dtype: torch.dtype) -> float:
    """As for checkpoints (docs/precision.md): half the spacing of numbers above 1, for types narrower than float32."""
    return torch.finfo(dtype).eps / 2 if dtype.itemsize < torch.float32.itemsize else 0.0


def _check_sizes(tensors: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    if not tensors:
        raise UsageError("the model has no floating-point parameter, so there is nothing to sketch.")
    if unknown := sorted(set(sizes) - set(CATEGORIES)):
        raise UsageError(f"`sizes` must name categories ({', '.join(CATEGORIES)}), got {', '.join(unknown)}.")
    for category, size in sizes.items():
        if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
            raise UsageError(
                f"a sketch must keep {SMALLEST_SIZE} to {LARGEST_SIZE} numbers, got {size} for {category}."
            )
