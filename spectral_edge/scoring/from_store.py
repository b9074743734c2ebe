"""The scores of all runs of a store, from its rows alone: no checkpoint is read, and no band.

Table `scorecard` has them. Rows of `gaps` are read only where it does not tell all: for runs that an earlier version
audited, and for controls, which are looked at until the other runs of their project change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from spectral_edge.groups import TOTAL
from spectral_edge.scoring.evidence import ATTENTION, COLUMNS, GROUPS, Evidence, RunFacts, onset_of, window_of
from spectral_edge.scoring.score import Score, scorecard_of_evidence
from spectral_edge.scoring.stored import scores_of_rows
from spectral_edge.scoring.with_metric import G23, G23_DECLINES, as_control
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables, build

_ID: Final = ("tracker", "project", "run_id")
_Id = tuple[str, str, str]
_Row = Mapping[str, Any]
_Views = Mapping[str, pds.Dataset]


@dataclass(frozen=True)
class _Run:
    """A run's row of table `runs`, and the step until which it is looked at if it is a control."""

    row: _Row
    facts: RunFacts
    until: int | None


def scores_of_store(store: Store, project: str | None = None) -> list[Score]:
    """Every prediction on every run of `store`, or of one of its projects, in the order of table `runs`.

    A run whose metric does not change is looked at until the median onset of those runs of its project in which it
    changes for the better.

    Raises:
        StoreError: The store is damaged.
    """
    return scores_of_views(store.datasets(), project)


def scores_of_views(views: _Views, project: str | None = None, *, earlier: bool = True) -> list[Score]:
    """The same from what `Store.datasets` gives.

    Args:
        views: The tables.
        project: Only runs of this project; None: all.
        earlier: Whether to score runs that an earlier version audited; to do that takes longer than to read.
    """
    chosen = None if project is None else pds.field("project") == project
    runs = _runs(views["runs"].to_table(filter=chosen).to_pylist())
    stored = _by_run(views["scorecard"].to_table(filter=chosen))
    controls = _g23_of_controls(views["gaps"], [run for run in runs if _id(run.row) in stored])
    scores: list[Score] = []
    for run in runs:
        name = _id(run.row)
        if name in stored:
            found = scores_of_rows(run.facts, stored[name].to_pylist())
            scores += [_as_control(score, *controls[name]) for score in found] if name in controls else found
        elif earlier:
            scores += scorecard_of_evidence(_evidence(views, run))
    return scores


def _runs(rows: Sequence[_Row]) -> list[_Run]:
    onsets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        if (onset := onset_of(row)) is not None and onset.improved:
            onsets[row["tracker"], row["project"]].append(onset.step)
    untils = {project: int(np.median(steps)) for project, steps in onsets.items()}
    return [_Run(row, RunFacts.of(row), untils.get((row["tracker"], row["project"]))) for row in sorted(rows, key=_id)]


def _g23_of_controls(gaps: pds.Dataset, runs: Sequence[_Run]) -> dict[_Id, tuple[G23, int]]:
    """lambda_2 - lambda_3 of those of `runs` that are controls and have full windows, and until when to look."""
    untils = {_id(run.row): (run.row, run.until) for run in runs if run.facts.moved is False and run.until is not None}
    if not untils:
        return {}
    ours = pds.field("run_id").isin([run_id for _, _, run_id in untils]) & _TESTED
    rows = gaps.to_table(columns=[*_ID, "group", "step", "g23_eigen"], filter=ours)
    found = {}
    for name, windows in _by_run(rows).items():
        if name in untils:
            row, until = untils[name]
            groups = windows["group"].to_pylist()
            group = ATTENTION if ATTENTION in groups else TOTAL
            one = windows.filter(pc.equal(windows["group"], group)).sort_by("step")
            steps, values = (one[column].to_numpy() for column in ("step", "g23_eigen"))
            found[name] = G23(group, steps, values, window_of(row)), until
    return found


def _as_control(score: Score, g23: G23, until: int) -> Score:
    if score.prediction != G23_DECLINES:
        return score
    return Score(score.run, score.prediction, as_control(score.finding, g23, until))


def _evidence(views: _Views, run: _Run) -> Evidence:
    key = run.facts.key
    gaps = views["gaps"].to_table(columns=list(COLUMNS), filter=_is(key) & _TESTED)
    changes = views["transitions"].to_table(filter=_is(key))
    tables = RunTables(key, build("runs", [run.row]), build("inner_products", []), gaps, changes)
    return Evidence.of(tables, until=run.until)


_TESTED: Final = ~pds.field("short") & pds.field("group").isin(GROUPS)


def _is(key: RunKey) -> pds.Expression:
    return (
        (pds.field("tracker") == key.tracker)
        & (pds.field("project_key") == key.project_key)
        & (pds.field("project") == key.project)
        & (pds.field("run_id") == key.run_id)
    )


def _by_run(table: pa.Table) -> dict[_Id, pa.Table]:
    """Slices of `table` by run, sorted once rather than searched once a run."""
    table = table.sort_by([(name, "ascending") for name in _ID])
    found, start = {}, 0
    for name, rows in groupby(zip(*(table[column].to_pylist() for column in _ID), strict=True)):
        length = sum(1 for _ in rows)
        found[name] = table.slice(start, length)
        start += length
    return found


def _id(row: _Row) -> _Id:
    return str(row["tracker"]), str(row["project"]), str(row["run_id"])
