"""What 100,000 runs, and one run of 70 billion parameters, would take: calculated from costs measured here.

    python -m benchmarks.scale [--workers 64] [--stored 60] [--folder DIR]

Measured are the pass of one thread, what the auditing process does for each run (analysis, store), and the size of
what comes back from a worker. Costs are CPU seconds, which others on the machine change little; they leave out waiting
for disks and servers. Listing is taken from docs/performance.md. Nothing of the size that is calculated was run.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.band import Band
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.series import TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory

RUNS = 100_000
CHECKPOINTS = 100
RUN_BYTES = 100 * 500_000_000
"""Of each of the many runs: 100 checkpoints of 125 million float32."""

LARGE_CHECKPOINTS = 200
LARGE_BYTES = 2 * 70_000_000_000
LARGE_GROUPS = 86
"""80 layers, five categories and the total."""

LISTED, LOOKED_INTO, REQUESTS = 2.3e-3, 46e-3, 5
"""Seconds to list a run, and to look into it, and requests for that: docs/performance.md."""

SETTINGS = Settings()


@dataclass(frozen=True)
class Costs:
    """CPU seconds and bytes, each of one thing."""

    pass_rates: Mapping[torch.dtype, float]
    """Bytes of checkpoints in a second of one thread."""
    analysis: float
    write_first: float
    write_last: float
    store_bytes: float
    """Of one run, in all tables."""


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def pass_rate(folder: Path, dtype: torch.dtype) -> float:
    """Over as many checkpoints as the large run has, of few parameters: the second pass, compiled and in the cache."""
    folder.mkdir()
    files = [folder / f"{index:04}.safetensors" for index in range(LARGE_CHECKPOINTS)]
    state = torch.randn(400_000)
    for file in files:
        state.add_(torch.randn(state.shape), alpha=1e-2)
        save_file({"layers.0.mlp.weight": state.to(dtype)}, file)
    checkpoints = [LocalCheckpoint(index, file.name, (file,)) for index, file in enumerate(files)]
    n_bytes = LARGE_CHECKPOINTS * len(state) * dtype.itemsize
    return n_bytes / min(cpu(lambda: TrajectoryPass(SETTINGS, threads=1).extend([], checkpoints)) for _ in range(3))


def trajectory(checkpoints: int, groups: int) -> Trajectory:
    """Of updates at random."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(checkpoints - 1, 500, generator=generator, dtype=torch.float64)
    gram = (updates @ updates.T).numpy()
    values = torch.zeros(checkpoints - 1, SETTINGS.lags + 1, dtype=torch.float64).numpy()
    for lag in range(min(SETTINGS.lags, checkpoints - 2) + 1):
        values[lag:, lag] = gram.diagonal(-lag)
    band = Band(values, 500, values[:, 0] * 0)
    names = ["total", *(f"layer.{layer}" for layer in range(groups - 1))]
    return Trajectory(
        tuple(range(checkpoints)), {name: Band(values.copy(), 500, band.rounding_energy) for name in names}
    )


def analysed(of: Trajectory, number: int) -> RunTables:
    """The tables of a run."""
    key = RunKey("dir", "benchmark", f"{number:032x}", f"run-{number}")
    provenance = Provenance(f"{number:064x}", "finished", "")
    return analyse_run(key, of, TrainingRecord(), SETTINGS, provenance)


def measured(folder: Path, stored: int) -> Costs:
    """All costs; `stored` runs are written, of the 20 groups that a model of 14 layers has."""
    rates = {dtype: pass_rate(folder / str(dtype), dtype) for dtype in (torch.float32, torch.bfloat16)}
    of = trajectory(CHECKPOINTS, 20)
    analysed(of, 0)  # compiles
    analysis = cpu(lambda: [analysed(of, number) for number in range(3)]) / 3
    store, tables = Store.open(str(folder / "store")), [analysed(of, number) for number in range(stored)]
    writes = [cpu(lambda one=one: store.write_run(one)) for one in tables]  # type: ignore[misc]
    size = sum(file.stat().st_size for file in (folder / "store").rglob("*.parquet"))
    few = max(1, stored // 6)
    return Costs(rates, analysis, statistics.median(writes[:few]), statistics.median(writes[-few:]), size / stored)


def many_runs(costs: Costs, workers: int, stored: int) -> None:
    reading = RUN_BYTES / costs.pass_rates[torch.float32]
    growth = (costs.write_last - costs.write_first) / stored
    rows = [
        ("list (once an audit)", LISTED, LISTED * RUNS),
        ("look into, one run at a time", LOOKED_INTO, LOOKED_INTO * RUNS),
        (f"fetch and read, {workers} workers", reading, reading * RUNS / workers),
        ("analyse", costs.analysis, costs.analysis * RUNS),
        ("write to an empty store", costs.write_first, costs.write_first * RUNS),
    ]
    print(f"\n{RUNS:,} runs of {CHECKPOINTS} checkpoints, {RUN_BYTES / 1e9:.0f} GB each, all new:\n")
    print("| what | seconds a run | hours |\n|---|---|---|")
    for name, one, total in rows:
        print(f"| {name} | {one:.3g} | {total / 3600:,.1f} |")
    head = LISTED + LOOKED_INTO + costs.analysis + costs.write_first
    print(f"\nWorkers that this process keeps busy: {reading / head:.0f}.")
    print(
        f"A write costs {1e3 * 100 * growth:.1f} ms more for each 100 runs that were written since the last compaction."
    )
    print(f"Store: {costs.store_bytes / 1e6:.2f} MB a run, {costs.store_bytes * RUNS / 1e9:,.0f} GB.")
    print(f"Requests to look into all runs: {REQUESTS * RUNS:,}.")


def large_run(costs: Costs, workers: int) -> None:
    n_bytes = LARGE_BYTES * LARGE_CHECKPOINTS
    seconds = n_bytes / costs.pass_rates[torch.bfloat16]
    parts = min(256, LARGE_BYTES // 2_000_000_000)
    answer = len(pickle.dumps(trajectory(LARGE_CHECKPOINTS, LARGE_GROUPS)))
    kept = (SETTINGS.lags + 2) * LARGE_BYTES
    rows = [
        ("bytes of all checkpoints", f"{n_bytes / 1e12:.1f} TB"),
        ("parts", f"{parts}"),
        ("pass, one thread", f"{seconds / 3600:.1f} h"),
        (f"pass, {workers} workers of one thread, storage that keeps up", f"{seconds / workers / 3600:.2f} h"),
        ("what storage must give for that", f"{n_bytes / (seconds / workers) / 1e9:.1f} GB/s"),
        ("what comes back, all parts", f"{parts * answer / 1e6:.0f} MB"),
        ("shared file system: read in all", f"{n_bytes / 1e12:.1f} TB"),
        ("downloads in ranges: fetched in all", f"{n_bytes / 1e12:,.1f} TB"),
        ("downloads in ranges: least `max_disk` of a worker", f"{kept / parts / 1e12:.2f} TB"),
        (f"downloads of whole files: fetched in all by {parts} parts", f"{parts * n_bytes / 1e12:,.0f} TB"),
        ("downloads of whole files: least `max_disk` of a worker", f"{kept / 1e12:.1f} TB"),
    ]
    print(f"\nOne run of 70 billion parameters in bfloat16, {LARGE_CHECKPOINTS} checkpoints, {SETTINGS.lags} lags:\n")
    print("| what | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--stored", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where files are made, for the time of the run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        costs = measured(Path(folder), given.stored)
    for dtype, rate in costs.pass_rates.items():
        print(f"pass, one thread, {LARGE_CHECKPOINTS} checkpoints, {str(dtype)[6:]}: {rate / 1e6:.0f} MB a CPU second")
    many_runs(costs, given.workers, given.stored)
    large_run(costs, given.workers)


if __name__ == "__main__":
    main()
