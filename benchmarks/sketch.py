"""What a sketch loses, and what recording one costs, in one run.

    python -m benchmarks.sketch [--seeds 30] [--rounds 60]

Errors are against the exact band of the same updates. A seed of the sketch is the unit: what is printed is the median
over seeds of a figure of one seed, and in brackets its 5 % and 95 % quantiles. The real run is the demo's addition
transformer, 1,500 steps, a state every 25; random updates are 60 of 100,000 parameters, independent, with and without a
drift as long as the noise. Times are of the processor, not of the clock, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import nn
from torch.nn import functional

from benchmarks.synthetic_updates import Rng, constant_drift
from pipelines.demo_tasks import data_of, model_of
from pipelines.demo_training import BATCH_SIZE, BETAS, LEARNING_RATE, RECIPES, train
from spectral_edge import Settings, TrainingRecord
from spectral_edge import spectrum as sp
from spectral_edge.band import Band, Matrix, total
from spectral_edge.groups import Cell, cells
from spectral_edge.recorded import read_run
from spectral_edge.recorder import Recorder
from spectral_edge.regimes import read_regimes
from spectral_edge.sketching import relative_error, variance
from spectral_edge.sketching.signs import add_signed, add_signed_on_device, key_of
from spectral_edge.windows import windows

SIZES = (50, 100, 200, 500, 1000)
WINDOW = 10
CLEAR = 1.2
"""How many times the second largest ratio of neighbours the largest must be for k* to be called clear."""


def real_states(every: int = 25, steps: int = 1500) -> dict[Cell, Matrix]:
    """Parameters of each cell at each recorded step: shape (T + 1, P)."""
    recipe = replace(RECIPES[0], steps=steps, checkpoint_every=every)
    states = [{name: value.clone() for name, value in snap.model_state.items()} for snap in train(recipe)]
    of_tensor = cells(sorted(states[0]))
    return {
        cell: np.stack(
            [torch.cat([s[n].flatten() for n, c in of_tensor.items() if c == cell]).double().numpy() for s in states]
        )
        for cell in sorted(set(of_tensor.values()))
    }


def random_states(drift: float, rng: Rng) -> dict[Cell, Matrix]:
    """Independent updates of 100,000 parameters, plus the same drift in all, `drift` times as long as the noise."""
    updates = np.hstack([constant_drift(60, drift, rng) for _ in range(200)])
    return {Cell("other", ""): np.vstack([np.zeros((1, updates.shape[1])), np.cumsum(updates, axis=0)])}


def band_of(updates: Matrix, n_parameters: int) -> Band:
    values = np.zeros((len(updates), WINDOW + 1))
    for lag in range(WINDOW + 1):
        values[lag:, lag] = (updates[lag:] * updates[: len(updates) - lag]).sum(axis=1)
    return Band(values, n_parameters, np.zeros(len(updates)))


def sketched(updates: Matrix, size: int, cell: Cell, seed: int) -> Matrix:
    sums = np.zeros((len(updates), min(size, updates.shape[1])))
    for row, into in zip(updates, sums, strict=True):
        add_signed(row, 0, key_of(seed, *cell), into)
    return sums


def spectra(band: Band) -> tuple[Matrix, np.ndarray, Matrix]:
    sigma = sp.spectrum(band, np.arange(WINDOW - 1, band.updates), WINDOW).sigma
    k = sp.k_star(sigma, 1e-6)
    return sigma, k, sp.gap_ratio(sigma, k)


def is_clear(sigma: Matrix) -> np.ndarray:
    ratios = np.sort(sigma[:, :-1] / sigma[:, 1:], axis=1)
    return ratios[:, -1] >= CLEAR * ratios[:, -2]


def expected_error(updates: Mapping[Cell, Matrix], size: int) -> float:
    """Root mean square of the standard error of inner products over |a| |b|, by the formula."""
    shares = []
    for at in range(len(next(iter(updates.values())))):
        for lag in range(min(at, WINDOW - 1) + 1):
            pairs = [(x[at], x[at - lag]) for x in updates.values()]
            whole = np.prod([sum(v @ v for v in side) for side in zip(*pairs, strict=True)])
            shares.append(sum(variance(a, b, min(size, len(a))) for a, b in pairs) / whole)
    return float(np.sqrt(np.mean(shares)))


def spread(values: list[float]) -> str:
    if not np.isfinite(values).all():
        return "none"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{100 * middle:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


COLUMNS = ["<a,b> rms", "<a,b> largest", "sigma rms", "sigma largest", "s1/s10 mean", "ratio at k* rms", "same k*",
           "same clear k*", "overlap_1 rms", "dG/tr G rms", "same regime"]  # fmt: skip


def figures(exact: Band, estimate: Band) -> list[float]:
    """What one seed gives, in the order of COLUMNS."""
    norms = np.sqrt(exact.values[:, 0])
    pairs = [(at, lag) for at in range(exact.updates) for lag in range(min(at, WINDOW - 1) + 1)]
    scaled = [(estimate.values[p] - exact.values[p]) / (norms[p[0]] * norms[p[0] - p[1]]) for p in pairs]
    (sigma, k, ratio), (its_sigma, its_k, _) = spectra(exact), spectra(estimate)
    clear = is_clear(sigma)
    relative = its_sigma / sigma - 1
    at_k = sp.gap_ratio(its_sigma, k) / ratio - 1
    return [
        float(np.sqrt(np.mean(np.square(scaled)))),
        float(np.abs(scaled).max()),
        float(np.sqrt(np.mean(relative**2))),
        float(np.abs(relative).max()),
        float((its_sigma[:, 0] / its_sigma[:, -1] / (sigma[:, 0] / sigma[:, -1]) - 1).mean()),
        float(np.sqrt(np.mean(at_k**2))),
        float((its_k == k).mean()),
        float((its_k == k)[clear].mean()) if clear.any() else np.nan,
        *derived(exact, estimate),
    ]


def derived(exact: Band, estimate: Band) -> tuple[float, float, float]:
    """Errors of the leading overlap (absolute) and of the Gram matrix's relative change; share of equal regimes."""
    chosen, record = Settings(window=WINDOW), TrainingRecord(constant_learning_rate=LEARNING_RATE)
    told, found = windows(exact, chosen), windows(estimate, chosen)
    overlap = (found.overlap[:, 0] - told.overlap[:, 0])[told.full]
    change = found.scalars["gram_change_relative"][told.full] / told.scalars["gram_change_relative"][told.full] - 1
    steps = np.arange(exact.updates + 1)
    pairs = zip(read_regimes(told, steps, record, chosen), read_regimes(found, steps, record, chosen), strict=True)
    same = [a.regime == b.regime for a, b in pairs if a.regime != "undetermined"]
    return float(np.sqrt(np.nanmean(overlap**2))), float(np.sqrt(np.nanmean(change**2))), float(np.mean(same))


def errors(title: str, states: Mapping[Cell, Matrix], seeds: int) -> None:
    updates = {cell: np.diff(theta, axis=0) for cell, theta in states.items()}
    exact = total(band_of(x, x.shape[1]) for x in updates.values())
    sigma, _, ratio = spectra(exact)
    print(f"\n{title}: {exact.updates} updates, {exact.n_parameters:,} parameters in {len(updates)} part(s)")
    print(
        f"  W = {WINDOW}: {len(sigma)} windows, k* is clear in {is_clear(sigma).sum()} (largest ratio at least {CLEAR} "
        f"times the second); medians: s1/s10 {np.median(sigma[:, 0] / sigma[:, -1]):.2f}, ratio {np.median(ratio):.2f}"
    )
    header = "".join(f"{name:>23s}" for name in COLUMNS)
    print(
        f"  errors in %; theory: <a,b>, sigma alone, sigma among {WINDOW} equal ones; regimes where exactly determined"
    )
    print(f"  {'d':>5s}{'theory':>18s}{header}")
    for size in SIZES:
        found = []
        for seed in range(seeds):
            parts = (sketched(x, size, cell, seed) for cell, x in updates.items())
            found.append(figures(exact, total(band_of(s, 1) for s in parts)))
        theory = (expected_error(updates, size), relative_error(size), relative_error(size, WINDOW))
        told = " ".join(f"{100 * value:5.1f}" for value in theory)
        print(
            f"  {size:5d}{told:>18s}" + "".join(f"{spread(list(c)):>23s}" for c in zip(*found, strict=True)), flush=True
        )


def cancellation(theta: Matrix, title: str) -> None:
    """How well the difference of the sketches of two states, shape (2, P), gives the sketch of the update."""
    size, key = 1000, key_of(0)
    share = np.linalg.norm(theta[1] - theta[0]) / np.linalg.norm(theta[0])
    exact = np.zeros(size)
    add_signed(theta[1] - theta[0], 0, key, exact)
    told = []
    for name, kind in (("float32", torch.float32), ("float64", torch.float64)):
        sums = torch.zeros((2, size), dtype=kind)
        for state in range(2):
            for first in range(0, theta.shape[1], size):  # row after row, each rounded to `kind`
                row = torch.zeros(size, dtype=torch.float64)
                add_signed_on_device(torch.from_numpy(theta[state, first : first + size]), first, key, row)
                sums[state] += row.to(kind)
        error = np.linalg.norm((sums[1] - sums[0]).double().numpy() - exact) / np.linalg.norm(exact)
        told.append(f"{name} sums {error:.0e}")
    print(f"  {title:34s} |update| / |state| = {share:.0e}; relative error with {', '.join(told)}")


def cancellations() -> None:
    print("\nThe sketch of an update as the difference of the sketches of two states (d = 1000)")
    for every in (1, 25):
        states = real_states(every, 300)
        cancellation(max(states.values(), key=lambda theta: theta.shape[1])[-2:], f"the real run, every {every} steps")
    rng = np.random.default_rng(0)
    for share in (1e-4, 1e-6):
        before = rng.standard_normal(1_000_000).astype(np.float32).astype(np.float64)
        after = (before + share * rng.standard_normal(len(before))).astype(np.float32).astype(np.float64)
        cancellation(np.stack([before, after]), "random, 1,000,000 in float32")


class Loop:
    """The demo's training loop without its measurements, with or without a recorder."""

    def __init__(self, folder: Path, every: int | None) -> None:
        torch.manual_seed(2)
        self.data, _ = data_of("modular addition", 2)
        self.model = model_of("modular addition")
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=1.0, fused=True
        )
        self.recorder = None if every is None else Recorder(folder / f"{every}.sketch", self.model, every=every)
        self.steps = 0

    def run(self, steps: int) -> float:
        """Milliseconds per step."""
        started = time.process_time()
        for _ in range(steps):
            self.steps += 1
            batch = torch.randint(0, len(self.data.labels), (BATCH_SIZE,))
            loss = functional.cross_entropy(self.model(self.data.inputs[batch]), self.data.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            if self.recorder is not None:
                self.recorder.step(self.steps, learning_rate=LEARNING_RATE)
        return 1e3 * (time.process_time() - started) / steps


def overhead(rounds: int, steps: int = 25) -> None:
    print(f"\nThe demo's transformer, {rounds} rounds of {steps} steps each in turn, d = 1024, 39,791 parameters")
    with tempfile.TemporaryDirectory() as folder:
        loops = {every: Loop(Path(folder), every) for every in (None, 50, 10, 1)}
        for loop in loops.values():
            loop.run(25)
        taken = [{every: loop.run(steps) for every, loop in loops.items()} for _ in range(rounds)]
        recorder = loops[1].recorder
        assert recorder is not None
        alone = 1e3 * best(lambda: recorder.step(10**6), 50)
        size = recorder.path.stat().st_size / len(read_run(recorder.path).file.records)
    bare = float(np.median([one[None] for one in taken]))
    print(f"  one record: {1e3 * alone:.0f} us, {size:,.0f} bytes; a training step without a recorder: {bare:.2f} ms")
    for every in (50, 10, 1):
        more = [one[every] - one[None] for one in taken]
        low, high = bootstrap((more,), np.median, rng=np.random.default_rng(0)).confidence_interval
        print(
            f"  every={every:2d}: {100 * alone / every / bare:5.2f} % from one record alone; median over rounds "
            f"{100 * np.median(more) / bare:5.2f} % [{100 * low / bare:.2f}, {100 * high / bare:.2f}] (95 %)"
        )


def best(work: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def large(parameters: int = 50_000_000) -> None:
    theta = torch.randn(parameters)
    values, key = theta.numpy(), key_of(0, "")
    print(f"\nOne tensor of {parameters:,} float32, one thread (a copy of it costs {4 * parameters / 1e6:.0f} MB)")
    print(f"  torch.clone            {1e9 * best(theta.clone, 5) / parameters:5.2f} ns per parameter")
    print(f"  theta @ theta          {1e9 * best(lambda: theta @ theta, 5) / parameters:5.2f} ns")
    for size in (100, 1000, 1024, 4096):
        sums = np.zeros(size)
        seconds = best(lambda sums=sums: add_signed(values, 0, key, sums), 5)
        print(f"  sketch, d = {size:5d}      {1e9 * seconds / parameters:5.2f} ns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overhead(arguments.rounds)
    large()
    cancellations()
    for drift in (0.0, 1.0):
        errors(f"Random updates, drift {drift:.0f}", random_states(drift, np.random.default_rng(0)), arguments.seeds)
    real = real_states()
    errors("A real run, group total", real, arguments.seeds)
    attention = {cell: theta for cell, theta in real.items() if cell.category == "attention"}
    errors("A real run, group attention", attention, arguments.seeds)


if __name__ == "__main__":
    main()
