"""Families of updates without any change, and one with a planted change, as Gram matrices (theory 9)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from spectral_edge.band import Band, Matrix

Rng = np.random.Generator
GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "golden_B_wd1_s42_S40.npz"


def autoregressive(count: int, correlation: float, rng: Rng, dimensions: int = 500, power: float = 0.0) -> Matrix:
    """Stationary AR(1) updates, shape (count, dimensions); variance of direction i falls as i^-power."""
    updates = rng.standard_normal((count, dimensions))
    for row in range(1, count):
        updates[row] = correlation * updates[row - 1] + np.sqrt(1 - correlation**2) * updates[row]
    return np.asarray(updates * np.arange(1, dimensions + 1) ** (-power / 2))


def constant_drift(count: int, strength: float, rng: Rng) -> Matrix:
    """The same update again and again, plus noise; `strength` is its norm over that of the noise."""
    updates = autoregressive(count, 0.0, rng)
    return updates + strength * rng.standard_normal(updates.shape[1])


def shuffled_run(count: int, rng: Rng) -> Matrix:
    """The Gram matrix of a real grokking run's updates, drawn without replacement in random order."""
    with np.load(GOLDEN) as golden:
        gram = golden["K_total"]
    order = rng.permutation(len(gram))[:count]
    return np.asarray(gram[np.ix_(order, order)])


def band_of_gram(gram: Matrix, lags: int) -> Band:
    """The band of a full Gram matrix, shape (T, T)."""
    count = len(gram)
    values = np.zeros((count, lags + 1))
    for lag in range(min(lags, count - 1) + 1):
        values[lag:, lag] = np.diagonal(gram, -lag)
    return Band(values, 1, np.zeros(count))


def gram_of(updates: Matrix) -> Matrix:
    """X X', shape (T, T)."""
    return np.asarray(updates @ updates.T)


NULLS: dict[str, Callable[[int, Rng], Matrix]] = {
    "random walk (independent updates)": lambda n, rng: gram_of(autoregressive(n, 0.0, rng)),
    "random walk, anisotropic": lambda n, rng: gram_of(autoregressive(n, 0.0, rng, 2000, 1.0)),
    "stationary AR(1), 0.5": lambda n, rng: gram_of(autoregressive(n, 0.5, rng)),
    "stationary AR(1), 0.8, anisotropic": lambda n, rng: gram_of(autoregressive(n, 0.8, rng, 2000, 1.0)),
    "stationary AR(1), 0.95": lambda n, rng: gram_of(autoregressive(n, 0.95, rng)),
    "constant drift, 0.3": lambda n, rng: gram_of(constant_drift(n, 0.3, rng)),
    "constant drift, 1": lambda n, rng: gram_of(constant_drift(n, 1.0, rng)),
    "constant drift, 3": lambda n, rng: gram_of(constant_drift(n, 3.0, rng)),
    "shuffled real run": shuffled_run,
}


def planted(count: int, onset: int, strength: float, rng: Rng) -> Matrix:
    """Independent anisotropic updates to which a constant drift is added from update `onset` on; Gram matrix."""
    updates = autoregressive(count, 0.0, rng, 2000, 1.0)
    direction = rng.standard_normal(updates.shape[1])
    norm = np.linalg.norm(updates, axis=1).mean()
    updates[onset:] += strength * norm * direction / np.linalg.norm(direction)
    return gram_of(updates)
