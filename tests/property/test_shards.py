"""Every column of every table is the same, however the parameters are divided between workers."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from random import Random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from same_tables import assert_same_audit, assert_same_products

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.blocks import WHOLE, Shard
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.series import TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory, add_up

NAMES = ("embed.weight", "layers.0.attn.q_proj.weight", "layers.0.mlp.fc1.weight", "layers.1.norm.weight", "head.bias")
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
SETTINGS = Settings(window=4, lags=9)


@st.composite
def runs(draw: st.DrawFn) -> list[dict[str, torch.Tensor]]:
    """Checkpoints of a few tensors, small, large or scalar, some of which stand still for a while."""
    shapes = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([(), (1,), (7, 5), (90_001,)]), min_size=1))
    dtypes = {name: draw(st.sampled_from(DTYPES)) for name in sorted(shapes)}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    still = draw(st.sets(st.integers(1, 14), max_size=3))
    state = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    states = []
    for index in range(15):
        states.append({name: tensor.to(dtypes[name]) for name, tensor in state.items()})
        if index + 1 not in still:
            state = {
                name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                for name, tensor in state.items()
            }
    return states


def passed(checkpoints: list[LocalCheckpoint], shard: Shard) -> Trajectory:
    the_pass = TrajectoryPass(SETTINGS, threads=1, shard=shard)
    the_pass.extend([], checkpoints)
    return the_pass.result()


def tables(of: Trajectory) -> RunTables:
    return analyse_run(
        RunKey("dir", "p", "r", "r"), of, TrainingRecord(), SETTINGS, Provenance("f" * 64, "finished", "")
    )


def updates_are_independent(states: list[dict[str, torch.Tensor]]) -> bool:
    """Else the smallest singular value of a window is the root of a rounding error, and so is what follows from it."""
    moving = all(not torch.equal(a[name], b[name]) for a, b in pairwise(states) for name in a)
    return moving and all(tensor.numel() > SETTINGS.window for tensor in states[0].values())


@settings(max_examples=12, deadline=None)
@given(runs(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_parts_add_up_to_the_whole(states: list[dict[str, torch.Tensor]], count: int, random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = []
        for index, state in enumerate(states):
            file = Path(folder, f"step_{index}.safetensors")
            save_file(state, file)
            checkpoints.append(LocalCheckpoint(index, file.name, (file,)))
        whole = passed(checkpoints, WHOLE)
        parts = [passed(checkpoints, Shard(index, count)) for index in range(count)]
    random.shuffle(parts)
    added = add_up(parts, [checkpoint.name for checkpoint in checkpoints])
    assert added.warnings == whole.warnings
    assert_same_products(tables(added).inner_products, tables(whole).inner_products)
    if updates_are_independent(states):
        assert_same_audit(tables(added), tables(whole))
