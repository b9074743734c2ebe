"""`spectral-edge compact`, `export` and `import`: what they do to a store, and what they print."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer

from pipelines import asking
from pipelines.store_commands import time_named
from pipelines.terminal import print_error, print_json, print_table
from pipelines.wording import count_text, plain_text
from spectral_edge.delta import quoted
from spectral_edge.errors import UsageError
from spectral_edge.export import Format, export_query, export_runs
from spectral_edge.importing import import_runs, runs_to_replace
from spectral_edge.store import Store
from spectral_edge.suggestions import meant
from spectral_edge.tables import SCHEMAS

_NAMED: Final = 5
"""Runs that a question names; of more it tells the number."""


def compact_store(store: str, keep: str, *, dry_run: bool, as_json: bool) -> None:
    """Compact the store and print what was done, table by table.

    Raises:
        UsageError: `keep` is not an age of a day or more.
        NotFoundError: There is no store.
    """
    now = datetime.now(UTC)
    age = now - time_named(keep, "--keep", now)
    told = [asdict(table) for table in Store.open(store, create=False).compact(keep=age, dry_run=dry_run)]
    if as_json:
        print_json({"dry_run": dry_run, "tables": told})
        return
    print_table(list(told[0]), told)
    if dry_run:
        typer.echo("Nothing was changed.")


@dataclass(frozen=True)
class ExportRequest:
    """What is written where."""

    output: Path
    sql: str | None
    table: str | None
    projects: tuple[str, ...]
    runs: tuple[str, ...]
    form: Format


def export_store(store: str, request: ExportRequest, *, ask: bool = True, as_json: bool) -> None:
    """Write what is asked for, and print where it is and how many rows it has.

    Raises:
        UsageError: The request contradicts itself; or something is at its output already, and it is a folder or, where
            `ask`, nobody can be asked.
        NotFoundError: There is no such store, project or run.
    """
    sql, narrowed = request.sql, request.projects or request.runs
    if request.table is not None:
        if sql is not None:
            raise UsageError("use one of --sql and --table, not both.", next_step="leave one of them out.")
        if request.table not in SCHEMAS:
            raise UsageError(f"there is no table {request.table!r}.", next_step=meant(request.table, SCHEMAS))
        sql = f"SELECT * FROM {request.table}" + _where(request)  # noqa: S608 - the table is one of ours, texts are quoted
    elif sql is not None and narrowed:
        raise UsageError("--project and --run do not go with --sql.", next_step="put them into its WHERE")
    opened = Store.open(store, create=False)
    if ask and sql is not None and request.output.exists():
        doing = f"{request.output} is there already: it would be replaced"
        asking.require_someone(doing, otherwise="name another file, or add --yes.")
        asking.ask(f"{doing}. Replace it?", if_not="nothing was written.")
    if sql is not None:
        rows = {request.table or "rows": export_query(opened, sql, request.output)}
    else:
        rows = export_runs(opened, request.output, request.form, request.projects, request.runs)
    if as_json:
        print_json({"output": str(request.output), "rows": rows})
    else:
        typer.echo(f"{request.output}: " + ", ".join(f"{count:,} of {name}" for name, count in rows.items()))


def _where(request: ExportRequest) -> str:
    parts = [
        f"{column} IN ({', '.join(map(quoted, values))})"
        for column, values in (("project", request.projects), ("run_id", request.runs))
        if values
    ]
    return " WHERE " + " AND ".join(parts) if parts else ""


def import_source(store: str, source: str, *, dry_run: bool, ask: bool = True, as_json: bool) -> int:
    """Import `source` and print what became of its runs; returns the exit code, 1 when some were refused.

    Raises:
        UsageError: Audits here would be replaced, `ask`, and nobody can be asked.
        NotFoundError, StoreError, StoreVersionError: As :func:`spectral_edge.importing.import_runs`.
    """
    if ask and not dry_run:
        _ask_to_replace(store, source)
    told = import_runs(Store.open(store, create=not dry_run), source, dry_run=dry_run)
    for run, why in told.refused.items():
        print_error(f"{run}: refused, {why}.")
    if as_json:
        print_json({"dry_run": dry_run, **asdict(told)})
    else:
        counts = {name: len(runs) for name, runs in asdict(told).items()}
        typer.echo(
            f"{'Would be a' if dry_run else 'A'}dded: {counts['added']}, replaced: {counts['replaced']}, "
            f"here already: {counts['present']}, newer here: {counts['kept']}, refused: {counts['refused']}."
        )
    return int(bool(told.refused))


def _ask_to_replace(store: str, source: str) -> None:
    """Ask whether the audits of `source` shall take the place of older ones here, where there are any."""
    replaced = runs_to_replace(Store.open(store), source)
    if not replaced:
        return
    named = f"{', '.join(replaced[:_NAMED])}{', ...' if len(replaced) > _NAMED else ''}"
    doing = f"{source} has newer audits of {count_text(len(replaced), 'run')} here ({named}): they would be replaced"
    asking.require_someone(doing, otherwise="add --yes, or --dry-run to see all of it.")
    asking.ask(f"{plain_text(doing)}. Replace them?", if_not="nothing was imported.")
