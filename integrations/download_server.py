"""Files that an MLflow server keeps for its clients (artifact URIs `mlflow-artifacts:`).

The server hands them through, or signs the address of the file in its own store, where it is then read at the store's
speed: MLflow's own client does that too, and fails where it cannot reach the store. Here the server's own stream is
taken then, which understands ranges only where the server keeps its artifacts in a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import requests
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_S3_IGNORE_TLS
from mlflow.utils.request_utils import cloud_storage_http_request
from mlflow.utils.rest_utils import http_request

from integrations.download import Answer, Wanted
from integrations.download_digest import Digest, md5_of_etag
from integrations.download_http import answer_of, broken_connections, raise_for_status
from integrations.mlflow_connection import MlflowConnection
from spectral_edge.errors import AccessDeniedError

_FILES: Final = "/mlflow-artifacts/artifacts"
_SIGNED: Final = "/mlflow-artifacts/presigned"
_PROBE_SECONDS: Final = 5
_AS_STORED: Final = {"Accept-Encoding": "identity"}
_SWITCH: Final = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"
_IN_RANGES: Final = frozenset({206, 416, 429, 500, 502, 503, 504})
"""A store that is there, and busy or broken perhaps; 416: the file is empty."""

_GONE: Final = "RESOURCE_DOES_NOT_EXIST"
_UNSUPPORTED: Final = frozenset({404, 501})
"""A server without the service, or whose store signs no addresses."""


def server_file(connection: MlflowConnection, root: str, wanted: Wanted) -> ServerFile:
    """A file below `root`, the address that MLflow resolves the artifact URI to, read in the faster way there is.

    Raises:
        NotFoundError: The server has a store, and the file is not in it.
        AccessDeniedError: The server refuses us.
        TrackerUnavailableError: The server cannot tell at the moment.
    """
    signed = SignedFile(connection, root, wanted)
    reached = connection.reached_stores.get(signed.base)
    if reached is None:
        reached = connection.reached_stores[signed.base] = signed.is_reached()
    return signed if reached else ServerFile(connection, root, wanted)


@dataclass
class ServerFile:
    """A file as the server hands it through; a `Source`."""

    connection: MlflowConnection
    root: str
    wanted: Wanted
    in_ranges: bool = False
    digest: Digest | None = None
    """None: the server's own entity tags are no digests of the bytes, though they look like MD5."""

    @property
    def base(self) -> str:
        """The address of the server's interface."""
        return self.root.partition(_FILES)[0]

    @contextmanager
    def open(self, start: int, stop: int, etag: str | None) -> Iterator[Answer]:
        """See `Source.open`; the server starts over unless its file is still the one that `etag` tells."""
        since = {"Range": f"bytes={start}-{stop - 1}", "If-Range": etag} if start and etag else {}
        with self._errors(), broken_connections(self.wanted), self._ask(_FILES, since) as response:
            raise_for_status(response, self.wanted)
            yield answer_of(response, self.wanted)

    def _errors(self) -> AbstractContextManager[None]:
        return self.connection.errors(run=self.wanted.run, file=self.wanted.path)

    def _ask(self, service: str, headers: Mapping[str, str]) -> requests.Response:
        # Tries are counted in one place (Streams), where it is known whether bytes have come in between.
        response: requests.Response = http_request(
            self.connection.host_creds(self.base),
            f"{service}{self.root.partition(_FILES)[2]}/{quote(self.wanted.path)}",
            "GET",
            max_retries=0,
            raise_on_status=False,
            stream=True,
            extra_headers={**_AS_STORED, **headers},
        )
        return response


@dataclass
class SignedFile(ServerFile):
    """A file read from the server's store, at addresses that the server signs for some minutes; a `Source`."""

    in_ranges: bool = True

    @contextmanager
    def open(self, start: int, stop: int, etag: str | None) -> Iterator[Answer]:
        """See `Source.open`; each time the server is asked for a new address."""
        headers = {"Range": f"bytes={start}-{stop - 1}"} if stop > start else {}
        headers |= {"If-Match": etag} if etag else {}
        with self._errors(), broken_connections(self.wanted):
            with self._ask(_SIGNED, {}) as signed:
                raise_for_status(signed, self.wanted)
                address = _Address.of(signed)
            with address.get(headers, MLFLOW_HTTP_REQUEST_TIMEOUT.get()) as response:
                self._raise_for_refusal(response)
                raise_for_status(response, self.wanted)
                self.digest = address.digest(response)
                yield answer_of(response, self.wanted)

    def is_reached(self) -> bool:
        """Whether the server signs addresses, and this machine gets parts of files there; see `server_file`."""
        if os.environ.get(_SWITCH, "").lower() in {"false", "0"}:
            return False
        with self._errors(), self._ask(_SIGNED, {}) as signed:
            if signed.status_code in _UNSUPPORTED and _error_code(signed) != _GONE:
                return False
            raise_for_status(signed, self.wanted)
            address = _Address.of(signed)
        try:
            with address.get({"Range": "bytes=0-0"}, _PROBE_SECONDS) as response:
                return response.status_code in _IN_RANGES
        except requests.RequestException:
            return False

    def _raise_for_refusal(self, response: requests.Response) -> None:
        if response.status_code in {401, 403}:
            raise AccessDeniedError(
                f"the server's store refused the address that the server signed ({response.status_code}).",
                run=self.wanted.run,
                file=self.wanted.path,
                next_step=f"compare the clocks of both, or set {_SWITCH}=false to read through the server.",
            )


@dataclass(frozen=True)
class _Address:
    """Where a file lies in the server's store, signed."""

    url: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, response: requests.Response) -> _Address:
        told = response.json()
        return cls(told["url"], told.get("headers") or {})

    def get(self, headers: Mapping[str, str], seconds: int) -> requests.Response:
        response: requests.Response = cloud_storage_http_request(
            "get",
            self.url,
            max_retries=0,
            raise_on_status=False,
            stream=True,
            timeout=seconds,
            headers={**_AS_STORED, **self.headers, **headers},
            verify=not MLFLOW_S3_IGNORE_TLS.get(),
        )
        return response

    def digest(self, response: requests.Response) -> Digest | None:
        """The MD5 in the entity tag of an S3 object; other stores have tags of other kinds."""
        of_s3 = "x-amz-signature=" in self.url.lower()
        encrypted = response.headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
        return md5_of_etag(response.headers.get("ETag", "")) if of_s3 and not encrypted else None


def _error_code(response: requests.Response) -> object:
    """The code of an error of MLflow's; None when something else answered."""
    try:
        return response.json().get("error_code")
    except (requests.JSONDecodeError, AttributeError):
        return None
