"""Reader of the tar archives that torch.save wrote before torch 0.1.10.

The member `storages` is a row of pickles that each tell of a storage, with the storage behind it; `tensors` is the same
for views of these; and in `pickle`, the object, tensors are referred to by number. Storages are read where they lie.
Source: torch/serialization.py (`legacy_load`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from spectral_edge.checkpoints.block_reader import FileContents
from spectral_edge.checkpoints.inert_pickle import PERSISTENT, Made, load_several
from spectral_edge.checkpoints.module_pickle import MOST_TENSORS
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.state_dict import PARAMETERS
from spectral_edge.checkpoints.tensor_records import storage_of
from spectral_edge.checkpoints.tensor_views import Region, contents_of
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind

_BLOCK: Final = 512
_MAGIC_AT: Final = 257
_MAGIC: Final = b"ustar"
_MOST_MEMBERS: Final = 16

_LONGEST_PICKLE: Final = 4096
"""Most bytes of a pickle that tells of one storage or tensor."""

_DIMENSIONS: Final = 64
_REBUILD: Final = "torch._utils._rebuild_tensor"


def looks_like_tar(file: RawFile) -> bool:
    """Whether `file` begins as a tar archive does."""
    end = _MAGIC_AT + len(_MAGIC)
    return file.size >= _BLOCK and bytes(file.read(0, end))[_MAGIC_AT:] == _MAGIC


def read_torch_tar(file: RawFile, scratch: ScratchFile, kinds: frozenset[Kind] = PARAMETERS) -> FileContents:
    """The tensors of one archive; only tensors that are not contiguous are copied to `scratch`.

    Raises:
        CheckpointFormatError: Damaged, truncated, or a tar archive of something else.
        UnsafeCheckpointError: It names what serves to run code.
        DiskFullError: No room for the copies.
    """
    members = _members(file)
    if not {"storages", "tensors", "pickle"} <= set(members):
        raise CheckpointFormatError(
            "expected a tar archive of torch before 0.1.10, with members `storages`, `tensors` and `pickle`.",
            file=file.name,
        )
    storages = _Storages(_Row(members["storages"]), members["storages"].begin - file.begin)
    tensors = dict(_tensors(_Row(members["tensors"]), storages))
    pickles = load_several(members["pickle"], 1, file=file.name)
    for reference in pickles.references:
        identity = reference.arguments[0]
        made = tensors.get(str(identity)) if isinstance(identity, (int, str)) else None
        if made is not None:  # told as later versions of torch write it in place
            reference.name, reference.arguments = made.name, made.arguments
    return contents_of(pickles.values[0], file, scratch, lambda storage: storages.regions.get(storage.key), kinds)


class _Row:
    """Reads a member that is a row of pickles and numbers, from its beginning on."""

    def __init__(self, file: RawFile) -> None:
        self.file = file
        self.position = 0

    def pickle(self) -> object:
        """The value of the next pickle, a short one."""
        window = min(_LONGEST_PICKLE, self.file.size - self.position)
        read = load_several(bytes(self.file.read(self.position, window)), 1, file=self.file.name)
        self.position += read.end
        return read.values[0]

    def numbers(self, count: int) -> tuple[int, ...]:
        """The next `count` whole numbers, of eight bytes each."""
        data = bytes(self.file.read(self.position, 8 * count))
        self.position += len(data)
        return struct.unpack(f"<{count}q", data)

    def count(self) -> int:
        """The next pickle, which tells how many pickles follow."""
        count = self.pickle()
        if not isinstance(count, int) or not 0 <= count <= MOST_TENSORS:
            raise CheckpointFormatError(f"expected a number up to {MOST_TENSORS}.", file=self.file.name)
        return count


class _Storages:
    """What the member `storages` tells: records as later versions of torch write them, and where the bytes lie.

    Args:
        row: The member.
        begin: Where in the file it begins.
    """

    def __init__(self, row: _Row, begin: int) -> None:
        self.regions: dict[str, Region] = {}
        self.records: dict[str, Made] = {}
        for _ in range(row.count()):
            match row.pickle():
                case ((int() | str()) as key, location, Made(called=False) as kind):
                    self._add(row, begin, str(key), location, kind)
                case _:
                    raise CheckpointFormatError("expected pickles that each tell of a storage.", file=row.file.name)
        self._add_views(row.pickle())

    def _add(self, row: _Row, begin: int, key: str, location: object, kind: Made) -> None:
        (entries,) = row.numbers(1)
        record = Made(PERSISTENT, (("storage", kind, key, location, entries),))
        storage = storage_of(record.arguments[0])
        if storage is None or entries * storage.itemsize > row.file.size - row.position:
            raise CheckpointFormatError(
                f"truncated or damaged: a storage is said to have {entries} entries of {ascii(kind.name)[:40]}.",
                file=row.file.name,
            )
        self.records[key] = record
        self.regions[key] = Region(begin + row.position, entries * storage.itemsize)
        row.position += entries * storage.itemsize

    def _add_views(self, views: object) -> None:
        for view in views if isinstance(views, list) else ():
            match view:
                case ((int() | str()) as target, (int() | str()) as root, int(first), int(count)):
                    whole = self.records.get(str(root))
                    if whole is not None and isinstance(whole.arguments[0], tuple):
                        identity = (*whole.arguments[0][:5], (target, first, count))
                        self.records[str(target)] = Made(PERSISTENT, (identity,))


def _tensors(row: _Row, storages: _Storages) -> Iterator[tuple[str, Made]]:
    """Number and record of each tensor that the member `tensors` tells of."""
    for _ in range(row.count()):
        told = row.pickle()
        (dimensions,) = row.numbers(1)
        dimensions &= 0xFFFFFFFF  # its last four bytes mean nothing
        if dimensions > _DIMENSIONS:
            raise CheckpointFormatError(f"a tensor is said to have {dimensions} dimensions.", file=row.file.name)
        shape, strides, (offset,) = row.numbers(dimensions), row.numbers(dimensions), row.numbers(1)
        match told:
            case ((int() | str()) as key, (int() | str()) as storage, _) if str(storage) in storages.records:
                yield str(key), Made(_REBUILD, (storages.records[str(storage)], offset, shape, strides))


def _members(file: RawFile) -> dict[str, RawFile]:
    """The members by name, without what a later kind of tar keeps beside them."""
    members: dict[str, RawFile] = {}
    at = 0
    while at + _BLOCK <= file.size and len(members) < _MOST_MEMBERS:
        header = bytes(file.read(at, _BLOCK))
        if not header.strip(b"\0"):
            break
        name = header[:100].partition(b"\0")[0].decode("ascii", errors="replace").removeprefix("./")
        try:
            size = int(header[124:136].strip(b" \0") or b"0", 8)
        except ValueError as error:
            raise CheckpointFormatError("damaged: a member of the tar archive has no size.", file=file.name) from error
        members[name] = file.part(at + _BLOCK, size)
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return members
