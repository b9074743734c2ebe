"""The Prefect flow `audit_project`: one task `audit_run` for each run of a source.

A failure of one run never stops the others. Errors that may pass are retried by their type; all others are not. The
flow ends Failed when a run failed, and its result is the :class:`AuditSummary` either way.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, cast

from prefect import State, Task, flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from integrations.tracker import TrackedRun
from pipelines import progress
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.results import AuditSummary, RunResult
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.spool import sweep
from spectral_edge.errors import SpectralEdgeError, TerminalError, TransientError
from spectral_edge.store import Store

ARTIFACT_KEY = "spectral-edge-audit"


def _may_pass(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


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
    if result.is_failure:
        return Failed(message=result.error, data=result)
    return result


@flow(name="audit-project", flow_run_name="audit {source}", persist_result=False)
def audit_project(source: str, settings: AuditSettings) -> AuditSummary | State[AuditSummary]:
    """Audit the runs of `source`: `mlflow:EXPERIMENT`, `dir:PATH`, or `NAME:...` of a named tracker.

    Returns:
        The results of all runs, by the tracker's order. Ends Failed, with the same result, when a run failed.

    Raises:
        UsageError: A wrong source or setting.
        NotFoundError: No such experiment or folder.
        SpectralEdgeError: The tracker or the store cannot be used at all.
    """
    settings = settings.of_source(source)
    sweep(settings.spool)
    job, runs = prepare(source, settings)
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=settings.workers)
    with runner:
        # `quote`: Prefect looks for futures inside of parameters, for 70 ms a run where the store knows 2,000 runs.
        futures = {run.key.run_id: runner.submit(audit_run, {"job": quote(job), "run": quote(run)}) for run in runs}
        results = _collect(runs, futures)
    summary = AuditSummary(source, tuple(results[run.key.run_id] for run in runs))
    create_table_artifact(
        table=[
            {"project": run.project, "run": run.run_name, "outcome": run.outcome, "says": run.line}
            for run in summary.runs
        ],
        key=ARTIFACT_KEY,
        description=summary.line,
    )
    return Failed(message=summary.line, data=summary) if summary.has_failures else summary


def prepare(source: str, settings: AuditSettings) -> tuple[Job, list[TrackedRun]]:
    """The runs of `source`, and all that is needed to audit them."""
    settings = settings.of_source(source)
    device = settings.torch_device()
    tracker, selection = located(source, settings)
    store = Store.open(settings.store)
    if store.location.is_local:
        store.sweep()  # rows of an audit that was killed before it could delete those of the audit before it
    scope = Scope.of(tracker, settings, store)
    return Job(scope, store, device, settings.tracker_name(source)), list(tracker.runs(selection))


def run_audit(source: str, settings: AuditSettings) -> AuditSummary:
    """Run the flow and return its summary, whether or not runs failed.

    Raises:
        SpectralEdgeError: As :func:`audit_project`.
    """
    state = audit_project(source, settings, return_state=True)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        raise outcome
    return cast("AuditSummary", outcome)


def _collect(runs: list[TrackedRun], futures: Mapping[str, PrefectFuture[Any]]) -> dict[str, RunResult]:
    run_of = {futures[run.key.run_id].task_run_id: run for run in runs}
    results: dict[str, RunResult] = {}
    for future in as_completed(list(futures.values())):
        run = run_of[future.task_run_id]
        future.wait()  # takes over the final state; without it Prefect asks the server, which knows no results
        results[run.key.run_id] = _result(run, future.state)
        progress.current().run_ended(results[run.key.run_id])
    return results


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
        traceback="".join(traceback.format_exception(outcome)),
        project=run.key.project,
    )
