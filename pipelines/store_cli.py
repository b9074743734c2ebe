"""The commands over a store alone: query, compact, export and import. `pipelines/cli.py` adds them to its own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_completion import complete_project, complete_query, complete_run, complete_table
from pipelines.cli_options import CsvOption, JsonOption, StoreOption, YesOption, form_of
from pipelines.settings import load_settings
from spectral_edge.questions import QUESTIONS

_TABLES = (
    "Over tables runs, gaps, transitions, scorecard, metrics, inner_products, audit_log. Or the name of a question:"
)


class FileFormat(StrEnum):
    """What tables are exported as."""

    parquet = "parquet"
    csv = "csv"


def query(
    sql: Annotated[
        str,
        typer.Argument(metavar="SQL", help=f"{_TABLES} {', '.join(QUESTIONS)}.", autocompletion=complete_query),
    ],
    store: StoreOption = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As the store was then: 2026-01-31T12:00, or an age such as 2d.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after so long.")] = 600.0,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Answer one SQL query over the store. Nothing can be changed by it."""
    form = form_of(as_json=as_json, as_csv=as_csv)
    from pipelines.store_commands import print_query  # noqa: PLC0415 - duckdb takes a while, and `--help` needs none

    print_query(
        load_settings(store=store).store,
        sql,
        form,
        at=at,
        seconds=timeout,
    )


def compact(
    store: StoreOption = None,
    keep: Annotated[
        str, typer.Option(metavar="AGE", help="Leave files that were in use so recently; at least 1d.")
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sort many small files of the store into few, and delete files long out of use. Changes no row.

    Queries and audits can go on meanwhile. What goes is the history before --keep: `query --at` does not reach it.
    """
    from pipelines.upkeep import compact_store  # noqa: PLC0415 - as above

    compact_store(load_settings(store=store).store, keep, dry_run=dry_run, as_json=as_json)


def export(  # noqa: PLR0913, PLR0917 - one parameter a flag; typer fills them by name
    output: Annotated[Path, typer.Argument(help="A new folder for all tables, or a .parquet or .csv file.")],
    store: StoreOption = None,
    sql: Annotated[str | None, typer.Option(metavar="SQL", help="Write the answer to this query to one file.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Write this table to one file.", autocompletion=complete_table)
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(help="Only this project. Can be given repeatedly.", autocompletion=complete_project),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this run. Can be given repeatedly.", autocompletion=complete_run),
    ] = None,
    form: Annotated[FileFormat, typer.Option("--format", help="Of the files in a folder.")] = FileFormat.parquet,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write tables, or the answer to a query, to Parquet or CSV files. They are there as a whole or not at all.

    A folder must be new. A file that is there already is replaced after a question.
    """
    from pipelines.upkeep import ExportRequest, export_store  # noqa: PLC0415 - as above

    request = ExportRequest(output, sql, table, tuple(project or ()), tuple(run or ()), form.value)
    export_store(load_settings(store=store).store, request, ask=not yes, as_json=as_json)


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Another store, or a folder that `export` wrote.")],
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and tell what would be taken.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take the runs of SOURCE into the store. An audit that is newer here stays; can be repeated, and cut off anywhere.

    Asks before newer audits of SOURCE take the place of those here.
    SOURCE is not trusted: a run whose rows are not what an audit writes is refused, and the exit code is 1.
    """
    from pipelines.upkeep import import_source  # noqa: PLC0415 - as above

    opened = load_settings(store=store).store
    raise typer.Exit(import_source(opened, source, dry_run=dry_run, ask=not yes, as_json=as_json))


def add_query(app: typer.Typer) -> None:
    """Give `app` the command `query`."""
    app.command()(query)


def add_upkeep(app: typer.Typer) -> None:
    """Give `app` the commands `compact`, `export` and `import`."""
    app.command()(compact)
    app.command()(export)
    app.command("import")(import_)
