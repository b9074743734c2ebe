"""The short variant of `python -m benchmarks.soak`: a few kills, and all must hold that holds after fifty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KILLS = 3


def test_a_few_kills(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--kills", str(KILLS), "--home", str(tmp_path / "soak")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = dict(line.strip("| ").rsplit(" | ", 1) for line in done.stdout.splitlines())
    assert sum(int(number) for name, number in table.items() if name.startswith("kills of")) == KILLS
    assert int(table["metric points written"].replace(",", "")) > 0
    assert table["metric points there twice"] == table["runs lost"] == "0"
