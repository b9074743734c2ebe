"""Finding learning rate, evaluation metric, optimizer and weight decay under the names that frameworks use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection
from integrations.training_record import training_record
from spectral_edge.errors import UsageError
from spectral_edge.series import TrainingRecord

STEPS = (10, 20, 30)
RISING = {10: 0.1, 20: 0.2, 30: 0.3}


def recorded(
    folder: Path,
    metrics: Mapping[str, Mapping[int, float]],
    params: Mapping[str, object] | None = None,
    metric: str | None = None,
) -> TrainingRecord:
    """The record of a run in a folder that logged this."""
    for step in STEPS:
        torch.save({"w": torch.zeros(2)}, folder / f"step_{step}.pt")
    with (folder / "metrics.jsonl").open("w") as file:
        for name, points in metrics.items():
            file.writelines(json.dumps({"step": step, name: value}) + "\n" for step, value in points.items())
    (folder / "params.json").write_text(json.dumps(params or {}))
    tracker = FolderTracker()
    (run,) = tracker.runs(Selection(str(folder)))
    return training_record(tracker, run, STEPS, metric=metric)


@pytest.mark.parametrize(
    "name",
    [
        "lr",
        "learning_rate",
        "train/learning_rate",
        "train/lr",
        "lr-AdamW",
        "lr-SGD/pg1",
        "lr_0",
        "Learning Rate",
        "optim/lr",
    ],
)
def test_known_names_of_the_learning_rate(tmp_path: Path, name: str) -> None:
    record = recorded(tmp_path, {name: RISING})
    assert record.learning_rate is not None
    assert record.learning_rate.name == name
    assert record.learning_rate_at(record.learning_rate.steps).tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", ["lrx", "color", "slr", "train_loss", "lr_finder_loss", "learning_rate_of_change"])
def test_names_that_only_look_like_one(tmp_path: Path, name: str) -> None:
    assert recorded(tmp_path, {name: RISING}).learning_rate is None


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("val_loss", False),
        ("val_acc", True),
        ("eval/loss", False),
        ("eval_accuracy", True),
        ("test_accuracy", True),
        ("validation.f1", True),
        ("val_loss_epoch", False),
        ("test/perplexity", False),
        ("loss/val", False),
        ("dev_bleu", True),
    ],
)
def test_known_names_of_evaluation_metrics_with_their_direction(tmp_path: Path, name: str, higher: bool) -> None:
    record = recorded(tmp_path, {name: RISING, "train_loss": RISING, "loss": RISING, "accuracy": RISING})
    assert record.metric is not None
    assert (record.metric.name, record.higher_is_better) == (name, higher)
    assert not record.warnings


def test_accuracy_is_preferred_to_loss(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"val_loss": RISING, "val_accuracy": RISING})
    assert record.metric is not None
    assert record.metric.name == "val_accuracy"


def test_nothing_found_is_none(tmp_path: Path) -> None:
    assert recorded(tmp_path, {"loss": RISING}) == TrainingRecord()


def test_a_metric_of_the_users_choice(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"val_loss": RISING, "my/score": RISING}, metric="my/score")
    assert record.metric is not None
    assert record.metric.name == "my/score"
    assert "does not tell its direction" in record.warnings[0]


def test_a_metric_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'val_loss'") as caught:
        recorded(tmp_path, {"val_loss": RISING, "lr": RISING}, metric="val_los")
    assert "'lr', 'val_loss'" in str(caught.value)


def test_a_series_that_counts_other_steps_is_refused(tmp_path: Path) -> None:
    epochs = {0: 0.1, 1: 0.2, 2: 0.3}
    record = recorded(tmp_path, {"val_acc": epochs, "lr": epochs})
    assert record.metric is None
    assert record.learning_rate is None
    assert len(record.warnings) == 2
    assert "it may count other steps" in record.warnings[0]


def test_the_next_known_name_is_taken_when_the_first_counts_other_steps(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"val_acc": {0: 0.1, 1: 0.2}, "val_loss": RISING})
    assert record.metric is not None
    assert record.metric.name == "val_loss"
    assert "'val_acc'" in record.warnings[0]


@pytest.mark.parametrize(
    ("params", "rate"),
    [
        ({"lr": 0.1, "lr_scheduler_type": "constant"}, 0.1),
        ({"learning_rate": "1e-3", "lr_schedule": "Constant"}, 1e-3),
        ({"lr": 0.1}, None),
        ({"lr": 0.1, "lr_scheduler": "cosine"}, None),
        ({"lr": 0.1, "lr_scheduler": "constant", "warmup_steps": 100}, None),
        ({"lr": 0.1, "lr_scheduler": "constant", "warmup_steps": 0}, 0.1),
        ({"lr": "fast", "lr_scheduler": "constant"}, None),
        ({"lr": "inf", "lr_scheduler": "constant"}, None),
        ({"lr_scheduler": "constant"}, None),
    ],
)
def test_a_rate_among_the_params_counts_with_a_constant_schedule_only(
    tmp_path: Path, params: dict[str, object], rate: float | None
) -> None:
    assert recorded(tmp_path, {}, params).constant_learning_rate == rate


def test_a_logged_rate_is_taken_before_one_among_the_params(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"lr": RISING}, {"lr": 5.0, "lr_scheduler": "constant"})
    assert record.learning_rate is not None
    assert record.constant_learning_rate is None


@pytest.mark.parametrize(
    ("params", "optimizer", "decay"),
    [
        ({"optimizer": "AdamW", "weight_decay": 0.1}, "AdamW", 0.1),
        ({"optimizer": {"name": "SGD", "weight_decay": 0}}, "SGD", 0.0),
        ({"args": {"optim": "adamw_torch", "weight_decay": 0.01}}, "adamw_torch", 0.01),
        ({"Optimizer": "Lion", "WD": 1}, "Lion", 1.0),
        ({"optimizer": "", "weight_decay": "none"}, None, None),
        ({}, None, None),
    ],
)
def test_optimizer_and_weight_decay(
    tmp_path: Path, params: dict[str, object], optimizer: str | None, decay: float | None
) -> None:
    record = recorded(tmp_path, {}, params)
    assert (record.optimizer, record.weight_decay) == (optimizer, decay)
