"""Asking a person before something that is hard to undo. Where nobody can be asked, it takes `--yes`."""

from __future__ import annotations

import sys

import typer

from pipelines.terminal import print_line, stderr_console
from spectral_edge.errors import UsageError


def require_someone(doing: str, *, otherwise: str = "add --yes.") -> None:
    """Refuse to go on where no terminal is there to ask on.

    Args:
        doing: What would be asked about: `this replaces the file x`.
        otherwise: What to do instead.

    Raises:
        UsageError: There is none.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{doing}, and there is no terminal to ask on.", next_step=otherwise)


def ask(question: str, *, if_not: str) -> None:
    """Ask on the terminal; anything but yes ends the program with exit code 1, after it has said `if_not`."""
    # Not typer's own question, which puts a space on stdout, where JSON may be wanted.
    console = stderr_console()
    console.print(f"{question} [y/N] ", end="", markup=False, highlight=False, soft_wrap=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        print_line(console, "stopped:", "bold", if_not)
        raise typer.Exit(1)
