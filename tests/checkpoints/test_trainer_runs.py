"""Runs as the usual training loops leave them behind: found, opened, and equal to what the live model had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from integrations.folder_runs import run_files, run_places
from spectral_edge import read_checkpoint
from spectral_edge.checkpoints import find_trajectory

RUNS = {
    "trainer": ("left out, the name tells no step: `model.safetensors`",),  # what `save_model` wrote at the end
    "trainer_adapters": (),
    "pretrained_shards": (),
    "lightning": (),
    "imagenet": ("left out, the name tells no step: `model_best.pth.tar`",),
}
"""The runs that trainer_runs.py makes, and the warnings that each gives."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "tests.checkpoints.trainer_runs", str(folder)]
    done = subprocess.run(
        command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("run", RUNS)
def test_every_checkpoint_holds_what_the_live_model_had(run: str, trained: Path) -> None:
    (folder,) = run_places(trained / run)
    found = find_trajectory(run_files(folder))
    assert [checkpoint.step for checkpoint in found.checkpoints] == [1, 2, 3]
    assert found.warnings == RUNS[run]
    for checkpoint in found.checkpoints:
        read = read_checkpoint(*(folder / path for path in checkpoint.paths))
        live = load_file(trained / "live" / run / f"{checkpoint.step}.safetensors")
        assert list(read) == sorted(live)
        assert all(torch.equal(read[name], live[name]) for name in live)


@pytest.mark.parametrize("run", RUNS)
def test_steps_differ(run: str, trained: Path) -> None:
    """Else the test above could not tell one checkpoint from the next."""
    first, *_, last = (load_file(trained / "live" / run / f"{step}.safetensors") for step in (1, 2, 3))
    assert any(not torch.equal(first[name], last[name]) for name in first)
