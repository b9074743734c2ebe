"""What every tracker on a server shares: messages without secrets, and what an HTTP status means."""

from __future__ import annotations

import os
import re
from typing import Final

from spectral_edge.errors import (
    AccessDeniedError,
    NotFoundError,
    SpectralEdgeError,
    TrackerUnavailableError,
    UsageError,
)

_SECRET_VARIABLES: Final = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "WANDB_API_KEY",
)
_SHORTEST_SECRET: Final = 6  # shorter ones are parts of ordinary words
_HIDDEN: Final[set[str]] = set()


def hide(secret: str) -> None:
    """Cut `secret` out of all messages of this process from now on."""
    _HIDDEN.add(secret)


def without_secrets(text: str, password: str = "") -> str:
    """`text` without secrets.

    Cut out are user names and passwords in URIs, query strings of URLs (they carry signatures), and what a server
    repeats of the credentials that it was sent: those of the environment, of named trackers, and `password`.
    """
    text = re.sub(r"(\w://)[^/\s'\"]*@", r"\1", text)
    text = re.sub(r"(\w+://[^\s?'\"]+)\?[^\s'\")]+", r"\1", text)
    text = re.sub(r"\b(Basic|Bearer)\s+[\w+/=.~-]{8,}", r"\1 ***", text)
    for secret in (password, *(os.environ.get(name, "") for name in _SECRET_VARIABLES), *tuple(_HIDDEN)):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def kind_of_status(status: int) -> type[SpectralEdgeError]:
    """Which of our errors an HTTP status of 400 and more means."""
    if status in (401, 403, 407):
        return AccessDeniedError
    if status in (404, 410):
        return NotFoundError
    return TrackerUnavailableError if status in (408, 409, 425, 429) or status >= 500 else UsageError
