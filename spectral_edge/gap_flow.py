"""Is the gap damped? The fit dg/dt = a - b g on stretches of constant k* (theory 6; paper, Theorem 5.4).

The plain regression of dg/dt on g cannot answer: noise around a constant gap falls back to it by itself, so that
corr(g, dg/dt) < 0 without any damping. And windows overlap: each update is in W of them, so that noise lasts W windows.

So the past is asked: whether the gap one whole window ago lay above or below what it had been before that. That window
shares no update with the present one, and hence no noise. And what is explained by a is taken from the future alone
(forward deviations, Arellano and Bover 1995), so that nothing of the present noise gets into it either. Of the right
rate b, what is left of a difference has nothing to do with the past's side. All rates for which this cannot be denied
are the interval (Anderson and Rubin 1949): it stays honest where the data say little of b, by having no end.

The nulls without damping are a gap that walks or drifts freely, b = 0, and a constant gap seen through noise that lasts
less than a window, of which no b is right or wrong. benchmarks/gap_flow.py measures both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from spectral_edge.band import Matrix
from spectral_edge.series import Steps
from spectral_edge.spectrum import gap, k_star

BLOCK_WINDOWS: Final = 2
"""Length of the blocks whose sums are taken as independent, in W: windows in one block and in the next but one share
no update."""
FEWEST_BLOCKS: Final = 6
"""Fewer blocks leave their spread, and so the interval, to chance."""
LEVEL: Final = 0.95
"""Stated coverage of the interval of b."""
_LOWEST, _HIGHEST, _GRID = -1.0, 6.0, 700
"""Rates b that are tried, times the steps that a window spans: beyond 6 a deviation has died out within a window."""


@dataclass(frozen=True)
class GapFlow:
    """The fit of one stretch of consecutive full windows with one k*.

    Attributes:
        group: Parameter group.
        capped: Whether k* was searched among j <= W // 2 only (docs/transitions.md says why), or among all.
        first_step: Step at which the stretch's first window ends, optimizer steps.
        last_step: Step at which its last window ends.
        windows: Windows in it.
        k_star: Their k*.
        a: Of dg/dt = a - b g, parameter units a step; None where b is.
        b: Rate of damping, 1 / optimizer step; None where the data leave it open or the stretch is untestable.
        b_low: Lower end of its interval of stated coverage LEVEL; -inf where it has none, None where untestable.
        b_high: Upper end; inf where it has none: then not even an instantaneous return is excluded.
        correlation: Corr(g, dg/dt), the thesis's own measure. It is negative in pure noise: no evidence by itself.
        p_value: Of b = 0, two-sided: at most 0.05 where 0 lies outside of the interval. Damping is found where it is
            small and b > 0.
        untestable: Why nothing was fitted; None where it was.
    """

    group: str
    capped: bool
    first_step: int
    last_step: int
    windows: int
    k_star: int
    a: float | None = None
    b: float | None = None
    b_low: float | None = None
    b_high: float | None = None
    correlation: float | None = None
    p_value: float | None = None
    untestable: str | None = None

    @property
    def damped(self) -> bool:
        """Whether damping is found: b > 0, and 0 outside of its interval."""
        return self.b_low is not None and self.b_low > 0

    @property
    def testable(self) -> bool:
        """Whether the stretch is long enough to be fitted."""
        return self.untestable is None


def fewest_windows(window: int) -> int:
    """Windows that a stretch needs: 2 W of past for the first difference, then FEWEST_BLOCKS blocks."""
    return (2 + BLOCK_WINDOWS * FEWEST_BLOCKS) * window + 1


def gap_flows(
    group: str, steps: Steps, singular_values: Matrix, *, floor: float = 1e-6, capped: bool = True
) -> list[GapFlow]:
    """The fit of every stretch of constant k* of a group.

    Args:
        group: Its name, for the result.
        steps: Step at which each full window ends, strictly increasing, shape (n,).
        singular_values: Those of the consecutive full windows, descending, shape (n, W).
        floor: Singular values below this share of the first count as zero.
        capped: Search k* among j <= W // 2 only. Where False, k* is that of table `gaps`; in noise it then is most
            often the last pair, and stretches are short.
    """
    window = singular_values.shape[1]
    leading = singular_values[:, : window // 2 + 1] if capped else singular_values
    k = k_star(leading, floor)
    g = gap(singular_values, k)
    found = []
    for first, stop in _constant(k):
        flow = GapFlow(group, capped, int(steps[first]), int(steps[stop - 1]), stop - first, int(k[first]))
        found.append(_fitted(flow, steps[first:stop], g[first:stop], window))
    return found


def gap_flows_of_rows(
    rows: Sequence[Mapping[str, Any]], *, floor: float = 1e-6, capped: bool = True
) -> dict[str, list[GapFlow]]:
    """The fits of one run, by group, from its rows of table `gaps`; short windows are left out."""
    full: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["step"])):
        if not row["short"]:
            full.setdefault(str(row["group"]), []).append(row)
    return {
        group: gap_flows(
            group,
            np.array([row["step"] for row in of_group], dtype=np.int64),
            np.array([row["singular_values"] for row in of_group], dtype=np.float64),
            floor=floor,
            capped=capped,
        )
        for group, of_group in full.items()
    }


def fit(steps: Steps, g: Matrix, window: int, *, group: str = "", k: int = 0, capped: bool = True) -> GapFlow:
    """The fit of one series of gaps at the ends of overlapping windows of `window` updates, shapes (n,)."""
    flow = GapFlow(group, capped, int(steps[0]), int(steps[-1]), len(g), k)
    return _fitted(flow, steps, g, window)


def _fitted(flow: GapFlow, steps: Steps, g: Matrix, window: int) -> GapFlow:
    facts: dict[str, Any] = dict(vars(flow))
    doubt = _doubt(flow.k_star, g, window)
    if len(g) > 2 and np.isfinite(g).all():
        facts["correlation"] = _correlation(g[:-1], np.diff(g) / np.diff(steps))
    if doubt is not None:
        return GapFlow(**facts | {"untestable": doubt})
    moments = _Moments.of(steps, g, window)
    low, b, high = moments.interval()
    level = None if b is None else moments.level(b)
    return GapFlow(**facts | {"a": level, "b": b, "b_low": low, "b_high": high, "p_value": moments.p_value()})


def _doubt(k: int, g: Matrix, window: int) -> str | None:
    need = fewest_windows(window)
    if k < 0 or not np.isfinite(g).all():
        return "no gap: fewer than two singular values are resolved"
    if len(g) < need:
        return f"k* stays the same for {len(g)} windows, {need} are needed at W = {window}"
    if np.ptp(g) == 0:
        return "the gap does not move at all"
    return None


@dataclass(frozen=True)
class _Moments:
    """What the past says of each difference between neighbouring windows; m of them, arrays of shape (m,).

    `side` is +1 or -1: whether the gap W windows before lay above or below the mean of all up to then. With the sign
    as instrument the statistic has the same distribution for damped gaps and free walks (So and Shin 1999), where
    regression needs tables of its own. `elapsed` is in optimizer steps, `span` the steps of W updates.
    """

    side: Matrix
    before: Matrix
    after: Matrix
    elapsed: Matrix
    block_starts: NDArray[np.int64]
    span: float

    @classmethod
    def of(cls, steps: Steps, g: Matrix, window: int) -> _Moments:
        at = np.arange(2 * window, len(g) - 1)
        past_mean = (np.cumsum(g) / np.arange(1, len(g) + 1))[at - window]
        elapsed = np.diff(steps).astype(np.float64)
        blocks = len(at) // (BLOCK_WINDOWS * window)
        return cls(
            side=np.sign(g[at - window] - past_mean),
            before=g[at],
            after=g[at + 1],
            elapsed=elapsed[at],
            block_starts=np.linspace(0, len(at), blocks, endpoint=False, dtype=np.int64),
            span=window * float(np.median(elapsed)),
        )

    def p_value(self) -> float:
        """Two-sided, of b = 0."""
        ratio = _ratios(self._block_sums(np.zeros(1)))[0]
        return float(2 * student.sf(abs(ratio), len(self.block_starts) - 1))

    def interval(self) -> tuple[float, float | None, float]:
        """Lower end, estimate and upper end of b."""
        rates = np.linspace(_LOWEST, _HIGHEST, _GRID + 1) / self.span
        sums = self._block_sums(rates)
        moment = sums.mean(axis=1)
        excess = np.abs(_ratios(sums)) - student.ppf((1 + LEVEL) / 2, len(self.block_starts) - 1)
        allowed = np.flatnonzero(excess <= 0)
        crossings = np.flatnonzero((moment[:-1] < 0) != (moment[1:] < 0))
        b = _zero(rates, moment, int(crossings[0])) if len(crossings) else None
        if not len(allowed):
            if b is None:  # every rate is denied: the equation does not hold, and nothing is told of b
                return -np.inf, None, np.inf
            return float(rates[crossings[0]]), b, float(rates[crossings[0] + 1])  # hardly any noise
        first, last = int(allowed[0]), int(allowed[-1])
        low = -np.inf if first == 0 else _zero(rates, excess, first - 1)
        high = np.inf if last == _GRID else _zero(rates, excess, last)
        return low, b, high

    def level(self, b: float) -> float:
        """The a that goes with `b`."""
        left, reach = self._differences(np.array([b]))
        return float(left.sum() / reach.sum())

    def _differences(self, rates: Matrix) -> tuple[Matrix, Matrix]:
        """Of the solution g(t + s) = e^(-b s) g(t) + a (1 - e^(-b s)) / b: what a explains, and its factor, (r, m)."""
        decay = -rates[:, None] * self.elapsed
        # (1 - e^-x) / x, by its limit at 0.
        share = np.divide(-np.expm1(decay), -decay, out=np.ones_like(decay), where=decay != 0)
        return self.after - np.exp(decay) * self.before, share * self.elapsed

    def _block_sums(self, rates: Matrix) -> Matrix:
        """Sums over each block of side x what neither b nor a explains, for each rate: shape (r,) -> (r, blocks)."""
        left, reach = self._differences(rates)
        ahead = _sums_ahead(left) / _sums_ahead(reach)
        return np.asarray(np.add.reduceat(self.side * (left - ahead * reach), self.block_starts, axis=1))


def _ratios(sums: Matrix) -> Matrix:
    """Mean over its standard error, of each row."""
    error = sums.std(axis=1, ddof=1) / np.sqrt(sums.shape[1])
    return np.asarray(np.divide(sums.mean(axis=1), error, out=np.zeros(len(sums)), where=error > 0))


def _zero(x: Matrix, y: Matrix, i: int) -> float:
    """Where the line through points i and i + 1 crosses zero."""
    return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


def _sums_ahead(values: Matrix) -> Matrix:
    """Sum of each entry of a row and all after it."""
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1])


def _correlation(x: Matrix, y: Matrix) -> float | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _constant(k: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First index and the one behind the last of every stretch of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(k)) + 1).tolist(), len(k)]
    return ((first, stop) for first, stop in pairwise(edges) if stop > first)
