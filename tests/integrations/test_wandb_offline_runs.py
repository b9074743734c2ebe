"""Folders that the real SDK wrote, called by a loop or by the libraries people use, are read as they were meant."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from integrations import wandb_offline
from integrations.selection import Criteria
from integrations.tracker import Selection, TrackedRun
from integrations.training_record import training_record
from integrations.wandb_log import TransactionLog
from integrations.wandb_offline import WandbOfflineTracker
from spectral_edge.errors import CheckpointFormatError, FetchInterruptedError, NoStepError, NotFoundError, UsageError
from spectral_edge.settings import Settings
from tests.integrations.wandb_logs import artifact, exit_with, log_of, row, run

WANDB = Path(sys.executable).with_name("wandb")


def environment(home: Path) -> dict[str, str]:
    folders = {f"WANDB_{name}_DIR": str(home / name.lower()) for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "HF_HUB_OFFLINE": "1"}
    return folders | quiet | {"WANDB_DIR": str(home), "NETRC": str(home / "netrc")}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory in which the runs of wandb_offline_runs.py lie; the caches are empty."""
    home = tmp_path_factory.mktemp("offline")
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.wandb_offline_runs"],
        env=os.environ | environment(home) | {"PYTHONPATH": str(Path(__file__).parents[2])},
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


def found(place: Path, project: str) -> TrackedRun:
    runs = [
        run for run in WandbOfflineTracker().runs(Selection(str(place))) if project in (run.key.project, run.key.run_id)
    ]
    assert len(runs) == 1
    return runs[0]


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
    (folder,) = logged.glob("wandb/*-resumed-1")  # naming one folder names its run
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
        told = subprocess.run(command, env=os.environ | environment(logged), capture_output=True, text=True, check=True)
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


def make(place: Path, name: str, *records: object) -> Path:
    """A run's folder with a log of these records."""
    folder = place / "wandb" / f"offline-run-20260101_000000-{name}"
    (folder / "files").mkdir(parents=True)
    (folder / f"run-{name}.wandb").write_bytes(log_of(*records))
    return folder


def test_folders_that_cannot_be_read_are_told_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "good", run("good"))
    make(tmp_path, "empty").joinpath("run-empty.wandb").write_bytes(b"")
    make(tmp_path, "gone").joinpath("run-gone.wandb").unlink()
    make(tmp_path, "nobody", row(0, {"loss": 1}))
    make(tmp_path, "hidden").rename(tmp_path / "wandb" / ".spectral_edge-1")
    (tmp_path / "wandb" / "logs").mkdir()
    with caplog.at_level(logging.WARNING):
        assert [found.key.run_id for found in WandbOfflineTracker().runs(Selection(str(tmp_path)))] == ["good"]
    assert len(caplog.messages) == 3
    for word in ("run-empty.wandb", "-gone was left out: it holds no .wandb log", "-nobody was left out"):
        assert any(word in message for message in caplog.messages)


def test_folders_without_runs_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no run of W&B"):
        list(WandbOfflineTracker().runs(Selection(str(tmp_path))))
    with pytest.raises(NotFoundError, match="No such file"):
        list(WandbOfflineTracker().runs(Selection(str(tmp_path / "none"))))


def test_states_and_ages_select_and_filters_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "done", run("done", start=1000), *exit_with(0, 60))
    make(tmp_path, "lost", run("lost", start=2000), *exit_with(1, 60))
    make(tmp_path, "live", run("live", start=3000))
    killed = make(tmp_path, "kill", run("kill", start=4000)) / "run-kill.wandb"
    os.utime(killed, (0, killed.stat().st_mtime - wandb_offline.SILENCE - 10))

    def ids(**criteria: object) -> list[str]:
        selection = Selection(str(tmp_path), criteria=Criteria(**criteria))  # type: ignore[arg-type]
        return [found.key.run_id for found in WandbOfflineTracker().runs(selection)]

    assert ids() == ["done", "lost", "live", "kill"]
    for name, state in zip(ids(), ("finished", "failed", "running", "killed"), strict=True):
        assert ids(states=(state,)) == [name]
    ended = next(WandbOfflineTracker().runs(Selection(str(tmp_path)))).ended_at
    assert ended is not None
    assert ended.timestamp() == 1060
    assert ids(since=ended) == ["done", "lost", "live", "kill"]
    assert ids(since=ended.replace(second=ended.second + 1)) == ["lost", "live", "kill"]
    with pytest.raises(UsageError, match="`filter`"):
        ids(filter='{"state": "finished"}')


def test_names_in_a_log_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"secret")
    os.mkfifo(tmp_path / "pipe")
    entries = [
        {"path": f"{up}x.safetensors", "digest": "AAAA", "size": 6, "local_path": str(secret)}
        for up in ("../", "/", "a/../../", "")
    ]
    pipe = [{"path": "x.safetensors", "size": 6, "local_path": str(tmp_path / "pipe")}]
    bad = artifact("list", manifest=str(secret))
    ours = artifact("m", entries, metadata={"step": 1}), artifact("p", pipe, metadata={"step": 1})
    make(tmp_path, "odd", run("odd", display_name="odd"), *ours)
    tracker, odd = WandbOfflineTracker(), found(tmp_path, "odd")
    refs = {series: tracker.checkpoints(odd, f"artifact:{series}").checkpoints for series in ("m", "p")}
    assert [file.path for file in refs["m"][0].files] == ["x.safetensors"]
    (link,) = tracker.fetch(odd, refs["m"][0], tmp_path / "spool")
    assert link.is_relative_to(tmp_path / "spool")
    with pytest.raises(NotFoundError, match="is gone"):
        tracker.fetch(odd, refs["p"][0], tmp_path / "spool")
    make(tmp_path, "list", run("list", display_name="list"), bad)
    with pytest.raises(CheckpointFormatError, match="list of the artifact's files is damaged"):
        tracker.checkpoints(found(tmp_path, "list"))


def test_saved_checkpoints_without_a_step(tmp_path: Path) -> None:
    folder = make(tmp_path, "best", run("best", display_name="b"))
    (folder / "files" / "best.safetensors").write_bytes(b"x")
    (folder / "files" / "output.log").write_bytes(b"x")
    (folder / "files" / "media").mkdir()
    (folder / "files" / "media" / "step_1.safetensors").write_bytes(b"x")
    with pytest.raises(NoStepError, match=r"best\.safetensors"):
        WandbOfflineTracker().checkpoints(found(tmp_path, "best"))
