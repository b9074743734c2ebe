"""Everything that MLflow may raise becomes one of our errors, without secrets."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Iterator

import botocore.exceptions
import mlflow.exceptions
import pytest
import requests
import sqlalchemy.exc
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode

from integrations.http_errors import kind_of_status, without_secrets
from integrations.mlflow_errors import CODES, foreign_errors, in_our_words, mlflow_errors
from spectral_edge.errors import (
    AccessDeniedError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    TrackerUnavailableError,
    UsageError,
)

# Codes of Databricks services beside tracking: notebooks, Git, Unity Catalog.
OTHER_SERVICES = [
    "MAX_BLOCK_SIZE_EXCEEDED",
    "MAX_READ_SIZE_EXCEEDED",
    "PARTIAL_DELETE",
    "MAX_LIST_SIZE_EXCEEDED",
    "DRY_RUN_FAILED",
    "DIRECTORY_NOT_EMPTY",
    "DIRECTORY_PROTECTED",
    "MAX_NOTEBOOK_SIZE_EXCEEDED",
    "MAX_CHILD_NODE_SIZE_EXCEEDED",
    "SEARCH_QUERY_TOO_LONG",
    "SEARCH_QUERY_TOO_SHORT",
    "MANAGED_RESOURCE_GROUP_DOES_NOT_EXIST",
    "PERMISSION_NOT_PROPAGATED",
    "DEPLOYMENT_TIMEOUT",
    "GIT_CONFLICT",
    "GIT_UNKNOWN_REF",
    "GIT_SENSITIVE_TOKEN_DETECTED",
    "GIT_URL_NOT_ON_ALLOW_LIST",
    "GIT_REMOTE_ERROR",
    "PROJECTS_OPERATION_TIMEOUT",
    "IPYNB_FILE_IN_REPO",
    "INSECURE_PARTNER_RESPONSE",
    "MALFORMED_PARTNER_RESPONSE",
    "METASTORE_DOES_NOT_EXIST",
    "DAC_DOES_NOT_EXIST",
    "CATALOG_DOES_NOT_EXIST",
    "SCHEMA_DOES_NOT_EXIST",
    "TABLE_DOES_NOT_EXIST",
    "SHARE_DOES_NOT_EXIST",
    "RECIPIENT_DOES_NOT_EXIST",
    "STORAGE_CREDENTIAL_DOES_NOT_EXIST",
    "EXTERNAL_LOCATION_DOES_NOT_EXIST",
    "PRINCIPAL_DOES_NOT_EXIST",
    "PROVIDER_DOES_NOT_EXIST",
    "METASTORE_ALREADY_EXISTS",
    "DAC_ALREADY_EXISTS",
    "CATALOG_ALREADY_EXISTS",
    "SCHEMA_ALREADY_EXISTS",
    "TABLE_ALREADY_EXISTS",
    "SHARE_ALREADY_EXISTS",
    "RECIPIENT_ALREADY_EXISTS",
    "STORAGE_CREDENTIAL_ALREADY_EXISTS",
    "EXTERNAL_LOCATION_ALREADY_EXISTS",
    "PROVIDER_ALREADY_EXISTS",
    "CATALOG_NOT_EMPTY",
    "SCHEMA_NOT_EMPTY",
    "METASTORE_NOT_EMPTY",
    "PROVIDER_SHARE_NOT_ACCESSIBLE",
]


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_every_code_of_mlflow_is_mapped_or_known_to_be_anothers() -> None:
    assert set(ErrorCode.keys()) == CODES.keys() | set(OTHER_SERVICES)
    assert not CODES.keys() & set(OTHER_SERVICES)


def test_codes_mean_what_their_http_status_means() -> None:
    for code, status in ERROR_CODE_TO_HTTP_STATUS.items():
        if code not in (
            "CANCELLED",
            "NOT_IMPLEMENTED",
            "ALREADY_EXISTS",
        ):  # where waiting helps, or does not, all the same
            assert CODES[code] is kind_of_status(status), code


@pytest.mark.parametrize("kind", sorted({MlflowException, *below(MlflowException)}, key=str))
def test_every_exception_class_of_mlflow_is_caught(kind: type[MlflowException]) -> None:
    error = kind.__new__(kind)
    MlflowException.__init__(error, "what happened", error_code=ErrorCode.Value("RESOURCE_DOES_NOT_EXIST"))
    with pytest.raises(NotFoundError, match="what happened"), mlflow_errors("sqlite:///x.db", run="r"):
        raise error


@pytest.mark.parametrize("kind", sorted(set(below(requests.RequestException)), key=str))
def test_every_exception_class_of_requests_is_caught(kind: type[requests.RequestException]) -> None:
    error = kind.__new__(kind)
    requests.RequestException.__init__(error, "what happened")
    expected = UsageError if issubclass(kind, ValueError) else SpectralEdgeError
    with pytest.raises(expected), mlflow_errors("http://x"):
        raise error


def response(status: int) -> requests.HTTPError:
    made = requests.Response()
    made.status_code = status
    return requests.HTTPError(f"{status} Client Error: for url: http://x", response=made)


CLIENT_ERROR = botocore.exceptions.ClientError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (response(401), AccessDeniedError),
        (response(403), AccessDeniedError),
        (response(404), NotFoundError),
        (response(429), TrackerUnavailableError),
        (response(503), TrackerUnavailableError),
        (response(400), UsageError),
        (requests.ConnectionError("refused"), TrackerUnavailableError),
        (requests.ReadTimeout("slow"), TrackerUnavailableError),
        (requests.exceptions.InvalidURL("no"), UsageError),
        (MlflowException("API request to http://x failed with exception HTTPConnectionPool"), TrackerUnavailableError),
        (MlflowException("The following failures …: 403 Client Error: Forbidden"), AccessDeniedError),
        (MlflowException("The following failures …: [Errno 28] No space left on device"), DiskFullError),
        (MlflowException("x" * 5000 + "[Errno 122] Disk quota exceeded"), DiskFullError),
        (MlflowException("Invalid Host header - possible DNS rebinding attack detected"), AccessDeniedError),
        (MlflowException("Detected out-of-date database schema (found version a, expected b)"), UsageError),
        (MlflowException("… SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'"), UsageError),
        (RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "later"}), TrackerUnavailableError),
        (RestException({"error_code": "UNHEARD_OF", "message": "?"}), TrackerUnavailableError),
        (RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}), UsageError),
        (sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("refused")), TrackerUnavailableError),
        (sqlalchemy.exc.OperationalError("SELECT", {}, Exception("password authentication failed")), AccessDeniedError),
        (sqlalchemy.exc.NoSuchModuleError("no dialect"), UsageError),
        (ModuleNotFoundError("No module named 'psycopg2'"), UsageError),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), AccessDeniedError),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), NotFoundError),
        (TimeoutError("timed out"), TrackerUnavailableError),
        (CLIENT_ERROR({"Error": {"Code": "AccessDenied"}}, "GetObject"), AccessDeniedError),
        (CLIENT_ERROR({"Error": {"Code": "NoSuchKey"}}, "GetObject"), NotFoundError),
        (CLIENT_ERROR({"Error": {"Code": "SlowDown"}}, "GetObject"), TrackerUnavailableError),
        (botocore.exceptions.NoCredentialsError(), AccessDeniedError),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), TrackerUnavailableError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_what_an_error_means(error: Exception, kind: type[SpectralEdgeError]) -> None:
    assert isinstance(error, foreign_errors())
    ours = in_our_words(error, "http://x", run="my run")
    assert type(ours) is kind
    assert ours.run == "my run"
    assert type(pickle_copy(ours)) is kind


def test_our_own_errors_pass_through_unchanged() -> None:
    error = DiskFullError("no room", run="r")  # an OSError too
    with pytest.raises(DiskFullError) as caught, mlflow_errors("http://x"):
        raise error
    assert caught.value is error


def test_a_defect_of_ours_is_not_taken_for_an_answer_of_mlflow() -> None:
    with pytest.raises(ZeroDivisionError), mlflow_errors("http://x"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@host:5000/x", "http://host:5000/x"),
        ("postgresql+psycopg2://u:p%40@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("mssql+pyodbc:///?odbc_connect=PWD=secret", "mssql+pyodbc:///"),
        ("Forbidden for url: https://s3/b/k?X-Amz-Signature=abc, then", "Forbidden for url: https://s3/b/k then"),
        ("mail me@example.org about 50% of it", "mail me@example.org about 50% of it"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_secrets_are_cut_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_what_a_server_repeats_of_our_credentials_is_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok3n-abc")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "run")  # too short to be told from words
    assert without_secrets("Authorization: Basic dXNlcjpwYXNz no") == "Authorization: Basic *** no"
    assert without_secrets("the run: tok3n-abc is not known") == "the run: *** is not known"
    with pytest.raises(SpectralEdgeError) as caught, mlflow_errors("http://x", password="hunter2"):
        raise MlflowException("hunter2 is wrong")
    assert "hunter2" not in str(caught.value)


def pickle_copy(error: Exception) -> Exception:
    """The error as another process receives it."""
    copied = pickle.loads(pickle.dumps(error))  # noqa: TID251 - our own object
    assert isinstance(copied, Exception)
    return copied


def test_the_module_of_exceptions_is_the_one_walked() -> None:
    assert mlflow.exceptions.RestException in set(below(MlflowException))
