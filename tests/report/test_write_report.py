"""The file: whole or not at all, from a real store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_runs import make_failed, make_run

from spectral_edge.errors import UsageError
from spectral_edge.report import write_report
from spectral_edge.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    for run in (make_run("first", checkpoints=20, change_at=None), make_failed("second", "Bad. Next: again.")):
        store.write_run(run)
    return store


def test_the_page_shows_the_runs_of_the_store_and_leaves_no_other_file(store: Store, tmp_path: Path) -> None:
    output = tmp_path / "new folder" / "report.html"
    write_report(store, output)
    text = output.read_text(encoding="utf-8")
    assert ">first</bdi>" in text
    assert ">second</bdi>" in text
    assert list(output.parent.iterdir()) == [output]


def test_the_same_store_gives_the_same_page(store: Store, tmp_path: Path) -> None:
    write_report(store, tmp_path / "one.html")
    write_report(store, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_folder_is_not_an_output(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a file"):
        write_report(store, tmp_path)


def test_what_was_there_stays_when_writing_fails(store: Store, tmp_path: Path) -> None:
    old = tmp_path / "kept" / "report.html"
    old.parent.mkdir()
    old.write_text("before")
    blocked = old / "below a file" / "report.html"
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(store, blocked)
    assert old.read_text() == "before"


FILLED = """
import resource, sys
from pathlib import Path
from spectral_edge.errors import DiskFullError
from spectral_edge.report.atomic import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically("x" * 2000, Path(sys.argv[1]))
except DiskFullError as error:
    sys.exit(str(error))
"""


def test_no_room_is_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    output.write_text("before")
    done = subprocess.run([sys.executable, "-c", FILLED, str(output)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "what was there before is as it was" in done.stderr
    assert "Next: make room" in done.stderr
    assert list(tmp_path.iterdir()) == [output]
    assert output.read_text() == "before"
