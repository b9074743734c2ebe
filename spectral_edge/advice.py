"""What to log for a verdict, where a run's checkpoints are too few, too sparse or too uneven for one.

All of it follows from the test (docs/transitions.md) and from the run's own steps: how many updates the test needs, how
early and how late in a run it can place a change, and that it takes updates for exchangeable, which those over
many steps and those over few are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from spectral_edge.series import Steps
from spectral_edge.settings import Settings
from spectral_edge.transitions import MetricChange, fewest_updates

UNTESTED: Final = "Changes were not tested"
SPARSE: Final = "Checkpoints are too sparse"
UNEVEN: Final = "Checkpoints are too uneven"
KINDS_OF_ADVICE: Final = (UNTESTED, SPARSE, UNEVEN)
"""How each kind of advice begins among a run's warnings."""

SPACING_LIMIT: Final = 1.5
"""Steps between checkpoints may differ by this factor within a window. An update is about as long as its learning rate
times its steps, so the limit is that of the rate (spectral_edge/regimes.py)."""

_ROUND: Final = (1, 2, 2.5, 5)


def advice(
    steps: Steps, settings: Settings, *, stretches: int, identical: int, metric: MetricChange | None
) -> Iterator[str]:
    """Advice on a run's checkpoints, one sentence or two each; nothing where they suffice.

    Args:
        steps: Training step of each checkpoint, shape (T + 1,), increasing.
        settings: Uses `window`.
        stretches: How many were tested.
        identical: Checkpoints that are identical to the one before.
        metric: Where the run's metric changes, if that is established.
    """
    if stretches == 0:
        yield _untested(steps, settings.window, identical)
    elif metric is not None:
        yield from _sparse(steps, settings.window, metric)
    yield from _uneven(steps, settings.window)


def is_advice(warning: str) -> bool:
    """Whether one of a run's warnings says what to log for a verdict."""
    return warning.startswith(KINDS_OF_ADVICE)


def advice_among(warnings: Sequence[str] | None) -> tuple[str, ...]:
    """The advice among a run's warnings."""
    return tuple(filter(is_advice, warnings or ()))


def first_change(window: int) -> int:
    """Index of the first checkpoint at which a change can be placed: W // 2 windows of W updates must end before it."""
    return window + window // 2


def last_change(window: int, checkpoints: int) -> int:
    """Index of the last one, of so many checkpoints: as many windows must begin after it."""
    return checkpoints + 1 - first_change(window)


def _untested(steps: Steps, window: int, identical: int) -> str:
    have, need = len(steps), fewest_updates(window) + 1
    if have >= need:
        return (
            f"{UNTESTED}: {_count(identical, 'checkpoint')} of {have:,} hold the same weights as the one before, and a "
            "change is looked for only where every update moves something. Log one only after steps that train the "
            "model."
        )
    told = f"{UNTESTED}: {have:,} checkpoints, {need:,} are needed for windows of {window} updates"
    ways = [*_denser(steps, need - 1), *_longer(steps, need), *_narrower(have, window)]
    return f"{told}: {', or '.join(ways)}." if ways else f"{told}."


def _denser(steps: Steps, updates: int) -> Iterator[str]:
    spacing, usual = _round_below(_span(steps) / updates), _usual(steps)
    if spacing >= 1:
        yield f"log one every {_count(spacing, 'step')} {f'instead of {usual:,}' if spacing < usual else 'throughout'}"


def _longer(steps: Steps, need: int) -> Iterator[str]:
    until = int(steps[0]) + _usual(steps) * (need - 1)
    if until > int(steps[-1]):
        yield f"train to step {until:,}"


def _narrower(have: int, window: int) -> Iterator[str]:
    widths = (width for width in range(window - 1, 2, -1) if fewest_updates(width) < have)
    if (width := next(widths, None)) is not None:
        yield f"take --window {width}"


def _sparse(steps: Steps, window: int, metric: MetricChange) -> Iterator[str]:
    """Where the metric moves before, or after, the part of the run in which a change can be placed."""
    at, first, last = metric.checkpoint, first_change(window), last_change(window, len(steps))
    onset = int(steps[at])
    moves = f"{SPARSE}: the metric moves at step {onset:,}, and a change of the spectrum can be placed"
    if at < first:
        spacing = _round_below((onset - int(steps[0])) / (first + 1))
        denser = f": log one every {_count(spacing, 'step')} until then" if spacing >= 1 else ""
        yield f"{moves} from step {int(steps[first]):,} on, after {_count(first, 'update')}{denser}."
    elif at > last:
        needed = len(steps) - last
        until = f"train to step {onset + _usual(steps) * needed:,}"
        spacing = _round_below((int(steps[-1]) - onset) / needed)
        denser = f", or log one every {_count(spacing, 'step')} from there on" if spacing >= 1 else ""
        end = f"{_count(needed - 1, 'update')} before the end"
        yield f"{moves} until step {int(steps[last]):,}, {end}: {until}{denser}."


def _uneven(steps: Steps, window: int) -> Iterator[str]:
    apart = np.diff(steps)
    if len(apart) < window:
        return
    inside = np.lib.stride_tricks.sliding_window_view(apart, window)
    mixed = inside.max(axis=1) > SPACING_LIMIT * inside.min(axis=1)
    if 2 * int(mixed.sum()) <= len(mixed):
        return
    spacing = min(_usual(steps), _round_below(_span(steps) / fewest_updates(window)))
    yield (
        f"{UNEVEN}: they lie {int(apart.min()):,} to {_count(int(apart.max()), 'step')} apart, and differ by more than "
        f"a factor of {SPACING_LIMIT:g} within {int(mixed.sum()):,} of {_count(len(mixed), 'full window')}. An update "
        "over more steps is a longer one, so that a change of spacing looks like a change of the spectrum: log one "
        f"every {_count(max(1, spacing), 'step')} throughout."
    )


def _span(steps: Steps) -> int:
    return int(steps[-1]) - int(steps[0])


def _usual(steps: Steps) -> int:
    """Median steps between checkpoints."""
    return int(np.median(np.diff(steps)))


def _round_below(spacing: float) -> int:
    """The most steps that are at most `spacing` and round: below ten any, else 1, 2, 2.5 or 5 times a power of ten."""
    if spacing < 10:
        return max(0, int(spacing))
    power = 10.0 ** math.floor(math.log10(spacing))
    return max(int(digit * power) for digit in _ROUND if digit * power <= spacing)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
