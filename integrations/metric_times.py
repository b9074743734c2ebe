"""The training step of models that were logged without one: what the run's metrics say of the time they were logged at.

That is safe only where all metrics of the run tell one and the same story: read in the order of time, their steps never
go back. A metric that counts epochs beside one that counts steps contradicts it, and so does a run that was resumed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Point = tuple[int, int]
"""Time in milliseconds and training step of one metric point."""


def steps_at(times: Sequence[int], points: Iterable[Point]) -> tuple[int, ...] | None:
    """The step of the last point at or before each of `times`, in milliseconds.

    Returns:
        None where the points do not tell: their steps go back, a time lies before all of them, or two times get the
        same step.
    """
    in_time = sorted(set(points))
    steps = [step for _, step in in_time]
    if steps != sorted(steps):
        return None
    behind = [bisect_right(in_time, time, key=lambda point: point[0]) for time in times]
    if not behind or min(behind) == 0:
        return None
    found = tuple(steps[count - 1] for count in behind)
    return found if len(set(found)) == len(found) else None
