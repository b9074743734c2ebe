"""The way of one run: fetch, gram, analyse, store, write back. Plain functions; Prefect calls them from audit.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from integrations.annotations import annotation_of
from integrations.tracker import Annotation, CheckpointListing, RunState, TrackedRun, WriteReceipt
from integrations.training_record import training_record
from pipelines import progress
from pipelines.alerts import Alerts
from pipelines.attempts import attempt, forget, quarantine, same_work
from pipelines.decisions import NO_FINGERPRINT, WORK, Decision, Scope, decide, identity
from pipelines.measuring import measure
from pipelines.reading import Costs
from pipelines.results import RunResult
from pipelines.wording import moment_text
from spectral_edge.analysis import Provenance, analyse_run, failed_run
from spectral_edge.audit_log import AuditLog, Entry
from spectral_edge.errors import (
    AnnotationConflictError,
    CheckpointError,
    CheckpointFormatError,
    NoStepError,
    QuarantinedError,
    SpectralEdgeError,
    StoreError,
    TrajectoryError,
)
from spectral_edge.series import TrainingRecord
from spectral_edge.store import Store
from spectral_edge.tables import RUNS, RunTables


@dataclass(frozen=True)
class Job:
    """What the audits of all runs of a source share: what is asked, where it is kept, where it is computed."""

    scope: Scope
    store: Store
    device: str
    tracker_name: str | None = None
    source: str = ""
    alerts: Alerts | None = None

    def keep(self, tables: RunTables) -> tuple[str, ...]:
        """Store `tables`, and tell people of what is found in them; returns what went wrong with that."""
        self.store.write_run(tables)
        warning = self.alerts.settle(tables.key, tables) if self.alerts else None
        return (warning,) if warning else ()


def audit_one(job: Job, run: TrackedRun) -> RunResult:
    """Do to `run` what has to be done. Failures of its content are recorded in the store before they are raised.

    Raises:
        TerminalError: The run cannot be audited.
        TransientError: It may work later.
    """
    try:
        decision = decide(job.scope, run)
    except (NoStepError, CheckpointFormatError) as error:
        unknown = Provenance(NO_FINGERPRINT, run.state, run.url, tracker_name=job.tracker_name)
        _record_failure(job, run, unknown, error)
        raise
    listing = decision.listing
    result = RunResult(
        run.key.run_name,
        run.key.run_id,
        "unchanged",
        checkpoints=len(listing.checkpoints),
        series=listing.series,
        step_source=listing.step_source,
        warnings=listing.warnings,
        project=run.key.project,
        audit_id=decision.audit_id,
    )
    if decision.action in WORK:
        return _work(job, run, decision, result)
    if decision.action == "quarantine":
        raise _quarantined(job, run, decision)
    forget(job.store, job.scope.deaths.get(identity(run), ()))  # another audit has survived it
    if decision.action == "report_no_checkpoints":
        return replace(result, outcome="no_checkpoints")
    if decision.action == "report_known_error":
        return result.failed_as_before(decision.known_error)
    return result.partial_as_before(decision.known_error) if decision.known_error else result


def _work(job: Job, run: TrackedRun, decision: Decision, result: RunResult) -> RunResult:
    """All that may take long, noted as an attempt."""
    dead, settings = job.scope.deaths.get(identity(run), ()), job.scope.analysis.hash
    before = same_work(job.scope.deaths_of(run), decision.fingerprint, settings)
    told = ""
    if before:
        told = f"the last audit of it, begun at {moment_text(before[-1].began_at)}, ended with the death of its process"
        told += f": try {len(before) + 1} of {job.scope.settings.max_tries}"
        progress.current().say(f"{run.key.run_name}: {told}")
    with attempt(job.store, run.key, job.source, decision.fingerprint, settings, dead):
        done = _update(job, run, result) if decision.action == "update" else _audit(job, run, decision, result)
    return replace(done, warnings=(*done.warnings, told)) if told else done


def _quarantined(job: Job, run: TrackedRun, decision: Decision) -> QuarantinedError:
    """The error; it is kept in the store in place of the run's tables, unless those are of the same checkpoints."""
    dead = job.scope.deaths_of(run)
    error = quarantine(run.key.run_name, same_work(dead, decision.fingerprint, job.scope.analysis.hash))
    if job.scope.stored(run, decision.fingerprint) is None:
        _record_failure(job, run, _provenance(job, run, decision, Costs()), error)
        forget(job.store, dead)
    return error


def _audit(job: Job, run: TrackedRun, decision: Decision, result: RunResult) -> RunResult:
    costs = Costs()
    try:
        record = _record(job, run, decision.listing)  # before the reading, which takes longer than a refused `metric`
        measured = measure(job.scope, run, decision, job.device, costs)
        provenance = _provenance(job, run, decision, costs)
        tables = analyse_run(run.key, measured.trajectory, record, job.scope.analysis, provenance)
    except (CheckpointError, TrajectoryError) as error:
        _record_failure(job, run, _provenance(job, run, decision, costs), error)
        raise
    warnings = job.keep(tables)
    new = decision.new_checkpoints if measured.how == "extended" else 0
    known_of = decision.known_of if measured.how != "audited" else None
    done = _write_back(job, run, replace(result, outcome=measured.how, new_checkpoints=new, known_of=known_of))
    return replace(
        done,
        bytes_fetched=costs.bytes_fetched,
        bytes_read=costs.bytes_read,
        seconds_fetch=costs.seconds_fetch,
        seconds_gram=costs.seconds_gram,
        seconds_analyse=tables.summary["seconds_analyse"] or 0.0,
        warnings=(*done.warnings, *warnings),
    )


def _update(job: Job, run: TrackedRun, result: RunResult) -> RunResult:
    tables = job.store.read_run(run.key)
    if tables is not None and tables.summary["state"] != run.state:
        job.store.write_run(_with_state(tables, run.state))
    return _write_back(job, run, replace(result, outcome="updated"))


def _write_back(job: Job, run: TrackedRun, result: RunResult) -> RunResult:
    """Annotate the run from the stored tables: after a kill between storing and writing back nothing else is left."""
    tables = job.store.read_run(run.key)
    if tables is None:
        raise StoreError(
            "the rows just stored are gone: another process has taken them back.",
            run=run.key.run_name,
            file=job.store.location.root,
            next_step="run the same command again.",
        )
    receipt = _annotate(job, run, tables)
    summary = tables.summary
    return replace(
        result,
        outcome="partial" if summary["status"] == "partial" else result.outcome,
        audit_id=tables.audit_id,
        error=summary["error"] and f"run {run.key.run_name}: {summary['error']}",
        regime=summary["regime"],
        transitions=summary["transitions"] or 0,
        writes=receipt.metric_points + receipt.files,
        warnings=(*(summary["warnings"] or ()), *receipt.warnings),
    )


def _with_state(tables: RunTables, state: RunState) -> RunTables:
    index = RUNS.get_field_index("state")
    column = pa.array([state], RUNS.field(index).type)
    return replace(tables, runs=tables.runs.set_column(index, RUNS.field(index), column))


def _annotate(job: Job, run: TrackedRun, tables: RunTables) -> WriteReceipt:
    level = job.scope.settings.annotate
    if level == "none":
        return WriteReceipt(0, 0, 0)
    annotation = annotation_of(tables, level=level)
    log, entry = AuditLog(job.store.location), _entry(job, run, tables.audit_id, annotation)
    log.append([entry])
    try:
        receipt = job.scope.tracker.annotate(run, annotation, replace=job.scope.settings.force)
    except SpectralEdgeError as error:
        log.append([replace(entry, event="failed", error=type(error).__name__)])
        if isinstance(error, AnnotationConflictError):
            error.left_behind = (
                f"the tables in {job.store.location.root} are the new ones; nothing was written to the run"
            )
        raise
    log.append(
        [
            replace(
                entry,
                event="written",
                metric_points=receipt.metric_points,
                files=receipt.files,
                bytes_written=receipt.bytes_written,
            )
        ]
    )
    return receipt


def _entry(job: Job, run: TrackedRun, audit_id: str, annotation: Annotation) -> Entry:
    return Entry(
        run.key,
        "will_write",
        audit_id=audit_id,
        level=annotation.level,
        into=job.scope.settings.into,
        tags=len(annotation.tags),
        metric_points=len(annotation.metrics),
        files=len(annotation.files),
    )


def _record(job: Job, run: TrackedRun, listing: CheckpointListing) -> TrainingRecord:
    steps = [ref.step for ref in listing.checkpoints]
    return training_record(job.scope.tracker, run, steps, job.scope.analysis, further=True)


def _provenance(job: Job, run: TrackedRun, decision: Decision, costs: Costs) -> Provenance:
    return Provenance(
        decision.fingerprint,
        run.state,
        run.url,
        tracker_name=job.tracker_name,
        series=decision.listing.series,
        step_source=decision.listing.step_source,
        sketch_size=decision.listing.sketch_size,
        warnings=decision.listing.warnings,
        contents=decision.contents,
        bytes_read=costs.bytes_read,
        seconds_fetch=costs.seconds_fetch,
        seconds_gram=costs.seconds_gram,
    )


def _record_failure(
    job: Job, run: TrackedRun, provenance: Provenance, error: CheckpointError | TrajectoryError | QuarantinedError
) -> None:
    error.of_run(run.key.run_name)
    job.keep(failed_run(run.key, error, job.scope.analysis, provenance))
