"""Two auditors of one run at the same time: no point twice, no tag lost, and one of them is told clearly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import at_once
import psutil
import pytest
from labs import Lab, Logged, MlflowLab
from test_tracker_annotate import KEYS, made
from test_tracker_child import children

from integrations import mlflow_lease
from integrations.mlflow_lease import Lease, leased
from integrations.mlflow_tags import LEASE_PREFIX
from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Annotation, TrackedRun, WriteReceipt
from spectral_edge.errors import RunBusyError

ROUNDS = 3
STEPS = tuple(range(1, 41))
POINTS = {key: [(step, step + 0.5) for step in STEPS] for key in KEYS}
OTHER = {key: [(step, 3 * (step + 0.5)) for step in STEPS] for key in KEYS}
MANY = {f"mine.{number}": str(number) for number in range(8)}


@pytest.fixture
def lab(server: str, tmp_path: Path) -> MlflowLab:
    return MlflowLab(tmp_path, server)


def bare_run(lab: Lab) -> tuple[str, TrackedRun]:
    project = lab.project()
    handle = lab.log(project, Logged("run", tags={"mine": "keep me"}))
    return handle, lab.run(project)


def both(
    forks: Any, lab: MlflowLab, run: TrackedRun, annotations: Sequence[Annotation], into: Any = "run"
) -> list[str | WriteReceipt]:
    """What two processes that annotate at once say of it, while a third sets tags of the user."""
    start, told = forks.Barrier(3), forks.Queue()
    works = [(at_once.annotate, (MlflowTracker(lab.uri, into), run, wanted, start, told)) for wanted in annotations]
    works.append((at_once.tag, (lab.uri, run.key.run_id, MANY, start)))
    processes = [forks.Process(target=target, args=arguments) for target, arguments in works]
    for process in processes:
        process.start()
    outcomes = [told.get(timeout=120) for _ in annotations]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return outcomes


def no_lease(lab: MlflowLab, handle: str) -> bool:
    return not [tag for tag in lab.client.get_run(handle).data.tags if tag.startswith(LEASE_PREFIX)]


def is_untouched(lab: MlflowLab, handle: str) -> bool:
    tags = lab.client.get_run(handle).data.tags
    return tags["mine"] == "keep me" and tags.items() >= MANY.items()


def test_with_equal_settings_one_writes_and_the_other_finds_all_written(forks: Any, lab: MlflowLab) -> None:
    for _ in range(ROUNDS):
        handle, run = bare_run(lab)
        receipts = both(forks, lab, run, [made(*STEPS), made(*STEPS)])
        assert sorted(receipt.metric_points for receipt in receipts) == [0, 2 * len(STEPS)]
        assert lab.points(handle) == POINTS
        assert made().tags.items() <= lab.tags(handle).items()
        assert lab.note(handle).count("Spectral edge audit") == 1
        assert lab.files(handle) == made().files
        assert is_untouched(lab, handle)
        assert no_lease(lab, handle)


def test_with_other_settings_one_writes_and_the_other_is_refused(forks: Any, lab: MlflowLab) -> None:
    first, second = made(*STEPS), made(*STEPS, settings="t" * 16, scale=3.0)
    for _ in range(ROUNDS):
        handle, run = bare_run(lab)
        outcomes = both(forks, lab, run, [first, second])
        assert outcomes.count("AnnotationConflictError") == 1
        settings = lab.tags(handle)["spectral_edge.settings_hash"]
        assert lab.points(handle) == (POINTS if settings == "s" * 16 else OTHER)
        assert {mark for name, mark in lab.tags(handle).items() if name.endswith(("ting", "ted"))} == {
            (first if settings == "s" * 16 else second).mark
        }
        assert is_untouched(lab, handle)
        assert no_lease(lab, handle)


def test_without_metrics_the_tags_are_those_of_one_of_them_completely(forks: Any, lab: MlflowLab) -> None:
    names = [f"spectral_edge.t{number}" for number in range(12)]
    first = replace(made(), metrics=(), files={}, tags=dict.fromkeys(names, "a"), note="a")
    second = replace(first, settings_hash="t" * 16, tags=dict.fromkeys(names[6:], "b"), note="b")
    for _ in range(ROUNDS):
        handle, run = bare_run(lab)
        assert all(isinstance(outcome, WriteReceipt) for outcome in both(forks, lab, run, [first, second]))
        last = first if "a" in lab.note(handle).split("\n") else second
        marks = {"spectral_edge.annotating": last.mark, "spectral_edge.annotated": last.mark}
        assert lab.tags(handle) == {**last.tags, **marks}
        assert is_untouched(lab, handle)


def test_one_child_is_made_and_written_once(forks: Any, lab: MlflowLab) -> None:
    for _ in range(ROUNDS):
        handle, run = bare_run(lab)
        receipts = both(forks, lab, run, [made(*STEPS), made(*STEPS)], "child")
        assert sorted(receipt.metric_points for receipt in receipts) == [0, 2 * len(STEPS)]
        (child,) = children(lab, handle)
        assert lab.points(child.info.run_id) == POINTS
        assert child.info.status == "FINISHED"
        assert not lab.tags(handle)
        assert no_lease(lab, child.info.run_id)


def test_who_was_held_up_for_too_long_writes_no_more(
    forks: Any, lab: MlflowLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_lease, "SILENCE", 1.0)
    handle, run = bare_run(lab)
    told = forks.Queue()
    process = forks.Process(target=at_once.annotate_held_up, args=(lab.tracker, run, made(10), told))
    process.start()
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.05)
    other = made(10, 20, fingerprint="g" * 16)
    lab.tracker.annotate(run, other)
    after = (lab.tags(handle), lab.points(handle), lab.files(handle), lab.note(handle))
    os.kill(process.pid, signal.SIGCONT)
    assert told.get(timeout=60) == "RunBusyError"
    process.join()
    assert (lab.tags(handle), lab.points(handle), lab.files(handle), lab.note(handle)) == after
    state = lab.tracker.annotation_state(run)
    assert state is not None
    assert (state.fingerprint, state.complete) == ("g" * 16, True)


def test_a_writer_that_renews_its_lease_is_waited_for_and_then_reported(
    lab: MlflowLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"SILENCE": 1.5, "BEAT": 0.2, "PATIENCE": 3.0}.items():
        monkeypatch.setattr(mlflow_lease, name, seconds)
    handle, run = bare_run(lab)
    with leased(lab.client, lab.client.get_run(handle)):
        state = lab.tracker.annotation_state(run)
        for write in (lambda: lab.tracker.annotate(run, made(10)), lambda: lab.tracker.retract(run)):
            with pytest.raises(RunBusyError, match="more than 3 seconds") as caught:
                write()
            assert caught.value.run == "run"
    assert state is None
    assert not lab.points(handle)
    assert no_lease(lab, handle)
    lab.tracker.annotate(run, made(10))


def test_a_lease_that_is_left_behind_makes_an_audit_incomplete_and_goes_with_the_next(
    lab: MlflowLab,
) -> None:
    handle, run = bare_run(lab)
    for take_back in (False, True):
        lab.tracker.annotate(run, made(10))
        lab.client.set_tag(handle, f"{LEASE_PREFIX}dead", "3")
        state = lab.tracker.annotation_state(run)
        assert state is not None
        assert not state.complete
        if take_back:
            assert f"{LEASE_PREFIX}dead" not in lab.tracker.retract(run).tags
        else:
            lab.tracker.annotate(run, made(10))
        assert no_lease(lab, handle)


def test_a_lease_in_doubt_is_renewed_unless_another_has_taken_over(lab: MlflowLab) -> None:
    handle, _ = bare_run(lab)
    for taken_over in ((), ("mine deleted",), ("mine deleted", "other writes"), ("other writes",)):
        with pytest.raises(RunBusyError) if taken_over else nullcontext():  # noqa: SIM117
            with leased(lab.client, lab.client.get_run(handle)) as lease:
                if "mine deleted" in taken_over:
                    lab.client.delete_tag(handle, lease._key)
                if "other writes" in taken_over:
                    lab.client.set_tag(handle, f"{LEASE_PREFIX}other", "1")
                lease.check()  # no doubt yet, so nothing is asked
                lease._renewed -= 1000
                lease.check()
                assert not lease._is_doubtful
        if "other writes" in taken_over:
            lab.client.delete_tag(handle, f"{LEASE_PREFIX}other")
        assert no_lease(lab, handle)


def test_of_two_that_ask_at_the_same_moment_both_step_back(lab: MlflowLab) -> None:
    handle, _ = bare_run(lab)
    run = lab.client.get_run(handle)
    first, second = Lease(lab.client, run, "first"), Lease(lab.client, run, "second")
    first._renew()  # both have seen nobody, and now both write
    second._renew()
    assert not first._try()
    first._renew()
    assert not second._try()
    first.release()
    second.acquire()
    assert not first._try()
    second.release()
    assert no_lease(lab, handle)
