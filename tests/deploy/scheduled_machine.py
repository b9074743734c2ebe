"""A machine with runs to audit in a folder: the real commands on it, and what Prefect's server says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from safetensors.numpy import save_file

from tests.e2e.command_line import CommandLine

NIGHTLY, HOURLY, MONTHLY = (f"spectral-edge-audit/{name}" for name in ("nightly", "hourly", "monthly"))
WEEKLY = "spectral-edge-compact/weekly"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_WAIT_SECONDS = 300  # far beyond what anything here takes on a machine that is not busy
Found = TypeVar("Found")


def write_run(folder: Path, checkpoints: int = 14, size: int = 60) -> None:
    """A random walk: `checkpoints` files of one tensor with `size` numbers."""
    folder.mkdir(parents=True)
    rows = np.cumsum(np.random.default_rng(0).normal(size=(checkpoints, size)), axis=0, dtype=np.float32)
    for index, row in enumerate(rows):
        save_file({"layers.0.mlp.weight": row}, folder / f"step_{10 * index}.safetensors")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of Prefect's, MLflow's or ours but what is given, and no word to the outside."""
    ours = ("SPECTRAL_EDGE_", "PREFECT_", "MLFLOW_", "WANDB_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_HOME": str(home)}
    fast = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    return clean | quiet | fast | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])} | more


def until(found: Callable[[], Found | None], what: str, seconds: float = _WAIT_SECONDS) -> Found:
    """What `found` gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.3)
    raise TimeoutError(f"waited {seconds} s for {what}")


@dataclass(frozen=True)
class Server:
    """What Prefect's server at `address` says."""

    address: str

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a GET, or to a POST of `body`. On SQLite the server answers 503 while another writes."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            way = "GET" if body is None else "POST"
            answer = httpx.request(way, self.address + path, json=body, timeout=60)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer.raise_for_status().json()
            time.sleep(0.5)

    def refusal(self, path: str, body: Mapping[str, Any]) -> int:
        """The status of the answer to a POST."""
        return httpx.post(self.address + path, json=body, timeout=60).status_code

    def deployments(self) -> dict[str, Any]:
        """By name."""
        return {found["name"]: found for found in self.ask("/deployments/filter", {})}

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run of it now, and give the run's id."""
        found = self.ask(f"/deployments/name/{deployment}")
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])

    def state(self, run: str) -> Any:
        """The state of a flow run."""
        return self.ask(f"/flow_runs/{run}")["state"]

    def end(self, run: str) -> Any:
        """Its state once it has ended."""

        def ended() -> Any:
            state = self.state(run)
            return state if state["type"] in ENDED else None

        return until(ended, f"the end of flow run {run}")

    def artifact(self, key: str) -> Any:
        """The newest artifact of that key."""
        return self.ask(f"/artifacts/{key}/latest")


@dataclass(frozen=True)
class Machine:
    """The commands of a person in `folder`, whose Prefect server is `server`."""

    folder: Path
    server: Server

    @property
    def environment(self) -> dict[str, str]:
        """Of that person's shell."""
        return environment(self.folder / "prefect-client", PREFECT_API_URL=self.server.address)

    @property
    def command(self) -> CommandLine:
        """`spectral-edge`."""
        return self.command_in(self.folder)

    def command_in(self, folder: Path, **environment: str) -> CommandLine:
        """`spectral-edge` elsewhere."""
        return CommandLine(folder, self.environment | environment)

    def prefect(self, *arguments: str, cwd: Path | None = None, **environment: str) -> str:
        """What `prefect` says."""
        done = subprocess.run(
            [*prefect_program(), *arguments],
            cwd=cwd or self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def worker(self, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
        """`prefect worker start`, in a folder that is not that of the runs."""
        command = [
            *prefect_program(),
            "worker",
            "start",
            "--pool",
            "spectral-edge",
            "--type",
            "process",
            "--limit",
            "1",
        ]
        with (self.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=cwd, env=self.environment, stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)


def prefect_program() -> list[str]:
    """The `prefect` command of this environment."""
    return [str(Path(sys.executable).with_name("prefect"))]
