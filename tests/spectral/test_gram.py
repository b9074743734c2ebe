"""The pass against brute force: X formed in float64, its singular values from LAPACK's SVD."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spectral_edge.band import Matrix
from spectral_edge.errors import (
    NonFiniteError,
    ShapeChangeError,
    TooFewCheckpointsError,
    TrajectoryError,
    ZeroUpdatesError,
)
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.groups import cells, group_of_names
from spectral_edge.settings import Settings
from spectral_edge.trajectory import Trajectory
from spectral_edge.windows import Windows, windows
from tests.spectral.trajectories import band_of, random_states, trained_states, update_matrix, write_checkpoints

SHAPES = {
    "embed.weight": (50, 32),
    "layers.0.attn.q_proj.weight": (211, 300),
    "layers.0.mlp.fc1.weight": (64, 700),
    "layers.0.norm.weight": (32,),
    "layers.1.attn.q_proj.weight": (32, 33),
    "layers.1.mlp.fc1.weight": (7,),
    "head.bias": (1,),
}


def passed(checkpoints: list[LocalCheckpoint], settings: Settings, cuts: tuple[int, ...] = ()) -> Trajectory:
    run = TrajectoryPass(settings)
    begin = 0
    for end in (*cuts, len(checkpoints)):
        run.extend(checkpoints[max(0, begin - settings.lags - 1) : begin], checkpoints[begin:end])
        begin = end
    return run.result()


def agrees_with_svd(found: Windows, row: int, updates: Matrix, end: int, width: int) -> None:
    """sigma, k*, gap, ||dG|| and overlap of one window against LAPACK's SVD of X."""
    window = updates[max(0, end - width + 1) : end + 1]
    _, exact, directions = np.linalg.svd(window, full_matrices=False)
    visible = int((exact >= 1e-4 * exact[0]).sum())
    np.testing.assert_allclose(found.singular_values[row, :visible], exact[:visible], rtol=1e-6)
    if visible < len(window) or end < width:
        return
    ratios = exact[:-1] / exact[1:]
    k = int(found.k_star[row])
    assert ratios[k - 1] >= ratios.max() * (1 - 1e-6)
    np.testing.assert_allclose(found.scalars["gap_ratio"][row], ratios[k - 1], rtol=1e-6)
    np.testing.assert_allclose(found.scalars["gap"][row], exact[k - 1] - exact[k], rtol=1e-6, atol=1e-6 * exact[0])
    before = updates[end - width : end]
    change = np.linalg.norm(window @ window.T - before @ before.T)
    np.testing.assert_allclose(found.scalars["gram_change"][row], change, rtol=1e-6)
    overlap = np.abs(np.einsum("jp,jp->j", np.linalg.svd(before, full_matrices=False)[2], directions))
    np.testing.assert_allclose(found.overlap[row], overlap, atol=1e-5)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ["random", "trained"])
def test_every_group_agrees_with_brute_force(tmp_path: Path, kind: str, shards: int) -> None:
    states = random_states(SHAPES, 36, seed=1) if kind == "random" else trained_states(36, seed=1)
    settings = Settings(window=8)
    trajectory = passed(write_checkpoints(tmp_path, states, shards=shards), settings)
    assigned = cells(sorted(states[0]))
    assert set(trajectory.bands) >= {"total", "layer.0"}
    for group, band in trajectory.bands.items():
        updates = update_matrix(states, group_of_names(assigned, group))
        assert band.n_parameters == updates.shape[1]
        found = windows(band, settings)
        for row, end in enumerate(found.ends):
            agrees_with_svd(found, row, updates, int(end), width=8)


def test_small_singular_values_survive_beside_a_large_one(tmp_path: Path) -> None:
    """sigma_j of 1e-4 sigma_1 to 1e-6: what a band summed in float32 cannot do."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(40_000, generator=generator)
    states = [{"w": torch.zeros(40_000)}]
    for step in range(12):
        noise = torch.randn(40_000, generator=generator)
        states.append({"w": states[-1]["w"] + direction + (2e-4 if step % 2 else 1e-3) * noise})
    settings = Settings(window=6)
    band = passed(write_checkpoints(tmp_path, states), settings).bands["total"]
    found = windows(band, settings)
    exact = np.linalg.svd(update_matrix(states, ["w"])[-6:], compute_uv=False)
    assert exact[-1] < 1e-3 * exact[0]
    np.testing.assert_allclose(found.singular_values[-1], exact, rtol=1e-6)


@pytest.mark.parametrize("cuts", [(1,), (2, 3), (7, 20), tuple(range(1, 30))])
def test_segments_give_the_band_of_the_whole(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    settings = Settings(window=4, lags=9)
    states = random_states(SHAPES, 30, seed=2)
    checkpoints = write_checkpoints(tmp_path, states)
    whole = passed(checkpoints, settings).bands["total"]
    pieces = passed(checkpoints, settings, cuts).bands["total"]
    exact = band_of(update_matrix(states, sorted(states[0])), 9)
    np.testing.assert_allclose(whole.values, exact.values, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(pieces.values, exact.values, rtol=1e-12, atol=1e-15)


def test_more_updates_than_lags(tmp_path: Path) -> None:
    states = random_states({"w": (40,)}, 101, seed=4)
    settings = Settings(window=5, lags=50)
    band = passed(write_checkpoints(tmp_path, states), settings).bands["total"]
    np.testing.assert_allclose(band.values, band_of(update_matrix(states, ["w"]), 50).values, rtol=1e-12, atol=1e-15)


def test_groups_add_up_to_the_total(tmp_path: Path) -> None:
    bands = passed(write_checkpoints(tmp_path, random_states(SHAPES, 12, seed=5)), Settings()).bands
    categories = [bands[name].values for name in ("attention", "mlp", "embedding", "norm", "other")]
    np.testing.assert_allclose(sum(categories), bands["total"].values, rtol=1e-13)


def test_bytes_are_reported_once_each(tmp_path: Path) -> None:
    states = random_states(SHAPES, 6, seed=6)
    read: list[int] = []
    TrajectoryPass(Settings()).extend([], write_checkpoints(tmp_path, states), read.append)
    assert sum(read) == 6 * sum(value.numel() * 4 for value in states[0].values())


def test_low_precision_is_measured_by_its_rounding(tmp_path: Path) -> None:
    states = [{"w": state["w"].bfloat16()} for state in random_states({"w": (5000,)}, 14, seed=7, scale=1e-4)]
    settings = Settings(window=5)
    band = passed(write_checkpoints(tmp_path, states), settings).bands["total"]
    energy = np.asarray([(state["w"].double() ** 2).sum().item() for state in states])
    expected = (2.0**-8) ** 2 / 3 * (energy[1:] + energy[:-1])
    np.testing.assert_allclose(band.rounding_energy, expected, rtol=1e-12)
    # Updates of 1e-4 drown in a rounding of about 2e-3: the guard must speak.
    assert windows(band, settings).scalars["rounding_share"][-1] > settings.rounding_limit


def test_float32_needs_no_guard(tmp_path: Path) -> None:
    band = passed(write_checkpoints(tmp_path, random_states({"w": (50,)}, 4, seed=8)), Settings()).bands["total"]
    assert not band.rounding_energy.any()


class TestBadTrajectories:
    def test_nan_names_checkpoint_and_tensor(self, tmp_path: Path) -> None:
        states = random_states(SHAPES, 5, seed=9)
        states[3]["layers.0.mlp.fc1.weight"][2, 5] = torch.nan
        with pytest.raises(NonFiniteError, match=r"file step_30, tensor layers\.0\.mlp\.fc1\.weight: 1 of") as raised:
            passed(write_checkpoints(tmp_path, states), Settings())
        assert raised.value.next_step

    def test_infinity_in_the_first_checkpoint(self, tmp_path: Path) -> None:
        states = random_states(SHAPES, 4, seed=9)
        states[0]["head.bias"][0] = torch.inf
        with pytest.raises(NonFiniteError, match=r"step_0, tensor head\.bias"):
            passed(write_checkpoints(tmp_path, states), Settings())

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_too_few(self, tmp_path: Path, count: int) -> None:
        states = random_states(SHAPES, 3, seed=9)[:count]
        with pytest.raises(TooFewCheckpointsError, match=f"got {count} checkpoint"):
            passed(write_checkpoints(tmp_path, states), Settings())

    def test_identical_checkpoints(self, tmp_path: Path) -> None:
        state = random_states(SHAPES, 1, seed=9)[0]
        with pytest.raises(ZeroUpdatesError, match=r"step_0 … step_40 hold identical weights"):
            passed(write_checkpoints(tmp_path, [state] * 5), Settings())

    def test_one_repeated_checkpoint_is_told(self, tmp_path: Path) -> None:
        states = random_states(SHAPES, 6, seed=9)
        states[4] = states[3]
        trajectory = passed(write_checkpoints(tmp_path, states), Settings())
        assert trajectory.warnings == ("step_40 is identical to step_30: its update is zero.",)

    def test_steps_must_increase(self, tmp_path: Path) -> None:
        checkpoints = write_checkpoints(tmp_path, random_states(SHAPES, 4, seed=9))
        with pytest.raises(TrajectoryError, match="step 10 of step_10 does not come after step 20"):
            passed([checkpoints[0], checkpoints[2], checkpoints[1]], Settings())

    def test_a_changed_shape_ends_its_groups_only(self, tmp_path: Path) -> None:
        states = random_states(SHAPES, 9, seed=9)
        for state in states[5:]:
            state["embed.weight"] = torch.zeros(60, 32)
        trajectory = passed(write_checkpoints(tmp_path, states), Settings())
        assert trajectory.bands["embedding"].updates == 4
        assert trajectory.bands["total"].updates == 4
        assert trajectory.bands["attention"].updates == 8
        (sentence,) = trajectory.endings
        assert "step_50 (step 50): tensor embed.weight changed shape from (50, 32) to (60, 32)" in sentence

    def test_a_missing_and_a_new_tensor(self, tmp_path: Path) -> None:
        states = random_states(SHAPES, 9, seed=9)
        del states[4]["head.bias"]
        states[6]["layers.1.mlp.extra"] = torch.zeros(3)
        trajectory = passed(write_checkpoints(tmp_path, states), Settings())
        assert "head.bias is missing" in trajectory.endings[0]
        assert "layers.1.mlp.extra is new" in trajectory.endings[1]
        assert trajectory.bands["layer.1"].updates == 5

    def test_a_new_layer_is_told(self, tmp_path: Path) -> None:
        states = random_states(SHAPES, 6, seed=9)
        for state in states[3:]:
            state["layers.2.attn.q_proj.weight"] = torch.zeros(3)
            state["layers.2.attn.k_proj.weight"] = torch.zeros(3)
        trajectory = passed(write_checkpoints(tmp_path, states), Settings())
        assert trajectory.bands["total"].updates == 5
        (warning,) = trajectory.warnings
        assert warning.startswith("step_30 (step 30): tensor layers.2.attn.k_proj.weight is new")

    def test_another_model_from_the_second_checkpoint_on(self, tmp_path: Path) -> None:
        states = random_states({"w": (4,)}, 1, seed=1) + random_states({"w": (5,)}, 5, seed=1)
        with pytest.raises(ShapeChangeError, match="changed shape from"):
            passed(write_checkpoints(tmp_path, states), Settings())

    def test_a_changed_dtype(self, tmp_path: Path) -> None:
        states = random_states({"w": (4,)}, 6, seed=1)
        states[3:] = [{"w": state["w"].double()} for state in states[3:]]
        trajectory = passed(write_checkpoints(tmp_path, states), Settings())
        assert trajectory.bands["total"].updates == 2
        assert "changed dtype from torch.float32 to torch.float64" in trajectory.endings[0]


_MEASURE = """
import resource, sys
from pathlib import Path
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.settings import Settings
import torch
torch.mm(torch.ones(64, 64, dtype=torch.float64), torch.ones(64, 64, dtype=torch.float64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = sorted(Path(sys.argv[1]).glob("*.safetensors"))
run = TrajectoryPass(Settings())
run.extend([], [LocalCheckpoint(i, f.name, (f,)) for i, f in enumerate(files)])
run.result()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("count", [4, 16])
@pytest.mark.parametrize("megabytes", [10, 80])
def test_memory_depends_on_neither_number_nor_size(tmp_path: Path, count: int, megabytes: int) -> None:
    """Peak beyond what the libraries take, in a process of its own: 16 checkpoints of 80 MB are 1.3 GB on disk."""
    numbers = torch.randn(megabytes * 250_000)
    for index in range(count):
        numbers[index] += 1.0
        save_file({"layers.0.mlp.weight": numbers}, tmp_path / f"{index:03}.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], check=True, capture_output=True, text=True, timeout=300
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 120e6
