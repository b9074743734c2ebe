"""SIGTERM and Ctrl-C in the middle of an audit: it ends by itself, says what is left, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import CommandLine, random_walk, write_long_run, write_safetensors
from fault_proxy import Fault, fault_proxy
from mlflow import MlflowClient
from servers import mlflow_server

END_SECONDS = 90  # a few where nobody else uses the machine
STORE, SPOOL = "spectral-edge-store", "spectral-edge-spool"


def attempts(folder: Path) -> list[Path]:
    return list((folder / STORE / "attempts").glob("*.json"))


def until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def require_stopped(command: CommandLine, process: subprocess.Popen[str], number: int) -> tuple[str, str]:
    """What it said. Nothing may be left, and Prefect must know."""
    out, err = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert attempts(command.folder) == []
    assert not (command.folder / STORE / "attempts").exists()
    assert not (command.folder / SPOOL).exists()
    asked = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flow_runs": {"name": {"like_": "audit "}}}
    [last] = httpx.post(f"{command.environment['PREFECT_API_URL']}/flow_runs/filter", json=asked).json()
    assert last["state"]["type"] == "CANCELLED"
    return out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_middle_of_a_long_pass(
    tmp_path: Path, with_server: Callable[[Path], CommandLine], number: signal.Signals
) -> None:
    write_long_run(tmp_path / "runs" / "long")
    write_safetensors(tmp_path / "runs" / "short", random_walk(8))
    command = with_server(tmp_path)
    process = command.start("audit", "dir:runs", "--window", "3", "--annotate", "none")
    until(lambda: (tmp_path / SPOOL).exists() and attempts(tmp_path), process)
    time.sleep(1)
    process.send_signal(number)
    out, _ = require_stopped(command, process, number)
    assert out.endswith("left for the next audit; nothing is half done.\n")


def test_while_a_download_hangs(tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> None:
    artifacts = (tmp_path / "artifacts").as_uri()
    backend = f"sqlite:///{tmp_path}/mlflow.db"
    with (
        mlflow_server(tmp_path, backend, "--artifacts-destination", artifacts, "--serve-artifacts") as address,
        fault_proxy(address) as proxy,
    ):
        client = MlflowClient(address)
        run = client.create_run(client.create_experiment("toy")).info.run_id
        for path in write_safetensors(tmp_path / "files", random_walk(4)):
            client.log_artifact(run, str(path), "checkpoints")
        proxy.spoil(Fault(".safetensors", stall=100, times=1000))
        command = with_server(tmp_path)
        process = command.start("audit", "mlflow:toy", "--tracking-uri", proxy.address, "--window", "3")
        until(lambda: any(".safetensors" in line for line in proxy.requests), process)
        time.sleep(1)
        process.terminate()
        _, err = require_stopped(command, process, signal.SIGTERM)
        assert "stopped: mlflow:toy: stopped, 0 runs done." in err
