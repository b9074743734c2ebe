"""Where the spectrum changed: onsets with intervals, effects, p-values, and the lead over a metric (theory 9).

What is reported is that the spectrum before a step is unlike the spectrum after it, by more than the order of the
run's own updates gives by chance. It says nothing of what the model can do, and foretells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from scipy.stats import false_discovery_control

from spectral_edge.arrangements import fewest_blocks
from spectral_edge.band import Band, Matrix
from spectral_edge.groups import CATEGORIES, TOTAL
from spectral_edge.permutation import Draws, Orders, Scanner, contrasts, permutation_scan, settle
from spectral_edge.settings import Settings
from spectral_edge.window_series import WindowSeries

KINDS: Final = ("gap_opening", "gap_collapse", "level_crossing", "rotation")

ONSET_LEVEL: Final = 0.8
"""The onset's interval reaches as far as the scan stays above this share of its maximum. Its coverage is measured by
benchmarks/transitions.py; see docs/transitions.md."""
EXCESS: Final = 3.1
"""Adjusted p-values are multiplied by this. Real updates of runs without an event are not exchangeable: their spectrum
goes on changing slowly, and small p-values come more often than the null gives them. Of 138 calibration runs of seven
kinds the 6th smallest adjusted p-value (rank rule of calibration.py for 5 %) was 0.0161 = 0.05 / 3.1. Chosen on these
runs alone; docs/calibration.md has what test runs, and each kind left out, say."""
RESOLUTION: Final = 0.02
"""Permutations are drawn until q-values are this small, or as small as `false_alarm_rate` where that is smaller. So a
stronger change is not told by a much smaller q-value; permutations are linear in its inverse."""
_USUAL_RATE: Final = 0.05


@dataclass(frozen=True)
class Change:
    """One change: between updates `update` - 1 and `update` of `group`, as far as can be told.

    Attributes:
        kind: One of KINDS.
        update: Index of the first update after the change.
        low: Lower end of the interval of `update`.
        high: Upper end of it.
        effect: Size in the statistic of the kind: difference of log gap ratio, share of windows whose k* differs, or
            difference of the log of the leading direction's angle per window.
        p_value: Chance of so large a change within the stretch tested, under the null of permutation.py.
        q_value: Adjusted for all stretches, kinds and groups tested in the run (Benjamini-Hochberg), times EXCESS.
    """

    group: str
    kind: str
    update: int
    low: int
    high: int
    effect: float
    p_value: float
    q_value: float


@dataclass(frozen=True)
class Tested:
    """What a run's test gives: the changes that hold, and how many stretches were looked at (0: run too short)."""

    changes: tuple[Change, ...]
    stretches: int


def fewest_updates(window: int) -> int:
    """Updates that a group needs before anything is tested: blocks of W // 2 enough for every kind by itself.

    With that many a clear change in the middle can be reported at the usual rate of 5 % where one group and one stretch
    are tested, whichever its kind (spectral_edge/arrangements.py). Windows on the two sides of a change, W // 2 at
    least, fit in as well.
    """
    block = window // 2
    return max(fewest_blocks(_USUAL_RATE / (EXCESS * len(KINDS)), block, sides=2) * block, 2 * (window + block - 1))


def find_changes(bands: Mapping[str, Band], settings: Settings, *, resolution: float = RESOLUTION) -> Tested:
    """Test every stretch of `lags` + 1 updates of the total and of each category for every kind of change.

    Layers are not tested: they would multiply what is tested at once, and so hide what the categories show.

    Args:
        bands: Of the run's groups.
        settings: Window, lags and rate.
        resolution: q-values above it are final, and those below it may lie lower than told; where `false_alarm_rate`
            is smaller, that. Whether a q-value is at most some rate of this size or larger does not depend on it.

    Returns:
        Changes whose q-value is at most `settings.false_alarm_rate`, neighbouring stretches with the same finding
        merged, by group and onset.
    """
    found: list[_Stretch] = []
    for group in _tested_groups(bands):
        found.extend(_stretches(group, bands[group], settings))
    if not found:
        return Tested((), 0)
    settle([stretch.draws for stretch in found], min(resolution, settings.false_alarm_rate) / EXCESS)
    adjusted = false_discovery_control(np.concatenate([stretch.draws.p_values for stretch in found]))
    per_stretch = np.minimum(EXCESS * adjusted, 1.0).reshape(len(found), len(KINDS))
    changes = [
        change
        for group in dict.fromkeys(stretch.group for stretch in found)
        for kind in range(len(KINDS))
        for change in _merged(
            [(stretch, q[kind]) for stretch, q in zip(found, per_stretch, strict=True) if stretch.group == group],
            kind,
            settings,
        )
    ]
    return Tested(tuple(sorted(changes, key=lambda change: (change.group != TOTAL, change.update))), len(found))


@dataclass(frozen=True)
class MetricChange:
    """Where a metric shifts most, whether or not by more than chance.

    Attributes:
        checkpoint: Index of the first checkpoint after the shift.
        low: Lower end of the interval of that index.
        high: Upper end of it.
        before: Mean of the metric at the checkpoints before it.
        after: Mean from there on.
        p_value: Chance of so large a shift under the null of permutation.py.
    """

    checkpoint: int
    low: int
    high: int
    before: float
    after: float
    p_value: float


def metric_change(values: Matrix, settings: Settings) -> MetricChange | None:
    """The largest sustained shift of a metric where it is more than chance, else None; see `largest_shift`."""
    found = largest_shift(values, settings)
    return found if found is not None and found.p_value <= settings.false_alarm_rate else None


def largest_shift(values: Matrix, settings: Settings) -> MetricChange | None:
    """The largest sustained shift of a metric known at each checkpoint, found as changes of the spectrum are.

    Args:
        values: The metric at the checkpoints, shape (n,); NaN where unknown.
        settings: Averages over `window` // 2 values on either side; significance as for the spectrum.

    Returns:
        None when it cannot be tested: unknown at some checkpoint, or too short.
    """
    edge = settings.window // 2
    if len(values) < fewest_updates(settings.window) or not np.isfinite(values).all():
        return None
    scan = permutation_scan(
        lambda orders: values[orders],
        lambda series: np.abs(_weighted(series, edge, 1))[:, None, :],
        len(values),
        edge,
        min(RESOLUTION, settings.false_alarm_rate),
    )
    peak, low, high = _peak(scan.values[0])
    at = peak + edge
    before, after = float(values[:at].mean()), float(values[at:].mean())
    return MetricChange(at, low + edge, high + edge, before, after, float(scan.p_values[0]))


@dataclass(frozen=True)
class _Stretch:
    group: str
    start: int
    stride: int
    draws: Draws


def _tested_groups(bands: Mapping[str, Band]) -> list[str]:
    categories = [name for name in CATEGORIES if name in bands]
    whole = [TOTAL] if TOTAL in bands else []
    return whole + (categories if len(categories) > 1 or not whole else [])


def _stretches(group: str, band: Band, settings: Settings) -> Iterator[_Stretch]:
    length = min(band.updates, settings.lags + 1)
    if length < fewest_updates(settings.window) or not (band.values[:, 0] > 0).all():
        return
    stride = max(1, length // 2)
    last = band.updates - length
    for start in sorted({*range(0, last + 1, stride), last}):
        gram = band.gram(np.array([start + length - 1]), length)[0]
        draws = Draws(partial(scanner, gram, settings.window), length, settings.window // 2)
        yield _Stretch(group, start, stride, draws)


def scanner(gram: Matrix, window: int) -> Scanner:
    """What scans a stretch with Gram matrix `gram`, rearranged, for each of KINDS."""
    edge, series = window // 2, WindowSeries(gram, window)

    def scan(orders: Orders) -> Matrix:
        log_ratio, position, log_angle = series(orders)
        opening = _weighted(log_ratio, edge, window)
        moved = sum(np.abs(_weighted((position == j).astype(np.float64), edge, window)) for j in range(edge))
        # An angle belongs to two windows, which together span one update more: one position less on either side.
        turning = np.abs(_weighted(log_angle, edge, window + 1))
        turning = np.pad(turning, ((0, 0), (1, 1)), constant_values=-np.inf)
        return np.stack([opening, -opening, np.asarray(moved) / 2, turning], axis=1)

    return scan


def _weighted(series: Matrix, edge: int, apart: int) -> Matrix:
    difference, weight = contrasts(series, edge, apart)
    return difference * weight


def _merged(tested: Sequence[tuple[_Stretch, float]], kind: int, settings: Settings) -> Iterator[Change]:
    """Significant stretches that follow each other are one change, placed where the evidence is strongest."""
    run: list[tuple[_Stretch, float]] = []
    for stretch, q_value in tested:
        if q_value <= settings.false_alarm_rate:
            if run and stretch.start - run[-1][0].start > stretch.stride:
                yield _change(run, kind, settings.window)
                run = []
            run.append((stretch, q_value))
    if run:
        yield _change(run, kind, settings.window)


def _change(run: Sequence[tuple[_Stretch, float]], kind: int, window: int) -> Change:
    best, q_value = min(run, key=lambda item: (item[0].draws.p_values[kind], -item[0].draws.values[kind].max()))
    values = best.draws.values[kind]
    peak, low, high = _peak(values)
    first = best.start + window // 2 + window - 1  # update after the change at position 0 of the scan
    return Change(
        group=best.group,
        kind=KINDS[kind],
        update=first + peak,
        low=first + low,
        high=first + high,
        effect=float(values[peak] / _weight_at(peak, len(values), window // 2)),
        p_value=float(best.draws.p_values[kind]),
        q_value=float(q_value),
    )


def _weight_at(position: int, positions: int, edge: int) -> float:
    before, after = edge + position, edge + positions - 1 - position
    return float(np.sqrt(before * after / (before + after)))


def _peak(values: Matrix) -> tuple[int, int, int]:
    """Where `values` is largest, and the ends of the stretch around it that stays above ONSET_LEVEL of the maximum."""
    peak = int(np.argmax(values))
    below = np.flatnonzero(values < ONSET_LEVEL * values[peak])
    before, after = below[below < peak], below[below > peak]
    return peak, int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(values) - 1
