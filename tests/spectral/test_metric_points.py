"""What is kept of a run's own metrics: ends and extremes, and a hash of what an analysis takes."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from spectral_edge.metric_points import MOST_POINTS, metric_rows, record_hash, thinned
from spectral_edge.series import FurtherMetric, MetricSeries, TrainingRecord

STEPS = np.arange(0, 1001, 100)


@st.composite
def logged(draw: st.DrawFn, most: int = 400) -> MetricSeries:
    count = draw(st.integers(0, most))
    gaps = draw(arrays.arrays(np.int64, count, elements=st.integers(1, 10**6)))
    values = draw(arrays.arrays(np.float64, count, elements=st.floats(allow_nan=False, allow_infinity=False)))
    return MetricSeries("m", np.cumsum(gaps), values)


@given(logged(), st.integers(4, 60))
def test_ends_and_extremes_stay_and_nothing_is_made_up(series: MetricSeries, most: int) -> None:
    kept = thinned(series, most)
    assert len(kept.steps) <= most
    assert set(zip(kept.steps, kept.values, strict=True)) <= set(zip(series.steps, series.values, strict=True))
    assert (np.diff(kept.steps) > 0).all()
    if len(series.steps) <= most:
        assert kept is series
        return
    assert (kept.steps[0], kept.steps[-1]) == (series.steps[0], series.steps[-1])
    assert (kept.values.min(), kept.values.max()) == (series.values.min(), series.values.max())


@given(logged(), st.integers(4, 60))
def test_no_part_of_a_run_goes_unseen(series: MetricSeries, most: int) -> None:
    kept = thinned(series, most)
    place = np.searchsorted(series.steps, kept.steps)
    assert len(series.steps) == 0 or np.diff(place, prepend=0, append=len(series.steps)).max() <= 2 * np.ceil(
        len(series.steps) / max((most - 2) // 2, 1)
    )


def test_a_peak_of_one_point_is_drawn() -> None:
    values = np.zeros(100_000)
    values[54_321] = 7.0
    kept = thinned(MetricSeries("loss", np.arange(100_000), values), MOST_POINTS)
    assert kept.values.max() == 7.0
    assert kept.steps[kept.values.argmax()] == 54_321


def test_rows_name_the_part_that_a_metric_plays() -> None:
    points = MetricSeries.from_points("val_acc", [0, 10, 20], [0.5, float("nan"), 0.7])
    loss = FurtherMetric(MetricSeries("loss", STEPS, STEPS * 1.0), higher_is_better=False)
    record = TrainingRecord(learning_rate=replace(points, name="lr"), metric=points, further=(loss,))
    rows = list(metric_rows(record))
    assert {(row["name"], row["role"], row["higher_is_better"]) for row in rows} == {
        ("val_acc", "metric", True),
        ("lr", "learning_rate", None),
        ("loss", "other", False),
    }
    assert [(row["step"], row["value"]) for row in rows if row["role"] == "metric"] == [(0, 0.5), (20, 0.7)]
    assert not list(metric_rows(TrainingRecord(constant_learning_rate=0.1)))


RECORD = TrainingRecord(
    learning_rate=MetricSeries("lr", STEPS, np.full(11, 0.1)),
    metric=MetricSeries("val_acc", STEPS, np.linspace(0, 1, 11)),
)


def _with_point(record: TrainingRecord, step: int, value: float) -> TrainingRecord:
    assert record.metric is not None
    steps, values = [*record.metric.steps, step], [*record.metric.values, value]
    return replace(record, metric=MetricSeries.from_points(record.metric.name, steps, values))


@pytest.mark.parametrize(
    "other",
    [
        _with_point(RECORD, 500, 0.9),
        _with_point(RECORD, 550, 0.55),
        replace(RECORD, metric=None),
        replace(RECORD, metric=replace(RECORD.metric, name="val_f1")),
        replace(RECORD, learning_rate=None),
        replace(RECORD, learning_rate=None, constant_learning_rate=0.1),
        replace(RECORD, higher_is_better=False),
        replace(RECORD, optimizer="adamw"),
        replace(RECORD, weight_decay=0.1),
        replace(RECORD, learning_rate=RECORD.metric, metric=RECORD.learning_rate),
    ],
)
def test_another_record_has_another_hash(other: TrainingRecord) -> None:
    assert record_hash(other, STEPS) != record_hash(RECORD, STEPS)


def test_what_lies_beyond_the_last_checkpoint_waits_for_one() -> None:
    later = _with_point(RECORD, 1200, 0.2)
    assert record_hash(later, STEPS) == record_hash(RECORD, STEPS)
    assert record_hash(later, np.append(STEPS, 1200)) != record_hash(RECORD, np.append(STEPS, 1200))
    seen = replace(RECORD, further=(FurtherMetric(later.metric),), warnings=("odd",))  # type: ignore[arg-type]
    assert record_hash(seen, STEPS) == record_hash(RECORD, STEPS)


def test_a_metric_logged_late_for_the_last_checkpoint_counts() -> None:
    early = replace(RECORD, metric=MetricSeries("val_acc", STEPS[:5], np.linspace(0, 0.4, 5)))
    assert record_hash(early, STEPS) != record_hash(RECORD, STEPS)
