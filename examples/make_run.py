"""Makes a folder as a training run leaves it: 71 checkpoints and a metrics.csv. No training: the updates are made up.

All parameters drift and jitter; from step 1,600 on, the updates of the hidden layer have a second direction.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

EVERY = 40
CHECKPOINTS = 71
CHANGE = 40
SHAPES = {"embed.weight": (32, 16), "layers.0.mlp.weight": (16, 32)}


def make_run(folder: Path) -> None:
    """Write the checkpoints and the log to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    weights = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    drift = {name: rng.normal(size=shape) / 20 for name, shape in SHAPES.items()}
    second = rng.normal(size=SHAPES["layers.0.mlp.weight"]) / 12
    rows = []
    for update in range(CHECKPOINTS):
        tensors = {name: value.astype(np.float32) for name, value in weights.items()}
        save_file(tensors, folder / f"step_{update * EVERY}.safetensors")
        accuracy = 0.1 + 0.8 / (1 + np.exp(-(update - CHANGE - 8) / 2)) + rng.normal(scale=0.01)
        rows.append({"step": update * EVERY, "lr": 1e-3, "val_accuracy": round(float(accuracy), 4)})
        for name, shape in SHAPES.items():
            weights[name] += drift[name] + rng.normal(scale=0.004, size=shape)
        if update >= CHANGE:
            size = np.cos((update - CHANGE) / 3) * np.exp(-(update - CHANGE) / 40)
            weights["layers.0.mlp.weight"] += second * size
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    make_run(Path(sys.argv[1] if len(sys.argv) > 1 else "example-runs/small-network"))
