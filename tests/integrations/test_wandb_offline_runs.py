"""Folders that the real SDK wrote, called by a loop or by the libraries people use, are read as they were meant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from integrations.tracker import Selection, TrackedRun
from integrations.training_record import training_record
from integrations.wandb_log import TransactionLog
from integrations.wandb_offline import WandbOfflineTracker
from spectral_edge.errors import CheckpointFormatError, FetchInterruptedError, NotFoundError
from spectral_edge.settings import Settings
from tests.integrations.wandb_logs import found

WANDB = Path(sys.executable).with_name("wandb")


def environment(home: Path) -> dict[str, str]:
    """That of a process of its own: what wandb has put into ours, as the address of its core, is left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    folders = {f"WANDB_{name}_DIR": str(home / name.lower()) for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "HF_HUB_OFFLINE": "1"}
    return kept | folders | quiet | {"WANDB_DIR": str(home), "NETRC": str(home / "netrc")}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory in which the runs of wandb_offline_runs.py lie; the caches are empty."""
    home = tmp_path_factory.mktemp("offline")
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.wandb_offline_runs"],
        env=environment(home) | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(home / "none"))
        patch.setenv("WANDB_CACHE_DIR", str(home / "none"))
        yield home


def weights(run: TrackedRun, folder: Path, series: str | None = None) -> dict[int, float]:
    """The first weight of each checkpoint, by step."""
    tracker = WandbOfflineTracker()
    told = {}
    for ref in tracker.checkpoints(run, series).checkpoints:
        (path,) = tracker.fetch(run, ref, folder)
        told[ref.step] = float(load_file(path)["weight"][0, 0])
    return told


def test_every_way_to_keep_checkpoints_gives_those_that_were_kept(logged: Path, tmp_path: Path) -> None:
    run = found(logged, "plain")
    expected = {step: float(step) for step in range(0, 40, 10)}
    for series in ("md5", "xxh", "reference", "unlooked", "of-step-#"):
        assert weights(run, tmp_path / "spool", f"artifact:{series}") == expected
    assert weights(run, tmp_path / "spool", "saved/kept_#.safetensors") == expected
    assert {path.suffix for path in (tmp_path / "spool").rglob("*") if path.is_file()} == {".safetensors"}
    listing = WandbOfflineTracker().checkpoints(run)
    assert {ref.step_source for ref in listing.checkpoints} == {"metadata"}
    assert len({listing.series, *(other.name for other in listing.others)}) == 7


def test_the_run_is_described_as_it_was_logged(logged: Path) -> None:
    run = found(logged, "plain")
    assert (run.key.project, run.key.run_name, run.state) == ("team/own", "a loop", "finished")
    assert (run.params, run.tags) == ({"optimizer.name": "adamw", "lr": "0.1"}, {"t": "true"})
    assert run.started_at is not None
    assert run.ended_at is not None
    assert found(logged, "untold").state == "failed"


def test_metrics_have_the_axis_that_the_run_defined(logged: Path) -> None:
    tracker, run = WandbOfflineTracker(), found(logged, "plain")
    assert tracker.metric_names(run) == ("batch", "loss", "val/loss")
    assert tracker.metric_series(run, "val/loss").steps.tolist() == [0, 20, 40, 60]
    assert tracker.metric_series(run, "loss").steps.tolist() == [0, 10, 20, 30]


def test_versions_without_any_step_get_that_of_the_history(logged: Path) -> None:
    listing = WandbOfflineTracker().checkpoints(found(logged, "untold"))
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [
        (0, "history"),
        (1, "history"),
        (2, "history"),
    ]


def test_the_folders_of_a_run_that_was_resumed_are_one_run(logged: Path, tmp_path: Path) -> None:
    run = found(logged, "resumed")
    assert WandbOfflineTracker().metric_series(run, "loss").values.tolist() == [0, 1, 10, 11]
    assert weights(run, tmp_path) == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}
    folder = max(logged.glob("wandb/*-resumed*"))  # naming one folder names its run
    assert [found.key for found in WandbOfflineTracker().runs(Selection(str(folder)))] == [run.key]


@pytest.mark.parametrize(
    ("project", "source", "metric", "weight_decay"),
    [("lightning", "file_name", None, None), ("trainer", "alias", "train/learning_rate", 0.0)],
)
def test_what_libraries_log_is_found(
    logged: Path, tmp_path: Path, project: str, source: str, metric: str | None, weight_decay: float | None
) -> None:
    tracker, run = WandbOfflineTracker(), found(logged, project)
    listing = tracker.checkpoints(run)
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [(step, source) for step in (2, 4, 6)]
    assert all(tracker.fetch(run, ref, tmp_path)[0].is_file() for ref in listing.checkpoints)
    record = training_record(tracker, run, np.array([2, 4, 6]), Settings())
    assert (record.learning_rate and record.learning_rate.name, record.weight_decay) == (metric, weight_decay)
    assert not record.warnings


def test_steps_of_lightning_are_optimizer_steps(logged: Path) -> None:
    series = WandbOfflineTracker().metric_series(found(logged, "lightning"), "train_loss")
    assert series.steps.tolist() == list(range(6))


def test_as_many_records_are_read_as_the_sdk_itself_reads(logged: Path) -> None:
    for log in logged.glob("wandb/*/run-*.wandb"):
        if log.parent.is_symlink():
            continue
        command = [str(WANDB), "leet", "inspect", "--json", str(log)]
        told = subprocess.run(command, env=environment(logged), capture_output=True, text=True, check=True)
        assert len(list(TransactionLog(log).records())) == len(told.stdout.splitlines()) > 10


@pytest.fixture
def copied(logged: Path, tmp_path: Path) -> Path:
    """The runs' folders on another machine: without what they lead to."""
    shutil.copytree(logged / "wandb", tmp_path / "wandb", symlinks=True)
    return tmp_path


def test_the_directory_or_the_one_around_it_or_one_run_is_named(logged: Path, copied: Path) -> None:
    names = {run.key.run_id for run in WandbOfflineTracker().runs(Selection(str(copied)))}
    assert len(names) == 5
    assert {run.key.run_id for run in WandbOfflineTracker().runs(Selection(str(copied / "wandb")))} == names
    assert len(list(WandbOfflineTracker().runs(Selection(str(copied / "wandb" / "latest-run"))))) == 1
    (copied / "wandb").rename(copied / ".wandb")
    assert {run.key.run_id for run in WandbOfflineTracker().runs(Selection(str(copied)))} == names


def test_artifacts_that_were_left_behind_on_another_machine(
    logged: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, run = WandbOfflineTracker(), found(copied, "plain")
    (logged / "data").rename(tmp_path / "elsewhere")
    try:
        ref = tracker.checkpoints(run, "artifact:xxh").checkpoints[1]
        with pytest.raises(NotFoundError, match="data directory of the machine that logged them") as caught:
            tracker.fetch(run, ref, tmp_path / "spool")
        assert (caught.value.run, caught.value.file) == ("a loop", "weights/model.safetensors")
        assert not (tmp_path / "spool").exists()
        monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "elsewhere"))
        assert weights(run, tmp_path / "spool", "artifact:xxh") == {0: 0.0, 10: 10.0, 20: 20.0, 30: 30.0}
    finally:
        (tmp_path / "elsewhere").rename(logged / "data")


def test_a_reference_to_another_place_says_where_it_leads(logged: Path, tmp_path: Path) -> None:
    tracker, run = WandbOfflineTracker(), found(logged, "plain")
    ref = tracker.checkpoints(run, "artifact:far").checkpoints[2]
    with pytest.raises(NotFoundError, match=r"s3://bucket/20/model\.safetensors"):
        tracker.fetch(run, ref, tmp_path)


def test_saved_files_whose_links_lead_nowhere_are_told(logged: Path, copied: Path) -> None:
    (logged / "saved").rename(logged / "gone")
    try:
        listing = WandbOfflineTracker().checkpoints(found(copied, "resumed"))
    finally:
        (logged / "gone").rename(logged / "saved")
    assert not listing.checkpoints
    assert any("`saved/kept_0.safetensors` and 3 more" in warning for warning in listing.warnings)


@pytest.mark.parametrize(("series", "algorithm"), [("md5", "MD5"), ("xxh", "XXH128"), ("reference", "MD5")])
def test_other_bytes_than_were_logged_are_not_taken(logged: Path, tmp_path: Path, series: str, algorithm: str) -> None:
    tracker, run = WandbOfflineTracker(), found(logged, "plain")
    ref = tracker.checkpoints(run, f"artifact:{series}").checkpoints[1]
    place = tracker.fetch(run, ref, tmp_path)[0].resolve()
    mode, content = place.stat().st_mode, place.read_bytes()
    place.chmod(0o600)
    try:
        place.write_bytes(content[:-1] + b"!")
        with pytest.raises(CheckpointFormatError, match=rf"not those that were logged \({algorithm}"):
            tracker.fetch(run, ref, tmp_path)
        place.write_bytes(content + b"!")
        with pytest.raises(FetchInterruptedError, match="bytes now"):
            tracker.fetch(run, ref, tmp_path)
    finally:
        place.write_bytes(content)
        place.chmod(mode)
    assert tracker.fetch(run, ref, tmp_path)[0].resolve() == place


def test_a_torn_log_and_a_damaged_one_give_what_is_whole_and_say_so(logged: Path, copied: Path) -> None:
    log = next((copied / "wandb").glob("*-plain")) / "run-plain.wandb"
    content = log.read_bytes()
    log.write_bytes(content[:-4])
    tracker, run = WandbOfflineTracker(), found(copied, "plain")
    assert run.state == "running"
    listing = tracker.checkpoints(run)
    assert len(listing.checkpoints) == 4
    assert "run-plain.wandb: it ends within the record at byte" in listing.warnings[0]
    middle = content.index(b"hist", len(content) // 2) if b"hist" in content[len(content) // 2 :] else len(content) // 2
    log.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    listing = tracker.checkpoints(run)
    assert "run-plain.wandb: one stretch is damaged and left out" in listing.warnings[0]
