"""The spectrum of every window, from the band alone (theory 3 and 4).

Windows are indexed by the update they end at. All functions take stacks of windows of one width, so that a run of
thousands of checkpoints is a few calls of LAPACK on small matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from spectral_edge.band import Band, Matrix

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Spectrum:
    """Windows of one width w: n of them.

    Attributes:
        ends: Index of the last update of each window, shape (n,).
        sigma: Singular values of the trajectory matrix, descending, shape (n, w), parameter units.
        left: Left singular vectors u_j as columns, shape (n, w, w).
        gram: The Gram matrices, shape (n, w, w), parameter units squared.
    """

    ends: Indices
    sigma: Matrix
    left: Matrix
    gram: Matrix

    @property
    def width(self) -> int:
        """w, updates in each window."""
        return int(self.sigma.shape[1])


def spectrum(band: Band, ends: Indices, width: int) -> Spectrum:
    """Singular values and left vectors of the windows of `width` updates that end at updates `ends`.

    From `eigh` of the Gram matrix, negative eigenvalues clipped at 0 (theory 3; paper, Definition 3.1).

    Raises:
        IndexError: A window that begins before the first update, or is wider than the band's lags allow.
    """
    gram = band.gram(ends, width)
    eigenvalues, vectors = np.linalg.eigh(gram)
    sigma = np.sqrt(np.clip(eigenvalues[:, ::-1], 0.0, None))
    return Spectrum(ends, sigma, vectors[:, :, ::-1], gram)


def resolved(sigma: Matrix, floor: float) -> Indices:
    """How many leading singular values lie at or above `floor` x sigma_1: shape (n,); 0 where nothing moved."""
    return np.asarray(((sigma >= floor * sigma[:, :1]) & (sigma > 0)).sum(axis=1), dtype=np.int64)


def k_star(sigma: Matrix, floor: float) -> Indices:
    """Position of the largest ratio of neighbours, 1-indexed, shape (n,) (theory 3; paper, Definition 3.1).

    Ratios below the numerical floor are noise over noise and do not count. 0 where fewer than two singular values
    are resolved, so that no ratio exists.
    """
    return _argmax_ratio(_ratios(sigma), sigma, floor)


def k_star_weighted(sigma: Matrix, floor: float) -> Indices:
    """Argmax of (sigma_j / sum sigma)(sigma_j / sigma_j+1), 1-indexed, shape (n,) (theory 3; paper, Table 7)."""
    share = sigma / np.where(sigma.sum(axis=1) > 0, sigma.sum(axis=1), 1.0)[:, None]
    return _argmax_ratio(share[:, :-1] * _ratios(sigma), sigma, floor)


def at_k(values: Matrix, k: Indices) -> Matrix:
    """The entry of each row of `values` at 1-indexed position `k`; NaN where k is 0. Shapes (n, w), (n,) -> (n,)."""
    picked = np.take_along_axis(values, np.maximum(k - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(k > 0, picked, np.nan)


def gap(sigma: Matrix, k: Indices) -> Matrix:
    """sigma_k - sigma_(k+1), shape (n,), parameter units; NaN where k is 0."""
    return at_k(sigma[:, :-1] - sigma[:, 1:], k)


def gap_ratio(sigma: Matrix, k: Indices) -> Matrix:
    """sigma_k / sigma_(k+1), shape (n,); NaN where k is 0."""
    return at_k(_ratios(sigma), k)


def effective_rank(sigma: Matrix) -> Matrix:
    """Exp of the entropy of sigma^2 / sum sigma^2, shape (n,), between 1 and w; NaN where nothing moved."""
    energy = sigma**2
    total = energy.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = energy / total
        entropy = -np.where(share > 0, share * np.log(share), 0.0).sum(axis=1)
    return np.where(total[:, 0] > 0, np.exp(entropy), np.nan)


def drift(windows: Spectrum) -> Matrix:
    """||sum of the window's updates|| / sum of their norms, shape (n,), in [0, 1]; NaN where nothing moved."""
    norms = np.sqrt(np.clip(np.diagonal(windows.gram, axis1=1, axis2=2), 0.0, None)).sum(axis=1)
    length = np.sqrt(np.clip(windows.gram.sum(axis=(1, 2)), 0.0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms > 0, np.minimum(length / norms, 1.0), np.nan)


def noise_threshold_ratio(sigma: Matrix, n_parameters: int) -> Matrix:
    """sigma_W / d_crit of BBP theory, shape (n,) (theory 3).

    nu^2 = mean of lambda_j over j > W / 2, divided by P; d_crit = nu (P (W - 1))^(1/4).
    """
    width = sigma.shape[1]
    nu = np.sqrt((sigma[:, width // 2 :] ** 2).mean(axis=1) / n_parameters)
    critical = nu * (n_parameters * (width - 1)) ** 0.25
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(critical > 0, sigma[:, -1] / critical, np.nan))


def rotation_bound(before: Matrix, now: Matrix, change: Matrix) -> Matrix:
    """||dC||_F/delta_j >= sin(theta_j) for C = X'X, for paired windows of one width w (theory 4): shape (n, w).

    delta_j is the distance of lambda_j(t) to the *other* eigenvalues of C(t-1), zero among them, whose eigenvectors are
    all directions that no update of that window has. With these, the inequality holds exactly (Davis and Kahan 1970);
    with distances within one window alone it would need a factor of 2 (Yu, Wang and Samworth 2015), and with the
    elementwise change of G = XX', which compares other updates with each other, it does not hold at all.

    Args:
        before: Singular values of windows t - 1, shape (n, w).
        now: Singular values of windows t, shape (n, w).
        change: ||C(t) - C(t-1)||_F (spectral_edge.adiabatic.gram_change_operator), shape (n,).

    Returns:
        NaN where `change` is, and infinity where delta_j is 0.
    """
    distance = np.abs(now[:, :, None] ** 2 - before[:, None, :] ** 2)
    own = np.arange(now.shape[1])
    distance[:, own, own] = np.inf
    delta = np.minimum(distance.min(axis=2), now**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = change[:, None] / delta
    return np.where(np.isnan(change)[:, None], np.nan, np.nan_to_num(bound, nan=np.inf, posinf=np.inf))


def stability(bound: Matrix) -> Matrix:
    """max(0, 1 - bound_j^2) <= |<v_j(t-1), v_j(t)>|^2, of a bound on sin(theta_j) of the same shape (theory 4)."""
    return np.asarray(np.clip(1.0 - bound**2, 0.0, None))


def directions(band: Band, before: Spectrum, after: Spectrum, floor: float) -> Matrix:
    """<v_i(before), v_j(after)> for paired windows: shape (n, w_before, w_after) (theory 4).

    From u_i' X_before X_after' u_j / (sigma_i sigma_j), all inside the band. NaN where either direction lies below
    the numerical floor, and so is noise.

    Raises:
        IndexError: The two windows together reach further than the band's lags.
    """
    cross = band.cross_gram(before.ends, before.width, after.ends, after.width)
    projected = before.left.transpose(0, 2, 1) @ cross @ after.left
    scale = _resolved_or_nan(before.sigma, floor)[:, :, None] * _resolved_or_nan(after.sigma, floor)[:, None, :]
    return np.asarray(np.clip(projected / scale, -1.0, 1.0))


def rotation_degrees(cosines: Matrix, k: Indices) -> Matrix:
    """Largest principal angle between the leading k directions of paired windows, shape (n,), degrees (theory 4).

    NaN where k is 0 or one of the directions is unresolved.
    """
    found = np.full(len(k), np.nan)
    for window, leading in enumerate(k):
        block = cosines[window, :leading, :leading]
        if leading > 0 and block.shape == (leading, leading) and np.isfinite(block).all():
            smallest = np.linalg.svd(block, compute_uv=False)[-1]
            found[window] = np.degrees(np.arccos(min(1.0, smallest)))
    return found


def level_crossings(cosines: Matrix, k: Indices) -> NDArray[np.bool_]:
    """Whether the best match of some v_j(before), j <= k, is not v_j(after), shape (n,) (theory 4).

    Best match: Hungarian assignment on |<v_i, v_j>| over all directions; unresolved ones match nothing.
    """
    weights = np.nan_to_num(np.abs(cosines), nan=0.0)
    crossed = np.zeros(len(k), dtype=np.bool_)
    for window, leading in enumerate(k):
        rows, columns = linear_sum_assignment(weights[window], maximize=True)
        crossed[window] = bool(np.any((rows != columns) & (rows < leading)))
    return crossed


def _resolved_or_nan(sigma: Matrix, floor: float) -> Matrix:
    return np.where((sigma >= floor * sigma[:, :1]) & (sigma > 0), sigma, np.nan)


def _ratios(sigma: Matrix) -> Matrix:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sigma[:, :-1] / sigma[:, 1:])


def _argmax_ratio(score: Matrix, sigma: Matrix, floor: float) -> Indices:
    count = resolved(sigma, floor)
    usable = np.arange(1, sigma.shape[1])[None, :] < count[:, None]
    best = np.where(usable, score, -np.inf).argmax(axis=1) + 1
    return np.asarray(np.where(count >= 2, best, 0), dtype=np.int64)
