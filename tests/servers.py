"""Real servers for tests, each started on a free port and stopped with its block: PostgreSQL, S3 (moto), MLflow."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_START_SECONDS = 120


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; gives the SQLAlchemy URI of an empty database."""
    programs, port = _postgres_programs(), free_port()
    as_user = {"user": "nobody"} if os.geteuid() == 0 else {}  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(prefix="spectral-edge-postgres-") as home:
        if as_user:
            shutil.chown(home, **as_user)
        data, log = Path(home, "data"), Path(home, "log")
        initdb = [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=home, **as_user)
        server = [programs / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", "", "-F"]
        with (
            log.open("wb") as out,
            _process(server, signal.SIGINT, stdout=out, stderr=out, cwd=home, **as_user) as process,
        ):
            _wait(process, lambda: _answers(port), log)
            create = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "tester", "mlflow"]
            _until(lambda: subprocess.run(create, capture_output=True, check=False).returncode == 0)
            yield f"postgresql+psycopg://tester@127.0.0.1:{port}/mlflow"


@contextmanager
def s3(bucket: str) -> Iterator[str]:
    """An S3 server that holds an empty bucket; gives its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name=S3_CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    try:
        client.create_bucket(Bucket=bucket)
        yield address
    finally:
        client.close()
        server.stop()


@contextmanager
def mlflow_server(folder: Path, backend: str, *options: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """`mlflow server` on the store `backend`; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend, "--host", "127.0.0.1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings = {**os.environ, **quiet, **(env or {})}
    settings.pop("MLFLOW_TRACKING_URI", None)
    log = folder / f"mlflow-{port}.log"
    address = f"http://127.0.0.1:{port}"
    with (
        log.open("wb") as out,
        _process(
            # With several workers each request waits some 40 ms for a delayed acknowledgement.
            [*command, "--port", str(port), "--workers", "1", *options],
            signal.SIGKILL,  # its state is the database's
            stdout=out,
            stderr=out,
            env=settings,
            cwd=folder,
        ) as process,
    ):
        _wait(process, lambda: _healthy(address), log)
        yield address


@contextmanager
def prefect_server(folder: Path, env: Mapping[str, str]) -> Iterator[str]:
    """`prefect server start` with a database of its own below `folder`; gives the address of its API."""
    port = free_port()
    program, log = Path(sys.executable).with_name("prefect"), folder / "prefect-server.log"
    with (
        log.open("wb") as out,
        _process(
            [program, "server", "start", "--host", "127.0.0.1", "--port", port],
            signal.SIGKILL,
            stdout=out,
            stderr=out,
            env={**env, "PREFECT_HOME": str(folder / "prefect-server")},
            cwd=folder,
        ) as process,
    ):
        address = f"http://127.0.0.1:{port}/api"
        _wait(process, lambda: _healthy(address), log)
        yield address


def _postgres_programs() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        raise RuntimeError("the contract tests need PostgreSQL's initdb and postgres: `apt-get install postgresql`")
    return installed[-1].parent


@contextmanager
def _process(command: list[object], stop: int, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; at the end the session gets the signal `stop`, and SIGKILL if it stays."""
    process = subprocess.Popen([str(part) for part in command], start_new_session=True, **options)
    try:
        yield process
    finally:
        for sign in (stop, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)


def _wait(process: subprocess.Popen[bytes], ready: Any, log: Path) -> None:
    def ready_or_dead() -> bool:
        return process.poll() is not None or ready()

    _until(ready_or_dead)
    if process.poll() is not None:
        raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{log.read_text()[-4000:]}")


def _until(condition: Any) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a test server did not start in time")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
