"""When a finding of one audit is the same as one of an earlier audit: the arithmetic of alerts, without effects.

A finding is a change of one kind in one parameter group of one run, with the interval of its onset. Analysed again, its
numbers move a little; it is the same as long as the intervals overlap.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID, uuid5

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from spectral_edge.tables import RunKey

COLUMNS = ("group", "kind", "onset_step", "onset_low", "onset_high")
"""Columns of table transitions, and of the log, that a finding is told by."""

DELETED: Final = "deleted"
"""Why an alert was closed whose run is in its tracker no more."""


@dataclass(frozen=True)
class Finding:
    """One change in one run; `low` to `high` is the interval of its onset, in training steps."""

    key: RunKey
    group: str
    kind: str
    step: int
    low: int
    high: int

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Finding:
        """From a row of table transitions, or of the log."""
        key = RunKey(row["tracker"], row["project"], row["run_id"], row["run_name"])
        step = row["onset_step"]
        low, high = (step if row[name] is None else row[name] for name in ("onset_low", "onset_high"))
        return cls(key, row["group"], row["kind"], step, low, high)

    def id(self, namespace: UUID) -> UUID:
        """Names the finding among all of one store, whose log is `namespace`."""
        key = self.key
        told = [key.tracker, key.project, key.run_id, self.group, self.kind, self.step, self.low, self.high]
        return uuid5(namespace, json.dumps(told))

    @property
    def words(self) -> str:
        """For people: what was found, where."""
        return f"{self.kind} in group {self.group} of {self.key.run_name} at step {self.step}"


@dataclass(frozen=True)
class OpenAlert:
    """A finding that people have been told of; `opening` counts how often it has been found, this time included."""

    finding_id: UUID
    opening: int
    finding: Finding


@dataclass(frozen=True)
class Ledger:
    """What the log says.

    Attributes:
        open: The alerts that are open.
        openings: How often each finding has been opened.
        deleted: Runs, without their names, whose last alert was closed because their tracker had them no more.
    """

    open: tuple[OpenAlert, ...]
    openings: Mapping[UUID, int]
    deleted: frozenset[RunKey] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Ledger:
        """From the rows of the log, oldest first. A line that two writers, or one and its heir, wrote counts once."""
        rows = list(rows)
        closed = {(row["finding_id"], row["opening"]) for row in rows if row["event"] == "alert_closed"}
        openings: dict[UUID, int] = {}
        still_open: dict[tuple[str, int], OpenAlert] = {}
        for row in rows:
            finding_id, opening = UUID(row["finding_id"]), row["opening"]
            openings[finding_id] = max(opening, openings.get(finding_id, 0))
            if row["event"] == "alert_opened" and (row["finding_id"], opening) not in closed:
                still_open[row["finding_id"], opening] = OpenAlert(finding_id, opening, Finding.of_row(row))
        last = {nameless(Finding.of_row(row).key): row for row in rows}
        deleted = frozenset(key for key, row in last.items() if row.get("reason") == DELETED)
        return cls(tuple(still_open.values()), openings, deleted)


def nameless(key: RunKey) -> RunKey:
    """What identifies a run, whose name may change."""
    return replace(key, run_name="")


def changes(current: Sequence[Finding], told: Sequence[OpenAlert]) -> tuple[list[Finding], list[OpenAlert]]:
    """The findings of `current` that nobody was told of, and the alerts of `told` whose finding is gone.

    As many as can be are taken to be the same; so nothing is new or gone when `told` is of `current`.
    """
    here: dict[Any, list[Finding]] = defaultdict(list)
    there: dict[Any, list[OpenAlert]] = defaultdict(list)
    for finding in current:
        here[_place(finding)].append(finding)
    for alert in told:
        there[_place(alert.finding)].append(alert)
    new: list[Finding] = []
    gone: list[OpenAlert] = []
    for place in dict.fromkeys([*here, *there]):
        findings, alerts = here[place], there[place]
        same = _matched(findings, [alert.finding for alert in alerts])
        new += [finding for index, finding in enumerate(findings) if index not in same]
        gone += [alert for index, alert in enumerate(alerts) if index not in set(same.values())]
    return new, gone


def _place(finding: Finding) -> tuple[str, str, str, str, str]:
    return finding.key.tracker, finding.key.project, finding.key.run_id, finding.group, finding.kind


def _matched(findings: Sequence[Finding], others: Sequence[Finding]) -> dict[int, int]:
    """Which of `others` each of `findings` is, by their places in the two."""
    if not findings or not others:
        return {}
    overlaps = np.array([[a.low <= b.high and b.low <= a.high for b in others] for a in findings])
    matching = maximum_bipartite_matching(csr_array(overlaps), perm_type="column")
    return {index: int(other) for index, other in enumerate(matching) if other >= 0}
