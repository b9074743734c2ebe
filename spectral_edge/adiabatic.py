"""How fast the spectrum changes against its gap, and the regime read from it (theory 4 and 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_edge.band import Band, Matrix
from spectral_edge.spectrum import Spectrum


def gram_change(windows: Spectrum, earlier: Spectrum) -> Matrix:
    """||G(t) - G(t-1)||_F, elementwise, for paired windows of one width (theory 4).

    Shape (n,), parameter units squared.
    """
    return np.asarray(np.sqrt(((windows.gram - earlier.gram) ** 2).sum(axis=(1, 2))))


def gram_change_operator(band: Band, ends: NDArray[np.int64], width: int) -> Matrix:
    """||X(t)'X(t) - X(t-1)'X(t-1)||_F, shape (n,), parameter units squared (theory 4).

    The change of the operator whose eigenvectors are the v_j, so the quantity for which Davis-Kahan holds. It has
    rank 2, d_t d_t' - d_(t-W) d_(t-W)', and its norm follows from three inner products.

    Raises:
        IndexError: Window t - 1 begins before the first update.
    """
    newest = band.values[ends, 0]
    if len(ends) and ends.min() < width:
        raise IndexError("the earlier window begins before the first update")
    dropped = band.values[ends - width, 0]
    between = band.values[ends, width]
    return np.asarray(np.sqrt(np.clip(newest**2 + dropped**2 - 2.0 * between**2, 0.0, None)))


def adiabatic(change: Matrix, gap: Matrix, learning_rate: Matrix) -> Matrix:
    """A = ||dG||_F / (eta g^2), the paper's literal parameter, shape (n,), 1/learning rate (theory 5).

    NaN where the learning rate is unknown or zero, or the gap is zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = change / (learning_rate * gap**2)
    return np.where(np.isfinite(found), found, np.nan)


def relative_learning_rate(learning_rate: Matrix) -> Matrix:
    """The learning rate in units of the run's largest, shape (n,); NaN where unknown."""
    known = learning_rate[np.isfinite(learning_rate)]
    peak = float(known.max()) if len(known) else np.nan
    return np.asarray(learning_rate / peak) if peak > 0 else np.full(learning_rate.shape, np.nan)
