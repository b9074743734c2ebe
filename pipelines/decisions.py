"""What has to be done to a run, decided by looking only: nothing here fetches or writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from integrations.tracker import CheckpointListing, CheckpointRef, TrackedRun, Tracker
from pipelines.settings import AuditSettings
from spectral_edge.errors import NoStepError
from spectral_edge.settings import Settings
from spectral_edge.store import AuditState, Store

Action = Literal["audit", "update", "nothing", "report_known_error", "report_no_checkpoints"]

RunIdentity = tuple[str, str, str]


@dataclass(frozen=True)
class Scope:
    """Against what decisions are made: the runs' tracker, the settings, and the audits the store holds already."""

    tracker: Tracker
    settings: AuditSettings
    analysis: Settings
    audits: Mapping[RunIdentity, AuditState]
    states: Mapping[RunIdentity, str]

    @classmethod
    def of(cls, tracker: Tracker, settings: AuditSettings, store: Store | None) -> Scope:
        """Reads what `store` holds; None is an empty store."""
        audits = store.audits() if store else {}
        rows = store.runs_table().select(["tracker", "project", "run_id", "state"]).to_pylist() if store else []
        states = {(row["tracker"], row["project"], row["run_id"]): row["state"] for row in rows}
        return cls(tracker, settings, settings.analysis(), audits, states)

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
        action: `audit` reads the checkpoints; `update` brings the run's state in the store and its annotations up to
            date from the stored tables; the others do nothing.
        listing: The run's checkpoints.
        fingerprint: Identifies them.
        known_error: The error that the store holds: the run failed, or some of its groups end early.
    """

    action: Action
    listing: CheckpointListing
    fingerprint: str
    known_error: str | None = None


def decide(scope: Scope, run: TrackedRun) -> Decision:
    """What has to be done to `run`.

    Raises:
        NoStepError: The run has checkpoints, the step of none can be told, and the store does not know it yet.
        TransientError: The tracker did not answer.
    """
    try:
        listing = scope.tracker.checkpoints(run)
    except NoStepError as error:
        if scope.stored(run, NO_FINGERPRINT) is None:
            raise
        return Decision(
            "report_known_error", CheckpointListing(()), NO_FINGERPRINT, str(error.of_run(run.key.run_name))
        )
    digest = fingerprint(listing.checkpoints)
    if not listing.checkpoints:
        return Decision("report_no_checkpoints", listing, digest)
    stored = scope.stored(run, digest)
    if stored is None:
        return Decision("audit", listing, digest)
    if stored.status == "failed":
        return Decision("report_known_error", listing, digest, known_error=stored.error)
    is_current = scope.states[identity(run)] == run.state and _is_annotated(scope, run, digest)
    known_error = stored.error and f"run {run.key.run_name}: {stored.error}"
    return Decision("nothing" if is_current else "update", listing, digest, known_error)


def identity(run: TrackedRun) -> RunIdentity:
    """What identifies `run` in the store; its name may change."""
    return run.key.tracker, run.key.project, run.key.run_id


def fingerprint(checkpoints: Sequence[CheckpointRef]) -> str:
    """Identifies checkpoints by what their tracker tells of them: names, steps, and files with size and digest."""
    told = [[ref.name, ref.step, [[file.path, file.size, file.digest] for file in ref.files]] for ref in checkpoints]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


NO_FINGERPRINT: Final = fingerprint(())
"""Stored for a run whose checkpoints cannot be listed."""


def _is_annotated(scope: Scope, run: TrackedRun, digest: str) -> bool:
    if scope.settings.annotate == "none":
        return True
    state = scope.tracker.annotation_state(run)
    return (
        state is not None
        and state.complete
        and (state.fingerprint, state.settings_hash) == (digest, scope.analysis.hash)
    )
