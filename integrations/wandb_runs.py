"""Which runs a selection of W&B means, and how they are described.

Only the user's own filter is left to the server. Runs that we made ourselves are left out here, since a server that
compares with SQL may leave out each run without a job type along with them, and so are states and ages: W&B tells the
end of a run by its last sign of life alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final

from wandb.apis.public import Run

from integrations.tracker import OUR_NAME, AnnotationState, Into, Listed, RunState, Selection, TrackedRun
from integrations.wandb_connection import WandbConnection
from integrations.wandb_page import AUDIT_RUN
from integrations.wandb_results import FINISHED, PREFIX, STARTED
from integrations.wandb_values import params_of
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.tables import RunKey

AUDIT_JOB: Final = "spectral-audit"
"""Job type of the runs that spectral-edge makes for results."""
AUDIT_OF: Final = "audit_of"
"""What the entry `spectral_edge` of their configuration calls the run that was audited."""

_STATES: Final[Mapping[str, RunState]] = {
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "crashed": "failed",
    "killed": "killed",
}
_PAGE: Final = 100
"""Runs asked for at once, each with its whole configuration and summary."""


def selected_runs(connection: WandbConnection, selection: Selection, kind: str, into: Into) -> list[TrackedRun]:
    """The runs of the projects that are meant: those named in their order, else by project and creation.

    Raises:
        UsageError: W&B refused the filter, or a run named is one that spectral-edge made.
        NotFoundError: No such entity, project or run.
    """
    condition = _condition(selection.criteria.filter)
    projects = _meant_projects(connection, selection.container)
    if selection.run_ids:
        found = _named(connection, projects, selection, condition)
    else:
        found = [
            (project, run)
            for project in projects
            for run in _listed(connection, project, condition)
            if audited_by(run) is None
        ]
    tracked = [replace(tracked_run(project, run, kind), listed=_listed_as(run, into)) for project, run in found]
    return [run for run in tracked if selection.criteria.admit(run.state, run.started_at, run.ended_at)]


def audited_by(run: Run) -> str | None:
    """The id of the run that `run` holds an audit of; None for a run of a user's."""
    ours = run.rawconfig.get(OUR_NAME)
    if run.job_type != AUDIT_JOB or not isinstance(ours, Mapping):
        return None
    audited = ours.get(AUDIT_OF)
    return audited if isinstance(audited, str) else None


def tracked_run(project: str, run: Run, kind: str) -> TrackedRun:
    """The run in our words; `project` is ENTITY/PROJECT."""
    state = _STATES.get(run.state, "unknown")
    return TrackedRun(
        key=RunKey(kind, project, run.id, run.name or run.id),
        state=state,
        started_at=_time(run.created_at),
        ended_at=None if state == "running" else _time(run.heartbeat_at),
        params=params_of(run.rawconfig),
        tags=dict.fromkeys(run.tags or (), "true"),
        url=run.url,
    )


def _listed_as(run: Run, into: Into) -> Listed | None:
    """What the page says of a run that has ended, but for our keys, and for tags and notes, where we write as well."""
    if _STATES.get(run.state, "running") == "running":
        return None
    summary = dict(run.summary_metrics or {})
    told = {
        "state": run.state,
        "last sign of life": run.heartbeat_at,
        "config": {key: value for key, value in run.rawconfig.items() if key != OUR_NAME},
        "summary": {key: value for key, value in summary.items() if not key.startswith(PREFIX)},
    }
    return Listed.of(told, _annotation(summary, run.id, into))


def _annotation(summary: Mapping[str, Any], run_id: str, into: Into) -> AnnotationState | None:
    """What the marks on the run itself tell; they are there whether the rest is there too or in an audit run."""
    started, finished, where = (summary.get(key) for key in (STARTED, FINISHED, AUDIT_RUN))
    if not isinstance(started, str) or not isinstance(finished, str):
        return None
    is_ours = where is None or (where == run_id) == (into == "run")
    return AnnotationState.of_marks(started, finished) if is_ours else None


def _listed(connection: WandbConnection, project: str, condition: dict[str, Any]) -> list[Run]:
    """The runs of `project` that pass the filter, each once, oldest first; runs may come and go between two pages."""
    try:
        with connection.errors():
            runs = list({run.id: run for run in connection.runs(project, condition, _PAGE)}.values())
    except UsageError as error:
        if not condition:
            raise
        raise UsageError(f"`filter` was refused: {error.what}", next_step=_HOW_TO_FILTER) from None
    except NotFoundError:
        raise _no_project(connection, project) from None
    return sorted(runs, key=lambda run: (str(run.created_at), run.id))


def _named(
    connection: WandbConnection, projects: list[str], selection: Selection, condition: dict[str, Any]
) -> list[tuple[str, Run]]:
    found = [_one_named(connection, projects, selection.container, run_id) for run_id in selection.run_ids]
    for _, run in found:
        audited = audited_by(run)
        if audited is not None:
            raise UsageError(
                "spectral-edge made this run for the results of an audit.",
                run=run.id,
                next_step=f"name the run that was audited: {audited}.",
            )
    if not condition:
        return found
    names = {"name": {"$in": [run.id for _, run in found]}}  # what W&B calls the name of a run is its id
    passing = {
        (project, run.id)
        for project in {project for project, _ in found}
        for run in _listed(connection, project, {"$and": [condition, names]})
    }
    return [(project, run) for project, run in found if (project, run.id) in passing]


def _one_named(connection: WandbConnection, projects: list[str], container: str, run_id: str) -> tuple[str, Run]:
    for project in projects:
        try:
            return project, connection.run(project, run_id)
        except NotFoundError:
            continue
    raise NotFoundError(f"there is no such run in {container} at {connection.address}.", run=run_id)


def _meant_projects(connection: WandbConnection, container: str) -> list[str]:
    """The projects, as ENTITY/PROJECT, whose name is that of `container` or, when none has it, matches it."""
    entity, _, pattern = container.partition("/")
    if not set(pattern) & set("*?["):
        return [container]
    names = connection.projects(entity)
    meant = [name for name in names if name == pattern] or sorted(n for n in names if fnmatchcase(n, pattern))
    if not meant:
        raise NotFoundError(
            f"no project of {entity} has a name that matches {pattern!r} at {connection.address}.",
            next_step=_choose(names, pattern),
        )
    return [f"{entity}/{name}" for name in meant]


def _no_project(connection: WandbConnection, project: str) -> NotFoundError:
    entity, _, name = project.partition("/")
    what = f"there is no project {project!r} at {connection.address}, or it is not shown to this user."
    try:
        names = connection.projects(entity)
    except NotFoundError:
        return NotFoundError(what, next_step=f"name an entity (user or team) that exists; {entity!r} is none.")
    return NotFoundError(what, next_step=_choose(names, name))


def _choose(names: list[str], wanted: str) -> str | None:
    near = get_close_matches(wanted, names, n=5, cutoff=0.3) or names[:5]
    return f"choose one of {', '.join(near)}." if near else None


_HOW_TO_FILTER: Final = (
    'write a JSON object in the words of W&B, such as \'{"config.optimizer": "adamw", "tags": {"$in": ["vision"]}}\'.'
)


def _condition(text: str | None) -> dict[str, Any]:
    """The user's filter as an object.

    Raises:
        UsageError: It is none.
    """
    if text is None:
        return {}
    try:
        read = json.loads(text)
    except ValueError as error:
        raise UsageError(f"`filter` {text!r} is no JSON: {error}.", next_step=_HOW_TO_FILTER) from None
    if not isinstance(read, dict):
        raise UsageError(f"`filter` {text!r} is no JSON object.", next_step=_HOW_TO_FILTER)
    return read


def _time(text: str | None) -> datetime | None:
    """W&B writes UTC, with a zone or without."""
    if not text:
        return None
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)
