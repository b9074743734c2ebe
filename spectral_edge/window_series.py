"""What is followed over the windows of a stretch of updates, in its own order and in thousands of others (theory 9)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from spectral_edge.band import Matrix
from spectral_edge.permutation import Orders

_SMALLEST_ANGLE: Final = 1e-4
"""Radians; below this an angle from an overlap near 1 is rounding, and its logarithm would be noise."""
_AT_ONCE: Final = 4096
"""Windows whose eigenvalues are computed at once: bounds memory."""
_KEPT: Final = 8_000_000
"""Numbers that are remembered of windows before all is forgotten: 64 MB."""

Series = tuple[Matrix, NDArray[np.int64], Matrix]


class WindowSeries:
    """Series over the windows of a rearranged stretch; what was computed of a window is remembered.

    Blocks stay together, so the same windows come again and again: of 20,000 orders of 61 updates in blocks of 5 with
    W = 10, a million windows, 60,000 differ. Windows are told apart by a 64-bit hash of their members in order: two of
    100,000 windows would be taken for each other with a chance of 3e-10.

    Args:
        gram: Gram matrix of all updates of the stretch, shape (S, S).
        window: W.
    """

    def __init__(self, gram: Matrix, window: int) -> None:
        self._gram, self._window = gram, window
        self._factors = np.random.default_rng(window).integers(1, 2**63, window + 1, dtype=np.uint64) * 2 + 1
        self._forget()

    def __call__(self, orders: Orders) -> Series:
        """Of each order, shape (n, S).

        Returns:
            Log of the largest ratio among the first W // 2 + 1 singular values, shape (n, S - W + 1); its position,
            0-indexed; and log of the angle (radians) of the leading direction from window to window, shape (n, S - W).
            The position is capped because in noise the largest ratio is most often that of the two smallest values.
        """
        if self._windows.size * (self._window + 3) > _KEPT:
            self._forget()
        windows = sliding_window_view(orders, self._window, axis=1)
        keys = self._hashed(windows)
        self._learn_windows(keys, windows)
        at = np.searchsorted(self._windows, keys)
        pairs = sliding_window_view(orders, self._window + 1, axis=1)
        pair_keys = keys[:, :-1] + self._factors[-1] * orders[:, self._window :].astype(np.uint64)
        self._learn_pairs(pair_keys, pairs, at)
        return self._ratio[at], self._position[at], self._angle[np.searchsorted(self._pairs, pair_keys)]

    def _forget(self) -> None:
        self._windows = self._pairs = np.empty(0, dtype=np.uint64)
        self._ratio = self._largest = self._angle = np.empty(0)
        self._position = np.empty(0, dtype=np.int64)
        self._leading = np.empty((0, self._window))

    def _hashed(self, members: Orders) -> NDArray[np.uint64]:
        return np.asarray(sum(members[..., j].astype(np.uint64) * self._factors[j] for j in range(self._window)))

    def _learn_windows(self, keys: NDArray[np.uint64], windows: Orders) -> None:
        new, first = _unknown(keys, self._windows)
        members = windows[first]
        for start in range(0, len(new), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            ratio, position, largest, leading = self._spectra(members[part])
            into = np.searchsorted(self._windows, new[part])
            self._windows = np.insert(self._windows, into, new[part])
            self._ratio = np.insert(self._ratio, into, ratio)
            self._position = np.insert(self._position, into, position)
            self._largest = np.insert(self._largest, into, largest)
            self._leading = np.insert(self._leading, into, leading, axis=0)

    def _spectra(self, members: Orders) -> tuple[Matrix, NDArray[np.int64], Matrix, Matrix]:
        values, vectors = np.linalg.eigh(self._gram[members[:, :, None], members[:, None, :]])
        sigma = np.sqrt(np.clip(values[:, ::-1], np.finfo(np.float64).tiny, None))
        half = self._window // 2
        ratios = np.log(sigma[:, :half] / sigma[:, 1 : half + 1])
        return ratios.max(axis=1), ratios.argmax(axis=1), sigma[:, 0], vectors[:, :, -1]

    def _learn_pairs(self, keys: NDArray[np.uint64], pairs: Orders, at: NDArray[np.int64]) -> None:
        new, first = _unknown(keys, self._pairs)
        before, after, members = at[:, :-1][first], at[:, 1:][first], pairs[first]
        angles = np.empty(len(new))
        for start in range(0, len(new), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            one, other = before[part], after[part]
            cross = self._gram[members[part, :-1, None], members[part, None, 1:]]
            overlap = np.einsum("wi,wij,wj->w", self._leading[one], cross, self._leading[other])
            overlap /= self._largest[one] * self._largest[other]
            angles[part] = np.log(np.maximum(np.arccos(np.clip(np.abs(overlap), 0.0, 1.0)), _SMALLEST_ANGLE))
        into = np.searchsorted(self._pairs, new)
        self._pairs = np.insert(self._pairs, into, new)
        self._angle = np.insert(self._angle, into, angles)


def window_series(gram: Matrix, window: int) -> Series:
    """The series of a stretch in its own order: shapes (S - W + 1,), the same, and (S - W,).

    Args:
        gram: Gram matrix of all updates of the stretch, shape (S, S).
        window: W.
    """
    log_ratio, position, log_angle = WindowSeries(gram, window)(np.arange(len(gram))[None])
    return log_ratio[0], position[0], log_angle[0]


def _unknown(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], tuple[Orders, ...]]:
    """Those of `keys` (n, m) that are not among the sorted `known`, sorted, and where each is first met."""
    if len(known):
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        places = np.flatnonzero(known[at] != keys)
    else:
        places = np.arange(keys.size)
    new, first = np.unique(keys.ravel()[places], return_index=True)
    return new, np.unravel_index(places[first], keys.shape)
