"""What the loss probe and the gap flow say of real runs: does the prediction order the directions, do the terms add up?

    python -m benchmarks.probe [--seeds 4] [--windows 5]

Trains modular addition with and without weight decay with seeds that the demo does not use, a checkpoint every 10
steps, and probes windows (W = 10) spread over each run with the true loss. One line a run, since the run is the unit:
medians over its windows, and its gap flow fits.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr, t
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pipelines.demo_tasks import Split, data_of, model_of
from pipelines.demo_training import LEARNING_RATE, RECIPES, Recipe, train
from pipelines.probe_command import chosen_ends
from spectral_edge import Settings, analyse
from spectral_edge.gap_flow import GapFlow, gap_flows_of_rows
from spectral_edge.gram import LocalCheckpoint
from spectral_edge.probe import Probe, ProbedWindow, probe_window
from spectral_edge.probing.losses import LossFunction

KINDS = {"weight decay 1": 0, "weight decay 0": 2}


def probe_of(recipe: Recipe) -> Probe:
    model = model_of(recipe.task).eval()

    def loss_on(split: Split) -> LossFunction:
        return lambda p: cross_entropy(functional_call(model, p, (split.inputs,)), split.labels)

    return Probe(*map(loss_on, data_of(recipe.task, recipe.seed)))


def probed(recipe: Recipe, folder: Path, windows: int) -> tuple[list[ProbedWindow], list[GapFlow]]:
    checkpoints = []
    for snapshot in train(recipe):
        file = folder / f"step_{snapshot.step}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in snapshot.model_state.items()}, file)
        checkpoints.append(LocalCheckpoint(snapshot.step, file.name, (file,)))
    settings, probe = Settings(), probe_of(recipe)
    found = []
    for end in chosen_ends(len(checkpoints), settings.window, windows):
        of_window = checkpoints[max(0, end - settings.window - 1) : end + 1]
        rates = {"learning_rate": LEARNING_RATE, "weight_decay": recipe.weight_decay}
        found.append(probe_window(probe, of_window, settings, **rates))
    rows = analyse(folder, settings=replace(settings, false_alarm_rate=0.05)).gaps.to_pylist()
    return found, gap_flows_of_rows(rows)["total"]


def by_slope(window: ProbedWindow) -> float:
    """The rank correlation of a plainer prediction with the removal: displacement x gradient, its first order."""
    predicted = [-d.displacement * (d.gradient_validation or 0.0) for d in window.directions]
    return float(spearmanr(predicted, [d.removal_validation for d in window.directions]).statistic)


def line(windows: list[ProbedWindow], flows: list[GapFlow]) -> tuple[str, float, float]:
    known = [window.spearman for window in windows if window.spearman is not None]
    rho = float(np.median(known)) if known else np.nan
    slope = float(np.median([by_slope(window) for window in windows]))
    stable = np.mean([sum((d.stability or 0) > 0 for d in window.directions) for window in windows])
    terms = [window.flow for window in windows if window.flow is not None and window.flow.measured is not None]
    held = [
        sum(window.k_star is not None and window.k_star <= (bound or 0) for window, bound in bounds)
        for bounds in (
            [(window, window.krylov_bound) for window in windows],
            [(window, window.krylov_bound_steps) for window in windows],
        )
    ]
    signs = sum(np.sign(term.predicted) == np.sign(term.measured) for term in terms)
    size = np.median([abs(term.predicted) / abs(term.measured) for term in terms if term.measured])
    driving = np.median([abs(term.driving) / abs(term.predicted) for term in terms])
    fits = [flow for flow in flows if flow.testable]
    longest, damped = max(flow.windows for flow in flows), sum(flow.damped for flow in fits)
    facts = (
        f"rho {rho:5.2f} ({len(known)} windows), of slope x way {slope:5.2f}",
        f"{stable:3.1f} stable directions",
        f"Krylov {held[0]}/{len(windows)}, in steps {held[1]}/{len(windows)}",
        f"flow: sign {signs}/{len(terms)}, |predicted/measured| {size:.1e}, driving share {driving:.2f}",
        f"longest stretch {longest} windows, {len(fits)} testable, {damped} damped",
    )
    return "; ".join(facts), rho, slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--windows", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for kind, index in KINDS.items():
        rhos, slopes = [], []
        for seed in range(101, 101 + arguments.seeds):
            recipe = replace(RECIPES[index], seed=seed, checkpoint_every=10, name=f"{kind}, seed {seed}")
            with tempfile.TemporaryDirectory() as folder:
                told, rho, slope = line(*probed(recipe, Path(folder), arguments.windows))
            print(f"{recipe.name}: {told}", flush=True)
            rhos.append(rho)
            slopes.append(slope)
        print(f"{kind}: rho over runs {mean(rhos)}; of slope x way {mean(slopes)}", flush=True)


def mean(values: list[float]) -> str:
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) < 2:
        return f"known for {len(known)} runs"
    reach = t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return f"{known.mean():.2f} +- {reach:.2f} (95 %, {len(known)} runs)"


if __name__ == "__main__":
    main()
