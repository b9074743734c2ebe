"""Blocks of parameters, and the sum over them of products of updates: the inner loop of the pass (theory 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from spectral_edge.band import Matrix
from spectral_edge.checkpoints import CheckpointReader, TensorInfo
from spectral_edge.errors import NonFiniteError

BLOCK: Final = 1 << 15
"""Parameters in a block. Products and sums are float64: sums of float32 products lose every sigma_j below about
3e-4 sigma_1 (their error is about 1e-7 lambda_1, and lambda = sigma^2), while theory 3 looks down to 1e-6 sigma_1."""

ROWS: Final = 32
"""Updates multiplied at a time, with themselves and with the L before them."""

# Rounding to nearest leaves an error that is uniform within half a unit in the last place, so its standard deviation
# is eps |theta| / sqrt(3), with eps half the spacing of numbers just above 1. Wider types are what training itself
# computed in: what they cannot hold never was.
_ROUNDING_EPS: Final[Mapping[torch.dtype, float]] = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@dataclass(frozen=True)
class Piece:
    """Entries start:stop of the flattened tensor `name`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """Pieces of one dtype, at most BLOCK entries together, handled as one stretch of parameters."""

    pieces: tuple[Piece, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Entries."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def n_bytes(self) -> int:
        """Bytes it takes in a checkpoint."""
        return self.size * self.dtype.itemsize


def blocks(tensors: Mapping[str, TensorInfo]) -> Iterator[Block]:
    """Cut `tensors` into blocks; small tensors of the same dtype share one."""
    by_dtype: dict[torch.dtype, list[Piece]] = {}
    for name, info in tensors.items():
        open_pieces = by_dtype.setdefault(info.dtype, [])
        start = 0
        while start < info.n_parameters:
            room = BLOCK - sum(piece.stop - piece.start for piece in open_pieces)
            stop = min(info.n_parameters, start + room)
            open_pieces.append(Piece(name, start, stop))
            start = stop
            if stop - open_pieces[-1].start == room:
                yield Block(tuple(open_pieces), info.dtype)
                open_pieces.clear()
    for dtype, pieces in by_dtype.items():
        if pieces:
            yield Block(tuple(pieces), dtype)


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


class BlockSums:
    """Sums products of updates over blocks of parameters.

    Memory: (2 ROWS + L + 1) x BLOCK float64 on `device`, whatever the number of checkpoints.
    """

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self._rows = rows
        count = min(ROWS, len(rows.readers))
        self._theta = torch.zeros(count + 1, BLOCK, dtype=torch.float64, device=device)
        self._updates = torch.zeros(rows.lags + count, BLOCK, dtype=torch.float64, device=device)
        self._products: dict[int, torch.Tensor] = {}
        self.rounding: Matrix = np.zeros(rows.n_new)
        """Expected squared rounding error of each new checkpoint's parameters, shape (n_new,)."""

    def add(self, block: Block) -> None:
        """Read `block` from all checkpoints and add its products.

        Raises:
            NonFiniteError: NaN or Inf among the parameters, naming checkpoint and tensor.
        """
        rows, theta, size = self._rows, self._theta[:, : block.size], block.size
        self._load(0, block, theta[0])
        if rows.n_old == 0:
            self._add_rounding(0, block, theta[:1])
        history = self._load_old_updates(block, theta)
        position = max(1, rows.n_old)
        while position < len(rows.readers):
            count = min(len(theta) - 1, len(rows.readers) - position)
            for row in range(count):
                self._load(position + row, block, theta[row + 1])
            self._add_rounding(position - rows.n_old, block, theta[1 : count + 1])
            updates = self._updates[: history + count, :size]
            torch.sub(theta[1 : count + 1], theta[:count], out=updates[history:])
            self._add_products(position, updates[history:] @ updates.T, block)
            position += count
            if position < len(rows.readers):
                theta[0].copy_(theta[count])
                history = self._keep_last_updates(updates)

    def band_rows(self) -> Matrix:
        """Rows of the band for the new updates: shape (n, L + 1), n = n_new, or n_new - 1 at the start of a run."""
        lags = self._rows.lags
        found: list[Matrix] = [np.zeros((0, lags + 1))]
        for _, tensor in sorted(self._products.items()):
            products = tensor.cpu().numpy()
            history = products.shape[1] - products.shape[0]
            band = np.zeros((len(products), lags + 1))
            for row, product in enumerate(products):
                backwards = product[history + row :: -1][: lags + 1]
                band[row, : len(backwards)] = backwards
            found.append(band)
        return np.concatenate(found)

    def _load(self, checkpoint: int, block: Block, into: torch.Tensor) -> None:
        offset = 0
        for piece in block.pieces:
            length = piece.stop - piece.start
            values = self._rows.readers[checkpoint].read_block(piece.name, piece.start, piece.stop)
            into[offset : offset + length].copy_(values)
            offset += length

    def _load_old_updates(self, block: Block, theta: torch.Tensor) -> int:
        """Put the known updates before the new ones; afterwards theta[0] is the last old checkpoint."""
        for checkpoint in range(1, self._rows.n_old):
            self._load(checkpoint, block, theta[1])
            torch.sub(theta[1], theta[0], out=self._updates[checkpoint - 1, : block.size])
            theta[0].copy_(theta[1])
        return max(0, self._rows.n_old - 1)

    def _keep_last_updates(self, updates: torch.Tensor) -> int:
        keep = min(self._rows.lags, len(updates))
        self._updates[:keep, : updates.shape[1]] = updates[len(updates) - keep :].clone()
        return keep

    def _add_products(self, position: int, products: torch.Tensor, block: Block) -> None:
        if not bool(torch.isfinite(products).all()):
            raise self._non_finite(block)
        if position in self._products:
            self._products[position] += products
        else:
            self._products[position] = products

    def _add_rounding(self, first: int, block: Block, theta: torch.Tensor) -> None:
        eps = _ROUNDING_EPS.get(block.dtype)
        if eps is not None:
            energy = theta.square().sum(dim=1).cpu().numpy()
            self.rounding[first : first + len(energy)] += eps**2 / 3 * energy

    def _non_finite(self, block: Block) -> NonFiniteError:
        for reader, checkpoint in zip(self._rows.readers, self._rows.names, strict=False):
            for piece in block.pieces:
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
        return NonFiniteError(
            "the weights are so large that products of updates overflow float64.", tensor=block.pieces[0].name
        )
