"""Which runs a selection of MLflow means, and how they are described."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Final

from mlflow.entities import Experiment, Run, ViewType

from integrations.mlflow_connection import MlflowConnection, every_page
from integrations.tracker import AUDIT_OF, RunState, Selection, TrackedRun
from spectral_edge.errors import NotFoundError
from spectral_edge.tables import RunKey

_STATES: Final[dict[str, RunState]] = {
    "RUNNING": "running",
    "SCHEDULED": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
}
_PAGE: Final = 1000


def selected_runs(connection: MlflowConnection, selection: Selection, kind: str) -> list[TrackedRun]:
    """The active runs of experiment `selection.container` (its name or id), by start time.

    Raises:
        NotFoundError: No such experiment or run, or it has been deleted.
    """
    experiment = _experiment(connection, selection.container)
    with connection.errors():
        runs = _named(connection, experiment, selection) if selection.run_ids else _all(connection, experiment)
    return [_tracked(connection, experiment, run, kind) for run in runs if AUDIT_OF not in run.data.tags]


def all_experiments(connection: MlflowConnection) -> list[Experiment]:
    """Every active experiment."""
    with connection.errors():
        client = connection.client
        return every_page(lambda token: client.search_experiments(max_results=_PAGE, page_token=token))


def _experiment(connection: MlflowConnection, name_or_id: str) -> Experiment:
    with connection.errors():
        found = connection.client.get_experiment_by_name(name_or_id) or _experiment_of_id(connection, name_or_id)
    if found is None:
        raise _no_experiment(connection, name_or_id)
    if found.lifecycle_stage != "active":
        raise NotFoundError(
            f"experiment {found.name!r} at {connection.address} has been deleted.",
            next_step="restore it with `mlflow experiments restore`.",
        )
    return found


def _experiment_of_id(connection: MlflowConnection, experiment_id: str) -> Experiment | None:
    if re.fullmatch(r"\d{1,64}", experiment_id) is None:
        return None
    try:
        with connection.errors():
            return connection.client.get_experiment(experiment_id)
    except NotFoundError:
        return None


def _no_experiment(connection: MlflowConnection, name: str) -> NotFoundError:
    names = [experiment.name for experiment in all_experiments(connection)]
    listed = ", ".join(repr(other) for other in get_close_matches(name, names, n=3) or sorted(names)[:10])
    return NotFoundError(
        f"there is no experiment named {name!r}, nor one with that id, at {connection.address}.",
        next_step=f"choose one of: {listed}." if listed else "log a run first; there is no experiment at all.",
    )


def _all(connection: MlflowConnection, experiment: Experiment) -> list[Run]:
    return every_page(
        lambda token: connection.client.search_runs(
            [experiment.experiment_id],
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
    )


def _named(connection: MlflowConnection, experiment: Experiment, selection: Selection) -> list[Run]:
    runs = [connection.client.get_run(run_id) for run_id in selection.run_ids]
    for run in runs:
        if run.info.experiment_id != experiment.experiment_id:
            raise NotFoundError(f"the run is not in experiment {experiment.name!r}.", run=run.info.run_id)
        if run.info.lifecycle_stage != "active":
            raise NotFoundError("the run has been deleted.", run=run.info.run_id)
    return runs


def _tracked(connection: MlflowConnection, experiment: Experiment, run: Run, kind: str) -> TrackedRun:
    return TrackedRun(
        key=RunKey(kind, experiment.name, run.info.run_id, run.info.run_name or run.info.run_id),
        state=_STATES.get(run.info.status, "unknown"),
        started_at=_time(run.info.start_time),
        ended_at=_time(run.info.end_time),
        params=run.data.params,
        tags=run.data.tags,
        url=_url(connection, run),
    )


def _url(connection: MlflowConnection, run: Run) -> str:
    if not connection.is_server:
        return str(run.info.artifact_uri)
    return f"{connection.address.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
