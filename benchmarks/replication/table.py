"""A table: as text for people, as CSV for programs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """Rows that share their columns. `published` says what the paper has, `note` how to read the rows."""

    name: str
    title: str
    published: str
    rows: Sequence[Row]
    note: str = ""

    def text(self, rows: Sequence[Row] | None = None) -> str:
        """Aligned columns under the title."""
        shown = self.rows if rows is None else rows
        head = "\n".join([self.title, f"  published: {self.published}", *([f"  {self.note}"] if self.note else [])])
        if not shown:
            return f"{head}\n  no run to tell this from\n"
        names = list(shown[0])
        cells = [names, *([_cell(row[name]) for name in names] for row in shown)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        return "\n".join([head, *(f"  {line.rstrip()}" for line in lines), ""])

    def write(self, folder: Path) -> None:
        """`folder`/NAME.csv."""
        with (folder / f"{self.name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0]) if self.rows else ["empty"], lineterminator="\n")
            writer.writeheader()
            writer.writerows([{name: _cell(value) for name, value in row.items()} for row in self.rows])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return str(value)
