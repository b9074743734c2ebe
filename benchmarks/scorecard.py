"""The scorecard over the runs of benchmarks/replication: the tables of docs/scorecard.md.

    python -m benchmarks.scorecard [--onset rise|change|stored] [--shape] [--work FOLDER] [--seeds 6] [--store FOLDER]

Audits each run into a store (once: it takes minutes), scores it and prints the table over all runs. `--onset` says
where the metric's onset comes from: `rise` takes held-out accuracy from 0.5 to 0.95 as the onset's interval, and none
for a run that does not get there; `change` the product's own test of the same series; `stored` what the audit stored of
that, as `spectral-edge scorecard` does. `--shape` compares `three_phases` with the test of
benchmarks/replication/shape.py, which needs the Gram matrix of all updates.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.replication.phases import events
from benchmarks.replication.recipes import queue
from benchmarks.replication.runs import Run, finished
from benchmarks.replication.shape import LEVEL, three_phases
from spectral_edge.scorecard import (
    KnownOnset,
    MetricOnset,
    Score,
    scorecard_of_org,
    scorecard_of_run,
    scores_of_store,
)
from spectral_edge.settings import Settings
from spectral_edge.store import Store
from spectral_edge.tables import RunKey
from spectral_edge.transitions import metric_change

GROUPS = {"three_phases": "total", "three_phases_attention": "attention"}


def rise(run: Run) -> KnownOnset:
    """Held-out accuracy from 0.5 to 0.95, as in benchmarks/replication/phases.py."""
    found = events(run)
    if run.recipe.fine_tune_at or found.half is None or found.generalised is None:
        return "none"
    return MetricOnset(found.generalised, found.half, found.generalised, improved=True)


def change(run: Run, settings: Settings) -> KnownOnset:
    """Where held-out accuracy changes by the product's test, and whether for the better."""
    values = run.metric("held_out_accuracy")
    found = metric_change(values, settings)
    if found is None:
        return "none"
    at = found.checkpoint
    step, low, high = (int(run.steps[index]) for index in (at, found.low, found.high))
    return MetricOnset(step, low, high, improved=bool(values[at:].mean() > values[:at].mean()))


def audited(runs: Sequence[Run], settings: Settings, store: Store) -> None:
    """Put the audits that it lacks into the store."""
    held = {(run_id, audit.fingerprint, audit.settings_hash) for (_, _, run_id), audit in store.audits().items()}
    for run in runs:
        if (run.recipe.name, run.recipe.hash, settings.hash) not in held:
            store.write_run(run.audit(settings))
            print(f"audited {run.recipe.name}", flush=True)


def scored(runs: Sequence[Run], known: Mapping[str, KnownOnset], store: Store) -> list[Score]:
    """Every run's scores, with the onsets `known`."""
    steps: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        found = known[run.recipe.name]
        if isinstance(found, MetricOnset) and found.improved:
            steps[run.recipe.task].append(found.step)
    everywhere = [step for found in steps.values() for step in found]
    scores: list[Score] = []
    for run in runs:
        name = run.recipe.name
        tables = store.read_run(RunKey("dir", "replication", name, name))
        if tables is not None:
            until = int(np.median(steps.get(run.recipe.task) or everywhere))
            scores += scorecard_of_run(tables, onset=known[name], until=until)
    return scores


def print_org(scores: Sequence[Score]) -> None:
    print(
        "\n| test | holds | fails | not testable | holds, of those decided | what lacked |\n|---|---|---|---|---|---|"
    )
    contrasts = []
    for one in scorecard_of_org(scores):
        lacks = "; ".join(f"{name} ({count})" for name, count in one.lacks)
        print(f"| `{one.prediction}` | {one.holds} | {one.fails} | {one.not_testable} | {one.share} | {lacks} |")
        if one.contrast:
            contrasts.append((one.prediction, one.contrast))
    print("\n| contrast | counted | more often on | than on | p | outcome |\n|---|---|---|---|---|---|")
    for test, found in contrasts:
        sides = f"{found.claimed.more}: {found.more} | {found.claimed.less}: {found.less}"
        p = "-" if found.p_value is None else f"{found.p_value:.2g}"
        print(f"| `{test}` | {found.claimed.event} | {sides} | {p} | {found.outcome} |")
    for test, found in contrasts:
        print(f"{test}: {found.confounds}.")
        for side in (found.claimed.more, found.claimed.less):
            values = [s.finding.value for s in scores if s.prediction == test and s.finding.side == side]
            known = [value for value in values if value is not None]
            if known:
                print(f"  {side}: median value {np.median(known):.3g} of {len(known)} runs")


def print_families(runs: Sequence[Run], scores: Sequence[Score]) -> None:
    """Which outcomes came in which family: h holds, f fails, - not testable, counts of runs."""
    family = {run.recipe.name: run.recipe.family for run in runs}
    counts: Mapping[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for score in scores:
        counts[score.prediction, family[score.run.key.run_id]][score.finding.outcome] += 1
    print("\nholds / fails / not testable, by family")
    for (test, name), found in counts.items():
        print(f"  {test:24s} {name:26s} {found['holds']:2d} / {found['fails']:2d} / {found['not_testable']:2d}")


def print_numbers(scores: Sequence[Score]) -> None:
    """The values that decided, over runs."""
    print("\nvalue over runs: test, runs with a value, lowest, median, highest")
    values: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, number in {"value": score.finding.value, **score.finding.numbers}.items():
            if number is not None:
                values[f"{score.prediction}: {name}"].append(number)
    for name, found in values.items():
        told = " ".join(f"{number:11.4g}" for number in (min(found), float(np.median(found)), max(found)))
        print(f"  {name:44s} {len(found):3d} {told}")


def print_agreement(runs: Sequence[Run], scores: Sequence[Score], settings: Settings) -> None:
    """Outcome of the scorecard's test against that of the replication's, run by run."""
    outcomes = {(score.run.key.run_id, score.prediction): score.finding.outcome for score in scores}
    for test, group in GROUPS.items():
        pairs: Counter[tuple[str, str]] = Counter()
        for run in runs:
            if group in run.grams:
                whole = three_phases(run.grams[group], settings)[1] <= LEVEL
                pairs["holds" if whole else "fails", outcomes[run.recipe.name, test]] += 1
        print(f"\n{test}: (replication's test, scorecard's): runs")
        for pair, count in sorted(pairs.items()):
            print(f"  {pair[0]:6s} {pair[1]:13s} {count}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/replication"))
    parser.add_argument("--store", type=Path, default=Path("build/scorecard"))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--onset", choices=("rise", "change", "stored"), default="rise")
    parser.add_argument("--shape", action="store_true")
    options = parser.parse_args()
    settings = Settings()
    runs, store = list(finished(options.work, queue(options.seeds))), Store.open(options.store)
    audited(runs, settings, store)
    if options.onset == "stored":
        scores = scores_of_store(store)
    else:
        rises = {run.recipe.name: rise(run) for run in runs}
        changes = {run.recipe.name: change(run, settings) for run in runs}
        scores = scored(runs, rises if options.onset == "rise" else changes, store)
        gains = [name for name, one in changes.items() if isinstance(one, MetricOnset) and one.improved]
        never = sum(rises[name] == "none" for name in gains)
        print(f"{len(gains)} runs have a gain of the metric by the product's test, {never} of them no rise to 0.95")
    print(f"{len(runs)} runs")
    print_org(scores)
    print_numbers(scores)
    print_families(runs, scores)
    if options.shape:
        print_agreement(runs, scores, settings)


if __name__ == "__main__":
    main()
