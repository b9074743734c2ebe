"""Resolvers that write projects, runs and their files."""

from __future__ import annotations

import json
from typing import Any

from .graph import Context, resolves
from .objects import Run, now
from .queries import run_file_path
from .state import RefusedError

Input = dict[str, Any]
DONE = {"success": True}
TEXTS = {
    "groupName": "group",
    "description": "description",
    "displayName": "display_name",
    "notes": "notes",
    "commit": "commit",
    "jobType": "job_type",
    "state": "state",
    "tags": "tags",
    "sweep": "sweep_name",
}


@resolves("Mutation", "upsertModel")
def upsert_model(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002  (the schema's name)
    """Make or change a project."""
    entity, name = input.get("entityName") or context.state.viewer.name, input.get("name") or "uncategorized"
    inserted = context.state.project(entity, name) is None
    project = context.state.make_project(entity, name)
    for field in ("description", "access", "views"):
        if input.get(field) is not None:
            setattr(project, field, input[field])
    return {"project": project, "model": project, "inserted": inserted}


@resolves("Mutation", "upsertBucket")
def upsert_bucket(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002
    """Make or change a run; what is not given stays."""
    run, inserted = _bucket(context, input)
    if input.get("config") is not None:
        run.config = json.loads(input["config"])
    if input.get("summaryMetrics") is not None:
        run.summary = json.loads(input["summaryMetrics"])
    for given, name in TEXTS.items():
        if input.get(given) is not None:
            setattr(run, name, input[given])
    return {"bucket": run, "inserted": inserted}


def _bucket(context: Context, asked: Input) -> tuple[Run, bool]:
    if asked.get("id"):
        found = context.state.run_of_storage_id(asked["id"])
        if found is None:
            raise RefusedError(404, "run not found during upsertBucket")
        return found, False
    entity, project = asked.get("entityName") or context.state.viewer.name, asked.get("modelName") or "uncategorized"
    if entity not in context.state.entities:
        raise RefusedError(404, f"entity {entity} not found during upsertBucket")
    home = context.state.project(entity, project)
    name = asked.get("name") or context.state.new_id("name")[-8:].strip("=").lower()
    if home is not None and name in home.runs:
        return home.runs[name], False
    return context.state.make_run(entity, project, name), True


@resolves("Mutation", "updateRunState")
def update_run_state(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """Set a run's state."""
    _run(context, input["id"]).state = input["state"]
    return DONE


@resolves("Mutation", "stopRun")
def stop_run(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """Ask a run to stop."""
    _run(context, input["id"]).stopped = True
    return DONE


@resolves("Mutation", "deleteRun")
def delete_run(_: object, context: Context, input: Input) -> dict[str, None]:  # noqa: A002
    """Delete a run; its id stays taken."""
    context.state.delete_run(_run(context, input["id"]), artifacts=bool(input.get("deleteArtifacts")))
    return {"clientMutationId": None}


def _run(context: Context, storage_id: str) -> Run:
    found = context.state.run_of_storage_id(storage_id)
    if found is None:
        raise RefusedError(404, "run not found")
    return found


@resolves("Mutation", "createRunFiles")
def create_run_files(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002
    """Addresses to put files of a run to."""
    run = context.state.run(input["entityName"], input["projectName"], input["runName"])
    base = f"{context.url}/upload/run"
    files = [{"name": name, "uploadUrl": f"{base}/{run_file_path(run, name)}"} for name in input["files"]]
    return {"runID": run.id, "uploadHeaders": [], "files": files}


@resolves("Mutation", "markRunFilesUploaded")
def mark_run_files_uploaded(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """The files are there, says the client."""
    run = context.state.run(input["entityName"], input["projectName"], input["runName"])
    missing = [name for name in input["files"] if name not in run.files]
    if missing:
        raise RefusedError(404, f"files were not uploaded: {', '.join(missing)}")
    return DONE


@resolves("Mutation", "deleteFiles")
def delete_files(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """Delete files of runs by their ids."""
    for run in context.state.runs():
        run.files = {name: file for name, file in run.files.items() if file.id not in input["files"]}
    return DONE


@resolves("Mutation", "notifyScriptableRunAlert")
def alert(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """Remember an alert."""
    run = context.state.run(input["entityName"], input["projectName"], input["runName"])
    run.alerts.append({**input, "createdAt": now()})
    return DONE
