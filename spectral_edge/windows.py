"""All windows of a group, short and full, as columns of table `gaps` (theory 3 to 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_edge import adiabatic as ad
from spectral_edge import spectrum as sp
from spectral_edge.band import Band, Matrix
from spectral_edge.settings import Settings


@dataclass(frozen=True)
class Windows:
    """The windows of one group by increasing end: n = T - 1 of them, the first ones short.

    Attributes:
        ends: Index of each window's last update, shape (n,): 1, 2, … T - 1.
        updates: Updates in each window, shape (n,).
        scalars: Columns of table `gaps` that hold one number a window, each of shape (n,); NaN where undefined.
        k_star: Shape (n,); 0 where undefined.
        k_star_weighted: Shape (n,); 0 where undefined.
        level_crossing: Shape (n,), bool; False where there is no window before.
        singular_values: Shape (n, W), NaN beyond the window's own width.
        overlap: Shape (n, W), NaN where undefined.
        stability: Shape (n, W), NaN where undefined.
    """

    ends: NDArray[np.int64]
    updates: NDArray[np.int64]
    scalars: dict[str, Matrix]
    k_star: NDArray[np.int64]
    k_star_weighted: NDArray[np.int64]
    level_crossing: NDArray[np.bool_]
    singular_values: Matrix
    overlap: Matrix
    stability: Matrix

    @property
    def full(self) -> NDArray[np.bool_]:
        """Which windows have all W updates, shape (n,)."""
        return np.asarray(self.updates == self.singular_values.shape[1])


def windows(band: Band, settings: Settings) -> Windows:
    """Every window of `band`: those of 2 … W - 1 updates at the start, then the full ones.

    Quantities that compare with the window before are NaN at the first window, and `gram_change` and what follows
    from it also at the first full one, whose predecessor is short.
    """
    width = settings.window
    last = band.updates - 1
    parts = [_stack(band, np.array([end]), end + 1, end, settings) for end in range(1, min(width, last + 1))]
    if last >= width:
        parts.append(_stack(band, np.arange(width, last + 1), width, width, settings))
    return Windows(
        ends=np.concatenate([part.ends for part in parts]),
        updates=np.concatenate([part.updates for part in parts]),
        scalars={name: np.concatenate([part.scalars[name] for part in parts]) for name in parts[0].scalars},
        k_star=np.concatenate([part.k_star for part in parts]),
        k_star_weighted=np.concatenate([part.k_star_weighted for part in parts]),
        level_crossing=np.concatenate([part.level_crossing for part in parts]),
        singular_values=np.concatenate([_pad(part.singular_values, width) for part in parts]),
        overlap=np.concatenate([_pad(part.overlap, width) for part in parts]),
        stability=np.concatenate([_pad(part.stability, width) for part in parts]),
    )


def _stack(band: Band, ends: NDArray[np.int64], width: int, width_before: int, settings: Settings) -> Windows:
    """Windows of one width, whose predecessors all have `width_before` updates."""
    now = sp.spectrum(band, ends, width)
    k = sp.k_star(now.sigma, settings.numerical_floor)
    scalars = _scalars(band, now, k)
    undefined = np.full(len(ends), np.nan)
    change, overlap = undefined, np.full((len(ends), width), np.nan)
    stability = overlap
    scalars |= {"rotation_degrees": undefined, "gram_change_operator": undefined}
    crossing = np.zeros(len(ends), dtype=np.bool_)
    if width_before >= 2:
        before = sp.spectrum(band, ends - 1, width_before)
        cosines = sp.directions(band, before, now, settings.numerical_floor)
        overlap = np.abs(np.diagonal(cosines, axis1=1, axis2=2))
        scalars["rotation_degrees"] = sp.rotation_degrees(cosines, k)
        crossing = sp.level_crossings(cosines, k)
        if width_before == width:
            change = ad.gram_change(now, before)
            operator = ad.gram_change_operator(band, ends, width)
            scalars["gram_change_operator"] = operator
            stability = sp.stability(sp.rotation_bound(before.sigma, now.sigma, operator))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = change / np.trace(now.gram, axis1=1, axis2=2)
    scalars |= {"gram_change": change, "gram_change_relative": np.where(np.isfinite(relative), relative, np.nan)}
    return Windows(
        ends=ends,
        updates=np.full(len(ends), width),
        scalars=scalars,
        k_star=k,
        k_star_weighted=sp.k_star_weighted(now.sigma, settings.numerical_floor),
        level_crossing=crossing,
        singular_values=now.sigma,
        overlap=overlap,
        stability=stability,
    )


def _scalars(band: Band, now: sp.Spectrum, k: NDArray[np.int64]) -> dict[str, Matrix]:
    """What the spectrum of a window says by itself."""
    sigma, width = now.sigma, now.width
    second_gap = sigma[:, 1] - sigma[:, 2] if width >= 3 else np.full(len(sigma), np.nan)
    second_gap_eigen = sigma[:, 1] ** 2 - sigma[:, 2] ** 2 if width >= 3 else np.full(len(sigma), np.nan)
    energy = np.trace(now.gram, axis1=1, axis2=2)
    members = now.ends[:, None] - np.arange(width)
    with np.errstate(divide="ignore", invalid="ignore"):
        rounding_share = band.rounding_energy[members].sum(axis=1) / energy
    return {
        "gap": sp.gap(sigma, k),
        "gap_ratio": sp.gap_ratio(sigma, k),
        "g23": second_gap,
        "g23_eigen": second_gap_eigen,
        "noise_threshold_ratio": sp.noise_threshold_ratio(sigma, band.n_parameters),
        "effective_rank": sp.effective_rank(sigma),
        "update_norm": np.sqrt(np.clip(band.values[now.ends, 0], 0.0, None)),
        "drift": sp.drift(now),
        "rounding_share": np.where(energy > 0, rounding_share, np.nan),
    }


def _pad(values: Matrix, width: int) -> Matrix:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=np.nan)
