"""Which folders of a W&B directory are runs, and what odd ones may hold: logs that are written here by hand."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from integrations import wandb_offline
from integrations.selection import Criteria
from integrations.tracker import Selection
from integrations.wandb_offline import WandbOfflineTracker
from spectral_edge.errors import CheckpointFormatError, NoStepError, NotFoundError, UsageError
from tests.integrations.wandb_logs import artifact, exit_with, found, log_of, row, run


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
