"""A run with artifacts and logged models: the command line shows what it follows, and follows what it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from command_line import CommandLine, random_walk, write_safetensors
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from safetensors.torch import save_file

from spectral_edge.query import query
from spectral_edge.store import Store

ASKED = "select run_name, series, step_source from runs"


def log_models(client: MlflowClient, experiment: str, run_id: str, folder: Path, count: int) -> None:
    """`count` models `best`, logged as MLflow's client does."""
    for step, weights in enumerate(random_walk(count, seed=5)):
        home = folder / f"model-{step}"
        home.mkdir(parents=True)
        save_file(weights, home / "model.safetensors")
        model = client.create_logged_model(experiment, name="best", source_run_id=run_id)
        client.log_model_artifacts(model.model_id, str(home))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 10 * step)])


def test_the_series_is_shown_and_chosen(tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("toy", artifact_location=(tmp_path / "artifacts").as_uri())
    for name in ("both", "artifacts_only"):
        run_id = client.create_run(experiment, run_name=name).info.run_id
        write_safetensors(tmp_path / name, random_walk(6))
        client.log_artifacts(run_id, str(tmp_path / name), "checkpoints")
        if name == "both":
            log_models(client, experiment, run_id, tmp_path / "models", 5)
    command = with_server(tmp_path)
    arguments = ("audit", "mlflow:toy", "--tracking-uri", uri, "--window", "3")

    shown = command.run(*arguments, "--dry-run")
    assert shown.code == 0, shown.err
    heading, both, only = (line.split() for line in shown.out.splitlines()[:3])
    assert {"series", "step", "other"} <= set(heading)
    assert both[3:8] == ["6", "checkpoints/step_#.safetensors", "file_name", "model:best", "(5)"]
    assert only[3:7] == ["6", "checkpoints/step_#.safetensors", "file_name", "-"]

    chosen = command.run(*arguments, "--series", "model:*", "--json")
    assert chosen.code == 1
    runs = {run["run_name"]: run for run in chosen.json["sources"][0]["runs"]}
    assert [runs["both"][key] for key in ("outcome", "checkpoints", "series", "step_source")] == [
        "audited",
        5,
        "model:best",
        "logged_model",
    ]
    assert runs["artifacts_only"]["outcome"] == "failed"
    assert "`checkpoints/step_#.safetensors` (6)" in runs["artifacts_only"]["error"]
    [row] = query(Store.open(tmp_path / "spectral-edge-store"), ASKED).to_pylist()
    assert row == {"run_name": "both", "series": "model:best", "step_source": "logged_model"}
