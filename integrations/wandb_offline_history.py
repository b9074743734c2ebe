"""The numbers that a W&B run logged, read from its transaction logs: kept by column, eight bytes a number."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from spectral_edge.series import MetricSeries, Steps

LARGEST_STEP: Final = 2**62


@dataclass
class History:
    """The numbers of the history, by column; rows are counted from 0 over all logs."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    columns: dict[str, tuple[array[int], array[float]]] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One more row."""
        for name, value in values.items():
            rows, numbers = self.columns.setdefault(name, (array("q"), array("d")))
            rows.append(len(self.steps))
            numbers.append(value)
        self.steps.append(step)

    def series(self, name: str, axis: str | None) -> MetricSeries:
        """Metric `name` by the metric `axis`; by W&B's own count of steps where that is None or was never logged."""
        if name not in self.columns:
            return MetricSeries.from_points(name, [], [])
        rows, values = (np.array(column) for column in self.columns[name])
        where, told = self._axis(axis)
        place = np.searchsorted(where, rows, side="right") - 1  # what the axis was last, as the SDK fills it in
        return MetricSeries.from_points(name, told[place[place >= 0]], values[place >= 0])

    def step_at(self, row: int, axis: str | None) -> int | None:
        """The step of row `row`, or of the last one before it that tells; None where no row does."""
        where, told = self._axis(axis)
        place = int(np.searchsorted(where, row, side="right")) - 1
        return int(told[place]) if place >= 0 else None

    def _axis(self, name: str | None) -> tuple[Steps, Steps]:
        """Rows that tell a step, and the steps they tell."""
        if name is None or name not in self.columns:
            return np.arange(len(self.steps)), np.array(self.steps, dtype=np.int64)
        rows, values = (np.array(column) for column in self.columns[name])
        is_step = (values > -LARGEST_STEP) & (values < LARGEST_STEP)
        return rows[is_step], values[is_step].astype(np.int64)
