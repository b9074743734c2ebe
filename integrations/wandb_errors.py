"""What wandb raises, in our words: who may try again, and what to do.

wandb has two families of errors: its own (`wandb.errors.Error`), and what its core process answers
(`WandbApiFailedError`, which is none of them) wherever a call does not turn that into the first. Beside them come plain
ValueErrors for what is not there, and those of requests. Each becomes one error of spectral_edge.errors; keys and
signatures are cut out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
import wandb.errors
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from integrations.file_errors import from_os_error, no_room, says_no_room
from integrations.http_errors import kind_of_status, without_secrets
from spectral_edge.errors import (
    AccessDeniedError,
    NotFoundError,
    SpectralEdgeError,
    TrackerUnavailableError,
    UsageError,
)

FOREIGN: Final = (
    wandb.errors.Error,
    WandbApiFailedError,
    HandleAbandonedError,
    MailboxClosedError,
    ValueError,
    OSError,  # those of requests too
)
"""All that a call to wandb may raise. A ValueError is a defect, and left alone, unless its words are known."""

# Errors that come without an HTTP status: wandb's own, and a refusal inside a GraphQL answer.
_TELLING: Final[tuple[tuple[str, type[SpectralEdgeError]], ...]] = (
    (r"No API key configured|API key must have|No authentication configured|API_KEY invalid", AccessDeniedError),
    (
        r"permission|forbidden|not authori[sz]ed|unauthori[sz]ed|access denied|invalid api key|relogin",
        AccessDeniedError,
    ),
    (r"rate limit|too many requests|try again|internal server error", TrackerUnavailableError),
    (r"could not find|not found|does not exist|Unable to parse 'Projects'", NotFoundError),
    (r"did not respond in time|is not running|timed out|timeout|connection|no such host", TrackerUnavailableError),
    (r"x509|certificate", UsageError),
    (r"^input:", UsageError),  # so GraphQL refuses what was asked
)
_WORDS_OF_VALUE_ERRORS: Final = re.compile(
    r"Could not find (project|run)|not found|Unable to (parse|fetch)|validation error"
)
_SILENT: Final = re.compile(r"Failed to execute API request: the service process is busy and did not respond in time")
"""What wandb says when its core is still waiting for the server, or has been told to come back later."""
_NO_ROOM: Final = "no space left on device"  # as Go writes it, in which wandb's core is written
_MAX_TEXT: Final = 600


@contextmanager
def wandb_errors(
    address: str, *, run: str | None = None, file: str | None = None, key: str = "", place: str | None = None
) -> Iterator[None]:
    """Turn what wandb raises inside the block into our errors.

    Args:
        address: The server's, for people.
        run: Name of the run concerned.
        file: File or artifact concerned.
        key: The API key, which a server may repeat.
        place: Where that is, if not where wandb looks for one.
    """
    try:
        yield
    except FOREIGN as error:
        if isinstance(error, SpectralEdgeError) or _is_defect(error):
            raise
        # `from None`: the original text may hold the key, and pipelines log whole chains.
        raise in_our_words(error, address, run=run, file=file, key=key, place=place) from None


def in_our_words(
    error: Exception,
    address: str,
    *,
    run: str | None = None,
    file: str | None = None,
    key: str = "",
    place: str | None = None,
) -> SpectralEdgeError:
    """The error of our tree that tells what `error` means."""
    text = without_secrets(" ".join(str(error).split()), key)
    if says_no_room(text) or _NO_ROOM in text:
        return no_room(text[:_MAX_TEXT], run=run, file=file)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, requests.RequestException):
        return from_os_error(error, run=run, file=file)
    kind = _kind(error, text)
    text = _SILENT.sub("it did not answer in time, or is too busy", text)
    shown = f"{text.rstrip('.')}." if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} …"
    return kind(f"W&B at {address}: {shown}", run=run, file=file, next_step=_next_step(kind, place))


def http_status(error: BaseException) -> int | None:
    """The HTTP status that `error`, or what it was made of, tells; None when the server did not answer, or said 200."""
    told = getattr(error, "response", None)
    status = getattr(told, "status_code", None) or getattr(told, "http_status", None)
    if status:
        return int(status)
    # CommError keeps what it was made of as `exc`; AuthenticationError as its cause alone.
    origin = getattr(error, "exc", None) or error.__cause__
    return http_status(origin) if isinstance(origin, Exception) else None


def _is_defect(error: Exception) -> bool:
    plain = isinstance(error, ValueError) and not isinstance(error, OSError)
    return plain and _WORDS_OF_VALUE_ERRORS.search(str(error)) is None


def _kind(error: Exception, text: str) -> type[SpectralEdgeError]:
    status = http_status(error)
    if status is not None and status >= 400:
        return kind_of_status(status)
    for pattern, kind in _TELLING:
        if re.search(pattern, text, re.IGNORECASE):
            return kind
    if isinstance(error, requests.RequestException):
        return UsageError if isinstance(error, ValueError) else TrackerUnavailableError  # ValueError: a bad address
    return UsageError if isinstance(error, wandb.errors.UsageError) else TrackerUnavailableError


def _next_step(kind: type[SpectralEdgeError], place: str | None) -> str | None:
    if issubclass(kind, AccessDeniedError) and place is not None:
        return f"check that {place} holds a key of this server that may read the project."
    if issubclass(kind, AccessDeniedError):
        return "set WANDB_API_KEY, or run `wandb login`, with a key that may read the project (WANDB_BASE_URL: where)."
    if issubclass(kind, TrackerUnavailableError):
        return "see whether the server is up (`spectral-edge doctor`), then start the same audit again."
    return None
