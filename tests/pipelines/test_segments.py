"""The plan of what is on disk when: every checkpoint once, in order, and never too many bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fetching import plan_segments
from spectral_edge.errors import DiskFullError

SIZES = st.lists(st.integers(1, 1_000), min_size=1, max_size=60)


def simulated_peak(sizes: list[int], segments: tuple[range, ...], keep: int, *, ahead: bool) -> int:
    """Bytes on disk, event by event: fetch, perhaps fetch the next, read, delete."""
    on_disk: set[int] = set()
    peak = 0
    for number, segment in enumerate(segments):
        on_disk |= set(segment)
        if ahead and number + 1 < len(segments):
            on_disk |= set(segments[number + 1])
        assert set(range(max(0, segment.start - keep), segment.stop)) <= on_disk, "a file needed was deleted"
        peak = max(peak, sum(sizes[index] for index in on_disk))
        on_disk -= set(range(segment.stop - keep))
    return peak


@given(SIZES, st.integers(4, 20), st.integers(0, 20_000))
def test_every_checkpoint_once_in_order_within_the_limit(sizes: list[int], keep: int, extra: int) -> None:
    needed = max(sum(sizes[max(0, i - keep) : i + 1]) for i in range(len(sizes)))
    limit = needed + extra
    plan = plan_segments(sizes, keep, limit)
    assert [index for segment in plan.segments for index in segment] == list(range(len(sizes)))
    peak = simulated_peak(sizes, plan.segments, keep, ahead=plan.ahead)
    assert peak == plan.peak <= limit
    if sum(sizes) <= limit:
        assert len(plan.segments) == 1


@given(SIZES, st.integers(4, 20))
def test_too_small_a_limit_is_refused_with_both_settings_named(sizes: list[int], keep: int) -> None:
    needed = max(sum(sizes[max(0, i - keep) : i + 1]) for i in range(len(sizes)))
    with pytest.raises(DiskFullError, match=r"--max-disk.*--lags"):
        plan_segments(sizes, keep, needed - 1)


def test_fetches_ahead_only_where_little_is_read_twice() -> None:
    assert plan_segments([10] * 100, keep=4, limit=400).ahead
    assert not plan_segments([10] * 100, keep=30, limit=400).ahead
