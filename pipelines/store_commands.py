"""`spectral-edge query`, `runs` and `report`: what is read from a store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import typer

from integrations.selection import moment
from pipelines.terminal import print_csv, print_table
from spectral_edge.errors import UsageError
from spectral_edge.json_rows import to_json_rows
from spectral_edge.query import Limits, query
from spectral_edge.store import Store

Form = Literal["table", "json", "csv"]

RUNS_SQL: Final = """
select project, run_name, status, state, checkpoints, step_last, regime, transitions, audited_at, error,
    (
        select string_agg(told, ' ') from unnest(warnings) as each(told)
        where regexp_matches(told, '^(Changes were not tested|Checkpoints are too (sparse|uneven))')
    ) as advice
from runs order by project, run_name, run_id
"""
"""`advice` are the warnings that begin as spectral_edge.advice.KINDS_OF_ADVICE says."""


def print_query(store: str, sql: str, form: Form, *, at: str | None = None, seconds: float = Limits.seconds) -> None:
    """Print the answer to `sql` on stdout; `at` names an earlier time of the store, `seconds` when to give up.

    Raises:
        UsageError: SQL that is wrong, takes too long, or would change or read something other than the tables; or `at`
            is no time at which the store was there.
        NotFoundError: There is no store.
    """
    opened = Store.open(store, create=False)
    if at is not None:
        opened = opened.at(time_named(at, "--at", datetime.now(UTC)))
    answer = query(opened, sql, Limits(seconds=seconds))
    rows = to_json_rows(answer)
    if form == "json":
        typer.echo(rows)
        return
    show = print_csv if form == "csv" else print_table
    show(answer.column_names, json.loads(rows))


def time_named(text: str, flag: str, now: datetime) -> datetime:
    """The time that `text`, the value of `flag`, names.

    Raises:
        UsageError: It names none.
    """
    try:
        return moment(text, now)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"`{flag}` must be an age or a date, got {text!r}.", next_step="write 24h, 7d, or 2026-01-31T12:00"
        ) from error


def print_runs(store: str, form: Form) -> None:
    """Print one row for each audited run.

    Raises:
        NotFoundError: There is no store.
    """
    print_query(store, RUNS_SQL, form)


def write_page(store: str, output: Path) -> None:
    """Write the report of all runs to `output`, and print its path.

    Raises:
        NotFoundError: There is no store.
    """
    from spectral_edge.report import write_report  # noqa: PLC0415 - charts take seconds to import; a query has none

    write_report(Store.open(store, create=False), output)
    typer.echo(output)
