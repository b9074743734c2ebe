"""What commands share in talking to a terminal: one error a line on stderr, tables and JSON on stdout."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.columns import fitting
from pipelines.wording import plain_text
from spectral_edge.errors import NotFoundError, SpectralEdgeError, UsageError

_FORMAT = "SPECTRAL_EDGE_LOG_FORMAT"
"""The setting's own variable, so that child processes write the same."""
_PIPE_WIDTH = 100_000
"""Columns of a table that goes to a file or pipe: wide enough that nothing is folded or cut."""


def stdout_console() -> Console:
    """For results. `:x:` in a name stays what it is: rich would make an emoji of it."""
    return Console(emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr_console() -> Console:
    """For all else."""
    return Console(stderr=True, emoji=False)


def redraws(console: Console) -> bool:
    """Whether stderr can show a bar that moves. Colours may be forced upon a file; that makes no terminal of it."""
    return sys.stderr.isatty() and not console.is_dumb_terminal


def exit_code(error: SpectralEdgeError) -> int:
    """2 when the request names what cannot be or does not exist, 1 otherwise."""
    return 2 if isinstance(error, UsageError | NotFoundError) else 1


def use_log_format(log_format: str | None) -> None:
    """Print errors as objects of JSON from now on, where `log_format` is json; None changes nothing."""
    if log_format is not None:
        os.environ[_FORMAT] = log_format


def print_error(text: str) -> None:
    """One line on stderr, whatever `text` holds."""
    if os.environ.get(_FORMAT) == "json":
        from pipelines.json_log import JsonLog  # noqa: PLC0415 - `--help` needs none of what it imports

        JsonLog(sys.stderr).write("error", "error", text)
        return
    print_line(stderr_console(), "error:", "bold red", text)


def print_warning(text: str) -> None:
    """One line on stderr that a person should read, though all goes on."""
    _say("warning", "bold yellow", text)


def print_note(text: str) -> None:
    """One line on stderr that helps to read what is on stdout."""
    _say("note", "yellow", text)


def _say(label: Literal["warning", "note"], style: str, text: str) -> None:
    if os.environ.get(_FORMAT) == "json":
        from pipelines.json_log import JsonLog  # noqa: PLC0415 - as above

        JsonLog(sys.stderr).write("warning" if label == "warning" else "info", label, text)
        return
    print_line(stderr_console(), f"{label}:", style, text)


def print_line(console: Console, label: str, style: str, text: str) -> None:
    """`label` in `style` and `text` on one line of `console`."""
    console.print(Text.assemble((label, style), " ", plain_text(text)), soft_wrap=True)


JSON_VERSION: Final = 1
"""Of the documents of `--json`. Raised when a key goes or changes its meaning; not by a key that is added."""


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on stdout, which says its version."""
    told = {"schema_version": JSON_VERSION, **value}
    sys.stdout.write(json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n")


def print_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of a table on stdout, as CSV with a header; a list is written as JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell_csv(row[name]) for name in names] for row in rows)


def _cell_csv(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def print_table(names: Sequence[str], rows: Sequence[Mapping[str, Any]], *, first: Sequence[str] = ()) -> None:
    """Rows of a table on stdout for people; colours only on a terminal.

    A terminal gets the columns that it has room for, texts folded, and is told on stderr which ones it has not. A file
    or pipe gets all of them, and nothing is folded or cut.

    Args:
        names: The columns.
        rows: What is in them.
        first: Columns by importance, where that is not the order from left to right.
    """
    cells = {name: [plain_text(_cell_text(row[name])) for row in rows] for name in names}
    console = stdout_console()
    shown = fitting(cells, console.width, first)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in shown:
        number = any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in rows)
        table.add_column(Text(plain_text(name)), justify="right" if number else "left", overflow="fold")
    for index in range(len(rows)):
        table.add_row(*(Text(cells[name][index]) for name in shown))
    console.print(table)
    if left := [name for name in cells if name not in shown]:
        print_note(
            f"{len(left)} of {len(cells)} columns do not fit into {console.width}: {', '.join(left)}. "
            "Next: a wider terminal, `| cat` or --json shows them."
        )


def _cell_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_cell_text(entry) for entry in value)
    return str(value)
