"""Several named trackers in one audit of the real command line: all are audited but the one that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from command_line import CommandLine, random_walk, tree, write_safetensors
from fault_proxy import fault_proxy
from mlflow import MlflowClient
from servers import mlflow_server

from spectral_edge.store import Store

IN_BLOCK, IN_FILE, IN_VARIABLE = (f"token-{word}-6f1d2c-of-nobody" for word in ("block", "file", "variable"))

SETTINGS = """
sources = ["one:toy", "gone:toy", "two:toy", "lab:here"]
window = 3

[trackers.one]
kind = "mlflow"
uri = "{one}"
token = {{block = "secret/one-mlflow"}}

[trackers.two]
kind = "mlflow"
uri = "{two}"
token = {{file = "token"}}
annotate = "none"

[trackers.gone]
kind = "mlflow"
uri = "http://127.0.0.1:9"
token = {{env = "GONE_TOKEN"}}

[trackers.lab]
kind = "dir"
path = "runs"
"""


def test_one_audit_of_several_trackers(
    tmp_path: Path, prefect_home: Path, with_server: Callable[[Path], CommandLine]
) -> None:
    backend, artifacts = f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts")
    place = tmp_path / "place"
    write_safetensors(place / "runs" / "here" / "mine", random_walk(6))
    with (
        mlflow_server(tmp_path, backend, "--artifacts-destination", artifacts) as address,
        fault_proxy(address) as one,
        fault_proxy(address) as two,
    ):
        client = MlflowClient(address)
        experiment = client.create_experiment("toy")
        run_id = client.create_run(experiment, run_name="run").info.run_id
        for path in write_safetensors(tmp_path / "logged", random_walk(6)):
            client.log_artifact(run_id, str(path), "checkpoints")
        one.demanded, two.demanded = f"Bearer {IN_BLOCK}", f"Bearer {IN_FILE}"
        (place / "spectral-edge.toml").write_text(SETTINGS.format(one=one.address, two=two.address))
        (place / "token").write_text(IN_FILE)
        (place / "token").chmod(0o600)
        environment = {
            **with_server(place).environment,
            "GONE_TOKEN": IN_VARIABLE,
            "MLFLOW_TRACKING_TOKEN": "token-of-another-server",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        save = f"from prefect.blocks.system import Secret; Secret(value='{IN_BLOCK}').save('one-mlflow')"
        subprocess.run([sys.executable, "-c", save], check=True, env={**os.environ, **environment}, timeout=120)
        command = CommandLine(place, environment)

        before, written = tree(place), MlflowClient(address).get_run(run_id).data.tags
        looked = command.run("doctor", "--json")
        assert (tree(place), MlflowClient(address).get_run(run_id).data.tags) == (before, written)
        unwell = {it["name"] for it in looked.json["findings"] if it["level"] == "problem"}
        assert (looked.code, unwell - {"disk"}) == (1, {"gone:toy"})
        assert all(it["advice"] for it in looked.json["findings"] if it["level"] == "problem")

        done = command.run("audit", "--json")
        assert done.code == 1, done.err
        told = {source["source"]: source for source in done.json["sources"]}
        assert list(told) == ["one:toy", "gone:toy", "two:toy", "lab:here"]
        assert [run["outcome"] for run in told["one:toy"]["runs"]] == ["audited"]
        assert [run["outcome"] for run in told["two:toy"]["runs"]] == ["unchanged"]
        assert [run["outcome"] for run in told["lab:here"]["runs"]] == ["audited"]
        assert len(done.errors) == 1
        assert done.errors[0].startswith("error: gone:toy: ")
        assert one.credentials == {f"Bearer {IN_BLOCK}"}
        assert two.credentials == {f"Bearer {IN_FILE}"}

    rows = Store.open(place / "spectral-edge-store", create=False).runs_table().to_pylist()
    assert {(row["tracker"], row["tracker_name"]) for row in rows} == {("mlflow", "one"), ("dir", "lab")}
    (place / "token").unlink()
    for secret in (IN_FILE, IN_VARIABLE, IN_BLOCK):
        assert secret not in looked.out + looked.err + done.out + done.err
        assert not [path for path in place.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        if secret != IN_BLOCK:  # which Prefect keeps, encrypted
            kept = [path for path in prefect_home.rglob("*") if path.is_file()]
            assert not [path for path in kept if secret.encode() in path.read_bytes()]
