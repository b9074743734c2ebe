"""Contract: `retract` takes back all of ours that can be taken back, nothing else, and can be cut off anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import killed
import pytest
from labs import NOTE_TAG, Lab, Logged, MlflowLab, trained
from mlflow.entities import Metric
from servers import S3_CREDENTIALS
from test_tracker_annotate import KEYS, logged_run, made, values

from integrations.tracker import RetractReceipt, TrackedRun
from spectral_edge.errors import NotFoundError

STEPS = (10, 20, 30)
PLACES = 5


def everything(lab: Lab, handle: str) -> tuple[Any, ...]:
    """All there is on the run, ours and theirs."""
    return lab.theirs(handle), values(lab, handle), lab.files(handle), lab.tags(handle), lab.note(handle)


def is_gone(lab: Lab, handle: str, note: str, before: Any) -> None:
    """Nothing of ours is on the run but metric points that cannot be deleted, and all of theirs is."""
    assert not lab.files(handle)
    assert not lab.tags(handle)
    assert lab.note(handle) == note
    assert lab.theirs(handle) == before
    assert not lab.has_a_place_for_files(handle)


def test_all_that_can_be_taken_back_is_and_what_stays_is_listed(lab: Lab) -> None:
    handle, run = logged_run(lab)
    before, note = lab.theirs(handle), lab.note(handle)
    lab.tracker.annotate(run, made(*STEPS))
    annotated = everything(lab, handle)
    planned = lab.tracker.retract(run, dry_run=True)
    assert everything(lab, handle) == annotated

    kept = dict.fromkeys(sorted(KEYS), len(STEPS)) if lab.doubles_points else {}
    receipt = lab.tracker.retract(run)
    assert receipt == planned
    is_gone(lab, handle, note, before)
    assert receipt.took_back
    assert receipt.kept_metrics == kept
    assert bool(receipt.advice) == bool(kept)
    assert not receipt.leftovers
    assert set(made().files) <= set(receipt.files)
    assert values(lab, handle) == ({key: [(step, step + 0.5) for step in STEPS] for key in kept})
    assert lab.tracker.annotation_state(run) is None
    if isinstance(lab, MlflowLab):
        assert receipt.note
        assert made().tags.keys() < set(receipt.tags)


def test_a_second_time_nothing_is_written_and_another_audit_writes_all_again_and_doubles_no_point(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(*STEPS))
    annotated = everything(lab, handle)
    first = lab.tracker.retract(run)
    once = everything(lab, handle)
    second = lab.tracker.retract(run)
    assert not second.took_back
    assert second == RetractReceipt(kept_metrics=first.kept_metrics, advice=first.advice)
    assert everything(lab, handle) == once
    receipt = lab.tracker.annotate(run, made(*STEPS))
    assert receipt.metric_points == (0 if lab.doubles_points else 2 * len(STEPS))
    assert everything(lab, handle) == annotated


def test_a_run_without_anything_of_ours_is_not_written_to(make_lab: Any, tmp_path: Path) -> None:
    for lab in (make_lab("folder"), make_lab("mlflow-file")):  # where every write shows as a changed file
        _, run = logged_run(lab)
        before = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in tmp_path.rglob("*")}
        assert lab.tracker.retract(run) == RetractReceipt()
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in tmp_path.rglob("*")} == before


def test_a_run_whose_names_are_like_ours_keeps_them(lab: Lab) -> None:
    project = lab.project()
    tags = {"spectral_edge": "mine", "spectral_edgy.x": "mine", "my.spectral_edge.x": "mine", NOTE_TAG: "mine"}
    handle = lab.log(project, Logged("run", trained(1), {"spectral_edges": [(1, 2.0)]}, {}, tags))
    for folder in ("", "spectral_edge2/", "spectral_edge/", "deep/spectral_edge/"):
        lab.put_file(handle, f"{folder}gaps.parquet", b"mine")
    lab.put_file(handle, "spectral_edge/notes.txt", b"mine")
    before, run = lab.theirs(handle), lab.run(project)
    receipt = lab.tracker.retract(run)
    if lab.keeps_files_apart:
        assert receipt == RetractReceipt()
        assert lab.files(handle) == {}
    else:
        assert receipt.files == ("gaps.parquet",)  # in our folder, a file of this name is ours
        assert receipt.foreign_files == ("notes.txt",)
        assert lab.files(handle) == {"notes.txt": b"mine"}
    assert lab.theirs(handle) == before
    assert not lab.tracker.retract(run).took_back


def test_killed_anywhere_and_finished_by_the_next_retraction_or_undone_by_the_next_audit(lab: Lab, forks: Any) -> None:
    handle, run = logged_run(lab)
    before, note = lab.theirs(handle), lab.note(handle)
    lab.tracker.annotate(run, made(*STEPS))
    annotated = everything(lab, handle)
    total = statements(lab, forks, run)
    assert total > PLACES
    for place in range(PLACES):
        lab.tracker.annotate(run, made(*STEPS))
        process = forks.Process(
            target=killed.retract, args=(lab.tracker, run, 1 + place * (total - 1) // (PLACES - 1), None)
        )
        process.start()
        process.join()
        assert process.exitcode == -9
        state = lab.tracker.annotation_state(run)
        if state is not None and state.complete:  # killed before the first write: then nothing is missing
            assert everything(lab, handle) == annotated
        if place % 2:
            lab.tracker.annotate(run, made(*STEPS))
            assert everything(lab, handle) == annotated
        lab.tracker.retract(run)
        is_gone(lab, handle, note, before)


def statements(lab: Lab, forks: Any, run: TrackedRun) -> int:
    """How many statements an undisturbed retraction takes here."""
    counted = forks.SimpleQueue()
    process = forks.Process(target=killed.retract, args=(lab.tracker, run, 0, counted))
    process.start()
    process.join()
    assert process.exitcode == 0
    return int(counted.get())


def test_a_deleted_run_is_left_alone(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10))
    lab.delete(handle)
    for dry_run in (True, False):
        with pytest.raises(NotFoundError) as caught:
            lab.tracker.retract(run, dry_run=dry_run)
        assert caught.value.run == "run"


def test_points_that_were_forced_are_counted_with_those_they_stand_beside(lab: Lab) -> None:
    _, run = logged_run(lab)
    lab.tracker.annotate(run, made(*STEPS))
    lab.tracker.annotate(run, made(*STEPS, settings="t" * 16, scale=3.0), replace=True)
    expected = dict.fromkeys(sorted(KEYS), 2 * len(STEPS)) if lab.doubles_points else {}
    assert lab.tracker.retract(run).kept_metrics == expected


def test_a_running_run_is_taken_back_and_goes_on(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    experiment = lab.client.get_experiment_by_name(project.container)
    handle = lab.client.create_run(experiment.experiment_id, run_name="run").info.run_id
    run = lab.run(project)
    lab.tracker.annotate(run, made(10))
    lab.tracker.retract(run)
    lab.client.log_batch(handle, metrics=[Metric("loss", 1.0, 1, 1)])
    info = lab.client.get_run(handle).info
    assert (info.status, info.end_time) == ("RUNNING", None)


def test_artifacts_that_the_client_reaches_without_the_server(
    server: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": storage}.items():
        monkeypatch.setenv(name, value)
    lab = MlflowLab(tmp_path, server, "s3://artifacts/direct")
    handle, run = logged_run(lab)
    before, note = lab.theirs(handle), lab.note(handle)
    lab.tracker.annotate(run, made(10))
    assert set(lab.tracker.retract(run).files) == set(made().files)
    is_gone(lab, handle, note, before)
