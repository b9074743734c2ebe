"""Every prediction on one run."""

from __future__ import annotations

from dataclasses import dataclass

from spectral_edge.scoring.evidence import Evidence, RunFacts
from spectral_edge.scoring.finding import Finding, lacking
from spectral_edge.scoring.predictions import PREDICTIONS


@dataclass(frozen=True)
class Score:
    """One prediction, by its name, on one run."""

    run: RunFacts
    prediction: str
    finding: Finding


def scorecard_of_evidence(run: Evidence) -> list[Score]:
    """Every prediction on one run, in the order of PREDICTIONS."""
    if run.failed:
        none = lacking("an audit that succeeded", "the run could not be audited")
        return [Score(run.facts, prediction.name, none) for prediction in PREDICTIONS]
    return [Score(run.facts, prediction.name, prediction.test(run)) for prediction in PREDICTIONS]
