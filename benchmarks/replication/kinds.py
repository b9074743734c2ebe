"""Table 7: does any definition of theory 5 tell moving windows from still ones in every kind of run?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from benchmarks.replication.contrasts import Labelled
from benchmarks.replication.intervals import area, bootstrap, told
from benchmarks.replication.phases import MOVING, STILL
from benchmarks.replication.recipes import EARLY_SEEDS, FIRST_SEED
from benchmarks.replication.statistics import BASELINES, against_history
from benchmarks.replication.table import Table

_QUANTILES: Final = np.arange(0.05, 1.0, 0.05)


@dataclass(frozen=True)
class Moving:
    """A run with windows of both sorts: every statistic, by itself and against the run's past, in those windows."""

    family: str
    seed: int
    values: dict[str, np.ndarray]
    moves: np.ndarray

    @cached_property
    def areas(self) -> dict[str, float]:
        """AUC of each statistic, moving over still."""
        return {name: area(values[self.moves], values[~self.moves]) for name, values in self.values.items()}


def moving(runs: Sequence[Labelled], window: int) -> list[Moving]:
    """The runs in which the held-out metric both moves and stands still after the fit."""
    found = []
    for one in runs:
        judged = np.isin(one.phase, STILL + MOVING)
        moves = np.isin(one.phase, MOVING)[judged]
        if moves.any() and not moves.all():
            values = dict(one.windows.values)
            for name, raw in one.windows.values.items():
                if name.startswith("A ") and "relative" not in name:  # of a constant rate the ratio is the same
                    values[f"{name}, own history"] = against_history(raw, window)
            chosen = {name: raw[judged] for name, raw in values.items()}
            found.append(Moving(one.run.recipe.family, one.run.recipe.seed, chosen, moves))
    return found


def kinds_table(runs: Sequence[Moving]) -> Table:
    """AUC of each statistic in each kind of run; `lowest` is that of the kind in which it does worst."""
    families = list(dict.fromkeys(one.family for one in runs))
    rows = []
    for statistic in runs[0].values if runs else ():
        means = {
            family: bootstrap([one.areas[statistic] for one in runs if one.family == family])[0] for family in families
        }
        rows.append({"statistic": statistic} | means | {"lowest": min(means.values())})
    return Table(
        "kinds",
        "Table 7a: AUC of moving over still windows within a run, by kind",
        "A rises from the plateau to the transition and on to forgetting",
        sorted(rows, key=lambda row: -float(str(row["lowest"]))),
        "moving: rise, at, forgetting; still: plateau, post, quiet; mean over runs; 0.5 tells nothing",
    )


def held_out_table(runs: Sequence[Moving]) -> Table:
    """For each kind: the statistic and the threshold that are best on the first seeds of all others, on that kind."""
    rows = []
    for family in dict.fromkeys(one.family for one in runs):
        others = [one for one in runs if one.family != family and one.seed < FIRST_SEED + EARLY_SEEDS]
        held_out = [one for one in runs if one.family == family]
        if not others:
            continue
        statistic, cut, score = best_cut(others)
        still, moves = (
            told([float((one.values[statistic] >= cut)[one.moves == side].mean()) for one in held_out])
            for side in (False, True)
        )
        rows.append(
            {
                "kind held out": family,
                "chosen": statistic,
                "threshold": cut,
                "balanced, others": score,
                "balanced, held out": float(np.mean([_balanced(one, statistic, cut) for one in held_out])),
                "still, called moving": still,
                "moving, called moving": moves,
            }
        )
    return Table(
        "kinds_held_out",
        "Table 7b: the best definition of the other kinds, on the kind held out",
        "none",
        rows,
        "chosen among all statistics but the baselines for the mean over runs of the balanced accuracy; 0.5: nothing",
    )


def best_cut(runs: Sequence[Moving]) -> tuple[str, float, float]:
    """Statistic, threshold from which a window moves, and the mean over runs of their balanced accuracy."""
    best = ("", float("nan"), 0.0)
    for statistic in runs[0].values:
        if statistic in BASELINES:
            continue
        pooled = np.concatenate([one.values[statistic] for one in runs])
        known = pooled[np.isfinite(pooled)]
        for cut in np.quantile(known, _QUANTILES) if len(known) else ():
            score = float(np.mean([_balanced(one, statistic, float(cut)) for one in runs]))
            if score > best[2]:
                best = (statistic, float(cut), score)
    return best


def _balanced(one: Moving, statistic: str, cut: float) -> float:
    above = one.values[statistic] >= cut
    return float((above[one.moves].mean() + (~above[~one.moves]).mean()) / 2)
