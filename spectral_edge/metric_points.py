"""What the store keeps of a run's own metrics: their points, thinned to a bounded number, and a hash of the record.

Thinning keeps the first and the last point and, of each of equally filled stretches between, the lowest and the highest
(min-max aggregation: Jugel et al. 2014, M4, VLDB 7, 797). A peak is therefore never lost, which averages would do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from spectral_edge.series import MetricSeries, Steps, TrainingRecord

MOST_POINTS: Final = 500
"""Points of one series that the store keeps."""
MOST_FURTHER: Final = 6
"""Further metrics of one run that the store keeps, beside the evaluation metric and the learning rate."""


def thinned(series: MetricSeries, most: int) -> MetricSeries:
    """At most `most` points of `series`, which is returned as it is when it has no more.

    Kept are the first point, the last, and the lowest and highest of each of (most - 2) // 2 stretches of equally many
    points; of equal values the earliest. No value is changed, none is made up.

    Args:
        series: A metric by training step.
        most: At least 4.
    """
    count = len(series.steps)
    if count <= most:
        return series
    stretches = np.array_split(np.arange(count), (most - 2) // 2)
    lowest = [part[np.argmin(series.values[part])] for part in stretches]
    highest = [part[np.argmax(series.values[part])] for part in stretches]
    kept = np.unique([0, *lowest, *highest, count - 1])
    return MetricSeries(series.name, series.steps[kept], series.values[kept])


def metric_rows(record: TrainingRecord) -> Iterator[dict[str, Any]]:
    """The rows of table `metrics`, without the keys. What was logged as NaN or infinite is not among them."""
    for role, series, higher in _series(record):
        kept = thinned(series, MOST_POINTS)
        told = {"name": series.name, "role": role, "higher_is_better": higher}
        for step, value in zip(kept.steps.tolist(), kept.values.tolist(), strict=True):
            yield told | {"step": step, "value": value}


def _series(record: TrainingRecord) -> Iterator[tuple[str, MetricSeries, bool | None]]:
    if record.metric is not None:
        yield "metric", record.metric, record.higher_is_better
    if record.learning_rate is not None:
        yield "learning_rate", record.learning_rate, None
    for further in record.further:
        yield "other", further.series, further.higher_is_better


def record_hash(record: TrainingRecord, steps: Steps) -> str:
    """Names what an analysis of checkpoints at `steps` takes from `record`: the same, and its tables are the same.

    What was logged for later steps does not count until there are checkpoints there, so that a running run is not
    analysed anew with every point it logs. Nor do further metrics, which no number depends on.
    """
    digest = hashlib.sha256()
    told = (record.constant_learning_rate, record.higher_is_better, record.optimizer, record.weight_decay)
    digest.update(json.dumps(told).encode())
    for series in (record.metric, record.learning_rate):
        if series is None:
            digest.update(b"none")
            continue
        reached = series.steps <= (steps[-1] if len(steps) else 0)
        digest.update(json.dumps([series.name, int(reached.sum())]).encode(errors="surrogatepass"))
        for values in (series.steps[reached], series.values[reached], series.at(steps)):
            digest.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:16]
