"""Table 5b: the product's regime and the best alternative, each against the held-out metric, on runs held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from benchmarks.replication.contrasts import PARTS, Labelled, truth
from benchmarks.replication.intervals import bootstrap
from benchmarks.replication.precision import FORMER, former, now
from benchmarks.replication.statistics import BASELINES
from benchmarks.replication.table import Table
from spectral_edge.regimes import SMALL_BELOW, STEADY_BELOW
from spectral_edge.settings import Settings

CLASSES: Final = ("plateau", "transition", "unstable")
_CUTS: Final = np.arange(0.05, 1.0, 0.05)
"""Quantiles of a statistic's values over the development runs between which its two thresholds are sought."""


@dataclass(frozen=True)
class Rule:
    """Two thresholds of a statistic: below the first `plateau`, up to the second `transition`, above it `unstable`."""

    statistic: str
    first: float
    second: float

    def read(self, one: Labelled) -> np.ndarray:
        """The regime of each window; `undetermined` where the statistic is undefined."""
        values = one.windows.values[self.statistic]
        told = np.where(values < self.first, "plateau", np.where(values < self.second, "transition", "unstable"))
        return np.where(np.isfinite(values), told, "undetermined")


STATED: Final = (Rule("A sigma2 plain", 0.1, 10.0), Rule("A relative sigma2 plain", 0.1, 10.0))
"""A << 1, A near 1 and A >> 1, taken as a factor of ten on either side."""


def products(one: Labelled, settings: Settings) -> np.ndarray:
    """The product's regime of each window; its `forgetting` is `unstable` with a name (docs/regimes.md)."""
    told = now(one, settings)
    return np.where(told == "forgetting", "unstable", told)


def products_before(one: Labelled, settings: Settings) -> np.ndarray:
    """What the product's rule before said."""
    told = former(one, settings)
    return np.where(told == "forgetting", "unstable", told)


Reader = Callable[[Labelled], np.ndarray]


def recalls(runs: Sequence[Labelled], reader: Reader) -> dict[str, list[float]]:
    """For each class the share of its windows that are read so, one value a run that has such windows."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in runs:
        right, read = truth(one.phase), reader(one)
        for name in CLASSES:
            if (right == name).any():
                found[name].append(float((read[right == name] == name).mean()))
    return found


def balanced(runs: Sequence[Labelled], reader: Reader) -> float:
    """Mean over the classes of the mean over runs of the share read right; 1/3 is what a constant answer gives."""
    found = recalls(runs, reader)
    return float(np.mean([np.mean(found[name]) if found[name] else np.nan for name in CLASSES]))


def best_rule(runs: Sequence[Labelled], statistic: str) -> tuple[Rule, float]:
    """The thresholds of `statistic` with the highest balanced accuracy on `runs`, and that accuracy."""
    values = np.concatenate([one.windows.values[statistic] for one in runs])
    cuts = np.quantile(values[np.isfinite(values)], _CUTS)
    below, above = ({name: _share_beyond(runs, statistic, name, cuts, up) for name in CLASSES} for up in (False, True))
    pairs = list(combinations(range(len(cuts)), 2))
    scores = [
        (below["plateau"][i] + (below["transition"][j] - below["transition"][i]) + above["unstable"][j]) / 3
        for i, j in pairs
    ]
    best = int(np.argmax(scores))
    first, second = pairs[best]
    return Rule(statistic, float(cuts[first]), float(cuts[second])), float(scores[best])


def _share_beyond(runs: Sequence[Labelled], statistic: str, name: str, cuts: np.ndarray, up: bool) -> np.ndarray:
    """Share of the windows of class `name` below (or, `up`, from) each cut, mean over the runs that have such windows.

    Windows in which the statistic is undefined are on neither side.
    """
    shares = []
    for one in runs:
        values = one.windows.values[statistic][truth(one.phase) == name]
        if len(values):
            beyond = values[:, None] >= cuts if up else values[:, None] < cuts
            shares.append(beyond.mean(axis=0))
    return np.asarray(np.mean(shares, axis=0)) if shares else np.zeros(len(cuts))


def choose(runs: Sequence[Labelled]) -> list[tuple[Rule, float]]:
    """Every statistic's best rule on the development runs, the best first. The baselines are among them."""
    development = [one for one in runs if one.part == "development"]
    found = [best_rule(development, statistic) for statistic in development[0].windows.values] if development else []
    return sorted(found, key=lambda item: -item[1])


def accuracy_table(runs: Sequence[Labelled], rules: Sequence[tuple[Rule, float]], settings: Settings) -> Table:
    """How the product's regime and every rule do on the development runs and on those held out."""
    readers: dict[str, tuple[str, Reader]] = {
        "the product's regime before": (
            f"{FORMER[0]:.3g}, {FORMER[1]:.3g}",
            lambda one: products_before(one, settings),
        ),
        "the product's regime": (f"{STEADY_BELOW}, {SMALL_BELOW}", lambda one: products(one, settings)),
    }
    for rule in STATED:
        readers[f"{rule.statistic}, the paper's words"] = (f"{rule.first:.3g}, {rule.second:.3g}", rule.read)
    for rule, _ in rules:
        label = f"{rule.statistic} (baseline)" if rule.statistic in BASELINES else rule.statistic
        readers[label] = (f"{rule.first:.3g}, {rule.second:.3g}", rule.read)
    rows = []
    for name, (thresholds, reader) in readers.items():
        row: dict[str, object] = {"rule": name, "thresholds": thresholds}
        for part in PARTS:
            members = [one for one in runs if one.part == part]
            found = recalls(members, reader)
            row[f"{part}: balanced"] = balanced(members, reader) if all(found[c] for c in CLASSES) else float("nan")
            if part != "development":
                for one in CLASSES:
                    mean, low, high, count = bootstrap(found[one])
                    row[f"{part}: {one}"] = f"{mean:.2f} [{low:.2f}, {high:.2f}] n={count}" if count else "-"
        rows.append(row)
    return Table(
        "accuracy",
        "Table 5b: share of windows read right, by class (plateau: still, transition: rise, at; unstable: forgetting)",
        "none; the paper gives no thresholds beyond A << 1, A = 1, A >> 1",
        rows,
        "thresholds of all but the first four were chosen on the development runs; balanced: mean of the classes",
    )


def confusion_table(runs: Sequence[Labelled], rule: Rule, settings: Settings) -> Table:
    """Phases against readings, on the runs held out; shares are means over runs."""
    regimes = (*CLASSES, "undetermined")
    shares: dict[tuple[str, str, str, str], list[list[float]]] = defaultdict(list)
    readers: dict[str, Reader] = {
        "before": lambda one: products_before(one, settings),
        "now": lambda one: products(one, settings),
        rule.statistic: rule.read,
    }
    for one in runs:
        if one.part == "development":
            continue
        for reader, read in readers.items():
            told = read(one)
            for phase in dict.fromkeys(one.phase.tolist()):
                inside = told[one.phase == phase]
                share = [(inside == r).mean() for r in regimes]
                for family in (one.run.recipe.family, "ALL"):
                    shares[one.part, family, phase, reader].append(share)
    rows = [
        {"runs": part, "family": family, "phase": phase, "rule": reader, "n": len(found)}
        | dict(zip(regimes, map(float, np.mean(found, axis=0)), strict=True))
        for (part, family, phase, reader), found in shares.items()
        if phase not in {"fitting", "between"}
    ]
    return Table(
        "confusion",
        f"Table 5c: phases against regimes on runs held out; alternative: {rule.statistic} "
        f"at {rule.first:.3g} and {rule.second:.3g}",
        "plateau reads plateau, rise and at read transition, forgetting reads forgetting",
        rows,
        "mean over runs of the share of a run's windows; n runs",
    )
