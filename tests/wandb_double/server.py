"""The double over HTTP: it reads requests, keeps the log of them, and answers, with the faults that were ordered."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from . import artifact_mutations, artifacts, histories, mutations  # noqa: F401  (they register their resolvers)
from .faults import Cut, Faults, Hang, Lost, Reply
from .graph import Context, Result, operation_name, run_query
from .routes import Request, serve
from .state import State

WRITE_KEY = "write-" + "0" * 40
READ_KEY = "read--" + "1" * 40
FEATURES = frozenset(
    {
        "ARTIFACT_COLLECTION_MEMBERSHIP_FILES",
        "ARTIFACT_DIGEST_ALGORITHM",
        "ARTIFACT_TAGS",
        "ARTIFACT_V2_DOWNLOAD_HANDLER_SUPPORTS_ARTIFACT_ID",
        "CLIENT_IDS",
        "FILESTREAM_GZIP",
        "LARGE_FILENAMES",
        "MARK_RUN_FILES_UPLOADED",
        "PROJECT_ARTIFACT_COLLECTION_MEMBERSHIP",
        "TOTAL_COUNT_IN_FILE_CONNECTION",
        "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
    }
)


@dataclass(frozen=True)
class Call:
    """A request that came; a status of 0 means that the answer did not arrive whole."""

    method: str
    path: str
    operation: str | None
    query: str | None
    variables: Any
    status: int


class Server(Faults):
    """The server and what it remembers.

    Args:
        entity: name of the user whose key is in use.
        page_cap: the most that a page holds, whatever was asked for.
        features: names of the server's features that are on.
        port: where to listen, 0 for any free port.
    """

    def __init__(
        self, entity: str = "ent", *, page_cap: int = 1000, features: Iterable[str] = FEATURES, port: int = 0
    ) -> None:
        super().__init__()
        self.entity = entity
        self.key, self.read_key = WRITE_KEY, READ_KEY
        self.keys = {WRITE_KEY: "write", READ_KEY: "read"}
        self.state = State(entity)
        self.calls: list[Call] = []
        self.problems: list[str] = []
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.http = _Http(self, port)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.context = Context(self.state, self.url, page_cap, frozenset(features))

    def start(self) -> None:
        """Listen, in a thread."""
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and end what hangs."""
        self.stopping.set()
        self.http.shutdown()
        self.http.server_close()

    def operations(self) -> list[str]:
        """Names of the GraphQL operations and streams that came, in order."""
        return [call.operation for call in self.calls if call.operation is not None]

    def execute(self, query: str, variables: Mapping[str, object]) -> Result:
        """Execute a request without HTTP, with a key that may write."""
        result = run_query(self.context, query, variables, may_write=True)
        self.problems += result.problems
        return result

    def handle(self, request: Request) -> tuple[Reply, int | None]:
        """Serve a request: the answer, and after how many bytes of it to cut the connection (None: never)."""
        call = self.take_call(request.operation, request.path)
        if call is not None:
            call()
        fault = self.take_fault(request.operation, request.path)
        if isinstance(fault, Hang):
            self.stopping.wait(fault.seconds)
        if isinstance(fault, int):
            fault = Reply(fault)
        with self.lock:
            reply = fault if isinstance(fault, Reply) else self._answer(request)
            cut = fault.after if isinstance(fault, Cut) else -1 if isinstance(fault, Lost) else None
            status = reply.status if cut is None else 0
            self.calls.append(
                Call(request.method, request.path, request.operation, request.query, request.variables, status)
            )
        return reply, cut

    def _answer(self, request: Request) -> Reply:
        try:
            reply, problems = serve(self.context, request)
        except (LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
            reply, problems = Reply(400, json.dumps({"error": repr(error)})), [f"{request.path}: {error!r}"]
        self.problems += problems
        return reply


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: Server, port: int) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: Any) -> None:
        """Connections that the client closes are no news; all else is."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.owner.problems.append(f"the double failed: {error!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in pieces waits 40 ms for the client's leave to send the next
    server: _Http

    def log_message(self, *_: object) -> None:
        """Requests are in the double's own log."""

    def _serve(self) -> None:
        request = self._read()
        reply, cut = self.server.owner.handle(request)
        if cut is not None:
            self.close_connection = True
        if cut == -1:
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.data if cut is None else reply.data[:cut])

    do_GET = do_POST = do_PUT = do_HEAD = do_PATCH = do_DELETE = _serve  # noqa: N815  (the base class's names)

    def _read(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        role = self.server.owner.keys.get(_key(headers.pop("authorization", "")))
        body = self._body(headers)
        request = Request(self.command, unquote(self.path.partition("?")[0]), headers, body, role)
        if request.path == "/graphql":
            asked = json.loads(body)
            request.query, request.variables = asked["query"], asked.get("variables") or {}
            request.operation = operation_name(asked["query"])
        elif request.path.endswith("/file_stream"):
            request.variables, request.operation = json.loads(body), "file_stream"
        return request

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while length := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(headers.get("content-length") or 0))
        return gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body


def _key(authorization: str) -> str:
    """The API key in an Authorization header, "" without one."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except ValueError:
            return ""
    return value if scheme.lower() == "bearer" else ""
