"""Resolvers of a run's history: whole, sampled, and what is known about its keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from .graph import Context, resolves
from .objects import Run

Row = dict[str, object]


@resolves("Run", "historyTail")
def history_tail(run: Run, _: Context) -> str:
    """The last row, as a JSON list of JSON texts."""
    return json.dumps([json.dumps(row) for row in run.history[-1:]])


@resolves("Run", "eventsTail")
def events_tail(run: Run, _: Context) -> str:
    """The last row of the machine's metrics."""
    return json.dumps([json.dumps(row) for row in run.events[-1:]])


@resolves("Run", "historyKeys")
def history_keys(run: Run, _: Context) -> dict[str, object]:
    """Types and counts of all keys, and the last step."""
    kinds: dict[str, Counter[str]] = {}
    for row in run.history:
        for key, value in row.items():
            kinds.setdefault(key, Counter())[_kind(value)] += 1
    keys = {
        key: {"typeCounts": [{"type": kind, "count": count} for kind, count in sorted(counts.items())]}
        for key, counts in sorted(kinds.items())
    }
    return {"sets": [], "keys": keys, "lastStep": run.last_step}


def _kind(value: object) -> str:
    if isinstance(value, bool | None):
        return "nil" if value is None else "boolean"
    if isinstance(value, int | float):
        return "number"
    return (
        str(value.get("_type", "map")) if isinstance(value, Mapping) else "string" if isinstance(value, str) else "list"
    )


@resolves("Run", "history")
def history(
    run: Run, _: Context, samples: int | None = None, min_step: int | None = None, max_step: int | None = None
) -> list[str]:
    """Rows of min_step <= _step < max_step, thinned to `samples`."""
    rows = [row for row in run.history if _within(row, min_step, None if max_step is None else max_step - 1)]
    return [json.dumps(row) for row in thinned(rows, samples or 500)]


@resolves("Run", "events")
def events(run: Run, _: Context, samples: int | None = None) -> list[str]:
    """Rows of the machine's metrics, thinned to `samples`."""
    return [json.dumps(row) for row in thinned(run.events, samples or 500)]


@resolves("Run", "sampledHistory")
def sampled_history(run: Run, _: Context, specs: Sequence[str]) -> list[list[Row]]:
    """Per spec: the rows that have all its keys (and those keys only), thinned; both steps are included."""
    answers = []
    for text in specs:
        spec = json.loads(text)
        keys = spec["keys"]
        rows = [
            {key: row[key] for key in keys}
            for row in run.history
            if all(key in row for key in keys) and _within(row, spec.get("minStep"), spec.get("maxStep"))
        ]
        answers.append(thinned(rows, spec.get("samples") or 500))
    return answers


@resolves("Run", "parquetHistory")
def parquet_history(_run: Run, _context: Context, live_keys: Sequence[str]) -> dict[str, list[object]]:
    """No exported history: the SDK then asks for pages."""
    return {"parquetUrls": [], "liveData": []}


def _within(row: Row, first: int | None, last: int | None) -> bool:
    step = int(str(row["_step"]))
    return (first is None or first <= step) and (last is None or step <= last)


def thinned(rows: Sequence[Row], samples: int) -> list[Row]:
    """At most `samples` rows, evenly spread, the first and the last among them."""
    if len(rows) <= samples:
        return list(rows)
    if samples == 1:
        return [rows[0]]
    return [rows[round(i * (len(rows) - 1) / (samples - 1))] for i in range(samples)]
