"""`into` child: results go to a child run, the audited run is not touched, and there is one child whatever happens."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed
import pytest
from labs import Lab, MlflowLab
from mlflow.entities import Run, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from test_tracker_annotate import KEYS, logged_run, made

from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import AUDIT_OF, Selection
from spectral_edge.errors import AnnotationConflictError, NotFoundError

PLACES = 5


@pytest.fixture(params=("mlflow-sqlite", "mlflow-file", "mlflow-server"))
def mlflow_lab(request: pytest.FixtureRequest, make_lab: Callable[[str], Lab]) -> MlflowLab:
    lab = make_lab(request.param)
    assert isinstance(lab, MlflowLab)
    return lab


@pytest.fixture
def server_lab(server: str, tmp_path: Path) -> MlflowLab:
    return MlflowLab(tmp_path, server)


def whole(lab: MlflowLab, handle: str) -> Any:
    """All of a run: state, times, name, params, tags with the note, every metric point, files."""
    run = lab.client.get_run(handle)
    return lab.theirs(handle), dict(run.data.tags), lab.points(handle), lab.files(handle)


def children(lab: MlflowLab, handle: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    experiment = lab.client.get_run(handle).info.experiment_id
    return [run for run in lab.client.search_runs([experiment], run_view_type=view) if AUDIT_OF in run.data.tags]


def child_tracker(lab: MlflowLab) -> MlflowTracker:
    return MlflowTracker(lab.uri, "child")


def test_all_results_are_in_one_child_run_and_the_audited_run_is_as_before(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    handle, run = logged_run(lab)
    before = whole(lab, handle)
    assert child_tracker(lab).annotation_state(run) is None
    receipt = child_tracker(lab).annotate(run, made(10, 20))
    assert (receipt.metric_points, receipt.files, receipt.warnings) == (4, 2, ())
    (child,) = children(lab, handle)
    assert (child.info.run_name, child.info.status) == ("spectral-edge", "FINISHED")
    assert child.info.end_time is not None
    assert child.data.tags[MLFLOW_PARENT_RUN_ID] == child.data.tags[AUDIT_OF] == handle
    assert lab.points(child.info.run_id) == {key: [(10, 10.5), (20, 20.5)] for key in KEYS}
    assert lab.files(child.info.run_id) == made().files
    assert made().tags.items() <= child.data.tags.items()
    assert "2 windows." in lab.note(child.info.run_id)
    assert not [tag for tag in child.data.tags if "lease" in tag]

    once = whole(lab, child.info.run_id)
    again = child_tracker(lab).annotate(run, made(10, 20))
    assert (again.metric_points, again.files) == (0, 0)
    child_tracker(lab).annotate(run, made(10, 20, 30, fingerprint="g" * 16))
    assert lab.points(child.info.run_id) == {key: [(10, 10.5), (20, 20.5), (30, 30.5)] for key in KEYS}
    assert [found.info.run_id for found in children(lab, handle)] == [child.info.run_id]
    assert whole(lab, child.info.run_id)[0] == once[0]
    begin = lab.client.get_run(handle).info.start_time
    history = lab.client.get_metric_history(child.info.run_id, KEYS[0])
    assert [point.timestamp - begin for point in history] == [10, 20, 30]

    assert whole(lab, handle) == before
    assert [found.key.run_name for found in lab.tracker.runs(Selection(run.key.project))] == ["run"]


def test_taken_back_the_child_is_deleted_and_the_next_audit_makes_another(mlflow_lab: MlflowLab) -> None:
    lab = mlflow_lab
    handle, run = logged_run(lab)
    before = whole(lab, handle)
    child_tracker(lab).annotate(run, made(10))
    (child,) = children(lab, handle)
    planned = lab.tracker.retract(run, dry_run=True)
    assert children(lab, handle)
    receipt = lab.tracker.retract(run)
    assert receipt == planned
    assert receipt.child_runs == (child.info.run_id,)
    assert receipt.took_back
    assert "mlflow gc" in receipt.advice
    assert not receipt.kept_metrics
    assert not children(lab, handle)
    (deleted,) = children(lab, handle, ViewType.DELETED_ONLY)
    assert not [tag for tag in deleted.data.tags if "lease" in tag]
    assert not lab.tracker.retract(run).took_back
    assert whole(lab, handle) == before
    assert child_tracker(lab).annotation_state(run) is None
    child_tracker(lab).annotate(run, made(10, settings="t" * 16, scale=3.0))  # no old points: no conflict
    (second,) = children(lab, handle)
    assert second.info.run_id != child.info.run_id


def test_from_run_to_child_and_back(server_lab: MlflowLab) -> None:
    lab = server_lab
    handle, run = logged_run(lab)
    theirs, note = lab.theirs(handle), lab.note(handle)
    lab.tracker.annotate(run, made(10))
    in_run = whole(lab, handle)
    child_tracker(lab).annotate(run, made(10))
    assert whole(lab, handle) == in_run
    (child,) = children(lab, handle)
    in_child = whole(lab, child.info.run_id)
    assert lab.tracker.annotate(run, made(10)).metric_points == 0
    lab.tracker.annotate(run, made(10, 20, fingerprint="g" * 16))
    assert whole(lab, child.info.run_id) == in_child
    receipt = lab.tracker.retract(run)
    assert receipt.tags
    assert receipt.child_runs == (child.info.run_id,)
    assert receipt.kept_metrics == dict.fromkeys(sorted(KEYS), 2)
    assert (lab.theirs(handle), lab.tags(handle), lab.files(handle), lab.note(handle)) == (theirs, {}, {}, note)


def test_other_settings_are_refused_there_too_and_the_audited_run_is_named(server_lab: MlflowLab) -> None:
    lab = server_lab
    handle, run = logged_run(lab)
    child_tracker(lab).annotate(run, made(10))
    before = whole(lab, children(lab, handle)[0].info.run_id)
    with pytest.raises(AnnotationConflictError, match="--force") as caught:
        child_tracker(lab).annotate(run, made(10, settings="t" * 16, scale=3.0))
    assert caught.value.run == "run"
    assert whole(lab, children(lab, handle)[0].info.run_id) == before


def test_of_two_children_the_oldest_is_used_and_the_other_named(server_lab: MlflowLab) -> None:
    lab = server_lab
    handle, run = logged_run(lab)
    child_tracker(lab).annotate(run, made(10))
    (child,) = children(lab, handle)
    tags = {MLFLOW_PARENT_RUN_ID: handle, AUDIT_OF: handle}
    second = lab.client.create_run(child.info.experiment_id, tags=tags).info.run_id
    # Not nested below the run, as when somebody has copied tags: not ours to write to.
    lab.client.create_run(child.info.experiment_id, start_time=1, tags={AUDIT_OF: handle})
    receipt = child_tracker(lab).annotate(run, made(10, 20, fingerprint="g" * 16))
    assert len(receipt.warnings) == 1
    assert second in receipt.warnings[0]
    assert lab.points(child.info.run_id) == {key: [(10, 10.5), (20, 20.5)] for key in KEYS}
    assert not lab.points(second)
    assert lab.tracker.retract(run).child_runs == (child.info.run_id, second)


def test_a_run_that_was_deleted_gets_no_child(server_lab: MlflowLab) -> None:
    handle, run = logged_run(server_lab)
    server_lab.delete(handle)
    with pytest.raises(NotFoundError):
        child_tracker(server_lab).annotate(run, made(10))
    assert not children(server_lab, handle, ViewType.ALL)


def test_killed_anywhere_there_is_one_child_in_the_end(server_lab: MlflowLab) -> None:
    lab = server_lab
    forks: Any = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["killed", "integrations.mlflow_tracker", "integrations.folder_tracker"])
    handle, run = logged_run(lab)
    counted = forks.SimpleQueue()
    process = forks.Process(target=killed.annotate, args=(child_tracker(lab), run, made(10, 20), 0, counted))
    process.start()
    process.join()
    total = int(counted.get())
    for place in range(PLACES):
        handle, run = logged_run(lab)
        before = whole(lab, handle)
        kill_at = 1 + place * (total - 1) // (PLACES - 1)
        process = forks.Process(target=killed.annotate, args=(child_tracker(lab), run, made(10, 20), kill_at, None))
        process.start()
        process.join()
        assert process.exitcode == -9
        child_tracker(lab).annotate(run, made(10, 20))
        (child,) = children(lab, handle)
        assert lab.points(child.info.run_id) == {key: [(10, 10.5), (20, 20.5)] for key in KEYS}
        assert child.info.status == "FINISHED"
        assert not [tag for tag in child.data.tags if "lease" in tag]
        assert whole(lab, handle) == before
