"""Temporary folders: gone at the end of their block, and swept after a kill -9 by whoever audits next."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from integrations.scratch import locked_folder, scratch_folder, sweep_scratch

HOLDER = """
import tempfile, time
from integrations.scratch import scratch_folder
with scratch_folder("files") as folder:
    (folder / "chart.png").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_nothing_is_left(place: Path) -> None:
    with scratch_folder("files") as folder:
        assert list(folder.iterdir()) == []
        (folder / "chart.png").write_bytes(b"x")
        assert sweep_scratch() == 0
    assert list(place.iterdir()) == []


def test_a_killed_process_is_swept_and_others_are_not(place: Path) -> None:
    (place / "spectral-edge-mine").mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert sweep_scratch() == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert folder.exists()
    assert sweep_scratch() == 1
    assert [path.name for path in place.iterdir()] == ["spectral-edge-mine"]


SWEEPER = """
import sys
from pathlib import Path
from integrations.scratch import sweep_folders
print(flush=True)
while True:
    sweep_folders(Path(sys.argv[1]), "part-")
"""


def test_sweepers_are_in_nobodys_way(place: Path) -> None:
    """Parts of a run begin with sweeping, while others that are read in the same place come to their end."""
    command = [sys.executable, "-c", SWEEPER, str(place)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as one,
        subprocess.Popen(command, stdout=subprocess.PIPE) as two,
    ):
        try:
            for sweeper in (one, two):
                assert sweeper.stdout is not None
                sweeper.stdout.readline()
            for _ in range(600):
                with locked_folder(place, "part-") as folder:
                    (folder / "here").touch()
                    assert (folder / "here").exists()
                assert not folder.exists()
        finally:
            one.kill()
            two.kill()
