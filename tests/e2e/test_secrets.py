"""A token, and a password in the server's address, are in nothing that an audit leaves behind or says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from command_line import Answer, CommandLine, random_walk, write_safetensors
from fault_proxy import Fault, fault_proxy
from mlflow import MlflowClient
from servers import mlflow_server

TOKEN, PASSWORD = "token-6f1d2c-of-nobody", "password-93ab7e-of-nobody"


def showing_secrets(*roots: Path) -> Iterator[Path]:
    """Files below `roots` that hold one."""
    for path in (path for root in roots for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if TOKEN.encode() in content or PASSWORD.encode() in content:
            yield path


def test_no_secret_is_shown_or_kept(
    tmp_path: Path, prefect_home: Path, with_server: Callable[[Path], CommandLine]
) -> None:
    artifacts, backend = tmp_path / "artifacts", f"sqlite:///{tmp_path}/mlflow.db"
    with (
        mlflow_server(tmp_path, backend, "--artifacts-destination", str(artifacts)) as address,
        fault_proxy(address) as proxy,
    ):
        client = MlflowClient(address)
        run_id = client.create_run(client.create_experiment("toy"), run_name="run").info.run_id
        for path in write_safetensors(tmp_path / "logged", random_walk(6)):
            client.log_artifact(run_id, str(path), "checkpoints")
        secret = proxy.address.replace("://", f"://someone:{PASSWORD}@")
        environment = {
            **with_server(tmp_path).environment,
            "MLFLOW_TRACKING_URI": secret,
            "MLFLOW_TRACKING_TOKEN": TOKEN,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
        }
        command = CommandLine(tmp_path, environment)
        audit = ("audit", "mlflow:toy", "--window", "3")

        proxy.spoil(Fault("runs/set-tag", status=403, text=f"not with Bearer {TOKEN} nor {PASSWORD} at {secret}"))
        refused = command.run(*audit)
        assert (refused.code, len(refused.errors)) == (1, 1), refused.err
        assert "run run" in refused.errors[0]

        proxy.spoil(*(Fault("runs/log-batch", status=status) for status in (500, 503)))
        proxy.spoil(Fault("runs/log-batch", lost=True), Fault("PUT ", lost=True), Fault("runs/set-tag", cut=1))
        done = command.run(*audit, "--json")  # some of it fails, and Prefect tries the run again
        assert done.code == 0, done.err
        assert proxy.is_spent
        assert not shows_a_secret(refused)
        assert not shows_a_secret(done)
        assert not list(showing_secrets(tmp_path, prefect_home))


def shows_a_secret(answer: Answer) -> bool:
    return any(secret in text for secret in (TOKEN, PASSWORD) for text in (answer.out, answer.err))
