"""Which step the time at which a model was logged tells, and when it tells none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.metric_times import steps_at

POINTS = [(10, 100), (20, 200), (30, 300)]


def test_the_step_of_the_last_point_before() -> None:
    assert steps_at([11, 25, 1000], POINTS) == (100, 200, 300)
    assert steps_at([10, 20, 30], reversed(POINTS)) == (100, 200, 300)


@pytest.mark.parametrize(
    ("times", "points"),
    [
        ([11, 21], []),
        ([9, 21], POINTS),  # before the first point
        ([11, 12], POINTS),  # two models at one step
        ([11, 21], [*POINTS, (15, 1)]),  # another metric counts epochs
        ([11, 21], [*POINTS, (40, 100)]),  # the run was resumed from an earlier step
        ([11, 21], [(10, 0), (20, 0)]),  # no metric tells a step
    ],
)
def test_what_is_ambiguous_is_not_told(times: list[int], points: list[tuple[int, int]]) -> None:
    assert steps_at(times, points) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))), st.lists(st.integers(0, 60), unique=True))
def test_steps_grow_with_time_and_were_logged_before(points: list[tuple[int, int]], times: list[int]) -> None:
    found = steps_at(sorted(times), points)
    if found is not None:
        assert list(found) == sorted(set(found))
        for time, step in zip(sorted(times), found, strict=True):
            assert step == max(each for at, each in points if at <= time)
