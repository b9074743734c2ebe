"""Trains tiny models with the loops that people use: `python -m tests.checkpoints.trainer_runs FOLDER`.

Importing these libraries takes seconds, hence a process of its own, once. Each loop makes a run `FOLDER/NAME/`, and
for each of its checkpoints `FOLDER/live/NAME/STEP.safetensors` with the parameters that the model had at that moment.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

STEPS = 3
TOKENS = torch.arange(6 * 8).reshape(6, 8) % 32


def note(live: Path, step: int, model: torch.nn.Module) -> None:
    """Write down what trains in `model` now, under the names that a checkpoint uses."""
    live.mkdir(parents=True, exist_ok=True)
    trained = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    save_file({name.replace(".default.", "."): value for name, value in trained.items()}, live / f"{step}.safetensors")


class NoteOnSave(TrainerCallback):  # type: ignore[misc]
    """Writes the weights down whenever Hugging Face's Trainer saves them."""

    def __init__(self, live: Path) -> None:
        self._live = live

    def on_save(self, _args: Any, state: Any, _control: Any, *, model: torch.nn.Module, **_: Any) -> None:
        note(self._live, state.global_step, model)


def tiny_gpt2() -> torch.nn.Module:
    """A language model of a few thousand parameters."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=2))


def _train(model: torch.nn.Module, folder: Path, live: Path) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    rows = [{"input_ids": row, "labels": row} for row in TOKENS]
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[NoteOnSave(live)])
    trainer.train()
    return trainer


def trainer(folder: Path, live: Path) -> None:
    _train(tiny_gpt2(), folder, live).save_model(
        str(folder)
    )  # and the last weights beside the checkpoints, as scripts do


def trainer_adapters(folder: Path, live: Path) -> None:
    _train(get_peft_model(tiny_gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)), folder, live)


def pretrained_shards(folder: Path, live: Path) -> None:
    model: Any = tiny_gpt2()
    for step in range(1, STEPS + 1):
        model.transformer.wte.weight.data += 1
        model.save_pretrained(folder / f"checkpoint-{step}", max_shard_size="10KB")
        note(live, step, model)


class Lit(pytorch_lightning.LightningModule):
    """A small module that writes its weights down whenever Lightning saves them."""

    def __init__(self, live: Path) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
        self._live = live

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, _checkpoint: dict[str, Any]) -> None:
        note(self._live, self.global_step, self)


def lightning(folder: Path, live: Path) -> None:
    torch.manual_seed(0)
    saving = pytorch_lightning.callbacks.ModelCheckpoint(save_top_k=-1, every_n_train_steps=1)
    loop = pytorch_lightning.Trainer(
        default_root_dir=folder,
        max_steps=STEPS,
        accelerator="cpu",
        devices=1,
        callbacks=[saving],
        logger=pytorch_lightning.loggers.CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loop.fit(Lit(live), DataLoader(torch.randn(8, 4), batch_size=2))


def imagenet(folder: Path, live: Path) -> None:
    """As PyTorch's ImageNet example saves."""
    torch.manual_seed(0)
    folder.mkdir()
    inner = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    model = torch.nn.DataParallel(inner)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(1, STEPS + 1):
        model(torch.randn(4, 3, 3, 3)).square().sum().backward()
        optimizer.step()
        content = {"epoch": epoch, "arch": "resnet18", "state_dict": model.state_dict(), "best_acc1": torch.tensor(0.5)}
        torch.save(content | {"optimizer": optimizer.state_dict()}, folder / f"checkpoint_{epoch}.pth.tar")
        note(live, epoch, inner)
    shutil.copyfile(folder / "checkpoint_2.pth.tar", folder / "model_best.pth.tar")


RUNS = {run.__name__: run for run in (trainer, trainer_adapters, pretrained_shards, lightning, imagenet)}


def main(root: Path) -> None:
    for name, run in RUNS.items():
        run(root / name, root / "live" / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
