"""A run that kills the process: it comes last, stops no other, and is put in quarantine where people see it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from command_line import CommandLine, random_walk, write_safetensors

PROGRAM = Path(__file__).with_name("poisoned_tracker.py")


def test_a_poison_run_stops_no_other_and_is_listed(tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> None:
    for seed, name in enumerate(("poison", "x", "y")):  # the longest wait, so it comes first
        write_safetensors(tmp_path / "runs" / name, random_walk(8, seed=seed))
        os.utime(tmp_path / "runs" / name / "step_0.safetensors", (seed, seed))
        for path in (tmp_path / "runs" / name).iterdir():
            os.utime(path, (seed + 1, seed + 1))
    command = with_server(tmp_path)

    def audit() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAM), "audit", "dir:runs", "--window", "3", "--annotate", "none"],
            cwd=tmp_path,
            env={**os.environ, **command.environment, "SPECTRAL_EDGE_MAX_TRIES": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    first = audit()
    assert (first.returncode, first.stdout) == (-9, "")
    assert "audited" not in first.stderr
    second = audit()
    assert second.returncode == -9
    assert [line.split(":")[0] for line in second.stderr.splitlines() if ": audited" in line] == ["x", "y"]
    assert "poison: the last audit of it, begun at" in second.stderr
    assert "try 2 of 2" in second.stderr
    third = audit()
    assert third.returncode == 1
    assert third.stdout == "3 runs, 1 failed: 0 bytes fetched, 0 writes.\n"
    assert "error: run poison: is in quarantine: 2 audits of these checkpoints" in third.stderr
    assert "--force" in third.stderr
    assert not (tmp_path / "spectral-edge-store" / "attempts").exists()

    [row] = [row for row in command.run("runs", "--json").json if row["run_name"] == "poison"]
    assert row["status"] == "failed"
    assert "is in quarantine" in row["error"]
    assert command.run("report", "--output", "report.html").code == 0
    assert "is in quarantine" in (tmp_path / "report.html").read_text()
