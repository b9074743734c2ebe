"""Table 5a: which statistic tells phases apart? AUC of each between phases, seed by seed, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from benchmarks.replication.intervals import area, bootstrap
from benchmarks.replication.phases import MOVING, STILL, phases
from benchmarks.replication.recipes import EARLY_SEEDS, FAMILIES, FIRST_SEED, REGIME_FAMILIES
from benchmarks.replication.runs import Run
from benchmarks.replication.statistics import WindowValues, statistics
from benchmarks.replication.table import Table
from spectral_edge.settings import Settings

PARTS: Final = ("development", "new seeds", "other families")
_OWN: Final = [family.family for family in FAMILIES[:REGIME_FAMILIES]]


@dataclass(frozen=True)
class Labelled:
    """A run with every statistic and the phase of each of its windows."""

    run: Run
    windows: WindowValues
    phase: np.ndarray

    @cached_property
    def part(self) -> str:
        """`development` (three seeds of each of four kinds), `new seeds` of those, or `other families`."""
        if self.run.recipe.family not in _OWN:
            return "other families"
        return "development" if self.run.recipe.seed < FIRST_SEED + EARLY_SEEDS else "new seeds"

    def of(self, statistic: str, wanted: Sequence[str]) -> np.ndarray:
        """Values of `statistic` in windows of the phases `wanted`."""
        return np.asarray(self.windows.values[statistic][np.isin(self.phase, list(wanted))])


def labelled(runs: Sequence[Run], settings: Settings) -> list[Labelled]:
    """Every run with windows enough to compare."""
    found = []
    for run in runs:
        if len(run.metrics) > settings.window + 2:
            windows = statistics(run, settings)
            found.append(Labelled(run, windows, phases(run, settings.window)[windows.checkpoint]))
    return found


Contrast = Callable[[Labelled, str], float]


def _within(higher: Sequence[str], lower: Sequence[str]) -> Contrast:
    return lambda one, name: area(one.of(name, higher), one.of(name, lower))


def _against(controls: Sequence[Labelled]) -> Contrast:
    """Windows in which a run generalises against the quiet windows of runs in which nothing happens."""

    def contrast(one: Labelled, name: str) -> float:
        quiet = [control.of(name, ("quiet",)) for control in controls]
        return area(one.of(name, ("rise", "at")), np.concatenate(quiet)) if quiet else float("nan")

    return contrast


WITHIN: Final = {
    "rise / plateau": (("rise",), ("plateau",)),
    "at / plateau": (("at",), ("plateau",)),
    "at / rise": (("at",), ("rise",)),
    "post / at": (("post",), ("at",)),
    "rise+at / still": (("rise", "at"), STILL),
    "forgetting / quiet": (("forgetting",), ("quiet",)),
}


def contrast_table(runs: Sequence[Labelled], every: int) -> Table:
    """One row for each part of the runs, contrast and statistic."""
    rows = []
    for part in PARTS:
        members = [one for one in runs if one.part == part]
        contrasts = {name: _within(*sides) for name, sides in WITHIN.items()}
        for kind in ("memorising", "supervised"):
            controls = [one for one in members if one.run.recipe.kind == kind and not (one.phase == "rise").any()]
            contrasts[f"rise+at / {kind}"] = _against(controls)
        for contrast, told in contrasts.items():
            for statistic in members[0].windows.values if members else ():
                mean, low, high, count = bootstrap([told(one, statistic) for one in members])
                if count:
                    rows.append(
                        {
                            "runs": part,
                            "contrast": contrast,
                            "statistic": statistic,
                            "AUC": mean,
                            "low": low,
                            "high": high,
                            "seeds": count,
                        }
                    )
    return Table(
        f"contrasts_every_{every}",
        f"Table 5a: AUC between phases (group total, W = 10, a checkpoint each {every} steps, dyck {2 * every // 5})",
        "A << 1 plateau, A = 1 transition, A >> 1 forgetting: rise and at above plateau, forgetting above all",
        rows,
        "mean over runs of the AUC within each run; interval: bootstrap over runs; 0.5 tells nothing",
    )


def pivot(table: Table, part: str) -> list[dict[str, object]]:
    """Statistics as rows, contrasts as columns."""
    chosen = [row for row in table.rows if row["runs"] == part]
    contrasts = dict.fromkeys(str(row["contrast"]) for row in chosen)
    cells = {
        (row["statistic"], row["contrast"]): f"{row['AUC']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in chosen
    }
    return [
        {"statistic": statistic} | {contrast: cells.get((statistic, contrast), "-") for contrast in contrasts}
        for statistic in dict.fromkeys(row["statistic"] for row in chosen)
    ]


def truth(phase: np.ndarray) -> np.ndarray:
    """What a regime would have to say: `plateau`, `transition`, `unstable`; empty where the phase decides nothing."""
    told = np.full(len(phase), "", dtype="<U10")
    told[np.isin(phase, STILL)] = "plateau"
    told[np.isin(phase, MOVING)] = "transition"
    told[phase == "forgetting"] = "unstable"
    return told
