"""The layouts in which logged_runs.py logs checkpoints, and what a listing must make of each.

docs/checkpoint-layouts.md shows this table; tests/docs compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from integrations.tracker import StepSource


@dataclass(frozen=True)
class Layout:
    """One way to log checkpoints.

    Attributes:
        run: The function of logged_runs.py that logs it.
        logged_by: The call, as users write it.
        file: Weights of one checkpoint: below the run's artifacts, or below the logged model's.
        series: What the series is called.
        step_source: Where the step comes from.
        steps: The steps of the run in the test.
    """

    run: str
    logged_by: str
    file: str
    series: str
    step_source: StepSource
    steps: tuple[int, ...] = (100, 200, 300)

    @property
    def row(self) -> str:
        """The layout as a row of the page."""
        return f"| {self.logged_by} | `{self.file}` | `{self.series}` | `{self.step_source}` | `{self.run}` |"


HEADER = "| logged by | weights of a checkpoint | series | step from | test |\n|---|---|---|---|---|"

LAYOUTS = (
    Layout(
        "log_artifact_pt",
        "`mlflow.log_artifact(file, folder)`, `.pt`",
        "checkpoints/step_000100.pt",
        "checkpoints/step_#.pt",
        "file_name",
    ),
    Layout(
        "log_artifacts_ckpt",
        "`mlflow.log_artifacts(folder)`, `.ckpt`",
        "weights/model-step=100.ckpt",
        "weights/model-step=#.ckpt",
        "file_name",
    ),
    Layout(
        "log_artifacts_safetensors",
        "`mlflow.log_artifacts(folder)`, `.safetensors` in a folder for each step",
        "checkpoints/checkpoint-100/model.safetensors",
        "checkpoints/checkpoint-#/model.safetensors",
        "folder_name",
    ),
    Layout(
        "log_state_dict",
        "`mlflow.pytorch.log_state_dict(…, artifact_path)`",
        "checkpoints/sd_100/state_dict.pth",
        "checkpoints/sd_#/state_dict.pth",
        "folder_name",
    ),
    Layout(
        "log_model",
        "`mlflow.pytorch.log_model(model, name, step)`",
        "data/model.pt2",
        "model:ckpt",
        "logged_model",
    ),
    Layout(
        "log_model_pickled",
        'the same with `serialization_format="pickle"` and a name for each step',
        "data/model.pth",
        "model:ckpt-#",
        "logged_model",
    ),
    Layout(
        "log_model_without_step",
        "the same without `step`, metrics logged before it",
        "data/model.pth",
        "model:model",
        "metric_time",
    ),
    Layout(
        "log_model_mlflow_2",
        "`mlflow.pytorch.log_model(model, folder)` of MLflow 2",
        "model_step_100/data/model.pth",
        "model_step_#/data/model.pth",
        "folder_name",
    ),
    Layout(
        "registered_logged_models",
        "`mlflow.pytorch.log_model(…, step, registered_model_name)`",
        "data/model.pth",
        "model:ckpt",
        "logged_model",
    ),
    Layout(
        "registered_artifacts",
        "versions of a registered model that lie among the run's artifacts, as of MLflow 2",
        "model_step_100/data/model.pth",
        "model_step_#/data/model.pth",
        "folder_name",
    ),
    Layout(
        "autolog_by_epoch",
        "`mlflow.pytorch.autolog(checkpoint_save_best_only=False)`",
        "checkpoints/epoch_0/checkpoint.pth",
        "checkpoints/epoch_#/checkpoint.pth",
        "metadata",
        (2, 4, 6),
    ),
    Layout(
        "autolog_weights_only",
        "the same with `checkpoint_save_weights_only=True`",
        "checkpoints/epoch_0/checkpoint.weights.pth",
        "checkpoints/epoch_#/checkpoint.weights.pth",
        "metadata",
        (2, 4, 6),
    ),
    Layout(
        "autolog_by_step",
        "the same with `checkpoint_save_freq=2`",
        "checkpoints/global_step_2/checkpoint.pth",
        "checkpoints/global_step_#/checkpoint.pth",
        "folder_name",
        (2, 4, 6),
    ),
    Layout(
        "lightning_logger",
        'Lightning\'s `MLFlowLogger(log_model="all")`',
        "epoch=0-step=2/epoch=0-step=2.ckpt",
        "epoch=#-step=#/epoch=#-step=#.ckpt",
        "file_name",
        (2, 4, 6),
    ),
    Layout(
        "transformers_callback",
        "Hugging Face's Trainer with `HF_MLFLOW_LOG_ARTIFACTS=1`",
        "artifacts/checkpoint-1/model.safetensors",
        "model:checkpoint-#",
        "model_name",
        (1, 2, 3),
    ),
    Layout(
        "trainer_folders_by_epoch",
        "`mlflow.log_artifacts` of the Trainer's folders, named by epoch",
        "epochs/epoch_0/model.safetensors",
        "epochs/epoch_#/model.safetensors",
        "metadata",
        (1, 2, 3),
    ),
)
"""Every run that logged_runs.py logs."""


def matrix() -> str:
    """The table of the page."""
    return "\n".join((HEADER, *(layout.row for layout in LAYOUTS)))
