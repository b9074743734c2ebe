"""Contract: an audit killed with SIGKILL anywhere in `annotate` is finished by the next one, and doubles nothing."""

from __future__ import annotations

from typing import Any

import killed
from labs import Lab, Logged, trained
from test_tracker_annotate import KEYS, logged_run, made, values

PLACES = 6
STEPS = tuple(range(1, 521))  # two metrics at each: more than MLflow takes in one request


def statements(lab: Lab, forks: Any) -> int:
    """How many statements an undisturbed annotation takes here."""
    _, run = logged_run(lab)
    counted = forks.SimpleQueue()
    process = forks.Process(target=killed.annotate, args=(lab.tracker, run, made(*STEPS), 0, counted))
    process.start()
    process.join()
    assert process.exitcode == 0
    return int(counted.get())


def test_killed_anywhere_and_finished_by_the_next_audit(lab: Lab, forks: Any) -> None:
    total = statements(lab, forks)
    assert total > PLACES
    for place in range(PLACES):
        kill_at = 1 + place * (total - 1) // (PLACES - 1)
        handle, run = logged_run(lab)
        before = lab.theirs(handle)
        process = forks.Process(target=killed.annotate, args=(lab.tracker, run, made(*STEPS), kill_at, None))
        process.start()
        process.join()
        assert process.exitcode == -9
        state = lab.tracker.annotation_state(run)
        if state is not None and state.complete:  # killed after the last write: then all must be there
            assert values(lab, handle) == {key: [(step, step + 0.5) for step in STEPS] for key in KEYS}

        lab.tracker.annotate(run, made(*STEPS))
        assert values(lab, handle) == {key: [(step, step + 0.5) for step in STEPS] for key in KEYS}
        files = lab.files(handle)
        assert files.keys() >= made().files.keys()
        assert not [name for name in files if name.endswith(".tmp")]
        assert lab.note(handle).count("### Spectral edge audit") == 1
        assert lab.theirs(handle) == before
        state = lab.tracker.annotation_state(run)
        assert state is not None
        assert state.complete


def test_killed_while_appending_checkpoints_and_finished_by_the_next_audit(lab: Lab, forks: Any) -> None:
    project = lab.project()
    handle = lab.log(project, Logged("run", trained(1, 2)))
    run = lab.run(project)
    lab.tracker.annotate(run, made(*STEPS[:500]))
    grown = made(*STEPS, fingerprint="g" * 16)
    process = forks.Process(target=killed.annotate, args=(lab.tracker, run, grown, 8, None))
    process.start()
    process.join()
    assert process.exitcode == -9
    state = lab.tracker.annotation_state(run)
    assert state is None or not (state.complete and state.fingerprint == grown.fingerprint)
    lab.tracker.annotate(run, grown)
    assert values(lab, handle) == {key: [(step, step + 0.5) for step in STEPS] for key in KEYS}
