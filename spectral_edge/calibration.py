"""Control runs tell how often a change is reported where none is, and at which setting it rarely is (theory 9).

The detector's rate is stated for updates whose order tells nothing. Real runs without an event need not be like that:
their updates shrink, turn and settle. So a user's own control runs are asked: the smallest q-value of each is a score,
and `false_alarm_rate` is a threshold on it. Where further runs are exchangeable with the n controls, a further run's
score lies below the k-th smallest of them with a chance of at most k / (n + 1), whatever the scores' distribution (the
rank rule of conformal prediction; Vovk, Gammerman and Shafer 2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.stats import beta, binomtest

from spectral_edge.band import Band
from spectral_edge.errors import UsageError
from spectral_edge.settings import Settings
from spectral_edge.transitions import KINDS, Change, find_changes

LEVEL: Final = 0.95
"""Of all intervals here."""
SMALLEST_Q: Final = 0.005
"""Permutations are drawn until a q-value is known to be this small or not: no setting below it is told."""
_BARELY_BELOW_ONE: Final = math.nextafter(1.0, 0.0)
_DIGITS: Final = 3


@dataclass(frozen=True)
class Strongest:
    """What stands out most in a run.

    Attributes:
        q_value: The smallest of all tests: the run is given a change where `false_alarm_rate` is at least this.
        change: The change that it belongs to; None where every q-value is 1 or nothing was tested.
        tests: Stretches times kinds that were tested; 0: the run is too short.
    """

    q_value: float
    change: Change | None
    tests: int


def strongest(bands: Mapping[str, Band], settings: Settings) -> Strongest:
    """The most significant change of a run, whether it would be reported or not.

    Args:
        bands: Of the run's groups.
        settings: Those of the analysis; nothing here depends on its `false_alarm_rate`.
    """
    tested = find_changes(bands, replace(settings, false_alarm_rate=_BARELY_BELOW_ONE), resolution=SMALLEST_Q)
    change = min(tested.changes, key=lambda one: (one.q_value, one.p_value), default=None)
    return Strongest(change.q_value if change else 1.0, change, tested.stretches * len(KINDS))


@dataclass(frozen=True)
class Rate:
    """`hits` of `total` runs, and the Clopper-Pearson interval of their share at LEVEL."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """Of the runs; NaN of none."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        if not self.total:
            return 0.0, 1.0
        found = binomtest(self.hits, self.total).proportion_ci(LEVEL)
        return float(found.low), float(found.high)


def rate_at(q_values: Sequence[float], setting: float) -> Rate:
    """How many runs with these smallest q-values are given a change when `false_alarm_rate` is `setting`."""
    return Rate(int((np.asarray(q_values) <= setting).sum()), len(q_values))


@dataclass(frozen=True)
class Calibration:
    """The setting under which at most `target` of further runs like the controls are given a change.

    Attributes:
        controls: How many control runs, n.
        target: Share asked for.
        rank: k: the setting lies just below the k-th smallest score.
        setting: For `false_alarm_rate`, rounded down to three digits; None where it would lie below SMALLEST_Q, so that
            only a longer look could tell it.
        expected: Chance k / (n + 1) that a further run is given a change, over the draw of the controls too; an upper
            bound where scores are equal.
        low: With these controls the chance is a fixed unknown number. It is this or more in 97.5 of 100 draws of
            controls whose scores are all different,
        high: and this or less in 97.5 of 100, whether or not they differ (Beta(k, n + 1 - k)).
    """

    controls: int
    target: float
    rank: int
    setting: float | None
    expected: float
    low: float
    high: float


def fewest_controls(target: float) -> int:
    """Control runs that are needed for `target`: the smallest n with target (n + 1) >= 1, 19 for 5 %.

    With fewer, even a run more striking than every control comes by chance more often than `target`.
    """
    return max(1, math.ceil(1 / target - 1e-9) - 1)


def calibrate(q_values: Sequence[float], target: float = 0.05) -> Calibration:
    """The setting of `false_alarm_rate` that keeps `target` on runs like the controls.

    Args:
        q_values: The smallest q-value of each control run.
        target: Share of runs without an event that may be given a change.

    Raises:
        UsageError: `target` out of range, or too few control runs for it.
    """
    if not 0 < target < 1:
        raise UsageError(f"`target` must lie between 0 and 1, got {target:g}.")
    n = len(q_values)
    if n < fewest_controls(target):
        raise UsageError(
            f"got {n} control run(s) that were tested for changes, and a target of {target:g} needs at least "
            f"{fewest_controls(target)}: with n of them no share below 1/(n + 1) can be told.",
            next_step=f"audit more control runs, or ask for a --target of {1 / (n + 1):.2g} or more.",
        )
    rank = math.floor(target * (n + 1) + 1e-9)
    below = _just_below(float(np.sort(q_values)[rank - 1]))
    low, high = beta.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], rank, n + 1 - rank).tolist()
    return Calibration(n, target, rank, below if below >= SMALLEST_Q else None, rank / (n + 1), low, high)


def _just_below(value: float) -> float:
    """The largest number of three digits that is smaller than `value`, which is at least SMALLEST_Q."""
    places = _DIGITS - 1 - math.floor(math.log10(value))
    if round(value * 10**places, 6) == 10 ** (_DIGITS - 1):
        places += 1  # below a power of ten, three digits reach one place further
    scaled = math.ceil(round(value * 10.0**places, 6)) - 1
    return float(round(scaled / 10.0**places, places))
