"""How small a p-value can get: the number of ways in which a stretch's blocks can be arranged (theory 9).

T = b h updates are cut into blocks of h = W // 2, the first of which begins at one of h places with equal chance. Where
that is the first update there are b whole blocks, else b - 1 and two pieces at the ends. Take the clearest change there
can be: m blocks of one sort, then b - m of the other. An arrangement is as striking as what was observed only where the
two sorts are apart again.

- Begin at the first update: that are m! (b - m)! of the b! arrangements, 1 / C(b, m).
- Another begin: the cut runs through one piece, which holds both sorts and fits between them in one place alone; the
  other b pieces, of b + 1, are apart in m! (b - m)! of (b + 1)! arrangements, 1 / ((b + 1) C(b, m)).

So the p-value is [s/h + (1 - 1/h) / (b + 1)] / C(b, m) where nothing but the change tells blocks apart: s = 1 for a
kind with a direction (gap opening or collapse) and 2 for one that is as large in reverse (level crossing, rotation; the
piece with both sorts does not fit in reverse); at best m = b // 2. With noise, orders of one division differ a little,
and the p-value of a clear change lies between nearly none and that value.
"""

from __future__ import annotations

from itertools import count
from math import comb


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


def fewest_blocks(p_value: float, block: int, *, sides: int = 1) -> int:
    """Blocks from which on a clear change in the middle can have a p-value of at most `p_value`, above 0."""
    return next(b for b in count(2) if smallest_p(b, block, sides=sides) <= p_value)
