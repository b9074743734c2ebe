"""Annotations in folders: written whole, swept, and refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integrations.folder_annotations import state_of_folder, write_to_folder
from integrations.tracker import Annotation, MetricPoint
from spectral_edge.errors import AccessDeniedError, DiskFullError, UsageError

MADE = Annotation(
    fingerprint="f" * 8,
    settings_hash="s" * 8,
    tags={"spectral_edge.status": "ok"},
    note="note",
    metrics=(MetricPoint("spectral_edge/total/gap", 3, 0.1),),
    files={"a": b"x"},
)


def test_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    (tmp_path / "spectral_edge").mkdir()
    (tmp_path / "spectral_edge" / ".spectral_edge-abc.tmp").write_bytes(b"half")
    write_to_folder(tmp_path, MADE, run="run")
    assert sorted(path.name for path in (tmp_path / "spectral_edge").iterdir()) == [
        "a",
        "metrics.csv",
        "note.md",
        "tags.json",
    ]


def test_a_file_that_someone_deleted_is_written_again(tmp_path: Path) -> None:
    write_to_folder(tmp_path, MADE, run="run")
    (tmp_path / "spectral_edge" / "a").unlink()
    assert write_to_folder(tmp_path, MADE, run="run").files == 4
    assert write_to_folder(tmp_path, MADE, run="run").files == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"annotated": 5}', b'{"annotated": "a/b"}'])
def test_a_mark_that_cannot_be_read_counts_as_none(tmp_path: Path, content: bytes) -> None:
    write_to_folder(tmp_path, MADE, run="run")
    (tmp_path / "spectral_edge" / "tags.json").write_bytes(content)
    assert state_of_folder(tmp_path) is None
    assert write_to_folder(tmp_path, MADE, run="run").files == 4


def test_others_may_read_what_they_may_read_of_the_run(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_to_folder(tmp_path, MADE, run="run")
    finally:
        os.umask(mask)
    assert (tmp_path / "spectral_edge" / "tags.json").stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_place_of_our_folder(tmp_path: Path) -> None:
    (tmp_path / "spectral_edge").touch()
    with pytest.raises(UsageError, match="spectral_edge") as caught:
        write_to_folder(tmp_path, MADE, run="run")
    assert caught.value.run == "run"


WRITE = """
import os, resource, sys
from pathlib import Path
from integrations.folder_annotations import write_to_folder
from integrations.tracker import Annotation
from spectral_edge.errors import SpectralEdgeError

if sys.argv[2] == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
elif os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    write_to_folder(Path(sys.argv[1]), Annotation("f", "s", {}, "note", (), {"big": bytes(1000)}), run="run")
except SpectralEdgeError as error:
    print(type(error).__name__, error.run)
"""


def refused(folder: Path, how: str) -> str:
    command = [sys.executable, "-c", WRITE, str(folder), how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_no_room(tmp_path: Path) -> None:
    assert refused(tmp_path, "limited") == f"{DiskFullError.__name__} run"
    assert not list((tmp_path / "spectral_edge").iterdir())


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    assert refused(tmp_path, "read-only") == f"{AccessDeniedError.__name__} run"
    assert not list(tmp_path.iterdir())
