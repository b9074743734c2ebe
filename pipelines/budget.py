"""How much one command may do: bytes, minutes and runs, shared by all of its sources.

A budget is held against the runs before each start: a run that has begun is brought to its end. The one in use is a
context variable, so that flows take no parameter that cannot be written as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from pipelines.results import RunResult
from pipelines.settings import AuditSettings

_NO_WORK: Final = frozenset({"unchanged", "no_checkpoints"})


@dataclass
class Budget:
    """What may be spent, and what has been; None is without limit. Used from one thread.

    Attributes:
        max_bytes: Bytes of checkpoints read after which no run is started.
        max_seconds: Seconds since `started` after which no run is started.
        max_runs: Runs that something is done to.
        foreseen: Seconds that runs would have taken which were only foreseen.
    """

    max_bytes: int | None
    max_seconds: float | None
    max_runs: int | None
    started: float = field(default_factory=time.monotonic)
    bytes_read: int = 0
    runs: int = 0
    foreseen: float = 0.0

    @classmethod
    def of(cls, settings: AuditSettings) -> Budget:
        """A fresh one, whose time begins now."""
        minutes = settings.max_minutes
        return cls(settings.max_bytes, None if minutes is None else 60 * minutes, settings.max_runs)

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return (self.max_bytes, self.max_seconds, self.max_runs) != (None, None, None)

    def allows(self, in_flight: int = 0) -> bool:
        """Whether one more run may be started beside those `in_flight`."""
        passed = self.foreseen + time.monotonic() - self.started
        return (
            (self.max_bytes is None or self.bytes_read < self.max_bytes)
            and (self.max_seconds is None or passed < self.max_seconds)
            and (self.max_runs is None or self.runs + in_flight < self.max_runs)
        )

    def foresee(self, bytes_read: int, seconds: float) -> None:
        """Spend what a run would take, without taking it."""
        self.bytes_read += bytes_read
        self.foreseen += seconds
        self.runs += 1

    def spend(self, result: RunResult) -> None:
        """A run has come to its end. One that turned out to need nothing does not count as one."""
        self.bytes_read += result.bytes_read
        self.runs += result.outcome not in _NO_WORK and not result.known


_SHARED: ContextVar[Budget] = ContextVar("budget")


def current(settings: AuditSettings) -> Budget:
    """The budget in use; one of its own for an audit outside of :func:`sharing`."""
    return _SHARED.get(None) or Budget.of(settings)


@contextmanager
def sharing(settings: AuditSettings) -> Iterator[Budget]:
    """All audits inside the block spend from one budget."""
    budget = Budget.of(settings)
    token = _SHARED.set(budget)
    try:
        yield budget
    finally:
        _SHARED.reset(token)
