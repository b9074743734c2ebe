"""The ways by which a run's files come from MLflow, each with a proxy where the bytes pass."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_proxy import Fault, FaultProxy
from mlflow import MlflowClient
from mlflow.entities import RunInfo

from integrations.mlflow_connection import MlflowConnection
from integrations.mlflow_fetch import fetch_checkpoint
from integrations.tracker import CheckpointFile, CheckpointRef

MB = 1 << 20
RANGE = 256 << 10
SIZE = 4 * RANGE - 1
TRIES = 3
SWITCH = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"

# How a file comes: handed through by a server whose artifacts lie in a folder or on S3, from S3 at addresses that the
# server signs, and from S3 with credentials of one's own.
WAYS = ("folder", "through", "signed", "s3")
RESUMING = ("folder", "signed", "s3")
TO_S3 = ("signed", "s3")


@dataclass
class Way:
    """One way for files, with a proxy where their bytes pass."""

    name: str
    tracking: str
    proxy: FaultProxy
    server: FaultProxy
    location: str | None
    scratch: Path
    run: RunInfo = field(init=False)

    def log(self, *paths: str, size: int = SIZE) -> dict[str, bytes]:
        """Log files of a run, of random bytes."""
        client = MlflowClient(self.tracking)
        experiment = client.create_experiment(f"fetch-{time.monotonic_ns()}", artifact_location=self.location)
        self.run = client.create_run(experiment).info
        contents = {path: random.Random(path).randbytes(size) for path in paths}
        for path, content in contents.items():
            self.put(path, content)
        self.proxy.requests.clear()
        return contents

    def put(self, path: str, content: bytes) -> None:
        """Log one file of the run, over another of its name if there is one."""
        file = self.scratch / "to log" / Path(path).name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        MlflowClient(self.tracking).log_artifact(self.run.run_id, str(file), str(Path(path).parent))

    def fetch(self, *paths: str, size: int = SIZE) -> tuple[Path, ...]:
        """Fetch files as one checkpoint."""
        files = tuple(CheckpointFile(path, size) for path in paths)
        ref = CheckpointRef("checkpoint", 1, "file_name", files, self.run.artifact_uri)
        return fetch_checkpoint(MlflowConnection(self.server.address), "run", ref, self.spool)

    @property
    def spool(self) -> Path:
        return self.scratch / "spool"

    def nothing_is_left(self) -> bool:
        return not list(self.spool.iterdir()) and not [
            thread for thread in threading.enumerate() if thread.name.startswith("download")
        ]


FILE = "ck/model.safetensors"
PROBE = "bytes=0-0"
"""What is asked of a store to see whether it can be reached."""


def carries_bytes(way: Way) -> str:
    """What is in requests for the bytes of a file."""
    return "GET /artifacts/" if way.name in TO_S3 else "GET /api/2.0/mlflow-artifacts/artifacts/"


def spoil(way: Way, **what: Any) -> None:
    """Spoil answers that carry the file's bytes."""
    way.proxy.spoil(Fault(carries_bytes(way), unless=PROBE, **what))


def asked(way: Way) -> list[str]:
    """Ranges of the file that were asked for so far, in order; empty for all of it."""
    return [found for found in way.proxy.ranges(carries_bytes(way)) if found != PROBE]


def parts(size: int) -> list[str]:
    return sorted(f"bytes={start}-{min(start + RANGE, size) - 1}" for start in range(0, size, RANGE))
