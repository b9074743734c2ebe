"""Which experiments of MLflow a text means: one by its name, else one by its id, else all whose names match it.

A name comes first, because names may hold `*`, `?`, `[` and digits. Patterns pass over experiments that MLflow made for
itself: those of its gateway, and its demo. Named in full, these are taken like any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

from mlflow.entities import Experiment

from integrations.mlflow_connection import MlflowConnection, every_page
from spectral_edge.errors import NotFoundError

_PAGE: Final = 1000
_GATEWAY: Final = "mlflow.experiment.isGateway"
"""Tag of an experiment that MLflow's gateway made to trace one of its endpoints."""
_DEMO: Final = "mlflow.demo.version."
"""How tags begin of the experiment that `mlflow demo` made."""


def all_experiments(connection: MlflowConnection) -> list[Experiment]:
    """Every active experiment."""
    with connection.errors():
        client = connection.client
        return every_page(lambda token: client.search_experiments(max_results=_PAGE, page_token=token))


def meant_experiments(connection: MlflowConnection, text: str) -> list[Experiment]:
    """The active experiments that `text` means, by name; at least one.

    Raises:
        NotFoundError: No experiment is named so, has that id, or matches; or it has been deleted.
    """
    with connection.errors():
        found = connection.client.get_experiment_by_name(text) or _of_id(connection, text)
    if found is not None and found.lifecycle_stage == "active":
        return [found]
    is_pattern = re.search(r"[*?\[]", text) is not None
    if found is not None and not is_pattern:
        raise NotFoundError(
            f"experiment {found.name!r} at {connection.address} has been deleted.",
            next_step="restore it with `mlflow experiments restore`.",
        )
    active = all_experiments(connection)
    matching = [it for it in active if is_pattern and fnmatchcase(it.name, text) and not _is_of_mlflow(it)]
    if not matching:
        raise _no_experiment(connection, text, active, is_pattern=is_pattern)
    return sorted(matching, key=lambda experiment: experiment.name)


def _of_id(connection: MlflowConnection, experiment_id: str) -> Experiment | None:
    if re.fullmatch(r"[0-9]{1,64}", experiment_id) is None:
        return None
    try:
        with connection.errors():
            return connection.client.get_experiment(experiment_id)
    except NotFoundError:
        return None


def _is_of_mlflow(experiment: Experiment) -> bool:
    tags = experiment.tags
    return tags.get(_GATEWAY, "").lower() == "true" or any(key.startswith(_DEMO) for key in tags)


def _no_experiment(
    connection: MlflowConnection, text: str, active: Sequence[Experiment], *, is_pattern: bool
) -> NotFoundError:
    names = [experiment.name for experiment in active]
    listed = ", ".join(repr(name) for name in get_close_matches(text, names, n=3) or sorted(names)[:10])
    lacking = f"whose name matches {text!r}" if is_pattern else f"named {text!r}, nor one with that id,"
    return NotFoundError(
        f"there is no experiment {lacking} at {connection.address}.",
        next_step=f"choose one of: {listed}." if listed else "log a run first; there is no experiment at all.",
    )
