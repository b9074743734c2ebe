"""One writer at a time on an MLflow run, by tags, as MLflow has no compare-and-set.

Every writer writes a tag of its own, which no other writes, and only then reads those of the others. Of two writers
that do so at once, the one whose tag came second sees the first: never do both find themselves alone. Who finds another
takes its own tag away and waits. No clock of another machine is ever read: a tag whose value has not changed for
`SILENCE` seconds of one's own clock is that of a writer who is gone. A writer renews its tag while it writes; when it
could not do so, by its own clock, long before others would think it gone, it looks again before it goes on.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Run

from integrations.mlflow_errors import foreign_errors
from integrations.mlflow_tags import LEASE_PREFIX, delete_tags, leases, require_active
from spectral_edge.errors import RunBusyError

SILENCE: Final = 20.0
"""Seconds without a change after which a lease counts as that of a process that was killed."""
PATIENCE: Final = 60.0
"""Seconds to wait for another writer."""
TRUST: Final = 10.0
"""Seconds for which a writer trusts its own lease after it has been renewed; far below SILENCE."""
BEAT: Final = 3.0
"""Seconds between renewals."""
_POLL: Final = (0.05, 0.35)
"""Between which seconds two looks at a run that is busy lie; random, so that two who wait do not keep step."""


class Lease:
    """The right to write to one run.

    Attributes:
        run: The run as it was when the lease was obtained.
    """

    run: Run

    def __init__(self, client: MlflowClient, run: Run, token: str) -> None:
        self._client, self.run, self._key = client, run, f"{LEASE_PREFIX}{token}"
        self._writes = 0
        self._renewed = _now()
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def acquire(self) -> None:
        """Wait until nobody else writes to the run, and forbid others to.

        Raises:
            RunBusyError: Another process has been writing for longer than `PATIENCE`.
            NotFoundError: The run has been deleted.
        """
        seen: dict[str, tuple[str, float]] = {}
        started = _now()
        while not self._try():
            others = self._others()
            seen = {key: seen[key] if seen.get(key, ("",))[0] == value else (value, _now()) for key, value in others}
            delete_tags(self._client, self._run_id, [key for key, (_, at) in seen.items() if _now() - at > SILENCE])
            if _now() - started > PATIENCE:
                raise RunBusyError(
                    f"another audit has been writing to the run for more than {PATIENCE:.0f} seconds.",
                    run=self.run.info.run_name,
                    left_behind="nothing was written to the run",
                    next_step="run the same command again when the other has finished.",
                )
            time.sleep(random.uniform(*_POLL))  # noqa: S311 - spreads requests, keeps no secret
        self._beats.start()

    def check(self) -> None:
        """To be called before every write.

        Raises:
            RunBusyError: This process could not renew the lease in time, and another has taken over.
        """
        if self._is_doubtful and not self._is_ours_still():
            raise RunBusyError(
                "this process was held up for so long that another audit has begun to write to the run.",
                run=self.run.info.run_name,
                left_behind="what was written so far; points are not doubled",
                next_step="run the same command again.",
            )

    def release(self) -> None:
        """Let others write."""
        self._ended.set()
        if self._beats.ident is not None:
            self._beats.join()  # a renewal still on its way would put the tag back
        delete_tags(self._client, self._run_id, [self._key])

    def _try(self) -> bool:
        if self._others():
            return False
        self._renew()
        if not self._others() and self._key in self.run.data.tags:
            return True
        delete_tags(self._client, self._run_id, [self._key])
        return False

    def _others(self) -> list[tuple[str, str]]:
        self.run = self._client.get_run(self._run_id)
        require_active(self.run)
        return [(key, value) for key, value in leases(self.run).items() if key != self._key]

    def _renew(self) -> None:
        sent = _now()
        self._writes += 1
        self._client.set_tag(self._run_id, self._key, str(self._writes))
        self._renewed = sent

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(*foreign_errors()):  # the next beat may do better; `check` tells when none did
                if not self._is_doubtful:
                    self._renew()

    def _is_ours_still(self) -> bool:
        """Renew a lease in doubt, as it was obtained. Who takes over deletes our tag before it writes its own."""
        started, before = _now(), self.run
        try:
            if self._others() or self._key not in self.run.data.tags:
                return False
            self._renew()
            return not self._others() and self._key in self.run.data.tags and _now() - started < TRUST
        finally:
            self.run = before  # what was written since is not what was there when the lease was obtained

    @property
    def _is_doubtful(self) -> bool:
        return _now() - self._renewed > TRUST

    @property
    def _run_id(self) -> str:
        return str(self.run.info.run_id)


@contextmanager
def leased(client: MlflowClient, run: Run, token: str | None = None) -> Iterator[Lease]:
    """Nobody else who asks for it writes to `run` within the block.

    Args:
        client: Of the store that the run is in.
        run: The run.
        token: Of a lease that the run was created with; None makes a new one.

    Raises:
        RunBusyError: Another process has been writing for longer than `PATIENCE`.
        NotFoundError: The run has been deleted.
    """
    lease = Lease(client, run, token or new_token())
    try:
        lease.acquire()
        yield lease
    except BaseException:
        with suppress(*foreign_errors()):  # what went wrong first is what matters; the lease runs out by itself
            lease.release()
        raise
    lease.release()


def new_token() -> str:
    """A random word that says nothing of the machine."""
    return secrets.token_hex(8)


def _now() -> float:
    """Seconds of a clock that nobody sets and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
