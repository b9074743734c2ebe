"""Everything that wandb may raise becomes one of our errors, without keys."""

from __future__ import annotations

import inspect
import pickle

import pytest
import requests
import wandb.errors
from wandb.errors import AuthenticationError, CommError
from wandb.proto.wandb_api_pb2 import ApiErrorResponse
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from integrations.wandb_errors import FOREIGN, http_status, in_our_words, wandb_errors
from spectral_edge.errors import (
    AccessDeniedError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    TrackerUnavailableError,
    UsageError,
)

KEY = "a-key-that-nobody-may-see-" + "0" * 40
BUSY = "Failed to execute API request: the service process is busy and did not respond in time."
OF_WANDB = [
    kind
    for _, kind in inspect.getmembers(wandb.errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__.startswith("wandb")
]


def failed(status: int, text: str = "no") -> WandbApiFailedError:
    return WandbApiFailedError(text, ApiErrorResponse(message=text, http_status=status))


def comm(error: Exception) -> CommError:
    return CommError(str(error), error)


def at_login(error: Exception) -> AuthenticationError:
    made = AuthenticationError(f"Failed to verify credentials with https://x: {error}")
    made.__cause__ = error
    return made


def response(status: int) -> requests.HTTPError:
    made = requests.Response()
    made.status_code = status
    return requests.HTTPError(f"{status} Error", response=made)


@pytest.mark.parametrize("kind", OF_WANDB, ids=lambda kind: kind.__name__)
def test_every_exception_class_of_wandb_is_caught(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "project not found")
    with pytest.raises(NotFoundError, match="project not found"), wandb_errors("https://x", run="r"):
        raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (failed(401), AccessDeniedError),
        (failed(403), AccessDeniedError),
        (failed(404), NotFoundError),
        (failed(429), TrackerUnavailableError),
        (failed(500), TrackerUnavailableError),
        (failed(400), UsageError),
        (comm(failed(403)), AccessDeniedError),
        (comm(failed(503)), TrackerUnavailableError),
        (at_login(failed(401)), AccessDeniedError),
        (at_login(WandbApiFailedError(BUSY)), TrackerUnavailableError),
        (AuthenticationError("API key must have 40+ characters, has 3."), AccessDeniedError),
        (wandb.errors.UsageError("No API key configured. Use `wandb login` to log in."), AccessDeniedError),
        (wandb.errors.UsageError("something else"), UsageError),
        (WandbApiFailedError(BUSY), TrackerUnavailableError),
        (failed(0, "input: permission denied"), AccessDeniedError),
        (failed(0, "input: project.runs unknown operator $foo"), UsageError),
        (failed(0, "input: internal server error"), TrackerUnavailableError),
        (failed(0, "invalid character '<' looking for beginning of value"), TrackerUnavailableError),
        (failed(0, "tls: failed to verify certificate: x509: certificate signed by unknown authority"), UsageError),
        (ValueError("Could not find project nope"), NotFoundError),
        (comm(ValueError("Could not find run <Run a/b/c (not found)>")), NotFoundError),
        (response(403), AccessDeniedError),
        (response(404), NotFoundError),
        (response(503), TrackerUnavailableError),
        (requests.ConnectionError("refused"), TrackerUnavailableError),
        (requests.exceptions.InvalidURL("no"), UsageError),
        (CommError("write /x: no space left on device"), DiskFullError),
        (OSError(28, "No space left on device"), DiskFullError),
        (TimeoutError("timed out"), TrackerUnavailableError),
    ],
    ids=lambda value: None if isinstance(value, Exception) else value.__name__,
)
def test_what_an_error_means(error: Exception, kind: type[SpectralEdgeError]) -> None:
    assert isinstance(error, FOREIGN)
    with pytest.raises(SpectralEdgeError) as caught, wandb_errors("https://x", run="my run", file="f"):
        raise error
    assert type(caught.value) is kind
    assert (caught.value.run, caught.value.file) == ("my run", "f")
    assert "\n" not in str(caught.value)
    copied = pickle.loads(pickle.dumps(caught.value))  # noqa: TID251 - our own object
    assert (type(copied), str(copied)) == (kind, str(caught.value))


def test_the_status_is_found_wherever_it_is_kept() -> None:
    assert [http_status(error) for error in (failed(429), comm(failed(503)), at_login(failed(401)), response(404))] == [
        429,
        503,
        401,
        404,
    ]
    assert [http_status(error) for error in (failed(0), CommError("x"), ValueError("x"), WandbApiFailedError("x"))] == (
        [None] * 4
    )


def test_what_wandb_says_of_its_own_process_is_said_of_the_server() -> None:
    told = str(in_our_words(comm(WandbApiFailedError(BUSY)), "https://x"))
    assert "service process" not in told
    assert "it did not answer in time, or is too busy" in told


def test_a_defect_of_ours_is_not_taken_for_an_answer_of_wandb() -> None:
    for defect in (ValueError("too many values to unpack"), KeyError("x"), ZeroDivisionError()):
        with pytest.raises(type(defect)) as caught, wandb_errors("https://x"):
            raise defect
        assert caught.value is defect


def test_our_own_errors_pass_through_unchanged() -> None:
    error = UsageError("`filter` is no JSON")  # a ValueError too
    with pytest.raises(UsageError) as caught, wandb_errors("https://x"):
        raise error
    assert caught.value is error


def test_no_key_and_no_signature_is_shown() -> None:
    texts = (f"refused {KEY}", f"Authorization: Bearer {KEY}", "GET https://bucket/x?X-Goog-Signature=abcdef failed")
    for text in texts:
        with pytest.raises(SpectralEdgeError) as caught, wandb_errors("https://x", key=KEY):
            raise comm(failed(403, text))
        assert not [secret for secret in (KEY, "abcdef") if secret in f"{caught.value} {caught.value!r}"]
        assert caught.value.__suppress_context__
