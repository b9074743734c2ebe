"""Table 6: where the product names a regime, is it right? Before and now, on seeds and kinds that were held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from benchmarks.replication.contrasts import PARTS, Labelled
from benchmarks.replication.intervals import Share, told
from benchmarks.replication.phases import MOVING, STILL
from benchmarks.replication.statistics import HISTORY, NORM_HISTORY
from benchmarks.replication.table import Table
from spectral_edge.regimes import SMALL_BELOW, STEADY_BELOW, Regime, doubts, read_regimes
from spectral_edge.settings import Settings
from spectral_edge.windows import windows

RIGHT: Final = {
    "plateau": STILL,
    "transition": ("rise", "at"),
    "unstable": ("forgetting",),
    "forgetting": ("forgetting",),
}
"""Phases in which each regime is right. Windows of phases that decide nothing (fitting, between, forgotten) are left
out."""
NAMED: Final[tuple[Regime, ...]] = ("plateau", "transition", "unstable", "forgetting")
FORMER: Final = (1.5, 3.0)
"""Thresholds of the rule before: `transition` and `unstable` from there on, against the run's own history."""
_FORMER_WORSE: Final = 3.0

STEADY: Final = (1.0, 1.25, 1.5, 2.0, 3.0, np.inf)
SMALL: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, np.inf)
"""Thresholds of a plateau that were compared: of the Gram change and of the update's norm, against the past."""
LEAST: Final = 0.85
"""Precision that a plateau had to have in each kind of the development runs where something moves."""

Readings = Callable[[Labelled, Settings], np.ndarray]


def now(one: Labelled, settings: Settings) -> np.ndarray:
    """The product's regime of each window of a run."""
    of_group = windows(one.run.bands(settings)["total"], settings)
    readings = read_regimes(of_group, one.run.steps, one.run.record(), settings)
    return _at(one, of_group.ends, [reading.regime for reading in readings])


def former(one: Labelled, settings: Settings) -> np.ndarray:
    """What the product said before: plateau, transition and unstable split the Gram change at FORMER.

    `forgetting` was an unstable window in which the metric lost three times its median step.
    """
    ratio = one.windows.values[HISTORY]
    regime = np.where(ratio < FORMER[0], "plateau", np.where(ratio < FORMER[1], "transition", "unstable"))
    metric = one.run.metric("held_out_accuracy")
    last = one.windows.checkpoint
    worse = metric[last - settings.window] - metric[last] > _FORMER_WORSE * np.median(np.abs(np.diff(metric)))
    regime = np.where((regime == "unstable") & worse, "forgetting", regime)
    return np.where(may_be_told(one, settings), regime, "undetermined")


def may_be_told(one: Labelled, settings: Settings) -> np.ndarray:
    """Windows for which the product has no reason to say nothing."""
    of_group = windows(one.run.bands(settings)["total"], settings)
    reasons = doubts(of_group, one.run.steps, one.run.record(), settings)
    return _at(one, of_group.ends, [reason is None for reason in reasons])


def _at(one: Labelled, ends: np.ndarray, values: Sequence[object]) -> np.ndarray:
    """Those of `values`, one a window of the product, that belong to the windows of `one`."""
    by_checkpoint = dict(zip((ends + 1).tolist(), values, strict=True))
    return np.array([by_checkpoint[checkpoint] for checkpoint in one.windows.checkpoint.tolist()])


def precision_table(runs: Sequence[Labelled], settings: Settings) -> Table:
    """One row for each rule, part of the runs and regime; the unit of every figure is the run."""
    rules: dict[str, Readings] = {"before": former, "now": now}
    rows = []
    for (name, read), part in product(rules.items(), PARTS):
        members = [one for one in runs if one.part == part]
        readings = [read(one, settings) for one in members]
        rows += [
            {"rule": name, "runs": part, "regime": regime} | _figures(members, readings, regime) for regime in NAMED
        ]
    return Table(
        "precision",
        "Table 6a: where a regime is named, is it right?",
        "none",
        rows,
        "unit: the run; wrong anywhere: runs in which a window is named so that is not; right: mean over the runs that "
        "name it of the share of windows named rightly; could be wrong: only runs that hold windows of both kinds; "
        "always: what naming every window so would give there; named: share of all windows",
    )


def _figures(members: Sequence[Labelled], readings: Sequence[np.ndarray], regime: Regime) -> dict[str, object]:
    every, mixed, always, share, mostly, wrong = [], [], [], [], 0, 0
    for one, reading in zip(members, readings, strict=True):
        judged = np.isin(one.phase, STILL + MOVING)
        if not judged.any():
            continue
        true = np.isin(one.phase, RIGHT[regime])[judged]
        named = (reading == regime)[judged]
        share.append(float(named.mean()))
        if named.any():
            right = float(true[named].mean())
            every.append(right)
            mostly += right >= 0.5
            wrong += right < 1.0
            if true.any() and not true.all():
                mixed.append(right)
                always.append(float(true.mean()))
    return {
        "named in": f"{len(every)}/{len(share)}",
        "wrong anywhere": wrong,
        "mostly right in": str(Share(mostly, len(every))),
        "right": told(every),
        "right, could be wrong": told(mixed),
        "always": float(np.mean(always)) if always else float("nan"),
        "named": float(np.mean(share)) if share else float("nan"),
    }


@dataclass(frozen=True)
class Plateau:
    """Thresholds below which a window reads as a plateau, what they score on the development runs, and how many."""

    steady: float
    small: float
    worst: float
    named: float


def plateaus(spacings: Sequence[Sequence[Labelled]], settings: Settings) -> list[Plateau]:
    """Every pair of thresholds on the development runs of all spacings, those with LEAST first, most often named first.

    `worst` is the lowest precision of a kind (mean over its runs) in which windows both stand still and move.
    """
    development = [[one for one in runs if one.part == "development"] for runs in spacings]
    allowed = {id(one): may_be_told(one, settings) for runs in development for one in runs}
    found = []
    for steady, small in product(STEADY, SMALL):
        kinds: dict[tuple[int, str], list[float]] = {}
        named = []
        for spacing, runs in enumerate(development):
            for one in runs:
                judged = allowed[id(one)] & np.isin(one.phase, STILL + MOVING)
                if not judged.any():
                    continue
                true = np.isin(one.phase, STILL)[judged]
                values = one.windows.values
                reads = ((values[HISTORY] < steady) & (values[NORM_HISTORY] < small))[judged]
                named.append(float(reads.mean()))
                if not true.all() and reads.any():
                    kinds.setdefault((spacing, one.run.recipe.family), []).append(float(true[reads].mean()))
        worst = min((float(np.mean(values)) for values in kinds.values()), default=0.0)
        found.append(Plateau(steady, small, worst, float(np.mean(named)) if named else 0.0))
    return sorted(found, key=lambda one: (one.worst < LEAST, -one.named))


def plateau_table(spacings: Sequence[Sequence[Labelled]], settings: Settings) -> Table:
    """The pairs of thresholds of :func:`plateaus`."""
    rows = [
        {
            "Gram change below": one.steady,
            "update norm below": one.small,
            "shipped": (one.steady, one.small) == (STEADY_BELOW, SMALL_BELOW),
            "precision, worst kind": one.worst,
            "named": one.named,
        }
        for one in plateaus(spacings, settings)
    ]
    return Table(
        "plateau",
        "Table 6b: thresholds of a plateau on the development runs, checkpoints each 25 and each 50 steps together",
        "none",
        rows,
        f"those with a precision of {LEAST} in every kind come first, and of them the one that names most windows; "
        "both against the median of the run's past; named: share of the windows that are judged",
    )
