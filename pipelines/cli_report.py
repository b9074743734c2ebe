"""The command `report`: a page over all runs, or the store in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_options import JsonOption, StoreOption, YesOption
from pipelines.settings import load_settings
from spectral_edge.errors import UsageError


def add_report(app: typer.Typer) -> None:
    """Give `app` the command `report`."""
    app.command()(report)


def report(  # noqa: PLR0913, PLR0917 - a command line has many options
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write. Asks before it replaces another kind of file.")
    ] = None,
    store: StoreOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    serve: Annotated[bool, typer.Option("--serve", help="Show the store in the browser until Ctrl-C.")] = False,
    host: Annotated[str, typer.Option(help="With --serve: address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="With --serve: port; 0 takes one that is free.")] = 8642,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --serve: name that a proxy asks for. Can be given repeatedly."),
    ] = None,
    anyone_may_read: Annotated[
        bool, typer.Option("--anyone-may-read", help="With --serve: allow a --host that others reach. No password.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="With --serve: of one question in SQL.")] = 30.0,
    open_: Annotated[bool, typer.Option("--open", help="With --serve: open the browser.")] = False,
) -> None:
    """Write one self-contained HTML page over all audited runs, or show the store in the browser. Changes nothing."""
    if serve == (output is not None):
        raise UsageError(
            "use one of --output and --serve.",
            next_step="spectral-edge report --output report.html, or spectral-edge report --serve.",
        )
    if serve and as_json:
        raise UsageError(
            "--json belongs to --output.", next_step="with --serve, JSON is at the addresses /api/runs and /api/query."
        )
    place = load_settings(store=store).store
    if output is not None:
        from pipelines.store_commands import write_page  # noqa: PLC0415 - they are slow to import

        write_page(place, output, ask=not yes, as_json=as_json)
        return
    from pipelines.browse_command import BrowseRequest, browse  # noqa: PLC0415 - they are slow to import

    browse(place, BrowseRequest(host, port, tuple(allowed_host or ()), anyone_may_read, timeout, open_))
