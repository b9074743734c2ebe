"""`spectral-edge query`, `runs` and `report`: what is read from a store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer

from integrations.selection import moment
from pipelines.asking import ask as ask_person
from pipelines.asking import require_someone
from pipelines.cli_options import Form
from pipelines.terminal import print_csv, print_json, print_note, print_table
from spectral_edge.errors import UsageError
from spectral_edge.json_rows import to_json_rows
from spectral_edge.query import Limits, query
from spectral_edge.store import Store

RUNS_SQL: Final = """
select project, run_name, status, state, checkpoints, step_last, regime, transitions, audited_at, error,
    (
        select string_agg(told, ' ') from unnest(warnings) as each(told)
        where regexp_matches(told, '^(Changes were not tested|Checkpoints are too (sparse|uneven))')
    ) as advice
from runs order by project, run_name, run_id
"""
"""`advice` are the warnings that begin as spectral_edge.advice.KINDS_OF_ADVICE says."""
RUNS_FIRST: Final = ("run_name", "status", "regime", "transitions", "error", "advice", "checkpoints")
"""Its columns by importance, for terminals that have no room for all."""
_HEAD_BYTES: Final = 16_384
_HEAD_OF_REPORTS: Final = b"Spectral edge report</title>"


def print_query(
    store: str,
    sql: str,
    form: Form,
    *,
    at: str | None = None,
    seconds: float = Limits.seconds,
    first: tuple[str, ...] = (),
) -> None:
    """Print the answer to `sql` on stdout; `at` names an earlier time of the store, `seconds` when to give up.

    `first` are its columns by importance, where a table has no room for all.

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
    if form == "csv":
        print_csv(answer.column_names, json.loads(rows))
        return
    print_table(answer.column_names, json.loads(rows), first=first)


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
    print_query(store, RUNS_SQL, form, first=RUNS_FIRST)
    if form == "table" and not Store.open(store, create=False).audits():
        print_note("the store holds no audited run yet. Next: spectral-edge audit SOURCE")


def write_page(store: str, output: Path, *, ask: bool = True, as_json: bool = False) -> None:
    """Write the report of all runs to `output`, and print its path.

    Args:
        store: Whose runs.
        output: The page. A report there is replaced; a file that is none only after a question.
        ask: Whether to ask.
        as_json: Print one JSON document on stdout instead of the path.

    Raises:
        NotFoundError: There is no store.
        UsageError: There is something else at `output`, and nobody to ask.
    """
    opened = Store.open(store, create=False)
    if ask and output.is_file() and not _is_report(output):
        doing = f"{output} is there, and is no report of spectral-edge: it would be replaced"
        require_someone(doing, otherwise="name another file with --output, or add --yes.")
        ask_person(f"{doing}. Replace it?", if_not="nothing was written.")
    from spectral_edge.report import write_report  # noqa: PLC0415 - charts take seconds to import; a query has none

    write_report(opened, output)
    if as_json:
        print_json({"output": str(output), "bytes": output.stat().st_size})
    else:
        typer.echo(output)


def _is_report(file: Path) -> bool:
    with file.open("rb") as opened:
        return _HEAD_OF_REPORTS in opened.read(_HEAD_BYTES)
