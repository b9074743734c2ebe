"""Table 1: do gap dynamics precede grokking? The published criterion and ours, with and without weight decay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.replication.intervals import Share
from benchmarks.replication.phases import Events, events
from benchmarks.replication.runs import Run
from benchmarks.replication.table import Row, Table
from spectral_edge.settings import Settings

PUBLISHED_WINDOW: Final = 5
PUBLISHED_SPACING: Final = 4
"""The paper keeps every 100th step; our checkpoints are 25 steps apart."""
ARITHMETIC: Final = ("addition", "multiplication", "division")
_KEPT: Final = (
    "group",
    "kind",
    "onset_step",
    "onset_low",
    "onset_high",
    "q_value",
    "lead_steps",
    "lead_low",
    "lead_high",
)
DECLINES: Final = (2.0, 10.0)
"""From which ratio on g23 counts as declined: the paper reports 30 to 40 and states no threshold."""


@dataclass(frozen=True)
class Horizon:
    """A run with the step until which it is looked at.

    That is the step at which it grokked; for a run that did not, the median of those of its task that did, or of all of
    arithmetic where none of its task did, so that both are looked at for equally long.
    """

    run: Run
    events: Events
    step: int

    @property
    def grokked(self) -> bool:
        return self.events.grokked


def horizons(runs: Sequence[Run]) -> list[Horizon]:
    """Every run that fitted its training data; fine-tuned ones left out, as their two tasks are two runs in one."""
    usable = [(run, events(run)) for run in runs if not run.recipe.fine_tune_at]
    usable = [(run, found) for run, found in usable if found.fitted is not None]
    times = [(run.recipe.task, found.generalised) for run, found in usable if found.grokked]
    arithmetic = [step for task, step in times if task in ARITHMETIC and step is not None]
    told = []
    for run, found in usable:
        same = [step for task, step in times if task == run.recipe.task and step is not None]
        step = found.generalised if found.grokked else np.median(same or arithmetic or [run.steps[-1]])
        told.append(Horizon(run, found, int(min(step or 0, run.steps[-1]))))
    return told


def decline(run: Run, first: int, until: int) -> float:
    """Largest over last value of lambda_2 - lambda_3 among windows within steps `first` … `until` (lab record F0).

    Attention where the network has any, else all parameters. Windows of 5 updates, from 3 on at the run's start, of
    every fourth checkpoint. NaN where fewer than two windows lie there.
    """
    sparse = run.coarser(PUBLISHED_SPACING)
    gram = sparse.grams.get("attention", sparse.grams["total"])
    gaps = []
    for stop in range(3, len(gram) + 1):
        start = max(0, stop - PUBLISHED_WINDOW)
        if sparse.steps[start] >= first and sparse.steps[stop] <= until:
            eigenvalues = np.linalg.eigvalsh(gram[start:stop, start:stop])[::-1]
            gaps.append(eigenvalues[1] - eigenvalues[2])
    return float(max(gaps) / gaps[-1]) if len(gaps) > 1 else float("nan")


def reported(run: Run, settings: Settings, work: Path) -> list[dict[str, Any]]:
    """The transitions that the product reports; remembered in `work`, as permutations take a while."""
    file = work / f"changes-{run.recipe.name}-{run.recipe.hash}-{len(run.steps)}-{settings.hash}.json"
    if not file.exists():
        rows = run.audit(settings).transitions.to_pylist()
        kept = [{name: row[name] for name in _KEPT} for row in rows]
        part = file.with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(file)
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


def order_table(runs: Sequence[Run], settings: Settings, work: Path) -> Table:
    """One row a run; `order_summary` counts them."""
    rows = []
    for horizon in horizons(runs):
        run, fitted = horizon.run, horizon.events.fitted or 0
        changes = reported(run, settings, work)
        whole = [change["onset_step"] for change in changes]
        known = [change["onset_step"] for change in reported(run.until(horizon.step), settings, work)]
        rows.append(
            {
                "run": run.recipe.name,
                "family": run.recipe.family,
                "decay": run.recipe.weight_decay > 0,
                "grokked": horizon.grokked,
                "fitted": fitted,
                "horizon": horizon.step,
                "decline from the start": decline(run, 0, horizon.step),
                "decline from the fit": decline(run, fitted, horizon.step),
                "onsets": " ".join(map(str, sorted(whole))),
                "before": sum(onset < horizon.step for onset in whole),
                "between fit and horizon": sum(fitted <= onset < horizon.step for onset in whole),
                "interval before": sum(change["onset_high"] < horizon.step for change in changes),
                "known at the horizon": len(known),
                "known, after the fit": sum(onset >= fitted for onset in known),
            }
        )
    return Table("order_runs", "Table 1, run by run", "30 to 40-fold decline of g23 before each grok", rows)


_TESTS = {
    "g23 halves": ("decline from the start", DECLINES[0]),
    "g23 /10": ("decline from the start", DECLINES[1]),
    "halves after fit": ("decline from the fit", DECLINES[0]),
    "transition before": ("before", 1),
    "after fit": ("between fit and horizon", 1),
    "interval before": ("interval before", 1),
    "known by then": ("known at the horizon", 1),
    "known, after fit": ("known, after the fit", 1),
}


def order_summary(by_run: Table) -> Table:
    """Shares by family and pooled. A run whose fit leaves too few windows before the horizon is not in the share."""
    rows = []
    for name, members in _sets(by_run.rows).items():
        declines = np.array([row["decline from the start"] for row in members], dtype=np.float64)
        rows.append(
            {
                "runs": name,
                "n": len(members),
                "grokked": sum(bool(row["grokked"]) for row in members),
                "median decline": float(np.nanmedian(declines)),
            }
            | {test: _share(members, *rule) for test, rule in _TESTS.items()}
        )
    return Table(
        "order",
        "Table 1: gap dynamics before the grok (or, in runs that did not grok, before the same step)",
        "with weight decay 24 of 24 runs, without 0 of 24 (v3: 1 of 24); g23 declines 30 to 40-fold",
        rows,
        "shares of runs with Clopper-Pearson intervals, 95 %; transitions: the product's, q <= 0.05, any group",
    )


def _sets(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each family, and of all families together by decay and outcome; without empty sets."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["family"]), []).append(row)
    for grokked, decay in product((True, False), repeat=2):
        name = f"ALL {'grokked' if grokked else 'not grokked'}, {'decay' if decay else 'no decay'}"
        if members := [row for row in rows if row["grokked"] is grokked and row["decay"] is decay]:
            found[name] = members
    return found


def _share(members: Sequence[Row], column: str, least: float) -> str:
    values = np.array([row[column] for row in members], dtype=np.float64)
    values = values[np.isfinite(values)]
    return str(Share(int((values >= least).sum()), len(values)))
