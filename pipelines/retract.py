"""Taking audits back: from each run of a source, and the rows of that run from the store.

On the run first, then in the store: cut off in between, the same again finds the rows and finishes. A run that fails
keeps its rows and never stops the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from integrations.locate import locate
from integrations.place import Place
from integrations.selection import Criteria
from integrations.tracker import RetractReceipt, TrackedRun, Tracker
from pipelines.attempts import RunIdentity
from pipelines.decisions import identity
from pipelines.wording import count_text
from spectral_edge.audit_log import AuditLog, Entry
from spectral_edge.errors import NotFoundError, SpectralEdgeError
from spectral_edge.store import Store
from spectral_edge.tables import RunKey

Outcome = Literal["retracted", "in_part", "nothing", "failed"]

_DONE: Final[Mapping[Outcome, str]] = {
    "retracted": "retracted",
    "in_part": "retracted in part",
    "nothing": "with nothing to take back",
    "failed": "failed",
}
_PLANNED: Final[Mapping[Outcome, str]] = {**_DONE, "retracted": "to retract", "in_part": "to retract in part"}


@dataclass(frozen=True)
class Request:
    """What is to be taken back.

    Attributes:
        source: What `locate` takes.
        run_ids: Only these runs; empty means all.
        store: Where the rows are, and the log of what is taken back.
        store_must_exist: Whether a missing store is an error, because it was asked for by name.
        keep_rows: Leave the rows in the store.
        tracking_uri: For MLflow.
        criteria: What the runs must be like.
        places: Trackers by name.
    """

    source: str
    run_ids: tuple[str, ...] = ()
    store: str | None = None
    store_must_exist: bool = False
    keep_rows: bool = False
    tracking_uri: str | None = None
    criteria: Criteria = field(default_factory=Criteria)
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRetraction:
    """What was taken back of one run; on a dry run, what would be.

    Attributes:
        outcome: `retracted`, `in_part` (something stays that should not: the receipt's leftovers), `nothing` (there was
            nothing to take back) or `failed`.
        receipt: What the tracker did; empty when it failed.
        rows: Whether the store had rows of the run.
        error: What went wrong, and what to do.
    """

    project: str
    run_name: str
    run_id: str
    outcome: Outcome
    receipt: RetractReceipt = field(default_factory=RetractReceipt)
    rows: bool = False
    error: str | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        """A sentence for each thing that stays and should not."""
        left = self.receipt.leftovers
        return (self.error,) if self.error else tuple(f"run {self.run_name}: {it.what} stays: {it.why}" for it in left)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        told = {"project": self.project, "run_name": self.run_name, "run_id": self.run_id, "outcome": self.outcome}
        return told | asdict(self.receipt) | {"rows": self.rows, "error": self.error}


@dataclass(frozen=True)
class Retraction:
    """What was taken back of the runs of one source; on a dry run, what would be."""

    source: str
    runs: tuple[RunRetraction, ...]
    dry_run: bool

    @property
    def has_failures(self) -> bool:
        """Whether something stays that should not."""
        return any(run.errors for run in self.runs)

    @property
    def line(self) -> str:
        """One line for people."""
        counts = Counter(run.outcome for run in self.runs)
        said = _PLANNED if self.dry_run else _DONE
        how = ", ".join(f"{counts[outcome]:,} {words}" for outcome, words in said.items() if counts[outcome])
        taken = f"{taken_back(self.runs)} {'would be ' if self.dry_run else ''}taken back."
        kept = metrics_kept(self.runs)
        sentences = [
            f"{count_text(len(self.runs), 'run')}{', ' if how else ''}{how}: {taken}",
            kept and f"{kept} stay.",
        ]
        return " ".join(filter(None, [*sentences, "Nothing was changed." if self.dry_run else ""]))

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"source": self.source, "dry_run": self.dry_run, "runs": [run.as_json() for run in self.runs]}


def taken_back(runs: Sequence[RunRetraction]) -> str:
    """What was taken back of `runs`, in words."""
    counts = {
        "tag": sum(len(run.receipt.tags) for run in runs),
        "file": sum(len(run.receipt.files) for run in runs),
        "note section": sum(run.receipt.note for run in runs),
        "child run": sum(len(run.receipt.child_runs) for run in runs),
        "audit in the store": sum(run.rows for run in runs),
    }
    return ", ".join(_counted(number, noun) for noun, number in counts.items() if number) or "nothing"


def metrics_kept(runs: Sequence[RunRetraction]) -> str:
    """The metrics that trackers keep of `runs`, in words."""
    points = sum(sum(run.receipt.kept_metrics.values()) for run in runs)
    number = sum(len(run.receipt.kept_metrics) for run in runs)
    return f"{count_text(number, 'metric')} with {count_text(points, 'point')}" if number else ""


def _counted(number: int, noun: str) -> str:
    first, space, rest = noun.partition(" in ")
    return f"{count_text(number, first)}{space}{rest}"


@dataclass(frozen=True)
class Retractor:
    """Takes audits back, run by run.

    Attributes:
        tracker: Where the runs are.
        runs: The runs that were asked for.
        store: Where their rows are; None where there are none, or they shall stay.
        known: The runs that the store knows.
        log: Where it is written down; None where there is no store.
    """

    tracker: Tracker
    runs: Sequence[TrackedRun]
    store: Store | None
    known: frozenset[RunIdentity]
    log: AuditLog | None = None

    @classmethod
    def of(cls, request: Request) -> Retractor:
        """Look up the runs and the store that `request` names.

        Raises:
            UsageError: A source that cannot be.
            NotFoundError: No such experiment, folder, run or store.
            SpectralEdgeError: The tracker or the store cannot be used at all.
        """
        tracker, selection = locate(
            request.source, tracking_uri=request.tracking_uri, criteria=request.criteria, places=request.places
        )
        store = _store(request)
        chosen = tuple(dict.fromkeys((*selection.run_ids, *request.run_ids)))
        runs = list(tracker.runs(replace(selection, run_ids=chosen)))
        log = AuditLog(store.location) if store else None
        if request.keep_rows:
            return cls(tracker, runs, None, frozenset(), log)
        return cls(tracker, runs, store, frozenset(store.audits()) if store else frozenset(), log)

    def retract(self, run: TrackedRun, *, dry_run: bool) -> RunRetraction:
        """Take back what there is of `run`, or only look."""
        key = run.key
        try:
            receipt = self.tracker.retract(run, dry_run=dry_run)
            if self.log is not None and not dry_run and (receipt.took_back or identity(run) in self.known):
                # Before the rows go: cut off in between, the same again finds them, and is written down too.
                self.log.append([_entry(key, receipt)])
            rows = self._forget(key, dry_run=dry_run) if identity(run) in self.known else False
        except SpectralEdgeError as error:
            told = str(error.of_run(key.run_name))
            return RunRetraction(key.project, key.run_name, key.run_id, "failed", error=told)
        outcome: Outcome = "in_part" if receipt.leftovers else "retracted" if receipt.took_back or rows else "nothing"
        return RunRetraction(key.project, key.run_name, key.run_id, outcome, receipt, rows)

    def _forget(self, key: RunKey, *, dry_run: bool) -> bool:
        if self.store is None or dry_run:
            return self.store is not None
        return self.store.forget_run(key)

    def tidy(self) -> None:
        """Delete what a retraction or audit that was cut off left in the store, where no other can be writing there."""
        if self.store is not None and self.store.location.is_local:
            self.store.sweep()


def _entry(key: RunKey, receipt: RetractReceipt) -> Entry:
    kept = sum(receipt.kept_metrics.values())
    return Entry(key, "retracted", tags=len(receipt.tags), metric_points=kept, files=len(receipt.files))


def _store(request: Request) -> Store | None:
    if request.store is None:
        return None
    try:
        return Store.open(request.store, create=False)
    except NotFoundError:
        if request.store_must_exist and not request.keep_rows:
            raise
        return None
