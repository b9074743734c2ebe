"""The recorders for Lightning and Hugging Face, in trainings of a few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectral_edge.recorded import Recorded, read_run

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from integrations.recorder_callbacks import HuggingFaceRecorder, LightningRecorder

class Lit(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def training_step(self, batch):
        loss = self.layer(batch[0]).square().mean()
        self.log_dict({"train_loss": loss, "learning_rate": 7.0, "step": 3.0})
        return loss
    def validation_step(self, batch):
        self.log("val_loss", self.layer(batch[0]).square().mean())
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.25)

batches = DataLoader(TensorDataset(torch.ones(16, 4)), batch_size=2)
pytorch_lightning.Trainer(
    max_epochs=2, accelerator="cpu", logger=False, accumulate_grad_batches=2, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, callbacks=[LightningRecorder("lightning", every=2, size=10)],
).fit(Lit(), batches, batches)

rows = [{"input_ids": row, "labels": row} for row in torch.arange(48).reshape(6, 8) % 32]
arguments = TrainingArguments(
    output_dir="trainer", max_steps=6, eval_steps=2, eval_strategy="steps", save_strategy="no", report_to=[],
    per_device_train_batch_size=2, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    lr_scheduler_type="constant", learning_rate=0.125,
)
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))
Trainer(
    model=model, args=arguments, train_dataset=rows, eval_dataset=rows,
    callbacks=[HuggingFaceRecorder("hugging_face", every=1, size=100, by_layer=False)],
).train()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("callbacks")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def changes(run: Recorded) -> np.ndarray:
    """Norm of each update's sketch."""
    return np.linalg.norm(np.diff(list(run.file.sketches(run.records)), axis=0), axis=1)


def test_lightning_records_optimizer_steps_with_rate_and_metrics(trained: Path) -> None:
    """16 batches that are added up by twos: 8 steps, whatever the module itself logs under our names."""
    run = read_run(trained / "lightning")
    assert run.steps == (2, 4, 6, 8)
    assert {record.learning_rate for record in run.records} == {0.25}
    assert {"train_loss", "step"} <= run.metrics.keys()
    assert run.metrics["val_loss"].steps.tolist() == [6, 8]
    assert (changes(run) > 0).all()


def test_hugging_face_records_optimizer_steps_with_rate_and_metrics(trained: Path) -> None:
    run = read_run(trained / "hugging_face")
    assert run.steps == (1, 2, 3, 4, 5, 6)
    assert {record.learning_rate for record in run.records} == {0.125}
    assert run.metrics["eval_loss"].steps.tolist() == [3, 4, 5, 6]
    assert (changes(run) > 0).all()
    assert not [one for one in run.file.header.cells if one.cell.layer]


def test_neither_library_is_imported_unasked() -> None:
    asked = "{'transformers', 'pytorch_lightning'} & set(sys.modules)"
    program = f"import sys, integrations.recorder_callbacks; print(*({asked}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
