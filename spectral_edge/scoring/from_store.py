"""The scores of all runs of a store, from its rows alone: no checkpoint is read, and no band."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds

from spectral_edge.scoring.evidence import COLUMNS, GROUPS, Evidence, onset_of
from spectral_edge.scoring.org import Score
from spectral_edge.scoring.predictions import PREDICTIONS
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables, build

_Id = tuple[str, str, str]


def scores_of_store(store: Store, project: str | None = None) -> list[Score]:
    """Every prediction on every run of `store`, or of one of its projects, in the order of table `runs`.

    A run of which no onset of the metric is established is looked at until the median onset of its project's others.

    Raises:
        StoreError: The store is damaged.
    """
    views = store.datasets()
    chosen = None if project is None else pds.field("project") == project
    runs = (
        views["runs"]
        .to_table(filter=chosen)
        .sort_by([("tracker", "ascending"), ("project", "ascending"), ("run_id", "ascending")])
    )
    changes = _by_run(views["transitions"].to_table(filter=chosen))
    onsets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (tracker, of_project, _), rows in changes.items():
        if (onset := onset_of(rows)) is not None:
            onsets[tracker, of_project].append(onset.step)
    scores: list[Score] = []
    for index, row in enumerate(runs.to_pylist()):
        key = RunKey(row["tracker"], row["project"], row["run_id"], row["run_name"])
        tables = RunTables(
            key,
            runs.slice(index, 1),
            build("inner_products", []),
            _gaps(views["gaps"], key),
            build("transitions", changes.get(_id(row), [])),
        )
        others = onsets[key.tracker, key.project]
        until = int(np.median(others)) if others else None
        scores += scorecard_of_evidence(Evidence.of(tables, until=until))
    return scores


def scorecard_of_evidence(run: Evidence) -> list[Score]:
    """Every prediction on one run."""
    return [Score(run.facts, prediction.name, prediction.test(run)) for prediction in PREDICTIONS]


def _gaps(gaps: pds.Dataset, key: RunKey) -> pa.Table:
    ours = (
        (pds.field("tracker") == key.tracker)
        & (pds.field("project_key") == key.project_key)
        & (pds.field("project") == key.project)
        & (pds.field("run_id") == key.run_id)
    )
    return gaps.to_table(columns=list(COLUMNS), filter=ours & ~pds.field("short") & pds.field("group").isin(GROUPS))


def _by_run(transitions: pa.Table) -> dict[_Id, list[Mapping[str, Any]]]:
    found: dict[_Id, list[Mapping[str, Any]]] = defaultdict(list)
    for row in transitions.to_pylist():
        found[_id(row)].append(row)
    return found


def _id(row: Mapping[str, Any]) -> _Id:
    return str(row["tracker"]), str(row["project"]), str(row["run_id"])
