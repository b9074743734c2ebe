"""The server's paths: GraphQL, file streams, bytes of artifacts and runs, uploads."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .digests import b64_digest, hex_of
from .faults import Reply
from .graph import Context, run_query
from .objects import File, Run, now
from .state import RefusedError
from .streams import take_in

NOT_FOUND = Reply(404, '{"error":"not found"}')
DENIED = Reply(403, '{"error":"permission denied","errors":[{"message":"permission denied"}]}')
NO_LOGIN = Reply(401, '{"error":"user is not logged in","errors":[{"message":"user is not logged in"}]}')


@dataclass
class Request:
    """A request as it came, without its credentials.

    Attributes:
        role: what its key allows: "write", "read", or None without a valid key.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    role: str | None
    operation: str | None = None
    query: str | None = None
    variables: Mapping[str, Any] | None = None


Route = Callable[[Context, Request, re.Match[str]], tuple[Reply, list[str]]]
ROUTES: list[tuple[str, re.Pattern[str], bool, Route]] = []


def _route(methods: str, pattern: str, *, login: bool) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        ROUTES.append((methods, re.compile(pattern), login, function))
        return function

    return register


def serve(context: Context, request: Request) -> tuple[Reply, list[str]]:
    """Answer a request; also what was wrong with it."""
    for methods, pattern, login, function in ROUTES:
        found = pattern.fullmatch(request.path)
        if found is None or request.method not in methods.split():
            continue
        if login and request.role is None:
            return NO_LOGIN, []
        try:
            return function(context, request, found)
        except RefusedError as refusal:
            return Reply(refusal.status, json.dumps({"error": str(refusal)})), []
    return NOT_FOUND, [f"no such path: {request.method} {request.path}"]


@_route("POST", "/graphql", login=True)
def _graphql(context: Context, request: Request, _: re.Match[str]) -> tuple[Reply, list[str]]:
    may_write = request.role == "write"
    result = run_query(context, request.query or "", request.variables or {}, may_write=may_write)
    return Reply(result.status, json.dumps(result.body), {"Content-Type": "application/json"}), result.problems


@_route("GET HEAD", "/|/healthz", login=False)
def _health(_context: Context, _request: Request, _: re.Match[str]) -> tuple[Reply, list[str]]:
    return Reply(200, "ok"), []


@_route("POST", "/files/([^/]+)/([^/]+)/([^/]+)/file_stream", login=True)
def _stream(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    if request.role != "write":
        return DENIED, []
    take_in(context.state.run(*found.groups()), request.variables or {})
    return Reply(200, '{"limits":{}}'), []


# Files of runs


@_route("GET HEAD", "/files/([^/]+)/([^/]+)/([^/]+)/(.+)", login=True)
def _run_file(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    entity, project, run, name = found.groups()
    file = context.state.run(entity, project, run).files.get(name)
    return (_bytes(request, file.data, name) if file else NOT_FOUND), []


@_route("PUT", "/upload/run/([^/]+)/([^/]+)/([^/]+)/(.+)", login=False)
def _put_run_file(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    entity, project, run, name = found.groups()
    put_run_file(context, context.state.run(entity, project, run), name, request.body)
    return Reply(200, ""), []


def put_run_file(context: Context, run: Run, name: str, data: bytes) -> None:
    """Give a run a file, in place of one of the same name."""
    before = run.files.get(name)
    run.files[name] = File(before.id if before else context.state.new_id("File"), name, data, now())


# Artifacts


@_route("GET HEAD", "/manifest/([^/]+)", login=False)
def _manifest(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    manifest = context.state.artifact(found[1]).manifest
    return _bytes(request, json.dumps(manifest).encode(), "manifest.json"), []


@_route("PUT", "/upload/manifest/([^/]+)", login=False)
def _put_manifest(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    context.state.artifact(found[1]).manifest = json.loads(request.body)
    return Reply(200, ""), []


@_route("GET HEAD PUT", "/store/([^/]+)/(.+)", login=False)
def _store(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    artifact, path = context.state.artifact(found[1]), found[2]
    if request.method == "PUT":
        expected = request.headers.get("content-md5")
        if expected is not None and expected != b64_digest(request.body):
            return Reply(400, '{"error":"the bytes do not have the MD5 that was sent with them"}'), []
        artifact.blobs[path] = request.body
        return Reply(200, ""), []
    data = artifact.blobs.get(path)
    return (NOT_FOUND if data is None else _bytes(request, data, path)), []


@_route("GET HEAD", "/artifactsV2/[^/]+/[^/]+/[^/]+/[^/]+(?:/([^/]+))?/([^/]+)/([0-9a-f]+)/[^/]+", login=True)
def _artifacts_v2(context: Context, request: Request, found: re.Match[str]) -> tuple[Reply, list[str]]:
    artifact, wanted = context.state.artifact(found[1] or found[2]), found[3]
    for path, entry in artifact.contents.items():
        if hex_of(str(entry["digest"])) == wanted and path in artifact.blobs:
            return _bytes(request, artifact.blobs[path], path), []
    return NOT_FOUND, []


def _bytes(request: Request, data: bytes, name: str) -> Reply:
    """Bytes with an ETag, or the range of them that was asked for."""
    tag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": kind}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if asked is None or asked[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return Reply(200, data, headers)
    first, last = _range(asked[1], asked[2], len(data))
    if first > last:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
