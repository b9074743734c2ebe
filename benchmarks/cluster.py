"""An audit on one and on two workers of a local Dask cluster, in turn: what a second worker brings.

    python -m benchmarks.cluster [--parameters 16000000] [--checkpoints 80] [--dtype bfloat16] [--runs 6] [--rounds 2]

All files are .safetensors and in the page cache. With 60 lags the pass is bound by computing, in bfloat16 three times as
much for each byte as in float32. The runs share their files by hard links, and `force` keeps the audit from noticing. Workers use one thread each. What the
rows are:

- `6 runs`: one task for each; listing, analysis and store (this process) count.
- `1 run, 8 parts`: one run in eight parts of its parameters, likewise.

Needs as much disk and page cache as three such runs have bytes, at most. Two workers need two cores that nobody else uses.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import torch

from benchmarks.gram import read, write
from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection
from pipelines import cluster
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.settings import AuditSettings
from spectral_edge.store import Store

PARTS = 8


def prepare(folder: Path, parameters: int, checkpoints: int, runs: int, dtype: torch.dtype) -> None:
    """A first run, and others that are the same files."""
    first = folder / "run-0"
    first.mkdir(parents=True)
    files = write(first, parameters, checkpoints, dtype)
    for index in range(1, runs):
        other = folder / f"run-{index}"
        other.mkdir()
        for file in files:
            os.link(file, other / file.name)


def audited(folder: Path, settings: AuditSettings) -> float:
    """Seconds that the audit of all runs of `folder` takes."""
    started = time.perf_counter()
    store = Store.open(settings.store)
    job = Job(Scope.of(FolderTracker(), settings, store), store, "cpu")
    runs = list(FolderTracker().runs(Selection(str(folder))))
    with ThreadPoolExecutor(cluster.runs_at_once(settings)) as pool:
        futures = [pool.submit(copy_context().run, audit_one, job, run) for run in runs]
        for future in futures:
            assert future.result().outcome == "audited"
    return time.perf_counter() - started


def on_workers(count: int, folder: Path, shards: int, small: Path, place: Path) -> float:
    """Seconds for `folder`; the workers have imported what they need and started their pass on `small` before."""
    told = AuditSettings(
        dask=f"local:{count}",
        shards=shards,
        annotate="none",
        force=True,
        store=str(place / "store"),
        spool=place / "spool",
    )
    with cluster.using(f"dir:{folder}", told):
        audited(small, told.model_copy(update={"shards": 4 * count}))
        return audited(folder, told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=16_000_000)
    parser.add_argument("--checkpoints", type=int, default=80)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--folder", type=Path, help="where the files are made, for the time of the run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        place = Path(temporary)
        dtype = getattr(torch, given.dtype)
        prepare(place / "many", given.parameters, given.checkpoints, given.runs, dtype)
        prepare(place / "one", given.parameters, given.checkpoints, 1, dtype)
        prepare(place / "small", 100_000, 12, 1, dtype)
        gigabytes = 1e-9 * dtype.itemsize * given.parameters * given.checkpoints
        told = f"{given.checkpoints} checkpoints of {given.parameters:,} parameters in {given.dtype}"
        print(f"{told} ({gigabytes:.1f} GB a run), seconds")
        print(f"{'':20}{'1 worker':>10}{'2 workers':>11}{'times':>8}")
        for folder, shards in (("many", 1), ("one", PARTS)):
            read(sorted((place / folder / "run-0").iterdir()))
            rounds = [
                [on_workers(count, place / folder, shards, place / "small", place) for count in (1, 2)]
                for _ in range(given.rounds)
            ]
            one, two = (min(column) for column in zip(*rounds, strict=True))
            label = f"{given.runs} runs" if shards == 1 else f"1 run, {PARTS} parts"
            print(f"{label:20}{one:10.1f}{two:11.1f}{one / two:8.2f}", flush=True)


if __name__ == "__main__":
    main()
