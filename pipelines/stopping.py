"""SIGTERM and Ctrl-C: an audit ends within seconds, and leaves nothing half done.

The first signal asks: no run is started any more, and those in flight give up at the next block of parameters or of a
download. What does not get there in time, such as a connection that has fallen silent, is ended by force, after
everything that must not stay was removed. A second signal does that at once.

None of this is needed for the data, which a kill -9 cannot harm either; it is for what a kill -9 leaves behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final

from spectral_edge import interruption

GRACE_SECONDS: Final = 5.0
"""Until work that was asked to stop is ended by force."""

_CLEANING_SECONDS: Final = 5.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_told: list[int] = []
_timers: list[threading.Timer] = []
_cleaning: dict[object, Callable[[], object]] = {}


def exit_code() -> int | None:
    """What the process ends with once it was told to: 143 or 130; None when it was not."""
    return 128 + _told[0] if _told else None


def signal_name() -> str:
    """Of the signal that the process was told to end by."""
    return signal.Signals(_told[0]).name if _told else "nobody"


@contextmanager
def exiting() -> Iterator[None]:
    """Inside the block both signals raise SystemExit with the right code, wherever the main thread is."""

    def leave(number: int, _frame: FrameType | None) -> None:
        _told.append(number)
        sys.exit(128 + number)

    with _handled(leave):
        yield


@contextmanager
def listening() -> Iterator[None]:
    """Inside the block both signals ask work to stop, see above. Does nothing outside of the main thread."""
    with _handled(_ask):
        _told.clear()
        interruption.withdraw()
        try:
            yield
        finally:
            while _timers:
                _timers.pop().cancel()


@contextmanager
def at_hard_stop(clean: Callable[[], object]) -> Iterator[None]:
    """`clean` is called if the process is ended by force inside the block; the last one given comes first."""
    key = object()
    _cleaning[key] = clean
    try:
        yield
    finally:
        _cleaning.pop(key, None)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _ask(number: int, _frame: FrameType | None) -> None:
    _told.append(number)
    interruption.ask()
    timer = threading.Timer(GRACE_SECONDS if len(_told) == 1 else 0, _end_by_force)
    timer.daemon = True
    _timers.append(timer)
    timer.start()


def _end_by_force() -> None:
    code = exit_code() or 1
    last = threading.Timer(_CLEANING_SECONDS, os._exit, (code,))
    last.daemon = True
    last.start()
    with ExitStack() as stack:
        stack.callback(os._exit, code)
        for clean in list(_cleaning.values()):
            stack.callback(clean)
