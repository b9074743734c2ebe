"""The fewest checkpoints with which a change can be reported, from the number of arrangements of the updates' blocks.

    python -m benchmarks.negatives.arrangements

spectral_edge/arrangements.py counts them. Where one of K tests alone stands out, q = EXCESS K p.
"""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np

from benchmarks.synthetic_updates import band_of_gram
from spectral_edge.arrangements import fewest_blocks, smallest_p
from spectral_edge.calibration import strongest
from spectral_edge.settings import Settings
from spectral_edge.transitions import EXCESS, KINDS, fewest_updates, scanner

RATE = 0.05


def blocks_for(tests: int, block: int, *, sides: int = 1, together: int = 1, rate: float = RATE) -> int:
    """Blocks from which on a change can have q <= `rate` over `tests` tests, `together` of which show it equally."""
    return fewest_blocks(rate * together / (EXCESS * tests), block, sides=sides)


def main() -> None:
    window = 10
    block = window // 2
    print(f"W = {window}, blocks of {block} updates; smallest p-value of a change in the middle, and q among 4 tests")
    for blocks in range(5, 13):
        p = [smallest_p(blocks, block, sides=sides) for sides in (1, 2)]
        print(f"  {blocks:2d} blocks, {blocks * block + 1:2d} checkpoints: {comb(blocks, blocks // 2):4d} divisions, "
              + ", ".join(f"p {x:.4f} q {4 * EXCESS * x:.3f}" for x in p))  # fmt: skip
    print(
        "\nCheckpoints needed for q <= 0.05 (directed / two-sided), by how many groups and stretches are tested at once"
    )
    for stretches in (1, 2, 3, 6, 12, 13, 24):
        tests, told = len(KINDS) * stretches, []
        for together in (1, 2, 4):
            found = [blocks_for(tests, block, sides=sides, together=together) for sides in (1, 2)]
            told.append(" / ".join(str(n * block + 1) for n in found))
        print(f"  {stretches:2d} ({tests:3d} tests): alone {told[0]:15s} in two tests {told[1]:15s} in four {told[2]}")
    print("\nThe product's own scan over all arrangements of a clear change, W = 4: median p by kind, against formula")
    for blocks, seeds in ((6, 20), (7, 4)):
        exact = np.median([exhaustive(blocks, 4, seed) for seed in range(seeds)], axis=0)
        formula = [smallest_p(blocks, 2, sides=sides) for sides in (1, 2)]
        print(f"  {blocks} blocks: " + ", ".join(f"{k} {p:.4f}" for k, p in zip(KINDS, exact, strict=True))
              + f"; formula {formula[0]:.4f} / {formula[1]:.4f}")  # fmt: skip
    print(f"\nfewest_updates({window}) of the product: {fewest_updates(window)}")
    print("\nThe clearest planted change (drift 30 x noise from the middle on), one group: smallest p by kind, 10 runs")
    for blocks in (9, 10, 12):
        found = [clear(blocks * block, seed) for seed in range(10)]
        print(f"  {blocks:2d} blocks: tests {found[0][1]}, median smallest q {np.median([q for q, _ in found]):.3f}")


def exhaustive(blocks: int, window: int, seed: int) -> np.ndarray:
    """Exact p-values of the four kinds: the product's own scan over all arrangements of a clear planted change."""
    block, gram = window // 2, clear_gram(blocks * (window // 2), blocks // 2 * (window // 2), seed)
    scan = scanner(gram, window)
    observed = scan(np.arange(len(gram))[None])[0].max(axis=1)
    shares = []
    for first in range(block):
        pieces = [piece for piece in np.split(np.arange(len(gram)), np.arange(first, len(gram), block)) if len(piece)]
        orders = np.array([np.concatenate(order) for order in permutations(pieces)])
        maxima = scan(orders).max(axis=2)
        shares.append((maxima >= observed - 1e-9).mean(axis=0))
    return np.asarray(np.mean(shares, axis=0))


def clear(updates: int, seed: int) -> tuple[float, int]:
    """Smallest q-value, and the number of tests, of a series with a change that nobody can miss."""
    found = strongest({"total": band_of_gram(clear_gram(updates, updates // 2, seed), 60)}, Settings())
    return found.q_value, found.tests


def clear_gram(updates: int, onset: int, seed: int) -> np.ndarray:
    """Independent noise, with a drift of thirty times its size from update `onset` on; Gram matrix."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((updates, 400))
    noise[onset:] += 30 * rng.standard_normal(400)
    return np.asarray(noise @ noise.T)


if __name__ == "__main__":
    main()
