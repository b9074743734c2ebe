"""Telling that two checkpoints are the same by digests that stores keep, with nothing downloaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from integrations.tracker import CheckpointRef

_OF_BYTES: Final = ("md5:", "sha1:", "sha256:", "xxh128:")
"""How digests begin that no two contents share by chance. A CRC of 32 bits is none, and neither is a time or a size."""


def contents_told(checkpoints: Sequence[CheckpointRef]) -> tuple[str | None, ...]:
    """By the digests that the listing told; see `Tracker.contents`."""
    return tuple(content_of(ref, [file.digest for file in ref.files]) for ref in checkpoints)


def content_of(checkpoint: CheckpointRef, digests: Sequence[str | None]) -> str | None:
    """A digest of the whole checkpoint from those of its files; None where one of these tells nothing of the bytes.

    Of the names counts what decides how files are read: the ending of a single one, and what shards are called.
    """
    if any(digest is None or not digest.startswith(_OF_BYTES) for digest in digests):
        return None
    paths = [PurePosixPath(file.path) for file in checkpoint.files]
    names = [path.suffix for path in paths] if len(paths) == 1 else [path.name for path in paths]
    told = sorted(zip(names, (file.size for file in checkpoint.files), digests, strict=True))
    return hashlib.sha256(json.dumps(told).encode(errors="surrogatepass")).hexdigest()[:32]
