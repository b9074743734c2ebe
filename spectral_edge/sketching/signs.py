"""The random map of a sketch, computed from a key instead of stored: parameters into buckets, with random signs.

A vector is laid out in rows of as many entries as the sketch has buckets. Each row is turned cyclically by a random
shift, each entry gets a random sign, and the rows are added up. This is a count sketch (Charikar, Chen and
Farach-Colton 2002) in which entries of one row never share a bucket, and entries of two rows do with a chance of
1 / size, so that its variance is at most that of a count sketch, and a vector of one row keeps its products exactly.

Signs and shifts come from a counter and a key through the finaliser of SplitMix64 (Steele, Lea and Flood 2014): one
64-bit word gives the signs of 64 neighbours. The compiled loop and the one in torch give the same map.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spectral_edge.band import Matrix
from spectral_edge.kernels import compiled

_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_WORD: Final = 64

_BLOCK: Final = 1 << 20
"""Parameters that torch's loop works on at a time."""


class Key(NamedTuple):
    """What chooses the map: two words of 64 bits."""

    signs: int
    shifts: int


def key_of(seed: int, *names: str) -> Key:
    """The key of one part of a model: other seeds or names give unrelated keys."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return Key(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little"))


@compiled
def _mixed(word: np.uint64) -> np.uint64:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_FIRST)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_SECOND)
    return word ^ (word >> np.uint64(31))


@compiled
def _add_signed(values: NDArray[Any], first: int, signs: np.uint64, shifts: np.uint64, sums: Matrix) -> None:
    size = len(sums)
    words = (size + 63) // 64
    done = 0
    while done < len(values):
        row = (first + done) // size
        column = (first + done) % size
        end_of_row: int = done + min(size - column, len(values) - done)
        shift = int(np.int64(_mixed(shifts + np.uint64(row + 1) * np.uint64(_GOLDEN)) >> np.uint64(33))) % size
        while done < end_of_row:
            counter = np.uint64(row * words + column // 64 + 1)
            bits = _mixed(signs + counter * np.uint64(_GOLDEN)) >> np.uint64(column % 64)
            bucket = (column + shift) % size
            taken: int = min(64 - column % 64, end_of_row - done, size - bucket)
            run, into = values[done : done + taken], sums[bucket : bucket + taken]
            for k in range(taken):
                sign = 1.0 - 2.0 * np.float64(np.int64((bits >> np.uint64(k)) & np.uint64(1)))
                into[k] += sign * np.float64(run[k])
            done += taken
            column += taken


def add_signed(values: NDArray[Any], first: int, key: Key, sums: Matrix) -> None:
    """Add the sketch of a stretch of a vector to `sums`; compiled, for this machine's memory.

    Args:
        values: The stretch, shape (n,), float32 or float64, contiguous.
        first: Index in the whole vector of its first entry.
        key: The map.
        sums: Shape (size,), float64; changed.
    """
    _add_signed(values, first, np.uint64(key.signs), np.uint64(key.shifts), sums)


def add_signed_on_device(values: torch.Tensor, first: int, key: Key, sums: torch.Tensor) -> None:
    """The same with torch, on the device of `values` and `sums`, which must know float64."""
    size = len(sums)
    rows_each = max(1, _BLOCK // size)
    begin = first // size
    end = -(-(first + len(values)) // size)
    for row in range(begin, end, rows_each):
        stop = min(row + rows_each, end)
        low, high = max(row * size, first), min(stop * size, first + len(values))
        block = torch.zeros((stop - row) * size, dtype=torch.float64, device=values.device)
        block[low - row * size : high - row * size] = values[low - first : high - first]
        rows = torch.arange(row, stop, device=values.device)
        signed = block.view(-1, size) * _signs(rows, size, key)
        sums += signed.gather(1, _sources(rows, size, key)).sum(dim=0)


def _signs(rows: torch.Tensor, size: int, key: Key) -> torch.Tensor:
    """Signs of all entries of `rows`: shape (n, size), int64."""
    words = -(-size // _WORD)
    counters = rows[:, None] * words + torch.arange(words, device=rows.device) + 1
    mixed = _mixed_words(counters * _signed(_GOLDEN) + _signed(key.signs))
    bits = (mixed[:, :, None] >> torch.arange(_WORD, device=rows.device)) & 1
    return 1 - 2 * bits.reshape(len(rows), -1)[:, :size]


def _sources(rows: torch.Tensor, size: int, key: Key) -> torch.Tensor:
    """Which entry of each row falls into each bucket: shape (n, size)."""
    mixed = _mixed_words((rows + 1) * _signed(_GOLDEN) + _signed(key.shifts))
    shift = _shifted(mixed, 33) % size
    return (torch.arange(size, device=rows.device) - shift[:, None]) % size


def _mixed_words(word: torch.Tensor) -> torch.Tensor:
    """What :func:`_mixed` gives, in signed words: products wrap around, and only shifts to the right need care."""
    word = (word ^ _shifted(word, 30)) * _signed(_FIRST)
    word = (word ^ _shifted(word, 27)) * _signed(_SECOND)
    return word ^ _shifted(word, 31)


def _shifted(word: torch.Tensor, bits: int) -> torch.Tensor:
    return (word >> bits) & ((1 << (_WORD - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << _WORD) if word >> (_WORD - 1) else word
