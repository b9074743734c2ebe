"""Which runs need no look, as the listing of runs tells by itself; what is kept of a look; in which order to look.

A run that has ended, whose page says what it said at the last look, is as it was then, and nothing is asked about it.
What this cannot see is told in docs/incremental.md; `recheck` looks at every run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

from integrations.tracker import TrackedRun
from pipelines.attempts import RunIdentity
from pipelines.decisions import Scope, identity, is_annotation_of
from pipelines.results import RunResult
from spectral_edge.errors import TransientError
from spectral_edge.looks import Look, write_looks
from spectral_edge.store import AuditState, Store
from spectral_edge.tables import RunKey

LATE: Final = timedelta(days=1)
"""So long after the end of a run its last checkpoints may still be on their way: until then it is looked at."""

_KEEP_EVERY: Final = 120.0
"""Seconds."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def settled(scope: Scope, run: TrackedRun) -> RunResult | None:
    """The result of a run that needs no look; None when it needs one."""
    look, stamp = scope.looks.get(identity(run)), _stamp(scope, run)
    if scope.settings.force or scope.settings.recheck or look is None or stamp is None or look.stamp != stamp:
        return None
    if run.ended_at is not None and look.looked_at < run.ended_at + LATE:
        return None
    result = RunResult(run.key.run_name, run.key.run_id, "no_checkpoints", project=run.key.project)
    if look.audit_id is None:
        return result
    audit = scope.audits.get(identity(run))
    if audit is None or (audit.audit_id, audit.settings_hash) != (look.audit_id, scope.analysis.hash):
        return None
    return _as_before(scope, run, audit, look.checkpoints)


def _as_before(scope: Scope, run: TrackedRun, audit: AuditState, checkpoints: int) -> RunResult | None:
    """What is said again of `audit`; None where something of it is to be brought up to date."""
    name = run.key.run_name
    result = RunResult(
        name,
        run.key.run_id,
        "unchanged",
        checkpoints=checkpoints,
        series=audit.series,
        step_source=audit.step_source,
        project=run.key.project,
        audit_id=audit.audit_id,
    )
    if audit.status == "failed":
        return result.failed_as_before(audit.error)
    annotation = run.listed.annotation if run.listed else None
    if audit.state != run.state or not (scope.settings.annotate == "none" or is_annotation_of(audit, annotation)):
        return None
    return result.partial_as_before(f"run {name}: {audit.error}") if audit.error else result


def look_of(scope: Scope, run: TrackedRun, result: RunResult, now: datetime, failure: str | None = None) -> Look:
    """What to keep of a look at `run` that came to `result`. Only what is done with is told by the listing alone.

    `failure` is the audit that says in the store why it failed; None where nothing there says so.
    """
    audit_id = result.audit_id or failure
    is_done = audit_id is not None or result.outcome == "no_checkpoints"
    stamp = _stamp(scope, run) if is_done else None
    failed_at = now if result.outcome == "failed" and not result.known else None
    return Look(stamp, audit_id, result.checkpoints, now, failed_at)


def by_debt(scope: Scope, runs: Iterable[TrackedRun]) -> list[TrackedRun]:
    """`runs` by the time since which they wait to be looked at; those that failed then come last, by when they did.

    At the very end come those that the process died of, perhaps: the oftener, the later.
    """

    def order(run: TrackedRun) -> tuple[int, datetime, datetime, str, str]:
        look = scope.looks.get(identity(run))
        failed = look.failed_at if look else None
        waits = waits_since(scope, run) or LONG_AGO
        return len(scope.deaths_of(run)), failed or LONG_AGO, waits, run.key.project, run.key.run_id

    return sorted(runs, key=order)


def waits_since(scope: Scope, run: TrackedRun) -> datetime | None:
    """The last look at `run` or, before the first, its end, its start or the last change of its files."""
    look = scope.looks.get(identity(run))
    if look is not None:
        return look.looked_at
    return run.ended_at or run.started_at or (run.listed.changed_at if run.listed else None)


def _stamp(scope: Scope, run: TrackedRun) -> str | None:
    """What the listing tells of `run`, and all besides that its checkpoints were looked for with."""
    if run.listed is None:
        return None
    told = json.dumps([run.listed.stamp, scope.settings.series, version("spectral-edge")])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


class Looks:
    """The looks of one audit, kept in the store from time to time, and at the end.

    A kill loses those of the last minutes: these runs are looked at once more, and nothing of them is read again.
    """

    def __init__(self, scope: Scope, store: Store) -> None:
        self._scope, self._store = scope, store
        self._new: dict[RunKey, tuple[TrackedRun, RunResult, datetime]] = {}
        self._kept_at = time.monotonic()

    def add(self, run: TrackedRun, result: RunResult) -> None:
        """`run` was looked at, with this result."""
        self._new[run.key] = run, result, datetime.now(UTC)
        if time.monotonic() - self._kept_at > _KEEP_EVERY:
            self.close()

    def close(self) -> None:
        """Keep all that was added."""
        if self._new:
            with suppress(TransientError):  # not worth the audit: what is lost is asked again
                failures = self._failures()
                looks = {
                    key: look_of(self._scope, run, result, at, failures.get(identity(run)))
                    for key, (run, result, at) in self._new.items()
                }
                write_looks(self._store, looks)
        self._new = {}
        self._kept_at = time.monotonic()

    def _failures(self) -> dict[RunIdentity, str]:
        """By run, the audits that this one has put into the store to say why a run failed."""
        failed = {identity(run) for run, result, _ in self._new.values() if result.outcome == "failed"}
        if not failed:
            return {}
        return {
            run: audit.audit_id
            for run, audit in self._store.audits().items()
            if run in failed
            and (audit.status, audit.settings_hash) == ("failed", self._scope.analysis.hash)
            and audit != self._scope.audits.get(run)
        }
