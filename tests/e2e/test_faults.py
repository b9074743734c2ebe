"""Trackers that are busy, that refuse, and defects of ours: each stays with its run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from command_line import CommandLine, random_walk, write_safetensors

PROGRAM = Path(__file__).with_name("faulty_tracker.py")
REPORT_IT = "This is a defect of spectral-edge: please report it with the traceback."
RUNS = ("always_busy", "busy_once", "defect", "fine", "refused")


def test_what_may_pass_is_tried_three_times_and_nothing_else_is(
    tmp_path: Path, with_server: Callable[[Path], CommandLine]
) -> None:
    for seed, name in enumerate(RUNS):
        write_safetensors(tmp_path / "runs" / name, random_walk(8, seed=seed))
    arguments = ("audit", "dir:runs", "--window", "3", "--workers", "5", "--annotate", "none")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=tmp_path,
        env={**os.environ, **with_server(tmp_path).environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1
    assert done.stdout == "5 runs, 2 audited, 3 failed: 0 bytes fetched, 0 writes.\n"
    errors = sorted(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert errors == [
        "error: run always_busy: answered 503 to question 3.",
        f"error: run defect: KeyError: 'a defect of ours'. {REPORT_IT}",
        "error: run refused: answered 403 to question 1.",
    ]
    assert done.stderr.count("Traceback") == 1
    assert "in checkpoints" in done.stderr
