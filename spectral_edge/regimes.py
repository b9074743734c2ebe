"""The regime of each window, read from how fast its Gram matrix changes (theory 5, docs/regimes.md).

A regime is a reading of geometry, not of ability. It compares a window with the run's own past, because no absolute
threshold survives another checkpoint spacing. On kinds of runs that were held out neither this nor any other definition
of theory 5 told where the held-out metric moves, so `transition` and `unstable`, which earlier audits have, are read
no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from spectral_edge.band import Matrix
from spectral_edge.series import Steps, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.windows import Windows

Flags = NDArray[np.bool_]
Regime = Literal["plateau", "transition", "unstable", "forgetting", "undetermined"]

STEADY_BELOW: Final = 1.5
"""Change of the Gram matrix, relative to the median of the run's past, below which a window may be a plateau."""
SMALL_BELOW: Final = 0.6
"""Norm of the last update, relative to the median of the run's past, below which it may be one."""
UNSTABLE_AT: Final = 3.0
"""Change of the Gram matrix, relative to the median of the run's past, from which it may be forgetting."""
RATE_CHANGE_LIMIT: Final = 1.5
"""Learning rates within a window may differ by this factor; beyond, the schedule alone changes the Gram matrix."""
WORSE_BY: Final = 3.0
"""A metric got worse over a window when it did so by this many times its largest earlier loss over as many checkpoints
..."""
LOST: Final = 0.1
"""... and by this share of the range in which it had been."""


@dataclass(frozen=True)
class Reading:
    """The regime of one window and, where it is undetermined or forgetting, why."""

    regime: Regime
    reason: str | None = None


def read_regimes(windows: Windows, steps: Steps, record: TrainingRecord, settings: Settings) -> list[Reading]:
    """The regime of every window of a group.

    `plateau`: `gram_change_relative` is below STEADY_BELOW times its median over the group's earlier full windows, and
    `update_norm` below SMALL_BELOW times its own. `forgetting`: `gram_change_relative` is from UNSTABLE_AT times its
    median on, while the held-out metric got worse. All else is `undetermined`, as is a window for which
    :func:`doubts` has a reason.

    Args:
        windows: The group's windows.
        steps: Training step of each checkpoint, shape (T + 1,).
        record: Learning rate and metric.
        settings: Uses `window` and `rounding_limit`.
    """
    metric = _metric(record, steps)
    change = against_past(windows, windows.scalars["gram_change_relative"])
    norm = against_past(windows, windows.scalars["update_norm"])
    readings = []
    for index, doubt in enumerate(doubts(windows, steps, record, settings)):
        if doubt is not None:
            readings.append(Reading("undetermined", doubt))
            continue
        last = int(windows.ends[index]) + 1
        worse = change[index] >= UNSTABLE_AT and got_worse(metric[: last + 1], int(windows.updates[index]))
        name = record.metric.name if worse and record.metric is not None else None
        readings.append(_read(float(change[index]), float(norm[index]), name))
    return readings


def doubts(windows: Windows, steps: Steps, record: TrainingRecord, settings: Settings) -> list[str | None]:
    """Why each window gets no regime whatever it looks like; None where one may be told.

    The window is short, the past shorter than W windows, the learning rate unknown or changing within the window,
    nothing moved, or rounding makes up too much of the updates. Arguments are those of :func:`read_regimes`.
    """
    rate = record.learning_rate_at(steps)
    usable = _usable(windows)
    past = np.cumsum(usable) - usable
    told = []
    for index, end in enumerate(windows.ends):
        first = end + 1 - int(windows.updates[index])
        doubt = _doubt(windows, index, rate[first : end + 2], settings)
        if doubt is None and past[index] < settings.window:
            doubt = f"only {past[index]} earlier full windows to compare with, {settings.window} are needed"
        told.append(doubt)
    return told


def against_past(windows: Windows, values: Matrix) -> Matrix:
    """Each of `values` over the median of those of the earlier full windows, shape (n,); NaN where there are none."""
    usable = _usable(windows)
    found = np.full(len(values), np.nan)
    for index in range(len(values)):
        past = values[:index][usable[:index]]
        if len(past):
            with np.errstate(divide="ignore", invalid="ignore"):
                found[index] = values[index] / np.median(past)
    return found


def got_worse(metric: Matrix, updates: int) -> bool:
    """Whether a metric lost over its last `updates` checkpoints more than it ever had, and a good part of its range.

    Args:
        metric: Its value at each checkpoint up to the window's end, turned so that more is better; NaN where unknown.
        updates: In the window.
    """
    before = metric[:-updates]
    known = before[np.isfinite(before)]
    lost = metric[-updates - 1] - metric[-1]
    if len(known) == 0 or not np.isfinite(lost):
        return False
    earlier = before[:-updates] - before[updates:]
    earlier = earlier[np.isfinite(earlier)]
    usual = max(0.0, float(earlier.max())) if len(earlier) else 0.0
    return bool(lost > WORSE_BY * usual and lost > LOST * float(np.ptp(known)))


def _usable(windows: Windows) -> Flags:
    """Windows that can be a past to others: full, and with a full one before them."""
    return np.asarray(windows.full & np.isfinite(windows.scalars["gram_change_relative"]))


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


def _read(change: float, norm: float, got_worse: str | None) -> Reading:
    measured = f"Gram change {change:,.2f} x, update norm {norm:,.2f} x the median of the run's past"
    if got_worse is not None:
        return Reading("forgetting", f"{measured}; {got_worse} got worse")
    if change < STEADY_BELOW and norm < SMALL_BELOW:
        return Reading("plateau", measured)
    return Reading("undetermined", f"{measured}: too little to tell a regime reliably")


def _metric(record: TrainingRecord, steps: Steps) -> Matrix:
    """The held-out metric at the checkpoints, turned so that more is better; NaN where unknown."""
    if record.metric is None:
        return np.full(len(steps), np.nan)
    values = record.metric.at(steps)
    return values if record.higher_is_better else -values
