"""The few lines a researcher writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import spectral_edge
from spectral_edge import MetricSeries, Settings, TrainingRecord, analyse, read_checkpoint
from spectral_edge.errors import NotFoundError, TooFewCheckpointsError
from tests.spectral.trajectories import trained_states


def test_public_names() -> None:
    assert spectral_edge.__all__ == [
        "AuditedRun",
        "FurtherMetric",
        "MetricSeries",
        "Recorder",
        "RunList",
        "Settings",
        "Store",
        "TrainingRecord",
        "analyse",
        "analyse_recorded",
        "read_checkpoint",
    ]
    assert all(getattr(spectral_edge, name).__doc__ for name in spectral_edge.__all__)
    assert dir(spectral_edge) == spectral_edge.__all__
    with pytest.raises(AttributeError):
        _ = spectral_edge.analyze


def test_five_lines(tmp_path: Path) -> None:
    for index, state in enumerate(trained_states(30, seed=3)):
        torch.save({"model_state_dict": state, "epoch": index}, tmp_path / f"step_{index * 5}.pt")
    rate = MetricSeries.from_points("lr", range(150), [3e-3] * 150)
    run = analyse(tmp_path, settings=Settings(window=6), record=TrainingRecord(learning_rate=rate))
    gaps = run.gaps.to_pandas()
    total = gaps[gaps["group"] == "total"]
    assert list(total["step"]) == list(range(10, 150, 5))
    assert (total["updates"] == np.minimum(np.arange(2, 30), 6)).all()
    assert (total["short"] == (total["updates"] < 6)).all()
    assert (total["learning_rate"] == 3e-3).all()
    assert set(total[total["short"]]["regime"]) == {"undetermined"}
    assert total["regime_reason"].str.contains("x the median of the run's past").sum() == 28 - 4 - 7
    assert set(total["regime"]) <= {"plateau", "undetermined"}
    adiabatic = total["gram_change"] / (total["learning_rate"] * total["gap"] ** 2)
    np.testing.assert_allclose(total["adiabatic"].astype(float), adiabatic.astype(float))
    assert run.summary["status"] == "ok"
    assert run.inner_products.num_rows == sum(min(t, 36) + 1 for t in range(29)) * len(set(gaps["group"]))


def test_without_a_learning_rate_nothing_is_guessed(tmp_path: Path) -> None:
    for index, state in enumerate(trained_states(30, seed=3)):
        torch.save(state, tmp_path / f"step_{index * 5}.pt")
    gaps = analyse(tmp_path, settings=Settings(window=6)).gaps
    assert gaps["learning_rate"].null_count == gaps["adiabatic"].null_count == gaps.num_rows
    assert set(gaps["regime"].to_pylist()) == {"undetermined"}
    assert "learning rate unknown" in gaps["regime_reason"].to_pylist()


def test_read_checkpoint(tmp_path: Path) -> None:
    state = trained_states(1, seed=0)[0]
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pt")
    got = read_checkpoint(tmp_path / "a.pt")
    assert got.keys() == state.keys()
    assert all(torch.equal(got[name], state[name]) for name in state)


def test_missing_folder_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no folder"):
        analyse(tmp_path / "nowhere")
    with pytest.raises(TooFewCheckpointsError, match="no checkpoint file"):
        analyse(tmp_path)
