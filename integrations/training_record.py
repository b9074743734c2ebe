"""What a run says about its own training: learning rate, evaluation metric, optimizer, weight decay, further metrics.

The names that frameworks use are in :mod:`integrations.training_names`; settings can name others. What is not found
stays None: nothing here guesses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

import numpy as np

from integrations.tracker import TrackedRun, Tracker
from integrations.training_names import (
    CONSTANT_SCHEDULES,
    EVALUATION_METRICS,
    LEARNING_RATE_METRICS,
    LEARNING_RATE_PARAMS,
    NO_WARM_UP,
    OPTIMIZER_PARAMS,
    SCHEDULE_PARAMS,
    TRAINING_METRICS,
    WARM_UP_PARAMS,
    WEIGHT_DECAY_PARAMS,
    matches,
    ordered,
    stem,
)
from spectral_edge.errors import TerminalError, UsageError
from spectral_edge.metric_direction import higher_is_better
from spectral_edge.metric_points import MOST_FURTHER
from spectral_edge.series import FurtherMetric, MetricSeries, Steps, TrainingRecord
from spectral_edge.settings import Settings

FURTHER_ASKED_FOR: Final = 2
"""Further metrics that are read where each costs a request to the tracker."""


@dataclass(frozen=True)
class _Found:
    """One series and what was refused on the way to it."""

    series: MetricSeries | None
    warnings: tuple[str, ...] = ()


def training_record(
    tracker: Tracker,
    run: TrackedRun,
    checkpoint_steps: Sequence[int] | Steps,
    settings: Settings,
    *,
    further: bool = False,
) -> TrainingRecord:
    """What `run` logged about its own training, as far as it can be found and joined with the checkpoints.

    Args:
        tracker: Where the run lives.
        run: The run.
        checkpoint_steps: Steps of its checkpoints, increasing, shape (n,).
        settings: May name the metrics and parameters to take; where they name none, known ones are looked for.
        further: Whether to read metrics that are only looked at beside the evaluation metric: of training, those first
            that are better in the same direction, then of held-out data; up to `MOST_FURTHER`, or
            :data:`FURTHER_ASKED_FOR` where each costs a request.

    Raises:
        UsageError: The run has no metric or parameter of a name that `settings` give; the message lists those it has.
    """
    steps = np.asarray(checkpoint_steps, dtype=np.int64)
    names = tracker.metric_names(run)
    for asked in (settings.metric, settings.learning_rate_metric):
        _require(run, "metric", asked, names)
    for asked in (settings.learning_rate_param, settings.weight_decay_param):
        _require(run, "parameter", asked, run.params)
    rate, constant = _learning_rate(tracker, run, names, steps, settings)
    wanted = (settings.metric,) if settings.metric is not None else ordered(names, EVALUATION_METRICS)
    evaluation = _first_on_axis(tracker, run, wanted, steps)
    higher, doubt = _direction(evaluation.series.name if evaluation.series else None, settings)
    optimizer = _param(run.params, OPTIMIZER_PARAMS)
    decay = _param(run.params, WEIGHT_DECAY_PARAMS, settings.weight_decay_param)
    record = TrainingRecord(
        learning_rate=rate.series,
        constant_learning_rate=constant,
        metric=evaluation.series,
        higher_is_better=higher,
        optimizer=optimizer.value,
        weight_decay=_number(decay.value),
        warnings=rate.warnings + evaluation.warnings + doubt + optimizer.warnings + decay.warnings,
    )
    if not further:
        return record
    of_training = ordered(names, TRAINING_METRICS)
    alike = sorted(of_training, key=lambda name: higher_is_better(name) != higher)
    return _further(tracker, run, (*alike, *_untried(names, evaluation.series, settings)), record, steps)


def _untried(names: Sequence[str], taken: MetricSeries | None, settings: Settings) -> tuple[str, ...]:
    """Evaluation metrics that were not read on the way to the one taken."""
    held_out = ordered(names, EVALUATION_METRICS)
    if settings.metric is not None:
        return held_out
    return () if taken is None else held_out[held_out.index(taken.name) + 1 :]


def _further(
    tracker: Tracker, run: TrackedRun, names: Sequence[str], record: TrainingRecord, steps: Steps
) -> TrainingRecord:
    """`record` with further metrics, those of `names` on the axis of the checkpoints at `steps`."""
    taken = set() if record.metric is None else {stem(record.metric.name)}
    wanted: list[str] = []
    for name in names:
        if stem(name) not in taken:  # of `loss_step` and `loss_epoch` one is taken
            taken.add(stem(name))
            wanted.append(name)
    most = MOST_FURTHER if tracker.capabilities.local_metrics else FURTHER_ASKED_FOR
    found: list[FurtherMetric] = []
    warnings: list[str] = []
    for name in wanted[:most]:
        try:
            series = tracker.metric_series(run, name)
        except TerminalError as error:
            warnings.append(_unreadable(name, error))
            continue
        if series.shares_axis_with(steps):
            found.append(FurtherMetric(series, higher_is_better(name)))
    return replace(record, further=tuple(found), warnings=record.warnings + tuple(warnings))


def _learning_rate(
    tracker: Tracker, run: TrackedRun, names: Sequence[str], steps: Steps, settings: Settings
) -> tuple[_Found, float | None]:
    """The rate by step or, where none was logged, the one that held for the whole run."""
    if settings.learning_rate_param is not None:
        value = _number(run.params[settings.learning_rate_param])
        doubt = f"parameter {settings.learning_rate_param!r} holds no number, so there is no learning rate."
        return _Found(None, () if value is not None else (doubt,)), value
    asked = settings.learning_rate_metric
    found = _first_on_axis(tracker, run, (asked,) if asked else ordered(names, LEARNING_RATE_METRICS), steps)
    return found, None if found.series is not None or asked else _constant_rate(run.params)


def _first_on_axis(tracker: Tracker, run: TrackedRun, names: Sequence[str], steps: Steps) -> _Found:
    """The first of `names` whose steps are those of the checkpoints; joining any other would be a guess."""
    refused: list[str] = []
    for name in names:
        try:
            series = tracker.metric_series(run, name)
        except TerminalError as error:
            refused.append(_unreadable(name, error))
            continue
        if series.shares_axis_with(steps):
            return _Found(series, tuple(refused))
        refused.append(_other_axis(series, steps))
    return _Found(None, tuple(refused))


def _unreadable(name: str, error: TerminalError) -> str:
    return f"metric {name!r} could not be read ({error}) and was left out."


def _other_axis(series: MetricSeries, steps: Steps) -> str:
    if len(series.steps) == 0:
        return f"metric {series.name!r} holds no finite value and was left out."
    return (
        f"metric {series.name!r} was logged at steps {series.steps[0]} to {series.steps[-1]}, the checkpoints lie at "
        f"{steps[0] if len(steps) else '-'} to {steps[-1] if len(steps) else '-'}: it may count other steps (epochs), "
        "so it was left out."
    )


def _direction(name: str | None, settings: Settings) -> tuple[bool, tuple[str, ...]]:
    """Whether higher is better: as asked, else by the words of the name; a name that tells nothing is said to."""
    if settings.metric_direction is not None:
        return settings.metric_direction == "higher", ()
    told = True if name is None else higher_is_better(name)
    if told is not None:
        return told, ()
    doubt = f"the name of metric {name!r} does not tell its direction: higher was taken as better"
    return True, (f"{doubt} (--metric-direction lower for the other).",)


def _constant_rate(params: Mapping[str, str]) -> float | None:
    """The rate named by the parameters, if they name a constant schedule too and no warm-up."""
    schedule = _param(params, SCHEDULE_PARAMS).value
    if schedule is None or schedule.strip().lower() not in CONSTANT_SCHEDULES:
        return None
    warm_up = [value.strip().lower() for key, value in params.items() if matches(WARM_UP_PARAMS, key)]
    if any(value not in NO_WARM_UP and _number(value) != 0 for value in warm_up):
        return None
    return _number(_param(params, LEARNING_RATE_PARAMS).value)


@dataclass(frozen=True)
class _Told:
    """What the parameters tell of one thing."""

    value: str | None
    warnings: tuple[str, ...] = ()


def _param(params: Mapping[str, str], patterns: Sequence[str], asked: str | None = None) -> _Told:
    """The parameter that was asked for, or the one of the first pattern that matches; empty ones do not count.

    Where several match it and tell different things, none is taken: which of them is meant cannot be known.
    """
    if asked is not None:
        return _Told(params[asked])
    filled = {key: value for key, value in params.items() if value.strip()}
    for pattern in patterns:
        found = {key: value for key, value in sorted(filled.items()) if matches(pattern, key)}
        if len(set(found.values())) > 1:
            listed = ", ".join(repr(key) for key in list(found)[:4])
            return _Told(None, (f"parameters {listed} tell different things, so none of them was taken.",))
        if found:
            return _Told(next(iter(found.values())))
    return _Told(None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _require(run: TrackedRun, what: str, asked: str | None, names: Iterable[str]) -> None:
    known = sorted(names)
    if asked is None or asked in known:
        return
    close = get_close_matches(asked, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(repr(name) for name in known[:40]) or "none at all"
    raise UsageError(
        f"the run has no {what} named {asked!r}.{hint}",
        run=run.key.run_name,
        next_step=f"choose one that was logged: {listed}.",
    )
