"""Our section in a note that belongs to somebody else: put in, replaced, taken out, and nothing else changed."""

from __future__ import annotations

import re
from typing import Final

NOTE_BEGIN: Final = "<!-- spectral-edge:begin -->"
NOTE_END: Final = "<!-- spectral-edge:end -->"
# The innermost pair of marks: when someone has deleted one mark of an older section, the text after it is theirs.
_SECTION: Final = re.compile(
    f"{re.escape(NOTE_BEGIN)}(?:(?!{re.escape(NOTE_BEGIN)}).)*?{re.escape(NOTE_END)}", re.DOTALL
)
_GAP: Final = "\n\n"


def note_with_section(note: str, section: str) -> str:
    """`note` with our section replaced by `section`, or added at the end; all other text byte for byte the same."""
    ours = f"{NOTE_BEGIN}\n{section}\n{NOTE_END}"
    found = _SECTION.search(note)
    if found:
        return note[: found.start()] + ours + note[found.end() :]
    return f"{note}{_GAP}{ours}" if note else ours


def note_without_section(note: str) -> str:
    """`note` without our section and the empty line that came with it; all other text byte for byte the same."""
    while found := _SECTION.search(note):
        before = note[: found.start()]
        if len(before) > len(_GAP):  # where nothing but an empty line stands before the section, it was there first
            before = before.removesuffix(_GAP)
        note = before + note[found.end() :]
    return note
