"""Train what is not trained yet, then print and write the tables.

    python -m benchmarks.replication [--minutes 35] [--seeds 6] [--work build/replication] [--results FOLDER] [--short]

Each finished run is one file in the work folder, of which one process at a time may make use; a run that was killed is
trained again. No run is begun after `--minutes`; `--minutes 0` prints the tables from the files that are there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.replication.recipes import Recipe, queue, short
from benchmarks.replication.report import about, tables, write
from benchmarks.replication.runs import finished, trained
from spectral_edge.settings import Settings


def train_all(recipes: list[Recipe], work: Path, minutes: float) -> None:
    """Train what has no file yet, until `minutes` have passed."""
    started = time.monotonic()
    for recipe in recipes:
        if time.monotonic() - started >= 60 * minutes:
            print(f"The time is over: {recipe.name} and what comes after it are left for another call.")
            return
        run = trained(recipe, work)
        accuracy = run.metric("held_out_accuracy")[-1]
        print(f"{recipe.name}: {run.steps[-1]} steps, held-out {accuracy:.2f}, {run.about}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("build/replication"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    recipes = short() if options.short else queue(options.seeds)
    train_all(recipes, options.work, options.minutes)
    runs = list(finished(options.work, recipes))
    settings = Settings(window=4) if options.short else Settings()
    made, text = tables(runs, settings, options.work)
    print(text)
    if options.results:
        write(made, text, about(runs, settings), options.results)


if __name__ == "__main__":
    main()
