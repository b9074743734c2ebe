"""Train the negatives that have no file yet, then print the tables of docs/calibration.md.

    python -m benchmarks.negatives [--work build/negatives] [--replication build/replication] [--short]

What a run gives is kept in the work folder: a second call prints within seconds. Tables of arrangements and of power
are commands of their own: benchmarks.negatives.arrangements, benchmarks.negatives.power.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.negatives.agreement import agreement_table, breaks
from benchmarks.negatives.kinds import COUNTS
from benchmarks.negatives.lead import lead_tables
from benchmarks.negatives.rates import calibrated_table, q_values, stated_table, threshold_table
from benchmarks.negatives.runs import Negative, memorising, negatives, of_part, statistic, strongest_of
from benchmarks.replication.phases import events
from benchmarks.replication.recipes import queue
from benchmarks.replication.runs import Run, finished
from benchmarks.replication.table import Table
from spectral_edge.band import Matrix
from spectral_edge.settings import Settings


def tables(work: Path, replication: Path, counts: dict[str, int], settings: Settings) -> list[Table]:
    """All tables; those that need the replication's runs are empty where these are not there."""
    found = [*negatives(work, counts), *memorising(replication)]
    runs = [run for run in found if isinstance(run, Negative)]
    left_out = [run for run in found if isinstance(run, tuple)]
    test = of_part(runs, "test")
    retrained = list(finished(replication, queue(6)))
    scores = {run.recipe.name: strongest_of(run, settings, work).q_value for run in retrained}
    sets = {name: [run for run in retrained if outcome(run) == name] for name in ("grokked", "did not grok", "forgets")}
    ours = {f"negatives, {process}": [r for r in test if r.process == process] for process in _processes(test)}
    ours["negatives, updates shuffled"] = [run.shuffled() for run in test]
    pairs = {
        name: [
            (statistic(run, settings, work).q_value <= settings.false_alarm_rate, _broken(run.grams["total"], settings))
            for run in members
        ]
        for name, members in ours.items()
    } | {
        f"replication, {name}": [
            (scores[run.recipe.name] <= settings.false_alarm_rate, _broken(run.grams["total"], settings))
            for run in members
        ]
        for name, members in sets.items()
        if members
    }
    by_set = {name: q_values(members, settings, work) for name, members in ours.items()}
    for name, members in sets.items():
        by_set[f"replication, {name}"] = [scores[run.recipe.name] for run in members]
    return [
        stated_table(runs, left_out, settings, work),
        calibrated_table(runs, settings, work),
        agreement_table(pairs),
        threshold_table(by_set),
        *lead_tables(retrained, settings, replication),
    ]


def outcome(run: Run) -> str:
    """What became of a retrained run, by its metric."""
    if run.recipe.fine_tune_at:
        return "forgets"
    return "grokked" if events(run).grokked else "did not grok"


def _processes(runs: list[Negative]) -> list[str]:
    return list(dict.fromkeys(run.process for run in runs))


def _broken(gram: Matrix, settings: Settings) -> bool:
    return bool(breaks(gram, settings.window))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/negatives"))
    parser.add_argument("--replication", type=Path, default=Path("build/replication"))
    parser.add_argument("--short", action="store_true", help="two runs a kind: shows that the machinery works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(COUNTS, 2) if options.short else COUNTS
    for table in tables(options.work, options.replication, counts, Settings()):
        print(table.text())


if __name__ == "__main__":
    main()
