"""Tests on how directions turn: the order of stability and of measured overlap, and the Davis-Kahan bound."""

from __future__ import annotations

from typing import Final

import numpy as np

from spectral_edge.groups import TOTAL
from spectral_edge.scoring.evidence import Evidence
from spectral_edge.scoring.finding import Finding, decided, lacking
from spectral_edge.spectrum import rotation_bound

PUBLISHED_STABILITY: Final = (0.82, 0.23)
"""Of the first two directions, on GPT-2: shown beside, not tested."""
ROUNDING: Final = 1e-6
"""By how much sin^2 may exceed the bound's square: the band is exact to 2e-7 relative (docs/precision.md)."""


def stability_order(run: Evidence) -> Finding:
    """Median of stability_1 over that of stability_2: lower bounds of what :func:`overlap_order` compares."""
    return _order(run, "stability")


def overlap_order(run: Evidence) -> Finding:
    """The same of the measured overlaps, which can come out either way."""
    return _order(run, "overlap")


def _order(run: Evidence, name: str) -> Finding:
    if TOTAL not in run.groups:
        return lacking("full windows", "no full window")
    both = run.groups[TOTAL].of(name)[:, :2]
    both = both[np.isfinite(both).all(axis=1)]
    if len(both) < run.window:
        reason = f"{len(both)} full windows with a predecessor, {run.window} are needed"
        return lacking("full windows", reason, group=TOTAL)
    first, second = np.median(both, axis=0).tolist()
    numbers = {f"{name}_2": second, "share_of_windows": float((both[:, 0] > both[:, 1]).mean())}
    reason = f"median {name}_1 = {first:.3g}, {name}_2 = {second:.3g}"
    if name == "stability":
        published = PUBLISHED_STABILITY
        reason += f" (published on GPT-2, by another definition: {published[0]}, {published[1]})"
    return decided(first > second, reason, value=first, threshold=second, n=len(both), group=TOTAL, numbers=numbers)


def davis_kahan(run: Evidence) -> Finding:
    """Measured rotation of every direction against the bound of the operator reading, which no data can break."""
    if TOTAL not in run.groups:
        return lacking("full windows", "no full window")
    windows = run.groups[TOTAL]
    sigma = windows.of("singular_values")
    bound = rotation_bound(sigma[:-1], sigma[1:], windows.of("gram_change_operator")[1:])
    sine = np.sqrt(np.clip(1 - windows.of("overlap")[1:] ** 2, 0, None))
    says = (bound < 1) & np.isfinite(sine)
    if not says.any():
        return lacking("a bound below 1", "the bound on sin(theta) is 1 or more for every direction", group=TOTAL)
    excess = float((sine**2 - bound**2)[says].max())
    beyond = int((sine**2 - bound**2 > ROUNDING)[says].sum())
    usual = float(np.median(sine[says] / np.maximum(bound[says], np.finfo(np.float64).tiny)))
    reason = f"beyond the bound in {beyond} of {says.sum()} cases; median of sin(theta)/bound {usual:.2g}"
    numbers = {"share_below_1": float(says.mean())}
    return decided(
        excess <= ROUNDING, reason, value=excess, threshold=ROUNDING, n=int(says.sum()), group=TOTAL, numbers=numbers
    )
