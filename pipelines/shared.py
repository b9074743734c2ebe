"""Runs that begin with the same checkpoints: a run that was forked, or resumed under another id.

What was measured of the one serves the other. That the checkpoints are the same is told by digests of their bytes
alone, never by names, sizes or steps; and where new ones follow, the inner products between the last L + 1 of them,
which are read once more, must be those in the store (`spectral_edge.resuming`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np

from integrations.tracker import CheckpointRef
from spectral_edge.resuming import beginning, stored_trajectory
from spectral_edge.settings import Settings, same_pass
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory

_FEWEST: Final = 3
"""Checkpoints of a trajectory."""


@dataclass(frozen=True)
class Shared:
    """The first checkpoints of a run, as they were measured in the run `of`."""

    trajectory: Trajectory
    of: RunKey


def shared_beginning(
    store: Store, analysis: Settings, refs: Sequence[CheckpointRef], contents: Sequence[str | None]
) -> Shared | None:
    """What the store knows of the longest beginning of `refs` that a run in it has too; None when of none.

    Args:
        store: Where runs are looked for.
        analysis: The bands must be what these settings would sum.
        refs: The checkpoints of one run.
        contents: Their digests, see `Tracker.contents`.
    """
    if not contents or contents[0] is None:
        return None
    found = [(_common(contents, theirs), key) for key, theirs in store.audits_of_content(contents[0])]
    for count, key in sorted(found, key=lambda each: (-each[0], each[1].tracker, each[1].project, each[1].run_id)):
        tables = store.read_run(key) if count >= _FEWEST else None
        # Another process may have written it since: what counts is what it says now.
        if tables is None or _common(contents, tables.summary["contents"] or ()) < count:
            continue
        trajectory = _measured(tables, refs[:count], analysis)
        if trajectory is not None:
            return Shared(trajectory, tables.key)
    return None


def _common(contents: Sequence[str | None], theirs: Sequence[str | None]) -> int:
    """How many checkpoints both begin with."""
    pairs = zip(contents, theirs, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] is not None and pair[0] == pair[1], pairs))


def _measured(tables: RunTables, refs: Sequence[CheckpointRef], analysis: Settings) -> Trajectory | None:
    summary, ends = tables.summary, np.unique(tables.inner_products["step"].to_numpy())
    if summary["status"] != "ok" or not same_pass(summary["settings"], analysis):
        return None
    steps = [summary["step_first"], *ends.tolist()]
    known = stored_trajectory(tables, steps, list(map(str, steps)), analysis.lags)
    return known and beginning(known, [ref.step for ref in refs], [ref.name for ref in refs])
