"""Bytes, counts and durations as people write them, and tracker text as a terminal may take it."""

from __future__ import annotations

from pydantic import ByteSize


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


def count_text(number: int, noun: str) -> str:
    """`number` things: `1 run`, `2,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain_text(text: str) -> str:
    """`text` on one line without control characters: names of runs are tracker text, and a terminal obeys escapes."""
    one_line = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in one_line)
