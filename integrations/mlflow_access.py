"""MLflow's client with the credentials of one server, where MLflow itself has one set for the whole process.

MLflow reads MLFLOW_TRACKING_TOKEN, _USERNAME and _PASSWORD before each request, whatever server that goes to, and keeps
the artifact repositories of runs for the whole process. Audits of several servers run in one process and in threads, so
neither the environment nor anything else of the process is changed here: each client asks its own `MlflowAccess`.
"""

from __future__ import annotations

import posixpath
from functools import cache, partial
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from mlflow.tracking.request_auth.registry import _request_auth_provider_registry
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import MlflowHostCreds, http_request
from mlflow.utils.uri import validate_path_is_safe

from integrations.credentials import MlflowAccess

_AS_IT_IS = "spectral-edge"
_ARTIFACTS = "/mlflow-artifacts/artifacts"


def host_creds(access: MlflowAccess | None, host: str) -> MlflowHostCreds:
    """What MLflow sends to `host` (an address of its interface); without `access`, what the environment says.

    Raises:
        AccessDeniedError: A secret is not where it should be.
    """
    default: MlflowHostCreds = get_default_host_creds(host)
    if access is None:
        return default
    is_own = access.is_for(host)
    own = is_own and (access.token or access.password)
    return MlflowHostCreds(
        host,
        username=access.name if is_own and access.password else None,
        password=access.password.reveal() if is_own and access.password else None,
        token=access.token.reveal() if is_own and access.token else None,
        auth=_keeping_headers() if own else None,
        ignore_tls_verification=default.ignore_tls_verification and access.ca_file is None,
        client_cert_path=default.client_cert_path,
        server_cert_path=str(access.ca_file) if access.ca_file else default.server_cert_path,
    )


class AccessClient(MlflowClient):
    """MLflow's client of one server, that tells it who `access` says we are."""

    def __init__(self, uri: str, access: MlflowAccess) -> None:
        super().__init__(uri)
        self._tracking_client = _Tracking(uri, access)


class _Tracking(TrackingServiceClient):
    def __init__(self, uri: str, access: MlflowAccess) -> None:
        self._access = access
        self._own_store = RestStore(partial(host_creds, access, uri))
        super().__init__(uri)  # type: ignore[no-untyped-call]

    @property
    def store(self) -> RestStore:
        return self._own_store

    def _get_artifact_repo(self, resource_id: str, *, resource: str = "run") -> ArtifactRepository:
        """Made anew: MLflow remembers one for each id, whoever asked for it."""
        if resource == "run":
            uri = self.get_run(resource_id).info.artifact_uri  # type: ignore[no-untyped-call]
        else:
            uri = self.get_logged_model(resource_id).artifact_location
        return repository(uri, self.tracking_uri, self._access)


def repository(uri: str, tracking_uri: str, access: MlflowAccess | None) -> ArtifactRepository:
    """The artifacts at `uri`; what an MLflow server keeps is asked for with `access`."""
    made = get_artifact_repository(uri, tracking_uri=tracking_uri)
    if access is None or not isinstance(made, HttpArtifactRepository):
        return made
    return _Artifacts(uri if isinstance(made, MlflowArtifactsRepository) else made.artifact_uri, tracking_uri, access)


class _Artifacts(MlflowArtifactsRepository):
    """Artifacts behind an MLflow server. Downloads of checkpoints are not made by it: see download_server."""

    def __init__(self, uri: str, tracking_uri: str, access: MlflowAccess) -> None:
        self._access = access
        super().__init__(uri, tracking_uri=tracking_uri)

    @classmethod
    def resolve_uri(cls, artifact_uri: str, tracking_uri: str) -> str:
        """The address on a server; one that is resolved already stays."""
        if artifact_uri.startswith(("http:", "https:")):
            return artifact_uri
        return str(super().resolve_uri(artifact_uri, tracking_uri))  # type: ignore[no-untyped-call]

    @property
    def _host_creds(self) -> MlflowHostCreds:
        return host_creds(self._access, self.artifact_uri)

    # Files in several parts are asked for with the environment's credentials; ours are a few megabytes.
    def _is_multipart_upload_enabled(self) -> bool:
        return False

    def _is_multipart_download_enabled(self) -> bool:
        return False

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What lies directly in the folder `path`, by name; nothing where `path` is a file."""
        server, _, root = self.artifact_uri.partition(_ARTIFACTS)
        asked = posixpath.join(root.lstrip("/"), path or "").rstrip("/")
        answer = http_request(host_creds(self._access, server), _ARTIFACTS, "GET", params={"path": asked})
        augmented_raise_for_status(answer)
        found = [_entry(told, path) for told in answer.json().get("files", [])]
        if path and [(it.path, it.is_dir) for it in found] == [(f"{path}/{posixpath.basename(path)}", False)]:
            return []  # so servers list a single file
        return sorted(found, key=lambda entry: entry.path)


def _entry(told: dict[str, Any], path: str | None) -> FileInfo:
    name = validate_path_is_safe(told["path"])
    size = int(told["file_size"]) if "file_size" in told else None
    return FileInfo(posixpath.join(path, name) if path else name, told["is_dir"], size)


class _KeepHeaders(RequestAuthProvider):
    """Lets the header stay that MLflow makes: requests would put an entry of ~/.netrc for the host in its place."""

    def get_name(self) -> str:
        return _AS_IT_IS

    def get_auth(self) -> Any:
        return _as_it_is


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


@cache
def _keeping_headers() -> str:
    _request_auth_provider_registry.register(_KeepHeaders)
    return _AS_IT_IS
