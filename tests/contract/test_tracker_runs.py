"""Contract: which runs a tracker lists, how they are keyed, and what it says when there are none."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from copy import copy

import pytest
from labs import NASTY_NAMES, Lab, Logged, trained

from integrations.tracker import Selection
from spectral_edge.errors import NotFoundError


def test_runs_are_listed_with_name_project_and_an_id_of_their_own(lab: Lab) -> None:
    project = lab.project()
    for name in ("first", "second"):
        lab.log(project, Logged(name, trained(1, 2)))
    runs = list(lab.tracker.runs(project))
    assert [run.key.run_name for run in runs] == ["first", "second"]
    assert len({run.key.run_id for run in runs}) == 2
    assert {run.key.tracker for run in runs} == {lab.tracker.kind}
    assert {run.key.project for run in runs} == {lab.name_of(project)}


def test_a_second_look_gives_the_same_keys_in_the_same_order(lab: Lab) -> None:
    project = lab.project()
    for name in ("b", "a", "c"):
        lab.log(project, Logged(name, trained(1, 2)))
    assert [run.key for run in lab.tracker.runs(project)] == [run.key for run in lab.tracker.runs(project)]


def test_deleted_runs_are_left_out(lab: Lab) -> None:
    project = lab.project()
    gone = lab.log(project, Logged("gone", trained(1, 2)))
    lab.log(project, Logged("kept", trained(1, 2)))
    lab.delete(gone)
    assert [run.key.run_name for run in lab.tracker.runs(project)] == ["kept"]


def test_run_ids_narrow_the_selection(lab: Lab) -> None:
    project = lab.project()
    for name in ("first", "second"):
        lab.log(project, Logged(name, trained(1, 2)))
    wanted = lab.run(project, "second").key
    assert [run.key for run in lab.tracker.runs(Selection(project.container, (wanted.run_id,)))] == [wanted]


def test_a_run_id_that_is_not_there_is_not_found(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("first", trained(1, 2)))
    with pytest.raises(NotFoundError):
        list(lab.tracker.runs(Selection(project.container, ("0" * 32,))))


def test_a_project_that_is_not_there_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="no-such-project"):
        list(lab.tracker.runs(Selection(f"{lab.scratch}/no-such-project")))


def test_params_are_told_as_they_were_logged(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2), params={"optimizer": "AdamW", "weight_decay": "0.1"}))
    params = lab.run(project).params
    assert (params["optimizer"], params["weight_decay"]) == ("AdamW", "0.1")


@pytest.mark.parametrize("name", NASTY_NAMES, ids=("path", "html", "unicode", "long", "format"))
def test_odd_names_come_through_unchanged(lab: Lab, name: str) -> None:
    project = lab.project(name)
    lab.log(project, Logged(lab.spelled(name), trained(1, 2), tags={"odd": name}))
    run = lab.run(project, lab.spelled(name))
    assert run.key.project == lab.name_of(project)
    assert [ref.step for ref in lab.tracker.checkpoints(run).checkpoints] == [1, 2]


def test_a_tracker_says_in_one_line_what_it_is(lab: Lab) -> None:
    line = lab.tracker.check()
    assert line
    assert "\n" not in line


def test_a_run_can_be_sent_to_another_process(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    run = lab.run(project)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as processes:
        assert processes.submit(copy, run).result() == run
