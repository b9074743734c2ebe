"""Logs tiny runs to an MLflow server as people do: `python -m tests.contract.logged_runs URI EXPERIMENT FOLDER`.

Importing these libraries takes seconds and they warn a lot, hence a process of its own, once. Each function logs a run
of its name, and for each of its checkpoints `FOLDER/NAME/STEP.safetensors` with the parameters that the model had.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytorch_lightning
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from tests.checkpoints.trainer_runs import TOKENS, Lit, NoteOnSave, note, tiny_gpt2

STEPS = (100, 200, 300)


def trained(live: Path) -> Iterator[tuple[int, torch.nn.Module]]:
    """A small model at each of STEPS, written down in `live`."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    for step in STEPS:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        note(live, step, model)
        yield step, model


def log_artifact_pt(live: Path, work: Path) -> None:
    for step, model in trained(live):
        path = work / f"step_{step:06d}.pt"
        torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": {}, "step": step}, path)
        mlflow.log_artifact(str(path), "checkpoints")


def log_artifacts_ckpt(live: Path, work: Path) -> None:
    for step, model in trained(live):
        torch.save({"state_dict": model.state_dict()}, work / f"model-step={step}.ckpt")
    mlflow.log_artifacts(str(work), "weights")


def log_artifacts_safetensors(live: Path, work: Path) -> None:
    for step, model in trained(live):
        folder = work / f"checkpoint-{step}"
        folder.mkdir()
        save_file(model.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
        mlflow.log_artifacts(str(folder), f"checkpoints/{folder.name}")


def log_state_dict(live: Path, work: Path) -> None:
    for step, model in trained(live):
        mlflow.pytorch.log_state_dict(model.state_dict(), artifact_path=f"checkpoints/sd_{step}")


def log_model(live: Path, work: Path) -> None:
    for step, model in trained(live):
        example = torch.zeros(2, 4).numpy()
        mlflow.pytorch.log_model(model, name="ckpt", step=step, pip_requirements=["torch"], input_example=example)


def log_model_pickled(live: Path, work: Path) -> None:
    for step, model in trained(live):
        mlflow.pytorch.log_model(
            model, name=f"ckpt-{step}", step=step, pip_requirements=["torch"], serialization_format="pickle"
        )


def log_model_without_step(live: Path, work: Path) -> None:
    """The step is told by the metrics only, which are logged before each model."""
    for step, model in trained(live):
        mlflow.log_metric("loss", 1 / step, step=step)
        mlflow.pytorch.log_model(model, name="model", pip_requirements=["torch"], serialization_format="pickle")


def log_model_mlflow_2(live: Path, work: Path) -> None:
    """As `log_model(model, f"model_step_{step}")` of MLflow 2 left it: a model's folder among the run's artifacts."""
    for step, model in trained(live):
        folder = work / f"model_step_{step}"
        mlflow.pytorch.save_model(model, str(folder), pip_requirements=["torch"], serialization_format="pickle")
        mlflow.log_artifacts(str(folder), folder.name)


def registered_logged_models(live: Path, work: Path) -> None:
    for step, model in trained(live):
        mlflow.pytorch.log_model(
            model,
            name="ckpt",
            step=step,
            pip_requirements=["torch"],
            serialization_format="pickle",
            registered_model_name="registered",
        )


def registered_artifacts(live: Path, work: Path) -> None:
    """As MLflow 2 did: versions of a registered model that point to `runs:/…/model_step_N`."""
    log_model_mlflow_2(live, work)
    client, run = MlflowClient(), mlflow.active_run()
    client.create_registered_model("registered-artifacts")
    for step in STEPS:
        source = f"{run.info.artifact_uri}/model_step_{step}"
        client.create_model_version("registered-artifacts", source, run.info.run_id)


def _fit(live: Path, work: Path, **options: Any) -> None:
    torch.manual_seed(0)
    loop = pytorch_lightning.Trainer(
        default_root_dir=work,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    loop.fit(Lit(live), DataLoader(torch.randn(8, 4), batch_size=4))


def autolog_by_epoch(live: Path, work: Path) -> None:
    _autolog(live, work, checkpoint_save_freq="epoch")


def autolog_weights_only(live: Path, work: Path) -> None:
    _autolog(live, work, checkpoint_save_freq="epoch", checkpoint_save_weights_only=True)


def autolog_by_step(live: Path, work: Path) -> None:
    _autolog(live, work, checkpoint_save_freq=2)


def _autolog(live: Path, work: Path, **options: Any) -> None:
    mlflow.pytorch.autolog(checkpoint=True, checkpoint_save_best_only=False, log_models=False, **options)
    _fit(live, work, max_epochs=3, logger=False, enable_checkpointing=False)
    mlflow.pytorch.autolog(disable=True)


def lightning_logger(live: Path, work: Path) -> None:
    run = mlflow.active_run()
    logger = pytorch_lightning.loggers.MLFlowLogger(
        tracking_uri=mlflow.get_tracking_uri(), run_id=run.info.run_id, log_model="all"
    )
    saving = pytorch_lightning.callbacks.ModelCheckpoint(dirpath=work, save_top_k=-1)
    _fit(live, work, max_epochs=3, logger=logger, callbacks=[saving])


def _train(live: Path, work: Path, *, report_to: list[str]) -> None:
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=3,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to=report_to,
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        dataloader_pin_memory=False,
    )
    rows = [{"input_ids": row, "labels": row} for row in TOKENS]
    Trainer(model=tiny_gpt2(), args=arguments, train_dataset=rows, callbacks=[NoteOnSave(live)]).train()


def transformers_callback(live: Path, work: Path) -> None:
    os.environ["HF_MLFLOW_LOG_ARTIFACTS"] = "1"
    _train(live, work, report_to=["mlflow"])


def trainer_folders_by_epoch(live: Path, work: Path) -> None:
    """Hugging Face's folders under names of one's own: `trainer_state.json` in them tells the step."""
    _train(live, work, report_to=[])
    for epoch, folder in enumerate(sorted(work.glob("checkpoint-*"))):
        mlflow.log_artifacts(str(folder), f"epochs/epoch_{epoch}")


RUNS: dict[str, Callable[[Path, Path], None]] = {
    run.__name__: run
    for run in (
        log_artifact_pt,
        log_artifacts_ckpt,
        log_artifacts_safetensors,
        log_state_dict,
        log_model,
        log_model_pickled,
        log_model_without_step,
        log_model_mlflow_2,
        registered_logged_models,
        registered_artifacts,
        autolog_by_epoch,
        autolog_weights_only,
        autolog_by_step,
        lightning_logger,
        transformers_callback,
        trainer_folders_by_epoch,
    )
}


def main(uri: str, experiment: str, root: Path) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    for name, run in RUNS.items():
        work = Path(tempfile.mkdtemp())
        with mlflow.start_run(run_name=name):
            run(root / name, work)
        shutil.rmtree(work)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
