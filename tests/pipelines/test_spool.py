"""Folders for downloads: gone at the end, swept after a kill -9, left alone while their process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.spool import spool_folder, sweep
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError

HOLDER = """
import sys, time
from pathlib import Path
from pipelines.spool import spool_folder
with spool_folder(Path(sys.argv[1]), "held") as folder:
    (folder / "weights").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(root: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a folder below `root`."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        try:
            yield process, folder
        finally:
            process.kill()


def test_nothing_is_left(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    with spool_folder(root, "abc") as folder:
        (folder / "000000").mkdir()
        (folder / "000000" / "weights").write_bytes(b"x")
        assert "abc" in folder.name
    assert not root.exists()


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), spool_folder(tmp_path / "spool", "abc"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    with holder(root) as (_, living), holder(root) as (killed, left):
        assert sweep(root) == 0
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.exists()
        assert sweep(root) == 1
        assert not left.exists()
        assert (living / "weights").stat().st_size == 1000


def test_a_folder_that_was_just_made_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    young, old = root / "audit-young", root / "audit-old"
    young.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (0, 0))
    assert sweep(root) == 1
    assert young.exists()
    assert not old.exists()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    os.utime(tmp_path / "mine", (0, 0))
    assert sweep(tmp_path) == 0
    assert (tmp_path / "mine").exists()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SpectralEdgeError, match="file") as caught, spool_folder(tmp_path / "file" / "spool", "abc"):
        pass
    assert not isinstance(caught.value, AccessDeniedError)
