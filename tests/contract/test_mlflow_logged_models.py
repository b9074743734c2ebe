"""Checkpoints logged as MLflow 3 models, in the layouts that users and frameworks make."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import torch
from labs import Lab, Logged, MlflowLab, save, small_model, trained
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from integrations.tracker import OtherSeries, Selection
from spectral_edge.checkpoints import open_checkpoint


@pytest.fixture(params=["mlflow-sqlite", "mlflow-file", "mlflow-server"])
def lab(request: pytest.FixtureRequest, make_lab: Callable[[str], Lab]) -> MlflowLab:
    made = make_lab(request.param)
    assert isinstance(made, MlflowLab)
    return made


def log_model(
    lab: MlflowLab,
    project: Selection,
    run_id: str,
    name: str,
    step: int | None,
    files: dict[str, bytes],
    status: LoggedModelStatus = LoggedModelStatus.READY,
) -> str:
    """A logged model with `files` as its artifacts, as MLflow's client makes them."""
    client, home = lab.client, lab.scratch / f"{name}-{step}"
    experiment = client.get_experiment_by_name(project.container)
    assert experiment is not None
    model = client.create_logged_model(experiment.experiment_id, name=name, source_run_id=run_id)
    for path, content in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)
    client.log_model_artifacts(model.model_id, str(home))
    client.finalize_logged_model(model.model_id, status)
    if step is not None:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


def weights(lab: MlflowLab, seed: int, suffix: str = ".safetensors") -> bytes:
    path = lab.scratch / f"weights{suffix}"
    save(small_model(seed), path)
    return path.read_bytes()


def test_state_dicts_with_the_step_of_the_runs_outputs(lab: MlflowLab, tmp_path: Path) -> None:
    project = lab.project()
    run_id = lab.log(project, Logged("run"))
    for step in (200, 100, 300):
        log_model(lab, project, run_id, "ckpt", step, {"data/model.safetensors": weights(lab, step), "MLmodel": b"{}"})
    run = lab.run(project)
    listing = lab.tracker.checkpoints(run)
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [
        (step, "logged_model") for step in (100, 200, 300)
    ]
    for ref in listing.checkpoints:
        files = lab.tracker.fetch(run, ref, tmp_path / "spool")
        with open_checkpoint(files) as reader:
            assert torch.equal(reader.read_block("0.weight", 0, 48), small_model(ref.step)["0.weight"].flatten())


def test_hugging_face_trainer_logs_every_checkpoint_at_step_0_and_names_tell(lab: MlflowLab) -> None:
    project = lab.project()
    run_id = lab.log(project, Logged("run"))
    for step in (6, 12, 18):
        home = f"artifacts/checkpoint-{step}"
        files = {
            f"{home}/model.safetensors": weights(lab, step),
            f"{home}/optimizer.pt": weights(lab, step, ".pt"),
            f"{home}/rng_state.pth": b"x",
            f"{home}/scheduler.pt": b"x",
            f"{home}/training_args.bin": b"x",
            f"{home}/trainer_state.json": b"{}",
            "MLmodel": b"{}",
            "python_model.pkl": b"x",
        }
        log_model(lab, project, run_id, f"checkpoint-{step}", 0, files)
    listing = lab.tracker.checkpoints(lab.run(project))
    assert [ref.step for ref in listing.checkpoints] == [6, 12, 18]
    assert [file.path for ref in listing.checkpoints for file in ref.files] == [
        f"artifacts/checkpoint-{step}/model.safetensors" for step in (6, 12, 18)
    ]


def test_models_that_cannot_be_read_are_left_out_and_named(lab: MlflowLab) -> None:
    project = lab.project()
    run_id = lab.log(project, Logged("run"))
    readable = {"data/model.safetensors": weights(lab, 1)}
    for step in (1, 2):
        log_model(lab, project, run_id, "ckpt", step, readable)
    log_model(lab, project, run_id, "ckpt", 5, {"notes.txt": b"x"})
    log_model(lab, project, run_id, "ckpt", 6, readable, LoggedModelStatus.FAILED)
    log_model(lab, project, run_id, "ckpt", None, readable)
    listing = lab.tracker.checkpoints(lab.run(project))
    assert [ref.step for ref in listing.checkpoints] == [1, 2]
    said = "\n".join(listing.warnings)
    assert re.search(r"ckpt \(step 5\) left out: it holds no weights file", said)
    assert "ckpt left out: no training step is known" in said


def test_the_longer_of_models_and_artifacts_is_taken_and_the_other_named(lab: MlflowLab) -> None:
    project = lab.project()
    longer = lab.log(project, Logged("artifacts win", trained(1, 2, 3)))
    tie = lab.log(project, Logged("models win", trained(1, 2)))
    for run_id in (longer, tie):
        for step in (10, 20):
            log_model(lab, project, run_id, "ckpt", step, {"state_dict.pth": weights(lab, step, ".pth")})
    listings = {run.key.run_name: lab.tracker.checkpoints(run) for run in lab.tracker.runs(project)}
    assert [ref.step for ref in listings["artifacts win"].checkpoints] == [1, 2, 3]
    assert listings["artifacts win"].series == "checkpoints/step_#.safetensors"
    assert "the series `model:ckpt` also holds 2 checkpoints" in "\n".join(listings["artifacts win"].warnings)
    assert [ref.step for ref in listings["models win"].checkpoints] == [10, 20]
    assert "`checkpoints/step_#.safetensors` also holds 2 check" in "\n".join(listings["models win"].warnings)


def test_two_families_of_models_are_not_mixed(lab: MlflowLab) -> None:
    project = lab.project()
    run_id = lab.log(project, Logged("run"))
    for name, steps in (("generator", (1, 2, 3)), ("critic", (1, 2))):
        for step in steps:
            log_model(lab, project, run_id, name, step, {"model.safetensors": weights(lab, step)})
    listing = lab.tracker.checkpoints(lab.run(project))
    assert [ref.name for ref in listing.checkpoints] == ["generator/model.safetensors"] * 3
    assert (listing.series, listing.others) == ("model:generator", (OtherSeries("model:critic", 2),))
    other = lab.tracker.checkpoints(lab.run(project), "model:crit*")
    assert [ref.name for ref in other.checkpoints] == ["critic/model.safetensors"] * 2
    assert (other.others, other.warnings) == ((OtherSeries("model:generator", 3),), ())


def test_models_that_tell_their_step_in_a_record_only(lab: MlflowLab) -> None:
    project = lab.project()
    run_id = lab.log(project, Logged("run"))
    for number, step in enumerate((40, 80, 120)):
        state = json.dumps({"global_step": step}).encode()
        files = {"artifacts/out/model.safetensors": weights(lab, step), "artifacts/out/trainer_state.json": state}
        log_model(lab, project, run_id, f"epoch_{number}", 0, files)
    listing = lab.tracker.checkpoints(lab.run(project))
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [(s, "metadata") for s in (40, 80, 120)]
    assert (listing.series, listing.warnings) == ("model:epoch_#", ())


@pytest.mark.parametrize("epochs", [False, True])
def test_metrics_tell_the_step_only_where_all_agree(epochs: bool, make_lab: Callable[[str], Lab]) -> None:
    lab = make_lab("mlflow-sqlite")
    assert isinstance(lab, MlflowLab)
    project = lab.project()
    run_id = lab.log(project, Logged("run"))
    content = {"model.safetensors": weights(lab, 1)}
    for epoch, step in enumerate((100, 200, 300)):
        lab.client.log_metric(run_id, "loss", 0.5, step=step)
        lab.client.log_metric(run_id, "system/cpu", 0.5, step=epoch)  # as MLflow counts its own measurements
        if epochs:
            lab.client.log_metric(run_id, "accuracy", 0.5, step=epoch)
        time.sleep(0.002)  # times are whole milliseconds
        log_model(lab, project, run_id, "model", 0, content)
    listing = lab.tracker.checkpoints(lab.run(project))
    told = [(ref.step, ref.step_source) for ref in listing.checkpoints]
    if epochs:
        assert told == [(0, "logged_model")]
        assert "a later model has the same step" in "\n".join(listing.warnings)
    else:
        assert told == [(step, "metric_time") for step in (100, 200, 300)]
        assert "no step was logged with the 3 models named like `model`" in "\n".join(listing.warnings)


@pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType:UserWarning")  # mlflow.pyfunc on import
def test_what_mlflow_pytorch_itself_logs_as_artifacts(
    make_lab: Callable[[str], Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab("mlflow-sqlite")
    assert isinstance(lab, MlflowLab)
    project = lab.project()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.uri)
    model = torch.nn.Linear(3, 2)
    with mlflow.start_run(experiment_id=_experiment(lab, project), run_name="run"):
        for step in (50, 100):
            mlflow.pytorch.log_state_dict(model.state_dict(), artifact_path=f"checkpoints/sd_{step}")
    listing = lab.tracker.checkpoints(lab.run(project))
    assert [(ref.step, ref.name) for ref in listing.checkpoints] == [
        (50, "checkpoints/sd_50/state_dict.pth"),
        (100, "checkpoints/sd_100/state_dict.pth"),
    ]


@pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType:UserWarning")  # mlflow.pyfunc on import
@pytest.mark.filterwarnings("ignore::DeprecationWarning:copyreg")  # torch.export pickles with its own deprecated names
@pytest.mark.parametrize("serialization", ["pickle", "pt2"])
def test_models_that_mlflow_pytorch_logs_whole(
    serialization: str, make_lab: Callable[[str], Lab], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = make_lab("mlflow-sqlite")
    assert isinstance(lab, MlflowLab)
    project = lab.project()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.uri)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).eval()
    live: dict[int, dict[str, torch.Tensor]] = {}
    with mlflow.start_run(experiment_id=_experiment(lab, project), run_name="run"):
        for step in (7, 14, 21):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter))
            live[step] = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            mlflow.pytorch.log_model(
                model,
                name="ckpt",
                step=step,
                serialization_format=serialization,
                pip_requirements=["torch"],
                input_example=torch.randn(5, 3).numpy(),
            )
    run = lab.run(project)
    listing = lab.tracker.checkpoints(run)
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [(step, "logged_model") for step in live]
    assert listing.warnings == ()
    for ref in listing.checkpoints:
        with open_checkpoint(lab.tracker.fetch(run, ref, tmp_path / "spool"), scratch=tmp_path) as reader:
            read = {name: reader.read_block(name, 0, info.n_parameters) for name, info in reader.tensors.items()}
        assert read.keys() == live[ref.step].keys()
        assert all(torch.equal(read[name], value.reshape(-1)) for name, value in live[ref.step].items())


def _experiment(lab: MlflowLab, project: Selection) -> str:
    return str(lab.client.get_experiment_by_name(project.container).experiment_id)
