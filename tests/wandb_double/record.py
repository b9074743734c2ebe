"""Record what the SDK asks for, into recording.json: `python -m wandb_double.record`, from the folder tests/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .double import Double
from .environment import wandb_environment
from .requests import paths, recorded, streamed, to_json
from .scenario import seed

RECORDING = Path(__file__).with_name("recording.json")
HOW = "python -m wandb_double.record"


def record(folder: Path) -> dict[str, Any]:
    """Play the scenario in a process of its own, and give what it asked for.

    Args:
        folder: for everything that the SDK writes.

    Raises:
        RuntimeError: the scenario failed, or asked for something that the double does not know.
    """
    with Double() as double:
        seed(double)
        environment = {**os.environ, **wandb_environment(folder, double)}
        command = [sys.executable, "-m", "wandb_double.scenario", str(folder)]
        played = subprocess.run(
            command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=False
        )
        if played.returncode or double.problems:
            raise RuntimeError("\n".join(["the scenario failed", *double.problems, played.stderr[-4000:]]))
        calls = list(double.calls)
    return {
        "wandb": version("wandb"),
        "requests": recorded(calls),
        "stream": streamed(calls),
        "paths": paths(calls),
    }


def kept() -> dict[str, Any]:
    """The recording in this folder."""
    found: dict[str, Any] = json.loads(RECORDING.read_text())
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        RECORDING.write_text(to_json(record(Path(name))))
    print(f"wrote {RECORDING}")
