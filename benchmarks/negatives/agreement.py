"""Table 3: a second detector that shares only the series with ours, and where the two agree.

Optimal partitioning (Jackson et al. 2005; what PELT prunes) of the log gap ratio into pieces of constant mean, by
dynamic programming. The cost of a piece is its sum of squares over the noise variance; each further one costs 2 log n.
Windows overlap, so only every (W // 2)-th is taken, and as two neighbours still share half of their updates, the
noise variance and the penalty allow for it: variance from differences of values that share no update, penalty doubled,
the factor by which such an overlap raises the variance of a mean. No permutations, no p-values, no angle, no position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from benchmarks.replication.table import Row, Table
from spectral_edge.band import Matrix
from spectral_edge.window_series import window_series

OVERLAP: Final = 2.0
"""1 + 2 x 1/2: half of each window's updates are in the next one that is taken."""
SHORTEST: Final = 3
"""Values in a piece: at W = 10 windows that together span 20 updates."""


def breaks(gram: Matrix, window: int) -> list[int]:
    """Updates at which the log gap ratio's mean changes, by optimal partitioning; Gram matrix of all updates."""
    if len(gram) < 2 * window:
        return []
    series = window_series(gram, window)[0][:: window // 2]
    return [window // 2 * at + window // 2 for at in partition(series, _noise(series), OVERLAP)]


def partition(series: Matrix, variance: float, inflation: float = 1.0) -> list[int]:
    """Where pieces of constant mean begin, the first left out.

    Args:
        series: Shape (n,).
        variance: Of the noise of one value.
        inflation: Factor on the BIC penalty 2 log n: one mean and one place for each piece.
    """
    n = len(series)
    sums, squares = np.append(0.0, np.cumsum(series)), np.append(0.0, np.cumsum(series**2))
    best = np.full(n + 1, np.inf)
    best[0] = -2 * np.log(n) * inflation
    last = np.zeros(n + 1, dtype=np.int64)
    for stop in range(SHORTEST, n + 1):
        starts = np.arange(stop - SHORTEST + 1)
        cost = squares[stop] - squares[starts] - (sums[stop] - sums[starts]) ** 2 / (stop - starts)
        total = best[starts] + cost / variance + 2 * np.log(n) * inflation
        last[stop] = int(np.argmin(total))
        best[stop] = total[last[stop]]
    found, stop = [], n
    while stop > 0:
        stop = int(last[stop])
        found.append(stop)
    return sorted(found)[1:]


def _noise(series: Matrix) -> float:
    """Variance of one value, robustly, from differences two apart, whose windows share no update."""
    apart = series[2:] - series[:-2]
    return float(max((np.median(np.abs(apart - np.median(apart))) / 0.6745) ** 2 / 2, 1e-12))


def agreement_table(by_set: Mapping[str, Sequence[tuple[bool, bool]]]) -> Table:
    """For each set of runs, (ours, the second's) counted four ways, and Cohen's kappa."""
    rows: list[Row] = []
    for name, pairs in by_set.items():
        ours, second = np.array(pairs, dtype=bool).T
        share, other = ours.mean(), second.mean()
        chance = share * other + (1 - share) * (1 - other)
        rows.append(
            {
                "runs": name,
                "n": len(ours),
                "both": int((ours & second).sum()),
                "only ours": int((ours & ~second).sum()),
                "only second": int((~ours & second).sum()),
                "neither": int((~ours & ~second).sum()),
                "kappa": float(((ours == second).mean() - chance) / (1 - chance)) if chance < 1 else float("nan"),
            }
        )
    return Table(
        "agreement",
        "Table 3: runs given a change by ours (any kind and group, q <= 0.05) and by optimal partitioning of the log "
        "gap ratio of all parameters",
        "-",
        rows,
    )
