"""`spectral-edge deploy`: registers the scheduled audits with a Prefect server, without questions."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from pipelines.prefect_server import require_answer, set_environment_defaults
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.terminal import print_json, print_table
from spectral_edge.errors import UsageError


@dataclass(frozen=True)
class DeployRequest:
    """What `spectral-edge deploy` was told.

    Attributes:
        sources: Audited by the schedules.
        pool: The work pool whose workers run them.
        folder: The working directory of flow runs, on the worker's machine.
        dry_run: Whether only to tell what would be done.
    """

    sources: tuple[str, ...]
    pool: str
    folder: str
    dry_run: bool


def deploy(request: DeployRequest, settings: AuditSettings, *, as_json: bool) -> int:
    """Register the schedules, print what was done, and return the exit code.

    Raises:
        UsageError: There are no sources, or no Prefect server is named.
        TransientError: The server does not answer.
    """
    if not request.sources:
        raise UsageError(
            "no sources to audit.",
            next_step='name some, or write `sources = ["mlflow:my-experiment"]` into spectral-edge.toml.',
        )
    for source in request.sources:
        located(source, settings)
    set_environment_defaults()
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes its settings when imported
    from prefect.settings import get_current_settings  # noqa: PLC0415 - likewise

    from pipelines.deployments import Place, planned, register  # noqa: PLC0415 - likewise

    if not get_current_settings().api.url:
        raise UsageError(
            "no Prefect server is named, and schedules need one that stays.",
            next_step="set PREFECT_API_URL, for instance to http://127.0.0.1:4200/api after `prefect server start`; or "
            "run `spectral-edge serve`, which needs no server.",
        )
    plans = planned(settings.schedules, request.sources)
    require_answer()
    with get_client(sync_client=True) as client:
        place = Place(request.pool, request.folder)
        done = register(client, plans, request.sources, place, act=not request.dry_run)
    if as_json:
        print_json(
            {"dry_run": request.dry_run, "sources": request.sources, "registered": [one.as_json() for one in done]}
        )
        return 0
    print_table(["kind", "name", "did", "says"], [one.as_json() for one in done])
    typer.echo(
        "nothing was registered: this is a dry run"
        if request.dry_run
        else f"start a worker where {request.folder} is: prefect worker start --pool {request.pool} --limit 1"
    )
    return 0
