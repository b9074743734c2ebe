"""What a person probably meant by a word that is none of those known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_MOST: Final = 20
"""So many words can be read; of more, only close ones are told."""


def meant(word: str, known: Iterable[str]) -> str:
    """The next step of an error: the words closest to `word`, or else all of them where they are few."""
    words = sorted(set(known))
    by_lower = {name.lower(): name for name in words}
    if close := get_close_matches(word.lower(), by_lower, n=3):
        return f"did you mean {' or '.join(by_lower[one] for one in close)}?"
    return f"name one of {', '.join(words)}." if words and len(words) <= _MOST else ""
