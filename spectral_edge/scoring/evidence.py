"""What one run offers to the tests: rows of tables `runs`, `gaps` and `transitions`, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spectral_edge.band import Matrix
from spectral_edge.groups import TOTAL
from spectral_edge.series import Steps
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables

ATTENTION: Final = "attention"
GROUPS: Final = (TOTAL, ATTENTION)
"""The groups that are tested: all parameters, and those on which the published experiments rest (theory 8)."""

_SCALARS: Final = (
    "k_star",
    "k_star_weighted",
    "gap",
    "g23_eigen",
    "gram_change_operator",
    "learning_rate",
    "adiabatic",
    "noise_threshold_ratio",
)
_LISTS: Final = ("singular_values", "overlap", "stability")
COLUMNS: Final = ("group", "short", "step", "n_parameters", *_SCALARS, *_LISTS)
"""Columns of table `gaps` that the tests read."""


@dataclass(frozen=True)
class MetricOnset:
    """Where the evaluation metric changes, optimizer steps, with the ends of its interval (theory 9).

    `improved` says whether for the better; None where only the place is known.
    """

    step: int
    low: int
    high: int
    improved: bool | None = None


KnownOnset = MetricOnset | Literal["none"]
"""What somebody who has the metric's series knows: where it changes, or that no change is established."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run besides its geometry: what confounds a contrast between runs.

    Attributes:
        windows: Full windows a group.
        moved: Whether the metric has an established change; None where that is unknown.
    """

    key: RunKey
    optimizer: str | None
    weight_decay: float | None
    windows: int
    moved: bool | None

    @classmethod
    def of(cls, run: Mapping[str, Any], known: KnownOnset | None = None) -> RunFacts:
        """From a row of table `runs`; `known` comes before what that says of the metric."""
        moved = None if run["metric_p_value"] is None else run["metric_onset"] is not None
        if known is not None:
            moved = known != "none"
        return cls(
            key=RunKey(run["tracker"], run["project"], run["run_id"], run["run_name"]),
            optimizer=run["optimizer"],
            weight_decay=run["weight_decay"],
            windows=int(run["windows"] or 0),
            moved=None if run["metric_name"] is None else moved,
        )


@dataclass(frozen=True)
class GroupWindows:
    """The full windows of a group by increasing step; n of them, all arrays with n rows, NaN where undefined."""

    steps: Steps
    n_parameters: int
    scalars: Mapping[str, Matrix]
    lists: Mapping[str, Matrix]

    def of(self, name: str) -> Matrix:
        """One column: shape (n,), or (n, W) for the lists."""
        return self.scalars[name] if name in self.scalars else self.lists[name]


@dataclass(frozen=True)
class Evidence:
    """One run, ready to be tested.

    Attributes:
        window: W.
        floor: Singular values below this share of the first count as zero (theory 3).
        groups: Those of GROUPS that have full windows.
        transitions: Rows of table `transitions`.
        tested: Stretches of updates in which changes were looked for.
        failed: Whether the audit failed, so that there are no rows to test.
        earlier: Whether a version made the audit that did not store where the metric changes.
        metric: Name of the evaluation metric; None where the run has none.
        onset: Where it changes, as far as that is known.
        until: Step until which a run without onset is looked at when it serves as a control.
    """

    facts: RunFacts
    window: int
    floor: float
    groups: Mapping[str, GroupWindows]
    transitions: Sequence[Mapping[str, Any]]
    tested: int
    failed: bool
    earlier: bool
    metric: str | None
    onset: MetricOnset | None
    until: int | None

    @classmethod
    def of(cls, tables: RunTables, known: KnownOnset | None = None, until: int | None = None) -> Evidence:
        """What `tables` offer; `known` comes before what they say of the metric."""
        run = tables.summary
        window = window_of(run)
        found = None if known == "none" else known or onset_of(run)
        return cls(
            facts=RunFacts.of(run, known),
            window=window,
            floor=float(_setting(run, "numerical_floor", Settings.numerical_floor)),
            groups=_groups(tables.gaps, window),
            transitions=tables.transitions.to_pylist(),
            tested=int(run["stretches_tested"] or 0),
            failed=run["status"] == "failed",
            earlier=run["metric_higher_is_better"] is None,
            metric=run["metric_name"],
            onset=found if run["metric_name"] is not None else None,
            until=until,
        )


def window_of(run: Mapping[str, Any]) -> int:
    """W of the settings in a row of table `runs`."""
    return int(_setting(run, "window", Settings.window))


def _setting(run: Mapping[str, Any], name: str, usual: float) -> Any:
    return json.loads(run["settings"] or "{}").get(name, usual)


def onset_of(run: Mapping[str, Any]) -> MetricOnset | None:
    """The metric's onset as a row of table `runs` has it; None where no change is established, or none is stored."""
    if run["metric_onset"] is None:
        return None
    gained = run["metric_after"] > run["metric_before"]
    return MetricOnset(
        step=int(run["metric_onset"]),
        low=int(run["metric_onset_low"]),
        high=int(run["metric_onset_high"]),
        improved=gained == run["metric_higher_is_better"],
    )


def _groups(gaps: pa.Table, window: int) -> dict[str, GroupWindows]:
    found = {}
    for name in GROUPS:
        chosen = pc.and_(pc.equal(gaps["group"], name), pc.invert(gaps["short"]))
        rows = gaps.select(list(COLUMNS)).filter(chosen).sort_by("step")
        if rows.num_rows:
            found[name] = GroupWindows(
                steps=np.asarray(rows["step"].to_numpy(), dtype=np.int64),
                n_parameters=int(rows["n_parameters"][0].as_py() or 0),
                scalars={column: _vector(rows[column]) for column in _SCALARS},
                lists={column: _matrix(rows[column], window) for column in _LISTS},
            )
    return found


def _vector(column: pa.ChunkedArray) -> Matrix:
    values = np.array(column.to_pylist(), dtype=np.float64)  # None becomes NaN
    return np.where(np.isfinite(values), values, np.nan)


def _matrix(column: pa.ChunkedArray, width: int) -> Matrix:
    filled = np.full((len(column), width), np.nan)
    for row, values in enumerate(column.to_pylist()):
        known = (values or [])[:width]
        filled[row, : len(known)] = known
    return np.where(np.isfinite(filled), filled, np.nan)
