"""The thesis's predictions held against audited runs: each `holds`, `fails` or is `not_testable` (theory 10).

from spectral_edge.scorecard import scorecard_of_org, scores_of_store

for score in scorecard_of_org(scores_of_store(store)):
    print(score.prediction, score.holds, score.fails, score.not_testable)
"""

from __future__ import annotations

from spectral_edge.scoring.evidence import Evidence, KnownOnset, MetricOnset, RunFacts
from spectral_edge.scoring.finding import Finding, Outcome
from spectral_edge.scoring.from_store import scores_of_store
from spectral_edge.scoring.org import Contrast, OrgScore, Share, scorecard_of_org
from spectral_edge.scoring.predictions import PREDICTIONS, Claimed, Prediction
from spectral_edge.scoring.rows import ORG, SCORES, org_table, scores_table
from spectral_edge.scoring.score import Score, scorecard_of_evidence
from spectral_edge.tables import RunTables

__all__ = [
    "ORG",
    "PREDICTIONS",
    "SCORES",
    "Claimed",
    "Contrast",
    "Finding",
    "KnownOnset",
    "MetricOnset",
    "OrgScore",
    "Outcome",
    "Prediction",
    "RunFacts",
    "Score",
    "Share",
    "org_table",
    "scorecard_of_org",
    "scorecard_of_run",
    "scores_of_store",
    "scores_table",
]


def scorecard_of_run(tables: RunTables, *, onset: KnownOnset | None = None, until: int | None = None) -> list[Score]:
    """Every prediction on one run, from rows of tables `runs`, `gaps` and `transitions`.

    Args:
        tables: The run's tables; `inner_products` is not looked at.
        onset: Where the run's metric changes, or `none`, if something better is known than the largest established
            shift that `runs` has: whether the run generalises, say.
        until: Step until which a run whose metric does not change is looked at as a control of `g23_declines`.
    """
    return scorecard_of_evidence(Evidence.of(tables, onset, until))
