"""What has to be done to a run, decided by looking only: nothing here fetches or writes.

What the store's band says of the same checkpoints is not measured again. Only what is asked beyond it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from integrations.tracker import AnnotationState, CheckpointListing, CheckpointRef, TrackedRun, Tracker
from integrations.training_record import training_record
from pipelines.attempts import Attempt, Deaths, RunIdentity, deaths, quarantine, same_work
from pipelines.settings import AuditSettings
from pipelines.shared import shared_beginning
from spectral_edge.errors import CheckpointFormatError, NoStepError
from spectral_edge.looks import Look, read_looks
from spectral_edge.metric_points import record_hash
from spectral_edge.resuming import lags_of, stored_trajectory
from spectral_edge.settings import Settings, same_pass
from spectral_edge.store import AuditState, Store
from spectral_edge.tables import audit_id
from spectral_edge.trajectory import Trajectory

Action = Literal[
    "audit", "extend", "reanalyse", "update", "nothing", "quarantine", "report_known_error", "report_no_checkpoints"
]


@dataclass(frozen=True)
class Scope:
    """Against what decisions are made: the runs' tracker, the settings, and the audits the store holds already."""

    tracker: Tracker
    settings: AuditSettings
    analysis: Settings
    store: Store | None
    audits: Mapping[RunIdentity, AuditState]
    looks: Mapping[RunIdentity, Look]
    deaths: Deaths = field(default_factory=dict)

    @classmethod
    def of(cls, tracker: Tracker, settings: AuditSettings, store: Store | None) -> Scope:
        """Reads what `store` holds; None is an empty store."""
        if store is None:
            return cls(tracker, settings, settings.analysis(), None, {}, {})
        audits, looks = store.audits(), read_looks(store)
        return cls(tracker, settings, settings.analysis(), store, audits, looks, deaths(store))

    def deaths_of(self, run: TrackedRun) -> tuple[Attempt, ...]:
        """Earlier audits of `run` whose process died, the oldest first, unless it is all to be done again."""
        return () if self.settings.force else self.deaths.get(identity(run), ())

    def stored(self, run: TrackedRun, fingerprint: str) -> AuditState | None:
        """The store's audit of the same checkpoints under the same settings, unless it is to be done again."""
        state = self.audits.get(identity(run))
        if state is None or self.settings.force:
            return None
        same = (state.fingerprint, state.settings_hash) == (fingerprint, self.analysis.hash)
        return state if same else None


@dataclass(frozen=True)
class Decision:
    """What to do to one run.

    Attributes:
        action: `audit` reads all checkpoints; `extend` reads the new ones and those they are compared with;
            `reanalyse` reads none; `update` brings the run's state in the store and its annotations up to date from
            the stored tables; `quarantine` says once and for all that reading it kills the process; the others do
            nothing.
        listing: The run's checkpoints.
        fingerprint: Identifies them.
        known_error: The error that the store holds: the run failed, or some of its groups end early.
        audit_id: The store's audit of these checkpoints under these settings, where it has one.
        known: What the store's band says of the run's first checkpoints; set for `extend` and `reanalyse`.
        known_of: The name of the other run with the same first checkpoints that it was measured in; None where it was
            this one.
        contents: Digests of the bytes of the checkpoints, None where none is known; set where any is to be measured.
        enough_lags: Set for an `audit` that would not have to read what the store knows, were it asked for no more
            than these lags.
    """

    action: Action
    listing: CheckpointListing
    fingerprint: str
    known_error: str | None = None
    audit_id: str | None = None
    known: Trajectory | None = None
    known_of: str | None = None
    contents: tuple[str | None, ...] = ()
    enough_lags: int | None = None

    @property
    def new_checkpoints(self) -> int:
        """Checkpoints that the store does not know."""
        return len(self.listing.checkpoints) - (len(self.known.steps) if self.known else 0)

    @property
    def to_read(self) -> tuple[CheckpointRef, ...]:
        """The checkpoints that are read."""
        refs = self.listing.checkpoints
        if self.action == "audit":
            return refs
        if self.action != "extend" or self.known is None:
            return ()
        return refs[len(self.known.steps) - lags_of(self.known) - 1 :]


WORK: Final = frozenset({"audit", "extend", "reanalyse", "update"})
"""Actions that take time and memory, and may kill the process."""


def decide(scope: Scope, run: TrackedRun) -> Decision:
    """What has to be done to `run`.

    Raises:
        NoStepError: The run has checkpoints, the step of none can be told, and the store does not know it yet.
        CheckpointFormatError: The run is a damaged file of recorded sketches, and the store does not know it yet.
        UsageError: The run does not have the metric any more that the settings name.
        NotFoundError: The run has checkpoints, and no series has the name asked for.
        TransientError: The tracker did not answer.
    """
    decision = _wanted(scope, run)
    dead = same_work(scope.deaths_of(run), decision.fingerprint, scope.analysis.hash)
    if decision.action not in WORK or len(dead) < scope.settings.max_tries:
        return decision
    return replace(decision, action="quarantine", known_error=str(quarantine(run.key.run_name, dead)))


def _wanted(scope: Scope, run: TrackedRun) -> Decision:
    """What has to be done, whatever came of earlier tries."""
    try:
        listing = scope.tracker.checkpoints(run, scope.settings.series)
    except (NoStepError, CheckpointFormatError) as error:
        stored = scope.stored(run, NO_FINGERPRINT)
        if stored is None:
            raise
        told = str(error.of_run(run.key.run_name))
        return Decision("report_known_error", CheckpointListing(()), NO_FINGERPRINT, told, stored.audit_id)
    digest = fingerprint(listing.checkpoints)
    if not listing.checkpoints:
        return Decision("report_no_checkpoints", listing, digest)
    stored = scope.stored(run, digest)
    if stored is None:
        return _to_measure(scope, run, Decision("audit", listing, digest))
    if stored.status == "failed":
        return Decision("report_known_error", listing, digest, stored.error, stored.audit_id)
    if _has_another_record(scope, run, stored, listing):
        known, contents = _known(scope, run, listing.checkpoints)
        if known is not None:
            return Decision("reanalyse", listing, digest, known=known, contents=contents)
    is_current = stored.state == run.state and (
        scope.settings.annotate == "none" or is_annotation_of(stored, scope.tracker.annotation_state(run))
    )
    known_error = stored.error and f"run {run.key.run_name}: {stored.error}"
    return Decision("nothing" if is_current else "update", listing, digest, known_error, stored.audit_id)


def _has_another_record(scope: Scope, run: TrackedRun, stored: AuditState, listing: CheckpointListing) -> bool:
    """Whether the run has told since of another metric or learning rate at its checkpoints than `stored` was made of.

    Of audits by versions that kept no hash of it nothing can be said; `recheck` makes them anew.
    """
    if stored.record_hash is None:
        return scope.settings.recheck
    steps = np.array([ref.step for ref in listing.checkpoints], dtype=np.int64)
    return record_hash(training_record(scope.tracker, run, steps, scope.analysis), steps) != stored.record_hash


def _to_measure(scope: Scope, run: TrackedRun, whole: Decision) -> Decision:
    """`whole`, or what is left of it where the store's band holds some or all of it."""
    refs, asked = whole.listing.checkpoints, scope.analysis.lags
    known, contents = _known(scope, run, refs)
    contents += scope.tracker.contents(run, refs[len(contents) :])
    whole, known_of = replace(whole, contents=contents), None
    if known is None and scope.store is not None and not scope.settings.force:
        shared = shared_beginning(scope.store, scope.analysis, refs, contents)
        if shared is not None:
            known, known_of = shared.trajectory, shared.of.run_name
    if known is None:
        return whole
    if lags_of(known) < asked:
        return replace(whole, enough_lags=lags_of(known)) if lags_of(known) >= scope.analysis.window else whole
    if len(known.steps) == len(whole.listing.checkpoints):
        return replace(whole, action="reanalyse", known=known, known_of=known_of)
    if len(known.steps) <= lags_of(known) + 1:
        return whole  # the new checkpoints are compared with all that came before: nothing would be saved
    return replace(whole, action="extend", known=known, known_of=known_of)


def _known(
    scope: Scope, run: TrackedRun, refs: Sequence[CheckpointRef]
) -> tuple[Trajectory | None, tuple[str | None, ...]]:
    """What the store's band says of the first of `refs`, or of all, with their digests; nothing where of no use.

    A run that has grown is read whole when it was done in part before: the groups that had ended have no band any more.
    """
    state = None if scope.settings.force else scope.audits.get(identity(run))
    if state is None or scope.store is None or not state.checkpoints or not same_pass(state.settings, scope.analysis):
        return None, ()
    before = refs[: state.checkpoints]
    usable = ("ok", "partial") if len(before) == len(refs) else ("ok",)
    if state.status not in usable or state.fingerprint != fingerprint(before):
        return None, ()
    tables = scope.store.read_run(run.key)
    if tables is None or tables.audit_id != state.audit_id:
        return None, ()  # another process has written it since
    names = [ref.name for ref in before]
    known = stored_trajectory(tables, [ref.step for ref in before], names, scope.analysis.lags)
    return known, tuple(tables.summary["contents"] or ())


def identity(run: TrackedRun) -> RunIdentity:
    """What identifies `run` in the store; its name may change."""
    return run.key.tracker, run.key.project, run.key.run_id


def fingerprint(checkpoints: Sequence[CheckpointRef]) -> str:
    """Identifies checkpoints by what their tracker tells of them: names, steps, and files with size and digest."""
    told = [[ref.name, ref.step, [[file.path, file.size, file.digest] for file in ref.files]] for ref in checkpoints]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


NO_FINGERPRINT: Final = fingerprint(())
"""Stored for a run whose checkpoints cannot be listed."""


def is_annotation_of(audit: AuditState, state: AnnotationState | None) -> bool:
    """Whether a run is annotated with `audit`, completely."""
    if state is None or not state.complete:
        return False
    # What was written without the audit's id is of a version whose ids were made of these two alone.
    named = state.audit_id or audit_id(state.fingerprint, state.settings_hash)
    return (state.fingerprint, state.settings_hash, named) == (audit.fingerprint, audit.settings_hash, audit.audit_id)
