"""A child run of the audited one that takes the results, for those who do not want their runs touched.

It is found again by its tag `AUDIT_OF`. Two processes that make one at the same time are kept apart like two writers
(mlflow_lease.py): each makes its own and only then looks for others; who sees another's deletes its own. A child is
made with a lease of its maker on it, so that nobody writes to one that may still be deleted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace as replace_fields
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from integrations.mlflow_annotations import write_annotation
from integrations.mlflow_connection import MlflowConnection, every_page
from integrations.mlflow_lease import leased, new_token
from integrations.mlflow_tags import LEASE_PREFIX, require_active
from integrations.tracker import AUDIT_OF, Annotation, WriteReceipt
from spectral_edge.errors import NotFoundError, RunBusyError, SpectralEdgeError

CHILD_NAME: Final = "spectral-edge"
ADVICE: Final = (
    "Deleted child runs stay in MLflow's trash, from where `mlflow runs restore` brings them back, until `mlflow gc` "
    "removes them and their metric points for good."
)
_TRIES: Final = 10
_PAUSE: Final = (0.1, 0.5)


def child_of(connection: MlflowConnection, audited: Run) -> Run | None:
    """The run that carries the results of `audited`: the oldest, if there is any."""
    return next(iter(_children(connection.client, audited)), None)


def write_to_child(
    connection: MlflowConnection, audited: Run, annotation: Annotation, *, replace: bool
) -> WriteReceipt:
    """Write `annotation` to the child of `audited`, which is made where there is none; `audited` is only read.

    Raises:
        NotFoundError: The audited run has been deleted.
        AnnotationConflictError: See `Tracker.annotate`.
        RunBusyError: Another process writes to the child, or makes and deletes children all the time.
    """
    require_active(audited)
    client, begin = connection.client, audited.info.start_time
    for _ in range(_TRIES):
        token = new_token()
        child = child_of(connection, audited) or _made(client, audited, token)
        if child is None:
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311 - spreads requests, keeps no secret
            continue
        try:
            if child.info.status == "RUNNING":  # made just now, or by a process that was killed
                client.set_terminated(child.info.run_id)
            receipt = write_annotation(client, child, annotation, replace=replace, begin=begin, token=token)
        except (NotFoundError, MlflowException):
            if client.get_run(child.info.run_id).info.lifecycle_stage == "active":
                raise
            continue  # its maker, or a person, has deleted it meanwhile
        except SpectralEdgeError as error:
            error.run = audited.info.run_name  # the name of the child says nothing
            raise
        return replace_fields(receipt, warnings=(*receipt.warnings, *_surplus(client, audited)))
    raise RunBusyError(
        "other audits make and delete child runs of this run all the time.",
        run=audited.info.run_name,
        left_behind="nothing was written",
        next_step="run the same command again when they have finished.",
    )


def take_back_children(connection: MlflowConnection, audited: Run, *, dry_run: bool) -> tuple[str, ...]:
    """Delete the runs that carry results of `audited`, or only look; gives their ids.

    Raises:
        RunBusyError: Another process writes to one of them.
    """
    client, taken = connection.client, []
    for child in _children(client, audited):
        if not dry_run:
            with leased(client, child):
                pass  # who was writing has finished
            client.delete_run(child.info.run_id)
        taken.append(str(child.info.run_id))
    return tuple(taken)


def _children(client: MlflowClient, audited: Run) -> list[Run]:
    run_id = audited.info.run_id  # letters, digits, `_` and `-`: MLflow takes no other, so nothing has to be escaped
    found = every_page(
        lambda token: client.search_runs(
            [audited.info.experiment_id],
            f"tags.`{AUDIT_OF}` = '{run_id}'",
            ViewType.ACTIVE_ONLY,
            page_token=token,
        )
    )
    nested = (run for run in found if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == run_id)
    return sorted(nested, key=lambda run: (run.info.start_time, run.info.run_id))


def _made(client: MlflowClient, audited: Run, token: str) -> Run | None:
    """A new child, with a lease on it; None where another process has made one at the same time."""
    lease = f"{LEASE_PREFIX}{token}"
    tags = {MLFLOW_PARENT_RUN_ID: audited.info.run_id, AUDIT_OF: audited.info.run_id, lease: "0"}
    client.create_run(audited.info.experiment_id, tags=tags, run_name=CHILD_NAME)
    children = _children(client, audited)
    # More than one where the answer to the first request was lost and MLflow sent it again.
    ours = [child for child in children if lease in child.data.tags]
    kept = ours[:1] if len(ours) == len(children) else []
    for child in ours[len(kept) :]:
        client.delete_run(child.info.run_id)
    return kept[0] if kept else None


def _surplus(client: MlflowClient, audited: Run) -> Iterator[str]:
    others = [str(child.info.run_id) for child in _children(client, audited)[1:]]
    if others:
        yield (
            f"there are more child runs with results of this run than one; the oldest is used, and {', '.join(others)} "
            "can be deleted, as `spectral-edge retract` does with all of them."
        )
