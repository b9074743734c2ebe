"""Whether two audits say the same: integers and words exactly, numbers as far as the order of sums allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from spectral_edge.tables import RunTables

COSTS = ("bytes_read", "seconds_fetch", "seconds_gram", "seconds_analyse", "audited_at")
_ORDER = {
    "runs": ("run_id",),
    "inner_products": ("group", "step", "lag"),
    "gaps": ("group", "step"),
    "transitions": ("group", "onset_step", "kind"),
    "scorecard": ("prediction",),
    "metrics": ("role", "name", "step"),
}


def assert_same_audit(found: RunTables, expected: RunTables) -> None:
    """All tables but the costs: inner products to 1e-12 of the updates' norms, what is computed from them to 1e-6."""
    for table, order in _ORDER.items():
        keys = [(column, "ascending") for column in order]
        ours, theirs = (getattr(tables, table).sort_by(keys) for tables in (found, expected))
        assert ours.schema == theirs.schema
        assert ours.num_rows == theirs.num_rows, table
        for name in ours.column_names:
            if name not in COSTS and (table, name) != ("inner_products", "value"):
                _assert_same_column(ours[name], theirs[name], f"{table}.{name}")
    assert_same_products(found.inner_products, expected.inner_products)


def assert_same_products(found: pa.Table, expected: pa.Table) -> None:
    """Two tables `inner_products` of one run, to 1e-12 of the norms of the two updates."""
    ours, theirs = _products(found), _products(expected)
    assert ours.keys() == theirs.keys()
    steps = sorted({step for _, step, _ in theirs})
    for (group, step, lag), value in theirs.items():
        earlier = steps[steps.index(step) - lag]
        scale = np.sqrt(theirs[group, step, 0] * theirs[group, earlier, 0])
        assert abs(ours[group, step, lag] - value) <= 1e-12 * scale


def _products(table: pa.Table) -> dict[tuple[str, int, int], float]:
    rows = zip(*(table[name].to_pylist() for name in ("group", "step", "lag", "value")), strict=True)
    return {(group, step, lag): value for group, step, lag, value in rows}


def _assert_same_column(found: pa.ChunkedArray, expected: pa.ChunkedArray, name: str) -> None:
    for ours, theirs in zip(found.to_pylist(), expected.to_pylist(), strict=True):
        assert _is_same(ours, theirs), f"{name}: {ours} and {theirs}"


def _is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_is_same, ours, theirs))
    if isinstance(theirs, float) and isinstance(ours, float):
        return bool(np.isclose(ours, theirs, rtol=1e-6, atol=1e-9))
    return bool(ours == theirs)
