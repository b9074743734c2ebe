"""Labels of a run's windows, from its held-out accuracy alone (lab record F7): what geometry is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.replication.runs import Run
from benchmarks.replication.training import FITTED, GENERALISED

PHASES: Final = ("fitting", "plateau", "rise", "at", "post", "quiet", "forgetting", "forgotten", "between")
MOVING: Final = ("rise", "at", "forgetting")
"""Phases in which the held-out metric moves, or has just moved."""
STILL: Final = ("plateau", "post", "quiet")
"""Phases in which it stands still after the training data are fitted."""

AFTER: Final = 1.3
LOST: Final = 0.9
"""Share of the drop of the first task's accuracy after which the run counts as having forgotten."""


@dataclass(frozen=True)
class Events:
    """When things happened, in optimizer steps; None: never.

    `fitted`: training accuracy 0.99. `half`, `generalised`: held-out accuracy 0.5, 0.95. `delayed`: whether the
    training data were fitted while held-out accuracy was below 0.5, so that there is a plateau.
    """

    fitted: int | None
    half: int | None
    generalised: int | None

    @property
    def delayed(self) -> bool:
        return self.fitted is not None and (self.half is None or self.half > self.fitted)

    @property
    def grokked(self) -> bool:
        """Fitted first, generalised later."""
        return self.delayed and self.generalised is not None


def events(run: Run) -> Events:
    """When the run fitted its training data and generalised."""
    held_out = run.metric("held_out_accuracy")
    return Events(
        _first(run, run.metric("train_accuracy") >= FITTED),
        _first(run, held_out >= 0.5),
        _first(run, held_out >= GENERALISED),
    )


def phases(run: Run, window: int) -> np.ndarray:
    """The phase at each checkpoint, shape (T + 1,): the phase of the window that ends there.

    A run that is fitted before it generalises: `fitting`, `plateau` (held-out accuracy below 0.5), `rise` (to 0.95),
    `at` (the next W windows), `between`, `post` (from 1.3 times the step of 0.95). A run that never gets there, or
    that generalises while it fits: `quiet` from W checkpoints after the fit, as windows that reach into the fit are
    still `fitting`. Fine-tuned: `forgetting` from the switch until 90 % of the first task's accuracy that is lost in
    the end are lost, and `at` that no more: `forgotten`, from W checkpoints later.
    """
    found, steps = events(run), run.steps
    label = np.full(len(steps), "fitting", dtype="<U10")
    if found.fitted is None:
        return label
    reach = window * run.recipe.every * _factor(run)
    if found.grokked:
        assert found.half is not None
        assert found.generalised is not None
        label[steps >= found.fitted] = "plateau"
        label[steps >= found.half] = "rise"
        label[steps >= found.generalised] = "at"
        label[steps >= found.generalised + reach] = "between"
        label[steps >= max(AFTER * found.generalised, found.generalised + reach)] = "post"
    else:
        settled = max(found.fitted, found.generalised or 0)
        label[steps >= settled + reach] = "quiet"
    if run.recipe.fine_tune_at:
        label[steps > run.recipe.fine_tune_at] = "forgetting"
        label[steps >= _lost_at(run) + reach] = "forgotten"
    return label


def _lost_at(run: Run) -> int:
    held_out, steps = run.metric("held_out_accuracy"), run.steps
    before = held_out[steps <= run.recipe.fine_tune_at][-1]
    after = steps > run.recipe.fine_tune_at
    level = before - LOST * (before - held_out[after].min())
    return int(steps[after & (held_out <= level)][0])


def _factor(run: Run) -> int:
    return int(run.steps[1] - run.steps[0]) // run.recipe.every


def _first(run: Run, reached: np.ndarray) -> int | None:
    return int(run.steps[np.argmax(reached)]) if reached.any() else None
