"""How the server starts and ends, and the stores that it reads."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from servers import S3_CREDENTIALS, s3

from pipelines.browse_app import Site
from spectral_edge.query import Limits
from spectral_edge.store import Store
from tests.browse.serving import LONG, Served, serving
from tests.e2e.command_line import CommandLine
from tests.report.synthetic_runs import make_run

RELEASED = Path(__file__).parents[1] / "store" / "released" / "0.1.0"


def asked(store: Store, *paths: str) -> list[httpx.Response]:
    """Answers of the application, without a server around it."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Site(store, Limits()).application(["here"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_sigterm_ends_it_in_the_middle_of_a_question(tmp_path: Path) -> None:
    Store.open(tmp_path / "store")
    with serving(tmp_path / "store", "--allowed-host", "audits.example.com") as server:
        assert "holds no audited run yet" in server.get("/").text
        assert server.get("/health", {"Host": "audits.example.com"}).text == "ok"
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(server.get("/api/query", sql=LONG)))
        thread.start()
        busy(server)
        assert server.end() == (0, "")
        thread.join()
    assert answers[0].status_code == 503
    assert answers[0].json()["error"]["kind"] == "StoppedError"


def busy(server: Served) -> None:
    """Wait until it works on a question."""
    threads = Path(f"/proc/{server.process.pid}/task")
    before = server.process.poll(), len(list(threads.iterdir()))
    deadline = time.monotonic() + 30
    while len(list(threads.iterdir())) <= before[1] and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "use one of --output and --serve"),
        (("--serve", "--output", "x.html"), 2, "use one of --output and --serve"),
        (("--serve", "--host", "0.0.0.0"), 2, "there is no password"),
        (("--serve", "--host", "::", "--anyone-may-read"), 2, "--allowed-host"),
        (("--serve", "--allowed-host", "*"), 2, "`--allowed-host` must be"),
        (("--serve", "--port", "BUSY"), 2, "is in use"),
        (("--serve", "--port", "99999"), 2, "from 0 to 65535"),
        (("--serve", "--store", "nothing"), 2, "nothing"),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, options: tuple[str, ...], code: int, said: str) -> None:
    Store.open(tmp_path / "spectral-edge-store")
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy_port = str(other.getsockname()[1])
        given = [busy_port if option == "BUSY" else option for option in options]
        answer = CommandLine(tmp_path).run("report", *given)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.errors[0]


def test_a_store_of_an_earlier_version_is_shown_and_stays_as_it_was(tmp_path: Path) -> None:
    shutil.copytree(RELEASED, tmp_path / "store")
    store = Store.open(tmp_path / "store", create=False)
    before = sorted(tmp_path.rglob("*"))
    runs = asked(store, "/api/runs")[0].json()["runs"]
    assert len(runs) == 3
    pages = asked(store, "/", "/query?sql=scorecard", *(f"/run/{row['id']}" for row in runs))
    assert [page.status_code for page in pages] == [200] * 5
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_on_s3_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3("audits") as address:
        for name, value in {**S3_CREDENTIALS, "AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        store = Store.open("s3://audits/here")
        store.write_run(make_run("far away", checkpoints=16, change_at=8, groups=("total",)))
        (row,) = asked(store, "/api/runs")[0].json()["runs"]
        overview, run, answer = asked(store, "/", f"/run/{row['id']}", "/query?sql=transitions")
    assert "far away" in overview.text
    assert "s3://audits/here" in overview.text
    assert 'class="verdict v-change"' in run.text
    assert "gap_opening" in answer.text


def test_a_damaged_store_is_told_and_not_a_traceback(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(make_run("lost", checkpoints=3, groups=(), change_at=None))
    for file in (tmp_path / "store" / "runs").rglob("*.parquet"):
        file.write_bytes(b"not Parquet")
    page, told = asked(store, "/", "/api/runs")
    assert (page.status_code, told.status_code) == (500, 500)
    assert told.json()["error"]["kind"] == "StoreError"
    assert "This cannot be shown" in page.text
