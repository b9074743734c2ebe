"""Reading blocks of all checkpoints side by side, and the sums over them of products of updates (theory 2)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from spectral_edge import interruption
from spectral_edge.band import Matrix
from spectral_edge.blocks import Block, Piece, in_memory
from spectral_edge.checkpoints import CheckpointReader, Location
from spectral_edge.errors import NonFiniteError
from spectral_edge.kernels import COLUMNS, add_products, padded, read_rows

MEMORY: Final = 16 * 2**20
"""Bytes for the blocks that one thread works on, whatever the number and size of checkpoints."""

_MOST_THREADS: Final = 16
"""More do not help: the memory's bandwidth is used up by then."""

_LONGEST_ROW: Final = 1 << 18
_SHORTEST_ROW: Final = 1 << 15

_PADDING: Final = 32
"""Entries between rows. Without it all rows of a block of 2^n entries would compete for the same lines of the cache."""

# Rounding to nearest leaves an error that is uniform within half a unit in the last place, so its standard deviation
# is eps |theta| / sqrt(3), with eps half the spacing of numbers just above 1. Wider types are what training itself
# computed in: what they cannot hold never was.
_ROUNDING_EPS: Final[Mapping[torch.dtype, float]] = {
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
    torch.float8_e4m3fn: 2.0**-4,
    torch.float8_e4m3fnuz: 2.0**-4,
    torch.float8_e5m2: 2.0**-3,
    torch.float8_e5m2fnuz: 2.0**-3,
}


_NOWHERE: Final = Location(-1, 0)


def threads_given() -> int:
    """Threads that a pass may use: the cores that this process may run on, up to a point."""
    return min(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1, _MOST_THREADS)


def row_bytes(checkpoints: int) -> int:
    """Bytes of a block in each checkpoint's row. Not by the number of threads, so that the sums do not depend on it."""
    share = MEMORY // checkpoints // torch.float64.itemsize * torch.float64.itemsize
    return max(_SHORTEST_ROW, min(_LONGEST_ROW, share))


@dataclass(frozen=True)
class Rows:
    """The checkpoints read side by side: `n_old` whose updates are known already, then the new ones."""

    readers: tuple[CheckpointReader, ...]
    names: tuple[str, ...]
    n_old: int
    lags: int

    @property
    def n_new(self) -> int:
        """New checkpoints."""
        return len(self.readers) - self.n_old

    @property
    def first(self) -> int:
        """The first update whose products are wanted: the one that ends at the first new checkpoint that has one."""
        return max(0, self.n_old - 1)

    def nothing(self) -> Sums:
        """The sums over no parameters."""
        return Sums(np.zeros((len(self.readers) - 1 - self.first, self.lags + 1)), np.zeros(self.n_new))

    def band(self, products: Matrix) -> Matrix:
        """From products[i, j] of updates to rows of the band: shape (n, L + 1), n the updates from `first` on."""
        update = np.arange(self.first, len(self.readers) - 1)[:, None]
        earlier = update - np.arange(self.lags + 1)[None, :]
        return np.where(earlier >= 0, products[update, np.maximum(earlier, 0)], 0.0)


@dataclass(frozen=True)
class Sums:
    """What a set of parameters adds to the band.

    Attributes:
        values: Rows of the band for the new updates, shape (n, L + 1): n = n_new, or n_new - 1 at a run's start.
        rounding: Expected squared rounding error of each new checkpoint's parameters, shape (n_new,).
    """

    values: Matrix
    rounding: Matrix

    def __add__(self, other: Sums) -> Sums:
        """The sums over two disjoint sets of parameters together."""
        return Sums(self.values + other.values, self.rounding + other.rounding)


class Workspace:
    """Memory of one thread, and the arithmetic on it; used by one thread at a time.

    Args:
        checkpoints: Most rows.
        width: Most bytes of a block in each row.
        device: Where products are formed. Blocks are read into this machine's memory and, where the device is not the
            CPU, copied over from pinned memory on a stream of this workspace's own, so that the reading of one
            workspace overlaps the copying and computing of another.
        compiled: Whether the compiled kernel forms the products, which only a CPU can; torch does otherwise.
    """

    def __init__(self, checkpoints: int, width: int, device: torch.device, *, compiled: bool) -> None:
        self._compiled = compiled
        self._bytes = checkpoints * (width + _PADDING * torch.float64.itemsize)
        self._device = device
        self._updates = np.zeros((padded(checkpoints - 1), COLUMNS))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def sums(self, rows: Rows, chunk: Sequence[Block]) -> Sums:
        """Read the blocks of `chunk` from all checkpoints and sum their products.

        Raises:
            CheckpointFormatError: A file has lost bytes.
            NonFiniteError: NaN or Inf among the parameters, naming checkpoint and tensor.
            StoppedError: The process was asked to end.
        """
        with torch.cuda.stream(self._stream):  # does nothing when there is none
            return self._sums(rows, chunk)

    def _sums(self, rows: Rows, chunk: Sequence[Block]) -> Sums:
        side = padded(len(rows.readers) - 1)
        products, rounding = np.zeros((side, side)), np.zeros(rows.n_new)
        places: dict[str, _Places] = {}
        for block in chunk:
            interruption.check()
            theta = self._read(rows, block, places)
            self._add_products(rows, theta, block.size, products)
            eps = _ROUNDING_EPS.get(block.dtype)
            if eps is not None:
                norms = torch.linalg.vector_norm(theta[rows.n_old :, : block.size], dim=1, dtype=torch.float64)
                rounding += eps**2 / 3 * norms.square().numpy()
        band = rows.band(products)
        if not np.isfinite(band).all():
            raise _non_finite(rows, chunk)
        return Sums(band, rounding)

    def _read(self, rows: Rows, block: Block, places: dict[str, _Places]) -> torch.Tensor:
        """The block of all checkpoints, one a row and some padding; float64 where the files hold that, else float32."""
        theta = self._rows_of(self._room, in_memory(block.dtype), len(rows.readers), block.size)
        as_read = block.dtype if block.dtype.itemsize > 1 else torch.float32
        read = theta if as_read is theta.dtype else self._rows_of(self._raw, as_read, len(theta), block.size)
        begin = 0
        for piece in block.pieces:
            if piece.name not in places:
                places[piece.name] = _Places.of(rows.readers, piece.name)
            end = begin + piece.n_parameters
            done = places[piece.name].read(piece, read, begin)
            # The rest needs more than a copy: the bytes are converted or gathered, or the file has lost some.
            for reader, row in zip(rows.readers[done:], read[done:], strict=True):
                reader.read_into(piece.name, piece.start, piece.stop, row[begin:end])
            begin = end
        if read is not theta:
            theta[:, : block.size] = read[:, : block.size]
        return theta

    @staticmethod
    def _rows_of(room: torch.Tensor, dtype: torch.dtype, count: int, size: int) -> torch.Tensor:
        # One piece of memory, also for a short block: only such a piece is copied to a device without another copy.
        width = size + _PADDING
        return room.view(dtype)[: count * width].view(count, width)

    def _add_products(self, rows: Rows, theta: torch.Tensor, size: int, products: Matrix) -> None:
        count = len(theta) - 1
        if self._compiled:
            self._updates[count : padded(count)] = 0.0
            add_products(theta.numpy(), size, rows.first, rows.lags, self._updates, products)
        else:
            products[rows.first : count, :count] += products_on(self._device, theta, size, rows.first)

    @cached_property
    def _room(self) -> torch.Tensor:
        return torch.zeros(self._bytes, dtype=torch.uint8, pin_memory=self._stream is not None)

    @cached_property
    def _raw(self) -> torch.Tensor:
        """Room for floats of two bytes as they lie in the files."""
        return torch.zeros(self._bytes // 2, dtype=torch.uint8)


@dataclass(frozen=True)
class _Places:
    """Where a tensor's bytes begin in each checkpoint: descriptors and offsets, each of shape (checkpoints,)."""

    descriptors: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, readers: Sequence[CheckpointReader], name: str) -> _Places:
        locations = [reader.location(name) or _NOWHERE for reader in readers]
        return cls(
            np.array([location.descriptor for location in locations], dtype=np.int32),
            np.array([location.offset for location in locations], dtype=np.int64),
        )

    def read(self, piece: Piece, out: torch.Tensor, begin: int) -> int:
        """Read `piece` into the entries from `begin` on of each row; the number of rows up to one where that fails."""
        itemsize = out.dtype.itemsize
        rows = out.view(torch.uint8).numpy()[:, begin * itemsize : (begin + piece.n_parameters) * itemsize]
        return read_rows(self.descriptors, self.offsets + piece.start * itemsize, rows)


def products_on(device: torch.device, theta: torch.Tensor, size: int, first: int) -> Matrix:
    """Inner products of updates `first` … T - 1 with all updates, formed on `device`: shape (T - first, T).

    In float64, so that neither TF32 nor float32 sums enter.

    Args:
        device: Any torch device.
        theta: Parameters of a block, one checkpoint a row: shape (T + 1, at least `size`), in this machine's memory.
        size: Parameters in the block.
        first: The first update wanted.
    """
    there = theta.to(device, non_blocking=True)[:, :size].double()
    updates = there[1:] - there[:-1]
    found: Matrix = (updates[first:] @ updates.T).cpu().numpy()
    return found


def _non_finite(rows: Rows, chunk: Sequence[Block]) -> NonFiniteError:
    pieces = [piece for block in chunk for piece in block.pieces]
    for reader, checkpoint in zip(rows.readers, rows.names, strict=True):
        for piece in pieces:
            values = reader.read_block(piece.name, piece.start, piece.stop)
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                return NonFiniteError(
                    f"{bad} of the entries {piece.start}:{piece.stop} are NaN or Inf; the run diverged before this "
                    "checkpoint was saved, or the file was damaged.",
                    file=checkpoint,
                    tensor=piece.name,
                    next_step="audit the run up to the checkpoint before, or remove the checkpoint.",
                )
    return NonFiniteError("the weights are so large that products of updates overflow float64.", tensor=pieces[0].name)
