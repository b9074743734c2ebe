"""Table 5: does the gap move before the metric? Every change of the runs that grok, with the lead's interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.replication.order import reported
from benchmarks.replication.phases import events
from benchmarks.replication.runs import Run
from benchmarks.replication.table import Row, Table
from spectral_edge.settings import Settings

ORDERS = ("leads", "not established", "follows", "no metric onset")


def order_of(change: dict[str, object]) -> str:
    """What table `transitions` says of one change: an interval that holds 0 establishes no order."""
    low, high = change["lead_low"], change["lead_high"]
    if not isinstance(low, int) or not isinstance(high, int):
        return ORDERS[3]
    return ORDERS[0] if low > 0 else ORDERS[2] if high < 0 else ORDERS[1]


def lead_tables(runs: Sequence[Run], settings: Settings, work: Path) -> list[Table]:
    """Change by change, and counted: changes, and runs by their first change (total first)."""
    rows: list[Row] = []
    leads: list[int] = []
    changes, firsts, with_any = Counter[str](), Counter[str](), Counter[str]()
    grokked = [run for run in runs if not run.recipe.fine_tune_at and events(run).grokked]
    for run in grokked:
        found = sorted(reported(run, settings, work), key=lambda one: one["onset_step"])
        rows += [{"run": run.recipe.name, "order": order_of(change)} | change for change in found]
        changes.update(order_of(change) for change in found)
        firsts[order_of(found[0]) if found else "no change"] += 1
        leads += [found[0]["lead_steps"]] if found and found[0]["lead_steps"] is not None else []
        with_any.update({order_of(change) for change in found})
    counted: list[Row] = [
        {
            "order": name,
            "changes": changes[name],
            "runs with such a change": with_any[name],
            "runs, first change": firsts[name],
        }
        for name in (*ORDERS, "no change")
    ]
    before, same, after = (sum(np.sign(lead) == sign for lead in leads) for sign in (1, 0, -1))
    note = (
        f"by points alone, the first change precedes the metric in {before} runs, with it in {same}, after in {after}"
    )
    return [
        Table("lead_changes", "Table 5, change by change", "gap first", rows, "steps; lead = metric onset - gap onset"),
        Table(
            "lead",
            f"Table 5: the gap against held-out accuracy, {len(grokked)} grokking runs",
            "gap first",
            counted,
            note,
        ),
    ]
