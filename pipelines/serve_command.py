"""`spectral-edge serve`: scheduled audits on one machine, with no other service.

One process that a supervisor such as systemd can hold. It starts a Prefect server that lives as long as it does, on a
database in a folder that stays, and runs what is scheduled, one flow at a time, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer
from filelock import FileLock, Timeout

from integrations.locate import require_source
from pipelines.named_trackers import places
from pipelines.prefect_server import PrefectServer, set_environment_defaults
from pipelines.settings import AuditSettings
from pipelines.terminal import print_line, stderr_console
from spectral_edge.errors import UsageError

if TYPE_CHECKING:
    from prefect.runner import Runner

    from pipelines.deployments import Plan

_POLL_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 15.0
"""How long the audit under way may take to stop: it ends itself within ten seconds (pipelines/stopping.py)."""
_PLANNED_SECONDS: Final = 60.0
"""After this time the server must have planned runs; it takes five seconds."""


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
        require_source(source, places(settings.trackers))
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
    os.environ["SPECTRAL_EDGE_TIED_TO_PARENT"] = str(os.getpid())
    password = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if password:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", password)


def _run(request: ServeRequest, settings: AuditSettings) -> None:
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes its settings when imported

    from pipelines.deployments import planned  # noqa: PLC0415 - likewise
    from pipelines.interrupted import nothing_is_planned, start_again  # noqa: PLC0415 - likewise
    from pipelines.registration import limits, register_limits  # noqa: PLC0415 - likewise

    plans = planned(settings.schedules, request.sources)
    with get_client(sync_client=True) as client:
        names = limits(request.sources, settings)
        register_limits(client, names)
        again = start_again(client, names)
    address = os.environ["PREFECT_API_URL"].removesuffix("/api")
    for plan in plans:
        typer.echo(f"{plan.full_name}: {plan.when}")
    for name in again:
        typer.echo(f"{name}: was interrupted, runs again")

    def look_at_plans() -> None:
        with get_client(sync_client=True) as client:
            if nothing_is_planned(client):
                tell_that_nothing_is_planned(request.folder)

    look = look_at_plans if any(plan.active for plan in plans) else None
    asyncio.run(_until_told(plans, look, f"Prefect's page: {address} (Ctrl-C or SIGTERM ends)"))


def tell_that_nothing_is_planned(folder: Path) -> None:
    """On stderr, where a supervisor's log has it."""
    print_line(
        stderr_console(),
        "warning:",
        "bold yellow",
        f"Prefect's server has planned no run within {_PLANNED_SECONDS:.0f} s, so that nothing will be audited by "
        f"schedule. Next: read the end of {folder / 'spectral-edge-server.log'}; with another version of SQLAlchemy or "
        "FastAPI than pip chose for spectral-edge its scheduler fails.",
    )


async def _until_told(plans: Sequence[Plan], look_at_plans: Callable[[], None] | None, ready: str) -> None:
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
    look_at = asyncio.get_running_loop().time() + _PLANNED_SECONDS
    while not (told.is_set() or running.done()):
        await asyncio.sleep(_LOOK_SECONDS)
        if look_at_plans is not None and asyncio.get_running_loop().time() > look_at:
            await asyncio.to_thread(look_at_plans)
            look_at_plans = None
    if told.is_set():
        await _stop(runner)
    await running


async def _stop(runner: Runner) -> None:
    """Cancel the flow run under way; what it had written to the store stays."""
    _, late = await asyncio.wait({asyncio.create_task(runner.astop())}, timeout=_STOP_SECONDS)
    if late:
        # It is inside of a read or a sum that no signal ends. As after kill -9 of this process, the server and the flow
        # run end with it, and the next `serve` starts the audit again.
        typer.echo(f"the audit under way did not stop within {_STOP_SECONDS:.0f} s: it is killed, and runs again")
        sys.stdout.flush()
        os._exit(0)
