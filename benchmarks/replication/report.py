"""All tables from the runs' files, printed, and written where asked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.replication.confusion import accuracy_table, choose, confusion_table
from benchmarks.replication.contrasts import PARTS, Labelled, contrast_table, labelled, pivot
from benchmarks.replication.figure import draw
from benchmarks.replication.kinds import held_out_table, kinds_table, moving
from benchmarks.replication.order import order_summary, order_table
from benchmarks.replication.phases import events
from benchmarks.replication.positions import of_optimizers, position_table, threshold_table
from benchmarks.replication.precision import plateau_table, precision_table
from benchmarks.replication.runs import Run
from benchmarks.replication.shape import shape_table
from benchmarks.replication.statistics import BASELINES
from benchmarks.replication.table import Table
from spectral_edge.settings import Settings

COARSER = 2
"""Everything about regimes is told a second time with every second checkpoint left out."""


def run_table(runs: Sequence[Run]) -> Table:
    """What was trained, and what became of it."""
    rows = []
    for run in runs:
        found = events(run)
        rows.append(
            {
                "run": run.recipe.name,
                "recipe": run.recipe.hash,
                "seed": run.recipe.seed,
                "parameters": run.n_parameters["total"],
                "steps": int(run.steps[-1]),
                "every": run.recipe.every,
                "fitted": found.fitted or "never",
                "held-out 0.5": found.half or "never",
                "held-out 0.95": found.generalised or "never",
                "plateau first": found.delayed,
                "held-out at the end": float(run.metric("held_out_accuracy")[-1]),
                "seconds": run.about["seconds_train"],
            }
        )
    return Table("runs", "Runs", "-", rows, "fitted: training accuracy 0.99; steps of the first checkpoint there")


def tables(runs: Sequence[Run], settings: Settings, work: Path) -> tuple[list[Table], str]:
    """Every table, and the text to print."""
    by_run = order_table(runs, settings, work)
    positions = position_table(runs, settings)
    made = [run_table(runs), by_run, order_summary(by_run), positions, threshold_table(runs, settings)]
    made.append(shape_table(runs, settings))
    text = [made[0].text(), made[2].text(), positions.text(of_optimizers(positions)), made[4].text(), made[5].text()]
    spacings = {25 * factor: labelled([run.coarser(factor) for run in runs], settings) for factor in (1, COARSER)}
    for every, compared in spacings.items():
        contrasts = contrast_table(compared, every)
        made.append(contrasts)
        text += [f"[{part}] " + contrasts.text(pivot(contrasts, part)) for part in PARTS]
        found = _of_regimes(compared, every, settings)
        made += found
        text += [f"[a checkpoint each {every} steps] " + table.text() for table in found]
    made.append(plateau_table(list(spacings.values()), settings))
    text.append(made[-1].text())
    return made, "\n".join(text)


def _of_regimes(compared: Sequence[Labelled], every: int, settings: Settings) -> list[Table]:
    """What is told of regimes with a checkpoint each `every` steps."""
    found = []
    if rules := choose(compared):
        best = next(rule for rule, _ in rules if rule.statistic not in BASELINES)
        found += [accuracy_table(compared, rules, settings), confusion_table(compared, best, settings)]
    moved = moving(compared, settings.window)
    found += [precision_table(compared, settings), kinds_table(moved), held_out_table(moved)]
    return [replace(table, name=f"{table.name}_every_{every}") for table in found]


def about(runs: Sequence[Run], settings: Settings) -> dict[str, object]:
    """Versions, seeds and cost, for the results' folder."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        seeds[run.recipe.family].append(run.recipe.seed)
    seconds = sum(float(str(run.about["seconds_train"])) + float(str(run.about["seconds_pass"])) for run in runs)
    return {
        "versions": runs[0].about["versions"] if runs else {},
        "settings": json.loads(settings.as_json()),
        "seeds": seeds,
        "runs": len(runs),
        "cpu_minutes_training": round(seconds / 60, 1),
    }


def write(made: Sequence[Table], text: str, told: dict[str, object], folder: Path) -> None:
    """Tables as CSV, the text, one picture, and what made them, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in made:
        table.write(folder)
        if table.name == "contrasts_every_25":
            draw(table, "development", folder / f"{table.name}.png")
    (folder / "tables.txt").write_text(text)
    (folder / "about.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
