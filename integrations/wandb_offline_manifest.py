"""Which files an artifact holds, as the log of a W&B run or a file beside it says. All of it is untrusted."""

from __future__ import annotations

import gzip
import json
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from integrations.wandb_log import Record, UnreadableLogError
from spectral_edge.errors import CheckpointFormatError

_ALGORITHM: Final = "alg"
"""Where an entry says what its digest is; those without have MD5."""
_LONGEST_LINE: Final = 1 << 16
_MOST_ENTRIES: Final = 2_000_000


@dataclass(frozen=True)
class ArtifactEntry:
    """One file of an artifact as its manifest names it; `digest` is Base64, of a reference whatever its store tells."""

    path: str
    size: int
    digest: str
    algorithm: str
    local_path: str
    ref: str


def entry_of(entry: Record) -> ArtifactEntry:
    """One entry of a manifest in the log."""
    algorithm = next((_parsed(extra.value_json) for extra in entry.extra if extra.key == _ALGORITHM), "MD5")
    return ArtifactEntry(entry.path, entry.size, entry.digest, str(algorithm), entry.local_path, entry.ref)


def listed_entries(manifest: Path, run: str) -> Iterator[ArtifactEntry]:
    """The entries of a manifest that was too long for the log: JSON lines, packed.

    Raises:
        CheckpointFormatError: The file is damaged.
        OSError: It is gone, or cannot be read.
    """
    if not is_regular(manifest):
        raise FileNotFoundError(2, "The list of the artifact's files is gone", str(manifest))
    try:
        with gzip.open(manifest, "rt", encoding="utf-8") as lines:
            for _ in range(_MOST_ENTRIES):
                line = lines.readline(_LONGEST_LINE)
                if not line:
                    return
                yield _entry_of_line(line)
    except (EOFError, UnicodeDecodeError, zlib.error, gzip.BadGzipFile, UnreadableLogError) as error:
        raise CheckpointFormatError(
            f"the list of the artifact's files is damaged: {error}.", run=run, file=str(manifest)
        ) from error


def is_regular(path: Path) -> bool:
    """Whether a file lies at `path` that is no pipe and no device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _entry_of_line(line: str) -> ArtifactEntry:
    entry = _parsed(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise UnreadableLogError(f"a line is no entry of a manifest: {line[:40]!r}")
    size, extra = entry.get("size"), entry.get("extra")
    algorithm = extra.get(_ALGORITHM, "MD5") if isinstance(extra, dict) else "MD5"
    digest, local_path, ref = (str(entry.get(name) or "") for name in ("digest", "local_path", "ref"))
    return ArtifactEntry(entry["path"], size if type(size) is int else 0, digest, str(algorithm), local_path, ref)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
