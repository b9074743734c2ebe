"""Our tags on an MLflow run: their names, and deleting them so that it can be repeated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from integrations.tracker import AUDIT_OF, OUR_NAME
from spectral_edge.errors import NotFoundError

TAG_PREFIX: Final = f"{OUR_NAME}."
STARTED: Final = f"{OUR_NAME}.annotating"
FINISHED: Final = f"{OUR_NAME}.annotated"
LEASE_PREFIX: Final = f"{OUR_NAME}.lease."
"""Begins the tags by which one process at a time writes to a run; a random word follows (mlflow_lease.py)."""


def our_tags(run: Run) -> tuple[str, ...]:
    """The tags that an annotation has put on `run`, its marks included, sorted; neither leases nor `AUDIT_OF`."""
    keys = (key for key in run.data.tags if key.startswith(TAG_PREFIX) and not key.startswith(LEASE_PREFIX))
    return tuple(sorted(key for key in keys if key != AUDIT_OF))


def leases(run: Run) -> dict[str, str]:
    """The leases on `run`."""
    return {key: value for key, value in run.data.tags.items() if key.startswith(LEASE_PREFIX)}


def delete_tags(client: MlflowClient, run_id: str, keys: Iterable[str]) -> None:
    """Delete tags; one that is gone already is no error: another process, or an earlier try of this request, did it."""
    for key in keys:
        try:
            client.delete_tag(run_id, key)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise


def require_active(run: Run) -> None:
    """Stop where `run` has been deleted: MLflow takes no tags for it, but would still take files, silently.

    Raises:
        NotFoundError: It has.
    """
    if run.info.lifecycle_stage != "active":
        raise NotFoundError(
            "the run has been deleted.", run=run.info.run_name, next_step="restore it, then run the same command again."
        )
