"""`spectral-edge audit --dask`: the whole command, with worker processes of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from command_line import CommandLine, random_walk, write_safetensors

from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection
from spectral_edge.store import Store


def test_runs_are_read_by_local_workers(tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> None:
    command = with_server(tmp_path)
    for number in range(2):
        write_safetensors(tmp_path / f"runs/good{number}", random_walk(8, seed=number))
    broken = write_safetensors(tmp_path / "runs/broken", random_walk(8))[4]
    broken.write_bytes(broken.read_bytes()[:-100])
    answer = command.run("audit", "dir:runs", "--window", "3", "--dask", "local:2", "--shards", "2", "--json")
    assert answer.code == 1, answer.err
    outcomes = {run["run_name"]: run["outcome"] for run in answer.json["sources"][0]["runs"]}
    assert outcomes == {"good0": "audited", "good1": "audited", "broken": "failed"}, answer.err
    [error] = [line for line in answer.err.splitlines() if line.startswith("error:")]
    assert "run broken, file step_400.safetensors" in error
    assert "distributed" not in answer.err

    store = Store.open(str(tmp_path / "spectral-edge-store"))
    for run in FolderTracker().runs(Selection(str(tmp_path / "runs"))):
        stored = store.read_run(run.key)
        assert stored is not None
        annotated = (tmp_path / "runs" / run.key.run_name / "spectral_edge").exists()
        assert annotated == (stored.summary["status"] == "ok")

    again = command.run("audit", "dir:runs", "--window", "3", "--dask", "local:2", "--json")
    assert {run["outcome"] for run in again.json["sources"][0]["runs"]} == {"unchanged", "failed"}
