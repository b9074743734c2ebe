"""The settings that change a number. All else (where to store, how many workers) belongs to pipelines."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

from spectral_edge.errors import UsageError
from spectral_edge.kinds import KINDS, Kind

METHOD_VERSION: Final = 2
"""Raised whenever the same band under the same settings would give other numbers: the store's bands are analysed again.
"""

PASS_VERSION: Final = 1
"""Raised whenever the same checkpoints would give another band (what is summed, over which tensors): the store's bands
are of no use then, and checkpoints are read again."""

_UNSAID: Final = ("learning_rate_metric", "learning_rate_param", "metric_direction", "weight_decay_param")
"""Settings that are left out of the JSON, and so of the hash, as long as they are None: they came after the first
audits, whose hashes must stay what they are."""


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
        include: Kinds of tensors that are followed: `parameters`, `buffers`, `averaged` (EMA and SWA copies),
            `optimizer`, `tied` (a parameter under its second name). The thesis is about parameters alone (theory 8).
        metric_direction: Which values of the evaluation metric are better; None lets its name decide.
        learning_rate_metric: Name of the metric that holds the learning rate; None looks for a known one.
        learning_rate_param: Name of the parameter that holds the rate of the whole run, instead of a metric.
        weight_decay_param: Name of the parameter that holds the weight decay; None looks for a known one.

    Raises:
        UsageError: A value out of range.
    """

    window: int = 10
    lags: int = 0
    numerical_floor: float = 1e-6
    false_alarm_rate: float = 0.05
    rounding_limit: float = 0.1
    metric: str | None = None
    include: tuple[Kind, ...] = ("parameters",)
    metric_direction: Literal["higher", "lower"] | None = None
    learning_rate_metric: str | None = None
    learning_rate_param: str | None = None
    weight_decay_param: str | None = None

    def __post_init__(self) -> None:
        if self.window < 3:
            raise UsageError(f"`window` must be at least 3 updates, got {self.window}.")
        if self.lags == 0:
            object.__setattr__(self, "lags", 6 * self.window)
        if self.lags < self.window:
            raise UsageError(f"`lags` must be at least `window` ({self.window}), got {self.lags}.")
        if not 0 < self.false_alarm_rate < 1:
            raise UsageError(f"`false_alarm_rate` must lie between 0 and 1, got {self.false_alarm_rate}.")
        if self.metric_direction not in {None, "higher", "lower"}:
            raise UsageError(f"`metric_direction` must be higher or lower, got {self.metric_direction!r}.")
        if self.learning_rate_metric is not None and self.learning_rate_param is not None:
            raise UsageError("use one of `learning_rate_metric` and `learning_rate_param`, not both.")
        unknown = sorted(set(self.include) - set(KINDS))
        if unknown or not self.include:
            got = ", ".join(unknown) or "nothing"
            raise UsageError(f"`include` must name one or more of {', '.join(KINDS)}, got {got}.")
        # Order and repetition do not matter, and must not make another hash.
        object.__setattr__(self, "include", tuple(kind for kind in KINDS if kind in self.include))

    def as_json(self) -> str:
        """These settings and the versions of method and pass, as JSON with sorted keys."""
        versions = {"method_version": METHOD_VERSION, "pass_version": PASS_VERSION}
        told = {name: value for name, value in asdict(self).items() if value is not None or name not in _UNSAID}
        return json.dumps(told | versions, sort_keys=True)

    @property
    def hash(self) -> str:
        """Identifies these settings: 16 hexadecimal digits."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()[:16]


def same_pass(settings_json: str | None, settings: Settings) -> bool:
    """Whether a band stored under the settings `settings_json` is what `settings` would sum today, lags apart."""
    stored = json.loads(settings_json) if settings_json else {}
    asked = {"pass_version": PASS_VERSION, "include": list(settings.include)}
    return all(stored.get(key) == value for key, value in asked.items())
