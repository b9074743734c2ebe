"""The data of each task: training and held-out halves, drawn by the seed.

Modular arithmetic and random labels read two numbers; `dyck` tells the depth at the end of a string of
brackets; `commands` turns commands such as "jump left twice after walk" into actions, as SCAN does (Lake and Baroni,
arXiv 1711.00350), but smaller; `digits` is scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch

from benchmarks.replication.recipes import Task
from pipelines.demo_tasks import data_of

MODULUS: Final = 47
IGNORED: Final = -100
"""Label of positions that are not scored, as torch's cross entropy has it."""

BRACKETS, DEPTH = 24, 8
DYCK_TRAINING, DYCK_HELD_OUT = 200, 400

_VERBS, _TURNS, _COUNTS = ("walk", "jump", "look"), ("", "left", "right"), (1, 2, 3)
_JOINTS = ("and", "after")
COMMAND_WORDS: Final = ("pad", "go", *_VERBS, "left", "right", "twice", "thrice", *_JOINTS)
ACTIONS: Final = ("end", "WALK", "JUMP", "LOOK", "LTURN", "RTURN")
_COMMAND_LENGTH, _ACTION_LENGTH = 7, 13
COMMANDS_SHARE = 0.12


@dataclass(frozen=True)
class Split:
    """Inputs, and labels of shape (n,) or, for sequences, (n, length) with IGNORED where nothing is scored."""

    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Data:
    """Training half and held-out half of one task."""

    training: Split
    held_out: Split


def task_data(task: Task, seed: int, share: float | None = None) -> Data:
    """The data of `task`, divided by `seed`; training gets `share` of the examples where it is told."""
    rng = np.random.default_rng(seed)
    if task == "digits":
        training, held_out = data_of("digits", seed)
        return Data(Split(training.inputs, training.labels), Split(held_out.inputs, held_out.labels))
    if task == "dyck":
        strings, depths = _bracket_strings(DYCK_TRAINING + DYCK_HELD_OUT, rng)
        depths[:, :-1] = IGNORED  # told after each bracket, depth is learnt without a delay
        return _halves(strings, depths, np.arange(len(strings)), _count(share, strings, DYCK_TRAINING))
    if task == "commands":
        inputs, labels = _commands()
        return _halves(
            inputs, labels, rng.permutation(len(inputs)), _count(share, inputs, int(COMMANDS_SHARE * len(inputs)))
        )
    pairs, results = _arithmetic(task, rng)
    return _halves(pairs, results, rng.permutation(len(pairs)), _count(share, pairs, len(pairs) // 2))


def second_task(data: Data, seed: int) -> Split:
    """What a run is fine-tuned on: the same inputs with their features in another order, fixed by `seed`."""
    order = np.random.default_rng([seed, 1]).permutation(data.training.inputs.shape[1])
    return Split(data.training.inputs[:, torch.from_numpy(order)], data.training.labels)


def _count(share: float | None, examples: np.ndarray, usual: int) -> int:
    return usual if share is None else int(share * len(examples))


def _halves(inputs: np.ndarray, labels: np.ndarray, order: np.ndarray, n_training: int) -> Data:
    x, y = torch.from_numpy(inputs[order]), torch.from_numpy(labels[order])
    return Data(Split(x[:n_training], y[:n_training]), Split(x[n_training:], y[n_training:]))


def _arithmetic(task: Task, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = 0 if task in {"addition", "random labels"} else 1  # zero has no inverse, and its products tell nothing
    pairs = np.array(list(product(range(first, MODULUS), repeat=2)), dtype=np.int64)
    a, b = pairs.T
    if task == "addition":
        return pairs, (a + b) % MODULUS
    if task == "multiplication":
        return pairs, (a * b) % MODULUS
    if task == "division":
        inverse = np.array([pow(int(x), -1, MODULUS) for x in range(1, MODULUS)])
        return pairs, (a * inverse[b - 1]) % MODULUS
    return pairs, rng.integers(0, MODULUS, len(pairs))


def _bracket_strings(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Different strings of brackets that never close more than is open nor nest deeper than DEPTH; depth after each."""
    found: dict[bytes, np.ndarray] = {}
    while len(found) < count:
        depth, steps = 0, np.zeros(BRACKETS, dtype=np.int64)
        for position in range(BRACKETS):
            up = depth == 0 or (depth < DEPTH and rng.random() < 0.5)
            depth += 1 if up else -1
            steps[position] = 1 if up else -1
        found[steps.tobytes()] = steps
    steps = np.stack(list(found.values()))
    return (steps > 0).astype(np.int64), steps.cumsum(axis=1)


def _commands() -> tuple[np.ndarray, np.ndarray]:
    """All commands as prefix and actions in one row; labels are the next token, scored from the first action on."""
    phrases = list(product(_VERBS, _TURNS, _COUNTS))
    rows = [_row(*_phrase(*one)) for one in phrases]
    for one, joint, other in product(phrases, _JOINTS, phrases):
        (words, acts), (more_words, more_acts) = _phrase(*one), _phrase(*other)
        ordered = acts + more_acts if joint == "and" else more_acts + acts
        rows.append(_row([*words, joint, *more_words], ordered))
    tokens = np.array(rows, dtype=np.int64)
    labels = tokens[:, 1:] - len(COMMAND_WORDS)
    scored = (labels >= 0) & (np.cumsum(labels == 0, axis=1) - (labels == 0) == 0)
    return tokens[:, :-1], np.where(scored, labels, IGNORED)


def _phrase(verb: str, turn: str, count: int) -> tuple[list[str], list[str]]:
    words = [verb, *([turn] if turn else []), *(["", "twice", "thrice"][count - 1 : count] if count > 1 else [])]
    acts = [*([f"{turn[0].upper()}TURN"] if turn else []), verb.upper()]
    return words, acts * count


def _row(words: list[str], acts: list[str]) -> list[int]:
    prefix = [0] * (_COMMAND_LENGTH - len(words)) + [COMMAND_WORDS.index(word) for word in words]
    ended = [*acts, *["end"] * (_ACTION_LENGTH - len(acts))]
    return [*prefix, COMMAND_WORDS.index("go"), *(len(COMMAND_WORDS) + ACTIONS.index(act) for act in ended)]
