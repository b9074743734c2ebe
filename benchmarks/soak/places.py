"""What is audited and what serves it: an experiment on an MLflow server, a folder of runs, and a Prefect server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from safetensors.numpy import save_file

EXPERIMENT, RUNS, FIRST = "soak", 3, 16
SOURCES = (f"mlflow:{EXPERIMENT}", "dir:../runs")
_START_SECONDS = 180


def port_of(kept: Path) -> int:
    """A port that nothing listened on when it was chosen; the same when the soak goes on, as addresses are stored."""
    if not kept.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            kept.write_text(str(probe.getsockname()[1]))
    return int(kept.read_text())


@dataclass
class Server:
    """A server that can be killed and started again at the same address, with the same state."""

    command: list[str]
    health: str
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and return once it answers."""
        # A Prefect server that finds the address of one in its environment does not serve.
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**environment, **self.environment},
                cwd=self.log.parent,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command[2]} does not start, see {self.log}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            with urllib.request.urlopen(self.health, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def kill(self) -> None:
        """SIGKILL, for its children as well."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._bury(self.process)

    def kill_alone(self) -> None:
        """SIGKILL; its children live on."""
        if self.process is not None:
            self.process.kill()
            self._bury(self.process)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        process.communicate()
        self.process = None


def write_settings(home: Path, address: str) -> None:
    """What all audits are told, whoever starts them. Nothing runs by schedule."""
    lines = [f'tracking_uri = "{address}"', 'store = "store"', "window = 3", "lags = 8", "max_tries = 1000"]
    lines += [f"[schedules.{name}]\nactive = false" for name in ("nightly", "hourly", "weekly", "monthly")]
    (home / "work" / "spectral-edge.toml").write_text("\n".join(lines))


def mlflow_server(home: Path) -> tuple[str, Server]:
    """An MLflow server on SQLite below `home`, that hands artifacts through; its address, and the server."""
    port = port_of(home / "mlflow.port")
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", f"{home}/artifacts"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return address, Server(command, f"{address}/health", quiet, home / "mlflow.log")


def prefect_server(home: Path) -> tuple[str, Server]:
    """A Prefect server on SQLite below `home`; the address of its API, and the server."""
    port = port_of(home / "prefect.port")
    address = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "pipelines.prefect_server", "127.0.0.1", str(port)]
    environment = {
        "PREFECT_HOME": f"{home}/prefect",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # As docs/scheduling.md says: otherwise it forgets who holds the places of a limit when it is killed.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    return address, Server(command, f"{address}/health", environment, home / "prefect.log")


@dataclass(frozen=True)
class Runs:
    """As many runs in MLflow as in a folder, which grow. What has been logged is read off what is there."""

    home: Path
    client: MlflowClient

    @property
    def folder(self) -> Path:
        """Of the runs that are folders."""
        return self.home / "runs"

    def make(self) -> None:
        """Log the first checkpoints of all runs, unless that was done."""
        if self.client.get_experiment_by_name(EXPERIMENT) is None:
            self.client.create_experiment(EXPERIMENT)
        missing = RUNS - len(self.logged())
        for _ in range(missing):
            run = self.client.create_run(self._experiment(), run_name=f"mlflow-{len(self.logged())}")
            self._log(run.info.run_id, range(FIRST))
        for number in range(RUNS):
            self._write(number, range(FIRST))

    def logged(self) -> list[str]:
        """Ids of the runs in MLflow."""
        return sorted(run.info.run_id for run in self.client.search_runs([self._experiment()]))

    def checkpoints(self) -> dict[str, int]:
        """How many checkpoints each run has, by its id or the name of its folder."""
        of_mlflow = {run: len(self.client.list_artifacts(run, "checkpoints")) for run in self.logged()}
        return of_mlflow | {path.name: len(list(path.glob("*.safetensors"))) for path in self.folder.iterdir()}

    def grow(self, which: int) -> None:
        """One more checkpoint for one run of each kind."""
        counts, run = self.checkpoints(), self.logged()[which % RUNS]
        self._log(run, range(counts[run], counts[run] + 1))
        there = counts[f"run_{which % RUNS}"]
        self._write(which % RUNS, range(there, there + 1))

    def _experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        return str(experiment.experiment_id)

    def _log(self, run: str, indices: range) -> None:
        seed = int(run[:8], 16)
        for index in indices:
            path = self.home / f"step_{10 * index}.safetensors"
            save_file({"layers.0.mlp.weight": _weights(seed, index)}, path)
            self.client.log_artifact(run, str(path), "checkpoints")
            path.unlink()
            self.client.log_metric(run, "val_loss", 1 / (index + 1), step=10 * index)

    def _write(self, number: int, indices: range) -> None:
        folder = self.folder / f"run_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        for index in indices:
            path = folder / f"step_{10 * index}.safetensors"
            if not path.exists():
                save_file({"layers.0.mlp.weight": _weights(number, index)}, path)


def _weights(seed: int, index: int) -> np.ndarray:
    """A random walk of a hundred thousand numbers, after `index` steps."""
    steps = (np.random.default_rng([seed, at]).normal(size=100_000) for at in range(index + 1))
    return np.sum(list(steps), axis=0).astype(np.float32)
