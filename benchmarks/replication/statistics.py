"""What a regime could be read from: one number a window, for group `total` or another (theory 5; issue of regimes).

Names read as they are built: `A` is ||dG||_F / (eta gap); `A relative` takes eta in units of the run's peak; `sigma2`
has the square of the gap of singular values in the denominator (the paper's), `lambda` the gap of eigenvalues; `capped`
takes k* among j <= W/2, `plain` among all; `op` is the change of the operator X'X, the others are elementwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.replication.runs import Run
from spectral_edge import spectrum as sp
from spectral_edge.adiabatic import gram_change, gram_change_operator, relative_learning_rate
from spectral_edge.settings import Settings

HISTORY: Final = "||dG||/trG, own history"
NORM_HISTORY: Final = "update norm, own history"
BASELINES: Final = ("update norm", NORM_HISTORY, "step")
"""What any statistic has to beat: the norm of the last update, by itself and against the run's past, and time."""


@dataclass(frozen=True)
class WindowValues:
    """Full windows that have a full predecessor, by increasing end.

    Attributes:
        checkpoint: Index of the checkpoint at which each ends, shape (n,).
        sigma: Singular values, shape (n, W).
        values: Each statistic by name, shape (n,); NaN where undefined.
    """

    checkpoint: np.ndarray
    sigma: np.ndarray
    values: dict[str, np.ndarray]


def capped_k(sigma: np.ndarray, floor: float) -> np.ndarray:
    """k* among the ratios with j <= W/2: in noise the largest of all is most often the last (theory 3)."""
    return sp.k_star(sigma[:, : sigma.shape[1] // 2 + 1], floor)


def statistics(run: Run, settings: Settings, group: str = "total") -> WindowValues:
    """Every candidate at every full window of `group`."""
    width, floor = settings.window, settings.numerical_floor
    band = run.bands(settings)[group]
    ends = np.arange(width, band.updates)
    now, before = sp.spectrum(band, ends, width), sp.spectrum(band, ends - 1, width)
    elementwise, operator = gram_change(now, before), gram_change_operator(band, ends, width)
    rate = run.metric("learning_rate")
    trace = np.trace(now.gram, axis1=1, axis2=2)
    values: dict[str, np.ndarray] = {}
    for scale, eta in (("A", rate[ends + 1]), ("A relative", relative_learning_rate(rate)[ends + 1])):
        for cap, k in (("plain", sp.k_star(now.sigma, floor)), ("capped", capped_k(now.sigma, floor))):
            for reading, change in (("", elementwise), (" op", operator)):
                with np.errstate(divide="ignore", invalid="ignore"):
                    of_sigma = change / (eta * sp.gap(now.sigma, k) ** 2)
                    of_lambda = change / (eta * sp.gap(now.sigma**2, k))
                values[f"{scale} sigma2 {cap}{reading}"] = of_sigma
                values[f"{scale} lambda {cap}{reading}"] = of_lambda
    values["||dG||/trG"] = elementwise / trace
    values["||dG||/trG op"] = operator / trace
    values[HISTORY] = against_history(values["||dG||/trG"], width)
    values["update norm"] = np.sqrt(np.clip(band.values[ends, 0], 0.0, None))
    values[NORM_HISTORY] = against_history(values["update norm"], width)
    values["step"] = run.steps[ends + 1].astype(np.float64)
    return WindowValues(ends + 1, now.sigma, values)


def against_history(values: np.ndarray, fewest: int) -> np.ndarray:
    """Each value over the median of the earlier ones, of which there must be `fewest`; NaN before (docs/regimes.md)."""
    found = np.full(len(values), np.nan)
    for index in range(fewest, len(values)):
        found[index] = values[index] / np.median(values[:index])
    return found
