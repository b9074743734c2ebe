"""Downloading files: in ranges where the store gives them, taken up again where a connection broke, held to a digest.

A :class:`Source` is one file in one store. Memory is one block for each stream, whatever the size of the files; disk is
what was announced, whatever the store sends.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from integrations.download_digest import Digest
from integrations.download_streams import Streams
from integrations.file_errors import file_errors
from integrations.tracker import CheckpointRef
from spectral_edge.errors import FetchInterruptedError, TrackerUnavailableError

RANGE: Final = 64 << 20
"""Bytes asked for at once where files come in ranges; large, since some stores open the whole object for each."""

_COPIES: Final = 3
"""How often a file is fetched whose bytes are not those that the store's digest tells."""


@dataclass(frozen=True)
class Wanted:
    """One file of a run, and the bytes it was announced with."""

    run: str
    path: str
    size: int

    def broken(self, what: str) -> TrackerUnavailableError:
        """The error for what may be otherwise at the next try."""
        return TrackerUnavailableError(what, run=self.run, file=self.path)

    def lost(self, what: str) -> FetchInterruptedError:
        """The error for what ends the download."""
        return FetchInterruptedError(
            what,
            run=self.run,
            file=self.path,
            left_behind="nothing",
            next_step="start the same audit again; it asks the tracker anew what the run holds.",
        )

    def replaced(self) -> FetchInterruptedError:
        """The error for a file of which another version is there now."""
        return self.lost("it was replaced by another file during the download.")

    def check_size(self, size: int) -> None:
        """Raise FetchInterruptedError when the store holds another number of bytes."""
        if size != self.size:
            raise self.lost(f"the store holds {size} bytes, the tracker listed {self.size}.")


@dataclass(frozen=True)
class Answer:
    """What a store sends: `blocks`, the first of which belongs at byte `start` (0 when it ignored the range).

    `etag` tells versions of the file apart, where there is one.
    """

    start: int
    etag: str | None
    blocks: Iterator[bytes]


class Connection(Protocol):
    """A tracker's connection."""

    def errors(self, *, run: str | None = None, file: str | None = None) -> AbstractContextManager[None]:
        """Turn what is raised inside the block into our errors."""
        ...


class Source(Protocol):
    """One file in one store."""

    @property
    def wanted(self) -> Wanted:
        """Which file it is."""
        ...

    @property
    def in_ranges(self) -> bool:
        """Whether ranges of it may be asked for at once."""
        ...

    @property
    def digest(self) -> Digest | None:
        """What the store says of the bytes, known at the latest when they have come; None when it says nothing."""
        ...

    def open(self, start: int, stop: int, etag: str | None, /) -> AbstractContextManager[Answer]:
        """Ask for bytes [start, stop), of the version `etag` where that is known. Errors name run and file.

        Raises:
            TrackerUnavailableError: Asking again may help. Raised also for what goes wrong while blocks are read.
            FetchInterruptedError: It was replaced, or has another size than announced: asking again does not help.
        """
        ...


def download(sources: Sequence[Source], paths: Sequence[Path], streams: Streams) -> None:
    """Bring each source to its path. A file is called `NAME.part` until it is complete and verified.

    Raises:
        FetchInterruptedError: The connection broke again and again, or the bytes are not what the store says they are.
        AccessDeniedError, NotFoundError, DiskFullError: As they say.
    """
    files = [Landing(source, _part(path), streams) for source, path in zip(sources, paths, strict=True)]
    missing = files
    for copy in range(_COPIES):
        spans = [Stretch(file, start, stop) for file in missing for start, stop in file.ranges()]
        streams.run(Stretch.fill, spans)
        intact = streams.run(Landing.is_intact, missing)
        missing = [file for file, good in zip(missing, intact, strict=True) if not good]
        if missing and copy == _COPIES - 1:
            raise missing[0].damaged()
    for file, path in zip(files, paths, strict=True):
        file.path.rename(path)


def place(home: Path, number: int, file: Wanted) -> Path:
    """Where the file comes to lie: in a new folder of its own, under its own name as far as that is harmless."""
    name = re.sub(r"[^A-Za-z0-9._=-]", "_", file.path.rpartition("/")[2])[-100:]
    folder = home / f"{number:03d}"
    folder.mkdir()
    return folder / (name if name.strip(".") else f"_{name}")


@contextmanager
def new_folder(connection: Connection, run: str, checkpoint: CheckpointRef, folder: Path) -> Iterator[Path]:
    """A new folder below `folder` for the files of `checkpoint`; removed when the block fails.

    What is raised inside comes as one of our errors, naming run and checkpoint.
    """
    with connection.errors(run=run, file=checkpoint.name):
        folder.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix=f"step-{checkpoint.step}-", dir=folder))
        try:
            yield home
        except BaseException:  # also when the audit is being stopped
            shutil.rmtree(home, ignore_errors=True)
            raise


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


class Landing:
    """A file being written at `path`, by several streams at once."""

    def __init__(self, source: Source, path: Path, streams: Streams, size: int = 0) -> None:
        self.source, self.path, self.streams = source, path, streams
        self._etag: str | None = None
        self._lock = threading.Lock()
        with file_errors(run=source.wanted.run, file=source.wanted.path):
            path.touch(mode=0o600, exist_ok=False)
            os.truncate(path, size)

    @property
    def etag(self) -> str | None:
        """The version that all its bytes are of, as far as it is known."""
        return self._etag

    def ranges(self) -> Iterator[tuple[int, int]]:
        """What to ask for: [start, stop) that cover the file; one empty range of an empty file."""
        size = self.source.wanted.size
        step = RANGE if self.source.in_ranges else max(size, 1)
        return ((start, min(start + step, size)) for start in range(0, max(size, 1), step))

    def settle(self, etag: str | None, *, anew: bool) -> None:
        """Take the version that a stream was sent, when it begins `anew`; otherwise it must be that of the others."""
        with self._lock:
            if self._etag is None or anew:
                self._etag = etag
            elif etag != self._etag:
                raise self.source.wanted.replaced()

    def is_intact(self) -> bool:
        """Whether the bytes on disk have the digest that the store tells, if it tells one."""
        digest = self.source.digest
        with file_errors(run=self.source.wanted.run, file=self.source.wanted.path):
            return digest is None or digest.of(self.path) == digest.expected

    def damaged(self) -> FetchInterruptedError:
        """The error for a file whose copies all had other bytes than the store says."""
        algorithm = self.source.digest.algorithm.upper() if self.source.digest else "digest"
        return self.source.wanted.lost(f"{_COPIES} copies in turn had another {algorithm} than the store tells.")


class Stretch:
    """Bytes [start, stop) of a file, and how far they have come."""

    def __init__(self, file: Landing, start: int, stop: int) -> None:
        self._file, self._start, self._stop = file, start, stop
        self._position = start

    def fill(self) -> None:
        """Fetch what is missing, with as many tries as it takes and the streams have patience for."""
        self._file.streams.persist(self._continue, lambda: self._position)

    def _continue(self) -> None:
        if self._start < self._position == self._stop:
            return  # it broke after the last byte
        source, etag = self._file.source, self._file.etag
        with source.open(self._position, self._stop, etag) as answer, self._file.path.open("r+b") as out:
            self._place(answer)
            out.seek(self._position)
            for block in self._file.streams.watched(answer.blocks):
                if self._position + len(block) > self._stop:
                    raise source.wanted.lost(f"the store sends more than the {source.wanted.size} bytes listed.")
                out.write(block)
                self._position += len(block)
        if self._position < self._stop:
            raise source.wanted.broken(f"the connection ended at byte {self._position} of {source.wanted.size}.")

    def _place(self, answer: Answer) -> None:
        """Go to where the answer begins: where we stopped, or the file's first byte when the store starts over."""
        starts_over = answer.start == self._start == 0
        if answer.start != self._position and not starts_over:
            raise self._file.source.wanted.broken(f"asked for byte {self._position}, got those from {answer.start} on.")
        self._file.settle(answer.etag, anew=starts_over and not self._file.source.in_ranges)
        self._position = answer.start
