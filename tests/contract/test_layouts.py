"""Checkpoints in every way that people log them, by the real libraries on a real server: steps, sources, weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import LAYOUTS, Layout
from safetensors.torch import load_file

from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection, TrackedRun
from spectral_edge import read_checkpoint

EXPERIMENT = "layouts"


@pytest.fixture(scope="session")
def live(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs are logged; the folder with the parameters that each model had at each of its checkpoints."""
    folder = tmp_path_factory.mktemp("live")
    command = [sys.executable, "-m", "tests.contract.logged_runs", server, EXPERIMENT, str(folder)]
    done = subprocess.run(
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def runs(server: str, live: Path) -> Mapping[str, TrackedRun]:
    return {run.key.run_name: run for run in MlflowTracker(server).runs(Selection(EXPERIMENT))}


def test_every_run_that_is_logged_is_in_the_table(runs: Mapping[str, TrackedRun]) -> None:
    assert sorted(runs) == sorted(layout.run for layout in LAYOUTS)


def cells() -> list[Any]:
    return [
        pytest.param(layout, marks=pytest.mark.matrix("layouts", layout.logged_by, layout.step_source), id=layout.run)
        for layout in LAYOUTS
    ]


@pytest.mark.parametrize("layout", cells())
def test_steps_sources_and_weights(
    layout: Layout, server: str, runs: Mapping[str, TrackedRun], live: Path, tmp_path: Path
) -> None:
    tracker, run = MlflowTracker(server), runs[layout.run]
    listing = tracker.checkpoints(run)
    assert tuple(ref.step for ref in listing.checkpoints) == layout.steps
    assert (listing.series, listing.step_source, listing.others) == (layout.series, layout.step_source, ())
    assert listing.checkpoints[0].files[0].path == layout.file
    assert bool(listing.warnings) == (layout.step_source == "metric_time")
    for ref in listing.checkpoints:
        read = read_checkpoint(*tracker.fetch(run, ref, tmp_path / "spool"))
        logged = load_file(live / layout.run / f"{ref.step}.safetensors")
        assert sorted(read) == sorted(logged)
        assert all(torch.equal(read[name], logged[name]) for name in logged)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.run)
def test_weights_differ_between_steps(layout: Layout, live: Path) -> None:
    """Else the test above could not tell one checkpoint from the next."""
    first, *_, last = (load_file(live / layout.run / f"{step}.safetensors") for step in layout.steps)
    assert any(not torch.equal(first[name], last[name]) for name in first)
