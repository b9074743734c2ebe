"""Scores as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from spectral_edge.scoring.org import OrgScore, Score
from spectral_edge.scoring.predictions import PREDICTIONS

_TEXT, _REAL, _INT = pa.string(), pa.float64(), pa.int64()
_OF = {prediction.name: prediction for prediction in PREDICTIONS}


def _column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning})


SCORES: Final = pa.schema(
    [
        _column("tracker", _TEXT, "kind of tracker the run lives in"),
        _column("project_key", _TEXT, "partition: a file-system-safe name made from project"),
        _column("project", _TEXT, "experiment or parent folder of the run"),
        _column("run_id", _TEXT, "the tracker's own id of the run"),
        _column("run_name", _TEXT, "name of the run as people see it"),
        _column("test", _TEXT, "the prediction; see docs/scorecard.md"),
        _column("outcome", _TEXT, "holds, fails or not_testable"),
        _column("lacks", _TEXT, "what lacks, in a few words; null unless not_testable"),
        _column("reason", _TEXT, "what was measured, or what lacks"),
        _column("group", _TEXT, "parameter group looked at; null: all"),
        _column("value", _REAL, "the number held against threshold"),
        _column("threshold", _REAL, "what value is held against, as the criterion says"),
        _column("n", _INT, "windows, changes or pairs that value is of"),
        _column("numbers", pa.map_(_TEXT, _REAL), "other numbers that decided or stand beside"),
        _column("side", _TEXT, "on which side of the prediction's contrast the run is"),
        _column("event", pa.bool_(), "whether what the contrast counts happened"),
    ]
)

ORG: Final = pa.schema(
    [
        _column("test", _TEXT, "the prediction; see docs/scorecard.md"),
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
    return pa.Table.from_pylist([_row(score) for score in scores], schema=SCORES)


def org_table(scores: Sequence[OrgScore]) -> pa.Table:
    """One row a prediction, in schema ORG."""
    return pa.Table.from_pylist([_org_row(score) for score in scores], schema=ORG)


def _row(score: Score) -> dict[str, Any]:
    finding = score.finding
    return score.run.key.columns() | {
        "test": score.test,
        "outcome": finding.outcome,
        "lacks": finding.lacks or None,
        "reason": finding.reason,
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
        "test": score.test,
        "claim": _OF[score.test].claim,
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
