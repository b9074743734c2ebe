"""Blocks of parameters: how the tensors of a cell are cut into stretches that are read and summed together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from spectral_edge.checkpoints import TensorInfo
from spectral_edge.errors import UsageError


@dataclass(frozen=True)
class Piece:
    """Entries start:stop of the flattened tensor `name`."""

    name: str
    start: int
    stop: int

    @property
    def n_parameters(self) -> int:
        """Entries."""
        return self.stop - self.start


@dataclass(frozen=True)
class Block:
    """Pieces of one dtype, handled as one stretch of parameters."""

    pieces: tuple[Piece, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Entries."""
        return sum(piece.n_parameters for piece in self.pieces)

    @property
    def n_bytes(self) -> int:
        """Bytes it takes in a checkpoint."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a model's parameters, so that several workers can share the work on one run.

    Every parameter is in exactly one shard, the same for all checkpoints: the bands of all shards add up to the band
    of the whole (theory 2).
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"`index` of a shard must lie in 0 … {self.count - 1}, got {self.index}.")

    def pieces(self, tensors: Mapping[str, TensorInfo]) -> Iterator[Piece]:
        """This shard's share of the entries of `tensors`, one after the other.

        Neighbours stay together, so that a shard needs few stretches of few files.
        """
        total = sum(info.n_parameters for info in tensors.values())
        begin, end = total * self.index // self.count, total * (self.index + 1) // self.count
        position = 0
        for name, info in tensors.items():
            start, stop = max(0, begin - position), min(info.n_parameters, end - position)
            if start < stop:
                yield Piece(name, start, stop)
            position += info.n_parameters


WHOLE: Final = Shard(0, 1)
"""All parameters."""


def in_memory(dtype: torch.dtype) -> torch.dtype:
    """What a file's `dtype` is held in while it is multiplied: float64 where the file has that, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def blocks(pieces: Iterable[Piece], tensors: Mapping[str, TensorInfo], row_bytes: int) -> Iterator[Block]:
    """Cut `pieces` of `tensors` into blocks of at most `row_bytes` of memory a checkpoint.

    Small pieces of the same dtype share a block.
    """
    by_dtype: dict[torch.dtype, list[Piece]] = {}
    for piece in pieces:
        dtype = tensors[piece.name].dtype
        size = row_bytes // in_memory(dtype).itemsize
        open_pieces = by_dtype.setdefault(dtype, [])
        start = piece.start
        while start < piece.stop:
            room = size - sum(each.n_parameters for each in open_pieces)
            stop = min(piece.stop, start + room)
            open_pieces.append(Piece(piece.name, start, stop))
            if stop - start == room:
                yield Block(tuple(open_pieces), dtype)
                open_pieces.clear()
            start = stop
    for dtype, rest in by_dtype.items():
        if rest:
            yield Block(tuple(rest), dtype)
