"""A proxy in front of a real HTTP server that does to chosen answers what networks and busy servers do."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_CHUNK = 64 << 10


@dataclass
class Fault:
    """What happens to the next `times` answers to requests `METHOD /path RANGE` that contain `to`."""

    to: str
    unless: str = "\0"
    """Requests that contain this pass unharmed."""
    times: int = 1
    status: int | None = None
    """Answered in place of the server, with `headers` and `text`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = "no"
    cut: int | None = None
    """The connection is closed after so many bytes of the body."""
    stall: int | None = None
    """Nothing more is sent after so many bytes of the body."""
    truncate: int | None = None
    """The body ends after so many bytes, as if there were no more, and no length is told."""
    corrupt: int | None = None
    """One bit of this byte of the body is changed."""
    lost: bool = False
    """The server has done what was asked, and the connection is closed before its answer."""
    mute: bool = False
    """The server has done what was asked, and nothing is answered."""
    extend: int = 0
    """So many bytes are sent after the body."""
    then: Callable[[], None] | None = None
    """Called when the answer has been spoilt."""


class FaultProxy:
    """Relays to `upstream`; `rewrite` is changed in text bodies (addresses that the server tells)."""

    def __init__(self, upstream: str, rewrite: Mapping[str, str]) -> None:
        self.upstream = urlsplit(upstream)
        self.rewrite = rewrite
        self.requests: list[str] = []
        self.credentials: set[str] = set()
        """What came in headers `Authorization`, in any request."""
        self.demanded: str | None = None
        """The only header `Authorization` that is let through; None lets all through."""
        self.closing = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    address: str

    def spoil(self, *faults: Fault) -> None:
        """Add faults; the first that matches a request and is not used up is taken."""
        self._faults += faults

    def take(self, line: str) -> Fault:
        """The fault for this request; one that does nothing where none matches."""
        with self._lock:
            for fault in self._faults:
                if fault.to in line and fault.unless not in line and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault(line)

    @property
    def is_spent(self) -> bool:
        """Whether every fault has happened as often as it was to."""
        return all(fault.times == 0 for fault in self._faults)

    def ranges(self, of: str) -> list[str]:
        """The ranges of the requests so far that contain `of`; empty for all bytes."""
        return [request.rpartition(" ")[2] for request in self.requests if of in request]


@contextmanager
def fault_proxy(
    upstream: str, rewrite: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[FaultProxy]:
    """A running proxy in front of the server at `upstream`; speaks HTTPS where `tls` is given."""
    proxy = FaultProxy(upstream, rewrite or {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    proxy.address = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in two pieces waits 40 ms for leave to send the second

    def do_GET(self) -> None:
        line = f"{self.command} {self.path} {self.headers.get('Range', '')}"
        self.proxy.requests.append(line)
        self.proxy.credentials.update(filter(None, [self.headers.get("Authorization")]))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.take(line)
        if self.proxy.demanded not in (None, self.headers.get("Authorization")):
            fault = Fault(line, status=401, text=f"not with {self.headers.get('Authorization')}")
        if fault.status is not None:
            self._answer(fault.status, dict(fault.headers), fault.text.encode(), None)
        else:
            self._relay(fault, sent)
        if fault.then is not None:
            fault.then()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _relay(self, fault: Fault, sent: bytes) -> None:
        upstream = http.client.HTTPConnection(self.proxy.upstream.netloc, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        upstream.request(self.command, self.path, sent or None, headers)
        response = upstream.getresponse()
        body = response.read()
        if "json" in response.headers.get("Content-Type", ""):
            for before, after in self.proxy.rewrite.items():
                body = body.replace(before.encode(), after.encode())
        if fault.corrupt is not None and fault.corrupt < len(body):
            body = body[: fault.corrupt] + bytes([body[fault.corrupt] ^ 1]) + body[fault.corrupt + 1 :]
        body = body[: fault.truncate] + bytes(fault.extend)
        told = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
        chunked = response.headers.get("Transfer-Encoding") == "chunked" or fault.truncate is not None
        if self.command == "HEAD":
            told["Content-Length"] = response.headers.get("Content-Length", "0")
        elif not chunked:
            told["Content-Length"] = str(len(body))
        upstream.close()
        if fault.mute:
            self.proxy.closing.wait(60)
        if fault.mute or fault.lost:
            self.close_connection = True
            return
        self._answer(response.status, told, body, fault, chunked=chunked)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None, *, chunked: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        limits = [] if fault is None else [limit for limit in (fault.cut, fault.stall) if limit is not None]
        with suppress(ConnectionError):
            if self.command == "HEAD":
                return
            self._send(body[: limits[0]] if limits else body, chunked=chunked)
            if not limits and chunked:
                self.wfile.write(b"0\r\n\r\n")
        if limits:
            if fault is not None and fault.stall is not None:
                self.proxy.closing.wait(60)
            self.close_connection = True

    def _send(self, body: bytes, *, chunked: bool) -> None:
        for start in range(0, len(body), _CHUNK):
            piece = body[start : start + _CHUNK]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        self.wfile.flush()
