"""Saves sharded models from two real processes: `python -m tests.checkpoints.distributed_runs FOLDER`.

`FOLDER/RUN/step-N/` is what torch.distributed.checkpoint wrote, `FOLDER/live/RUN/N.safetensors` what the whole tensors
were.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

STEPS = 3


def _save(root: Path, run: str, step: int, state: dict[str, Any], model: Mapping[str, Any]) -> None:
    dcp.save(state, checkpoint_id=root / run / f"step-{step}")
    whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in model.items()}
    if dist.get_rank() == 0:
        (root / "live" / run).mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in whole.items()}, root / f"live/{run}/{step}.safetensors")


def fsdp(root: Path, mesh: DeviceMesh) -> None:
    """FSDP2 with AdamW, as a training loop saves it; sizes that two ranks cannot share evenly."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 1))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(1, STEPS + 1):
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        weights, moments = get_state_dict(model, optimizer)
        _save(root, "fsdp", step, {"model": weights, "optim": moments, "step": step, "seen": torch.ones(9)}, weights)


def placements(root: Path, mesh: DeviceMesh) -> None:
    """DTensors cut by rows, by columns, along the middle, and not at all; flat names, as torchtitan saves them."""
    torch.manual_seed(1)
    whole = torch.randn(7, 5)
    cut = {
        "rows": (whole, Shard(0)),
        "columns": (whole, Shard(1)),
        "columns of the transposed": (torch.randn(5, 7).t(), Shard(1)),
        "middle": (torch.randn(3, 6, 4).bfloat16(), Shard(1)),
        "one row": (torch.randn(1, 4), Shard(0)),
        "replicated": (torch.randn(3, dtype=torch.float64), Replicate()),
    }
    for step in range(1, STEPS + 1):
        tensors = {name: distribute_tensor(value + step, mesh, [placement]) for name, (value, placement) in cut.items()}
        state = tensors | {"plain": torch.full((4,), float(step))}
        _save(root, "placements", step, state | {"optimizer": {"moment": torch.ones(99)}}, state)


def main(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    child = os.fork()  # importing torch once is half of the cost of two processes
    dist.init_process_group("gloo", init_method=f"file://{root}/rendezvous", rank=int(child == 0), world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    fsdp(root, mesh)
    placements(root, mesh)
    dist.barrier()
    dist.destroy_process_group()
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
