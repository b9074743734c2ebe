"""Downloading what is needed of a checkpoint in .safetensors: the heads of its files, then ranges of their bytes.

A head tells which bytes a tensor is made of. The bytes come to lie where they are in the file; between them the file
has holes, which take no room on most file systems.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from integrations.download import RANGE, Landing, Source, Stretch
from integrations.download_streams import Streams
from integrations.file_errors import file_errors
from integrations.tracker import Needed, PartFetched

HEAD: Final = 16 << 10
"""Bytes that are asked for first: few files of a large model have a longer head."""

_PREFIX: Final = 8
_LONGEST_HEAD: Final = 100_000_000
_GAP: Final = 64 << 10
"""Bytes that are fetched for nothing rather than ask twice."""

_SUFFIX: Final = ".safetensors"
_WHOLE: Final = ".json"
"""The index beside the files, which is always needed."""


def can_be_parts(paths: Iterable[str]) -> bool:
    """Whether the files of these names are ones whose heads tell where what is."""
    return all(path.endswith((_SUFFIX, _WHOLE)) for path in paths)


def fetched_part(
    home: Path, sources: Sequence[Source], paths: Sequence[Path], streams: Streams, needed: Needed
) -> PartFetched | None:
    """Bring of each source what `needed` says to its path below `home`.

    None, and no `home`, where only whole files can be brought.

    Raises:
        CheckpointError: The head of a file is damaged.
        FetchInterruptedError: The connection broke again and again, or a file was replaced.
        AccessDeniedError, NotFoundError, DiskFullError: As they say.
    """
    fetched = _fetched(sources, paths, streams, needed)
    if fetched is None:
        shutil.rmtree(home)
    return fetched


def _fetched(sources: Sequence[Source], paths: Sequence[Path], streams: Streams, needed: Needed) -> PartFetched | None:
    if not all(source.in_ranges or source.wanted.path.endswith(_WHOLE) for source in sources):
        return None
    landings = [Landing(source, path, streams, source.wanted.size) for source, path in zip(sources, paths, strict=True)]
    files = [_PartOfFile(landing) for landing in landings]
    streams.run(_PartOfFile.fetch_head, files)
    if not all(file.is_told_apart for file in files):
        return None
    wanted = needed(paths)
    if wanted is None:
        return None
    missing = (file.missing(wanted.get(path, ())) for file, path in zip(files, paths, strict=True))
    streams.run(Stretch.fill, chain.from_iterable(missing))
    version = hashlib.sha256(repr([landing.etag for landing in landings]).encode()).hexdigest()
    return PartFetched(tuple(paths), sum(file.n_bytes for file in files), version)


class _PartOfFile:
    """A file whose first `head` bytes are there, and of which `n_bytes` in all are, or are on their way."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._head = 0
        self.n_bytes = 0

    @property
    def is_told_apart(self) -> bool:
        """Whether the store would show it if another version came in place of this one."""
        return self._landing.etag is not None or self._head == self._size

    @property
    def _size(self) -> int:
        return self._landing.source.wanted.size

    def fetch_head(self) -> None:
        """Fetch the head, or all of a file that has none."""
        if self._landing.source.wanted.path.endswith(_WHOLE):
            self._fetch_up_to(self._size)
            return
        self._fetch_up_to(min(HEAD, self._size))
        wanted = self._landing.source.wanted
        with file_errors(run=wanted.run, file=wanted.path), self._landing.path.open("rb") as file:
            length = _PREFIX + int.from_bytes(file.read(_PREFIX), "little")
        if self._head < length <= min(_LONGEST_HEAD, self._size):  # a length that cannot be is told by whoever reads it
            self._fetch_up_to(length)

    def missing(self, wanted: Iterable[range]) -> Iterator[Stretch]:
        """What is still to be fetched of `wanted`, counted as if it had come."""
        for part in _merged(range(max(part.start, self._head), part.stop) for part in wanted):
            self.n_bytes += len(part)
            for start in range(part.start, part.stop, RANGE):
                yield Stretch(self._landing, start, min(start + RANGE, part.stop))

    def _fetch_up_to(self, stop: int) -> None:
        Stretch(self._landing, self._head, stop).fill()
        self.n_bytes += stop - self._head
        self._head = stop


def _merged(parts: Iterable[range]) -> Iterator[range]:
    """`parts` in order, those together between which few bytes lie."""
    found: list[range] = []
    for part in sorted((part for part in parts if part), key=lambda part: part.start):
        if found and part.start - found[-1].stop <= _GAP:
            found[-1] = range(found[-1].start, max(found[-1].stop, part.stop))
        else:
            found.append(part)
    return iter(found)
