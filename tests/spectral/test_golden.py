"""Figures of real grokking runs, computed by other code (see tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spectral_edge.settings import Settings
from spectral_edge.windows import windows
from tests.spectral.trajectories import band_of_gram

GOLDEN = Path(__file__).parent.parent / "golden"
PRINTED = 5e-7
"""The figures were printed with six decimals."""


@pytest.mark.parametrize(
    ("group", "sigma", "ratio", "leading_share"),
    [
        ("K_total", (2.345871, 0.694393, 0.447652), 3.378304, 0.785164),
        ("K_attn", (0.923022, 0.399082, 0.278226), 2.312861, 0.592394),
    ],
)
def test_window_of_updates_10_to_19(group: str, sigma: tuple[float, ...], ratio: float, leading_share: float) -> None:
    with np.load(GOLDEN / "golden_B_wd1_s42_S40.npz") as golden:
        gram = golden[group]
    found = windows(band_of_gram(gram, 30, 1), Settings())
    row = int(np.flatnonzero(found.ends == 19)[0])
    np.testing.assert_allclose(found.singular_values[row, :3], sigma, rtol=1e-6, atol=PRINTED)
    np.testing.assert_allclose(found.scalars["gap_ratio"][row], ratio, rtol=1e-6, atol=PRINTED)
    energy = found.singular_values[row] ** 2
    np.testing.assert_allclose(energy[0] / energy.sum(), leading_share, rtol=1e-6, atol=PRINTED)
    assert found.k_star[row] == 1


@pytest.mark.parametrize("run", ["wd1", "wd0"])
def test_all_windows_against_the_full_gram(run: str) -> None:
    with np.load(GOLDEN / f"golden_B_{run}_s42_S40.npz") as golden:
        gram = golden["K_total"]
    found = windows(band_of_gram(gram, 30, 1), Settings())
    for row, end in enumerate(found.ends):
        first = max(0, end - 9)
        sub = gram[first : end + 1, first : end + 1]
        exact = np.sqrt(np.clip(np.linalg.eigvalsh(sub)[::-1], 0, None))
        np.testing.assert_allclose(found.singular_values[row, : len(exact)], exact, rtol=1e-9)
        if end >= 10:
            change = np.linalg.norm(sub - gram[first - 1 : end, first - 1 : end])
            np.testing.assert_allclose(found.scalars["gram_change"][row], change, rtol=1e-9)
