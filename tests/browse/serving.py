"""`spectral-edge report --serve` as it is typed, in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx

from pipelines.browse_app import Site
from spectral_edge.query import Limits
from spectral_edge.store import Store
from tests.e2e.command_line import CommandLine

LONG = "select count(*) from range(1000000000000)"
"""A question that is not answered within a test."""


@dataclass(frozen=True)
class Served:
    """A server, and what it serves."""

    address: str
    process: subprocess.Popen[str]
    folder: Path

    def get(self, path: str, headers: dict[str, str] | None = None, **told: object) -> httpx.Response:
        return httpx.get(self.to(path, **told), headers=headers, timeout=120)

    def to(self, path: str, **told: object) -> str:
        """The address of a page."""
        return self.address.rstrip("/") + path + (f"?{urlencode(told)}" if told else "")

    def end(self) -> tuple[int, str]:
        """SIGTERM; its exit code, and what it had said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def serving(store: Path, *options: str) -> Iterator[Served]:
    process = CommandLine(store.parent).start("report", "--serve", "--port", "0", "--store", str(store), *options)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(process.communicate(timeout=60)[1])
        yield Served(line.split(": ", 1)[1].split()[0], process, store)
    finally:
        process.kill()
        process.wait(60)


def asked(store: Store, *paths: str, seconds: float = 60.0) -> list[httpx.Response]:
    """Answers of the application to all of `paths` at once, without a server around it."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Site(store, Limits(seconds)).application(["here"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=120) as client:
            return list(await asyncio.gather(*(client.get(path) for path in paths)))

    return asyncio.run(ask())
