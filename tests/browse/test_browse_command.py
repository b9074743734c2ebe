"""How the server starts and ends, and the stores that it reads."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.store import Store
from tests.browse.serving import LONG, Served, asked, serving
from tests.report.synthetic_runs import make_run

RELEASED = Path(__file__).parents[1] / "store" / "released" / "0.1.0"


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
    process = psutil.Process(server.process.pid)
    until = process.cpu_times().user + 0.5
    while process.cpu_times().user < until:
        time.sleep(0.05)


def test_long_questions_end_and_pages_are_not_held_up_by_them(tmp_path: Path) -> None:
    long = str(httpx.URL("/api/query", params={"sql": LONG}))
    page, *answers = asked(Store.open(tmp_path / "store"), "/", *[long] * 3, seconds=0.3)
    assert page.status_code == 200
    assert [answer.json()["error"]["message"] for answer in answers] == ["the query took longer than 0.3 s."] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "use one of --output and --serve"),
        ("--serve --output x.html", "use one of --output and --serve"),
        ("--serve --host 0.0.0.0", "there is no password"),
        ("--serve --host :: --anyone-may-read", "--allowed-host"),
        ("--serve --host not.an.address.invalid --anyone-may-read", "cannot be listened on"),
        ("--serve --allowed-host *", "`--allowed-host` must be"),
        ("--serve --port BUSY", "is in use"),
        ("--serve --port 99999", "from 0 to 65535"),
        ("--serve --store nothing", "there is no store"),
    ],
)
def test_what_cannot_be_served_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Store.open(tmp_path / "spectral-edge-store")
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = options.replace("BUSY", str(other.getsockname()[1])).split()
        with pytest.raises((UsageError, NotFoundError)) as caught:
            CliRunner().invoke(app, ["report", *given], catch_exceptions=False)
    assert said in str(caught.value)


def test_a_store_of_an_earlier_version_is_shown_and_stays_as_it_was(tmp_path: Path) -> None:
    shutil.copytree(RELEASED, tmp_path / "store")
    store = Store.open(tmp_path / "store", create=False)
    before = sorted(tmp_path.rglob("*"))
    found, *pages = asked(store, "/api/runs", "/", "/query?sql=scorecard")
    assert sorted(row["result"] for row in found.json()["runs"]) == ["change", "change", "failed"]
    assert [page.status_code for page in pages] == [200] * 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_store_is_told_and_not_a_traceback(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(make_run("lost", checkpoints=3, groups=(), change_at=None))
    for file in (tmp_path / "store" / "runs").rglob("*.parquet"):
        file.write_bytes(b"not Parquet")
    page, told = asked(store, "/", "/api/runs")
    assert (page.status_code, told.status_code) == (500, 500)
    assert told.json()["error"]["kind"] == "StoreError"
    assert "This cannot be shown" in page.text
