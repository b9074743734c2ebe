"""`spectral-edge report --serve`: a store in the browser, as it is now, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType
from typing import Final, NoReturn

import typer
import uvicorn

from pipelines.browse_app import Site
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError, UsageError
from spectral_edge.query import Limits
from spectral_edge.report.charts import chart_spec
from spectral_edge.report.page import content_policy
from spectral_edge.report.palette import PAGE
from spectral_edge.store import Store

PORT: Final = 8642
_NAME: Final = re.compile(r"[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]")
_CONNECTIONS: Final = 64
"""At once; who comes later is told that the server is busy."""
_LAST_SECONDS: Final = 2
"""For answers that are being sent when the server is told to end."""
_LIMITS: Final = Limits(memory="25%", answer_bytes=128 * 2**20)
"""Of one question; two are worked on at once."""


@dataclass(frozen=True)
class BrowseRequest:
    """What `report --serve` was told.

    Attributes:
        host: The address that the server listens on.
        port: And its port; 0: any that is free.
        names: Under which it is reached besides, as the proxy's name.
        anyone: Whether an address may be listened on that others reach.
        seconds: How long a question in SQL may take.
        show: Open the browser.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    names: tuple[str, ...] = ()
    anyone: bool = False
    seconds: float = 30.0
    show: bool = False


def browse(store: str, request: BrowseRequest) -> NoReturn:
    """Serve the pages of `store` until SIGTERM or SIGINT, and end the process.

    Raises:
        NotFoundError: There is no store.
        UsageError: The address is in use, is not of this machine, or would let others in.
    """
    _require_private(request)
    opened = Store.open(store, create=False)
    site = Site(opened, Limits(request.seconds, _LIMITS.memory, _LIMITS.answer_bytes))
    listening = _listening(request)
    hosts = ("localhost", "127.0.0.1", "[::1]", _in_address(request.host), *request.names)
    config = uvicorn.Config(
        site.application(hosts),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    address = f"http://{_in_address(_seen_as(request))}:{listening.getsockname()[1]}/"
    typer.echo(f"{opened.location.root}: {address} (Ctrl-C or SIGTERM ends)")
    sys.stdout.flush()
    if request.show:
        webbrowser.open(address)
    threading.Thread(target=_prepare, daemon=True).start()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: None)  # the server raises it once more when it has ended
    _Server(config, site).run(sockets=[listening])
    sys.stdout.flush()
    sys.stderr.flush()
    # A question that is still worked on would hold the process until its time is up. Nothing is lost with it.
    os._exit(0)


def _prepare() -> None:
    """What the first page of a run would take seconds for, and no other."""
    content_policy()
    chart_spec(PAGE)


class _Server(uvicorn.Server):
    """Tells the site, too, that it is to end."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._site.end()
        super().handle_exit(sig, frame)


def _require_private(request: BrowseRequest) -> None:
    for name in request.names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"`--allowed-host` must be a name such as audits.example.com, got {name!r}.")
    if _is_loopback(request.host):
        return
    if not request.anyone:
        raise UsageError(
            f"whoever reaches {request.host} could read this store: there is no password.",
            next_step="leave --host out and put a proxy that asks for one before it (docs/browse.md), or add "
            "--anyone-may-read.",
        )
    if _is_every_address(request.host) and not request.names:
        raise UsageError(
            f"{request.host} is every address of this machine, so that it is not known by which name it is asked for.",
            next_step="name it, as in --allowed-host audits.example.com, or give one address as --host.",
        )


def _listening(request: BrowseRequest) -> socket.socket:
    if not 0 <= request.port <= 65535:
        raise UsageError(f"`--port` must be a number from 0 to 65535, got {request.port}.")
    family = socket.AF_INET6 if ":" in request.host else socket.AF_INET
    try:
        return socket.create_server((request.host, request.port), family=family)
    except OSError as error:
        raise _named(error, request) from error


def _named(error: OSError, request: BrowseRequest) -> SpectralEdgeError:
    at = f"port {request.port} of {request.host}"
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"{at} is in use, perhaps by another `spectral-edge report --serve`.",
            next_step="end that, or give another --port; --port 0 takes one that is free.",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return AccessDeniedError(f"{at} may not be listened on.", next_step=f"leave --port out for {PORT}.")
    return UsageError(
        f"{at} cannot be listened on: {error.strerror or error}.",
        next_step="give an address of this machine as --host.",
    )


def _seen_as(request: BrowseRequest) -> str:
    return request.names[0] if _is_every_address(request.host) else request.host


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_every_address(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
