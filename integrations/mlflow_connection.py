"""One tracking URI: reaching it, its client, and the places its artifacts lie in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.entities.paged_list import PagedList
from mlflow.tracking import get_tracking_uri
from mlflow.utils.rest_utils import MlflowHostCreds, http_request
from sqlalchemy.engine import make_url

from integrations.credentials import MlflowAccess
from integrations.http_errors import without_secrets
from integrations.mlflow_access import AccessClient, host_creds, repository
from integrations.mlflow_errors import mlflow_errors
from integrations.mlflow_http import set_defaults
from integrations.tracker import OUR_NAME
from spectral_edge.checkpoints import DCP_METADATA
from spectral_edge.errors import NotFoundError, TrackerUnavailableError

T = TypeVar("T")

_CONNECT_SECONDS: Final = 5
_DATABASE_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_MAX_DEPTH: Final = 12
"""Folders below an artifact root that are listed; deeper ones are a loop of links rather than a layout."""


class MlflowConnection:
    """Reaches one tracking URI.

    Args:
        tracking_uri: A database, folder or server; None takes MLFLOW_TRACKING_URI, or MLflow's own default.
        access: Who we are to it, and where it is, in place of `tracking_uri`; None is what the environment says.
    """

    def __init__(self, tracking_uri: str | None = None, access: MlflowAccess | None = None) -> None:
        self.access: Final = access
        self._given = tracking_uri or get_tracking_uri() if access is None else access.uri
        self.reached_stores: Final[dict[str, bool]] = {}
        """By address of a server: whether files come from the store behind it, as found at the first of them."""

    @cached_property
    def uri(self) -> str:
        """The tracking URI as it was given; it may hold a password, and does where `access` has one for a database.

        Raises:
            AccessDeniedError: The password is not where it should be.
        """
        if self.access is None or self.access.password is None or self.is_server:
            return self._given
        with self.errors():
            url = make_url(self._given)
        url = url.set(username=self.access.name or url.username, password=self.access.password.reveal())
        return url.render_as_string(hide_password=False)

    def host_creds(self, host: str) -> MlflowHostCreds:
        """What is sent to `host`, an address of this server."""
        return host_creds(self.access, host)

    @property
    def address(self) -> str:
        """The tracking URI without its secrets, for people."""
        return without_secrets(self._given)

    @property
    def is_server(self) -> bool:
        """Whether the URI names an MLflow server."""
        return urlsplit(self._given).scheme in {"http", "https"}

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client, made at the first use, once the tracking URI is known to answer.

        Raises:
            TrackerUnavailableError: Nothing answered within seconds.
            NotFoundError: The database file or folder does not exist; MLflow would create an empty one.
        """
        set_defaults()
        self._reach()
        with self.errors():
            if self.access is not None and self.is_server:
                return AccessClient(self.uri, self.access)
            return MlflowClient(self.uri)

    @cached_property
    def s3(self) -> Any:
        """A client for artifacts on S3, of boto3, made at the first use.

        Raises:
            ImportError: boto3 is not installed.
        """
        from integrations.s3_client import s3_client  # noqa: PLC0415 - needs boto3, which not everybody has

        return s3_client()

    def errors(self, *, run: str | None = None, file: str | None = None) -> AbstractContextManager[None]:
        """Turn what MLflow raises inside the block into our errors."""
        told = {} if self.access is None else {"credentials": self.access.places}
        password = unquote(urlsplit(self._given).password or "")
        return mlflow_errors(self.address, run=run, file=file, password=password, **told)

    def artifacts(self, root: str) -> ArtifactRoot:
        """The artifacts below the URI `root`."""
        return ArtifactRoot(self.uri, root, self.access)

    def _reach(self) -> None:
        # Without this a host that drops packets costs MLflow's request time-out (two minutes) for each of its tries,
        # and a database that is down about a hundred seconds.
        scheme = urlsplit(self.uri).scheme
        if self.is_server:
            with self.errors():
                http_request(
                    self.host_creds(self.uri),
                    "/health",
                    "GET",
                    max_retries=0,
                    timeout=_CONNECT_SECONDS,
                    retry_codes=(),  # any answer will do: a server that is busy is asked again by what comes next
                )
        elif scheme in {"", "file"}:
            _must_exist(_path_of(self.uri), self.address)
        elif scheme.partition("+")[0] in {"sqlite", *_DATABASE_PORTS}:
            self._reach_database()

    def _reach_database(self) -> None:
        with self.errors():
            url = make_url(self.uri)
        if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
            _must_exist(Path(url.database), self.address)
        port = url.port or _DATABASE_PORTS.get(url.get_backend_name())
        if url.host is None or port is None:
            return
        try:
            socket.create_connection((url.host, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise TrackerUnavailableError(
                f"no database answered at {self.address}: {error}.",
                next_step="see whether the database is up, then start the same audit again.",
            ) from error


@dataclass(frozen=True)
class ArtifactRoot:
    """The artifacts of one run or logged model. Paths are relative to `uri`."""

    tracking_uri: str
    uri: str
    access: MlflowAccess | None = None

    @property
    def folder(self) -> Path | None:
        """Where the artifacts lie on this machine; None when they lie elsewhere."""
        return _path_of(self.uri) if urlsplit(self.uri).scheme in {"", "file"} else None

    def files(self, below: str | None = None, depth: int = 0) -> Iterator[FileInfo]:
        """All files, recursively, but our own and hidden ones; a checkpoint's metadata is not counted as hidden."""
        for entry in self.repository.list_artifacts(below):
            name = entry.path.rpartition("/")[2]
            hidden = name.startswith(".") and (entry.is_dir or name != DCP_METADATA)
            if hidden or entry.path in (below, OUR_NAME):
                continue
            if not entry.is_dir:
                yield entry
            elif depth < _MAX_DEPTH:
                yield from self.files(entry.path, depth + 1)

    @cached_property
    def repository(self) -> ArtifactRepository:
        """MLflow's own way to them."""
        return repository(self.uri, self.tracking_uri, self.access)


def every_page(page_of: Callable[[str | None], PagedList[T]]) -> list[T]:
    """All entries of a listing that comes in pages; `page_of` takes the token of the page, None for the first."""
    page = page_of(None)
    found = list(page)
    while page.token:
        page = page_of(page.token)
        found += page
    return found


def _path_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)


def _must_exist(path: Path, address: str) -> None:
    if not path.exists():
        raise NotFoundError(
            f"there is no MLflow store at {address}.",
            file=str(path),
            next_step="set MLFLOW_TRACKING_URI to the store that the runs were logged to.",
        )
