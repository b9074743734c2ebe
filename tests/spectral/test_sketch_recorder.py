"""What a recorder writes, read back, against the exact band of the same states."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spectral_edge.errors import (
    CheckpointFormatError,
    NonFiniteError,
    NotFoundError,
    TooFewCheckpointsError,
    UsageError,
    ZeroUpdatesError,
)
from spectral_edge.gram import TrajectoryPass
from spectral_edge.recorded import analyse_recorded, read_recorded, read_run
from spectral_edge.recorder import Recorder
from spectral_edge.settings import Settings
from spectral_edge.trajectory import Trajectory
from tests.spectral.trajectories import State, trained_states, write_checkpoints

CHOSEN = Settings(window=4, lags=12)
PAGE = Path(__file__).parents[2] / "docs" / "recorder.md"


def network() -> nn.Module:
    """The one that trained_states trains."""
    return nn.Sequential(nn.Linear(16, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 4))


def record(path: Path, states: list[State], dtype: torch.dtype = torch.float32, **options: int) -> None:
    model = network().to(dtype)
    with Recorder(path, model, every=10, **options) as recorder:
        for index, state in enumerate(states):
            model.load_state_dict(state)
            recorder.step(10 * index, learning_rate=0.1, val_loss=torch.tensor(float(index)))


def exact(folder: Path, states: list[State], dtype: torch.dtype = torch.float32) -> Trajectory:
    run = TrajectoryPass(CHOSEN)
    run.extend([], write_checkpoints(folder, [{n: v.to(dtype) for n, v in state.items()} for state in states]))
    return run.result()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sketches_as_large_as_the_model_give_what_checkpoints_give(tmp_path: Path, dtype: torch.dtype) -> None:
    states = trained_states(20, 3)
    record(tmp_path / "r", states, dtype, size=1000)
    found, expected = read_recorded(tmp_path / "r", CHOSEN), exact(tmp_path, states, dtype)
    assert found.steps == expected.steps
    assert list(found.bands) == list(expected.bands)
    assert not found.warnings
    for group, band in expected.bands.items():
        np.testing.assert_allclose(found.bands[group].values, band.values, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found.bands[group].rounding_energy, band.rounding_energy, rtol=1e-9)
        assert found.bands[group].n_parameters == band.n_parameters


def test_smaller_sketches_estimate_it(tmp_path: Path) -> None:
    """Root mean square over lags and updates of one seed, 2 times what independent errors would give at most."""
    states = trained_states(30, 4)
    record(tmp_path / "r", states, size=100)
    found, expected = read_recorded(tmp_path / "r", CHOSEN), exact(tmp_path, states)
    for group, band in expected.bands.items():
        norms = np.sqrt(band.values[:, 0])
        scaled = [
            (found.bands[group].values[t, k] - band.values[t, k]) / (norms[t] * norms[t - k])
            for t in range(band.updates)
            for k in range(min(t, 12) + 1)
        ]
        assert 0 < np.sqrt(np.mean(np.square(scaled))) < 2 * np.sqrt(2 / 96)
    assert "estimates from sketches of 100 numbers" in found.warnings[0]


def test_the_tables_say_that_they_are_estimates(tmp_path: Path) -> None:
    record(tmp_path / "run.sketch", trained_states(14, 5), size=40)
    tables = analyse_recorded(tmp_path / "run.sketch", settings=replace(CHOSEN, metric="val_loss"))
    (row,) = tables.runs.to_pylist()
    assert (row["run_name"], row["metric_name"], row["checkpoints"]) == ("run", "val_loss", 14)
    assert "estimates from sketches of 40 numbers" in row["warnings"][0]
    assert "11.2%" in row["warnings"][0]
    assert "17.7%" in row["warnings"][0]
    assert set(tables.gaps["learning_rate"].to_pylist()) == {0.1}


def test_a_run_that_resumes_supersedes_what_it_does_again(tmp_path: Path) -> None:
    first, second = trained_states(8, 6), trained_states(8, 7)
    record(tmp_path / "r", first, size=1000)
    model = network()
    with Recorder(tmp_path / "r", model, every=10, size=1000) as recorder:
        for step in (30, 40, 50):
            model.load_state_dict(second[step // 10])
            assert recorder.step(step)
            assert not recorder.step(step + 1)
    found = read_run(tmp_path / "r")
    assert found.steps == (0, 10, 20, 30, 40, 50)
    assert "5 record(s)" in found.trajectory(CHOSEN).warnings[-1]
    expected = exact(tmp_path, first[:3] + second[3:6])
    np.testing.assert_allclose(
        found.trajectory(CHOSEN).bands["total"].values, expected.bands["total"].values, rtol=1e-9, atol=1e-15
    )


def test_another_model_or_sketch_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "r", trained_states(3, 6))
    before = (tmp_path / "r").read_bytes()
    for options in ({"seed": 1}, {"size": 50}, {"by_layer": False}):
        with pytest.raises(UsageError, match="another model or sketch"):
            Recorder(tmp_path / "r", network(), **options)
    (tmp_path / "other").write_text("my thesis, the only copy")
    with pytest.raises(CheckpointFormatError, match="no file of recorded sketches"):
        Recorder(tmp_path / "other", network())
    assert (tmp_path / "r").read_bytes() == before
    assert (tmp_path / "other").read_text() == "my thesis, the only copy"


def test_what_cannot_be_recorded_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Recorder(tmp_path / "none" / "r", network())
    with pytest.raises(UsageError, match="`every`"):
        Recorder(tmp_path / "r", network(), every=0)
    flat = nn.Module()
    flat.register_parameter("_flat_param", nn.Parameter(torch.ones(4)))
    wrapper = type("FullyShardedDataParallel", (nn.Sequential,), {})  # FSDP1 itself needs a group of processes
    for sharded in (flat, nn.Sequential(wrapper(nn.Linear(2, 2)))):
        with pytest.raises(UsageError, match="FSDP1"):
            Recorder(tmp_path / "r", sharded)
    assert not (tmp_path / "r").exists()


def test_states_that_say_nothing_are_told(tmp_path: Path) -> None:
    states = trained_states(4, 8)
    record(tmp_path / "few", states[:2])
    with pytest.raises(TooFewCheckpointsError):
        read_recorded(tmp_path / "few")
    record(tmp_path / "still", [states[0]] * 4)
    with pytest.raises(ZeroUpdatesError):
        read_recorded(tmp_path / "still")
    states[2]["0.weight"][3, 4] = torch.nan
    record(tmp_path / "nan", states)
    with pytest.raises(NonFiniteError, match=r"record 3 \(step 20\)"):
        read_recorded(tmp_path / "nan")
    with pytest.raises(NotFoundError, match="val_loss"):
        read_run(tmp_path / "few").training_record("val_acc")
    with pytest.raises(NotFoundError):
        read_run(tmp_path / "none")


@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_ends_the_recording_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    write = os.write

    def full(file: int, content: bytes) -> int:
        if room == 0:
            raise OSError(28, "No space left on device")
        return write(file, content[:room])

    with Recorder(tmp_path / "r", network(), every=1) as recorder:
        assert recorder.step(1)
        monkeypatch.setattr(os, "write", full)
        recorder.step(2)
        monkeypatch.undo()
        assert not recorder.step(3)
    assert [one.levelno for one in caplog.records] == [logging.ERROR]
    found = read_run(tmp_path / "r")
    assert (found.steps, found.file.torn) == ((1,), room)


def test_a_model_that_changes_ends_the_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with Recorder(tmp_path / "r", model, every=1) as recorder:
        recorder.step(1)
        model[0].weight = nn.Parameter(torch.full((4, 4), 2.0))
        assert recorder.step(2)
        model[1] = nn.Linear(4, 5)
        assert not recorder.step(3)
        assert not recorder.step(4)
    assert "other parameters" in caplog.text
    found = read_run(tmp_path / "r")
    first, second = found.file.sketches(found.records)
    assert found.steps == (1, 2)
    assert (first != second).any()  # the new tensor in the place of the old one is the one that is sketched


def test_a_shared_tensor_counts_once_under_its_first_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"wte": nn.Embedding(6, 4), "a_head": nn.Linear(4, 6, bias=False)})
    model["a_head"].weight = model["wte"].weight
    with Recorder(tmp_path / "r", model):
        pass
    (cell,) = read_run(tmp_path / "r").file.header.cells
    assert (cell.cell.category, cell.n_parameters) == ("other", 24)


def test_the_example_in_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for block in blocks[:2]:
        exec(compile(block, str(PAGE), "exec"), space)  # our own page
    assert "regime" in capsys.readouterr().out
