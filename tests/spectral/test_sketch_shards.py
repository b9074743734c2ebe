"""A model sharded over two processes is recorded as it would be whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from spectral_edge.recorded import read_run
from spectral_edge.recorder import Recorder

PROGRAM = """
import sys
from pathlib import Path
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from spectral_edge.recorder import Recorder
from tests.spectral.test_sketch_shards import network, step

torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=2)
model = network()
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Recorder(folder / f"sharded{rank}", model, every=1, size=10) as recorder:
    for at in range(1, 4):
        step(model, optimizer)
        assert recorder.step(at)
distributed.destroy_process_group()
"""


def network() -> nn.Module:
    """Tensors of 5, 7 and 1 rows, so that shards are of different lengths and one is empty."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 5), nn.Linear(5, 1))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 6)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_two_shards_add_up_to_the_whole(tmp_path: Path) -> None:
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(rank)],
            cwd=root,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        told = worker.communicate(timeout=300)[1]
        assert worker.returncode == 0, told
    assert not (tmp_path / "sharded1").exists()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path / "whole", model, every=1, size=10) as recorder:
        for at in range(1, 4):
            step(model, optimizer)
            recorder.step(at)
    sharded, whole = read_run(tmp_path / "sharded0"), read_run(tmp_path / "whole")
    assert sharded.file.header == whole.file.header
    assert sharded.steps == (1, 2, 3)
    for ours, theirs in zip(whole.file.sketches(whole.records), sharded.file.sketches(sharded.records), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
