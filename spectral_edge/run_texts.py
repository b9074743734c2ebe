"""Runs in plain text, as a Python prompt shows them. Text from trackers has no say over the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from spectral_edge.tables import RunTables

CHANGES_SHOWN: Final = 10
_WIDTH: Final = 110


def run_text(run: RunTables, verdict: str) -> str:
    """One run: what it is, the verdict, its changes by onset, and how much there is to be warned of."""
    return "\n".join(_run_lines(run, verdict))


def _run_lines(run: RunTables, verdict: str) -> Iterator[str]:
    row = run.summary
    steps = "" if row["step_first"] is None else f", steps {row['step_first']:,} to {row['step_last']:,}"
    yield f"{plain(run.key.run_name)} of {plain(run.key.project)}: {row['checkpoints'] or 0} checkpoints{steps}"
    yield from textwrap.wrap(plain(verdict), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    if row["error"]:
        yield from textwrap.wrap(plain(row["error"]), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    changes = sorted(run.transitions.to_pylist(), key=lambda one: (one["onset_step"], one["group"], one["kind"]))
    if changes:
        names = ("change", "group", "onset_step", "onset_low", "onset_high", "q_value")
        rows = [(one["kind"], *(one[name] for name in names[1:])) for one in changes[:CHANGES_SHOWN]]
        yield textwrap.indent(table_text(names, rows), "  ")
    if len(changes) > CHANGES_SHOWN:
        yield f"  and {len(changes) - CHANGES_SHOWN} more in .transitions"
    if warnings := len(row["warnings"] or ()):
        yield f"  {warnings} {'warning' if warnings == 1 else 'warnings'} in .warnings"


def table_text(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under their names, numbers to the right."""
    cells = [[*names], *([cell_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    right = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(names))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def cell_text(value: Any) -> str:
    """One value of a table, on one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else plain(str(value))


def plain(text: str) -> str:
    """`text` on one line without control characters."""
    one_line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in one_line)


def named(row: Mapping[str, Any]) -> str:
    """A run as messages name it, by a row that has its keys."""
    return f"{row['run_name']!r} ({row['tracker']}, project {row['project']!r}, id {row['run_id']!r})"
