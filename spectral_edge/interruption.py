"""Whether this process was asked to end: long work looks here between two pieces, and then gives up cleanly."""

from __future__ import annotations

import threading
from typing import Final

from spectral_edge.errors import StoppedError

_ASKED: Final = threading.Event()


def ask() -> None:
    """Ask all long work of this process to stop. Safe in a signal handler."""
    _ASKED.set()


def is_asked() -> bool:
    """Whether work should stop."""
    return _ASKED.is_set()


def wait(seconds: float) -> bool:
    """Sleep, but no longer than until somebody asks; returns whether somebody has."""
    return _ASKED.wait(seconds)


def withdraw() -> None:
    """What was asked has been done: work may begin again."""
    _ASKED.clear()


def check() -> None:
    """Raise when work should stop.

    Raises:
        StoppedError: Somebody has asked.
    """
    if _ASKED.is_set():
        raise StoppedError(
            "was stopped while it was being audited.",
            left_behind="what was in the store and in the tracker, as it was",
            next_step="start the same audit again; it goes on where this one ended.",
        )
