"""Reader of the plain files that torch.save wrote before torch 1.6.

Such a file is five pickles (a magic number, the protocol, the machine, the object, the keys of the storages), and then
for each key its storage: the number of entries in eight bytes, and the entries. Storages are read where they lie.
Source: torch/serialization.py (`_legacy_load`).
"""

from __future__ import annotations

import struct
from typing import Final

from spectral_edge.checkpoints.block_reader import FileContents
from spectral_edge.checkpoints.inert_pickle import PICKLE_LIMIT, load_several
from spectral_edge.checkpoints.module_pickle import MOST_TENSORS
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.state_dict import PARAMETERS
from spectral_edge.checkpoints.tensor_records import storage_of
from spectral_edge.checkpoints.tensor_views import Region, contents_of
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind

LEGACY_MAGIC: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The pickled magic number that the plain files begin with."""

_PICKLES: Final = 5
_COUNT: Final = struct.Struct("<q")


def read_torch_legacy(file: RawFile, scratch: ScratchFile, kinds: frozenset[Kind] = PARAMETERS) -> FileContents:
    """The tensors of one plain file; only tensors that are not contiguous are copied to `scratch`.

    Raises:
        CheckpointFormatError: Damaged or truncated.
        UnsafeCheckpointError: It names what serves to run code.
        DiskFullError: No room for the copies.
    """
    pickles = load_several(bytes(file.read(0, min(file.size, PICKLE_LIMIT))), _PICKLES, file=file.name)
    _, _, machine, loaded, keys = pickles.values
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise CheckpointFormatError("written on a big-endian machine, expected little-endian numbers.", file=file.name)
    itemsizes: dict[str, int] = {}
    for reference in pickles.references:
        storage = storage_of(reference.arguments[0])
        if storage is not None:
            itemsizes.setdefault(storage.key, storage.itemsize)
    regions = _regions(file, pickles.end, keys, itemsizes)
    return contents_of(loaded, file, scratch, lambda storage: regions.get(storage.key), kinds)


def _regions(file: RawFile, begin: int, keys: object, itemsizes: dict[str, int]) -> dict[str, Region]:
    """Where the storages lie, which follow each other from byte `begin` on in the order of their keys."""
    if not isinstance(keys, list) or len(keys) > MOST_TENSORS:
        raise CheckpointFormatError(
            f"expected a list of at most {MOST_TENSORS} keys of storages behind its pickles.", file=file.name
        )
    regions: dict[str, Region] = {}
    for key in keys:
        if not isinstance(key, str) or key not in itemsizes:
            raise CheckpointFormatError(
                f"it has a storage that no tensor refers to, {ascii(key)[:40]}.", file=file.name
            )
        region = _counted_region(file, begin, itemsizes[key])
        regions[key] = region
        begin = region.offset + region.size
    return regions


def _counted_region(file: RawFile, begin: int, itemsize: int) -> Region:
    """The entries behind their number, which stands at byte `begin`."""
    (count,) = _COUNT.unpack(bytes(file.read(begin, _COUNT.size)))
    offset, size = begin + _COUNT.size, count * itemsize
    if not 0 <= size <= file.size - offset:
        raise CheckpointFormatError(
            f"truncated or damaged: a storage at byte {begin} is said to have {count} entries, the file has "
            f"{file.size} bytes.",
            file=file.name,
        )
    return Region(offset, size)
