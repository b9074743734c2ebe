"""Shares and areas with intervals. The unit is the run: windows of one run overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import binomtest, rankdata

RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Share:
    """`hits` of `total` runs, with the Clopper-Pearson interval, 95 %."""

    hits: int
    total: int

    def __str__(self) -> str:
        if self.total == 0:
            return "-"
        interval = binomtest(self.hits, self.total).proportion_ci()
        return f"{self.hits}/{self.total} [{interval.low:.2f}, {interval.high:.2f}]"


def area(higher: np.ndarray, lower: np.ndarray) -> float:
    """AUC: chance that a value of `higher` exceeds one of `lower`, ties half; NaN values are left out."""
    higher, lower = higher[np.isfinite(higher)], lower[np.isfinite(lower)]
    if len(higher) == 0 or len(lower) == 0:
        return float("nan")
    ranks = rankdata(np.concatenate([higher, lower]))
    return float((ranks[: len(higher)].sum() - len(higher) * (len(higher) + 1) / 2) / (len(higher) * len(lower)))


def bootstrap(per_run: Sequence[float]) -> tuple[float, float, float, int]:
    """Mean over runs, and its 95 % percentile interval when runs are drawn again; how many runs there are.

    With three runs such an interval is too short: it can be no wider than their range.
    """
    values = np.array([value for value in per_run if np.isfinite(value)])
    if len(values) == 0:
        return float("nan"), float("nan"), float("nan"), 0
    rng = np.random.default_rng(20260328)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high), len(values)


def told(per_run: Sequence[float]) -> str:
    """That as text."""
    mean, low, high, count = bootstrap(per_run)
    return "-" if count == 0 else f"{mean:.2f} [{low:.2f}, {high:.2f}] n={count}"
