"""What is trained, what "no event" means, and from where on a run is looked at. Fixed before anything was counted.

**No event.** A run's *segment* is 60 consecutive checkpoints (59 updates) over which

1. the held-out metric (accuracy; for regression the share of variance explained) stays within a range of 0.05, and
2. the training loss (cross entropy in nats; for regression the mean squared error of targets with variance near 1),
   over all training data, stays within a range of 0.05,

and at whose first checkpoint

3. the training data are fitted to the level that `fitted` of the kind states.

The first checkpoint of the *first* such segment is the eligible one. Only the segment is analysed, as if the run had
begun there. Neither rule looks at the spectrum. A run without such a segment is left out, and counted as left out.

**Statistic.** The smallest q-value over all tests of the segment (total and categories, four kinds of change), W = 10.

**What a rate is of.** "No event in the metric" does not mean that the updates stay alike. So each kind says beforehand
what its updates do:

- `stationary`: constant rate, gradient noise of random batches that does not die out. A report is a false alarm.
- `settling`: constant rate, but the loss goes on falling slowly, and updates shrink and turn with it. A report says
  truly that the spectrum changed; that anything happened would be false.
- `scheduled`: the learning rate falls. The same.

Beside each rate stands that of the same segments with their updates in random order: the detector's own null on the
same real updates, which separates faults of the test from changes of the spectrum.

**Seeds.** 1001 and up calibrate, 2001 and up test; 5 to 7 were used to set rates, batches, lengths, levels of fit
and the teacher's number of examples, looking at metrics only. The memorising runs of build/replication test only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

SEGMENT: Final = 60
"""Checkpoints that are looked at."""
HELD_OUT_RANGE: Final = 0.05
LOSS_RANGE: Final = 0.05
FIRST_SEED: Final = {"calibration": 1001, "test": 2001}
COUNTS: Final = {"calibration": 20, "test": 40}
"""Runs of each kind."""
VERSION: Final = 1

Process = Literal["stationary", "settling", "scheduled"]


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        task: `digits`, digits with `random labels`, a noisy `teacher`, or digits as a `regression` of their labels.
        hidden: Width of the hidden layer; 0: a linear model.
        fitted: Training metric (accuracy, or share of variance explained) from which a run is eligible.
        every: Optimizer steps between checkpoints.
        checkpoints: Kept in all, without the initial one.
    """

    name: str
    process: Process
    task: Literal["digits", "random labels", "teacher", "regression"]
    hidden: int
    optimizer: Literal["SGD", "AdamW"]
    rate: float
    fitted: float
    batch: int = 32
    schedule: Literal["constant", "cosine"] = "constant"
    every: int = 5
    checkpoints: int = 160

    @property
    def hash(self) -> str:
        """Identifies it: 12 hexadecimal digits."""
        told = asdict(self) | {"version": VERSION}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


KINDS: Final = (
    Kind("linear regression, SGD", "stationary", "regression", 0, "SGD", 0.003, 0.5, batch=64, checkpoints=200),
    Kind("teacher, SGD", "stationary", "teacher", 16, "SGD", 0.02, 0.7, batch=64, checkpoints=200),
    Kind("logistic regression, SGD", "settling", "digits", 0, "SGD", 0.1, 0.95),
    Kind("digits MLP, SGD", "settling", "digits", 32, "SGD", 0.05, 0.99),
    Kind("digits MLP, AdamW", "settling", "digits", 32, "AdamW", 5e-3, 0.99, checkpoints=200),
    Kind(
        "random labels, AdamW",
        "settling",
        "random labels",
        96,
        "AdamW",
        5e-3,
        0.99,
        batch=64,
        every=10,
        checkpoints=220,
    ),
    Kind("digits MLP, cosine", "scheduled", "digits", 32, "AdamW", 1e-2, 0.99, schedule="cosine"),
)
