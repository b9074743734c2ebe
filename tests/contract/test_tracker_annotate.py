"""Contract: what `annotate` writes, that it changes nothing else, and that doing it twice changes nothing at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from labs import NASTY_NAMES, NOTE_TAG, Lab, Logged, MlflowLab, trained

from integrations.tracker import Annotation, MetricPoint
from spectral_edge.errors import AnnotationConflictError, NotFoundError

KEYS = ("spectral_edge/total/gap", "spectral_edge/layer.0/singular_values_1")


def made(*steps: int, settings: str = "s" * 16, fingerprint: str = "f" * 16, scale: float = 1.0) -> Annotation:
    """An annotation with two metrics at each of `steps`."""
    return Annotation(
        fingerprint=fingerprint,
        settings_hash=settings,
        tags={"spectral_edge.status": "ok", "spectral_edge.regime": "plateau", "spectral_edge.settings_hash": settings},
        note=f"### Spectral edge audit\n\n{len(steps)} windows.",
        metrics=tuple(MetricPoint(key, step, scale * (step + 0.5)) for key in KEYS for step in steps),
        files={"gaps.parquet": b"PAR1" + bytes(200), "spectrum.html": b"<!doctype html><p>chart"},
    )


def logged_run(lab: Lab) -> tuple[str, object]:
    """A run with all a user may have put on it: its handle, and the run as its tracker tells it."""
    project = lab.project()
    metrics = {"loss": [(1, 2.0), (2, 1.0)], "val_loss": [(2, 1.5)]}
    tags = {"mine": "keep me", NOTE_TAG: "My note.\r\n\n<!-- with a comment --> and *stars* "}
    handle = lab.log(project, Logged("run", trained(1, 2), metrics, {"lr": "0.1"}, tags))
    return handle, lab.run(project)


def values(lab: Lab, handle: str) -> dict[str, list[tuple[int, float]]]:
    return {key: sorted(points) for key, points in lab.points(handle).items()}


def test_everything_is_written_and_nothing_else_is_touched(lab: Lab) -> None:
    handle, run = logged_run(lab)
    before = lab.theirs(handle)
    receipt = lab.tracker.annotate(run, made(10, 20))
    assert lab.theirs(handle) == before
    assert receipt.metric_points == 4
    assert not lab.unusual(receipt.warnings)
    assert values(lab, handle) == {key: [(10, 10.5), (20, 20.5)] for key in KEYS}
    assert made().files.items() <= lab.files(handle).items()
    assert made().tags.items() <= lab.tags(handle).items()
    assert "2 windows." in lab.note(handle)
    assert lab.tracker.metric_names(run) == ("loss", "val_loss")
    assert [ref.step for ref in lab.tracker.checkpoints(run).checkpoints] == [1, 2]


def test_the_state_names_the_audit_and_that_it_is_complete(lab: Lab) -> None:
    _, run = logged_run(lab)
    assert lab.tracker.annotation_state(run) is None
    lab.tracker.annotate(run, made(10))
    state = lab.tracker.annotation_state(run)
    assert state is not None
    assert (state.fingerprint, state.settings_hash, state.complete) == ("f" * 16, "s" * 16, True)


def test_annotating_twice_writes_nothing_the_second_time(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10, 20))
    once = (values(lab, handle), lab.files(handle), lab.tags(handle), lab.note(handle))
    receipt = lab.tracker.annotate(run, made(10, 20))
    assert (receipt.metric_points, receipt.files, receipt.bytes_written) == (0, 0, 0)
    assert (values(lab, handle), lab.files(handle), lab.tags(handle), lab.note(handle)) == once


def test_new_checkpoints_add_points_and_double_none(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10, 20))
    receipt = lab.tracker.annotate(run, made(10, 20, 30, fingerprint="g" * 16))
    assert values(lab, handle) == {key: [(10, 10.5), (20, 20.5), (30, 30.5)] for key in KEYS}
    assert receipt.metric_points == (2 if lab.doubles_points else 6)
    assert lab.note(handle).count("Spectral edge audit") == 1
    assert "3 windows." in lab.note(handle)


def test_more_points_than_one_batch_takes(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(*range(1, 701)))
    assert {key: len(points) for key, points in lab.points(handle).items()} == dict.fromkeys(KEYS, 700)


def test_other_settings_are_refused_where_points_would_be_mixed(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10))
    before = (values(lab, handle), lab.tags(handle), lab.note(handle))
    other = made(10, settings="t" * 16, scale=3.0)
    if lab.tracker.capabilities.overwrites_metrics:
        lab.tracker.annotate(run, other)
        assert values(lab, handle) == {key: [(10, 31.5)] for key in KEYS}
        return
    with pytest.raises(AnnotationConflictError, match="--force") as caught:
        lab.tracker.annotate(run, other)
    assert caught.value.run == "run"
    assert (values(lab, handle), lab.tags(handle), lab.note(handle)) == before


def test_other_settings_that_change_no_point_are_no_conflict(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10))
    lab.tracker.annotate(run, made(10, settings="t" * 16))
    assert values(lab, handle) == {key: [(10, 10.5)] for key in KEYS}
    state = lab.tracker.annotation_state(run)
    assert state is not None
    assert (state.settings_hash, state.complete) == ("t" * 16, True)


def test_replacing_makes_the_new_value_the_valid_one_and_repeating_it_adds_nothing(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10))
    other = made(10, settings="t" * 16, scale=0.5)
    for _ in range(2):
        lab.tracker.annotate(run, other, replace=True)
    expected = [(10, 5.25), (10, 10.5)] if lab.doubles_points else [(10, 5.25)]
    assert values(lab, handle) == dict.fromkeys(KEYS, expected)
    state = lab.tracker.annotation_state(run)
    assert state is not None
    assert state.settings_hash == "t" * 16


def test_replaced_checkpoints_are_refused_where_points_would_be_mixed(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10, 20))
    other = made(10, 20, fingerprint="g" * 16, scale=2.0)
    if lab.doubles_points:
        with pytest.raises(AnnotationConflictError, match="other checkpoints"):
            lab.tracker.annotate(run, other)
        assert values(lab, handle) == {key: [(10, 10.5), (20, 20.5)] for key in KEYS}
    else:
        lab.tracker.annotate(run, other)
        assert values(lab, handle) == {key: [(10, 21.0), (20, 41.0)] for key in KEYS}


def test_a_few_values_that_moved_are_kept_and_said_so_where_they_cannot_be_replaced(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10, 20, 30))
    moved = made(10, 20, 30, 40, fingerprint="g" * 16)
    moved = replace(moved, metrics=(replace(moved.metrics[0], value=99.0), *moved.metrics[1:]))
    receipt = lab.tracker.annotate(run, moved)
    kept = (10, 10.5) if lab.doubles_points else (10, 99.0)
    assert values(lab, handle)[KEYS[0]] == [kept, (20, 20.5), (30, 30.5), (40, 40.5)]
    assert len(lab.unusual(receipt.warnings)) == (1 if lab.doubles_points else 0)


def test_tags_of_an_earlier_audit_that_no_longer_hold_are_taken_away(lab: Lab) -> None:
    handle, run = logged_run(lab)
    failed = Annotation(
        "f" * 16, "s" * 16, {"spectral_edge.status": "failed", "spectral_edge.error": "no room"}, "It failed."
    )
    lab.tracker.annotate(run, failed)
    assert lab.tags(handle)["spectral_edge.error"] == "no room"
    lab.tracker.annotate(run, made(10))
    assert "spectral_edge.error" not in lab.tags(handle)
    assert lab.tags(handle)["spectral_edge.status"] == "ok"
    assert "It failed." not in lab.note(handle)


@pytest.mark.parametrize("group", NASTY_NAMES, ids=("path", "html", "unicode", "long", "format"))
def test_metrics_of_groups_with_odd_names_are_written_under_keys_the_tracker_takes(lab: Lab, group: str) -> None:
    handle, run = logged_run(lab)
    odd = tuple(MetricPoint(f"spectral_edge/{name}/gap", 5, 1.25) for name in (group, f"{group}/", f"{group}2"))
    for _ in range(2):
        lab.tracker.annotate(run, replace(made(), metrics=odd))
    points = lab.points(handle)
    assert all(key.startswith("spectral_edge/") for key in points)
    assert [found for key in points for found in points[key]] == [(5, 1.25)] * 3


def test_odd_tags_and_notes_come_through_unchanged(lab: Lab) -> None:
    handle, run = logged_run(lab)
    tags = {f"spectral_edge.odd{place}": name for place, name in enumerate(NASTY_NAMES)}
    lab.tracker.annotate(run, replace(made(10), tags=tags, note="\n".join(NASTY_NAMES)))
    assert tags.items() <= lab.tags(handle).items()
    assert "\n".join(NASTY_NAMES) in lab.note(handle)


def test_a_deleted_run_is_not_annotated(lab: Lab) -> None:
    handle, run = logged_run(lab)
    lab.delete(handle)
    with pytest.raises(NotFoundError):
        lab.tracker.annotate(run, made(10))
    if isinstance(lab, MlflowLab):
        lab.client.restore_run(handle)
        assert not lab.files(handle)


def test_the_users_note_is_kept_byte_for_byte(lab: Lab) -> None:
    handle, run = logged_run(lab)
    theirs = lab.note(handle)
    for steps in ((10,), (10, 20)):
        lab.tracker.annotate(run, made(*steps, fingerprint="f" * (14 + len(steps))))
        assert lab.note(handle).startswith(theirs)
