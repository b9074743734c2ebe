"""Scores as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from spectral_edge.scoring.org import OrgScore
from spectral_edge.scoring.predictions import PREDICTIONS
from spectral_edge.scoring.score import Score
from spectral_edge.tables import SCORECARD

_TEXT, _REAL, _INT = pa.string(), pa.float64(), pa.int64()
_OF = {prediction.name: prediction for prediction in PREDICTIONS}


def _column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning})


_OF_AUDIT: Final = frozenset({"audit_id", "settings_hash", "schema_version"})

SCORES: Final = pa.schema([field for field in SCORECARD if field.name not in _OF_AUDIT])
"""Table `scorecard` without the columns that say which audit wrote a row."""

ORG: Final = pa.schema(
    [
        _column("prediction", _TEXT, "the prediction; see docs/scorecard.md"),
        _column("claim", _TEXT, "what is claimed"),
        _column("holds", _INT, "runs in which it holds"),
        _column("fails", _INT, "runs in which it fails"),
        _column("not_testable", _INT, "runs in which it cannot be told"),
        _column("share", _REAL, "holds / (holds + fails)"),
        _column("share_low", _REAL, "lower end of its 95 % Clopper-Pearson interval over runs"),
        _column("share_high", _REAL, "upper end"),
        _column("lacks", pa.map_(_TEXT, _INT), "what lacked, and in how many runs"),
        _column("contrast", _TEXT, "holds, fails or not_testable; null where none is claimed"),
        _column("event", _TEXT, "what the contrast counts"),
        _column("more", _TEXT, "side on which the event is claimed to be more frequent"),
        _column("more_events", _INT, "runs with the event there"),
        _column("more_runs", _INT, "runs there"),
        _column("less", _TEXT, "the other side"),
        _column("less_events", _INT, "runs with the event there"),
        _column("less_runs", _INT, "runs there"),
        _column("p_value", _REAL, "Fisher's exact test over runs, two-sided"),
        _column("confounds", _TEXT, "in what else the sides differ"),
    ]
)


def scores_table(scores: Sequence[Score]) -> pa.Table:
    """One row a run and prediction, in schema SCORES."""
    rows = [score.run.key.columns() | columns_of(score) for score in scores]
    return pa.Table.from_pylist(rows, schema=SCORES)


def org_table(scores: Sequence[OrgScore]) -> pa.Table:
    """One row a prediction, in schema ORG."""
    return pa.Table.from_pylist([_org_row(score) for score in scores], schema=ORG)


def columns_of(score: Score) -> dict[str, Any]:
    """One score as columns of tables `scorecard` and SCORES, without the keys."""
    finding = score.finding
    return {
        "prediction": score.prediction,
        "outcome": finding.outcome,
        "lacks": finding.lacks or None,
        "why": finding.why,
        "group": finding.group,
        "value": finding.value,
        "threshold": finding.threshold,
        "n": finding.n,
        "numbers": list(finding.numbers.items()),
        "side": finding.side,
        "event": finding.event,
    }


def _org_row(score: OrgScore) -> dict[str, Any]:
    low, high = score.share.interval() or (None, None)
    row: dict[str, Any] = {
        "prediction": score.prediction,
        "claim": _OF[score.prediction].claim,
        "holds": score.holds,
        "fails": score.fails,
        "not_testable": score.not_testable,
        "share": score.share.value,
        "share_low": low,
        "share_high": high,
        "lacks": list(score.lacks),
    }
    if score.contrast is None:
        return row
    contrast = score.contrast
    return row | {
        "contrast": contrast.outcome,
        "event": contrast.claimed.event,
        "more": contrast.claimed.more,
        "more_events": contrast.more.hits,
        "more_runs": contrast.more.total,
        "less": contrast.claimed.less,
        "less_events": contrast.less.hits,
        "less_runs": contrast.less.total,
        "p_value": contrast.p_value,
        "confounds": contrast.confounds,
    }
