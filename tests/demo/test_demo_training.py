"""The demo's training loop: the same twice, and it learns what it should."""

import dataclasses

import pytest
import torch

from pipelines.demo_tasks import MODULUS, AdditionTransformer, data_of
from pipelines.demo_training import EVALUATE_EVERY, LEARNING_RATE, LOG_EVERY, RECIPES, Recipe, train
from spectral_edge.groups import CATEGORIES, cells

ADDITION = Recipe("addition", "modular addition", 2, 0.0, "constant", "pt", steps=100)
DIGITS = Recipe("digits", "digits", 2, 0.01, "cosine", "logged model", steps=100)


@pytest.mark.parametrize("recipe", [ADDITION, DIGITS], ids=lambda recipe: recipe.name)
def test_the_same_recipe_gives_the_same_weights(recipe: Recipe) -> None:
    first, second = (list(_copied(recipe)) for _ in range(2))
    assert first[-1].keys() == second[-1].keys()
    assert all(torch.equal(first[-1][name], second[-1][name]) for name in first[-1])
    assert not torch.equal(*(next(iter(state.values())) for state in first))


def _copied(recipe: Recipe) -> list[dict[str, torch.Tensor]]:
    return [{name: tensor.clone() for name, tensor in snapshot.model_state.items()} for snapshot in train(recipe)]


def test_snapshots_come_at_the_promised_steps_with_all_metrics_since_the_last() -> None:
    snapshots = list(train(ADDITION))
    assert [snapshot.step for snapshot in snapshots] == [50, 100]
    assert len(snapshots) == ADDITION.checkpoints
    points = [(point.name, point.step) for snapshot in snapshots for point in snapshot.points]
    assert len(points) == len(set(points)) == 2 * (100 // LOG_EVERY) + 3 * (100 // EVALUATE_EVERY)
    assert all(point.step <= 50 for point in snapshots[0].points)
    assert {name for name, _ in points} == {"train_loss", "learning_rate", "train_accuracy", "val_accuracy", "val_loss"}


def test_the_addition_table_is_learnt_by_heart_first() -> None:
    last = list(train(dataclasses.replace(ADDITION, steps=500)))[-1]
    value = {point.name: point.value for point in last.points}
    assert value["train_accuracy"] > 0.95
    assert value["val_accuracy"] < 0.5


def test_digits_are_simply_learnt_under_a_falling_learning_rate() -> None:
    snapshots = list(train(dataclasses.replace(DIGITS, steps=400)))
    value = {point.name: point.value for point in snapshots[-1].points}
    assert value["val_accuracy"] > 0.9
    rates = [point.value for snapshot in snapshots for point in snapshot.points if point.name == "learning_rate"]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.99 * LEARNING_RATE > 0.01 * LEARNING_RATE > rates[-1] > 0


def test_training_and_validation_pairs_are_the_whole_table_once() -> None:
    training, validation = data_of("modular addition", seed=5)
    pairs = {tuple(pair) for split in (training, validation) for pair in split.inputs.tolist()}
    assert len(pairs) == len(training.inputs) + len(validation.inputs) == MODULUS**2
    assert ((training.inputs.sum(dim=1) - training.labels) % MODULUS == 0).all()


def test_the_transformer_has_every_kind_of_parameter_the_audit_knows() -> None:
    assigned = cells(name for name, _ in AdditionTransformer().named_parameters())
    assert {cell.category for cell in assigned.values()} == set(CATEGORIES)


def test_the_recipes_pair_weight_decay_with_its_absence_and_have_a_control() -> None:
    addition = {(recipe.seed, recipe.weight_decay) for recipe in RECIPES if recipe.task == "modular addition"}
    seeds = {seed for seed, _ in addition}
    assert len(seeds) == 2
    assert addition == {(seed, decay) for seed in seeds for decay in (0.0, 1.0)}
    assert [recipe.schedule for recipe in RECIPES if recipe.task == "digits"] == ["cosine"]
    assert all(50 <= recipe.checkpoints <= 80 for recipe in RECIPES)
    assert len({recipe.fingerprint for recipe in RECIPES}) == len(RECIPES)
