"""The pass over the checkpoints beside the read alone and beside other ways, in one run.

    python -m benchmarks.gram [--parameters 30000000] [--checkpoints 24] [--folder DIR]

All files are float32 .safetensors. What the rows are:

- `read`: the same bytes into one buffer of 16 MB, one thread. Nothing can be faster than about half of this.
- `spectral-edge`: TrajectoryPass, with as many threads as there are cores.
- `streamed with BLAS`: what one would write first: blocks of 64 Ki parameters, float64 differences, `D @ D.T`.
- `published`: the updates of each window stacked as full vectors, and svdvals of each window, as the scripts that came
  with the paper do.

Needs 100 bytes of disk per parameter, and for `published` 400 bytes of memory per parameter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from spectral_edge.block_sums import threads_given
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.settings import Settings
from spectral_edge.windows import windows

BUFFER = 16 << 20
BLOCK = 1 << 16
WIDTH = Settings().window

MEASURE_PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.kernels import COLUMNS, add_products, padded
from spectral_edge.settings import Settings
add_products(np.zeros((2, 4), np.float32), 4, 0, 1, np.zeros((padded(1), COLUMNS)), np.zeros((padded(1),) * 2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = sorted(Path(sys.argv[1]).glob("*.safetensors"))
run = TrajectoryPass(Settings())
run.extend([], [LocalCheckpoint(i, f.name, (f,)) for i, f in enumerate(files)])
run.result()
print(before * 1024, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def names(parts: int = 6) -> list[str]:
    return [f"layers.{layer}.{part}.weight" for layer in range(parts) for part in ("attn.q_proj", "mlp.fc1")]


def write(folder: Path, parameters: int, checkpoints: int, dtype: torch.dtype = torch.float32) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(parameters // len(names()), generator=generator) for name in names()}
    files = []
    for index in range(checkpoints):
        for tensor in state.values():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=1e-3)
        files.append(folder / f"step_{index:04}.safetensors")
        save_file({name: tensor.to(dtype) for name, tensor in state.items()}, files[-1])
    return files


def write_sparse(folder: Path, parameters: int, checkpoints: int) -> None:
    """Files that take no room on the disk: all zeros but for their header and first megabyte."""
    for index in range(checkpoints):
        begin = torch.randn(1 << 18)
        header = f'{{"w":{{"dtype":"F32","shape":[{parameters}],"data_offsets":[0,{4 * parameters}]}}}}'.encode()
        with (folder / f"step_{index:04}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header + begin.numpy().tobytes())
            file.truncate(8 + len(header) + 4 * parameters)


def read(files: list[Path]) -> None:
    buffer = bytearray(BUFFER)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def ours(files: list[Path], lags: int = 0) -> np.ndarray:
    settings = Settings(lags=lags)
    run = TrajectoryPass(settings)
    run.extend([], [LocalCheckpoint(index, file.name, (file,)) for index, file in enumerate(files)])
    found = windows(run.result().bands["total"], settings)
    return found.singular_values[found.full]


def streamed(files: list[Path]) -> np.ndarray:
    maps = [np.memmap(file, np.float32, "r", offset=_data_begins(file)) for file in files]
    gram = np.zeros((len(files) - 1, len(files) - 1))
    for start in range(0, len(maps[0]), BLOCK):
        theta = np.stack([stored[start : start + BLOCK] for stored in maps]).astype(np.float64)
        updates = np.diff(theta, axis=0)
        gram += updates @ updates.T
    grams = [gram[end - WIDTH : end, end - WIDTH : end] for end in range(WIDTH, len(gram) + 1)]
    return np.sqrt(np.linalg.eigvalsh(np.stack(grams)))[:, ::-1]


def _data_begins(file: Path) -> int:
    with file.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def published(files: list[Path]) -> np.ndarray:
    states = [load_file(file) for file in files]
    vectors = [torch.cat([state[name].flatten() for name in sorted(state)]) for state in states]
    del states
    updates = [after - before for before, after in pairwise(vectors)]
    del vectors
    ends = range(WIDTH, len(updates) + 1)
    return torch.stack([torch.linalg.svdvals(torch.stack(updates[end - WIDTH : end])) for end in ends]).numpy()


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best(work: Callable[[], object], times: int = 5) -> float:
    return min(timed(work) for _ in range(times))


def speed(files: list[Path]) -> None:
    gigabytes = sum(file.stat().st_size for file in files) / 1e9
    read(files)
    # In turn, so that all meet the same machine: it may have become slower or faster meanwhile.
    rounds = [(timed(lambda: read(files)), timed(lambda: ours(files))) for _ in range(7)]
    reading, passing = (min(column) for column in zip(*rounds, strict=True))
    streaming, stacking = best(lambda: streamed(files), 2), timed(lambda: published(files))
    print(f"{len(files)} checkpoints, {gigabytes:.2f} GB, page cache warm, {threads_given()} threads")
    rows = {
        "read": reading,
        "spectral-edge": passing,
        "streamed with BLAS": streaming,
        "published": stacking,
    }
    for name, seconds in rows.items():
        print(f"  {name:20s} {seconds:8.2f} s  {gigabytes / seconds:6.2f} GB/s  {seconds / reading:7.1f} x read")
    print(f"  {stacking / passing:.0f} x faster than published")


def cold(files: list[Path]) -> None:
    """The same from the disk: the page cache is asked to forget the files before each."""
    os.sync()  # what is not yet written cannot be forgotten
    for name, work in (("read", read), ("spectral-edge", ours)):
        seconds = []
        for _ in range(3):
            for file in files:
                with file.open("rb") as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            seconds.append(timed(lambda work=work: work(files)))
        print(f"  {name:20s} {min(seconds):8.2f} s  not in the page cache")


def memory(parameters: int, checkpoints: int) -> None:
    print("peak memory beyond the libraries' own (files with holes: the pass reads zeros)")
    for count in (parameters, 10 * parameters):
        with tempfile.TemporaryDirectory() as folder:
            write_sparse(Path(folder), count, checkpoints)
            command = [sys.executable, "-c", MEASURE_PEAK, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        libraries, beyond = map(int, done.stdout.split())
        print(f"  {checkpoints} x {count:11,}: {beyond / 1e6:4.0f} MB (libraries {libraries / 1e6:.0f} MB)")


def growth(folder: Path, parameters: int) -> None:
    files = write(folder, parameters, 240)
    read(files)
    print(f"milliseconds per checkpoint of {parameters:,} parameters, and products per parameter and checkpoint")
    print(f"  {'lags':>6s}" + "".join(f"{count:>9d} checkpoints" for count in (24, 120, 240)))
    for lags in (10, 16, 60, 64):
        cells = []
        for count in (24, 120, 240):
            seconds = best(lambda count=count, lags=lags: ours(files[:count], lags), 3)
            products = sum(min(update, lags) + 1 for update in range(count - 1)) / count
            cells.append(f"{1e3 * seconds / count:9.2f} ({products:4.1f})   ")
        print(f"  {lags:6d}" + "".join(f"{cell:>21s}" for cell in cells))


def precision() -> None:
    """Singular values over four decades, against LAPACK's SVD of the float64 trajectory matrix."""
    generator = np.random.default_rng(0)
    steps = np.cumsum(
        10.0 ** -np.linspace(0, 4, 11)[:, None] * generator.standard_normal((11, 200_000)), axis=0
    ).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for index, theta in enumerate(steps):
            files.append(Path(folder) / f"{index}.safetensors")
            save_file({"w": torch.from_numpy(theta)}, files[-1])
        found = ours(files)[-1]
    exact = np.linalg.svd(np.diff(steps.astype(np.float64), axis=0), compute_uv=False)
    print(f"sigma_10/sigma_1 = {exact[-1] / exact[0]:.1e}: largest relative error {abs(found / exact - 1).max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=30_000_000)
    parser.add_argument("--checkpoints", type=int, default=24)
    parser.add_argument("--folder", type=Path, help="where to write the checkpoints; a temporary folder when absent")
    arguments = parser.parse_args()
    precision()
    memory(arguments.parameters, arguments.checkpoints)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        files = write(Path(folder), arguments.parameters, arguments.checkpoints)
        speed(files)
        cold(files)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        growth(Path(folder), arguments.parameters // 10)


if __name__ == "__main__":
    main()
