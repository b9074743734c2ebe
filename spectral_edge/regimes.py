"""The regime of each window, read from how fast its Gram matrix changes (theory 5, docs/regimes.md).

A regime is a reading of geometry, not of ability. It compares a window with the run's own past, because no absolute
threshold survives another checkpoint spacing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from spectral_edge.band import Matrix
from spectral_edge.series import Steps, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.windows import Windows

Regime = Literal["plateau", "transition", "unstable", "forgetting", "undetermined"]

TRANSITION_AT: Final = 1.5
"""Change of the Gram matrix, relative to the median of the run's past, from which a window is no plateau."""
UNSTABLE_AT: Final = 3.0
"""The same, from which it is more than a transition."""
RATE_CHANGE_LIMIT: Final = 1.5
"""Learning rates within a window may differ by this factor; beyond, the schedule alone changes the Gram matrix."""
WORSE_BY: Final = 3.0
"""A metric got worse over a window when it did so by more than this many of its median steps between checkpoints."""


@dataclass(frozen=True)
class Reading:
    """The regime of one window and, where it is undetermined or forgetting, why."""

    regime: Regime
    reason: str | None = None


def read_regimes(windows: Windows, steps: Steps, record: TrainingRecord, settings: Settings) -> list[Reading]:
    """The regime of every window of a group.

    `plateau`, `transition` and `unstable` split the ratio of `gram_change_relative` to its median over the group's
    earlier full windows at TRANSITION_AT and UNSTABLE_AT; `forgetting` is `unstable` while the held-out metric got
    worse. `undetermined` where the window is short, the past shorter than W windows, the learning rate unknown or
    changing within the window, nothing moved, or rounding makes up too much of the updates.

    Args:
        windows: The group's windows.
        steps: Training step of each checkpoint, shape (T + 1,).
        record: Learning rate and metric.
        settings: Uses `window` and `rounding_limit`.
    """
    rate = record.learning_rate_at(steps)
    metric = _metric(record, steps)
    change = windows.scalars["gram_change_relative"]
    past: list[float] = []
    readings = []
    for index, end in enumerate(windows.ends):
        first = end + 1 - int(windows.updates[index])
        doubt = _doubt(windows, index, rate[first : end + 2], settings)
        if doubt is None and len(past) < settings.window:
            doubt = f"only {len(past)} earlier full windows to compare with, {settings.window} are needed"
        if doubt is None:
            readings.append(_read(float(change[index] / np.median(past)), metric[first : end + 2], metric, record))
        else:
            readings.append(Reading("undetermined", doubt))
        if windows.full[index] and np.isfinite(change[index]):
            past.append(float(change[index]))
    return readings


def _doubt(windows: Windows, index: int, rate: Matrix, settings: Settings) -> str | None:
    if not windows.full[index]:
        return f"short window: {windows.updates[index]} of {settings.window} updates"
    if not np.isfinite(windows.scalars["gram_change_relative"][index]):
        return "no full window before this one to compare with"
    if windows.scalars["rounding_share"][index] > settings.rounding_limit:
        share = windows.scalars["rounding_share"][index]
        return f"rounding to the checkpoints' dtype makes up {share:.0%} of the updates' energy"
    if not np.isfinite(rate).all():
        return "learning rate unknown"
    if rate.min() <= 0 or rate.max() / rate.min() > RATE_CHANGE_LIMIT:
        return "learning rate changes within the window, which changes the Gram matrix by itself"
    return None


def _read(ratio: float, window_metric: Matrix, metric: Matrix, record: TrainingRecord) -> Reading:
    measured = f"Gram change {ratio:.2g} x the median of the run's past"
    if ratio < TRANSITION_AT:
        return Reading("plateau")
    if ratio < UNSTABLE_AT:
        return Reading("transition", measured)
    if record.metric is not None and _got_worse(window_metric, metric):
        return Reading("forgetting", f"{measured}; {record.metric.name} got worse")
    return Reading("unstable", measured)


def _metric(record: TrainingRecord, steps: Steps) -> Matrix:
    """The held-out metric at the checkpoints, turned so that more is better; NaN where unknown."""
    if record.metric is None:
        return np.full(len(steps), np.nan)
    values = record.metric.at(steps)
    return values if record.higher_is_better else -values


def _got_worse(window: Matrix, whole: Matrix) -> bool:
    steps = np.abs(np.diff(whole))
    steps = steps[np.isfinite(steps)]
    if len(steps) == 0 or not np.isfinite(window[[0, -1]]).all():
        return False
    return bool(window[0] - window[-1] > WORSE_BY * float(np.median(steps)))
