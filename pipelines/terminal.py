"""What commands share in talking to a terminal: one error a line on stderr, tables and JSON on stdout."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

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


def print_line(console: Console, label: str, style: str, text: str) -> None:
    """`label` in `style` and `text` on one line of `console`."""
    console.print(Text.assemble((label, style), " ", plain_text(text)), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what JSON has no number for becomes null."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of a table on stdout, as CSV with a header; a list is written as JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell_csv(row[name]) for name in names] for row in rows)


def _cell_csv(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def print_table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of a table on stdout for people: nothing is cut; colours only on a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        number = any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in rows)
        table.add_column(Text(plain_text(name)), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain_text(_cell_text(row[name]))) for name in names))
    stdout_console().print(table)


def _cell_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_cell_text(entry) for entry in value)
    return str(value)
