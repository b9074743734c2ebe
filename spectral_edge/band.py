"""The band: inner products of updates, from which every spectral quantity follows (theory 2).

A value that adds: over blocks of parameters, tensors, shards, files and hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_edge.groups import TOTAL

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Inner products of a group's updates.

    Attributes:
        values: Shape (T, L + 1), float64, parameter units squared: `values[t, k]` is the inner product of updates t
            and t - k. Entries that would reach before the first update are 0.
        n_parameters: Parameters summed over.
        rounding_energy: Shape (T,), parameter units squared: squared norm that rounding to the checkpoints' dtype
            alone is expected to give each update.
    """

    values: Matrix
    n_parameters: int
    rounding_energy: Matrix

    @property
    def updates(self) -> int:
        """T, the number of updates."""
        return int(self.values.shape[0])

    @property
    def lags(self) -> int:
        """L, the largest lag."""
        return int(self.values.shape[1]) - 1

    def __add__(self, other: Band) -> Band:
        """The band of two disjoint sets of parameters together."""
        return Band(
            self.values + other.values,
            self.n_parameters + other.n_parameters,
            self.rounding_energy + other.rounding_energy,
        )

    def first(self, updates: int) -> Band:
        """The band of the first `updates` updates alone."""
        return Band(self.values[:updates], self.n_parameters, self.rounding_energy[:updates])

    def followed_by(self, later: Band, first: int) -> Band:
        """These updates and, after them, those of `later` from update `first` on; same group, same lags."""
        return Band(
            np.concatenate([self.values, later.values[first:]]),
            self.n_parameters,
            np.concatenate([self.rounding_energy, later.rounding_energy[first:]]),
        )

    def gram(self, ends: NDArray[np.int64], width: int) -> Matrix:
        """Gram matrices of windows of `width` updates that end at updates `ends`: shape (n, width, width)."""
        return self.cross_gram(ends, width, ends, width)

    def cross_gram(self, ends_a: NDArray[np.int64], width_a: int, ends_b: NDArray[np.int64], width_b: int) -> Matrix:
        """Inner products of the updates of windows a with those of windows b: shape (n, width_a, width_b).

        Raises:
            IndexError: Two updates further apart than the band's largest lag, or before the first update.
        """
        a = ends_a[:, None] - np.arange(width_a - 1, -1, -1)
        b = ends_b[:, None] - np.arange(width_b - 1, -1, -1)
        later = np.maximum(a[:, :, None], b[:, None, :])
        lag = np.abs(a[:, :, None] - b[:, None, :])
        if lag.size and (lag.max() > self.lags or min(a.min(), b.min()) < 0):
            raise IndexError(f"the band holds lags up to {self.lags} of {self.updates} updates")
        return np.asarray(self.values[later, lag])


def total(bands: Iterable[Band]) -> Band:
    """The sum of at least one band."""
    first, *rest = bands
    for band in rest:
        first = first + band
    return first


def widest(bands: Mapping[str, Band]) -> Band:
    """The band that says most of the whole model: the total where it is there, else that of most parameters."""
    return bands.get(TOTAL) or max(bands.values(), key=lambda band: band.n_parameters)


def identical_checkpoints(bands: Mapping[str, Band], names: Sequence[str]) -> Iterator[str]:
    """One sentence for each checkpoint that holds the weights of the one before it.

    Args:
        bands: Bands of all groups, at least one.
        names: What messages call the checkpoints, one more than updates.
    """
    for update in np.flatnonzero(widest(bands).values[:, 0] == 0.0).tolist():
        yield f"{names[update + 1]} is identical to {names[update]}: its update is zero."
