"""What is trained: families of recipes, and the order in which their seeds come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

Task = Literal["addition", "multiplication", "division", "dyck", "commands", "random labels", "digits"]
Optimizer = Literal["AdamW", "SGD", "Muon"]
Kind = Literal["grokking", "memorising", "supervised", "forgetting"]

VERSION: Final = 1
"""Raised whenever the same recipe would train another run: tasks, networks or the loop changed."""
FIRST_SEED: Final = 201
"""No seed of the demo, of benchmarks/real_runs.py, or of the runs on which the regimes' thresholds were set."""


@dataclass(frozen=True)
class Recipe:
    """One run, up to its seed.

    Attributes:
        family: Name of the recipe without its seed.
        kind: What the run is expected to be an example of; what it turned out to be is read from its metrics.
        steps: Most optimizer steps; a run that generalises late ends at `beyond` times that step.
        every: Optimizer steps between checkpoints.
        fine_tune_at: Step at which training goes on with the second task; 0: never.
        share: Share of the examples on which is trained; None: the task's own.
        embeddings_times: Factor on the embeddings at the start, and `matrices_times` on all other matrices; None: 1.
    """

    family: str
    task: Task
    kind: Kind
    seed: int = FIRST_SEED
    optimizer: Optimizer = "AdamW"
    rate: float = 1e-3
    weight_decay: float = 1.0
    schedule: Literal["constant", "cosine"] = "constant"
    steps: int = 5000
    every: int = 25
    batch: int = 256
    beyond: float = 2.5
    fine_tune_at: int = 0
    share: float | None = None
    embeddings_times: float | None = None
    matrices_times: float | None = None

    @property
    def hash(self) -> str:
        """Identifies the recipe with its seed: 12 hexadecimal digits."""
        # What is None came after the first runs were trained, and leaves their hashes as they are.
        told = {name: value for name, value in asdict(self).items() if value is not None} | {"version": VERSION}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Family and seed, fit for a file's name."""
        return f"{self.family}-s{self.seed}"


_ADDITION = Recipe("addition-adamw-wd1", "addition", "grokking")
# Coupled decay through momentum 0.9 shrinks weights by rate x decay / (1 - 0.9) a step: 1e-3, as AdamW's 1 does.
_SGD = replace(_ADDITION, family="addition-sgd-wd", optimizer="SGD", rate=0.1, weight_decay=1e-3, steps=4000)
_MUON = replace(_ADDITION, family="addition-muon-wd1", optimizer="Muon", steps=4000)
_BRACKETS = Recipe(
    family="dyck-large-start-wd1",
    task="dyck",
    kind="grokking",
    batch=32,
    steps=3500,
    share=1 / 6,
    embeddings_times=8.0,
    matrices_times=3.0,
)

FAMILIES: Final[Sequence[Recipe]] = (
    _ADDITION,
    replace(_ADDITION, family="addition-adamw-wd0", kind="memorising", weight_decay=0.0, steps=3500),
    Recipe("digits-cosine", "digits", "supervised", weight_decay=0.01, schedule="cosine", steps=4000),
    Recipe("digits-finetune", "digits", "forgetting", weight_decay=0.01, steps=4500, fine_tune_at=3000),
    Recipe("random-labels-wd0", "random labels", "memorising", weight_decay=0.0, steps=3500),
    Recipe("multiplication-adamw-wd1", "multiplication", "grokking"),
    Recipe("multiplication-adamw-wd0", "multiplication", "memorising", weight_decay=0.0, steps=3500),
    Recipe("division-adamw-wd1", "division", "grokking"),
    _SGD,
    replace(_SGD, family="addition-sgd-wd0", kind="memorising", weight_decay=0.0, steps=2500),
    _MUON,
    Recipe("dyck-adamw-wd1", "dyck", "supervised", batch=32, steps=1200, every=10),
    Recipe("dyck-adamw-wd0", "dyck", "supervised", batch=32, steps=1200, every=10, weight_decay=0.0),
    Recipe("commands-adamw-wd1", "commands", "grokking", batch=48, steps=2000),
    Recipe("commands-adamw-wd0", "commands", "memorising", batch=48, steps=1500, weight_decay=0.0),
    # Weight decay without grokking: a fifth of the sums is too little to find the rule, and random labels have none.
    replace(_ADDITION, family="few-sums-adamw-wd1", kind="memorising", share=0.2, steps=3500),
    replace(_ADDITION, family="random-labels-wd1", task="random labels", kind="memorising", steps=3500),
    replace(_MUON, family="few-sums-muon-wd1", kind="memorising", share=0.2, steps=2500),
    replace(_SGD, family="few-sums-sgd-wd", kind="memorising", share=0.2, steps=2500),
    # Few strings and large weights at the start delay what brackets learn (Liu et al., arXiv 2210.01117).
    _BRACKETS,
    replace(_BRACKETS, family="dyck-large-start-wd0", kind="memorising", weight_decay=0.0),
)

CONTROLS: Final = ("few-sums-adamw-wd1", "random-labels-wd1")
"""Families with decay that never generalise: of them as many seeds are trained as of the first four."""

REGIME_FAMILIES: Final = 4
"""The first ones: a family of each kind, of which more seeds are trained, as regimes are compared on them."""
EARLY_SEEDS: Final = 3


def queue(seeds: int) -> list[Recipe]:
    """All runs in the order in which they are trained.

    Three seeds of the first four families, one of each other family, the rest of the first four's, then the others' up
    to three seeds each, and the rest of the controls'.
    """
    first, others = FAMILIES[:REGIME_FAMILIES], FAMILIES[REGIME_FAMILIES:]
    controls = [family for family in FAMILIES if family.family in CONTROLS]
    stages = (
        (first, range(min(seeds, EARLY_SEEDS))),
        (others, range(1)),
        (first, range(EARLY_SEEDS, seeds)),
        (others, range(1, min(seeds, EARLY_SEEDS))),
        (controls, range(EARLY_SEEDS, seeds)),
    )
    return [
        replace(family, seed=FIRST_SEED + index)
        for families, indices in stages
        for index in indices
        for family in families
    ]


def short() -> list[Recipe]:
    """Tiny runs of a few families: they show that the machinery works, and nothing else."""
    tiny = []
    for recipe in queue(1):
        if recipe.task == "digits":
            half = 60 * bool(recipe.fine_tune_at)
            tiny.append(replace(recipe, rate=1e-2, steps=120, every=2, fine_tune_at=half))
        elif recipe.family in {"addition-adamw-wd1", "addition-muon-wd1", "dyck-adamw-wd1", "commands-adamw-wd1"}:
            tiny.append(replace(recipe, steps=20, every=1, batch=16))
    return [replace(recipe, family=f"short-{recipe.family}") for recipe in tiny]
