"""A server that asks who is there, and three people it knows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from servers import mlflow_server
from werkzeug.security import generate_password_hash

User = tuple[str, str]
ADMIN: User = ("admin", "a-long-admin-password")
READER: User = ("reader", "a-long-reader-password")
EDITOR: User = ("editor", "a-long-editor-password")


def log_in(monkeypatch: pytest.MonkeyPatch, user: User) -> None:
    """Let MLflow's client be `user`."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", user[1])


@contextmanager
def guarded_server(folder: Path, backend: str, *options: str, env: Mapping[str, str]) -> Iterator[str]:
    """`mlflow server` with basic authentication: READER may only read, EDITOR edit but not delete."""
    config = folder / "auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
    )
    login = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for these tests",
    }
    with mlflow_server(folder, backend, "--app-name", "basic-auth", *options, env={**env, **login}) as address:
        for name, password in (READER, EDITOR):
            ask(address, "2.0/mlflow/users/create", username=name, password=password)
        role = ask(address, "3.0/mlflow/roles/create", workspace="default", name="editors")["role"]["id"]
        grant = {"role_id": role, "resource_type": "experiment", "resource_pattern": "*", "permission": "EDIT"}
        ask(address, "3.0/mlflow/roles/permissions/add", **grant)
        ask(address, "3.0/mlflow/roles/assign", username=EDITOR[0], role_id=role)
        _hash_quickly(folder / "auth.db")
        yield address


def ask(address: str, what: str, **told: object) -> Any:
    """What the server answers its administrator."""
    answer = requests.post(f"{address}/api/{what}", json=told, auth=ADMIN, timeout=30)
    answer.raise_for_status()
    return answer.json()


def _hash_quickly(database: Path) -> None:
    """The server hashes the password at every request, several times; the usual hash takes a fifth of a second."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for name, password in (ADMIN, READER, EDITOR):
            quick = generate_password_hash(password, method="pbkdf2:sha256:1")
            done = connection.execute("update users set password_hash = ? where username = ?", (quick, name))
            assert done.rowcount == 1
