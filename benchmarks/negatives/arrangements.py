"""The fewest checkpoints with which a change can be reported, from the number of arrangements of the updates' blocks.

    python -m benchmarks.negatives.arrangements

T = b h updates are cut into blocks of h = W // 2, the first of which begins at one of h places with equal chance. Where
that is the first update there are b whole blocks, else b - 1 and two pieces at the ends. Take the clearest change there
can be: m blocks of one sort, then b - m of the other. An arrangement is as striking as what was observed only where the
two sorts are apart again.

- Begin at the first update: that are m! (b - m)! of the b! arrangements, 1 / C(b, m).
- Another begin: the cut runs through one piece, which holds both sorts and fits between them in one place alone; the
  other b pieces, of b + 1, are apart in m! (b - m)! of (b + 1)! arrangements, 1 / ((b + 1) C(b, m)).

So the p-value is [s/h + (1 - 1/h) / (b + 1)] / C(b, m) where nothing but the change tells blocks apart: s = 1 for a
kind with a direction (gap opening or collapse) and 2 for one that is as large in reverse (level crossing, rotation; the
piece with both sorts does not fit in reverse); at best m = b // 2. Reported is q <= 0.05 over K tests; where one test
alone stands out, q = K p. And no p-value is below 1 / 1000, as 999 arrangements are tried. With noise, orders of one
division differ a little, and the p-value of a clear change lies between nearly none and that value.
"""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np

from benchmarks.synthetic_updates import band_of_gram
from spectral_edge.calibration import SMALLEST_Q, strongest
from spectral_edge.settings import Settings
from spectral_edge.transitions import KINDS, fewest_updates
from spectral_edge.transitions import _scan_of as scan_of

RATE = 0.05


def smallest_p(blocks: int, block: int, *, sides: int = 1, before: int | None = None) -> float:
    """The p-value over all arrangements that a clear change after `before` of `blocks` blocks can have.

    Args:
        blocks: b.
        block: h, updates in a block.
        sides: s, 1 or 2.
        before: m; None: b // 2, the best place.
    """
    apart = comb(blocks, blocks // 2 if before is None else before)
    return min(1.0, (sides / block + (1 - 1 / block) / (blocks + 1)) / apart)


def fewest_blocks(tests: int, block: int, *, sides: int = 1, together: int = 1, rate: float = RATE) -> int | None:
    """Blocks from which on a change can have q <= `rate` over `tests` tests, `together` of which show it equally.

    None where 999 permutations are too few for it, however long the run.
    """
    wanted = rate * together / tests
    if wanted < SMALLEST_Q:
        return None
    return next(b for b in range(2, 200) if smallest_p(b, block, sides=sides) <= wanted)


def main() -> None:
    window = 10
    block = window // 2
    print(f"W = {window}, blocks of {block} updates; smallest p-value of a change in the middle, and q among 4 tests")
    for blocks in range(5, 13):
        p = [smallest_p(blocks, block, sides=sides) for sides in (1, 2)]
        print(f"  {blocks:2d} blocks, {blocks * block + 1:2d} checkpoints: {comb(blocks, blocks // 2):4d} divisions, "
              + ", ".join(f"p {x:.4f} q {max(4 * x, 4 * SMALLEST_Q):.3f}" for x in p))  # fmt: skip
    print(
        "\nCheckpoints needed for q <= 0.05 (directed / two-sided), by how many groups and stretches are tested at once"
    )
    for stretches in (1, 2, 3, 6, 12, 13, 24):
        tests, told = len(KINDS) * stretches, []
        for together in (1, 2, 4):
            found = [fewest_blocks(tests, block, sides=sides, together=together) for sides in (1, 2)]
            told.append(" / ".join("never" if n is None else str(n * block + 1) for n in found))
        print(f"  {stretches:2d} ({tests:3d} tests): alone {told[0]:15s} in two tests {told[1]:15s} in four {told[2]}")
    print("\nThe product's own scan over all arrangements of a clear change, W = 4: median p by kind, against formula")
    for blocks, seeds in ((6, 20), (7, 4)):
        exact = np.median([exhaustive(blocks, 4, seed) for seed in range(seeds)], axis=0)
        formula = [smallest_p(blocks, 2, sides=sides) for sides in (1, 2)]
        print(f"  {blocks} blocks: " + ", ".join(f"{k} {p:.4f}" for k, p in zip(KINDS, exact, strict=True))
              + f"; formula {formula[0]:.4f} / {formula[1]:.4f}")  # fmt: skip
    print(f"\nfewest_updates({window}) of the product: {fewest_updates(window)}")
    print("\nThe clearest planted change (drift 30 x noise from the middle on), one group: smallest p by kind, 10 runs")
    for blocks in (6, 7, 8, 10):
        found = [clear(blocks * block, seed) for seed in range(10)]
        print(f"  {blocks:2d} blocks: tests {found[0][1]}, median smallest q {np.median([q for q, _ in found]):.3f}")


def exhaustive(blocks: int, window: int, seed: int) -> np.ndarray:
    """Exact p-values of the four kinds: the product's own scan over all arrangements of a clear planted change."""
    block, gram = window // 2, clear_gram(blocks * (window // 2), blocks // 2 * (window // 2), seed)
    scan = scan_of(window)
    observed = scan(gram[None])[0].max(axis=1)
    shares = []
    for first in range(block):
        pieces = [piece for piece in np.split(np.arange(len(gram)), np.arange(first, len(gram), block)) if len(piece)]
        orders = np.array([np.concatenate(order) for order in permutations(pieces)])
        maxima = scan(gram[orders[:, :, None], orders[:, None, :]]).max(axis=2)
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
