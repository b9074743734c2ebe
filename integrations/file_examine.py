"""Whether folders may be written to, without writing to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from integrations.finding import Finding


def folder_finding(name: str, folder: Path) -> Finding:
    """Whether `folder`, or the nearest one above it that exists, may be written to: its mode, and how it is mounted.

    A quota, or a server that shares the folder, may still refuse.
    """
    place = next((it for it in (folder.absolute(), *folder.absolute().parents) if it.is_dir()), Path("/"))
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return Finding(name, "problem", f"{place} is mounted read-only.", "mount it for writing, or --annotate none.")
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "check owner and mode, or audit with --annotate none."
        return Finding(name, "problem", f"{place} is not writable by this user.", advice)
    if shutil.disk_usage(place).free == 0:
        return Finding(name, "problem", f"{place} has no free space.", "free some.")
    return Finding(name, "ok", f"{place} is writable.")
