"""`spectral-edge retract`: what is taken back, what is left, what is asked, and that an audit can follow."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, random_walk, tree, write_safetensors
from mlflow import MlflowClient
from mlflow.entities import Metric
from typer.testing import CliRunner

from integrations.folder_tracker import FolderTracker
from integrations.locate import locate
from integrations.tracker import OUR_NAME, Annotation, Leftover, MetricPoint, RetractReceipt, Selection, TrackedRun
from pipelines.cli import app
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.retract import Request, Retractor
from pipelines.retract_command import retract_source
from pipelines.settings import load_settings
from spectral_edge.errors import AccessDeniedError, TrackerUnavailableError
from spectral_edge.store import Store
from tests.json_documents import require_schema

NOTE = "mlflow.note.content"
MADE = Annotation(
    "f" * 8,
    "s" * 8,
    {"spectral_edge.status": "ok"},
    "note",
    (MetricPoint("spectral_edge/total/gap", 3, 0.1),),
    {"gaps.parquet": b"x"},
)
FILES = 4
EVIL = "evil\x1b[31m name"


def annotated_runs(root: Path, *names: str) -> None:
    """Folders that are runs, annotated without an audit."""
    for name in names:
        write_safetensors(root / name, random_walk(1))
    for run in FolderTracker().runs(Selection(str(root))):
        FolderTracker().annotate(run, MADE)


def log_run(client: MlflowClient, experiment: str, folder: Path) -> str:
    """A finished run with checkpoints, a metric and a note."""
    run_id = str(client.create_run(experiment, run_name="logged", tags={NOTE: "Mine.\r\n"}).info.run_id)
    for path in write_safetensors(folder, random_walk(8)):
        client.log_artifact(run_id, str(path), "checkpoints")
    client.log_batch(run_id, metrics=[Metric("loss", 1.0, int(time.time() * 1000), 100)])
    client.set_terminated(run_id)
    return run_id


def ours(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """What is ours on an MLflow run."""
    data = client.get_run(run_id).data
    names = [name for name in data.metrics if name.startswith(OUR_NAME)]
    points = {name: [(p.step, p.value) for p in client.get_metric_history(run_id, name)] for name in names}
    tags = {name: value for name, value in data.tags.items() if name.startswith(OUR_NAME)}
    files = [
        (entry.path, entry.file_size) for entry in client.list_artifacts(run_id, OUR_NAME) if "html" not in entry.path
    ]
    return {"points": points, "tags": tags, "note": data.tags[NOTE], "files": files}


def test_what_was_audited_is_taken_back_and_audited_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_server: Callable[[Path], CommandLine]
) -> None:
    monkeypatch.chdir(tmp_path)
    sqlite = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(sqlite)
    experiment = client.create_experiment("toy", artifact_location=(tmp_path / "artifacts").as_uri())
    logged = log_run(client, experiment, tmp_path / "logged")
    bare = str(client.create_run(experiment, run_name="bare").info.run_id)
    write_safetensors(tmp_path / "runs" / "folder", random_walk(8))
    theirs = (tree(tmp_path / "runs"), str(client.get_run(bare)), str(client.get_run(logged).info))
    command = with_server(tmp_path)
    tracking = ("--tracking-uri", sqlite)
    audited = command.run("audit", "dir:runs", "mlflow:toy", *tracking, "--window", "3")
    assert audited.code == 0, audited.err
    before = ours(client, logged)

    planned = in_process("retract", "mlflow:toy", *tracking, "--dry-run", "--json")
    assert ours(client, logged) == before
    done = command.run("retract", "mlflow:toy", *tracking, "--yes", "--json")
    assert done.code == 0, done.err
    require_schema("retract", done.json)
    require_schema("retract", json.loads(planned))
    assert done.json["sources"][0]["runs"] == json.loads(planned)["sources"][0]["runs"]
    runs = {run["run_name"]: run for run in done.json["sources"][0]["runs"]}
    assert {name: run["outcome"] for name, run in runs.items()} == {"logged": "retracted", "bare": "nothing"}
    assert runs["logged"]["kept_metrics"] == {name: len(points) for name, points in before["points"].items()}
    assert set(runs["logged"]["tags"]) == set(before["tags"])
    assert ours(client, logged) == {**before, "tags": {}, "files": [], "note": "Mine.\r\n"}
    assert [entry.path for entry in client.list_artifacts(logged)] == ["checkpoints"]

    store = Store.open(tmp_path / "spectral-edge-store", create=False)
    kept = Retractor.of(Request(f"dir:{tmp_path}/runs"))  # as with --keep-store, or killed after the run
    assert [kept.retract(run, dry_run=False).outcome for run in kept.runs] == ["retracted"]
    assert len(store.audits()) == 1
    told = in_process("retract", "dir:runs", "--yes")
    assert told == "1 run, 1 retracted: 1 audit in the store taken back.\n"
    assert not store.audits()
    assert theirs == (tree(tmp_path / "runs"), str(client.get_run(bare)), str(client.get_run(logged).info))

    settings = load_settings(window=3)
    for tracker, selection in (locate("dir:runs"), locate("mlflow:toy", tracking_uri=sqlite)):
        job = Job(Scope.of(tracker, settings, store), store, "cpu")
        assert {audit_one(job, run).outcome for run in tracker.runs(selection)} <= {"audited", "no_checkpoints"}
    assert ours(client, logged) == before
    assert len(store.audits()) == 2


def in_process(*arguments: str) -> str:
    """What `spectral-edge` prints, without the seconds that a process takes to import what it needs."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (Request("dri:runs"), "write dir:runs"),
        (Request("dir:nowhere"), "nowhere"),
        (Request("dir:runs", ("none",)), "run none"),
        (Request("dir:runs", store="nowhere", store_must_exist=True), "there is no store here"),
    ],
)
def test_wrong_use_is_one_line_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request_: Request, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    annotated_runs(tmp_path / "runs", "one")
    before = tree(tmp_path)
    assert retract_source(request_, dry_run=False, ask=False, as_json=True) == 2
    out, err = capsys.readouterr()
    assert list(json.loads(out)["sources"][0]) == ["source", "error"]
    assert len(err.splitlines()) == 1
    assert told in err
    assert tree(tmp_path) == before


def test_without_a_terminal_it_asks_for_the_flag(tmp_path: Path) -> None:
    annotated_runs(tmp_path / "runs", "one")
    before = tree(tmp_path)
    answer = CommandLine(tmp_path).run("retract", "dir:runs")
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert "add --yes, or --dry-run" in answer.errors[0]
    assert tree(tmp_path) == before


def test_one_run_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    annotated_runs(tmp_path / "runs", "one", "two", "three")
    (two,) = (run for run in FolderTracker().runs(Selection(str(tmp_path / "runs"))) if run.key.run_name == "two")
    wanted = Request("dir:runs", (two.key.run_id,), "no-store-yet")
    before = tree(tmp_path)
    assert retract_source(wanted, dry_run=True, ask=True, as_json=False) == 0
    header, row, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "id", "takes", "back", "stays"]
    assert row.split() == ["two", two.key.run_id, str(FILES), "files", "-"]
    assert line == f"1 run, 1 to retract: {FILES} files would be taken back. Nothing was changed."
    assert tree(tmp_path) == before
    assert retract_source(wanted, dry_run=False, ask=False, as_json=False) == 0
    assert capsys.readouterr().out == f"1 run, 1 retracted: {FILES} files taken back.\n"
    assert {path.parent.name for path in tmp_path.glob("runs/*/spectral_edge")} == {"one", "three"}
    assert retract_source(wanted, dry_run=False, ask=False, as_json=False) == 0
    assert capsys.readouterr() == ("1 run, 1 with nothing to take back: nothing taken back.\n", "")
    assert not (tmp_path / "no-store-yet").exists()


class Faulty(FolderTracker):
    """Takes annotations back, except where the run's name speaks against it."""

    def retract(self, run: TrackedRun, *, dry_run: bool = False) -> RetractReceipt:
        if run.key.run_name == "busy":
            raise TrackerUnavailableError("answered 503.")
        if run.key.run_name == "refused":
            raise AccessDeniedError("answered 403.", next_step="ask its owner.")
        if run.key.run_name == "in part":
            return RetractReceipt(
                tags=("a",),
                note=True,
                kept_metrics={"b": 2},
                advice="Delete it.",
                leftovers=(Leftover("spectral_edge/c", "no right."),),
            )
        return super().retract(run, dry_run=dry_run)


def test_a_run_that_refuses_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotated_runs(tmp_path / "runs", "busy", EVIL, "in part", "refused", "zebra")
    (tmp_path / "runs" / "zebra" / OUR_NAME / "mine.txt").touch()
    monkeypatch.setattr("integrations.folder_tracker.FolderTracker", Faulty)
    assert retract_source(Request(f"dir:{tmp_path}/runs"), dry_run=False, ask=False, as_json=False) == 1
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()[:2]] == [
        ["metric", "that", "stays", "runs", "points"],
        ["b", "1", "2"],
    ]
    outcomes = "5 runs, 2 retracted, 1 retracted in part, 2 failed"
    taken = f"1 tag, {2 * FILES} files, 1 note section taken back. 1 metric with 2 points stay."
    assert out.splitlines()[2:] == ["Delete it.", f"{outcomes}: {taken}"]
    assert err.splitlines() == [
        "error: run busy: answered 503.",
        f"took back from evil\N{REPLACEMENT CHARACTER}[31m name: {FILES} files",
        "took back from in part: 1 tag, 1 note section; 1 metric with 2 points stay",
        "error: run in part: spectral_edge/c stays: no right.",
        "error: run refused: answered 403. Next: ask its owner.",
        f"took back from zebra: {FILES} files",
        "note: run zebra: files in spectral_edge/ that spectral-edge did not write are left alone: mine.txt",
    ]
    kept = {path.parts[-3] for path in tmp_path.glob("runs/*/spectral_edge/gaps.parquet")}
    assert kept == {"busy", "in part", "refused"}


@pytest.mark.parametrize(("typed", "code"), [("n\n", 1), ("y\n", 0)])
def test_on_a_terminal_it_asks(tmp_path: Path, typed: str, code: int) -> None:
    annotated_runs(tmp_path / "runs", EVIL, "two")
    before = tree(tmp_path)
    ours_end, theirs_end = pty.openpty()
    command = [str(Path(sys.executable).with_name("spectral-edge")), "retract", "dir:runs"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs_end, stdout=subprocess.PIPE, stderr=theirs_end, text=True
    ) as process:
        os.close(theirs_end)
        os.write(ours_end, typed.encode())
        shown = _read_all(ours_end)
        assert process.stdout is not None
        out = process.stdout.read()
        assert process.wait(60) == code
    os.close(ours_end)
    assert "Take this back from 2 runs? [y/N]" in shown
    assert "\x1b[31m name" not in shown
    assert ("nothing was taken back." in shown) == (code == 1)
    if code == 0:
        assert out == f"2 runs, 2 retracted: {2 * FILES} files taken back.\n"
        assert not list(tmp_path.glob("runs/*/spectral_edge"))
    else:
        assert out == ""
        assert tree(tmp_path) == before


def _read_all(terminal: int) -> str:
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # what Linux answers when the other end is closed
            part = b""
        if not part:
            return shown.decode()
        shown += part


def test_help_shows_an_example() -> None:
    assert "Example" in in_process("retract", "--help")
