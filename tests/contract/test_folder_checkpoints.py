"""Contract: checkpoints that are folders come complete and can be opened where they land."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from labs import Lab, Logged, small_model

from spectral_edge import read_checkpoint
from tests.checkpoints.checkpoint_writers import distributed_folder, safetensors_shards

WRITERS = {"distributed": (distributed_folder, 2), "shards": (safetensors_shards, 4)}
"""How a folder is written, and of how many files its checkpoint is."""


def _log(lab: Lab, handle: str, folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"not looked at")
    for path in sorted(folder.iterdir()):
        lab.put_file(handle, f"checkpoints/{folder.name}/{path.name}", path.read_bytes())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_checkpoint_that_is_a_folder_is_fetched_whole(lab: Lab, writer: str, tmp_path: Path) -> None:
    project = lab.project()
    handle = lab.log(project, Logged("run", metrics={"loss": [(9, 1.0)]}))
    write, count = WRITERS[writer]
    for step in (10, 9):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        write(small_model(step), folder)
        _log(lab, handle, folder)
    run = lab.run(project)
    listing = lab.tracker.checkpoints(run)
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [(9, "folder_name"), (10, "folder_name")]
    assert listing.warnings == ()
    for ref in listing.checkpoints:
        assert len(ref.files) == count
        assert ref.name.endswith(f"checkpoint-{ref.step}")
        read = read_checkpoint(*lab.tracker.fetch(run, ref, tmp_path / "spool"))
        expected = small_model(ref.step)
        assert sorted(read) == sorted(expected)
        assert all(torch.equal(read[name], expected[name]) for name in expected)
