"""What MLflow raises, in our words: who may try again, and what to do.

MLflow raises its own exceptions, and lets those of requests, SQLAlchemy, boto3 and the operating system through. Each
becomes one error of spectral_edge.errors. Passwords in tracking URIs and signatures in artifact URLs are cut out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from integrations.file_errors import from_os_error, no_room, says_no_room
from integrations.http_errors import kind_of_status, without_secrets
from spectral_edge.errors import (
    AccessDeniedError,
    NotFoundError,
    SpectralEdgeError,
    TrackerUnavailableError,
    UsageError,
)

CREDENTIALS: Final = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)"
"""Where MLflow itself looks for them."""

_NOT_THERE: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_REFUSED: Final = frozenset({"PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"})
_TRY_AGAIN: Final = frozenset(
    {
        "ABORTED",
        "CANCELLED",
        "COULD_NOT_ACQUIRE_LOCK",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "INTERNAL_ERROR",
        "INVALID_STATE",
        "IO_ERROR",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_CONFLICT",
        "RESOURCE_EXHAUSTED",
        "SERVICE_UNDER_MAINTENANCE",
        "TEMPORARILY_UNAVAILABLE",
        "UNPARSEABLE_HTTP_ERROR",
        "WORKSPACE_TEMPORARILY_UNAVAILABLE",
    }
)
_OUR_REQUEST: Final = frozenset(
    {
        "ALREADY_EXISTS",
        "BAD_REQUEST",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE_TRANSITION",
        "MALFORMED_REQUEST",
        "NOT_IMPLEMENTED",
        "QUOTA_EXCEEDED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_LIMIT_EXCEEDED",
    }
)
# Databricks services beside tracking (notebooks, Git, Unity Catalog) share MLflow's list of codes; a tracking server
# never sends those, and one that did would be taken as a wrong request.
CODES: Final = {
    **dict.fromkeys(_NOT_THERE, NotFoundError),
    **dict.fromkeys(_REFUSED, AccessDeniedError),
    **dict.fromkeys(_TRY_AGAIN, TrackerUnavailableError),
    **dict.fromkeys(_OUR_REQUEST, UsageError),
}
"""Which of our errors each error code of MLflow's tracking API means."""

# Libraries that MLflow loads only for some artifact stores. An exception of theirs can reach us only once they are
# loaded, so looking there is enough, and none of them becomes a dependency.
_STORE_LIBRARIES: Final = (
    ("botocore.exceptions", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("boto3.exceptions", "Boto3Error"),
    ("azure.core.exceptions", "AzureError"),
    ("google.api_core.exceptions", "GoogleAPIError"),
)

# Messages that MLflow builds around another library's error, with a code that hides it.
_TELLING: Final[tuple[tuple[str, type[SpectralEdgeError], str | None], ...]] = (
    (r"Invalid Host header", AccessDeniedError, "start the server with `--allowed-hosts` naming this host."),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        UsageError,
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the server's CA file.",
    ),
    (r"out-of-date database schema", UsageError, "run `mlflow db upgrade` on that database."),
    (r"MLFLOW_ALLOW_FILE_STORE", UsageError, "set MLFLOW_ALLOW_FILE_STORE=true, or run `mlflow migrate-filestore`."),
    (r"Unable to locate credentials", AccessDeniedError, "set the credentials of the artifact store."),
    (r"password authentication failed|Access denied for user", AccessDeniedError, None),
    (
        r"\b40[13] Client Error|\((?:403|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch)\)",
        AccessDeniedError,
        None,
    ),
    (r"\b404 Client Error|\((?:404|NoSuchKey|NoSuchBucket)\)|No such artifact|No such file", NotFoundError, None),
)


@contextmanager
def mlflow_errors(
    address: str,
    *,
    run: str | None = None,
    file: str | None = None,
    password: str = "",
    credentials: str = CREDENTIALS,
) -> Iterator[None]:
    """Turn what MLflow raises inside the block into our errors.

    Args:
        address: The tracking URI without its secrets.
        run: Name of the run concerned.
        file: File or artifact concerned.
        password: The one that was in the tracking URI, which a server may repeat.
        credentials: Where those are that the server was sent.
    """
    try:
        yield
    except foreign_errors() as error:
        if isinstance(error, SpectralEdgeError):
            raise
        # `from None`: the original text may hold the password, and pipelines log whole chains.
        raise in_our_words(error, address, run=run, file=file, password=password, credentials=credentials) from None


def foreign_errors() -> tuple[type[Exception], ...]:
    """All that a call to MLflow may raise."""
    optional = tuple(getattr(sys.modules[module], name) for module, name in _STORE_LIBRARIES if module in sys.modules)
    return (MlflowException, SQLAlchemyError, OSError, ImportError, *optional)  # requests' errors are OSErrors


def in_our_words(
    error: Exception,
    address: str,
    *,
    run: str | None = None,
    file: str | None = None,
    password: str = "",
    credentials: str = CREDENTIALS,
) -> SpectralEdgeError:
    """The error of our tree that tells what `error` means."""
    text = without_secrets(str(error), password)
    if says_no_room(text):
        return no_room(_first_lines(text), run=run, file=file)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, requests.RequestException):
        return from_os_error(error, run=run, file=file)
    kind, next_step = _kind(error, text)
    what = f"MLflow at {address}: {_first_lines(text)}"
    return kind(what, run=run, file=file, next_step=next_step or _next_step(kind, credentials))


def _kind(error: Exception, text: str) -> tuple[type[SpectralEdgeError], str | None]:
    if isinstance(error, ImportError):
        return UsageError, "install that package; `pip install 'spectral-edge[postgres,s3]'` brings the usual ones."
    for pattern, kind, next_step in _TELLING:
        if re.search(pattern, text):
            return kind, next_step
    if isinstance(error, requests.RequestException):
        return _kind_of_request(error), None
    if isinstance(error, MlflowException):
        return CODES.get(error.error_code, UsageError), None
    if isinstance(error, SQLAlchemyError) and not isinstance(error, (OperationalError, InterfaceError)):
        return UsageError, None
    return TrackerUnavailableError, None


def _kind_of_request(error: requests.RequestException) -> type[SpectralEdgeError]:
    if error.response is not None:
        return kind_of_status(error.response.status_code)
    return UsageError if isinstance(error, ValueError) else TrackerUnavailableError  # ValueError: the URL is no URL


def _next_step(kind: type[SpectralEdgeError], credentials: str) -> str | None:
    if issubclass(kind, AccessDeniedError):
        return f"check {credentials}."
    if issubclass(kind, TrackerUnavailableError):
        return "see whether the server is up (`spectral-edge doctor`), then start the same audit again."
    return None


def _first_lines(text: str, limit: int = 600) -> str:
    """SQLAlchemy and MLflow append statements, stacks and links; the cause stands first."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]} …"
