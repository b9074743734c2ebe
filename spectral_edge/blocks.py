"""Blocks of parameters: how the tensors of a cell are cut into stretches that are read and summed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from spectral_edge.checkpoints import TensorInfo


@dataclass(frozen=True)
class Piece:
    """Entries start:stop of the flattened tensor `name`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """Pieces of one dtype, handled as one stretch of parameters."""

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


def blocks(tensors: Mapping[str, TensorInfo], size: int) -> Iterator[Block]:
    """Cut `tensors` into blocks of at most `size` entries; small tensors of the same dtype share one."""
    by_dtype: dict[torch.dtype, list[Piece]] = {}
    for name, info in tensors.items():
        open_pieces = by_dtype.setdefault(info.dtype, [])
        start = 0
        while start < info.n_parameters:
            room = size - sum(piece.stop - piece.start for piece in open_pieces)
            stop = min(info.n_parameters, start + room)
            open_pieces.append(Piece(name, start, stop))
            start = stop
            if stop - open_pieces[-1].start == room:
                yield Block(tuple(open_pieces), info.dtype)
                open_pieces.clear()
    for dtype, pieces in by_dtype.items():
        if pieces:
            yield Block(tuple(pieces), dtype)
