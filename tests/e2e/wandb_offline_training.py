"""Trains, as far as W&B can tell: `python wandb_offline_training.py ID...` logs runs offline."""

from __future__ import annotations

import sys
from pathlib import Path

import wandb
from command_line import random_walk
from safetensors.torch import save_file

CHECKPOINTS = 14


def main(run_id: str, seed: int) -> None:
    run = wandb.init(project="toy", id=run_id, name=f"run {run_id}", mode="offline", config={"optimizer": "AdamW"})
    run.define_metric("*", step_metric="trainer/step")
    path = Path("model.safetensors")
    for index, weights in enumerate(random_walk(CHECKPOINTS, seed=seed)):
        run.log({"trainer/step": 100 * index, "lr": 1e-3, "val_loss": 1 / (index + 1)})
        save_file(weights, path)
        artifact = wandb.Artifact(f"model-{run_id}", "model", metadata={"step": 100 * index})
        artifact.add_file(str(path))
        run.log_artifact(artifact)
    run.finish()


if __name__ == "__main__":
    for number, name in enumerate(sys.argv[1:]):
        main(name, number)
