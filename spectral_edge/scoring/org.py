"""Over many runs: counts, shares with intervals, and contrasts between runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import binomtest, fisher_exact

from spectral_edge.scoring.evidence import RunFacts
from spectral_edge.scoring.finding import Outcome
from spectral_edge.scoring.predictions import PREDICTIONS, Claimed, Prediction
from spectral_edge.scoring.score import Score

LEVEL: Final = 0.05


@dataclass(frozen=True)
class Share:
    """`hits` of `total` runs; 95 % interval of Clopper and Pearson, None where there is no run."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share."""
        return self.hits / self.total if self.total else None

    def interval(self) -> tuple[float, float] | None:
        """Its ends; runs count as independent draws."""
        if self.total == 0:
            return None
        found = binomtest(self.hits, self.total).proportion_ci()
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        ends = self.interval()
        return "-" if ends is None else f"{self.hits}/{self.total} [{ends[0]:.2f}, {ends[1]:.2f}]"


@dataclass(frozen=True)
class Contrast:
    """The claimed contrast, over runs.

    Attributes:
        claimed: What is counted, and on which side it shall be more frequent.
        more: Its share there.
        less: Its share on the other side.
        p_value: Fisher's exact test, two-sided; None where a side has no run.
        outcome: `holds` where p <= 0.05 in the claimed direction, `fails` in the other, else `not_testable`.
        confounds: In what else the two sides differ.
    """

    claimed: Claimed
    more: Share
    less: Share
    p_value: float | None
    outcome: Outcome
    confounds: str


@dataclass(frozen=True)
class OrgScore:
    """One prediction over many runs.

    Attributes:
        share: Runs in which it holds, of those in which it holds or fails.
        lacks: What lacked in the others, with the number of runs, the most frequent first.
    """

    prediction: str
    share: Share
    not_testable: int
    lacks: tuple[tuple[str, int], ...]
    contrast: Contrast | None

    @property
    def holds(self) -> int:
        """Runs in which it holds."""
        return self.share.hits

    @property
    def fails(self) -> int:
        """Runs in which it fails."""
        return self.share.total - self.share.hits


def scorecard_of_org(scores: Sequence[Score]) -> list[OrgScore]:
    """Every prediction over all runs of `scores`, whose order does not matter; a run is the unit, not a window."""
    return [_of_org(prediction, [s for s in scores if s.prediction == prediction.name]) for prediction in PREDICTIONS]


def _of_org(prediction: Prediction, scores: Sequence[Score]) -> OrgScore:
    outcomes = Counter(score.finding.outcome for score in scores)
    lacks = Counter(score.finding.lacks for score in scores if score.finding.outcome == "not_testable")
    return OrgScore(
        prediction=prediction.name,
        share=Share(outcomes["holds"], outcomes["holds"] + outcomes["fails"]),
        not_testable=outcomes["not_testable"],
        lacks=tuple(sorted(lacks.items(), key=lambda item: (-item[1], item[0]))),
        contrast=_contrast(prediction.contrast, scores) if prediction.contrast else None,
    )


def _contrast(claimed: Claimed, scores: Sequence[Score]) -> Contrast:
    sides = [[s for s in scores if s.finding.side == side] for side in (claimed.more, claimed.less)]
    more, less = (Share(sum(bool(s.finding.event) for s in side), len(side)) for side in sides)
    if more.value is None or less.value is None:
        empty = claimed.more if more.value is None else claimed.less
        return Contrast(claimed, more, less, None, "not_testable", f"no run with {empty}")
    table = [[share.hits, share.total - share.hits] for share in (more, less)]
    p_value = float(fisher_exact(table).pvalue)
    outcome: Outcome = "not_testable"
    if p_value <= LEVEL:
        outcome = "holds" if more.value > less.value else "fails"
    return Contrast(claimed, more, less, p_value, outcome, confounds(claimed, *sides))


def confounds(claimed: Claimed, more: Sequence[Score], less: Sequence[Score]) -> str:
    """In what the runs of the two sides differ, as far as the tables tell; they never tell all."""
    differences = []
    for name, tell in _FACTS.items():
        first, second = ({tell(score.run) for score in side} for side in (more, less))
        if first != second:
            differences.append(f"{name} ({_listed(first)} against {_listed(second)})")
    lengths = [float(np.median([score.run.windows for score in side])) for side in (more, less)]
    if lengths[0] != lengths[1]:
        differences.append(f"length (median {lengths[0]:g} against {lengths[1]:g} windows)")
    sides = f"runs with {claimed.more} and with {claimed.less}"
    if not differences:
        return f"{sides} differ in nothing that the tables tell; data, model and seeds they do not tell"
    return f"{sides} differ in {', '.join(differences)}, and in what the tables do not tell"


_FACTS: Final[Mapping[str, Callable[[RunFacts], str]]] = {
    "project": lambda run: run.key.project,
    "optimizer": lambda run: run.optimizer or "unknown",
    "weight decay": lambda run: "unknown" if run.weight_decay is None else f"{run.weight_decay:g}",
    "change of the metric": lambda run: {True: "yes", False: "no", None: "unknown"}[run.moved],
}


def _listed(values: set[str]) -> str:
    told = sorted(values)
    return ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")
