"""The settings that change a number. All else (where to store, how many workers) belongs to pipelines."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

from spectral_edge.errors import UsageError

METHOD_VERSION: Final = 1
"""Raised whenever the same checkpoints under the same settings would give other numbers."""


@dataclass(frozen=True)
class Settings:
    """Settings of an analysis.

    Args:
        window: W, updates in a window (theory 1); at least 3.
        lags: L, the largest lag kept in the band (theory 2); 0 means 6 W. A later analysis may use any window up to
            L without reading a checkpoint again. Changes are tested in stretches of L + 1 updates, and with the 3 W
            of theory 2 such a stretch has too few independent blocks for a test to find anything (theory 9,
            docs/transitions.md).
        numerical_floor: sigma_j below this share of sigma_1 counts as zero (theory 3).
        false_alarm_rate: Chance, under the null of theory 9, that a run without any change is given one.
        rounding_limit: Largest `rounding_share` at which a window still gets a regime (theory 2).
        metric: Name of the evaluation metric to compare with; None lets the run's own metrics decide (theory 9).

    Raises:
        UsageError: A value out of range.
    """

    window: int = 10
    lags: int = 0
    numerical_floor: float = 1e-6
    false_alarm_rate: float = 0.05
    rounding_limit: float = 0.1
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.window < 3:
            raise UsageError(f"`window` must be at least 3 updates, got {self.window}.")
        if self.lags == 0:
            object.__setattr__(self, "lags", 6 * self.window)
        if self.lags < self.window:
            raise UsageError(f"`lags` must be at least `window` ({self.window}), got {self.lags}.")
        if not 0 < self.false_alarm_rate < 1:
            raise UsageError(f"`false_alarm_rate` must lie between 0 and 1, got {self.false_alarm_rate}.")

    def as_json(self) -> str:
        """These settings and the method's version, as JSON with sorted keys."""
        return json.dumps(asdict(self) | {"method_version": METHOD_VERSION}, sort_keys=True)

    @property
    def hash(self) -> str:
        """Identifies these settings: 16 hexadecimal digits."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()[:16]
