"""All tables from the runs' files, printed, and written where asked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.replication.confusion import accuracy_table, choose, confusion_table
from benchmarks.replication.contrasts import PARTS, contrast_table, labelled, pivot
from benchmarks.replication.figure import draw
from benchmarks.replication.order import order_summary, order_table
from benchmarks.replication.phases import events
from benchmarks.replication.positions import of_optimizers, position_table, threshold_table
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
    for factor in (1, COARSER):
        compared = labelled([run.coarser(factor) for run in runs], settings)
        every = 25 * factor
        contrasts = contrast_table(compared, every)
        made.append(contrasts)
        text += [f"[{part}] " + contrasts.text(pivot(contrasts, part)) for part in PARTS]
        if rules := choose(compared):
            best = next(rule for rule, _ in rules if rule.statistic not in BASELINES)
            for table in (accuracy_table(compared, rules, settings), confusion_table(compared, best, settings)):
                named = Table(f"{table.name}_every_{every}", table.title, table.published, table.rows, table.note)
                made.append(named)
                text.append(f"[a checkpoint each {every} steps] " + named.text())
    return made, "\n".join(text)


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
