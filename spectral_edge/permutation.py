"""Is the first half of a stretch of updates unlike the second? A test that permutes the run's own updates (theory 9).

The null hypothesis is that the order of the updates carries no information beyond their short-range dependence: that
blocks of W // 2 consecutive updates could have come in any order. Random-walk parameters, a constant drift plus noise,
heavy-tailed update norms, any anisotropy and any shuffled run are exactly of this kind; stationary updates correlated
over more than a block make the test conservative, as measured (docs/transitions.md). Nothing is assumed about the
distribution of the updates, because the permuted Gram matrix is the run's own, rearranged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from spectral_edge.band import Matrix

PERMUTATIONS: Final = 999
STOP_AFTER: Final = 10
"""Permutations at least as large as what was observed after which a test is settled as unremarkable. The p-value of
this sequential rule (Besag and Clifford 1991) is exact, and most tests end after a few dozen permutations."""
_BATCH: Final = 111
_SEED: Final = 20260328

Statistic = Callable[[Matrix], Matrix]
"""From a stack of arrangements (n, …) to a stack of scans (n, kinds, positions)."""


@dataclass(frozen=True)
class Scan:
    """One stretch tested: for each kind the scan over positions, and the p-value of its maximum.

    Attributes:
        values: Shape (kinds, positions).
        p_values: Shape (kinds,): chance of so large a maximum when blocks come in any order.
    """

    values: Matrix
    p_values: Matrix


def block_permutations(length: int, block: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Orders of `length` items in which blocks of `block` consecutive ones are shuffled whole: shape (count, length).

    Where the first block begins is random, so that no joint is privileged; blocks at the ends may be shorter.
    """
    orders = np.empty((count, length), dtype=np.int64)
    for row in range(count):
        cuts = np.arange(rng.integers(0, block), length, block)
        pieces = [piece for piece in np.split(np.arange(length), cuts) if len(piece)]
        orders[row] = np.concatenate([pieces[index] for index in rng.permutation(len(pieces))])
    return orders


def permutation_scan(
    arrange: Callable[[NDArray[np.int64]], Matrix], statistic: Statistic, length: int, block: int
) -> Scan:
    """Test whether the scan's maximum is larger than block permutations of the items give.

    Args:
        arrange: From orders, shape (n, length), to the stack of rearranged data that `statistic` takes.
        statistic: What is scanned; its maximum over positions is the test statistic of each kind.
        length: Items in the stretch.
        block: Items that stay together.
    """
    rng = np.random.default_rng([_SEED, length, block])
    values = statistic(arrange(np.arange(length)[None, :]))[0]
    observed = values.max(axis=1)
    exceeding = np.zeros(len(observed), dtype=np.int64)
    p_values = np.full(len(observed), np.nan)
    for drawn in range(_BATCH, PERMUTATIONS + 1, _BATCH):
        maxima = statistic(arrange(block_permutations(length, block, _BATCH, rng))).max(axis=2)
        for kind in np.flatnonzero(np.isnan(p_values)):
            at = np.flatnonzero(maxima[:, kind] >= observed[kind])
            if exceeding[kind] + len(at) >= STOP_AFTER:
                p_values[kind] = STOP_AFTER / (drawn - _BATCH + at[STOP_AFTER - 1 - exceeding[kind]] + 1)
            exceeding[kind] += len(at)
        if not np.isnan(p_values).any():
            break
    unsettled = np.isnan(p_values)
    p_values[unsettled] = (exceeding[unsettled] + 1) / (PERMUTATIONS + 1)
    return Scan(values, p_values)


def contrasts(series: Matrix, edge: int, apart: int) -> tuple[Matrix, Matrix]:
    """Mean after each possible change minus mean before it, and the weight of that position (CUSUM).

    Args:
        series: Shape (…, n).
        edge: Fewest values on either side.
        apart: Distance from the last value before to the first after; with W, windows of W updates on the two sides
            share no update.

    Returns:
        Differences, shape (…, m) with m = n - 2 edge - apart + 2, and weights sqrt(b a / (b + a)), shape (m,), for b
        values before and a after. Entry i has b = edge + i.
    """
    n = series.shape[-1]
    before = np.arange(edge, n - edge - apart + 2)
    after = n - (before - 1 + apart)
    sums = np.concatenate([np.zeros((*series.shape[:-1], 1)), np.cumsum(series, axis=-1)], axis=-1)
    mean_before = sums[..., before] / before
    mean_after = (sums[..., -1:] - sums[..., before - 1 + apart]) / after
    return mean_after - mean_before, np.sqrt(before * after / (before + after))
