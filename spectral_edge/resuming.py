"""Measured once, used again: a run's trajectory from its stored band, and with new checkpoints after it (theory 2).

The band that table `inner_products` holds is all that an analysis needs of the checkpoints it was summed over. Another
analysis starts from it and reads nothing; a run that has grown needs the new checkpoints and the L + 1 before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spectral_edge.band import Band, identical_checkpoints
from spectral_edge.groups import in_order
from spectral_edge.tables import RunTables
from spectral_edge.trajectory import Trajectory

SAME: Final = 1e-6
"""Two measurements of one inner product differ by less, in units of the two updates' norms, on whatever machine."""


def stored_trajectory(
    tables: RunTables, steps: Sequence[int], names: Sequence[str], wanted_lags: int
) -> Trajectory | None:
    """The trajectory that `tables` were made from.

    Its bands have the lags that were stored. Where those are all that the updates allow, they stand for any number of
    lags, and the bands have at least `wanted_lags`.

    Args:
        tables: The stored audit of a run, `ok` or `partial`.
        steps: Training steps of the checkpoints it is about.
        names: What messages call those checkpoints.
        wanted_lags: Lags that the analysis to come asks for.

    Returns:
        None where the rows are not those of a whole band over `steps`.
    """
    rows = tables.inner_products
    ends = np.asarray(steps[1:], dtype=np.int64)
    step, lag = rows["step"].to_numpy(), rows["lag"].to_numpy()
    update = np.searchsorted(ends, step)
    if len(rows) == 0 or update.max() >= len(ends) or (ends[update] != step).any():
        return None
    lags = int(lag.max())
    if lags == int(update.max()):
        lags = max(lags, wanted_lags)
    bands: dict[str, Band] = {}
    for group, members in _members(rows):
        band = _band(rows.take(members), update[members], lag[members], lags)
        if band is None:
            return None
        bands[group] = band
    ordered = {group: bands[group] for group in in_order(bands)}
    error = tables.summary["error"]
    return Trajectory(
        steps=tuple(steps),
        bands=ordered,
        endings=(error,) if error else (),
        warnings=tuple(identical_checkpoints(ordered, names)),
    )


def beginning(known: Trajectory, steps: Sequence[int], names: Sequence[str]) -> Trajectory | None:
    """The trajectory of a run whose checkpoints are the first ones of another, `known`, by the run's own steps.

    Args:
        known: What was measured of the other run; no group of it ends early.
        steps: Training steps that the run gives those checkpoints, at least three.
        names: What messages call them there.

    Returns:
        None where all of them hold the same weights: such a run is refused when it is read.
    """
    bands = {group: band.first(len(steps) - 1) for group, band in known.bands.items()}
    identical = tuple(identical_checkpoints(bands, names))
    return None if len(identical) == len(steps) - 1 else Trajectory(tuple(steps), bands, warnings=identical)


def lags_of(trajectory: Trajectory) -> int:
    """L, the largest lag of the bands of `trajectory`."""
    return next(iter(trajectory.bands.values())).lags


def with_new_checkpoints(known: Trajectory, tail: Trajectory, names: Sequence[str]) -> Trajectory | None:
    """The whole trajectory of a run that has grown: all that is known, then the new updates of `tail`.

    Args:
        known: What was measured before; no group of it ends early.
        tail: The last L + 1 checkpoints of `known` and the new ones, with the same lags L.
        names: What messages call the checkpoints, old and new.

    Returns:
        None where `tail` does not continue `known`: other groups or parameters, groups that end, or other inner
        products between updates that both hold, because checkpoints were written over since.
    """
    shared = len(known.steps) - known.steps.index(tail.steps[0]) - 1
    if tail.endings or tail.bands.keys() != known.bands.keys():
        return None
    if not all(_continues(known.bands[group], band, shared) for group, band in tail.bands.items()):
        return None
    bands = {group: band.followed_by(tail.bands[group], shared) for group, band in known.bands.items()}
    return Trajectory(
        steps=known.steps + tail.steps[shared + 1 :],
        bands=bands,
        warnings=tuple(identical_checkpoints(bands, names)),
    )


def _members(rows: pa.Table) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each group, and the positions of its rows."""
    groups = rows["group"].combine_chunks().dictionary_encode()
    codes = groups.indices.to_numpy()
    for code, group in enumerate(groups.dictionary.to_pylist()):
        yield group, np.flatnonzero(codes == code)


def _band(rows: pa.Table, update: NDArray[np.int64], lag: NDArray[np.int32], lags: int) -> Band | None:
    """The band of one group; None where a product is missing."""
    updates = int(update.max()) + 1
    values = np.full((updates, lags + 1), np.nan)
    values[update, lag] = rows["value"].to_numpy()
    reaches = _reaches(updates, lags)
    if np.isnan(values[reaches]).any():
        return None
    values[~reaches] = 0.0
    rounding = np.zeros(updates)
    rounding[update] = rows["rounding_energy"].to_numpy()
    return Band(values, int(rows["n_parameters"][0].as_py()), rounding)


def _reaches(updates: int, lags: int) -> NDArray[np.bool_]:
    """Which entries of a band, shape (updates, lags + 1), do not reach before the first update."""
    return np.arange(updates)[:, None] >= np.arange(lags + 1)[None, :]


def _continues(known: Band, tail: Band, shared: int) -> bool:
    """Whether the first `shared` updates of `tail` are the last ones of `known`."""
    if tail.n_parameters != known.n_parameters or tail.lags != known.lags:
        return False
    ours, theirs = known.values[known.updates - shared :], tail.values[:shared]
    norms = np.sqrt(np.clip(ours[:, 0], 0.0, None))
    update, lag = np.nonzero(_reaches(shared, known.lags))
    difference = np.abs(ours[update, lag] - theirs[update, lag])
    return bool((difference <= SAME * norms[update] * norms[update - lag]).all())
