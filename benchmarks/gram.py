"""The pass over the checkpoints beside the read alone, and beside the published way, in one run.

    python -m benchmarks.gram [--parameters 3000000] [--checkpoints 24]

`read` reads the same bytes into one buffer of 16 MB; `published` stacks the updates of each window as full vectors
and calls svdvals, as the scripts that came with the paper do. All files are in the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.settings import Settings
from spectral_edge.windows import windows

BUFFER = 16 << 20


def write(folder: Path, parameters: int, checkpoints: int) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    names = [f"layers.{layer}.{part}.weight" for layer in range(6) for part in ("attn.q_proj", "mlp.fc1")]
    state = {name: torch.randn(parameters // len(names), generator=generator) for name in names}
    files = []
    for index in range(checkpoints):
        for tensor in state.values():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=1e-3)
        files.append(folder / f"step_{index:04}.safetensors")
        save_file(state, files[-1])
    return files


def read(files: list[Path]) -> None:
    buffer = bytearray(BUFFER)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def ours(files: list[Path]) -> torch.Tensor:
    settings = Settings()
    run = TrajectoryPass(settings)
    run.extend([], [LocalCheckpoint(index, file.name, (file,)) for index, file in enumerate(files)])
    found = windows(run.result().bands["total"], settings)
    return torch.from_numpy(found.singular_values[found.full])


def published(files: list[Path]) -> torch.Tensor:
    states = [load_file(file) for file in files]
    vectors = [torch.cat([state[name].flatten() for name in sorted(state)]) for state in states]
    updates = [after - before for before, after in pairwise(vectors)]
    width = Settings().window
    return torch.stack(
        [torch.linalg.svdvals(torch.stack(updates[end - width : end])) for end in range(width, len(updates) + 1)]
    )


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=3_000_000)
    parser.add_argument("--checkpoints", type=int, default=24)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), arguments.parameters, arguments.checkpoints)
        gigabytes = sum(file.stat().st_size for file in files) / 1e9
        read(files)
        reading = min(timed(lambda: read(files)) for _ in range(3))
        passing = min(timed(lambda: ours(files)) for _ in range(3))
        stacking = timed(lambda: published(files))
        difference = ((ours(files) - published(files)).abs() / ours(files)).max().item()
    print(
        f"{arguments.checkpoints} checkpoints of {arguments.parameters:,} float32, {gigabytes:.2f} GB, page cache warm"
    )
    for name, seconds in (("read", reading), ("spectral-edge", passing), ("published", stacking)):
        print(f"  {name:14s} {seconds:8.2f} s  {gigabytes / seconds:6.2f} GB/s  {seconds / reading:7.1f} x read")
    print(f"  {stacking / passing:.0f} x faster than published; singular values differ by at most {difference:.1e}")


if __name__ == "__main__":
    main()
