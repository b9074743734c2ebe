"""The commands for scheduled audits: `deploy` and `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_completion import complete_source
from pipelines.cli_options import JsonOption
from pipelines.settings import load_settings

_Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="What to audit. Default: `sources` in spectral-edge.toml.",
        metavar="[SOURCE...]",
        autocompletion=complete_source,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command()(deploy)
    app.command()(serve)


def deploy(
    sources: _Sources = None,
    work_pool: Annotated[
        str, typer.Option(metavar="NAME", help="Whose workers run the audits. Created if missing.")
    ] = "spectral-edge",
    folder: Annotated[
        str | None, typer.Option(help="Where workers run, with spectral-edge.toml. Default: this folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be registered.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Register scheduled audits with the Prefect server that PREFECT_API_URL names. Asks nothing.

    Nightly all runs, hourly the running and new ones, weekly the store's compaction, monthly a full scan.
    A second time it updates what it registered the first time.
    """
    settings = load_settings()
    from pipelines.deploy_command import DeployRequest  # noqa: PLC0415 - as in pipelines/cli.py
    from pipelines.deploy_command import deploy as run  # noqa: PLC0415 - likewise

    place = str(Path.cwd()) if folder is None else folder
    request = DeployRequest(tuple(sources or settings.sources), work_pool, place, dry_run)
    raise typer.Exit(run(request, settings, as_json=as_json))


def serve(
    sources: _Sources = None,
    folder: Annotated[Path, typer.Option(help="Where Prefect's database and log are kept.")] = Path(
        "spectral-edge-serve"
    ),
    host: Annotated[str, typer.Option(help="Address of Prefect's page.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's page.")] = 4200,
) -> None:
    """Run scheduled audits on this machine, with no other service, until Ctrl-C or SIGTERM.

    The same schedules as `deploy`. They and their history survive a restart, also after kill -9.
    """
    settings = load_settings()
    from pipelines.serve_command import ServeRequest  # noqa: PLC0415 - as in pipelines/cli.py
    from pipelines.serve_command import serve as run  # noqa: PLC0415 - likewise

    raise typer.Exit(run(ServeRequest(tuple(sources or settings.sources), folder, host, port), settings))
