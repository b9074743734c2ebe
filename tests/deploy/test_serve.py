"""`spectral-edge serve`: audits, ends within seconds, leaves nothing, goes on after kill -9, is alone on its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from scheduled_machine import NIGHTLY, Server, environment, until, write_run
from servers import free_port

from spectral_edge.store import Store
from tests.e2e.command_line import CommandLine

STOP_SECONDS = 60  # a few on a machine with nothing else to do


@contextmanager
def _serving(folder: Path, port: int, *sources: str) -> Iterator[tuple[subprocess.Popen[bytes], Server]]:
    """`spectral-edge serve`, ready; killed at the end if it still runs."""
    program = str(Path(sys.executable).with_name("spectral-edge"))
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "serve", *sources, "--port", str(port)],
            cwd=folder,
            env=environment(folder / "unused"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            until(lambda: "Prefect's page" in log.read_text() or process.poll() is not None, "serve")
            assert process.poll() is None, log.read_text()
            yield process, Server(f"http://127.0.0.1:{port}/api")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def _require_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    assert alive == []


def test_it_audits_ends_on_sigterm_and_goes_on_after_kill(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one")
    port = free_port()
    with _serving(tmp_path, port, "dir:runs") as (process, server):
        assert set(server.deployments()) == {"nightly", "hourly", "weekly", "monthly"}
        assert server.end(server.start(NIGHTLY))["type"] == "COMPLETED"
        assert Store.open(tmp_path / "spectral-edge-store").runs_table().num_rows == 1
        refused = CommandLine(tmp_path, environment(tmp_path / "unused")).run("serve", "dir:runs")
        [error] = refused.errors
        assert refused.code == 2
        assert "another `spectral-edge serve` is running on this folder" in error

        os.mkfifo(tmp_path / "runs" / "one" / "step_999.safetensors")  # whoever reads it waits for ever
        stuck = server.start(NIGHTLY)
        until(lambda: server.state(stuck)["type"] == "RUNNING", "the second audit")
        family = _family(process)
        os.kill(process.pid, signal.SIGKILL)
        _require_gone(family)
    (tmp_path / "runs" / "one" / "step_999.safetensors").unlink()
    with _serving(tmp_path, port, "dir:runs") as (process, server):
        assert server.state(stuck)["type"] == "CRASHED"
        runs = server.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        [again] = [run["id"] for run in runs if run["deployment_id"] and not run["auto_scheduled"]][:1]
        assert again != stuck
        assert server.end(again)["type"] == "COMPLETED"
        family = _family(process)
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0
        _require_gone(family)
        [log] = sorted(tmp_path.glob("serve-*.log"))[-1:]
        assert "Traceback" not in log.read_text()


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one", 3)
    command = CommandLine(tmp_path, environment(tmp_path / "unused"))
    [error] = command.run("serve").errors
    assert "no sources to audit" in error
    [error] = command.run("serve", "dir:runs", "--host", "0.0.0.0").errors
    assert "without a password" in error
    assert not (tmp_path / "spectral-edge-serve").exists()
