"""What an MLflow server or database tells of versions, clocks and rights. Only asked, never written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mlflow
import requests
from mlflow.utils.rest_utils import http_request
from packaging.version import InvalidVersion, Version
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from integrations.file_examine import folder_finding
from integrations.finding import Finding, clock_finding
from integrations.mlflow_connection import MlflowConnection

OLDEST_SERVER: Final = Version("3")
"""Servers before it know no logged models."""

_SECONDS: Final = 5
_TABLES: Final = ("runs", "tags", "metrics", "latest_metrics")
_MAY_WRITE: Final = frozenset({"EDIT", "MANAGE"})
_UNKNOWN: Final = "cannot be known without writing"


def examine(connection: MlflowConnection, experiment_id: str | None, artifacts: str | None) -> Iterator[Finding]:
    """What can be told of the tracker.

    Args:
        connection: The tracker.
        experiment_id: The experiment that is to be written to; None where no run was found.
        artifacts: Where a run of it keeps its artifacts.

    Raises:
        SpectralEdgeError: The tracker does not answer, or refuses us.
    """
    if connection.is_server:
        yield from _server(connection)
        yield _right_on_server(connection, experiment_id)
    elif connection.uri.startswith("file:") or "://" not in connection.uri:
        root = connection.artifacts(connection.uri).folder
        yield folder_finding("write runs", root or Path(connection.uri))
    else:
        yield _right_in_database(connection)
    if artifacts is not None:
        folder = connection.artifacts(artifacts).folder
        seen = f"{_UNKNOWN}: the store of {artifacts.partition(':')[0]} artifacts tells no rights."
        yield folder_finding("write artifacts", folder) if folder else Finding("write artifacts", "unknown", seen)


def _server(connection: MlflowConnection) -> Iterator[Finding]:
    answer = _asked(connection, "/version")
    yield clock_finding("clock", answer.headers)
    try:
        found = Version(answer.text.strip()) if answer.ok else None
    except InvalidVersion:
        found = None
    if found is None:
        yield Finding("version", "unknown", "the server tells no version.")
    elif found < OLDEST_SERVER:
        advice = "checkpoints that were logged as files are found; for logged models, bring the server to MLflow 3."
        yield Finding("version", "warning", f"server {found}: it knows no logged models.", advice)
    elif found.major > Version(mlflow.__version__).major:
        seen = f"server {found}, client {mlflow.__version__}."
        yield Finding("version", "warning", seen, f'pip install "mlflow>={found.major}"')
    else:
        yield Finding("version", "ok", f"server {found}, client {mlflow.__version__}.")


def _right_on_server(connection: MlflowConnection, experiment_id: str | None) -> Finding:
    """From MLflow's own basic authentication, which tells everybody what they may do."""
    answer = _asked(connection, "/api/3.0/mlflow/users/current/permissions")
    if not answer.ok:
        seen = f"{_UNKNOWN}: this server does not tell what its users may do ({answer.status_code})."
        return Finding("write", "unknown", seen)
    told: dict[str, Any] = answer.json()
    if told.get("is_admin"):
        return Finding("write", "ok", "the user is an administrator.")
    of_ours = [it for it in told.get("permissions", []) if _covers(it, experiment_id)]
    granted = {str(it["permission"]) for it in of_ours}
    if granted & _MAY_WRITE:
        return Finding("write", "ok", f"the user has {' and '.join(sorted(granted & _MAY_WRITE))} on the experiment.")
    seen = (
        f"the user is granted {', '.join(sorted(granted)) or 'nothing'} on the experiment, and needs EDIT, unless the "
    )
    return Finding(
        "write",
        "warning",
        f"{seen}server's default permission is more: it does not tell that.",
        "ask the administrator for EDIT, or audit with --annotate none.",
    )


def _covers(permission: dict[str, Any], experiment_id: str | None) -> bool:
    kind, pattern = permission.get("resource_type"), permission.get("resource_pattern")
    return kind == "workspace" or (kind == "experiment" and pattern in {"*", experiment_id})


def _right_in_database(connection: MlflowConnection) -> Finding:
    url = make_url(connection.uri)
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK):
            return Finding("write runs", "ok", f"{path} is writable.")
        return Finding("write runs", "problem", f"{path} is not writable.", "check owner and mode of file and folder.")
    if url.get_backend_name() != "postgresql":
        return Finding("write runs", "unknown", f"{_UNKNOWN}: {url.get_backend_name()} is not asked for rights.")
    with connection.errors():
        engine = create_engine(url)
        try:
            with engine.connect() as asked:
                ask = text("select has_table_privilege(:name, 'INSERT') and has_table_privilege(:name, 'UPDATE')")
                lacking = [name for name in _TABLES if not asked.execute(ask, {"name": name}).scalar()]
        finally:
            engine.dispose()
    if not lacking:
        return Finding("write runs", "ok", "the database user may write.")
    seen = f"the database user may not write the tables {', '.join(lacking)}."
    return Finding("write runs", "problem", seen, "grant INSERT and UPDATE, or audit with --annotate none.")


def _asked(connection: MlflowConnection, service: str) -> requests.Response:
    with connection.errors():
        answer: requests.Response = http_request(
            connection.host_creds(connection.uri),
            service,
            "GET",
            max_retries=0,
            timeout=_SECONDS,
            raise_on_status=False,
        )
    return answer
