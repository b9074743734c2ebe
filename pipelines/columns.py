"""Which columns of a table a terminal has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len

FOLDED: Final = 24
"""Narrower than this no column is folded: it is left out instead."""
_BETWEEN: Final = 2


def fitting(cells: Mapping[str, Sequence[str]], width: int, first: Sequence[str] = ()) -> list[str]:
    """The names of the columns that fit, in their own order; the first one of `first`, or of all, always does.

    Args:
        cells: The texts of each column by its name, in the order of the table.
        width: Columns of the terminal.
        first: Names by importance; all others come after them, from left to right.
    """
    wanted = [*(name for name in first if name in cells), *(name for name in cells if name not in first)]
    kept: set[str] = set()
    for name in wanted:
        needed = min(FOLDED, max(map(cell_len, (name, *cells[name]))))
        room = needed if not kept else needed + _BETWEEN
        if kept and room > width:
            break  # not a less important one in its place: what is shown would depend on chance
        kept.add(name)
        width -= room
    return [name for name in cells if name in kept]
