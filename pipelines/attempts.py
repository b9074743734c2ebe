"""Runs that are being worked on, noted in the store, so that the next audit sees those whose process died.

Nothing can be said after SIGKILL, the kernel's lack of memory or a power cut; so it is said before. An attempt is one
small JSON object below `attempts/` in the store. It is removed when the work on the run ends, well or with an error;
one whose process is gone is a death. A process that lives is told from one that died

- in a store that is a folder: by a lock that the kernel holds for as long as the process lives;
- on S3: by process id and start time where it ran on this machine, else by a lease that it renews.

Several audits may work on one run at once; each has an attempt of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psutil
from filelock import FileLock, Timeout

from pipelines import stopping
from pipelines.wording import moment_text
from spectral_edge.errors import QuarantinedError, TerminalError
from spectral_edge.store import Store
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import RunKey

FOLDER: Final = "attempts"
LEASE: Final = timedelta(minutes=5)
"""On S3: so long after its last sign of life a process on another machine counts as dead."""
_RENEW_SECONDS: Final = 60.0

RunIdentity = tuple[str, str, str]
"""Tracker, project and run_id."""


@dataclass(frozen=True)
class Attempt:
    """One process's work on one run.

    Attributes:
        source: As it was named, so that the next audit can serve the other sources first.
        fingerprint: Of the checkpoints that are read.
        settings_hash: Of the settings they are read with.
        process: Names the process among all that ever worked on this store.
        machine: Names the running kernel and the process ids' name space; None where that cannot be told.
        pid: Of the process.
        pid_since: When that process started, in seconds since 1970.
        alive_at: The last sign of life.
    """

    tracker: str
    project: str
    run_id: str
    run_name: str
    source: str
    fingerprint: str
    settings_hash: str
    process: str
    machine: str | None
    pid: int
    pid_since: float
    began_at: str
    alive_at: str

    @property
    def identity(self) -> RunIdentity:
        """What identifies the run in the store."""
        return self.tracker, self.project, self.run_id

    @property
    def file(self) -> str:
        """Path in the store: hashes only, never the tracker's text."""
        told = json.dumps(self.identity).encode(errors="surrogatepass")
        return f"{FOLDER}/{hashlib.sha256(told).hexdigest()[:24]}-{self.process}.json"


Deaths = Mapping[RunIdentity, tuple[Attempt, ...]]
"""Attempts whose process died, the oldest first."""


def deaths(store: Store) -> Deaths:
    """The attempts in `store` that ended with the death of their process; changes nothing.

    Raises:
        StoreUnavailableError, AccessDeniedError: The store cannot be read.
    """
    with store_errors(f"{store.location.root}/{FOLDER}"):
        found = sorted(_read(store.location), key=lambda attempt: attempt.began_at)
        dead = [attempt for attempt in found if _is_dead(store.location, attempt)]
    by_run: dict[RunIdentity, tuple[Attempt, ...]] = {}
    for attempt in dead:
        by_run[attempt.identity] = (*by_run.get(attempt.identity, ()), attempt)
    return by_run


def forget(store: Store, dead: Iterable[Attempt]) -> None:
    """Remove attempts of processes that died, and what else these have left beside them."""
    with store_errors(f"{store.location.root}/{FOLDER}"):
        files = store.location.filesystem()
        for attempt in dead:
            with suppress(FileNotFoundError):  # another audit has done it
                files.delete_file(attempt.file)
        if store.location.is_local:
            _tidy(Path(store.location.root, FOLDER))


def same_work(dead: Iterable[Attempt], fingerprint: str, settings_hash: str) -> tuple[Attempt, ...]:
    """Those of `dead` that read the same checkpoints with the same settings."""
    return tuple(it for it in dead if (it.fingerprint, it.settings_hash) == (fingerprint, settings_hash))


def quarantine(run_name: str, dead: tuple[Attempt, ...]) -> QuarantinedError:
    """The error of a run whose checkpoints are not read any more, because of these deaths."""
    return QuarantinedError(
        f"is in quarantine: {len(dead)} audits of these checkpoints ended with the death of their process, "
        f"the last one begun at {moment_text(dead[-1].began_at)}.",
        run=run_name,
        left_behind="its checkpoints, which are not read again until they or the settings change",
        next_step="look in the system's log for what ended it (most often memory), then try with --force.",
    )


@contextmanager
def attempt(
    store: Store, run: RunKey, source: str, fingerprint: str, settings_hash: str, dead: tuple[Attempt, ...] = ()
) -> Iterator[None]:
    """Note that `run` is being worked on, inside the block; the deaths `dead` are forgotten when it was survived.

    Not survived in this sense: an error that may pass, a defect, and being stopped. They are no deaths either.

    Raises:
        StoreUnavailableError, AccessDeniedError, DiskFullError: It cannot be noted.
    """
    holder = _holder(store.location)
    same = same_work(dead, fingerprint, settings_hash)
    others = [it for it in dead if it not in same]
    forget(store, others[:-1])  # the last one still says that the run comes last
    noted = holder.begin(run, source, fingerprint, settings_hash)
    try:
        with stopping.at_hard_stop(lambda: holder.end(noted)):
            yield
    except TerminalError:
        holder.end(noted)
        forget(store, dead)
        raise
    except BaseException:
        holder.end(noted)
        raise
    holder.end(noted)
    if dead:
        forget(store, dead)


def _read(location: StoreLocation) -> Iterator[Attempt]:
    files = location.filesystem()
    for name in location.entries(FOLDER):
        # Other writers come and go; what is not ours, or of another version, is left alone.
        with suppress(FileNotFoundError, ValueError, TypeError):
            if name.endswith(".json"):
                with files.open_input_stream(f"{FOLDER}/{name}") as stream:
                    yield Attempt(**json.loads(stream.read()))


def _is_dead(location: StoreLocation, attempt: Attempt) -> bool:
    if location.is_local:
        return _is_free(Path(location.root, FOLDER, f"{attempt.process}.lock"))
    if attempt.machine is not None and attempt.machine == _machine():
        try:
            return abs(psutil.Process(attempt.pid).create_time() - attempt.pid_since) > 1
        except psutil.NoSuchProcess:
            return True
    return datetime.now(UTC) - datetime.fromisoformat(attempt.alive_at) > LEASE


def _is_free(lock: Path) -> bool:
    if lock.name in _OURS or not lock.exists():
        return lock.name not in _OURS
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _tidy(folder: Path) -> None:
    """Remove locks of processes that are gone and have no attempt any more, what they were writing, and the folder."""
    in_use = {path.stem.rpartition("-")[2] for path in folder.glob("*.json")}
    for lock in folder.glob("*.lock"):
        if lock.stem not in in_use and _is_free(lock):
            lock.with_suffix(".part").unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
    with suppress(OSError):  # somebody's attempt is in it, or it is gone
        folder.rmdir()


def _machine() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


_OURS: set[str] = set()
"""Names of the lock files that this process holds: asking the kernel for them would answer that they are free."""


@dataclass
class _Holder:
    """The attempts of this process in one store. Used from several threads."""

    location: StoreLocation
    process: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    _held: dict[str, Attempt] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _alive: FileLock | None = None
    _renewing: threading.Thread | None = None

    def begin(self, run: RunKey, source: str, fingerprint: str, settings_hash: str) -> Attempt:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        attempt = Attempt(
            tracker=run.tracker,
            project=run.project,
            run_id=run.run_id,
            run_name=run.run_name,
            source=source,
            fingerprint=fingerprint,
            settings_hash=settings_hash,
            process=self.process,
            machine=_machine(),
            pid=os.getpid(),
            pid_since=psutil.Process().create_time(),
            began_at=now,
            alive_at=now,
        )
        with self._lock, store_errors(f"{self.location.root}/{FOLDER}"):
            self._sign()
            self._write(attempt)
            self._held[attempt.file] = attempt
        return attempt

    def end(self, attempt: Attempt) -> None:
        with self._lock, store_errors(f"{self.location.root}/{FOLDER}"):
            if self._held.pop(attempt.file, None) is None:
                return
            with suppress(FileNotFoundError):
                self.location.filesystem().delete_file(attempt.file)
            if not self._held and self._alive is not None:
                self._leave(self._alive)

    def _sign(self) -> None:
        """See that others can tell that this process is alive."""
        if not self.location.is_local:
            if self._renewing is None:
                self._renewing = threading.Thread(target=self._renew, name="attempts", daemon=True)
                self._renewing.start()
            return
        folder = Path(self.location.root, FOLDER)
        while self._alive is None:
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = FileLock(folder / f"{self.process}.lock", timeout=0)
            with suppress(FileNotFoundError):  # whoever was here last has removed the folder meanwhile
                lock.acquire()
                _OURS.add(Path(lock.lock_file).name)
                self._alive = lock

    def _leave(self, alive: FileLock) -> None:
        path = Path(alive.lock_file)
        path.unlink(missing_ok=True)
        alive.release()
        path.unlink(missing_ok=True)
        _OURS.discard(path.name)
        self._alive = None
        _tidy(path.parent)

    def _write(self, attempt: Attempt) -> None:
        content = json.dumps(asdict(attempt)).encode()
        if not self.location.is_local:
            with self.location.filesystem().open_output_stream(attempt.file) as stream:
                stream.write(content)
            return
        path = Path(self.location.root, attempt.file)
        part = path.with_name(f"{self.process}.part")
        with part.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.rename(path)

    def _renew(self) -> None:
        while not _ENDED.wait(_RENEW_SECONDS):
            with self._lock, suppress(OSError):  # the next time; the lease is long enough for some failures
                for name, attempt in self._held.items():
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    self._held[name] = Attempt(**{**asdict(attempt), "alive_at": now})
                    self._write(self._held[name])


_ENDED: Final = threading.Event()
_HOLDERS: dict[str, _Holder] = {}
_HOLDERS_LOCK: Final = threading.Lock()


def _holder(location: StoreLocation) -> _Holder:
    with _HOLDERS_LOCK:
        return _HOLDERS.setdefault(location.root, _Holder(location))
