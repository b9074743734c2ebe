"""A metric by training step, as the training loop logged it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class MetricSeries:
    """One logged metric: `steps` strictly increasing, `values` finite, both of shape (n,)."""

    name: str
    steps: Steps
    values: Values

    @classmethod
    def from_points(cls, name: str, steps: object, values: object) -> MetricSeries:
        """Build a series from raw points: sorts, keeps the last value of a repeated step, drops non-finite values."""
        raw_steps = np.asarray(steps, dtype=np.int64)
        raw_values = np.asarray(values, dtype=np.float64)
        keep = np.isfinite(raw_values)
        raw_steps, raw_values = raw_steps[keep], raw_values[keep]
        order = np.argsort(raw_steps, kind="stable")
        raw_steps, raw_values = raw_steps[order], raw_values[order]
        last_of_step = np.append(np.diff(raw_steps) > 0, True)[: len(raw_steps)]
        return cls(name, raw_steps[last_of_step], raw_values[last_of_step])

    def at(self, steps: Steps) -> Values:
        """Values at `steps` (shape (m,)); NaN where the log does not tell.

        Between two logged points the value is interpolated linearly. After the last logged point the last value holds
        for one logging interval (a loop that logs every 10 steps has said nothing yet of step 1,000 when its last
        point is step 990). Before the first logged point, and further after the last, nothing is known.
        """
        wanted = np.asarray(steps, dtype=np.int64)
        if len(self.steps) == 0:
            return np.full(wanted.shape, np.nan)
        values = np.interp(wanted, self.steps, self.values)
        interval = float(np.median(np.diff(self.steps))) if len(self.steps) > 1 else 0.0
        unknown = (wanted < self.steps[0]) | (wanted > self.steps[-1] + interval)
        return np.where(unknown, np.nan, values)

    def shares_axis_with(self, steps: Steps) -> bool:
        """Whether this series counts the same steps as the checkpoints at `steps`.

        Some loggers number metrics by epoch and checkpoints by optimizer step; joining those would be a guess. The
        axes are taken as the same when the series tells a value for at least half of the checkpoints and does not
        run past twice the last one.
        """
        if len(self.steps) == 0 or len(steps) == 0:
            return False
        told = np.isfinite(self.at(steps)).mean()
        return bool(told >= 0.5 and self.steps[-1] <= 2 * max(int(steps[-1]), 1))


@dataclass(frozen=True)
class FurtherMetric:
    """A metric to be looked at beside the evaluation metric; nothing is computed from it.

    `higher_is_better` is what the words of its name tell of its direction; None when they tell nothing.
    """

    series: MetricSeries
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """What a run logged about its own training, as far as it could be found; None where it could not.

    `constant_learning_rate` is set only when the run's parameters name a rate *and* a constant schedule.
    `higher_is_better` belongs to `metric`, a held-out evaluation metric. `further` metrics are only kept and drawn.
    """

    learning_rate: MetricSeries | None = None
    constant_learning_rate: float | None = None
    metric: MetricSeries | None = None
    higher_is_better: bool = True
    optimizer: str | None = None
    weight_decay: float | None = None
    warnings: tuple[str, ...] = ()
    further: tuple[FurtherMetric, ...] = ()

    def learning_rate_at(self, steps: Steps) -> Values:
        """Learning rate at `steps` (shape (m,)), NaN where unknown."""
        if self.learning_rate is not None:
            return self.learning_rate.at(steps)
        if self.constant_learning_rate is not None:
            return np.full(np.shape(steps), self.constant_learning_rate)
        return np.full(np.shape(steps), np.nan)
