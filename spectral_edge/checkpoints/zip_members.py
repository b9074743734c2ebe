"""What a zip archive holds and where in the file it lies, for the formats that are one (.npz, .keras)."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.errors import CheckpointFormatError

ZIP_MAGIC: Final = b"PK\x03\x04"

_DIRECTORY_LIMIT: Final = 8 * 2**20
"""Largest directory that is looked at: some 80,000 members with names of 50 letters, a second's work."""

_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_ENCRYPTED: Final = 1
_STEP: Final = 2**20


@dataclass(frozen=True)
class Member:
    """One member: its bytes are `file`'s from `offset` on, `stored` of them, and `size` once they are inflated."""

    file: RawFile
    name: str
    offset: int
    stored: int
    size: int
    checksum: int
    deflated: bool

    def head(self, count: int) -> bytes:
        """Its first bytes, at most `count`.

        Raises:
            CheckpointFormatError: Damaged, or the file ends earlier.
        """
        if not self.deflated:
            return bytes(self.file.read(self.offset, min(count, self.size)))
        raw = bytes(self.file.read(self.offset, min(count, self.stored)))
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, count)
        except zlib.error as error:
            raise self.error(f"damaged: {error}.") from error

    def inflated(self) -> Iterator[bytes]:
        """All its bytes in pieces of at most a megabyte, never more than it declares.

        Raises:
            CheckpointFormatError: Damaged, or of another size than it declares.
        """
        inflater, checksum, done = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
        for piece in self._inflated(inflater):
            done += len(piece)
            if done > self.size:
                raise self.error(f"it inflates to more than the {self.size} bytes that it declares.")
            checksum = zlib.crc32(piece, checksum)
            yield piece
        if done != self.size or checksum != self.checksum:
            raise self.error(f"damaged: {done} of {self.size} bytes, or another checksum than it declares.")

    def _inflated(self, inflater: zlib._Decompress) -> Iterator[bytes]:
        for begin in range(0, self.stored, _STEP):
            raw = bytes(self.file.read(self.offset + begin, min(_STEP, self.stored - begin)))
            more = True
            while more:
                try:
                    piece = inflater.decompress(raw, _STEP)
                except zlib.error as error:
                    raise self.error(f"damaged: {error}.") from error
                yield piece
                raw = inflater.unconsumed_tail
                more = bool(raw) or len(piece) == _STEP  # all is taken in, and some may not be given out yet

    def error(self, what: str) -> CheckpointFormatError:
        """An error about this member."""
        return CheckpointFormatError(f"member {shown(self.name)}: {what}", file=self.file.name)


class _Directory(io.BytesIO):
    """Lets zipfile read an archive's directory from an open file, and refuses one that would take minutes."""

    def __init__(self, file: RawFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (0, self._at, self._file.size)[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int | None = -1, /) -> bytes:
        left = max(0, self._file.size - self._at)
        taken = left if count is None or count < 0 else min(count, left)
        if taken > _DIRECTORY_LIMIT:
            raise CheckpointFormatError(
                f"the zip archive's directory has more than {_DIRECTORY_LIMIT} bytes.", file=self._file.name
            )
        data = bytes(self._file.read(self._at, taken))
        self._at += taken
        return data


def zip_members(file: RawFile) -> list[Member]:
    """The members of the archive, in the directory's order; their bytes are not looked at.

    Raises:
        CheckpointFormatError: Truncated or damaged; a name occurs twice or leads outside of the archive; members
            overlap; or one is encrypted, or compressed by another method than deflate.
    """
    entries = _entries(file)
    members = [_member(entry, file) for entry in entries if not entry.filename.endswith("/")]
    _check_apart(members, file)
    return members


def _entries(file: RawFile) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_Directory(file)) as archive:
            return archive.infolist()
    except CheckpointFormatError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, OSError) as error:
        raise CheckpointFormatError(f"truncated or damaged zip archive: {error}.", file=file.name) from error


def _member(entry: zipfile.ZipInfo, file: RawFile) -> Member:
    name = entry.filename
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or entry.flag_bits & _ENCRYPTED:
        raise CheckpointFormatError(
            f"member {shown(name)} is encrypted, or compressed by another method than deflate.", file=file.name
        )
    if not name or ".." in name.split("/") or name.startswith("/"):
        raise CheckpointFormatError(
            f"member {shown(name)} has no name, or one that leads outside of the archive.", file=file.name
        )
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(bytes(file.read(entry.header_offset, _LOCAL_HEADER.size)))
    offset = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    deflated = entry.compress_type == zipfile.ZIP_DEFLATED
    if magic != ZIP_MAGIC or offset + entry.compress_size > file.size:
        raise CheckpointFormatError(f"damaged or truncated: member {shown(name)} is not there.", file=file.name)
    if not deflated and entry.compress_size != entry.file_size:
        raise CheckpointFormatError(f"damaged: member {shown(name)} is stored, with two sizes.", file=file.name)
    return Member(file, name, offset, entry.compress_size, entry.file_size, entry.CRC, deflated)


def _check_apart(members: Sequence[Member], file: RawFile) -> None:
    reached = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < reached:
            raise CheckpointFormatError(f"member {shown(member.name)} overlaps another one.", file=file.name)
        reached = member.offset + member.stored
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise CheckpointFormatError("two members of the zip archive have the same name.", file=file.name)


def shown(name: str) -> str:
    """A member's name as messages show it: any name becomes short printable ASCII."""
    return f"`{ascii(name)[1:-1][:100]}`"
