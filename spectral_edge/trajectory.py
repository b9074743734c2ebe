"""What the pass over a run's checkpoints gives, whole or in shards that add up (theory 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spectral_edge.band import Band, identical_checkpoints, total, widest
from spectral_edge.errors import TrajectoryError, ZeroUpdatesError


@dataclass(frozen=True)
class Trajectory:
    """What the pass gives: the band of every group, and how it came about.

    Attributes:
        steps: Training step of each checkpoint, strictly increasing; one more than updates.
        bands: Band of each group by name. A group that ends early has fewer updates than others.
        endings: Why groups ended early, one sentence each; empty when none did.
        warnings: What looks odd but was analysed, one sentence each.
    """

    steps: tuple[int, ...]
    bands: Mapping[str, Band]
    endings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def add_up(parts: Sequence[Trajectory], names: Sequence[str]) -> Trajectory:
    """The trajectory of a run from those of all its shards, in any order.

    Args:
        parts: What the passes of all shards gave.
        names: What messages call the checkpoints.

    Raises:
        ZeroUpdatesError: All checkpoints are identical.
        TrajectoryError: The parts are of different checkpoints.
    """
    first = parts[0]
    if len(parts) == 1:
        return first  # the pass over all parameters has checked it
    if any((part.steps, part.bands.keys()) != (first.steps, first.bands.keys()) for part in parts):
        raise TrajectoryError("the shards are of different checkpoints: their steps or groups differ.")
    bands = {group: total(part.bands[group] for part in parts) for group in first.bands}
    return checked(replace(first, bands=bands), names)


def checked(summed: Trajectory, names: Sequence[str]) -> Trajectory:
    """`summed` with a warning for each checkpoint that is identical to the one before, in addition to those it has.

    Raises:
        ZeroUpdatesError: All are.
    """
    updates = widest(summed.bands).updates
    identical = tuple(identical_checkpoints(summed.bands, names))
    if len(identical) == updates:
        raise ZeroUpdatesError(
            f"all updates are zero: {names[0]} … {names[updates]} hold identical weights.",
            file=names[updates],
            next_step="check that the training loop saves the model it trains.",
        )
    return replace(summed, warnings=summed.warnings + identical)
