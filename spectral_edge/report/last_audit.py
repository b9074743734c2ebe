"""What the store held before the last audit, by its history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from spectral_edge.errors import SpectralEdgeError
from spectral_edge.report.view import moment
from spectral_edge.store import Store

PAUSE: Final = timedelta(hours=1)
"""Runs whose audits ended closer together than this belong to one audit."""

Before = tuple[list[dict[str, Any]] | str, str]
"""Rows of table `runs` before the last audit, or why they are not known; and when the last audit began."""


def last_audit_began(times: list[datetime]) -> datetime:
    """When the first run of the last audit was done: the earliest of `times` after the last pause."""
    began, *earlier = sorted(times, reverse=True)
    for time in earlier:
        if began - time > PAUSE:
            break
        began = time
    return began


def before_last_audit(store: Store, runs: pa.Table) -> Before | None:
    """What table `runs` held before the last audit; None where that was the store's first, or there was none.

    A store whose history was deleted, and in which all runs were audited in the last audit, looks like a new one.
    """
    times = [time for time in runs.column("audited_at").to_pylist() if time is not None]
    if not times:
        return None
    began = last_audit_began(times)
    everything = began == min(times)
    try:
        rows: list[dict[str, Any]] = store.at(began - timedelta(microseconds=1)).runs_table().to_pylist()
    except SpectralEdgeError:
        why = f"What the runs were before the last audit, of {moment(began)}, is no longer in the store's history."
        return None if everything else (why, moment(began))
    return None if everything and not rows else (rows, moment(began))
