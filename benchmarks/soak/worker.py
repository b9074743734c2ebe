"""A worker of Prefect that audits when asked, set up as `spectral-edge deploy` does it, and its flow runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.soak.places import SOURCES, Server, port_of

_POOL = "spectral-edge"
_DEPLOYMENT = "spectral-edge-audit/nightly"
_UNFINISHED = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
_LOOK_SECONDS = 0.05


@dataclass
class Worker:
    """`prefect worker start` on a pool of type process. A context manager, after which no process of it is left.

    Attributes:
        folder: Where its flow runs work; holds spectral-edge.toml and the store.
        server: The worker's process.
        left: Flow runs that were spared when their worker was killed.
    """

    folder: Path
    server: Server
    left: list[psutil.Process] = field(default_factory=list)

    @classmethod
    def of(cls, home: Path) -> Worker:
        """The worker of the soak in `home`, not started."""
        port = port_of(home / "worker.port")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", _POOL, "--type", "process"]
        command += ["--limit", "1", "--with-healthcheck"]
        environment = {
            "PREFECT_API_URL": os.environ["PREFECT_API_URL"],
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        }
        server = Server(command, f"http://127.0.0.1:{port}/health", environment, home / "worker.log")
        return cls(home / "work", server)

    def __enter__(self) -> Worker:
        command = Path(sys.executable).with_name("spectral-edge")
        deploy = [str(command), "deploy", *SOURCES, "--work-pool", _POOL]
        subprocess.run(deploy, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(with_flow_runs=True)

    def kill(self, *, with_flow_runs: bool) -> None:
        """SIGKILL for the worker, and for what it has started or not."""
        worker = self.server.process
        if worker is None:
            return
        with suppress(psutil.NoSuchProcess):
            self.left += psutil.Process(worker.pid).children(recursive=True)
        self.server.kill_alone()
        for process in self.left if with_flow_runs else ():
            with suppress(psutil.NoSuchProcess):  # psutil sees to it that no other process has its number by now
                process.kill()

    def begin(self) -> Callable[[], bool]:
        """Have it audit both sources; what tells whether a flow run of it works on a run since then."""
        from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes its settings when imported

        before = self._attempts()
        with get_client(sync_client=True) as client:
            client.create_flow_run_from_deployment(client.read_deployment_by_name(_DEPLOYMENT).id)
        return lambda: bool(self._attempts() - before)

    def until_at_work(self, is_at_work: Callable[[], bool], seconds: float) -> bool:
        """Wait until `is_at_work`; False when nothing is to be waited for any more."""
        deadline, look_at_server = time.monotonic() + seconds, time.monotonic() + 1
        while time.monotonic() < deadline:
            if is_at_work():
                return True
            if time.monotonic() > look_at_server:
                if self.is_idle():
                    return False
                look_at_server = time.monotonic() + 1
            time.sleep(_LOOK_SECONDS)
        raise RuntimeError(f"the worker does nothing, see {self.server.log}")

    def until_idle(self, seconds: float) -> None:
        """Return once all its flow runs have ended, those included whose end only Prefect's server can tell."""
        deadline = time.monotonic() + seconds
        while not self.is_idle():
            if time.monotonic() > deadline:
                raise RuntimeError(f"flow runs of the worker do not end: {self.ends()}")
            time.sleep(1)

    def is_idle(self) -> bool:
        """Whether no flow run of it is planned or under way, by what Prefect's server says."""
        ends = self.ends()
        return not any(ends[name] for name in _UNFINISHED)

    def ends(self) -> Counter[str]:
        """How many of its flow runs have ended in which type of state, or are in it."""
        from prefect.client.orchestration import get_client  # noqa: PLC0415 - as above
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId  # noqa: PLC0415 - as above

        found: Counter[str] = Counter()
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(_DEPLOYMENT)
            wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
            while runs := client.read_flow_runs(deployment_filter=wanted, offset=found.total()):
                found.update(run.state_type.value for run in runs if run.state_type is not None)
        return found

    def _attempts(self) -> set[str]:
        return {path.name for path in (self.folder / "store" / "attempts").glob("*.json")}
