"""A W&B run of its own for what an audit found, beside the audited one, which it leaves untouched.

It is found again by its group, the id of the audited run, and by its configuration. It is written once and never added
to: W&B cannot replace a row of a history, so another annotation gets another audit run, and one that was left half
written by a crash is deleted. It counts only when the server has been asked for it and has told all of it: the SDK
reports success even where the server took nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import wandb
from wandb.apis.public import Run
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from integrations.scratch import scratch_folder
from integrations.tracker import OUR_NAME, Annotation, TrackedRun
from integrations.wandb_artifacts import is_model
from integrations.wandb_connection import WandbConnection
from integrations.wandb_errors import FOREIGN
from integrations.wandb_page import LIVE, service
from integrations.wandb_results import (
    ARTIFACT_TYPE,
    FINISHED,
    STARTED,
    STEP,
    log_results,
    quiet_settings,
    refuse_others_context,
    rows_of,
    silence,
)
from integrations.wandb_runs import AUDIT_JOB, AUDIT_OF, audited_by
from spectral_edge.errors import NotFoundError, RunBusyError, SpectralEdgeError, TrackerUnavailableError

SILENCE: Final = 120.0
"""Seconds without a sign of life after which a half-written audit run counts as that of a process that was killed."""
PATIENCE: Final = 300.0
"""Seconds to wait for another process that writes an audit run of the same run."""
ARRIVAL: Final = 60.0
"""Seconds after the upload within which all of it must be there: servers take some time to show what they took."""
_PAUSE: Final = 5.0
_PAGE: Final = 50
_TRIES: Final = 3
_MOST_ATTEMPTS: Final = 1000
_TAGS: Final = ("spectral-edge",)
_DELETED: Final = "previously created and deleted"
"""In what W&B says of an id that it will not take again."""
_CREATE: Final = """
mutation UpsertBucket(
    $entity: String!, $project: String!, $name: String!, $displayName: String, $groupName: String,
    $jobType: String, $tags: [String!], $config: JSONString
) {
    upsertBucket(input: {
        entityName: $entity, modelName: $project, name: $name, displayName: $displayName, groupName: $groupName,
        jobType: $jobType, tags: $tags, config: $config
    }) { bucket { id } inserted }
}
"""


@dataclass(frozen=True)
class AuditRun:
    """An audit run that is complete on the server; `is_new` when it was made just now."""

    id: str
    url: str
    is_new: bool


def audit_runs(connection: WandbConnection, run: TrackedRun) -> list[Run]:
    """The audit runs of `run`, oldest first, read fresh."""
    filters = {"group": run.key.run_id, "jobType": AUDIT_JOB}
    with connection.errors(run=run.key.run_name):
        found = list(connection.runs(run.key.project, filters, _PAGE))
    ours = (made for made in found if audited_by(made) == run.key.run_id)
    return sorted(ours, key=lambda made: (str(made.created_at), made.id))


def finished_mark(made: Run) -> str | None:
    """The mark of the annotation that an audit run says it holds, all of it; None for one left half written."""
    told = made.summary_metrics or {}
    mark = told.get(STARTED)
    return mark if isinstance(mark, str) and mark == told.get(FINISHED) and made.state == "finished" else None


def write_audit_run(connection: WandbConnection, run: TrackedRun, annotation: Annotation) -> AuditRun:
    """The audit run of `run` that holds `annotation`, made where there is none.

    Raises:
        AccessDeniedError: We may read but not write.
        RunBusyError: Another process makes one for longer than `PATIENCE`.
        TrackerUnavailableError: The server did not answer, or does not have all that was sent.
    """
    for _ in range(_TRIES):
        there = settled_audit_runs(connection, run)
        for made in there:
            if finished_mark(made) == annotation.mark and not _missing(connection, run, made.id, annotation):
                return AuditRun(made.id, made.url, is_new=False)
        for made in there:
            if finished_mark(made) in (None, annotation.mark):
                delete_audit_run(connection, run, made)
        audit_id = _made(connection, run, annotation)
        if audit_id is not None:
            _verify(connection, run, audit_id, annotation)
            return AuditRun(audit_id, connection.run(run.key.project, audit_id).url, is_new=True)
    raise _busy(run)


def settled_audit_runs(connection: WandbConnection, run: TrackedRun) -> list[Run]:
    """The audit runs of `run` when none is being written: each is complete, or its writer is gone.

    No clock of another machine is read: a writer is gone when its last sign of life has not changed for `SILENCE`.

    Raises:
        RunBusyError: One is still being written after `PATIENCE`.
    """
    begin, signs = time.monotonic(), dict[tuple[str, str], float]()
    while True:
        found, now = audit_runs(connection, run), time.monotonic()
        live = [(made.id, str(made.heartbeat_at)) for made in found if made.state in LIVE]
        if all(now - signs.setdefault(sign, now) >= SILENCE for sign in live):
            return found
        if now - begin > PATIENCE:
            raise _busy(run)
        time.sleep(min(SILENCE / 4, _PAUSE))


def delete_audit_run(connection: WandbConnection, run: TrackedRun, made: Run) -> None:
    """Delete an audit run of `run`, and the artifacts that it logged."""
    with suppress(NotFoundError), connection.errors(run=run.key.run_name):
        made.delete(delete_artifacts=True)


def _made(connection: WandbConnection, run: TrackedRun, annotation: Annotation) -> str | None:
    """Id of a new audit run; None where another process has just made the same."""
    audit_id = _claimed(connection, run, annotation)
    if audit_id is None:
        return None
    model = _last_model(connection, run)
    refuse_others_context()
    with scratch_folder("wandb") as folder, connection.errors(run=run.key.run_name):
        settings = quiet_settings(
            folder,
            **online(connection, run),
            resume="allow",
            run_id=audit_id,
            run_name=_name(run),
            run_group=run.key.run_id,
            run_job_type=AUDIT_JOB,
            run_tags=_TAGS,
        )
        opened = opened_run(run, settings, _config(run, annotation))
        with ended(opened):
            if model is not None:
                opened.use_artifact(model)
            log_results(opened, annotation, run.key.run_id, folder / "files")
    return audit_id


def _claimed(connection: WandbConnection, run: TrackedRun, annotation: Annotation) -> str | None:
    """Create the audit run, recognisable as such from its first moment; None where a run of that id is there.

    Not left to the SDK, which sends a refused id again for a minute, and cannot tell whether it was first.
    """
    entity, _, project = run.key.project.partition("/")
    config = {key: {"value": value} for key, value in _config(run, annotation).items()}
    told: dict[str, object] = {
        "entity": entity,
        "project": project,
        "displayName": _name(run),
        "groupName": run.key.run_id,
        "jobType": AUDIT_JOB,
        "tags": list(_TAGS),
        "config": json.dumps(config),
    }
    # With the project: the SDK cannot write two runs of one id at a time, wherever they are.
    mark = hashlib.sha256(f"{run.key.project} {run.key.run_id} {annotation.mark}".encode()).hexdigest()[:16]
    for attempt in range(1, _MOST_ATTEMPTS):
        told["name"] = f"spectral-{mark}" if attempt == 1 else f"spectral-{mark}-{attempt}"
        try:
            with connection.errors(run=run.key.run_name):
                answer: dict[str, Any] = service(connection).execute_graphql(_CREATE, told)
        except SpectralEdgeError as error:
            if _DELETED not in str(error):
                raise
            continue
        return str(told["name"]) if answer["upsertBucket"]["inserted"] else None
    return None


def _config(run: TrackedRun, annotation: Annotation) -> dict[str, Any]:
    ours = {AUDIT_OF: run.key.run_id, "audit_of_url": run.url}
    made_of = {"fingerprint": annotation.fingerprint, "settings_hash": annotation.settings_hash}
    return {OUR_NAME: {**ours, **made_of}}


def _name(run: TrackedRun) -> str:
    return f"spectral-edge {run.key.run_name}"[:128]


def online(connection: WandbConnection, run: TrackedRun) -> dict[str, Any]:
    """Settings of a run beside `run`, on the server that the connection reaches."""
    silence()
    entity, _, project = run.key.project.partition("/")
    server = {"base_url": connection.api.settings["base_url"], "api_key": connection.key or None}
    return {"mode": "online", "entity": entity, "project": project, **server}


def opened_run(run: TrackedRun, settings: wandb.Settings, config: dict[str, Any] | None = None) -> wandb.Run:
    """Open a run for an audit of `run`.

    Raises:
        RunBusyError: This process writes a run of the same id, be it in another project: the SDK knows runs by id.
    """
    try:
        return wandb.init(settings=settings, config=config)
    except ServerResponseError as error:
        if "is in use" not in str(error):
            raise
        raise _busy(run) from None


@contextmanager
def ended(run: wandb.Run, exit_code: int = 0) -> Iterator[None]:
    """Finish `run` when the block is left: as failed, without a further word, when that was by an exception."""
    done = False
    try:
        yield
        run.finish(exit_code=exit_code)
        done = True
    finally:
        if not done:
            with suppress(*FOREIGN):
                run.finish(exit_code=1)


def _last_model(connection: WandbConnection, run: TrackedRun) -> wandb.Artifact | None:
    """The last model that the run logged; the audit run will be shown to have used it."""
    with connection.errors(run=run.key.run_name):
        logged = connection.run(run.key.project, run.key.run_id, run.key.run_name).logged_artifacts()
        models = [(str(artifact.created_at), place, artifact) for place, artifact in enumerate(logged)]
        return max((model for model in models if is_model(model[2].type)), default=(None, None, None))[2]


def _verify(connection: WandbConnection, run: TrackedRun, audit_id: str, annotation: Annotation) -> None:
    begin = time.monotonic()
    while missing := _missing(connection, run, audit_id, annotation):
        if time.monotonic() - begin >= ARRIVAL:
            raise TrackerUnavailableError(
                f"W&B at {connection.address} reported no error, and does not have {', '.join(missing)}.",
                run=run.key.run_name,
                left_behind=f"the unfinished audit run {audit_id}",
                next_step="start the same audit again; it replaces that run.",
            )
        time.sleep(min(ARRIVAL / 10, _PAUSE))


def _missing(connection: WandbConnection, run: TrackedRun, audit_id: str, annotation: Annotation) -> list[str]:
    """What the server does not have of an audit run that should hold `annotation`."""
    try:
        made = connection.run(run.key.project, audit_id)
    except NotFoundError:
        return [f"the audit run {audit_id}"]
    with connection.errors(run=run.key.run_name):
        wanted, rows = list(rows_of(annotation)), _steps(made)
        missing = [] if rows == wanted else [f"the {len(wanted)} rows of its series ({len(rows)} are there)"]
        if annotation.files and not any(
            logged.type == ARTIFACT_TYPE and logged.state == "COMMITTED" for logged in made.logged_artifacts()
        ):
            missing.append("the artifact with its files")
        if finished_mark(made) != annotation.mark:
            missing.append("the mark that it is finished")
    return missing


def _steps(made: Run) -> list[Any]:
    """The training steps that the rows of its series are of, sorted."""
    return sorted(row[STEP] for row in made.scan_history(keys=[STEP], use_cache=False))


def _busy(run: TrackedRun) -> RunBusyError:
    return RunBusyError(
        "another process, or another audit of this one, writes to this run or to its audit run.",
        run=run.key.run_name,
        next_step="run the same command again when it has finished.",
    )
