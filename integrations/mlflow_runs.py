"""Which runs a selection of MLflow means, and how they are described.

All are listed before the first is looked into: pages of a search whose results change meanwhile skip some. MLflow's
filters know neither OR nor lists of states, so what asks for that is several searches that have no run in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from mlflow.entities import Experiment, Run, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from integrations.mlflow_annotations import METRIC_PREFIX, state_of
from integrations.mlflow_connection import MlflowConnection, every_page
from integrations.mlflow_experiments import meant_experiments
from integrations.mlflow_tags import TAG_PREFIX
from integrations.tracker import AUDIT_OF, AnnotationState, Criteria, Into, Listed, RunState, Selection, TrackedRun
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.tables import RunKey

_STATES: Final[dict[str, RunState]] = {
    "RUNNING": "running",
    "SCHEDULED": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
}
_PAGE: Final = 1000
_EXPERIMENTS: Final = 1000
"""Searched at once. Each is a parameter of the server's SQL statement; the narrowest of its databases takes 2,100."""


def selected_runs(connection: MlflowConnection, selection: Selection, kind: str, into: Into) -> list[TrackedRun]:
    """The active runs of the experiments that are meant: those named in their order, else by experiment and start.

    Annotations are looked for where `into` says, as far as what was listed shows them.

    Raises:
        UsageError: MLflow refused the filter, or a run named is one that spectral-edge made.
        NotFoundError: No such experiment or run, or it has been deleted.
    """
    experiments = {found.experiment_id: found for found in meant_experiments(connection, selection.container)}
    if selection.run_ids:
        runs = _passing(connection, _named(connection, experiments, selection), selection.criteria)
        carriers = runs if into == "run" else []
    else:
        runs = _searched(connection, list(experiments), selection.criteria)
        carriers = runs if into == "run" else _children(runs)
        runs = sorted((run for run in runs if AUDIT_OF not in run.data.tags), key=_by_start)
        runs = sorted(runs, key=lambda run: experiments[run.info.experiment_id].name)
    carrier_of = {run.data.tags.get(AUDIT_OF, run.info.run_id): run for run in carriers}
    tracked = [
        _tracked(connection, experiments[run.info.experiment_id], run, kind, carrier_of.get(run.info.run_id))
        for run in runs
    ]
    return [run for run in tracked if selection.criteria.admit(run.state, run.started_at, run.ended_at)]


def _by_start(run: Run) -> tuple[int, str]:
    return run.info.start_time or 0, run.info.run_id


def _children(runs: Sequence[Run]) -> list[Run]:
    """The runs made for results; of several for one run the oldest comes last, so that it counts."""
    return sorted((run for run in runs if AUDIT_OF in run.data.tags), key=_by_start, reverse=True)


def _searched(connection: MlflowConnection, experiment_ids: Sequence[str], criteria: Criteria) -> list[Run]:
    """The runs that pass the filter, and perhaps others that `criteria` does not admit; each once."""
    found = (
        run
        for first in range(0, len(experiment_ids), _EXPERIMENTS)
        for filter_string in _filters(criteria)
        for run in _search(connection, experiment_ids[first : first + _EXPERIMENTS], filter_string, criteria)
    )
    return list({run.info.run_id: run for run in found}.values())


def _passing(connection: MlflowConnection, runs: Sequence[Run], criteria: Criteria) -> list[Run]:
    """Those of `runs`, which are there, that pass the filter."""
    if criteria.filter is None:
        return list(runs)
    listed = ", ".join(f"'{run.info.run_id}'" for run in runs)
    experiment_ids = sorted({run.info.experiment_id for run in runs})
    found = _search(connection, experiment_ids, f"attributes.run_id IN ({listed}) AND {criteria.filter}", criteria)
    passing = {run.info.run_id for run in found}
    return [run for run in runs if run.info.run_id in passing]


def _search(
    connection: MlflowConnection, experiment_ids: Sequence[str], filter_string: str, criteria: Criteria
) -> list[Run]:
    try:
        with connection.errors():
            return every_page(
                lambda token: connection.client.search_runs(
                    list(experiment_ids),
                    filter_string=filter_string,
                    run_view_type=ViewType.ACTIVE_ONLY,
                    max_results=_PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
            )
    except UsageError as error:
        if criteria.filter is None:
            raise
        raise UsageError(
            f"`filter` {criteria.filter!r} was refused: {error.what}",
            next_step="write comparisons joined by AND, such as \"metrics.val_loss < 0.5 AND tags.team = 'vision'\".",
        ) from None


def _filters(criteria: Criteria) -> Iterator[str]:
    """Filters that no run passes twice. Whoever passes none of them is not admitted."""
    common = [f"attributes.status != '{status}'" for status in _statuses_ruled_out(criteria.states)]
    common += [criteria.filter] if criteria.filter is not None else []
    if criteria.since is None:
        yield " AND ".join(common)
        return
    since = max(0, int(criteria.since.timestamp() * 1000))
    yield " AND ".join([f"attributes.start_time >= {since}", *common])
    yield " AND ".join([f"attributes.start_time < {since} AND attributes.end_time >= {since}", *common])


def _statuses_ruled_out(states: Sequence[RunState]) -> list[str]:
    return [status for status, state in _STATES.items() if states and state not in states]


def _named(connection: MlflowConnection, experiments: Mapping[str, Experiment], selection: Selection) -> list[Run]:
    with connection.errors():
        runs = [connection.client.get_run(run_id) for run_id in selection.run_ids]
    for run in runs:
        if run.info.experiment_id not in experiments:
            raise NotFoundError(f"the run is not in experiment {selection.container!r}.", run=run.info.run_id)
        if run.info.lifecycle_stage != "active":
            raise NotFoundError("the run has been deleted.", run=run.info.run_id)
        if AUDIT_OF in run.data.tags:
            raise UsageError(
                "spectral-edge made this run for the results of an audit.",
                run=run.info.run_id,
                next_step=f"name the run that was audited: {run.data.tags[AUDIT_OF]}.",
            )
    return runs


def _tracked(
    connection: MlflowConnection, experiment: Experiment, run: Run, kind: str, carrier: Run | None
) -> TrackedRun:
    return TrackedRun(
        key=RunKey(kind, experiment.name, run.info.run_id, run.info.run_name or run.info.run_id),
        state=_STATES.get(run.info.status, "unknown"),
        started_at=_time(run.info.start_time),
        ended_at=_time(run.info.end_time),
        params=run.data.params,
        tags=run.data.tags,
        url=_url(connection, run),
        listed=_listed(run, None if carrier is None else state_of(carrier)),
    )


def _listed(run: Run, annotation: AnnotationState | None) -> Listed | None:
    """What the page says of a run that has ended, but for our tags and metrics and the note, where we write too."""
    if _STATES.get(run.info.status, "running") == "running" or run.info.end_time is None:
        return None
    data = run.data.to_proto()
    metrics = [(it.key, str(it.value), it.step, it.timestamp) for it in data.metrics]
    told = {
        "status": run.info.status,
        "ended": run.info.end_time,
        "artifacts": run.info.artifact_uri,
        "params": sorted(run.data.params.items()),
        "tags": sorted(tag for tag in run.data.tags.items() if not tag[0].startswith((TAG_PREFIX, MLFLOW_RUN_NOTE))),
        "metrics": sorted(it for it in metrics if not it[0].startswith(METRIC_PREFIX)),
        "models": sorted((it.model_id, it.step) for it in run.outputs.model_outputs) if run.outputs else [],
    }
    return Listed.of(told, annotation)


def _url(connection: MlflowConnection, run: Run) -> str:
    if not connection.is_server:
        return str(run.info.artifact_uri)
    return f"{connection.address.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
