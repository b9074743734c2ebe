"""`spectral-edge serve`: scheduled audits on one machine, with no other service.

One process that a supervisor such as systemd can hold. It starts a Prefect server that lives as long as it does, on a
database in a folder that stays, and runs what is scheduled, one flow at a time, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer
from filelock import FileLock, Timeout

from pipelines.prefect_server import PrefectServer, set_environment_defaults
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.terminal import print_line, stderr_console
from spectral_edge.errors import UsageError

if TYPE_CHECKING:
    from pipelines.deployments import Plan

_POLL_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class ServeRequest:
    """What `spectral-edge serve` was told.

    Attributes:
        sources: Audited by the schedules.
        folder: Holds Prefect's database and log.
        host: The address that the server listens on.
        port: And its port.
    """

    sources: tuple[str, ...]
    folder: Path
    host: str
    port: int


def serve(request: ServeRequest, settings: AuditSettings) -> int:
    """Run scheduled audits until SIGTERM or SIGINT, and return the exit code.

    Raises:
        UsageError: There are no sources, another `serve` has the folder, or the address is not safe.
        TerminalError: The server does not start.
    """
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: sys.exit(0))
    _require_reasonable(request, settings)
    with _alone(request.folder):
        _set_environment(request.folder)
        server = PrefectServer(at=(request.host, request.port))
        server.start()
        try:
            server.wait(lambda text: print_line(stderr_console(), "serve:", "bold", text))
            _run(request, settings)
        finally:
            server.stop()
    return 0


def _require_reasonable(request: ServeRequest, settings: AuditSettings) -> None:
    if not request.sources:
        raise UsageError(
            "no sources to audit.",
            next_step='name some, or write `sources = ["mlflow:my-experiment"]` into spectral-edge.toml.',
        )
    for source in request.sources:
        located(source, settings)
    if os.environ.get("PREFECT_API_URL"):
        raise UsageError(
            "`serve` starts a Prefect server of its own, and PREFECT_API_URL names another.",
            next_step="unset it, or use that server: spectral-edge deploy, then prefect worker start.",
        )
    if not _is_loopback(request.host) and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise UsageError(
            f"whoever reaches {request.host} could start audits and read their logs without a password.",
            next_step="leave --host out, or set PREFECT_SERVER_API_AUTH_STRING to user:password.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes on one database would run each scheduled audit twice."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(folder / "serve.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            "another `spectral-edge serve` is running on this folder.",
            file=str(folder),
            next_step="end it, or give this one another --folder and --port.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _set_environment(folder: Path) -> None:
    """Before Prefect is imported. Flow runs get it, too."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    set_environment_defaults()
    os.environ["PREFECT_HOME"] = str(folder.resolve())
    os.environ["SPECTRAL_EDGE_TIED_TO_PARENT"] = "1"
    password = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if password:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", password)


def _run(request: ServeRequest, settings: AuditSettings) -> None:
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes its settings when imported

    from pipelines.deployments import limits, planned  # noqa: PLC0415 - likewise
    from pipelines.interrupted import start_again  # noqa: PLC0415 - likewise

    plans = planned(settings.schedules, request.sources)
    with get_client(sync_client=True) as client:
        again = start_again(client)
        limits(client, request.sources)
    address = os.environ["PREFECT_API_URL"].removesuffix("/api")
    for plan in plans:
        typer.echo(f"{plan.full_name}: {plan.when}")
    for name in again:
        typer.echo(f"{name}: was interrupted, runs again")
    asyncio.run(_until_told(plans, f"Prefect's page: {address} (Ctrl-C or SIGTERM ends)"))


async def _until_told(plans: Sequence[Plan], ready: str) -> None:
    from prefect.runner import Runner  # noqa: PLC0415 - see above

    runner = Runner(name="spectral-edge-serve", pause_on_shutdown=False, limit=1, query_seconds=_POLL_SECONDS)
    for plan in plans:
        await runner.aadd_deployment(plan.served())
    running = asyncio.create_task(runner.start())
    while not (runner.started or running.done()):
        await asyncio.sleep(_LOOK_SECONDS)
    told = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):  # after the runner's own handlers
        asyncio.get_running_loop().add_signal_handler(sign, told.set)
    typer.echo(ready)
    while not (told.is_set() or running.done()):
        await asyncio.sleep(_LOOK_SECONDS)
    if told.is_set():
        await runner.astop()  # flow runs are cancelled; what they had written to the store stays
    await running
