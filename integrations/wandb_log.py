"""Records of a W&B transaction log (`run-ID.wandb`), read without the SDK's processes and without a network.

The file is a LevelDB log: seven bytes of header, then blocks of 32 KiB of chunks (checksum, length, kind, bytes);
a record is one full chunk, or a first, some middle and a last one. It is untrusted, and it may be written at this
moment or have been cut off with its machine. What is broken is passed over and counted, up to the next block, where
chunks can be told apart again. Never more than one record is in memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from wandb.proto import wandb_internal_pb2

BLOCK: Final = 32768
MAX_RECORD: Final = 128 << 20
"""Bytes of the largest record that is read. The SDK writes files of their own for what is larger."""

_FILE_HEADER: Final = b":W&B\xe1\xbe\x00"
_CHUNK_HEADER: Final = struct.Struct("<IHB")
_UNCHECKED: Final = 6
"""Bytes of a chunk's header, checksum and length, that its checksum does not cover."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MESSAGES: Final[Any] = wandb_internal_pb2
"""Built when imported, so that no type checker knows what is in it."""

Record = Any
"""A `wandb_internal_pb2.Record`."""


class UnreadableLogError(Exception):
    """A file is no transaction log of a known version. It never leaves the reader of a run's folders."""


@dataclass
class Damage:
    """What of a log could not be read, as far as it has been read.

    Attributes:
        stretches: How many stretches hold no whole record although they should.
        first: Where the first of them begins, in bytes from the beginning of the file.
        torn_at: Where the record begins in whose middle the file ends; None when it ends with a whole one.
    """

    stretches: int = 0
    first: int | None = None
    torn_at: int | None = None

    @property
    def sentence(self) -> str | None:
        """All of that in words that follow the name of a file; None when all was read."""
        parts = []
        if self.stretches:
            count = "one stretch is" if self.stretches == 1 else f"{self.stretches} stretches are"
            parts.append(f"{count} damaged and left out, the first at byte {self.first}")
        if self.torn_at is not None:
            parts.append(f"it ends within the record at byte {self.torn_at}")
        return "; ".join(parts) or None


class TransactionLog:
    """One pass over a log.

    Args:
        path: The file.
        max_record: Bytes of the largest record that is read; larger ones count as damage.
    """

    def __init__(self, path: Path, max_record: int = MAX_RECORD) -> None:
        self.damage = Damage()
        self._path = path
        self._max_record = max_record
        self._parts: list[bytes] = []
        self._size = 0
        self._begun = 0
        self._is_sound = True

    def records(self) -> Iterator[Record]:
        """The whole records of the log, in order.

        Raises:
            UnreadableLogError: It is no transaction log.
            OSError: It cannot be read.
        """
        with self._path.open("rb") as file:
            if file.read(len(_FILE_HEADER)) != _FILE_HEADER:
                raise UnreadableLogError("it does not begin as a log of W&B does")
            file.seek(0)
            for position, content in self._contents(file):
                record = _MESSAGES.Record()
                try:
                    record.ParseFromString(content)
                except DecodeError:
                    self._break(position)
                    continue
                self._is_sound = True
                yield record

    def _contents(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The bytes of each whole record, and where it begins."""
        start, is_last = 0, False
        while not is_last and (block := file.read(BLOCK)):
            is_last = len(block) < BLOCK
            at = len(_FILE_HEADER) if start == 0 else 0
            while at + _CHUNK_HEADER.size <= BLOCK:  # what is left at the end of a block is padding
                chunk = self._chunk(block, at, start)
                if chunk is None:
                    break
                kind, content = chunk
                whole = self._joined(kind, content, start + at)
                if whole is not None:
                    yield whole
                at += _CHUNK_HEADER.size + len(content)
            start += len(block)
        if self._parts:
            self.damage.torn_at = self._begun

    def _chunk(self, block: bytes, at: int, start: int) -> tuple[int, bytes] | None:
        """Kind and bytes of the chunk at `at`; None where none follows in this block that can be read."""
        body = at + _CHUNK_HEADER.size
        if body > len(block):
            if at < len(block):
                self.damage.torn_at = start + at
            return None
        checksum, length, kind = _CHUNK_HEADER.unpack_from(block, at)
        end = body + length
        if len(block) < end <= BLOCK:
            self.damage.torn_at = start + at
            return None
        if end > BLOCK or zlib.crc32(memoryview(block)[at + _UNCHECKED : end]) != checksum:
            self._break(start + at)
            return None
        return kind, block[body:end]

    def _joined(self, kind: int, content: bytes, position: int) -> tuple[int, bytes] | None:
        """The record that ends with this chunk and where it begins, if one ends."""
        if kind in {_FULL, _FIRST}:
            if self._parts:
                self._break(self._begun)  # the one before has no end
            self._begun, self._size = position, 0
        elif kind not in {_MIDDLE, _LAST} or not self._parts:
            self._break(position)
            return None
        self._parts.append(content)
        self._size += len(content)
        if self._size > self._max_record:
            self._break(self._begun)
            return None
        if kind in {_FIRST, _MIDDLE}:
            return None
        whole, self._parts = b"".join(self._parts), []
        return self._begun, whole

    def _break(self, position: int) -> None:
        """Give up the record in hand. Until a whole one comes, what follows belongs to the same stretch."""
        self._parts = []
        if self._is_sound:
            self.damage.stretches += 1
            if self.damage.first is None:
                self.damage.first = position
        self._is_sound = False
