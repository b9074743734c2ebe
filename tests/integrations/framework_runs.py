"""Trains with the libraries that people use, each logging to MLflow by its own means.

`python -m tests.integrations.framework_runs TRACKING_URI`. Importing these takes seconds, hence a process, once.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import mlflow
import mlflow.keras
import numpy as np
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import MLFlowLogger
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.integrations import MLflowCallback

STEPS = 3


def hugging_face(_uri: str) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    rows = [{"input_ids": row, "labels": row} for row in torch.arange(48).reshape(6, 8) % 32]
    arguments = TrainingArguments(
        output_dir="trainer",
        max_steps=STEPS,
        logging_steps=1,
        eval_steps=1,
        eval_strategy="steps",
        save_strategy="no",
        per_device_train_batch_size=2,
        weight_decay=0.25,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, callbacks=[MLflowCallback()]).train()


class _Lit(pytorch_lightning.LightningModule):
    def __init__(self, weight_decay: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight_decay = weight_decay
        self.layer = torch.nn.Linear(4, 2)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), weight_decay=self.weight_decay)


def _fit(logger: Any, callbacks: list[Any]) -> None:
    batches = DataLoader(TensorDataset(torch.ones(2, 4)), batch_size=2)
    trainer = pytorch_lightning.Trainer(
        max_epochs=STEPS,
        accelerator="cpu",
        logger=logger,
        callbacks=callbacks,
        log_every_n_steps=1,
        val_check_interval=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(_Lit(weight_decay=0.25), batches, batches)


def lightning(uri: str) -> None:
    logger = MLFlowLogger("frameworks", run_name="lightning", tracking_uri=uri)
    _fit(logger, [LearningRateMonitor("step")])


def lightning_autolog(_uri: str) -> None:
    mlflow.pytorch.autolog(log_models=False, log_datasets=False)
    _fit(logger=False, callbacks=[])
    mlflow.pytorch.autolog(disable=True)


def keras_callback(_uri: str) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(loss="mse", optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.25), metrics=["mae"])
    rows = np.ones((6, 4), np.float32)
    by_epoch = keras.callbacks.LearningRateScheduler(lambda _epoch, rate: rate / 2)
    callbacks = [by_epoch, mlflow.keras.MlflowCallback()]
    both = (rows, rows[:, :2])
    model.fit(*both, epochs=STEPS, batch_size=6, validation_data=both, verbose=0, callbacks=callbacks)


def main(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("frameworks")
    for log in (hugging_face, lightning_autolog, keras_callback):
        with mlflow.start_run(run_name=log.__name__):
            log(uri)
    lightning(uri)


if __name__ == "__main__":
    main(sys.argv[1])
