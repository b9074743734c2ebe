"""Resolvers of viewers, projects and runs."""

from __future__ import annotations

import fnmatch
import json
import mimetypes
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from .digests import b64_digest
from .filters import matches, ordered
from .graph import Context, page, resolves
from .objects import Entity, File, Project, Run


@resolves("Query", "viewer")
def viewer(_: object, context: Context) -> dict[str, object]:
    """The user whose key is in use."""
    name = context.state.viewer.name
    teams = {"edges": [{"node": entity} for entity in context.state.entities.values()]}
    return {
        "id": "VXNlcjox",
        "name": name,
        "username": name,
        "email": f"{name}@example.org",
        "admin": False,
        "flags": "{}",
        "entity": name,
        "deletedAt": None,
        "apiKeys": {"edges": []},
        "teams": teams,
    }


@resolves("Query", "serverInfo")
def server_info(_: object, context: Context) -> dict[str, object]:
    """The features that are on."""
    features = [{"name": name, "isEnabled": True} for name in sorted(context.features)]
    return {"features": features, "cliVersionInfo": {}}


@resolves("Query", "entity")
def entity_(_: object, context: Context, name: str | None = None) -> Entity | None:
    """An entity by name."""
    return context.state.entities.get(name or context.state.viewer.name)


@resolves("Query", "organization")
def organization(_: object, _context: Context, name: str) -> None:
    """Nobody here belongs to an organization."""


@resolves("Query", "models")
def models(
    _: object, context: Context, entity_name: str | None = None, after: str | None = None, first: int | None = None
) -> dict[str, object]:
    """Projects of an entity."""
    owner = context.state.entity(entity_name or context.state.viewer.name)
    return page([p for p in context.state.projects.values() if p.entity is owner], context, after, first)


@resolves("Query", "project", "model")
def project(_: object, context: Context, name: str | None = None, entity_name: str | None = None) -> Project | None:
    """A project by name."""
    return context.state.project(entity_name or context.state.viewer.name, name or "uncategorized")


@resolves("Project", "user")
def project_user(_: Project, context: Context) -> dict[str, object]:
    """Who made the project."""
    return viewer(None, context)


def document(run: Run) -> dict[str, object]:
    """The fields of a run that filters and orders name."""
    fields = ("name", "display_name", "state", "tags", "job_type", "group", "notes", "description")
    own = {name: getattr(run, name) for name in (*fields, "created_at", "heartbeat_at", "config")}
    return {**own, "summary_metrics": run.summary, "user": run.project.entity.name, "sweep": run.sweep_name}


def _chosen(project: Project, filters: str | None) -> list[Run]:
    condition = json.loads(filters or "{}")
    return [run for run in project.runs.values() if matches(document(run), condition)]


@resolves("Project", "runCount")
def run_count(project: Project, _: Context, filters: str | None = None) -> int:
    """How many runs pass the filter."""
    return len(_chosen(project, filters))


@resolves("Project", "runs")
def runs(
    project: Project,
    context: Context,
    filters: str | None = None,
    after: str | None = None,
    first: int | None = None,
    order: str | None = None,
) -> dict[str, object]:
    """Runs that pass the filter, a page of them."""
    return page(ordered(_chosen(project, filters), order, document), context, after, first)


@resolves("Project", "run", "bucket")
def run_(project: Project, _: Context, name: str, missing_ok: bool = False) -> Run | None:
    """A run by its id."""
    return project.runs.get(name)


@resolves("Run", "projectId")
def project_id(run: Run, _: Context) -> int:
    """The project's number."""
    return int(run.project.internal_id)


@resolves("Run", "user")
def run_user(_: Run, context: Context) -> dict[str, object]:
    """Who made the run."""
    return viewer(None, context)


@resolves("Run", "config")
def config(run: Run, _: Context) -> str:
    """The config, as JSON."""
    return json.dumps(run.config)


@resolves("Run", "wandbConfig")
def wandb_config(run: Run, _: Context, keys: Sequence[str] = ()) -> str:
    """W&B's own part of the config."""
    inner = run.config.get("_wandb")
    own = inner.get("value") if isinstance(inner, Mapping) else None
    held: Mapping[str, object] = own if isinstance(own, Mapping) else {}
    return json.dumps({key: held[key] for key in keys or held if key in held})


@resolves("Run", "summaryMetrics")
def summary_metrics(run: Run, _: Context) -> str:
    """The summary, as JSON."""
    return json.dumps(run.summary)


@resolves("Run", "systemMetrics")
def system_metrics(run: Run, _: Context) -> str:
    """Last values of the machine's metrics."""
    return json.dumps(run.events[-1] if run.events else {})


@resolves("Run", "historyLineCount")
def history_line_count(run: Run, _: Context) -> int:
    """Rows of the history."""
    return len(run.history)


@resolves("Run", "eventsLineCount")
def events_line_count(run: Run, _: Context) -> int:
    """Rows of the machine's metrics."""
    return len(run.events)


@resolves("Run", "logLineCount")
def log_line_count(run: Run, _: Context) -> int:
    """Lines of the console."""
    return len(run.logs)


@resolves("Run", "logLines")
def log_lines(
    run: Run, context: Context, first: int | None = None, last: int | None = None, after: str | None = None, **_: object
) -> dict[str, object]:
    """Lines of the console."""
    lines = [
        {"number": number, "timestamp": None, "level": None, "label": None, "line": line}
        for number, line in enumerate(run.logs)
    ]
    return page(lines[-last:] if last else lines, context, after, last or first)


@resolves("Run", "files")
def files(
    run: Run,
    context: Context,
    names: Sequence[str] = (),
    after: str | None = None,
    first: int | None = None,
    pattern: str | None = None,
) -> dict[str, object]:
    """Files of a run; a name that is asked for and missing is answered by a file with the MD5 "0", as W&B does."""
    chosen = [_file(run, file, context) for name, file in run.files.items() if not names or name in names]
    chosen += [_no_file(run, name, context) for name in names if name not in run.files]
    if pattern:
        like = pattern.replace("%", "*").replace("_", "?")
        chosen = [file for file in chosen if fnmatch.fnmatchcase(str(file["name"]), like)]
    return page(chosen, context, after, first)


@resolves("File", "url")
def file_url(file: Mapping[str, object], _: Context, upload: bool = False) -> object:
    """Where the file is."""
    return file["uploadUrl"] if upload else file["url"]


@resolves("Run", "fileCount")
def file_count(run: Run, _: Context) -> int:
    """How many files the run has."""
    return len(run.files)


def run_file_path(run: Run, name: str) -> str:
    """Path of a run's file on the server, as it stands in a URL."""
    return quote(f"{run.project.entity.name}/{run.project.name}/{run.name}/{name}")


def _file(run: Run, file: File, context: Context) -> dict[str, object]:
    url = f"{context.url}/files/{run_file_path(run, file.name)}"
    return {
        "id": file.id,
        "name": file.name,
        "displayName": file.name,
        "url": url,
        "directUrl": url,
        "uploadUrl": f"{context.url}/upload/run/{run_file_path(run, file.name)}",
        "sizeBytes": len(file.data),
        "mimetype": mimetypes.guess_type(file.name)[0] or "",
        "updatedAt": file.updated_at,
        "md5": b64_digest(file.data),
        "digest": None,
        "storagePath": None,
    }


def _no_file(run: Run, name: str, context: Context) -> dict[str, object]:
    return {**_file(run, File(f"none:{name}", name, b"", ""), context), "updatedAt": None, "md5": "0"}
