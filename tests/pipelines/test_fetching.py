"""The window of files on disk, with real files: what is there while a segment is read, and what is left."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from remote_folder import RemoteFolder

from integrations.folder_tracker import FolderTracker
from integrations.tracker import CheckpointRef, Selection, TrackedRun
from pipelines.fetching import PARALLEL_FETCHES, Segment, fetch_segments
from spectral_edge.errors import DiskFullError, FetchInterruptedError

CHECKPOINTS, SIZE, KEEP = 30, 1000, 4


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Thirty files of 1,000 bytes, each of its own content."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step in range(CHECKPOINTS):
        (folder / f"step_{step}.safetensors").write_bytes(bytes([step]) * SIZE)
    return folder


def listed(tracker: FolderTracker, folder: Path) -> tuple[TrackedRun, Sequence[CheckpointRef]]:
    [run] = tracker.runs(Selection(str(folder)))
    return run, tracker.checkpoints(run).checkpoints


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("max_disk", [(KEEP + 1) * SIZE, 8 * SIZE, 20 * SIZE, CHECKPOINTS * SIZE])
def test_every_segment_finds_its_files_within_the_limit(run_folder: Path, tmp_path: Path, max_disk: int) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    tracker = RemoteFolder()
    run, refs = listed(tracker, run_folder)
    told: list[int] = []
    steps: list[int] = []
    segments = fetch_segments(tracker, run, refs, keep=KEEP, max_disk=max_disk, folder=spool, on_fetched=told.append)
    for segment in segments:
        assert [checkpoint.step for checkpoint in segment.old] == steps[-KEEP:]
        for checkpoint in (*segment.old, *segment.new):
            assert [file.read_bytes() for file in checkpoint.files] == [bytes([checkpoint.step]) * SIZE]
        assert bytes_below(spool) <= max_disk
        assert segment.bytes_fetched == len(segment.new) * SIZE
        steps += [checkpoint.step for checkpoint in segment.new]
    assert steps == list(range(CHECKPOINTS))
    assert sorted(tracker.fetched) == sorted(ref.name for ref in refs)
    assert told == [SIZE] * CHECKPOINTS
    assert tracker.most_at_once <= PARALLEL_FETCHES


def test_files_of_a_segment_are_fetched_at_once(run_folder: Path, tmp_path: Path) -> None:
    class Waiting(RemoteFolder):
        def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
            if checkpoint.step < PARALLEL_FETCHES:
                self.wait_for_the_others()  # passes only when four are in here together
            return super().fetch(run, checkpoint, folder)

    run, refs = listed(Waiting(), run_folder)
    segments = list(one_segment(Waiting(), run, refs, tmp_path))
    assert len(segments[0].new) == CHECKPOINTS


def one_segment(tracker: FolderTracker, run: TrackedRun, refs: Sequence[CheckpointRef], spool: Path) -> list[Segment]:
    return list(fetch_segments(tracker, run, refs, keep=KEEP, max_disk=10**9, folder=spool, on_fetched=lambda _: None))


def test_local_checkpoints_are_not_copied(run_folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    run, refs = listed(FolderTracker(), run_folder)
    [segment] = one_segment(FolderTracker(), run, refs, spool)
    assert segment.bytes_fetched == 0
    assert all(file.parent == run_folder for checkpoint in segment.new for file in checkpoint.files)
    assert list(spool.iterdir()) == []


def test_a_failed_download_ends_the_others(run_folder: Path, tmp_path: Path) -> None:
    tracker = RemoteFolder(broken="step_3.")
    run, refs = listed(tracker, run_folder)
    with pytest.raises(FetchInterruptedError, match="step_3"):
        one_segment(tracker, run, refs, tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_a_reader_that_stops_early_ends_the_downloads(run_folder: Path, tmp_path: Path) -> None:
    tracker = RemoteFolder()
    run, refs = listed(tracker, run_folder)
    spool = tmp_path / "spool"
    spool.mkdir()
    segments = fetch_segments(
        tracker, run, refs, keep=KEEP, max_disk=20 * SIZE, folder=spool, on_fetched=lambda _: None
    )
    with closing(segments):
        next(segments)
    assert len(tracker.fetched) < CHECKPOINTS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_a_full_disk_is_told_before_anything_is_fetched(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=CHECKPOINTS * SIZE - 1))
    tracker = RemoteFolder()
    run, refs = listed(tracker, run_folder)
    with pytest.raises(DiskFullError, match=r"needs 30\.0 KB for downloads, and 30\.0 KB are free"):
        one_segment(tracker, run, refs, tmp_path)
    assert tracker.fetched == []
