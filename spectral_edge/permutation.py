"""Is the first half of a stretch of updates unlike the second? A test that permutes the run's own updates (theory 9).

The null hypothesis is that the order of the updates carries no information beyond their short-range dependence: that
blocks of W // 2 consecutive updates could have come in any order. Random-walk parameters, a constant drift plus noise,
heavy-tailed update norms, any anisotropy and any shuffled run are exactly of this kind; stationary updates correlated
over more than a block make the test conservative, as measured (docs/transitions.md). Nothing is assumed about the
distribution of the updates, because the permuted Gram matrix is the run's own, rearranged.

**How many permutations.** As many as it takes to decide. Besag and Clifford (1991): draw until h = STOP_AFTER of them
reach what was observed, at draw T; p = h / T. Under the null the observed value is exchangeable with the first t - 1
draws, and T >= t means that it is among the h largest of these t: P(p <= x) <= x, exactly. After t draws of which l < h
reached it, T is at least t + h - l whatever comes, so that

    h / (t + h - l) >= h / T.

This bound is what is told of a test that stops early. As it lies above the exact p-value on every path, it is valid
wherever a test stops, for whatever reason: also where a test stops because of what other tests gave (an anytime-valid
p-value; Fischer, Barry and Ramdas 2024). So tests that are done together may be stopped one by one, as in MCFDR
(Sandve, Ferkingstad and Nygard 2011): where Benjamini and Hochberg reject already, no further draw can change that,
since the bound never grows. A change that shows in one of m tests is found after 10 m / rate permutations of its
stretch, and any number of changes together cost no more, as the level that they must reach grows with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from spectral_edge.band import Matrix

STOP_AFTER: Final = 10
"""Permutations at least as large as what was observed after which a test is settled: h above. A p-value has a relative
standard error of 1/sqrt(h), and most tests end after a few dozen permutations."""
FIRST_DRAWS: Final = 1000
"""Draws of each stretch before tests are looked at together; most are settled by then."""
_BATCHES: Final = (100, 4000)
_TIE: Final = 1e-9
"""Relative: the same windows in another order differ by rounding, and must count as equal."""
_SEED: Final = 20260328

Orders = NDArray[np.int64]
Statistic = Callable[[Matrix], Matrix]
"""From a stack of arrangements (n, …) to a stack of scans (n, kinds, positions)."""
Scanner = Callable[[Orders], Matrix]
"""From orders (n, length) of a stretch's items to scans (n, kinds, positions)."""


@dataclass(frozen=True)
class Scan:
    """One stretch tested: for each kind the scan over positions, and the p-value of its maximum.

    Attributes:
        values: Shape (kinds, positions).
        p_values: Shape (kinds,): chance of so large a maximum when blocks come in any order.
    """

    values: Matrix
    p_values: Matrix


def block_permutations(length: int, block: int, count: int, rng: np.random.Generator) -> Orders:
    """Orders of `length` items in which blocks of `block` consecutive ones are shuffled whole: shape (count, length).

    Where the first block begins is random, so that no joint is privileged; blocks at the ends may be shorter.
    """
    first = rng.integers(0, block, size=(count, 1))
    piece = (np.arange(length) + (block - first) % block) // block
    places = rng.random((count, -(-(length + block - 1) // block)))
    return np.argsort(np.take_along_axis(places, piece, axis=1), axis=1, kind="stable")


class Draws:
    """The permutations of one stretch, drawn until its tests are settled; the module tells the rule.

    Args:
        scanner: Makes the function that scans orders; made anew for each stretch of draws, so that what it remembers
            is given up in between.
        length: Items in the stretch.
        block: Items that stay together.
    """

    def __init__(self, scanner: Callable[[], Scanner], length: int, block: int) -> None:
        self._scanner, self._length, self._block = scanner, length, block
        self._rng = np.random.default_rng([_SEED, length, block])
        self.values: Matrix = scanner()(np.arange(length)[None, :])[0]
        observed = self.values.max(axis=1)
        self._reached = observed - _TIE * np.abs(observed)
        self._reaching = np.zeros(len(observed), dtype=np.int64)
        self._ends = np.full(len(observed), np.iinfo(np.int64).max)
        self.drawn = 0

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which kinds are not settled: a further draw may lower their p-value."""
        return self._reaching < STOP_AFTER

    @property
    def p_values(self) -> Matrix:
        """Of each kind, valid wherever drawing stops."""
        return np.asarray(STOP_AFTER / np.where(self.open, self.drawn + STOP_AFTER - self._reaching, self._ends))

    def until(self, wanted: int) -> None:
        """Go on until there are `wanted` draws or all kinds are settled."""
        scanner = self._scanner()
        while self.drawn < wanted and self.open.any():
            count = min(wanted - self.drawn, int(np.clip(self.drawn // 2, *_BATCHES)))
            maxima = scanner(block_permutations(self._length, self._block, count, self._rng)).max(axis=2)
            for kind in np.flatnonzero(self.open):
                at = np.flatnonzero(maxima[:, kind] >= self._reached[kind])
                lacking = STOP_AFTER - self._reaching[kind]
                if len(at) >= lacking:
                    self._ends[kind] = self.drawn + at[lacking - 1] + 1
                self._reaching[kind] += len(at)
            self.drawn += count


def settle(stretches: Sequence[Draws], resolution: float) -> None:
    """Draw until every test of every stretch is settled, or rejected at rate `resolution` over all of them.

    Rejected by Benjamini and Hochberg, over stretches times kinds. Were all tests that are open to be rejected, they
    would be after as many draws as are made next; those that are settled meanwhile raise what the others need.
    """
    for stretch in stretches:
        stretch.until(FIRST_DRAWS)
    while True:
        p_values = np.array([stretch.p_values for stretch in stretches])
        is_open = np.array([stretch.open for stretch in stretches])
        rejected = false_discovery_control(p_values.ravel()).reshape(p_values.shape) <= resolution
        waiting = np.flatnonzero((is_open & ~rejected).any(axis=1)).tolist()
        if not waiting:
            return
        wanted = math.ceil(STOP_AFTER * p_values.size / (resolution * is_open.sum()))
        for index in waiting:
            stretch = stretches[int(index)]
            stretch.until(max(wanted, stretch.drawn + FIRST_DRAWS))


def permutation_scan(
    arrange: Callable[[Orders], Matrix], statistic: Statistic, length: int, block: int, resolution: float
) -> Scan:
    """Test whether the scan's maximum is larger than block permutations of the items give; a test by itself.

    Args:
        arrange: From orders, shape (n, length), to the stack of rearranged data that `statistic` takes.
        statistic: What is scanned; its maximum over positions is the test statistic of each kind.
        length: Items in the stretch.
        block: Items that stay together.
        resolution: No smaller p-value is looked for.
    """
    draws = Draws(lambda: lambda orders: statistic(arrange(orders)), length, block)
    settle([draws], resolution)
    return Scan(draws.values, draws.p_values)


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
