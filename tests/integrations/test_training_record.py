"""Finding learning rate, evaluation metric, optimizer and weight decay under the names that frameworks use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection, TrackedRun
from integrations.training_record import FURTHER_ASKED_FOR, training_record
from spectral_edge.errors import UsageError
from spectral_edge.metric_direction import HIGHER_IS_BETTER_WORDS, LOWER_IS_BETTER_WORDS
from spectral_edge.metric_points import MOST_FURTHER
from spectral_edge.series import MetricSeries, TrainingRecord
from spectral_edge.settings import Settings

STEPS = (10, 20, 30)
RISING = {10: 0.1, 20: 0.2, 30: 0.3}


def recorded(
    folder: Path,
    metrics: Mapping[str, Mapping[int, float]],
    params: Mapping[str, object] | None = None,
    *,
    further: bool = False,
    **asked: Any,
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
    return training_record(tracker, run, STEPS, Settings(**asked), further=further)


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
        ({"lr": 0.1, "lr_decay_style": "constant", "lr_warmup_iters": 100}, None),
        ({"learning_rate": 0.1, "lr_scheduler_type": "constant", "warmup_ratio": None, "warmup_steps": 0}, 0.1),
        ({"lr": 0.1, "scheduler": "ConstantLR"}, None),
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


PAGE = Path(__file__).resolve().parents[2] / "docs/training-record.md"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
TABLE = [row for row in ROWS if len(row) == 5 and "`" in row[2]]
"""Rows of the page: framework, then a cell of names each for learning rate, metric, optimizer, weight decay."""


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: re.sub(r"\W+", "-", row[0]))
def test_names_that_the_page_lists_are_found_in_its_order(tmp_path: Path, row: list[str]) -> None:
    _, rates, metrics, optimizers, decays = row
    marks = dict(re.findall(r"`([^`]+)` ([↑↓])", metrics))
    assert list(marks) == names(metrics)
    left = dict.fromkeys((*names(rates), *marks), RISING)
    for rate, metric in zip_longest(names(rates), marks):
        params = dict.fromkeys(names(optimizers)[:1], "AdamW") | dict.fromkeys(names(decays)[:1], "0.5")
        record = recorded(tmp_path, {"loss": RISING, "grad_norm": RISING, **left}, params)
        found = (record.learning_rate and record.learning_rate.name, record.metric and record.metric.name)
        assert found == (rate, metric)
        if metric:
            assert record.higher_is_better == (marks[metric] == "↑")
        assert (record.optimizer, record.weight_decay) == (
            "AdamW" if optimizers else None,
            0.5 if names(decays) else None,
        )
        assert not record.warnings
        for name in (rate, metric):
            left.pop(name, None)


def test_the_page_lists_many_frameworks_and_the_words_of_directions() -> None:
    assert len(TABLE) == 22
    for begin, words in (("lower", LOWER_IS_BETTER_WORDS), ("higher", HIGHER_IS_BETTER_WORDS)):
        (line,) = re.findall(rf"^- {begin}: ((?:.|\n  )*)$", PAGE.read_text(), flags=re.MULTILINE)
        assert names(line) == [word.replace(r"\w*", "…") for word in words]


@pytest.mark.parametrize(
    "name", ["lr-AdamW-momentum", "lr-AdamW/pg1-weight_decay", "lr-AdamW/pg2", "learning-rate vs samples"]
)
def test_companions_of_a_rate_are_no_rate(tmp_path: Path, name: str) -> None:
    assert recorded(tmp_path, {name: RISING}).learning_rate is None


@pytest.mark.parametrize(
    "name", ["train_accuracy", "accuracy", "train/loss", "eval_runtime", "eval_samples_per_second"]
)
def test_what_is_no_evaluation_metric(tmp_path: Path, name: str) -> None:
    assert recorded(tmp_path, {name: RISING}).metric is None


def test_a_rate_under_a_name_of_ones_own(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"lr": RISING, "alpha": {10: 1, 20: 2, 30: 3}}, learning_rate_metric="alpha")
    assert record.learning_rate_at(np.array(STEPS)).tolist() == [1, 2, 3]


def test_a_rate_that_held_for_the_whole_run(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"lr": RISING}, {"alpha": "0.5", "warmup_steps": 9}, learning_rate_param="alpha")
    assert record.learning_rate is None
    assert record.learning_rate_at(np.array(STEPS)).tolist() == [0.5, 0.5, 0.5]


def test_a_parameter_without_a_number_is_no_rate(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"lr": RISING}, {"alpha": "cosine"}, learning_rate_param="alpha")
    assert np.isnan(record.learning_rate_at(np.array(STEPS))).all()
    assert record.warnings == ("parameter 'alpha' holds no number, so there is no learning rate.",)


def test_a_weight_decay_under_a_name_of_ones_own(tmp_path: Path) -> None:
    record = recorded(tmp_path, {}, {"weight_decay": 1, "l2": "0.25"}, weight_decay_param="l2")
    assert record.weight_decay == 0.25


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"learning_rate_metric": "lrr"}, "no metric named 'lrr'. Did you mean 'lr'"),
        ({"learning_rate_param": "alfa"}, "no parameter named 'alfa'. Did you mean 'alpha'"),
        ({"weight_decay_param": "x"}, "no parameter named 'x'. Next: choose one that was logged: 'alpha'"),
    ],
)
def test_names_that_the_run_does_not_have(tmp_path: Path, asked: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        recorded(tmp_path, {"lr": RISING}, {"alpha": 1}, **asked)
    assert told in str(caught.value)


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_direction_of_ones_own(tmp_path: Path, direction: str) -> None:
    record = recorded(tmp_path, {"val_loss": RISING, "score": RISING}, metric_direction=direction)
    assert record.higher_is_better == (direction == "higher")
    record = recorded(tmp_path, {"score": RISING}, metric="score", metric_direction=direction)
    assert (record.higher_is_better, record.warnings) == (direction == "higher", ())


def test_parameters_that_tell_different_things(tmp_path: Path) -> None:
    params = {"generator": {"weight_decay": 0.1}, "critic": {"weight_decay": 0}}
    record = recorded(tmp_path, {}, params)
    assert record.weight_decay is None
    assert record.warnings == (
        "parameters 'critic/weight_decay', 'generator/weight_decay' tell different things, so none of them was taken.",
    )
    assert recorded(tmp_path, {}, {**params, "weight_decay": 0.5}).weight_decay == 0.5


def further(folder: Path, *names: str, most: int | None = None, **asked: Any) -> list[str]:
    """Names of the further metrics of a run that logged `names`; `most` where each costs a request."""
    metrics = dict.fromkeys(names, RISING)
    for step in STEPS:
        torch.save({"w": torch.zeros(2)}, folder / f"step_{step}.pt")
    rows = [json.dumps({"step": step} | {name: points[step] for name, points in metrics.items()}) for step in STEPS]
    (folder / "metrics.jsonl").write_text("\n".join(rows))
    tracker = Counted(local_metrics=most is None)
    (run,) = tracker.runs(Selection(str(folder)))
    record = training_record(tracker, run, STEPS, Settings(**asked), further=True)
    assert most is None or len(tracker.read) <= 1 + most
    return [one.series.name for one in record.further]


class Counted(FolderTracker):
    """Notes which metrics are read, and says whether that costs a request."""

    def __init__(self, *, local_metrics: bool) -> None:
        self.capabilities = replace(FolderTracker.capabilities, local_metrics=local_metrics)  # type: ignore[misc]
        self.read: list[str] = []

    def metric_series(self, run: TrackedRun, name: str) -> MetricSeries:
        self.read.append(name)
        return super().metric_series(run, name)


def test_further_metrics_are_of_training_then_held_out(tmp_path: Path) -> None:
    logged = ("train_loss", "train_acc", "val_loss", "val_acc", "grad_norm", "epoch", "test_f1")
    assert further(tmp_path, *logged) == ["train_acc", "train_loss", "test_f1", "val_loss"]
    assert further(tmp_path, *logged, most=FURTHER_ASKED_FOR) == ["train_acc", "train_loss"]
    assert further(tmp_path, *logged, metric="val_loss") == ["train_loss", "train_acc", "val_acc", "test_f1"]


def test_of_variants_of_a_metric_one_is_taken_and_never_more_than_six(tmp_path: Path) -> None:
    assert further(tmp_path, "val_loss", "val_loss_step", "loss", "loss_epoch", "loss_step") == ["loss"]
    many = [f"{split}_{word}" for split in ("val", "test", "eval", "dev", "train") for word in ("loss", "acc", "f1")]
    assert len(further(tmp_path, *many)) == MOST_FURTHER


def test_further_metrics_that_count_epochs_are_left_out_without_another_warning(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"val_acc": RISING, "train_loss": {0: 1.0, 1: 0.5}}, further=True)
    assert record.further == ()
    assert not record.warnings
