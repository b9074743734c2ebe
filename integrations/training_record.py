"""What a run says about its own training: learning rate, evaluation metric, optimizer, weight decay.

Names differ by framework; the tables below hold the ones we know, in the order in which they are preferred. What is
not found stays None: nothing here guesses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import numpy as np

from integrations.tracker import TrackedRun, Tracker
from spectral_edge.errors import TerminalError, UsageError
from spectral_edge.series import MetricSeries, Steps, TrainingRecord

# Patterns match whole names, without regard to case. `held` stands for the prefix of a held-out split, with the
# separator of the framework: `val_loss` (Keras, Lightning), `eval/loss`, `eval_loss` (HF Trainer), `test.accuracy`.
_HELD: Final = r"(?:(?:val|valid|validation|test|eval|evaluation|dev|held[ _-]?out)[/_. -])"

LEARNING_RATE_METRICS: Final = (
    r"(?:train[/_. -])?(?:learning[ _-]?rate|lr)",  # plain loops; HF Trainer: train/learning_rate, learning_rate
    r"lr-[A-Za-z]\w*",  # Lightning LearningRateMonitor: lr-AdamW
    r"lr-[A-Za-z]\w*[/-]pg[01]",  # the same with several parameter groups, the first of which counts: lr-AdamW/pg1
    r"(?:train|optim|optimizer|schedule|scheduler)[/_. -](?:learning[ _-]?rate|lr)",
    r"lr[/_. -]?(?:group[/_. -]?)?0",  # one metric a parameter group: lr/group0, lr_0
)
_EPOCH: Final = r"(?:[/_](?:epoch|step))?"  # Lightning's suffix when a value is logged both ways
EVALUATION_METRICS: Final = (
    _HELD + r"(?:acc|accuracy|top[ _-]?1|acc@1|categorical_accuracy|binary_accuracy)" + _EPOCH,
    _HELD + r"(?:f1|f1[ _-]?score|auc|auroc|roc_auc|bleu|rouge[ _-]?l|map|miou|iou|r2)" + _EPOCH,
    _HELD + r"(?:loss|nll|cross[ _-]?entropy|perplexity|ppl|mse|rmse|mae|error)" + _EPOCH,
    r"(?:acc|accuracy|loss)[/_. -](?:val|valid|validation|test|eval)",
)
HIGHER_IS_BETTER_WORDS: Final = ("acc", "f1", "auc", "auroc", "bleu", "rouge", "map", "iou", "miou", "r2", "top")
LOWER_IS_BETTER_WORDS: Final = ("loss", "nll", "entropy", "perplexity", "ppl", "mse", "rmse", "mae", "mape", "err")
"""Beginnings of words in a metric's name that tell its direction; the lower ones are looked for first."""

OPTIMIZER_PARAMS: Final = ("optimizer", "optim", "optimizer_name", "optimizer/name", "args/optim", "opt_name")
WEIGHT_DECAY_PARAMS: Final = ("weight_decay", "wd", "optimizer/weight_decay", "args/weight_decay", "weight-decay")
LEARNING_RATE_PARAMS: Final = ("learning_rate", "lr", "optimizer/lr", "args/learning_rate", "learning-rate")
SCHEDULE_PARAMS: Final = ("lr_scheduler_type", "lr_schedule", "lr_scheduler", "scheduler", "schedule")
CONSTANT_SCHEDULES: Final = frozenset({"constant", "const", "fixed", "none", "constantlr"})


@dataclass(frozen=True)
class _Found:
    """One series and what was refused on the way to it."""

    series: MetricSeries | None
    warnings: tuple[str, ...] = ()


def training_record(
    tracker: Tracker, run: TrackedRun, checkpoint_steps: Sequence[int] | Steps, *, metric: str | None = None
) -> TrainingRecord:
    """What `run` logged about its own training, as far as it can be found and joined with the checkpoints.

    Args:
        tracker: Where the run lives.
        run: The run.
        checkpoint_steps: Steps of its checkpoints, increasing, shape (n,).
        metric: Name of the evaluation metric; None looks for a known one.

    Raises:
        UsageError: The run has no metric named `metric`; the message lists those it has.
    """
    steps = np.asarray(checkpoint_steps, dtype=np.int64)
    names = tracker.metric_names(run)
    if metric is not None and metric not in names:
        raise _no_such_metric(run, metric, names)
    rate = _first_on_axis(tracker, run, _ordered(names, LEARNING_RATE_METRICS), steps)
    wanted = (metric,) if metric is not None else _ordered(names, EVALUATION_METRICS)
    evaluation = _first_on_axis(tracker, run, wanted, steps)
    chosen = evaluation.series.name if evaluation.series is not None else ""
    higher, doubt = _direction(chosen)
    return TrainingRecord(
        learning_rate=rate.series,
        constant_learning_rate=_constant_rate(run.params) if rate.series is None else None,
        metric=evaluation.series,
        higher_is_better=higher,
        optimizer=_param(run.params, OPTIMIZER_PARAMS),
        weight_decay=_number(_param(run.params, WEIGHT_DECAY_PARAMS)),
        warnings=rate.warnings + evaluation.warnings + doubt,
    )


def _ordered(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that match a pattern, by the order of patterns, then of names."""
    found = ((rank, name) for name in names for rank, pattern in enumerate(patterns) if _matches(pattern, name))
    return tuple(dict.fromkeys(name for _, name in sorted(found)))


def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern, name, re.IGNORECASE) is not None


def _first_on_axis(tracker: Tracker, run: TrackedRun, names: Sequence[str], steps: Steps) -> _Found:
    """The first of `names` whose steps are those of the checkpoints; joining any other would be a guess."""
    refused: list[str] = []
    for name in names:
        try:
            series = tracker.metric_series(run, name)
        except TerminalError as error:
            refused.append(f"metric {name!r} could not be read ({error}) and was left out.")
            continue
        if series.shares_axis_with(steps):
            return _Found(series, tuple(refused))
        refused.append(_other_axis(series, steps))
    return _Found(None, tuple(refused))


def _other_axis(series: MetricSeries, steps: Steps) -> str:
    if len(series.steps) == 0:
        return f"metric {series.name!r} holds no finite value and was left out."
    return (
        f"metric {series.name!r} was logged at steps {series.steps[0]} to {series.steps[-1]}, the checkpoints lie at "
        f"{steps[0] if len(steps) else '-'} to {steps[-1] if len(steps) else '-'}: it may count other steps (epochs), "
        "so it was left out."
    )


def _direction(name: str) -> tuple[bool, tuple[str, ...]]:
    """Whether higher is better, by the words in the name; a name that tells nothing is said to."""
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    if any(word.startswith(known) for word in words for known in LOWER_IS_BETTER_WORDS):
        return False, ()
    if not name or any(word.startswith(known) for word in words for known in HIGHER_IS_BETTER_WORDS):
        return True, ()
    return True, (f"the name of metric {name!r} does not tell its direction: higher was taken as better.",)


def _constant_rate(params: Mapping[str, str]) -> float | None:
    """The rate named by the parameters, if they name a constant schedule too and no warm-up."""
    schedule = _param(params, SCHEDULE_PARAMS)
    if schedule is None or schedule.strip().lower() not in CONSTANT_SCHEDULES:
        return None
    warmup = [_number(value) for key, value in params.items() if _last(key).startswith(("warmup", "num_warmup"))]
    if any(steps is None or steps > 0 for steps in warmup):
        return None
    return _number(_param(params, LEARNING_RATE_PARAMS))


def _param(params: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The parameter under the first of `names` that is there, without regard to case; empty ones do not count."""
    lowered = {key.lower(): value for key, value in params.items()}
    return next((lowered[name] for name in names if lowered.get(name, "").strip()), None)


def _last(key: str) -> str:
    return key.lower().rpartition("/")[2]


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _no_such_metric(run: TrackedRun, metric: str, names: Sequence[str]) -> UsageError:
    close = get_close_matches(metric, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(repr(name) for name in sorted(names)[:40]) or "none at all"
    return UsageError(
        f"the run has no metric named {metric!r}.{hint}",
        run=run.key.run_name,
        next_step=f"choose one that was logged: {listed}.",
    )
