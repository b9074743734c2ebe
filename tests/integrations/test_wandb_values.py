"""W&B's configuration as parameters, and which metric counts the steps of which."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.wandb_values import StepMetrics, is_training_metric, params_of

# As wandb 0.31 writes it for define_metric("train/global_step"), ("val/loss", step_metric="train/global_step"),
# ("epoch_*", step_metric="epoch") and ("*", step_metric="train/global_step").
DEFINED = [
    {"7": [], "1": "train/global_step", "6": [3]},
    {"1": "val/loss", "5": 1, "6": [1, 3], "7": []},
    {"2": "epoch_*", "5": 4, "6": [1], "7": []},
    {"1": "epoch", "6": [], "7": []},
    {"2": "*", "5": 1, "6": [1], "7": []},
]


def test_nested_configurations_are_joined_by_dots() -> None:
    config = {"lr": 1e-05, "optim": {"name": "AdamW", "betas": [0.9, 0.99]}, "flag": True, "none": None, "empty": {}}
    assert params_of({**config, "_wandb": {"t": 1}}) == {
        "lr": "1e-05",
        "optim.name": "AdamW",
        "optim.betas": "[0.9, 0.99]",
        "flag": "True",
        "none": "None",
        "empty": "{}",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), json_values))
def test_any_configuration_becomes_text(config: dict[str, Any]) -> None:
    assert all(isinstance(value, str) for value in params_of(config).values())


def test_depth_is_bounded() -> None:
    config: dict[str, Any] = {}
    for _ in range(500):
        config = {"a": config}
    ((name, value),) = params_of(config).items()
    assert name == ".".join("a" * 21)
    assert value.startswith('{"a"')


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("val/loss", "train/global_step"),
        ("epoch_accuracy", "epoch"),
        ("anything", "train/global_step"),
        ("train/global_step", None),
    ],
)
def test_the_axis_that_was_defined(name: str, step: str | None) -> None:
    assert StepMetrics.of_config({"_wandb": {"m": DEFINED}}).of(name) == step


@given(json_values)
def test_whatever_stands_there_is_no_error(told: Any) -> None:
    for config in ({}, {"_wandb": told}, {"_wandb": {"m": told}}, {"_wandb": {"m": [told, *DEFINED]}}):
        StepMetrics.of_config(config).of("val/loss")


def test_what_the_run_logged_itself() -> None:
    names = ["loss", "spectral_edge/total/gap", "_step", "_runtime", "system/gpu.0.temp", "val/loss"]
    assert list(filter(is_training_metric, names)) == ["loss", "val/loss"]
