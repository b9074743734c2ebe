"""The scorecard as rows of a store's table: written with an audit, and read back as scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from spectral_edge.scoring.evidence import Evidence, RunFacts
from spectral_edge.scoring.finding import Finding
from spectral_edge.scoring.predictions import PREDICTIONS
from spectral_edge.scoring.rows import columns_of
from spectral_edge.scoring.score import Score, scorecard_of_evidence
from spectral_edge.tables import RunTables, build


def scorecard_table(tables: RunTables) -> pa.Table:
    """Table `scorecard` of one audit: one row a prediction, from its other tables alone.

    A run stands for itself here. What a control of `g23_declines` shows depends on the other runs of its project, so
    `side` and `event` are null in it, and `scores_of_store` fills them.
    """
    run = tables.summary
    stamp = tables.key.columns() | {name: run[name] for name in ("audit_id", "settings_hash", "schema_version")}
    scores = scorecard_of_evidence(Evidence.of(tables))
    return build("scorecard", [stamp | columns_of(score) for score in scores])


def scores_of_rows(facts: RunFacts, rows: Iterable[Mapping[str, Any]]) -> list[Score]:
    """The scores that rows of table `scorecard` hold, all of the run `facts`, in the order of PREDICTIONS."""
    known = {row["prediction"]: Score(facts, row["prediction"], _finding(row)) for row in rows}
    return [known[prediction.name] for prediction in PREDICTIONS if prediction.name in known]


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        outcome=row["outcome"],
        why=row["why"],
        lacks=row["lacks"] or "",
        group=row["group"],
        value=row["value"],
        threshold=row["threshold"],
        n=row["n"],
        numbers=dict(row["numbers"]),
        side=row["side"],
        event=row["event"],
    )
