"""Megabytes a second of our downloads from MLflow, next to MLflow's own of the same files from the same servers.

    python -m benchmarks.fetch [--files 4] [--megabytes 64] [--rounds 2]

Each round fetches all files by us, by `mlflow.artifacts.download_artifacts` in this process, and by the command
`mlflow artifacts download`, whose time contains the start of Python; the fastest round counts. Four ways:

    folder   through an MLflow server that keeps its artifacts in a folder
    through  through an MLflow server that keeps them on S3, and must fetch each file itself first
    signed   from that S3 directly, at addresses that the server signs (MLflow's own default too)
    s3       from S3 with credentials of one's own

S3 is moto here, which reads the whole object for each range that it is asked for; that punishes small ranges (boto3
takes 8 MB ones) more than a real store does. We also check digests where S3 tells one; MLflow does not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import RunInfo

from integrations.mlflow_connection import MlflowConnection
from integrations.mlflow_fetch import fetch_checkpoint
from integrations.tracker import CheckpointFile, CheckpointRef
from pipelines.fetching import PARALLEL_FETCHES
from tests.servers import S3_CREDENTIALS, free_port, mlflow_server

SWITCH = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@contextmanager
def moto() -> Iterator[str]:
    """moto in a process of its own, so that it does not share Python's lock with the downloads."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while not answers(address):
            time.sleep(0.1)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="artifacts")
        yield address
    finally:
        process.kill()
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/moto-api/", timeout=1):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def log(tracking: str, location: str | None, files: list[Path]) -> RunInfo:
    client = MlflowClient(tracking)
    run = client.create_run(client.create_experiment(f"fetch {time.monotonic_ns()}", artifact_location=location)).info
    for file in files:
        client.log_artifact(run.run_id, str(file), "checkpoints")
    return run


def ours(tracking: str, run: RunInfo, files: list[Path], place: Path) -> None:
    connection = MlflowConnection(tracking)

    def fetch(file: Path) -> None:
        described = (CheckpointFile(f"checkpoints/{file.name}", file.stat().st_size),)
        fetch_checkpoint(
            connection, "run", CheckpointRef(file.name, 1, "file_name", described, run.artifact_uri), place
        )

    with ThreadPoolExecutor(PARALLEL_FETCHES) as pool:
        list(pool.map(fetch, files))


def theirs(tracking: str, run: RunInfo, place: Path) -> None:
    mlflow.artifacts.download_artifacts(
        artifact_uri=f"{run.artifact_uri}/checkpoints", dst_path=str(place), tracking_uri=tracking
    )


def command(tracking: str, run: RunInfo, place: Path) -> None:
    program = [sys.executable, "-m", "mlflow", "artifacts", "download"]
    arguments = ["--artifact-uri", f"{run.artifact_uri}/checkpoints", "--dst-path", str(place)]
    env = {**os.environ, "MLFLOW_TRACKING_URI": tracking}
    subprocess.run([*program, *arguments], check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def seconds(work: Callable[[Path], None], scratch: Path, size: int) -> float:
    place = Path(tempfile.mkdtemp(dir=scratch))
    started = time.perf_counter()
    work(place)
    taken = time.perf_counter() - started
    assert sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) == size
    shutil.rmtree(place)
    return taken


def row(way: str, tracking: str, location: str | None, files: list[Path], scratch: Path, rounds: int) -> str:
    os.environ[SWITCH] = "false" if way == "through" else ""
    if way != "through":
        del os.environ[SWITCH]
    run, size = log(tracking, location, files), sum(file.stat().st_size for file in files)
    works: list[Callable[[Path], None]] = [
        lambda place: ours(tracking, run, files, place),
        lambda place: theirs(tracking, run, place),
        lambda place: command(tracking, run, place),
    ]
    # In turn, so that all meet the same machine.
    times = [[seconds(work, scratch, size) for work in works] for _ in range(rounds)]
    return f"{way:10s}" + "".join(f"{size / 1e6 / min(column):16.0f}" for column in zip(*times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.update(QUIET | S3_CREDENTIALS)
    with ExitStack() as servers:
        scratch = Path(servers.enter_context(tempfile.TemporaryDirectory()))
        folders = [scratch / name for name in ("logged", "fetched", "folder", "s3")]
        for folder in folders:
            folder.mkdir()
        files = [folders[0] / f"step_{number}.safetensors" for number in range(arguments.files)]
        for file in files:
            file.write_bytes(os.urandom(arguments.megabytes * 1_000_000))
        os.environ["MLFLOW_S3_ENDPOINT_URL"] = servers.enter_context(moto())
        places = [f"{folders[2]}/artifacts", "s3://artifacts/server"]
        by_folder, by_s3 = (
            servers.enter_context(
                mlflow_server(folder, f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", place)
            )
            for folder, place in zip(folders[2:], places, strict=True)
        )
        print(f"{arguments.files} files of {arguments.megabytes} MB, MB/s, {os.cpu_count()} cores")
        print(f"{'':10s}{'spectral-edge':>16s}{'MLflow, library':>16s}{'MLflow, command':>16s}")
        for way in ("folder", "through", "signed", "s3"):
            tracking, location = by_folder if way == "folder" else by_s3, "s3://artifacts/own" if way == "s3" else None
            print(row(way, tracking, location, files, folders[1], arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
