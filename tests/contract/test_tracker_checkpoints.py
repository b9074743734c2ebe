"""Contract: a run's checkpoints, their steps, their bytes; and the metrics it logged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labs import Lab, Logged, save, trained

from spectral_edge.errors import FetchInterruptedError, NoStepError, NotFoundError


def test_checkpoints_come_by_increasing_step_whatever_the_names_sort_like(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(900, 1_000_000, 20)))
    listing = lab.tracker.checkpoints(lab.run(project))
    assert [ref.step for ref in listing.checkpoints] == [20, 900, 1_000_000]
    assert {ref.step_source for ref in listing.checkpoints} == {"file_name"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_fetched_bytes_are_the_logged_ones(lab: Lab, suffix: str, tmp_path: Path) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(10, 20), suffix=suffix))
    run, spool = lab.run(project), tmp_path / "spool"
    for ref in lab.tracker.checkpoints(run).checkpoints:
        (path,) = lab.tracker.fetch(run, ref, spool)
        assert path.suffix == suffix
        assert path.read_bytes() == lab.saved[ref.step]
        assert ref.size == len(lab.saved[ref.step])


def test_what_is_fetched_lies_in_the_given_folder_unless_it_is_local_already(lab: Lab, tmp_path: Path) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(10, 20)))
    tracker, run, spool = lab.tracker, lab.run(project), tmp_path / "spool"
    paths = [tracker.fetch(run, ref, spool)[0] for ref in tracker.checkpoints(run).checkpoints]
    assert len(set(paths)) == 2
    assert all(path.is_relative_to(spool) != tracker.capabilities.local_checkpoints for path in paths)


def test_a_second_listing_describes_the_same_files(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(10, 20)))
    run = lab.run(project)
    assert lab.tracker.checkpoints(run) == lab.tracker.checkpoints(run)


def test_a_file_that_is_gone_when_it_is_fetched(lab: Lab, tmp_path: Path) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(10, 20)))
    run = lab.run(project)
    ref = lab.tracker.checkpoints(run).checkpoints[0]
    missing = type(ref.files[0])("checkpoints/step_000099.safetensors", 5)
    spool = tmp_path / "spool"
    with pytest.raises(NotFoundError) as caught:
        lab.tracker.fetch(run, type(ref)("gone", 99, "file_name", (missing,), ref.location), spool)
    assert caught.value.run == "run"
    assert not spool.exists() or not list(spool.rglob("*"))


def test_a_file_of_another_size_than_listed_is_not_taken(lab: Lab, tmp_path: Path) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(10, 20)))
    run = lab.run(project)
    ref = lab.tracker.checkpoints(run).checkpoints[0]
    longer = type(ref.files[0])(ref.files[0].path, ref.size + 1)
    spool = tmp_path / "spool"
    with pytest.raises(FetchInterruptedError, match=str(ref.size)):
        lab.tracker.fetch(run, type(ref)(ref.name, ref.step, "file_name", (longer,), ref.location), spool)
    assert not spool.exists() or not list(spool.rglob("*"))


def test_checkpoints_without_a_step_name_the_run_and_a_file(lab: Lab) -> None:
    project = lab.project()
    handle = lab.log(project, Logged("run", {}))
    path = lab.scratch / "best.safetensors"
    save(trained(1)[1], path)
    lab.put_file(handle, path.name, path.read_bytes())
    with pytest.raises(NoStepError, match=r"best\.safetensors") as caught:
        lab.tracker.checkpoints(lab.run(project))
    assert caught.value.run == "run"


def test_metric_series_are_complete_and_ours_are_not_among_them(lab: Lab) -> None:
    project = lab.project()
    many = [(step, float(np.sin(step))) for step in range(2500)]
    lab.log(project, Logged("run", trained(1, 2), metrics={"train/loss": many, "val_accuracy": [(0, 0.5), (7, 0.75)]}))
    run = lab.run(project)
    assert lab.tracker.metric_names(run) == ("train/loss", "val_accuracy")
    series = lab.tracker.metric_series(run, "train/loss")
    assert list(zip(series.steps.tolist(), series.values.tolist(), strict=True)) == many


def test_a_metric_that_is_not_finite_everywhere_keeps_its_finite_points(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2), metrics={"loss": [(1, 2.0), (2, float("nan")), (3, 1.0)]}))
    series = lab.tracker.metric_series(lab.run(project), "loss")
    assert series.steps.tolist() == [1, 3]


def test_a_metric_that_was_not_logged_is_an_empty_series(lab: Lab) -> None:
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    assert len(lab.tracker.metric_series(lab.run(project), "no such").steps) == 0
