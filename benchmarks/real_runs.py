"""What the audit says of real runs whose phases are known from their held-out accuracy.

    python -m benchmarks.real_runs [--seeds 4]

Trains the demo's recipes (modular addition with and without weight decay, digits with a cosine schedule) with seeds
that the demo does not use, analyses their checkpoints with the default settings, and prints two tables: the regime of
each window of group `total` by phase, and what changes are reported in each run. A phase of a grokking run is
`fitting` until training accuracy 0.99, `plateau` until validation accuracy 0.5, `rise` until 0.95, `after` from there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from pipelines.demo_training import RECIPES, Recipe, train
from spectral_edge import MetricSeries, TrainingRecord, analyse
from spectral_edge.tables import RunTables

REGIMES = ("plateau", "transition", "unstable", "forgetting", "undetermined")
KINDS = {"grokking (weight decay 1)": 0, "memorising (weight decay 0)": 2, "digits, cosine schedule": 4}


def audit(recipe: Recipe, folder: Path) -> tuple[RunTables, dict[str, MetricSeries]]:
    points = defaultdict(list)
    for snapshot in train(recipe):
        save_file(
            {n: t.contiguous() for n, t in snapshot.model_state.items()}, folder / f"step_{snapshot.step}.safetensors"
        )
        for point in snapshot.points:
            points[point.name].append((point.step, point.value))
    series = {name: MetricSeries.from_points(name, *zip(*rows, strict=True)) for name, rows in points.items()}
    record = TrainingRecord(learning_rate=series["learning_rate"], metric=series["val_accuracy"])
    return analyse(folder, record=record), series


def phase(series: dict[str, MetricSeries], step: int) -> str:
    steps = series["val_accuracy"].steps
    fitted = steps[np.argmax(series["train_accuracy"].values >= 0.99)]
    if step < fitted:
        return "fitting"
    reached = [steps[series["val_accuracy"].values >= level] for level in (0.5, 0.95)]
    if not len(reached[0]) or step < reached[0][0]:
        return "plateau"
    return "rise" if not len(reached[1]) or step < reached[1][0] else "after"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = range(101, 101 + parser.parse_args().seeds)
    torch.set_num_threads(1)
    told: list[str] = []
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for kind, index in KINDS.items():
        for seed in seeds:
            recipe = replace(RECIPES[index], seed=seed, name=f"{kind}, seed {seed}")
            with tempfile.TemporaryDirectory() as folder:
                tables, series = audit(recipe, Path(folder))
            for row in tables.gaps.to_pylist():
                if row["group"] == "total" and not row["short"]:
                    label = phase(series, row["step"]) if index == 0 else "all"
                    counts[kind, label][row["regime"]] += 1
            grokked = series["val_accuracy"].steps[series["val_accuracy"].values >= 0.95]
            found = [
                f"{row['group']} {row['kind']} {row['onset_step']} [{row['onset_low']}, {row['onset_high']}] "
                f"q={row['q_value']:.3f}"
                for row in tables.transitions.to_pylist()
            ]
            reached = f"validation 0.95 at step {grokked[0]}" if len(grokked) else "validation 0.95 never reached"
            told.append(f"{recipe.name}: {reached}; {len(found)} change(s)" + "".join(f"\n    {one}" for one in found))
            print(told[-1], flush=True)
    print(f"\n{'windows of group total':30s} {'phase':8s} {'n':>5s} " + " ".join(f"{name:>12s}" for name in REGIMES))
    for (kind, label), regimes in counts.items():
        total = sum(regimes.values())
        print(f"{kind:30s} {label:8s} {total:5d} " + " ".join(f"{regimes[name] / total:12.0%}" for name in REGIMES))


if __name__ == "__main__":
    main()
