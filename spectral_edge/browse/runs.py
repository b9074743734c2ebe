"""The runs of a store, found and counted by DuckDB, one page of them at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from spectral_edge.advice import UNTESTED
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.query import Limits, query
from spectral_edge.report.view import moment
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables

PAGE_ROWS: Final = 50
"""Runs on a page."""

RESULTS: Final = {
    "change": "with a reported change",
    "none": "without an established change",
    "short": "too short to test",
    "failed": "failed",
}
ORDERS: Final = {
    "name": ("project and name", "project, run_name, run_id, tracker"),
    "audited": ("last audit, latest first", "audited_at DESC NULLS LAST, project, run_name, run_id, tracker"),
    "q": ("smallest q first", "q_value NULLS LAST, project, run_name, run_id, tracker"),
}
"""What runs can be sorted by: in words, and in SQL."""

_ID: Final = "left(sha256(concat_ws(chr(10), tracker, project, run_id)), 12)"
"""As `anchor` of report/view.py."""

_LISTED: Final = f"""\
WITH strongest AS (
    SELECT tracker, project, run_id, "group", kind, onset_step, onset_low, onset_high, q_value,
        metric_name AS lead_metric, lead_steps, lead_low, lead_high,
        count(*) OVER (PARTITION BY tracker, project, run_id) AS changes
    FROM transitions
    QUALIFY row_number() OVER (PARTITION BY tracker, project, run_id ORDER BY q_value NULLS LAST, onset_step) = 1
), listed AS (
    SELECT {_ID} AS id, tracker, project, run_id, run_name, status, state,
        CASE
            WHEN status = 'failed' THEN 'failed'
            WHEN changes > 0 THEN 'change'
            WHEN coalesce(windows, 0) = 0
                OR len(list_filter(warnings, lambda told: starts_with(told, '{UNTESTED}'))) > 0 THEN 'short'
            ELSE 'none'
        END AS result,
        checkpoints, step_first, step_last, regime, optimizer, weight_decay, audited_at, error,
        coalesce(changes, 0) AS changes, "group", kind, onset_step, onset_low, onset_high, q_value,
        lead_metric, lead_steps, lead_low, lead_high,
        CASE WHEN json_valid(settings) THEN try_cast(settings ->> '$.false_alarm_rate' AS DOUBLE) END
            AS false_alarm_rate
    FROM runs LEFT JOIN strongest USING (tracker, project, run_id)
)
"""  # noqa: S608 - all that is put in is of this program, here and below
_TEXT: Final = (
    "lower(concat_ws(' ', project, run_name, run_id, tracker, state, status, result, regime, optimizer, "
    "replace(kind, '_', ' '), \"group\", lead_metric, error))"
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which runs, in which order, and which page of them.

    Attributes:
        search: Words that must all be somewhere in what is known of a run, in any case.
        project: Only this project; empty: all.
        result: Only this one of :data:`RESULTS`; empty: all.
        order: One of :data:`ORDERS`.
        page: From 1 on.
    """

    search: str = ""
    project: str = ""
    result: str = ""
    order: str = "name"
    page: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (("result", self.result, ("", *RESULTS)), ("order", self.order, tuple(ORDERS))):
            if value not in known:
                raise UsageError(f"`{name}` must be one of {', '.join(filter(None, known))}, got {value!r}.")
        if self.page < 1:
            raise UsageError(f"`page` must be at least 1, got {self.page}.")

    def conditions(self) -> tuple[str, dict[str, str]]:
        """A WHERE clause, and the texts that its parameters stand for."""
        words = {f"word{number}": word for number, word in enumerate(self.search.split())}
        chosen = {name: value for name in ("project", "result") if (value := getattr(self, name))}
        tests = [*(f"contains({_TEXT}, lower(${name}))" for name in words), *(f"{name} = ${name}" for name in chosen)]
        return f"WHERE {' AND '.join(tests)}" if tests else "", words | chosen


@dataclass(frozen=True)
class Listed:
    """One page of the runs that were wanted: columns of table `runs`, and those of the change with the smallest q."""

    table: pa.Table
    total: int
    page: int
    pages: int

    @property
    def rows(self) -> Sequence[Row]:
        """One mapping a run."""
        rows: Sequence[Row] = self.table.to_pylist()
        return rows


@dataclass(frozen=True)
class Project:
    """How many runs of a project there are by result, and when the last of them was audited."""

    name: str
    runs: int
    counts: Mapping[str, int]
    audited: str


@dataclass(frozen=True)
class Summary:
    """What is said of all runs together.

    Attributes:
        projects: By name.
        counts: Runs by result.
        tested: Runs that were tested for changes.
        by_chance: How many of those would be reported if none had a change; None where a rate is unknown.
    """

    projects: Sequence[Project]
    counts: Mapping[str, int]
    tested: int
    by_chance: float | None


def listed(store: Store, wanted: Wanted, limits: Limits) -> Listed:
    """The page that is wanted, or the first where there are not so many.

    Raises:
        StoreError: A file of the store is damaged.
    """
    where, texts = wanted.conditions()
    sql = f"""{_LISTED}
    SELECT * EXCLUDE (false_alarm_rate), count(*) OVER () AS total FROM listed {where}
    ORDER BY {ORDERS[wanted.order][1]} LIMIT {PAGE_ROWS} OFFSET {(wanted.page - 1) * PAGE_ROWS}
    """  # noqa: S608 - see above
    found = query(store, sql, limits, texts)
    if not found.num_rows and wanted.page > 1:
        return listed(store, replace(wanted, page=1), limits)
    total = found["total"][0].as_py() if found.num_rows else 0
    return Listed(found.drop_columns(["total"]), total, wanted.page, max(1, -(-total // PAGE_ROWS)))


def summary(store: Store, limits: Limits) -> Summary:
    """Counts over all runs of `store`.

    Raises:
        StoreError: A file of the store is damaged.
    """
    sql = f"""{_LISTED}
    SELECT project, result, count(*) AS runs, max(audited_at) AS audited_at, sum(false_alarm_rate) AS by_chance,
        count(false_alarm_rate) AS rates
    FROM listed GROUP BY project, result ORDER BY project
    """  # noqa: S608 - see above
    rows = query(store, sql, limits).to_pylist()
    tested = [row for row in rows if row["result"] in {"change", "none"}]
    runs = sum(row["runs"] for row in tested)
    known = runs > 0 and all(row["rates"] == row["runs"] for row in tested)
    return Summary(
        projects=[_project(name, list(some)) for name, some in groupby(rows, lambda row: str(row["project"]))],
        counts=_counts(rows),
        tested=runs,
        by_chance=float(sum(row["by_chance"] for row in tested)) if known else None,
    )


def run_called(store: Store, name: str, limits: Limits) -> RunTables:
    """The tables of the run whose `id` is `name`.

    Raises:
        NotFoundError: There is none, or no longer.
        StoreError: A file of the store is damaged.
    """
    sql = f"SELECT tracker, project, run_id, run_name FROM runs WHERE {_ID} = $name"  # noqa: S608 - see above
    found = query(store, sql, limits, {"name": name}).to_pylist()
    tables = store.read_run(RunKey(**found[0])) if found else None
    if tables is None:
        raise NotFoundError("no run of this store has this address.", next_step="look for it among all runs.")
    return tables


def _project(name: str, rows: Sequence[Row]) -> Project:
    counts = _counts(rows)
    latest = max((row["audited_at"] for row in rows if row["audited_at"]), default=None)
    return Project(name, sum(counts.values()), counts, moment(latest))


def _counts(rows: Sequence[Row]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["result"]] += row["runs"]
    return counts
