"""One alert for each finding: opened when an audit finds a change, closed when a later one takes it back.

What people were told is in the store's log, what is found is in table `transitions`. Alerts are what brings the first
to the second: each step can be repeated, and after a kill the next audit does what is missing. An event has an id made
of its finding, and is sent before it is logged: killed in between, the next audit sends the same event, which the
server that has it does not take twice.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid5

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.findings import COLUMNS, DELETED, Finding, Ledger, OpenAlert, changes, nameless
from pipelines.wording import plain_text
from spectral_edge.audit_log import AuditLog, Entry
from spectral_edge.errors import TransientError
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables

OPENED: Final = "spectral_edge.transition"
CLOSED: Final = "spectral_edge.transition.closed"
_MOST_TEXT: Final = 250
_TOLD: Final = (
    "end_step",
    "effect",
    "p_value",
    "q_value",
    "k_before",
    "k_after",
    "metric_name",
    "metric_onset",
    "lead_steps",
    "lead_low",
    "lead_high",
    "regime_before",
    "regime_after",
)
Reason = Literal["superseded", "retracted", "deleted"]


@dataclass(frozen=True)
class AlertEvent:
    """What is sent: all of it text that a page may show, and numbers."""

    id: UUID
    name: str
    resource: Mapping[str, str]
    related: Mapping[str, str]
    payload: Mapping[str, Any]


Send = Callable[[Sequence[AlertEvent]], None]
"""Returns once the server has the events, each of which it takes once; raises TransientError when it cannot tell."""


@dataclass(frozen=True)
class Alerts:
    """The alerts of one store."""

    store: Store
    send: Send

    @property
    def log(self) -> AuditLog:
        """The store's."""
        return AuditLog(self.store.location)

    def begin(self) -> None:
        """Start the log of a store that has none: nobody is told anew of what it has found before."""
        if self.log.exists():
            return
        rows = _rows(self.store)
        if not rows:
            self.log.append([])
            return
        store_id = self.log.store_id()
        found = [(Finding.of_row(row), row) for row in rows]
        self.log.append([_opened(finding, row, finding.id(store_id), 1, told=False) for finding, row in found])

    def catch_up(self, tracker: str, project_keys: Collection[str], listed: Collection[RunKey] = ()) -> str | None:
        """Tell of all that was found or taken back in these projects, and not told of: after a kill or a retraction.

        Runs that were deleted in their tracker keep their findings, of which is told again once they are `listed`.

        Returns:
            What went wrong, if anything did; then the next audit does it.
        """
        told, found = defaultdict[RunKey, list[OpenAlert]](list), defaultdict[RunKey, list[Finding]](list)
        ledger = Ledger.of(self.log.alerts(tracker, project_keys))
        for alert in ledger.open:
            told[nameless(alert.finding.key)].append(alert)
        here = pc.field("project_key").isin(pa.array(project_keys, pa.string()))
        for row in _rows(self.store, here & (pc.field("tracker") == pa.scalar(tracker))):
            finding = Finding.of_row(row)
            found[nameless(finding.key)].append(finding)
        stay_closed = ledger.deleted - {nameless(key) for key in listed}
        for key in dict.fromkeys([*told, *found]):
            if key not in stay_closed and any(changes(found[key], told[key])):
                warning = self.settle(key, self.store.read_run(key))
                if warning:
                    return warning
        return None

    def close_deleted(self, keys: Iterable[RunKey]) -> str | None:
        """Tell that these runs are in their tracker no more, where an alert of them is open; the store keeps them.

        Returns:
            What went wrong, if anything did; then the next such call does it.
        """
        for key in keys:
            ledger = Ledger.of(self.log.alerts(key.tracker, [key.project_key], key.run_id))
            if ledger.open:
                tables = self.store.read_run(key)
                warning = self._tell(*self._closing(ledger.open, DELETED, {} if tables is None else tables.summary))
                if warning:
                    return warning
        return None

    def settle(self, key: RunKey, tables: RunTables | None) -> str | None:
        """Tell of what is new in `tables`, which the store holds of run `key`, and of what is gone.

        Returns:
            What went wrong, if anything did; then the next audit does it.
        """
        rows = [] if tables is None else tables.transitions.to_pylist()
        ledger = Ledger.of(self.log.alerts(key.tracker, [key.project_key], key.run_id))
        findings = {Finding.of_row(row): row for row in rows}
        new, gone = changes(list(findings), ledger.open)
        if not new and not gone:
            return None
        store_id, run = self.log.store_id(), {} if tables is None else tables.summary
        reason: Reason = "retracted" if tables is None else "superseded"
        events, entries = self._closing(gone, reason, run)
        for finding in new:
            row, finding_id = findings[finding], finding.id(store_id)
            alert = OpenAlert(finding_id, ledger.openings.get(finding_id, 0) + 1, finding)
            events.append(_event(OPENED, alert, store_id, run, {name: row[name] for name in _TOLD}))
            entries.append(_opened(finding, row, finding_id, alert.opening, told=True))
        return self._tell(events, entries)

    def _closing(
        self, gone: Iterable[OpenAlert], reason: Reason, run: Mapping[str, Any]
    ) -> tuple[list[AlertEvent], list[Entry]]:
        """What is to be sent, and logged, for alerts whose finding is gone."""
        store_id, alerts = self.log.store_id(), list(gone)
        events = [_event(CLOSED, alert, store_id, run, {"reason": reason}) for alert in alerts]
        return events, [_closed(alert, reason, run.get("audit_id")) for alert in alerts]

    def _tell(self, events: Sequence[AlertEvent], entries: Sequence[Entry]) -> str | None:
        try:
            self.send(events)
        except TransientError as error:
            return f"{error} {len(events)} alerts are left for the next audit."
        self.log.append(entries)
        return None


def alerts_of(store: Store, send: Send) -> Alerts:
    """The alerts of `store`, whose log is begun if it has none."""
    alerts = Alerts(store, send)
    alerts.begin()
    return alerts


def _rows(store: Store, only: pc.Expression | None = None) -> list[dict[str, Any]]:
    columns = ["tracker", "project", "run_id", "run_name", "audit_id", "q_value", *COLUMNS]
    return list(store.datasets()["transitions"].to_table(columns=columns, filter=only).to_pylist())


def _opened(finding: Finding, row: Mapping[str, Any], finding_id: UUID, opening: int, *, told: bool) -> Entry:
    return Entry(
        finding.key,
        "alert_opened",
        audit_id=row["audit_id"],
        finding_id=str(finding_id),
        opening=opening,
        group=finding.group,
        kind=finding.kind,
        onset_step=finding.step,
        onset_low=finding.low,
        onset_high=finding.high,
        q_value=row["q_value"],
        told=told,
    )


def _closed(alert: OpenAlert, reason: Reason, audit_id: str | None) -> Entry:
    finding = alert.finding
    return Entry(
        finding.key,
        "alert_closed",
        audit_id=audit_id,
        finding_id=str(alert.finding_id),
        opening=alert.opening,
        group=finding.group,
        kind=finding.kind,
        onset_step=finding.step,
        onset_low=finding.low,
        onset_high=finding.high,
        told=True,
        reason=reason,
    )


def _event(name: str, alert: OpenAlert, store_id: UUID, run: Mapping[str, Any], more: Mapping[str, Any]) -> AlertEvent:
    finding = alert.finding
    key = finding.key
    run_id = uuid5(store_id, json.dumps([key.tracker, key.project, key.run_id]))
    telling = {
        "project": _short(key.project),
        "run_name": _short(key.run_name),
        "run_id": _short(key.run_id),
        "tracker": key.tracker,
        "group": _short(finding.group),
        "kind": finding.kind,
    }
    payload = {
        **telling,
        "step": finding.step,
        "step_low": finding.low,
        "step_high": finding.high,
        "tracker_name": run.get("tracker_name"),
        "run_url": _address(run.get("url")),
        "audit_id": run.get("audit_id"),
        "spectral_edge_version": version("spectral-edge"),
        **more,
    }
    return AlertEvent(
        id=uuid5(store_id, f"{alert.finding_id}/{alert.opening}/{name}"),
        name=name,
        resource={
            "prefect.resource.id": f"spectral-edge.finding.{alert.finding_id}",
            "prefect.resource.name": _short(finding.words),
            **{f"spectral-edge.{label.replace('_', '-')}": value for label, value in telling.items()},
        },
        related={
            "prefect.resource.id": f"spectral-edge.run.{run_id}",
            "prefect.resource.role": "run",
            "prefect.resource.name": _short(key.run_name),
        },
        payload={name: _finite(value) for name, value in payload.items() if value is not None},
    )


def _short(text: str) -> str:
    """Tracker text as a label: one line, not empty, not long."""
    return plain_text(text)[:_MOST_TEXT] or "-"


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _address(url: str | None) -> str | None:
    """The page of the run, never with a password."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))[:2000]
