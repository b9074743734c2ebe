"""Threads that download together, and how long they try."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, TypeVar

from spectral_edge import interruption
from spectral_edge.errors import FetchInterruptedError, TrackerUnavailableError

T = TypeVar("T")
X = TypeVar("X")

BLOCK: Final = 1 << 18
"""Bytes that a stream holds in memory; what it has of a block when the connection falls silent is lost."""

_PROGRESS: Final = 1 << 20
"""Bytes after which a failure counts as the first again: a long download over a bad line goes on."""

_STREAMS: Final = 4
"""Connections at once for one checkpoint."""

_LONGEST_WAIT: Final = 60.0
"""Seconds between two tries, at most, also when a store asks for more."""

_LOOK: Final = 0.5
"""Seconds after which a waiting stream looks whether the process was asked to end."""


class BusyError(TrackerUnavailableError):
    """The store asks to be left alone for so many `seconds` (HTTP's Retry-After)."""

    seconds: float = 0.0


@dataclass
class Streams:
    """Threads that download together: when one of them fails, all end. A context manager.

    Attributes:
        tries: How often something is tried that brings next to nothing each time, before it is given up.
        backoff: Seconds before the second try, doubled from one to the next.
        jitter: Seconds at most that are added by chance.
    """

    tries: int
    backoff: float
    jitter: float
    _stop: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_STREAMS, "download"))

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, work: Callable[[X], T], items: Iterable[X]) -> list[T]:
        """`work` of all items, several at once, in their order; the first error of any is raised at once."""
        futures = [self._pool.submit(work, item) for item in items]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return [future.result() for future in futures]

    def persist(self, work: Callable[[], T], reached: Callable[[], int] = lambda: 0) -> T:
        """`work`, again and again while it fails for reasons that may pass; `reached` counts the bytes it has got.

        Raises:
            FetchInterruptedError: All tries failed.
        """
        failures = 0
        while True:
            before = reached()
            try:
                return work()
            except TrackerUnavailableError as error:
                failures = 1 if reached() - before >= _PROGRESS else failures + 1
                if failures >= self.tries:
                    raise _gave_up(error, failures) from None
                self._pause(failures, error)

    def watched(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The same blocks, up to the moment when another stream fails or the process is asked to end."""
        for block in blocks:
            interruption.check()
            if self._stop.is_set():
                raise CancelledError
            yield block

    def _pause(self, failures: int, error: TrackerUnavailableError) -> None:
        asked = error.seconds if isinstance(error, BusyError) else 0.0
        backoff = self.backoff * 2 ** (failures - 1) + self.jitter * random.random()  # noqa: S311 (not for secrets)
        until = time.monotonic() + min(max(asked, backoff), _LONGEST_WAIT)
        while (seconds := until - time.monotonic()) > 0:
            interruption.check()
            if self._stop.wait(min(seconds, _LOOK)):
                raise CancelledError


def _gave_up(error: TrackerUnavailableError, tries: int) -> FetchInterruptedError:
    times = "once" if tries == 1 else f"{tries} times"
    details = error.details() | {"left_behind": "nothing"}
    return FetchInterruptedError(f"{error.what} Tried {times}.", **details)
