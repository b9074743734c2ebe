"""The objects of an HDF5 file: which datasets there are, and what their headers say.

Format: the HDF5 File Format Specification of the HDF Group, version 3.0. Read is the part of it that HDF5 1.8 and
later write unless told otherwise (h5py's `libver="earliest"`, its default, and with it all that Keras writes): version
0 of the superblock, version 1 of object headers, and groups that are symbol tables. This is parsed here and not by a
library because the file is not to be trusted: the C library's parser has a long record of memory errors, and pyfive,
which is Python, makes of what it has read as much as the file says (a file of 3 MB whose names do not end makes it take
60 GB). Here whatever is looked at is read, and what may be read is counted.

Nothing leads out of the file: links by name, links to other files and data kept in other files are refused.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.errors import CheckpointFormatError

HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"

UNDEFINED: Final = 2**64 - 1
"""The address of what was never written."""

DATASPACE: Final = 0x01
DATATYPE: Final = 0x03
EXTERNAL_FILES: Final = 0x07
LAYOUT: Final = 0x08
FILTERS: Final = 0x0B
ATTRIBUTE: Final = 0x0C
_CONTINUATION: Final = 0x10
_SYMBOL_TABLE: Final = 0x11

_MOST_STRUCTURES: Final = 400_000
"""Structures, messages and names looked at in one file, about two seconds; a variable of Keras takes about twenty."""

_MOST_BYTES: Final = 64 * 2**20
"""Bytes of structures and paths looked at in one file."""

_DEPTH: Final = 64
_NAME_LIMIT: Final = 1024

_SUPERBLOCK: Final = struct.Struct("<8s5B2B9x4Q8xQ24x")
_OBJECT_HEADER: Final = struct.Struct("<BxH4xI4x")
_MESSAGE: Final = struct.Struct("<HHB3x")
_ADDRESS_AND_SIZE: Final = struct.Struct("<QQ")
_HEAP: Final = struct.Struct("<4sB3xQ8xQ")
_NODE: Final = struct.Struct("<4sBBH16x")
_SYMBOLS: Final = struct.Struct("<4sBxH")
_SYMBOL: Final = struct.Struct("<QQI20x")
_LINK_BY_NAME: Final = 2


@dataclass(frozen=True)
class Message:
    """One message of an object's header: what it says, and the address of its first byte."""

    kind: int
    shared: bool
    data: bytes
    address: int


class Hdf5File:
    """The structures of the HDF5 file that is `size` bytes of `file` from byte `begin` on; `name` is for messages.

    Raises:
        CheckpointFormatError: Truncated, damaged, or written with the newer layouts of HDF5.
    """

    def __init__(self, file: RawFile, begin: int, size: int, name: str) -> None:
        self.file = file
        self.begin = begin
        self.size = size
        self.name = name
        self._structures = 0
        self._bytes = 0
        self._root = self._superblock()

    def read(self, address: int, count: int) -> bytes:
        """Bytes `address:address + count` of the structures.

        Raises:
            CheckpointFormatError: The file ends earlier, or more was read than any model's file needs.
        """
        self._count(0, count)
        return self.read_chunk(address, count)

    def read_chunk(self, address: int, count: int) -> bytes:
        """Bytes `address:address + count` of the numbers.

        Raises:
            CheckpointFormatError: The file ends earlier, or it is cut into more parts than any model's file.
        """
        self._count(1, 0)
        if address + count > self.size:
            raise self.error(f"truncated or damaged: {count} bytes at {address} are past the end at {self.size}")
        return bytes(self.file.read(self.begin + address, count))

    def _count(self, structures: int, n_bytes: int) -> None:
        self._structures += structures
        self._bytes += n_bytes
        if self._structures > _MOST_STRUCTURES or self._bytes > _MOST_BYTES:
            raise self.error(
                f"more than {_MOST_STRUCTURES} groups, datasets, chunks and names, or {_MOST_BYTES} bytes of them"
            )

    def error(self, what: str, path: str | None = None) -> CheckpointFormatError:
        """An error about this file, or the object at `path` in it."""
        return CheckpointFormatError(f"{what}.", file=self.name, tensor=path)

    def newer(self, what: str, path: str | None = None) -> NoReturn:
        """Refuse what only files written with newer layouts have."""
        raise CheckpointFormatError(
            f"{what}, which h5py and Keras write only when told to.",
            file=self.name,
            tensor=path,
            next_step="write each dataset anew with h5py's own settings: `new[name] = old[name][()]`.",
        )

    def datasets(self) -> Iterator[tuple[str, list[Message]]]:
        """Path and header of each dataset, in no order; one with two names comes twice.

        Raises:
            CheckpointFormatError: Truncated or damaged, groups that contain themselves, or links by name.
        """
        seen: set[int] = set()
        ahead = [("", self._root)]
        while ahead:
            path, address = ahead.pop()
            messages = self._messages(address)
            tables = [message.data for message in messages if message.kind == _SYMBOL_TABLE]
            if tables:
                if address in seen or path.count("/") >= _DEPTH:
                    raise self.error("a group lies in itself, in two groups, or too deep", path)
                seen.add(address)
                for name, child in self._links(tables[0], seen):
                    self._count(0, len(path) + len(name))
                    ahead.append((f"{path}/{name}" if path else name, child))
            elif any(message.kind == DATASPACE for message in messages):
                yield path, messages

    def _superblock(self) -> int:
        """The address of the root group's header."""
        if self.size < _SUPERBLOCK.size:
            raise self.error(f"truncated: {self.size} bytes, expected at least {_SUPERBLOCK.size}")
        magic, version, *_, offset_size, length_size, base, _, end, _, root = _SUPERBLOCK.unpack(
            self.read(0, _SUPERBLOCK.size)
        )
        if magic != HDF5_MAGIC:
            raise self.error(f"begins with {magic!r}, expected {HDF5_MAGIC!r}")
        if version != 0:
            self.newer(f"version {version} of HDF5's superblock")
        if (offset_size, length_size, base) != (8, 8, 0):
            raise self.error("expected addresses of eight bytes from the file's begin on")
        if end > self.size:
            raise self.error(f"truncated: got {self.size} bytes, expected {end}")
        return int(root)

    def _messages(self, address: int) -> list[Message]:
        head = self.read(address, _OBJECT_HEADER.size)
        version, count, size = _OBJECT_HEADER.unpack(head)
        if head.startswith(b"OHDR"):
            self.newer("version 2 of HDF5's object headers")
        if version != 1:
            raise self.error(f"damaged: no object's header at {address}")
        found: list[Message] = []
        blocks = deque([(address + _OBJECT_HEADER.size, size)])
        while blocks and len(found) < count:
            begin, size = blocks.popleft()
            block, at = self.read(begin, size), 0
            while at + _MESSAGE.size <= size and len(found) < count:
                kind, length, flags = _MESSAGE.unpack_from(block, at)
                at += _MESSAGE.size
                found.append(Message(kind, bool(flags & 2), block[at : at + length], begin + at))
                if kind == _CONTINUATION:
                    blocks.append(_ADDRESS_AND_SIZE.unpack_from(block, at))
                at += length
        self._count(len(found), 0)
        return found

    def _links(self, table: bytes, seen: set[int]) -> Iterator[tuple[str, int]]:
        """Names and addresses of what a group holds; `seen` are the addresses of structures used already."""
        tree, heap = _ADDRESS_AND_SIZE.unpack_from(table)
        magic, version, size, address = _HEAP.unpack(self.read(heap, _HEAP.size))
        if magic != b"HEAP" or version != 0:
            raise self.error(f"damaged: no heap of names at {heap}")
        names = self.read(address, size)
        for node in tree_leaves(self, tree, 0, _ADDRESS_AND_SIZE.size, seen):
            _, child = _ADDRESS_AND_SIZE.unpack(node)
            magic, version, count = _SYMBOLS.unpack(self.read(child, _SYMBOLS.size))
            if magic != b"SNOD" or version != 1:
                raise self.error(f"damaged: no symbols at {child}")
            self._count(count, 0)
            symbols = self.read(child + _SYMBOLS.size, count * _SYMBOL.size)
            for offset, header, cached in _SYMBOL.iter_unpack(symbols):
                name = self._name(names, offset)
                if cached == _LINK_BY_NAME:
                    raise self.error("a link by name, which is not followed", name)
                yield name, header

    def _name(self, names: bytes, offset: int) -> str:
        end = names.find(b"\0", offset, offset + _NAME_LIMIT)
        try:
            name = names[offset:end].decode("utf-8") if end > offset else ""
        except UnicodeDecodeError:
            name = ""
        if not name or "/" in name:
            raise self.error(f"damaged: no name of at most {_NAME_LIMIT} bytes at {offset} of its heap")
        return name


def tree_leaves(file: Hdf5File, root: int, kind: int, entry: int, seen: set[int]) -> Iterator[bytes]:
    """The entries, each a key and the address of a child, of all leaves of the B-tree (version 1) at `root`.

    Args:
        file: Where it lies.
        root: The address of its root node.
        kind: 0 for a group's tree, 1 for one of chunks.
        entry: Bytes of an entry.
        seen: Addresses of structures that belong elsewhere; this tree's nodes are added.

    Raises:
        CheckpointFormatError: Truncated or damaged, or a node has two parents.
    """
    ahead: list[tuple[int, int | None]] = [(root, None)]
    while ahead:
        address, expected = ahead.pop()
        magic, got, level, count = _NODE.unpack(file.read(address, _NODE.size))
        if magic != b"TREE" or got != kind or address in seen or expected not in {None, level}:
            raise file.error(f"damaged: no node of a tree at {address}, or one that has two parents")
        seen.add(address)
        entries = file.read(address + _NODE.size, count * entry)
        for at in range(0, len(entries), entry):
            if level:
                ahead.append((int.from_bytes(entries[at + entry - 8 : at + entry], "little"), level - 1))
            else:
                yield entries[at : at + entry]
