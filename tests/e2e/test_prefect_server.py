"""The temporary server: not started where a user has one, and named with its log where it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from command_line import CommandLine, random_walk, write_safetensors

PROFILES = """
active = "mine"
[profiles.mine]
PREFECT_API_URL = "http://127.0.0.1:9/api"
"""


def test_a_profile_that_names_a_server_is_respected(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(PROFILES)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.prefect_server"],
        env={**environment, "PREFECT_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(tmp_path / "spectral-edge-server.log"), "configured"]
    assert done.stderr == ""


def test_a_server_that_cannot_start_is_one_line_with_its_log(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "runs", random_walk(3))
    nowhere = f"sqlite+aiosqlite:///{tmp_path / 'runs' / 'step_0.safetensors' / 'prefect.db'}"
    home = tmp_path / "prefect"
    command = CommandLine(tmp_path, {"PREFECT_HOME": str(home), "PREFECT_API_DATABASE_CONNECTION_URL": nowhere})
    answer = command.run("audit", "dir:runs")
    assert answer.code == 1
    [error] = answer.errors
    assert f"file {home / 'spectral-edge-server.log'}: Prefect's temporary server did not start." in error
    assert "unable to open database file" in (home / "spectral-edge-server.log").read_text()


def test_a_named_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "runs", random_walk(3))
    command = CommandLine(
        tmp_path, {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path / "home")}
    )
    answer = command.run("audit", "dir:runs")
    assert answer.code == 1
    [error] = answer.err.splitlines()
    assert error.startswith("error: the Prefect server at http://127.0.0.1:9/api does not answer")
    assert not (tmp_path / "spectral-edge-store").exists()
