"""Prefect without configuration: a temporary server that lives exactly as long as this process.

Prefect needs a server to record flows. Where the user has named one (`PREFECT_API_URL` or a profile), that one is used
and nothing is started. Otherwise a server is started beside this process, on the database in `PREFECT_HOME`.

Prefect can start such a server by itself, but ends it from an `atexit` hook: after kill -9 it runs on for ever, and
what it logs while it is shut down lands on the user's terminal. So ours is tied to a pipe. The server reads its
standard input, whose other end only this process holds; the kernel closes that end however this process dies, and the
server then shuts down. Its log goes to a file in `PREFECT_HOME`.

Run as `python -m pipelines.prefect_server` this module is that server. With `HOST PORT` it is the one of
`spectral-edge serve`: at that address, with the page, and with the services that start what is scheduled.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from filelock import FileLock

from spectral_edge.errors import TerminalError, TransientError

if TYPE_CHECKING:
    import uvicorn

DEFAULTS: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command line reports runs itself; logs go to the API
}
"""Environment of an audit started from the command line, where the user has not set the variable."""

SERVER_DEFAULTS: Final = {
    # Task states wait in memory for this many seconds before they are written; the default is 5.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 15.0
"""How long the server may take to write down what it has received; it takes about one second."""
_LOG_BYTES: Final = 1_000_000


def set_environment_defaults() -> None:
    """Set :data:`DEFAULTS` where the user has not; before Prefect is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


class PrefectServer:
    """The temporary server of this process. Starting takes seconds, so start early and wait late."""

    def __init__(self, at: tuple[str, int] | None = None) -> None:
        self._at = at
        self._process: subprocess.Popen[str] | None = None
        self._answered = False

    def start(self) -> None:
        """Start the server in the background, unless the environment names one."""
        if os.environ.get("PREFECT_API_URL"):
            return
        self._process = subprocess.Popen(  # noqa: S603 - this Python, this module
            [sys.executable, "-m", __name__, *map(str, self._at or ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the audit, which then still has something to tell the server
        )
        # Prefect sends its last events when threads are shut down, which comes before the atexit hooks.
        atexit.register(self.stop)

    def wait(self, say: Callable[[str], None]) -> None:
        """Return once flows can be recorded; `say` is told what is being waited for.

        Raises:
            TerminalError: The temporary server did not start; the message names its log.
            TransientError: The server that the user has named does not answer.
        """
        if self._process is not None and self._process.stdout is not None:
            self._wait_for(self._process.stdout, say)
        require_answer()

    def _wait_for(self, answers: IO[str], say: Callable[[str], None]) -> None:
        say("waiting for Prefect's server (about 15 s the first time, then about 5 s)")
        log = answers.readline().strip()
        answer = answers.readline().strip()
        self._answered = True
        if not answer:
            self.stop()
            named = (
                "Prefect's temporary server" if self._at is None else f"Prefect's server on {self._at[0]}:{self._at[1]}"
            )
            raise TerminalError(
                f"{named} did not start.",
                file=log or None,
                next_step="read the end of that file, or name a running server in PREFECT_API_URL."
                if self._at is None
                else "read the end of that file; where the port is taken, give another with --port.",
            )
        if answer != _CONFIGURED:
            os.environ["PREFECT_API_URL"] = answer

    def stop(self) -> None:
        """Let the server write down what it has received, and end it; safe to repeat."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        process.stdout.close()
        if not self._answered:
            # Still starting, it ends by itself once it has; killed now, it might leave half a database.
            return
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_CONFIGURED: Final = "configured"
"""The server's answer when a profile names another server."""


def require_answer() -> None:
    """Ask the server that is configured by now whether it is there.

    Raises:
        TransientError: It does not answer.
    """
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - reads PREFECT_API_URL when imported
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - likewise
    from prefect.settings import get_current_settings  # noqa: PLC0415 - likewise

    refresh_global_settings_context()  # whoever imported Prefect before us has read the environment too early
    problem = get_client(sync_client=True).api_healthcheck()
    if problem is not None:
        raise TransientError(
            f"the Prefect server at {get_current_settings().api.url} does not answer: {problem}.",
            next_step="start it, or unset PREFECT_API_URL for a temporary one.",
        )


def main(*at: str) -> None:
    """Serve until standard input ends, at host and port or on a free port of the loopback address.

    Prints the path of the log, then the address or `configured`.
    """
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "WARNING"
    for name, value in SERVER_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from prefect.settings import get_current_settings  # noqa: PLC0415 - reads the environment set above

    settings = get_current_settings()
    _log_to(settings.home / "spectral-edge-server.log")
    if settings.api.url:
        _answer(_CONFIGURED)
        return
    with FileLock(settings.home / "spectral-edge-server.lock", timeout=START_SECONDS) as lock:
        if at:  # holds the lock to its end: the next one waits for it, and then finds the port free
            asyncio.run(_serve((at[0], int(at[1])), lambda: None, ephemeral=False))
        else:  # two servers must not create the database at the same time; after that they may share it
            asyncio.run(_serve(("127.0.0.1", 0), lock.release, ephemeral=True))


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grown = path.exists() and path.stat().st_size > _LOG_BYTES
    with path.open("wb" if grown else "ab") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    _answer(str(path))


def _answer(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _serve(at: tuple[str, int], on_started: Callable[[], None], *, ephemeral: bool) -> None:
    import uvicorn  # noqa: PLC0415 - the command line imports this module and never serves
    from prefect.server.api.server import create_app  # noqa: PLC0415 - likewise

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of the server before, killed a moment ago
        listener.bind(at)
        app = create_app(ephemeral=ephemeral, final=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=5))
        threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.05)
        on_started()
        if server.started:
            # A server that listens everywhere is reached here like this, too.
            host = "127.0.0.1" if at[0] in {"0.0.0.0", "::"} else at[0]  # noqa: S104 - compared, not bound
            _answer(f"http://{host}:{listener.getsockname()[1]}/api")
        await serving


def _stop_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


if __name__ == "__main__":
    main(*sys.argv[1:])
