"""The web application of `spectral-edge report --serve`: a store's pages and JSON, read-only.

There is nothing to be changed and nobody to be known: all requests are GET, no cookie is set, and no state is kept.
What else keeps a stranger's page from using the reader's browser against the store:

- A request must name this server (`Host`), so that a name that is made to point here (DNS rebinding) is of no use.
- Other sites may link here, but not embed, fetch or frame (`Sec-Fetch-Site`, and the headers of every answer).
- Whatever is asked is bounded in time, memory and rows, and few questions are worked on at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import anyio
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spectral_edge.browse import pages
from spectral_edge.browse.answers import ROWS_AT_MOST, ROWS_SHOWN, first_rows
from spectral_edge.browse.runs import Wanted, listed, run_called, summary
from spectral_edge.errors import (
    NotFoundError,
    SpectralEdgeError,
    StoppedError,
    TransientError,
    UsageError,
)
from spectral_edge.export import Format, as_file
from spectral_edge.json_rows import to_json_rows
from spectral_edge.query import Limits, query
from spectral_edge.report.page import content_policy, run_chart_html
from spectral_edge.store import Store

QUESTIONS_AT_ONCE: Final = 2
"""Questions in SQL that are worked on at once; others wait."""
PAGES_AT_ONCE: Final = 4
"""The same for pages."""
_PAGE: Final = Limits(seconds=60.0, memory="25%")
"""What a page of our own questions may take."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer that does not say otherwise."""
_TYPES: Final[dict[Format, str]] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

_Made = TypeVar("_Made")


class Site:
    """The pages of one store.

    Args:
        store: Read anew for every request.
        limits: What a question in SQL may take.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self._place = store.location.root
        self._questions, self._pages = anyio.CapacityLimiter(QUESTIONS_AT_ONCE), anyio.CapacityLimiter(PAGES_AT_ONCE)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Answer at once whoever waits: the server ends."""
        self._ending.set()

    def application(self, hosts: Sequence[str]) -> Starlette:
        """These pages for who asks for one of `hosts`."""
        routes = [
            Route("/", self._overview),
            Route("/run/{name}", self._run),
            Route("/query", self._query),
            Route("/query.csv", self._file("csv")),
            Route("/query.parquet", self._file("parquet")),
            Route("/api/runs", self._api_runs),
            Route("/api/query", self._api_query),
            Route("/health", _health),
            Route("/favicon.ico", _no_picture),
        ]
        middleware = [
            Middleware(_WithHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(_FromHere),
        ]
        return Starlette(routes=routes, middleware=middleware, exception_handlers={SpectralEdgeError: self._wrong})

    async def _overview(self, request: Request) -> Response:
        wanted = _wanted(request)

        def made() -> str:
            found, about = listed(self._store, wanted, _PAGE), summary(self._store, _PAGE)
            return pages.overview_page(self._place, wanted, found, about)

        return _page(await self._in_thread(made, self._pages))

    async def _run(self, request: Request) -> Response:
        name = request.path_params["name"]

        def made() -> str:
            return run_chart_html(run_called(self._store, name, _PAGE), home="/")

        page = await self._in_thread(made, self._pages)
        return _page(page, policy=f"{content_policy()}; frame-ancestors 'none'")

    async def _query(self, request: Request) -> Response:
        sql, rows = request.query_params.get("sql", ""), _whole(request, "rows", ROWS_SHOWN, ROWS_AT_MOST)
        if not sql.strip():
            return _page(pages.query_page(self._place, pages.Asked(rows=rows)))

        def made() -> tuple[str, int]:
            started = time.monotonic()
            try:
                answer = first_rows(self._store, sql, rows, self._limits)
            except SpectralEdgeError as error:
                return pages.query_page(self._place, pages.Asked(sql, rows, error=error)), _status(error)
            asked = pages.Asked(sql, rows, answer, seconds=time.monotonic() - started)
            return pages.query_page(self._place, asked), 200

        page, status = await self._in_thread(made, self._questions)
        return _page(page, status)

    def _file(self, form: Format) -> Callable[[Request], object]:
        async def download(request: Request) -> Response:
            sql = _sql(request)
            made = await self._in_thread(lambda: as_file(query(self._store, sql, self._limits), form), self._questions)
            named = {"Content-Disposition": f'attachment; filename="answer.{form}"'}
            return Response(made, headers=named, media_type=_TYPES[form])

        return download

    async def _api_runs(self, request: Request) -> Response:
        wanted = _wanted(request)
        found = await self._in_thread(lambda: listed(self._store, wanted, _PAGE), self._pages)
        counts = {"total": found.total, "page": found.page, "pages": found.pages}
        return _json(f'{{"runs":{to_json_rows(found.table)},{json.dumps(counts)[1:]}')

    async def _api_query(self, request: Request) -> Response:
        sql, rows = _sql(request), _whole(request, "rows", ROWS_SHOWN, ROWS_AT_MOST)
        made = await self._in_thread(
            lambda: first_rows(self._store, sql, rows, self._limits).as_json(), self._questions
        )
        return _json(made)

    async def _in_thread(self, work: Callable[[], _Made], limiter: anyio.CapacityLimiter) -> _Made:
        """What `work` makes in a thread, unless the server ends before."""
        made = asyncio.ensure_future(anyio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True))
        ended = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait((made, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if made.done():
            return made.result()
        made.cancel()
        raise StoppedError("the server was told to end.", next_step="start it again, and then load this page again.")

    async def _wrong(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, SpectralEdgeError):
            raise error
        if request.url.path.startswith("/api/"):
            told = {"kind": type(error).__name__, "message": error.what, "file": error.file, "next": error.next_step}
            return _json(json.dumps({"error": told}), _status(error))
        return _page(pages.error_page(self._place, error), _status(error))


class _WithHeaders:
    """Gives every answer the headers of `_HEADERS` that it does not have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class _FromHere:
    """Refuses what a page of another site asks for in the reader's browser, but for following a link.

    Browsers tell by Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), to this machine and over HTTPS. Programs
    tell nothing, and are let through.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and not link:
                await PlainTextResponse("Other sites may only link here.", 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _page(text: str, status: int = 200, *, policy: str = "") -> Response:
    return HTMLResponse(text, status, {"Content-Security-Policy": policy or pages.policy()})


def _json(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="application/json")


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def _no_picture(_request: Request) -> Response:
    return Response(status_code=204)


def _wanted(request: Request) -> Wanted:
    told = request.query_params
    texts = {name: told[name] for name in ("search", "project", "result", "order") if told.get(name)}
    return Wanted(**texts, page=_whole(request, "page", 1, 10**6))


def _sql(request: Request) -> str:
    sql = request.query_params.get("sql", "")
    if not sql.strip():
        raise UsageError("no SQL was given.", next_step="give one SELECT, or the name of a question, as `sql`.")
    return sql


def _whole(request: Request, name: str, usual: int, most: int) -> int:
    """The whole number that the address gives as `name`."""
    text = request.query_params.get(name) or str(usual)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= most and len(text) <= 12):
        raise UsageError(f"`{name}` must be a whole number from 1 to {most:,}, got {text!r}.")
    return int(text)


def _status(error: SpectralEdgeError) -> int:
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, NotFoundError):
        return 404
    return 503 if isinstance(error, TransientError) else 500
