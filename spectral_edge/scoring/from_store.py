"""The scores of all runs of a store, from its rows alone: no checkpoint is read, and no band.

Table `scorecard` has them. Rows of `gaps` are read only where it does not tell all: for runs that an earlier version
audited, and for controls, which are looked at until the others of their project change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds

from spectral_edge.scoring import with_metric
from spectral_edge.scoring.evidence import COLUMNS, GROUPS, Evidence, RunFacts, onset_of
from spectral_edge.scoring.score import Score, scorecard_of_evidence
from spectral_edge.scoring.stored import scores_of_rows
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables, build

_Rows = Sequence[Mapping[str, Any]]
_Views = Mapping[str, pds.Dataset]


def scores_of_store(store: Store, project: str | None = None) -> list[Score]:
    """Every prediction on every run of `store`, or of one of its projects, in the order of table `runs`.

    A run whose metric does not change is looked at until the median onset of those runs of its project in which it
    changes for the better.

    Raises:
        StoreError: The store is damaged.
    """
    return scores_of_datasets(store.datasets(), project)


def scores_of_datasets(views: _Views, project: str | None = None) -> list[Score]:
    """The same from the views of `Store.datasets`, for who reads other rows of the same moment too."""
    chosen = None if project is None else pds.field("project") == project
    runs = (
        views["runs"]
        .to_table(filter=chosen)
        .sort_by([("tracker", "ascending"), ("project", "ascending"), ("run_id", "ascending")])
    )
    stored = _by_run(views["scorecard"].to_table(filter=chosen))
    rows = runs.to_pylist()
    untils = _untils(rows)
    scores: list[Score] = []
    for index, row in enumerate(rows):
        until = untils.get((row["tracker"], row["project"]))
        facts = RunFacts.of(row)
        if (known := stored.get(_id(row))) is None:
            scores += scorecard_of_evidence(_evidence(views, facts.key, runs.slice(index, 1), until))
            continue
        found = scores_of_rows(facts, known)
        if facts.moved is False and until is not None:
            run = _evidence(views, facts.key, runs.slice(index, 1), until)
            found = [_as_control(score, run) for score in found]
        scores += found
    return scores


def _as_control(score: Score, run: Evidence) -> Score:
    """`score`, or where it is that of `g23_declines`, what the run shows as a control until `run.until`."""
    if score.prediction != with_metric.G23_DECLINES:
        return score
    return Score(score.run, score.prediction, with_metric.g23_declines(run))


def _untils(runs: _Rows) -> dict[tuple[str, str], int]:
    """Median onset of the metric's gains, by tracker and project."""
    onsets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in runs:
        if (onset := onset_of(row)) is not None and onset.improved:
            onsets[row["tracker"], row["project"]].append(onset.step)
    return {project: int(np.median(steps)) for project, steps in onsets.items()}


def _evidence(views: _Views, key: RunKey, run: pa.Table, until: int | None) -> Evidence:
    changes = views["transitions"].to_table(filter=_is(key))
    empty = build("inner_products", [])
    return Evidence.of(RunTables(key, run, empty, _gaps(views["gaps"], key), changes), until=until)


def _gaps(gaps: pds.Dataset, key: RunKey) -> pa.Table:
    wanted = _is(key) & ~pds.field("short") & pds.field("group").isin(GROUPS)
    return gaps.to_table(columns=list(COLUMNS), filter=wanted)


def _is(key: RunKey) -> pds.Expression:
    return (
        (pds.field("tracker") == key.tracker)
        & (pds.field("project_key") == key.project_key)
        & (pds.field("project") == key.project)
        & (pds.field("run_id") == key.run_id)
    )


def _by_run(table: pa.Table) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        found[_id(row)].append(row)
    return found


def _id(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["tracker"]), str(row["project"]), str(row["run_id"])
