"""Logs offline runs with W&B's SDK and the libraries that use it: `python -m tests.integrations.wandb_offline_runs`.

In the working directory, to which the WANDB_*_DIR variables lead. Importing these takes seconds, hence a process, once.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytorch_lightning
import torch
import wandb
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from safetensors.torch import save_file
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


def quiet() -> wandb.Settings:
    """Settings of one run: `init` writes into what it is given."""
    return wandb.Settings(console="off", silent=True, x_disable_meta=True, x_disable_stats=True, disable_git=True)


def written(step: int, name: str = "step_{}.safetensors") -> Path:
    """A checkpoint file."""
    path = Path("saved", name.format(step))
    path.parent.mkdir(exist_ok=True)
    save_file({"weight": torch.full((4, 3), float(step))}, path)
    return path


def plain() -> None:
    """A loop of its own: artifacts of both digests, `log_model`, `save`, references."""
    config = {"optimizer": {"name": "adamw"}, "lr": 0.1}
    run = wandb.init(
        entity="team", project="own", id="plain", name="a loop", config=config, settings=quiet(), tags=["t"]
    )
    run.define_metric("val/*", step_metric="batch")
    for step in range(0, 40, 10):
        run.log({"loss": 1 / (step + 1), "batch": 2 * step, "val/loss": step}, step=step)
        for name, algorithm in (("md5", "MD5"), ("xxh", "XXH128")):
            artifact = wandb.Artifact(name, "model", metadata={"step": step}, digest_algorithm=algorithm)
            artifact.add_file(str(written(step)), name="weights/model.safetensors")
            run.log_artifact(artifact)
        reference = wandb.Artifact("reference", "model", metadata={"step": step})
        reference.add_reference(written(step).absolute().as_uri())
        run.log_artifact(reference)
        bare = wandb.Artifact("unlooked", "model", metadata={"step": step})
        bare.add_reference(written(step).absolute().as_uri(), checksum=False)
        bare.add_reference(f"s3://bucket/{step}.json", checksum=False)
        run.log_artifact(bare)
        far = wandb.Artifact("far", "model", metadata={"step": step})
        far.add_reference(f"s3://bucket/{step}/model.safetensors", checksum=False)
        run.log_artifact(far)
        run.log_model(str(written(step, "logged-{}.safetensors")), name=f"of-step-{step}")
        run.save(str(written(step, "kept_{}.safetensors")), base_path=".")
    run.finish()


def untold() -> None:
    """Versions whose step only the history tells."""
    run = wandb.init(project="own", id="untold", settings=quiet())
    for step in range(3):
        run.log({"loss": 1.0})
        artifact = wandb.Artifact("model", "model")
        artifact.add_file(str(written(step)), name="model.safetensors")
        run.log_artifact(artifact)
    run.finish(exit_code=3)


def resumed() -> None:
    """A run in two folders."""
    for part in range(2):
        run = wandb.init(project="own", id="resumed", resume="allow", settings=quiet())
        for step in range(2):
            run.log({"loss": 10 * part + step})
            run.save(str(written(2 * part + step, "kept_{}.safetensors")), base_path=".")
        run.finish()


class _Lit(pytorch_lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def lightning() -> None:
    """Lightning's logger with `log_model="all"`."""
    logger = WandbLogger(project="lightning", id="lightning", log_model="all", settings=quiet())
    trainer = pytorch_lightning.Trainer(
        max_steps=6,
        accelerator="cpu",
        logger=logger,
        callbacks=[ModelCheckpoint("lightning", every_n_train_steps=2, save_top_k=-1)],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(_Lit(), DataLoader(TensorDataset(torch.ones(4, 4)), batch_size=2))
    wandb.finish()


def trainer() -> None:
    """Hugging Face's Trainer with WANDB_LOG_MODEL=checkpoint."""
    os.environ |= {"WANDB_LOG_MODEL": "checkpoint", "WANDB_PROJECT": "trainer"}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    rows = [{"input_ids": row, "labels": row} for row in torch.arange(48).reshape(6, 8) % 32]
    arguments = TrainingArguments(
        output_dir="trainer",
        max_steps=6,
        logging_steps=2,
        save_steps=2,
        per_device_train_batch_size=2,
        report_to=["wandb"],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    wandb.finish()


if __name__ == "__main__":
    for log in (plain, untold, resumed, lightning, trainer):
        log()
