"""From real checkpoints to what people see: the report understands what the analysis writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.report import render_page, run_chart_png, verdict
from spectral_edge.series import TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables


def audited(folder: Path, checkpoints: int) -> RunTables:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 16)).cumsum(axis=0)
    local = []
    for number in range(checkpoints):
        weights = weights + 0.1 * rng.normal(size=weights.shape)
        path = folder / f"step-{100 * number}.safetensors"
        save_file({"layers.0.attn.weight": torch.from_numpy(weights).float().contiguous()}, path)
        local.append(LocalCheckpoint(100 * number, path.name, (path,)))
    settings = Settings()
    reading = TrajectoryPass(settings)
    reading.extend([], local)
    key = RunKey("dir", "folder", "a run", "a run")
    return analyse_run(key, reading.result(), TrainingRecord(), settings, Provenance("f" * 16, "finished", str(folder)))


@pytest.mark.parametrize(("checkpoints", "tested"), [(16, False), (48, True)])
def test_a_run_too_short_to_test_is_not_called_unchanged(tmp_path: Path, checkpoints: int, tested: bool) -> None:
    run = audited(tmp_path, checkpoints)
    assert run.summary["windows"] == checkpoints - 10
    text = verdict(run.summary, run.transitions.to_pylist())
    assert ("Changes were not tested" in text) != tested
    assert ("no test stands out" in text or "changed at step" in text) == tested
    page = render_page(run.runs, run.gaps, run.transitions)
    assert ("too short to test</span>" in page) != tested
    assert run_chart_png(run).startswith(b"\x89PNG")
