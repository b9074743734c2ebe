"""SIGTERM of `spectral-edge serve` in the middle of an audit: no death, and nothing says that it still runs."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from scheduled_machine import NIGHTLY, Server, environment, until
from servers import free_port

from tests.e2e.command_line import write_long_run

STOP_SECONDS = 120  # a few where nobody else uses the machine


def test_it_ends_in_the_middle_of_an_audit(tmp_path: Path) -> None:
    write_long_run(tmp_path / "runs" / "long")
    port, log = free_port(), tmp_path / "serve.log"
    store, spool = tmp_path / "spectral-edge-store", tmp_path / "spectral-edge-spool"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("spectral-edge")), "serve", "dir:runs", "--port", str(port)],
            cwd=tmp_path,
            env=environment(tmp_path / "unused"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: "Prefect's page" in log.read_text() or process.poll() is not None, "serve")
        Server(f"http://127.0.0.1:{port}/api").start(NIGHTLY)
        until(lambda: spool.exists() and list(store.glob("attempts/*.json")), "the audit")
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()
    assert not (store / "attempts").exists()
    assert not spool.exists()
    with closing(sqlite3.connect(tmp_path / "spectral-edge-serve" / "prefect.db")) as database:
        states = [state for (state,) in database.execute("select state_type from flow_run")]
    assert sorted(set(states) - {"SCHEDULED"}) in (["CANCELLED"], ["CRASHED"], ["CANCELLED", "CRASHED"])
