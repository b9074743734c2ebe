"""Reading checkpoints on a Dask cluster: one task for each run, or for each part of the parameters of a large one.

This process lists, decides, analyses, stores and annotates; workers fetch and sum. The inner products of updates add
up over parameters (theory 2), so a part is a run's checkpoints and a share of the parameters, and what comes back is
small. Dask gives the part of a worker that has died to another one.

The cluster is reached through prefect-dask's runner, but parts are plain Dask tasks: a Prefect task would carry the
flow's parameters and Prefect's own key to the workers, and have each of them report to the Prefect server.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pipelines.part import PARTS_VERSION, Origin, Part, PartRead, read_part
from pipelines.progress import RunProgress
from pipelines.reading import Costs, Reading
from pipelines.settings import AuditSettings
from pipelines.share import require_same_versions
from pipelines.wording import count_text
from spectral_edge import interruption
from spectral_edge.blocks import Shard
from spectral_edge.errors import SpectralEdgeError, TerminalError, TransientError, UsageError
from spectral_edge.settings import PASS_VERSION
from spectral_edge.trajectory import Trajectory, add_up

if TYPE_CHECKING:
    from distributed import Client, Future
    from prefect_dask.task_runners import DaskTaskRunner

PART_BYTES: Final = 2_000_000_000
"""Bytes of each checkpoint from which on a run is divided, and that a part takes of it."""

MOST_PARTS: Final = 256
"""Each part opens all of a run's checkpoints."""

MOST_AT_ONCE: Final = 256
"""Threads of this process that wait for a cluster."""

_LOOK_SECONDS: Final = 0.1

_LOCAL: Final = re.compile(r"local:([1-9]\d{0,3})")


class Cluster:
    """A cluster in use for the runs of one source. Safe to share by threads.

    Args:
        runner: prefect-dask's runner, started.
        origin: The runs' tracker.
        settings: Use `dask`, `max_disk`, `shards`.
    """

    def __init__(self, runner: DaskTaskRunner, origin: Origin, settings: AuditSettings) -> None:
        self._origin, self._settings = origin, settings
        self._address = settings.dask or ""
        self._client: Client = _connected(runner, self._address)

    @property
    def threads(self) -> int:
        """Parts that are read at once, as far as workers have come by now."""
        return sum(self._threads_of_workers())

    def read(
        self, reading: Reading, costs: Costs, shown: RunProgress, can_be_divided: Callable[[], bool]
    ) -> Trajectory:
        """Have workers read what `reading` says.

        Args:
            reading: All of a run, or of its last checkpoints.
            costs: Grows with each part that has come.
            shown: Likewise.
            can_be_divided: Whether a part reads, or fetches, no more than its share; asked of large runs.

        Raises:
            SpectralEdgeError: What a worker raised, or the cluster itself failed.
        """
        run_name = reading.run.key.run_name
        if self._client.status == "closed":
            raise self._lost(run_name, "its scheduler did not come back")
        with self._errors(run_name):
            parts = self._parts(reading, self._settings.shards or parts_of(reading, can_be_divided))
            futures = [self._client.submit(read_part, part, pure=False) for part in parts]
            try:
                done = self._results(futures, run_name, costs, shown)
            finally:
                self._client.cancel(futures)  # those that another part's error has made useless
        return add_up([part.trajectory for part in done], [ref.name for ref in reading.refs])

    def _parts(self, reading: Reading, count: int) -> list[Part]:
        # All that may be fetched on one disk at the same time.
        sharing = _local_workers(self._address) or max(self._threads_of_workers(), default=1)
        bare = replace(
            reading,
            run=replace(reading.run, params={}, tags={}, listed=None),  # not needed, and may be large
            max_disk=self._settings.max_disk // sharing,
            threads=1,  # a worker has as many tasks at once as it was given threads
        )
        return [Part(self._origin, replace(bare, shard=Shard(index, count))) for index in range(count)]

    def _threads_of_workers(self) -> list[int]:
        try:
            return list(self._client.nthreads().values())
        except (OSError, AttributeError):  # the latter from a client that has given up
            return []  # the scheduler was lost: what is sent to it next tells of it

    def _results(
        self, futures: Sequence[Future[PartRead]], run_name: str, costs: Costs, shown: RunProgress
    ) -> list[PartRead]:
        from distributed import as_completed  # noqa: PLC0415 - not everybody has Dask

        done, versions = as_completed(futures, loop=self._client.loop), dict[str, str]()
        while not done.is_empty():
            while not done.has_ready():
                interruption.wait(_LOOK_SECONDS)
                interruption.check()
            part: PartRead = next(done).result()
            theirs, ours = (part.pass_version, part.parts_version), (PASS_VERSION, PARTS_VERSION)
            if theirs != ours:
                raise TerminalError(
                    f"a worker of the cluster sums by version {_dotted(theirs)} of the pass, this is {_dotted(ours)}.",
                    run=run_name,
                    next_step="install the same version of spectral-edge on all workers.",
                )
            require_same_versions(part.costs.versions, versions, run_name)
            versions |= part.costs.versions
            costs.add(part.costs)
            shown.read(part.costs.bytes_read)
        return [future.result() for future in futures]

    @contextmanager
    def _errors(self, run_name: str) -> Iterator[None]:
        """What fails on a worker, or of the cluster, in our words."""
        from distributed.scheduler import KilledWorker  # noqa: PLC0415 - as above

        try:
            yield
        except SpectralEdgeError as error:
            error.of_run(run_name)
            raise
        except KilledWorker as error:
            dead = count_text(error.allowed_failures + 1, "worker")
            raise TerminalError(
                f"{dead} died while reading it, the last of them {error.last_worker.address}.",
                run=run_name,
                next_step="see in the workers' logs whether they were out of memory or were stopped from outside.",
            ) from None
        except ModuleNotFoundError as error:
            raise TerminalError(
                f"a worker of the cluster at {self._address} has no module {error.name}.",
                run=run_name,
                next_step="install the same version of spectral-edge on all workers.",
            ) from None
        except _lost() as error:
            raise self._lost(run_name, type(error).__name__) from None

    def _lost(self, run_name: str, how: str) -> TransientError:
        return TransientError(
            f"the Dask cluster at {self._address} was lost: {how}.",
            run=run_name,
            next_step="see whether its scheduler is up, then run the same command again.",
        )


_CURRENT: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


def current() -> Cluster | None:
    """The cluster in use, None where this process reads by itself."""
    return _CURRENT.get()


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


@contextmanager
def using(source: str, settings: AuditSettings) -> Iterator[None]:
    """Read the runs of `source` inside the block on the cluster that `settings` name, if they name one.

    Raises:
        UsageError: Dask is not installed, or what is sent to workers would hold a secret.
        TransientError: The cluster does not answer.
    """
    if settings.dask is None:
        yield
        return
    origin = Origin.of(source, settings)
    with _runner(settings.dask) as runner:
        token = _CURRENT.set(Cluster(runner, origin, settings))
        try:
            yield
        finally:
            _CURRENT.reset(token)


def runs_at_once(settings: AuditSettings) -> int:
    """Runs to have in flight: on a cluster so many that its workers have something to do while others are written."""
    cluster = current()
    if cluster is None:
        return settings.workers
    return max(settings.workers, min(MOST_AT_ONCE, 2 * cluster.threads))


def parts_of(reading: Reading, can_be_divided: Callable[[], bool]) -> int:
    """In how many parts a run is read, where nobody has said: in one where each would fetch everything."""
    largest = max(ref.size for ref in reading.refs)
    parts = max(1, min(MOST_PARTS, largest // PART_BYTES))
    return parts if parts > 1 and can_be_divided() else 1


def _runner(address: str) -> DaskTaskRunner:
    missing = [name for name in ("prefect_dask", "distributed") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"`dask` is {address}, and {missing[0]} is not installed.", next_step='pip install "spectral-edge[dask]"'
        )
    from distributed import LocalCluster  # noqa: PLC0415 - as above
    from prefect_dask.task_runners import DaskTaskRunner  # noqa: PLC0415 - as above

    workers = _local_workers(address)
    if workers is None:
        return DaskTaskRunner(address=address)
    kwargs: dict[str, Any] = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "memory_limit": 0,  # the pass bounds its memory by itself; a share of this machine's may be less than libraries
        "silence_logs": logging.CRITICAL,  # what fails on a worker is told here, in our words
        "dashboard_address": "127.0.0.1:0",  # Dask's pages are for this machine alone
    }
    return DaskTaskRunner(cluster_class=LocalCluster, cluster_kwargs=kwargs)


def _local_workers(address: str) -> int | None:
    """N of `local:N`; None for the address of a scheduler."""
    found = _LOCAL.fullmatch(address)
    return None if found is None else int(found[1])


def _connected(runner: DaskTaskRunner, address: str) -> Client:
    try:
        return runner.client
    except (OSError, ValueError) as error:
        raise TransientError(
            f"no Dask scheduler answers at {address}: {error}.",
            next_step="see whether it is up, or use --dask local:N for N processes of this machine.",
        ) from None


def _lost() -> tuple[type[BaseException], ...]:
    from distributed import CancelledError  # noqa: PLC0415 - as above
    from distributed.comm.core import CommClosedError  # noqa: PLC0415 - as above

    return CancelledError, CommClosedError
