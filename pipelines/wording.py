"""Bytes, counts, durations and commands as people write them, and tracker text as a terminal may take it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import ByteSize

_MARKUP: Final = re.compile(
    r"[\\`*\[\]<>&#|~@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.|^[-+=]|^!(?=\[)", re.IGNORECASE
)
_LABEL: Final = re.compile(r"[\\\[\]`<]")
_LONGEST: Final = 400


def size_text(size: int) -> str:
    """`size` bytes: `0 bytes`, `20.0 GB`."""
    if size < 1000:
        return f"{size} bytes"
    return ByteSize(size).human_readable(decimal=True, separator=" ")


def minutes_text(seconds: float) -> str:
    """A duration: `under a minute`, `12 minutes`, `3.5 hours`."""
    minutes = seconds / 60
    if minutes < 1:
        return "under a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def age_text(age: timedelta) -> str:
    """How long ago: `12 minutes`, `3.5 hours`, `3 days`."""
    return f"{age.days} days" if age.days > 1 else minutes_text(age.total_seconds())


def moment_text(isoformat: str) -> str:
    """A time in UTC to the minute: `2026-01-31 12:00 UTC`."""
    return f"{isoformat[:16].replace('T', ' ')} UTC"


def count_text(number: int, noun: str) -> str:
    """`number` things: `1 run`, `2,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain_text(text: str) -> str:
    """`text` on one line without control characters: names of runs are tracker text, and a terminal obeys escapes."""
    one_line = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in one_line)


def markdown_text(text: str) -> str:
    """`text` as Prefect's pages show it literally, on one line; they take cells of tables for Markdown too.

    With backslashes, as these pages show entities such as `&#42;` as they stand.
    """
    line = plain_text(text)
    return _MARKUP.sub(r"\\\g<0>", line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…")


def label_text(text: str) -> str:
    """`text` between the brackets of a link, where Prefect's pages show all as it stands, backslashes too."""
    return _LABEL.sub(r"\\\g<0>", plain_text(text)[:_LONGEST])


def command_text(name: str) -> str:
    """How to call a command of this environment from the user's shell, in the working directory."""
    beside = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    if on_path is not None and Path(on_path).resolve() == beside.resolve():
        return name
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
