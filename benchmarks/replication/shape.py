"""Table 4: does the gap ratio rise, stay up, and collapse? A stated test.

R is the largest ratio sigma_j/sigma_(j+1) with j <= W/2, group by group, over the full windows. The run is cut at the
two places that make the middle stand out most: the statistic is the largest, over all cuts that leave at
least W windows in each of three stretches, of min(middle - first, middle - last), where each is the mean of log R over
its stretch. Its p-value comes from permuting the run's updates in blocks of W/2, as the product's own test does
(spectral_edge/permutation.py), so that any R that comes of updates in no particular order does not count.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.replication.intervals import Share
from benchmarks.replication.phases import events
from benchmarks.replication.runs import Run
from benchmarks.replication.table import Table
from spectral_edge.permutation import block_permutations
from spectral_edge.settings import Settings

PERMUTATIONS: Final = 199
LEVEL: Final = 0.05


@dataclass(frozen=True)
class Hill:
    """The best cuts of one series: windows `rise` … `fall` - 1 are the middle; `height` in log R."""

    height: float
    rise: int
    fall: int


def hill(log_ratio: np.ndarray, shortest: int) -> Hill:
    """The three stretches whose middle stands out most; height -inf when the series is too short."""
    n = len(log_ratio)
    sums = np.concatenate([[0.0], np.cumsum(log_ratio)])
    rise, fall = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    allowed = (rise >= shortest) & (fall - rise >= shortest) & (n - fall >= shortest)
    if not allowed.any():
        return Hill(-np.inf, 0, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, last = sums[rise] / rise, (sums[-1] - sums[fall]) / (n - fall)
        middle = (sums[fall] - sums[rise]) / (fall - rise)
        height = np.where(allowed, np.minimum(middle - first, middle - last), -np.inf)
    best = np.unravel_index(np.argmax(height), height.shape)
    return Hill(float(height[best]), int(best[0]), int(best[1]))


def log_gap_ratio(gram: np.ndarray, window: int) -> np.ndarray:
    """log R of each full window of the Gram matrix of all updates, shape (T - W + 1,)."""
    members = np.arange(len(gram) - window + 1)[:, None] + np.arange(window)
    eigenvalues = np.linalg.eigvalsh(gram[members[:, :, None], members[:, None, :]])[:, ::-1]
    sigma = np.sqrt(np.clip(eigenvalues, np.finfo(np.float64).tiny, None))
    return np.asarray(np.log(sigma[:, : window // 2] / sigma[:, 1 : window // 2 + 1]).max(axis=1))


def three_phases(gram: np.ndarray, settings: Settings) -> tuple[Hill, float]:
    """The best hill of a run and its p-value; NaN where the run is too short."""
    window = settings.window
    observed = hill(log_gap_ratio(gram, window), window)
    if not np.isfinite(observed.height):
        return observed, float("nan")
    rng = np.random.default_rng([20260328, len(gram)])
    orders = block_permutations(len(gram), window // 2, PERMUTATIONS, rng)
    as_high = sum(
        hill(log_gap_ratio(gram[np.ix_(order, order)], window), window).height >= observed.height for order in orders
    )
    return observed, (as_high + 1) / (PERMUTATIONS + 1)


@dataclass(frozen=True)
class Tested:
    """One run's hill: its height, p-value, and where its middle begins and ends in units of the step of the grok."""

    height: float
    p_value: float
    begins: float
    ends: float

    @property
    def holds(self) -> bool:
        return self.p_value <= LEVEL


def shape_table(runs: Sequence[Run], settings: Settings) -> Table:
    """Shares of runs in which the three phases hold, by family and group."""
    found: dict[tuple[str, str], list[Tested]] = defaultdict(list)
    for run in runs:
        grok = (events(run).generalised or math.nan) if events(run).grokked else math.nan
        for group in ("total", "attention"):
            if group not in run.grams:
                continue
            best, p_value = three_phases(run.grams[group], settings)
            if not math.isnan(p_value):
                steps = run.steps[[best.rise + settings.window, best.fall + settings.window - 1]]
                found[run.recipe.family, group].append(Tested(best.height, p_value, steps[0] / grok, steps[1] / grok))
    rows = [
        {
            "family": family,
            "group": group,
            "runs": len(tested),
            "three phases": str(Share(sum(one.holds for one in tested), len(tested))),
            "median R middle / R beside": float(np.exp(np.median([one.height for one in tested]))),
            "median p": float(np.median([one.p_value for one in tested])),
            "middle begins, steps / grok": _median([one.begins for one in tested if one.holds]),
            "middle ends, steps / grok": _median([one.ends for one in tested if one.holds]),
        }
        for (family, group), tested in found.items()
    ]
    return Table(
        "shape",
        "Table 4: rise, plateau, collapse of R (test: benchmarks/replication/shape.py)",
        "R rises, stays, and collapses in every family",
        rows,
        f"holds where p <= {LEVEL}; shares with Clopper-Pearson intervals; the middle's ends: medians where it holds",
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
