"""The Prefect flow `audit_project`: one task `audit_run` for each run of a source.

A failure of one run never stops the others. Errors that may pass are retried by their type; all others are not. The
flow ends Failed when a run failed, and its result is the :class:`AuditSummary` either way.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, cast
from uuid import UUID

from prefect import State, Task, flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Cancelled, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from integrations.scratch import sweep_scratch
from integrations.tracker import TrackedRun
from pipelines import cluster, progress, stopping
from pipelines.alert_events import send
from pipelines.alerts import alerts_of
from pipelines.attempts import forget
from pipelines.budget import current
from pipelines.decisions import Scope, identity
from pipelines.flow_end import record_end
from pipelines.looking import Looks, by_debt, settled, waits_since
from pipelines.one_run import Job, audit_one
from pipelines.recording import record_audit
from pipelines.results import AuditSummary, RunResult
from pipelines.settings import AuditSettings
from pipelines.sources import lists_all, located, not_listed
from pipelines.spool import sweep
from pipelines.summary_markdown import pages_of, summary_markdown
from pipelines.wording import markdown_text, plain_text
from spectral_edge import interruption
from spectral_edge.audit_log import AuditLog
from spectral_edge.errors import SpectralEdgeError, StoppedError, TerminalError, TransientError
from spectral_edge.store import Store
from spectral_edge.tables import RunKey

ARTIFACT_KEY: Final = "spectral-edge-audit"


def _may_pass(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError) and not interruption.is_asked()


@task(
    task_run_name="audit {run.key.run_name}",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=_may_pass,
    cache_policy=NO_CACHE,  # the store itself knows what is done, also from another machine
    persist_result=False,
)
def audit_run(job: Job, run: TrackedRun) -> RunResult | State[RunResult]:
    """Audit one run. Ends Failed, with our message, when it cannot be audited.

    Raises:
        TransientError: It may work later: Prefect tries three times.
    """
    try:
        result = audit_one(job, run)
    except TerminalError as error:
        result = RunResult.failure(run.key, error)
    level = logging.ERROR if result.is_failure else logging.INFO
    get_run_logger().log(level, "%s [run id %s]", plain_text(result.line), plain_text(run.key.run_id))
    if result.is_failure:
        return Failed(message=result.error, data=result)
    return result


@flow(name="audit-project", flow_run_name="audit {source}", persist_result=False)
def audit_project(source: str, settings: AuditSettings) -> AuditSummary | State[AuditSummary]:
    """Audit the runs of `source`: `mlflow:EXPERIMENT`, `dir:PATH`, or `NAME:...` of a named tracker.

    Runs of which the listing tells that nothing is new get no task. The others are worked off by how long they wait,
    until the budget of `settings`, or the one they share with other audits, is spent.

    Returns:
        The results of all runs, by the tracker's order. Ends Failed, with the same result, when a run failed, and
        Cancelled when the process was told to end (see :mod:`pipelines.stopping`).

    Raises:
        UsageError: A wrong source or setting.
        NotFoundError: No such experiment or folder.
        SpectralEdgeError: The tracker or the store cannot be used at all.
    """
    results: dict[RunKey, RunResult] = {}
    urls: dict[str, str] = {}
    with stopping.listening(), stopping.at_hard_stop(record_end(source, results)):
        try:
            summary = _audited(source, settings.of_source(source), results, urls)
        except StoppedError:  # while runs were listed
            summary = AuditSummary(source, (), stopped=True)
        _show(summary, urls)
    if summary.stopped:
        return Cancelled(message=summary.line, data=summary)
    return Failed(message=summary.line, data=summary) if summary.has_failures else summary


def _audited(
    source: str, settings: AuditSettings, results: dict[RunKey, RunResult], urls: dict[str, str]
) -> AuditSummary:
    """The sum of `results`, to which each run's is added as it comes; `urls` gets each run's address, by its id."""
    sweep(settings.spool)
    sweep_scratch()
    job, runs = prepare(source, settings)
    urls |= {run.key.run_id: run.url for run in runs}
    job = _with_alerts(job, runs, settings)
    results |= {run.key: result for run in runs if (result := settled(job.scope, run))}
    for result in results.values():
        if result.known:
            progress.current().run_ended(result)
    for run in runs:
        if run.key in results and identity(run) in job.scope.deaths:
            forget(job.store, job.scope.deaths[identity(run)])  # another audit has survived it
    waiting = deque(by_debt(job.scope, (run for run in runs if run.key not in results)))
    if waiting:
        with cluster.using(source, settings):
            _work_off(job, waiting, results)
    AuditLog(job.store.location).tidy()
    return AuditSummary(
        source,
        tuple(results[run.key] for run in runs if run.key in results),
        left=len(waiting),
        stopped=interruption.is_asked(),
        oldest_debt=min(filter(None, (waits_since(job.scope, run) for run in waiting)), default=None),
    )


def _with_alerts(job: Job, runs: Sequence[TrackedRun], settings: AuditSettings) -> Job:
    """`job`, with people told of what earlier audits found, or retractions took back, and could not tell."""
    alerts, keys = alerts_of(job.store, send), [run.key for run in runs]
    warnings = [alerts.catch_up(job.scope.tracker.kind, {key.project_key for key in keys}, keys)]
    if settings.recheck and lists_all(job.source, settings):
        warnings.append(alerts.close_deleted(not_listed(job.store, runs)))
    for warning in filter(None, warnings):
        progress.current().warn(warning)
    return replace(job, alerts=alerts)


def _work_off(job: Job, waiting: deque[TrackedRun], results: dict[RunKey, RunResult]) -> None:
    """A task for each of `waiting`, in order, as long as the budget allows one more; those left stay in `waiting`.

    Runs that the process died of, perhaps, come last and have it for themselves: who dies then is known.
    """
    settings, display = job.scope.settings, progress.current()
    budget, looks = current(settings), Looks(job.scope, job.store)
    # Threads are made as they are needed.
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=cluster.MOST_AT_ONCE)
    with runner, closing(looks):
        in_flight: dict[UUID, tuple[TrackedRun, PrefectFuture[Any]]] = {}
        while True:
            while waiting and len(in_flight) < _room(job, waiting[0]) and budget.allows(len(in_flight)):
                if interruption.is_asked():
                    break
                run = waiting.popleft()
                # `quote`: Prefect looks for futures inside of parameters, 70 ms a run where the store knows 2,000.
                task_ = runner.submit(audit_run, {"job": quote(job), "run": quote(run)})
                in_flight[task_.task_run_id] = run, task_
            if not in_flight:
                return
            run, future = in_flight.pop(_first_done([future for _, future in in_flight.values()]))
            future.wait()  # takes over the final state; without it Prefect asks the server, which knows no results
            if isinstance(future.state.result(raise_on_failure=False), StoppedError):
                waiting.append(run)
                continue
            results[run.key] = result = _result(run, future.state)
            budget.spend(result)
            looks.add(run, result)
            display.run_ended(result)


def _room(job: Job, run: TrackedRun) -> int:
    """How many runs may be in flight together with `run`."""
    return 1 if job.scope.deaths_of(run) else cluster.runs_at_once(job.scope.settings)


def _first_done(futures: list[PrefectFuture[Any]]) -> UUID:
    return next(as_completed(futures)).task_run_id


def _show(summary: AuditSummary, addresses: Mapping[str, str]) -> None:
    """What is to be said, as a text with links, as a table, and as links, on Prefect's page of the flow run.

    Args:
        summary: What was done.
        addresses: Each run's page in its tracker, by the run's id.
    """
    create_markdown_artifact(
        markdown=summary_markdown(summary, addresses), key=f"{ARTIFACT_KEY}-summary", description=summary.line
    )
    create_table_artifact(
        table=[
            {
                "project": markdown_text(run.project),
                "run": markdown_text(run.run_name),
                "outcome": run.outcome,
                "says": markdown_text(run.line),
            }
            for run in summary.runs
        ],
        key=ARTIFACT_KEY,
        description=summary.line,
    )
    for page in pages_of(summary, addresses):
        create_link_artifact(
            link=page.address, link_text=page.text, key=f"{ARTIFACT_KEY}-page", description="In the tracker"
        )


def prepare(source: str, settings: AuditSettings) -> tuple[Job, list[TrackedRun]]:
    """The runs of `source`, and all that is needed to audit them."""
    settings = settings.of_source(source)
    device = settings.torch_device() if settings.dask is None else settings.device  # workers know what they have
    tracker, selection = located(source, settings)
    store = Store.open(settings.store)
    if store.location.is_local:
        store.sweep()  # rows of an audit that was killed before it could delete those of the audit before it
    scope = Scope.of(tracker, settings, store)
    runs = []
    for run in tracker.runs(selection):
        interruption.check()
        runs.append(run)
    return Job(scope, store, device, settings.tracker_name(source), source), runs


def run_audit(source: str, settings: AuditSettings) -> AuditSummary:
    """Run the flow and return its summary, whether or not runs failed.

    Raises:
        SpectralEdgeError: As :func:`audit_project`.
    """
    started = time.monotonic()
    with progress.showing_in_flow(settings.log_format):
        state = audit_project(source, settings, return_state=True)
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, SpectralEdgeError | AuditSummary):
            record_audit(source, settings, outcome, time.monotonic() - started)
        if isinstance(outcome, BaseException):
            raise outcome
        summary = cast("AuditSummary", outcome)
        progress.current().source_ended(summary)
    return summary


def _result(run: TrackedRun, state: State[Any]) -> RunResult:
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, RunResult):
        return outcome
    if isinstance(outcome, SpectralEdgeError):
        return RunResult.failure(run.key, outcome)
    return RunResult(
        run.key.run_name,
        run.key.run_id,
        "failed",
        error=f"run {run.key.run_name}: {type(outcome).__name__}: {outcome}. "
        "This is a defect of spectral-edge: please report it with the traceback.",
        error_class=type(outcome).__name__,
        traceback="".join(traceback.format_exception(outcome)),
        project=run.key.project,
    )
