"""What is written beside the folder of a W&B run, when earlier annotations are there, and what is said of it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from integrations import wandb_offline_run
from integrations.tracker import Annotation, MetricPoint, Selection, TrackedRun
from integrations.wandb_offline import WandbOfflineTracker
from spectral_edge.errors import RunBusyError, TrackerUnavailableError
from tests.integrations.wandb_logs import exit_with, log_of, row, run


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A W&B directory with one run, whose name has a space."""
    folder = tmp_path / "my logs" / "wandb" / "offline-run-20260101_000000-abc"
    (folder / "files").mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(log_of(run("abc", project="p"), row(0, {"loss": 1}), *exit_with(0)))
    return folder.parent


def tracked(place: Path) -> TrackedRun:
    (found,) = WandbOfflineTracker().runs(Selection(str(place)))
    return found


def made(fingerprint: str = "f" * 16) -> Annotation:
    points = tuple(MetricPoint("spectral_edge/total/gap", step, step / 2) for step in (10, 20))
    files = {"gaps.parquet": b"PAR1"}
    return Annotation(fingerprint, "s" * 16, {"spectral_edge.status": "ok"}, "note", points, files)


def annotations(place: Path) -> list[Path]:
    return sorted(place.glob("*-spectral-*"))


def test_nothing_lies_outside_of_the_folder_and_the_environment_of_a_training_job_counts_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODE": "disabled", "RUN_ID": "theirs", "TAGS": "a", "NOTES": "b", "RESUME": "must"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    receipt = WandbOfflineTracker().annotate(tracked(place), made())
    (folder,) = annotations(place)
    assert (receipt.metric_points, receipt.files) == (2, 1)
    assert receipt.warnings[0].endswith(
        f"wandb sync '{place / 'offline-run-20260101_000000-abc'}' && wandb sync '{folder}'"
    )
    assert not list((tmp_path / "data").rglob("tmp*"))
    assert str(tmp_path).encode() not in next(folder.glob("run-spectral-*.wandb")).read_bytes()
    assert sorted(path.name for path in place.iterdir()) == ["offline-run-20260101_000000-abc", folder.name]
    assert {path.name for path in folder.iterdir()} == {"files", f"run-{folder.name.partition('-run-')[2][16:]}.wandb"}


def test_an_earlier_annotation_is_deleted_unless_it_was_uploaded(place: Path) -> None:
    tracker, audited = WandbOfflineTracker(), tracked(place)
    tracker.annotate(audited, made())
    (first,) = annotations(place)
    tracker.annotate(audited, made("g" * 16))
    (second,) = annotations(place)
    assert second != first
    (next(second.glob("*.wandb")).with_suffix(".wandb.synced")).touch()
    receipt = tracker.annotate(audited, made("h" * 16))
    assert len(annotations(place)) == 2
    uploaded = second.name.rpartition("-spectral-")[2]
    assert f"spectral-{uploaded} in W&B holds an earlier annotation" in receipt.warnings[1]
    state = tracker.annotation_state(audited)
    assert state is not None
    assert (state.fingerprint, state.complete) == ("h" * 16, True)

    taken = tracker.retract(audited)
    assert annotations(place) == [second]
    assert [left.what for left in taken.leftovers] == [f"run spectral-{uploaded} and its folder {second}"]
    assert len(taken.child_runs) == 1


def test_while_another_process_writes_nothing_is_written(place: Path) -> None:
    tracker, audited = WandbOfflineTracker(), tracked(place)
    handle = os.open(place / "offline-run-20260101_000000-abc", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RunBusyError):
            tracker.annotate(audited, made())
        with pytest.raises(RunBusyError):
            tracker.retract(audited)
    finally:
        os.close(handle)
    assert not annotations(place)


def test_what_the_sdk_does_not_write_is_not_claimed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_offline_run, "PATIENCE", 0.2)
    monkeypatch.setattr(wandb_offline_run, "read_run", lambda _logs: wandb_offline_run.RunLog())
    with pytest.raises(TrackerUnavailableError, match="not written all"):
        WandbOfflineTracker().annotate(tracked(place), made())
    assert [path.name for path in place.iterdir()] == ["offline-run-20260101_000000-abc"]
