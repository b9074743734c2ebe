"""The scorecard as the page shows it: over all runs, and on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from spectral_edge.report.verdict import count, number
from spectral_edge.report.view import anchor
from spectral_edge.scoring.org import Contrast, Share, scorecard_of_org
from spectral_edge.scoring.predictions import PREDICTIONS
from spectral_edge.scoring.score import Score

_CLAIMS: Final = {prediction.name: prediction.claim for prediction in PREDICTIONS}
_WORDS: Final = {"holds": "holds", "fails": "fails", "not_testable": "not testable"}


@dataclass(frozen=True)
class ScoreLine:
    """One prediction on one run, in words."""

    claim: str
    outcome: str
    words: str
    why: str


@dataclass(frozen=True)
class OrgLine:
    """One prediction over all runs, in words; `share` is empty where nothing is decided."""

    claim: str
    holds: str
    fails: str
    not_testable: str
    share: str
    lacks: str


@dataclass(frozen=True)
class Scorecard:
    """What the page says of the predictions.

    Attributes:
        runs: Runs that were held against them.
        lines: One a prediction, over all runs; none where no run was.
        contrasts: A sentence on each claim that sets runs against each other.
        by_run: Lines of each run, by its anchor (report/view.py).
    """

    runs: int
    lines: tuple[OrgLine, ...]
    contrasts: tuple[str, ...]
    by_run: Mapping[str, Sequence[ScoreLine]]


def scorecard_view(scores: Sequence[Score]) -> Scorecard:
    """All that the page shows of `scores`."""
    by_run: dict[str, list[ScoreLine]] = {}
    anchors = {score.run.key: f"run-{anchor(score.run.key.columns())}" for score in scores}
    for score in scores:
        by_run.setdefault(anchors[score.run.key], []).append(_line(score))
    over_all = scorecard_of_org(scores) if scores else []
    lines = (
        OrgLine(
            claim=_CLAIMS[one.prediction],
            holds=number(one.holds),
            fails=number(one.fails),
            not_testable=number(one.not_testable),
            share=_share(one.share),
            lacks=f"{one.lacks[0][0]} ({count(one.lacks[0][1], 'run')})" if one.lacks else "",
        )
        for one in over_all
    )
    told = (_contrast(_CLAIMS[one.prediction], one.contrast) for one in over_all if one.contrast is not None)
    return Scorecard(len(anchors), tuple(lines), tuple(told), by_run)


def _line(score: Score) -> ScoreLine:
    finding = score.finding
    return ScoreLine(_CLAIMS[score.prediction], finding.outcome, _WORDS[finding.outcome], finding.why)


def _share(share: Share) -> str:
    ends = share.interval()
    if ends is None:
        return ""
    low, high = (f"{100 * end:.0f}" for end in ends)
    return f"{number(share.hits)} of {number(share.total)} ({low} to {high} %)"


def _contrast(claim: str, contrast: Contrast) -> str:
    claimed, outcome = contrast.claimed, _WORDS[contrast.outcome]
    if contrast.p_value is None:
        return f"{claim} Between runs {outcome}: {contrast.confounds}."
    sides = ((claimed.more, contrast.more), (claimed.less, contrast.less))
    told = ", ".join(f"{side}: {_share(share)}" for side, share in sides)
    return (
        f"{claim} Runs in which {claimed.event}, {told}; {outcome} between runs (Fisher's exact test, "
        f"p = {contrast.p_value:.2g}). Confounds: {contrast.confounds}."
    )
