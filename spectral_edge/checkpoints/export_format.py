"""Reader of the `.pt2` archives that torch.export.save writes, since torch 2.8.

`data/weights/*_weights_config.json` tells of each tensor by name whether it is a parameter, and what view of which
member of `data/weights/` it is; the members hold the storages as plain bytes. The program itself is not looked at.
Source: torch/export/pt2_archive/_package.py and torch/_export/serde/schema.py (`PayloadMeta`, `TensorMeta`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from spectral_edge.checkpoints.block_reader import FileContents
from spectral_edge.checkpoints.inert_pickle import PICKLE_LIMIT
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.state_dict import PARAMETERS
from spectral_edge.checkpoints.tensor_records import Storage, TensorRecord, entries_of, whole_numbers
from spectral_edge.checkpoints.tensor_views import Region, contents_of
from spectral_edge.checkpoints.zip_members import Member
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind

EXPORTED: Final = "archive_format"
"""The member by which such an archive is told."""

_WEIGHTS: Final = "data/weights/"
_CONFIG: Final = "_weights_config.json"
_STRIDED: Final = 7

_DTYPES: Final[Mapping[object, torch.dtype]] = {
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    13: torch.bfloat16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz,
    32: torch.float8_e5m2fnuz,
}
"""Floating point among the schema's `ScalarType`."""


def read_exported(
    file: RawFile, members: Sequence[Member], scratch: ScratchFile, kinds: frozenset[Kind] = PARAMETERS
) -> FileContents:
    """The tensors of one archive with these members; only tensors not contiguous are copied to `scratch`.

    Raises:
        CheckpointFormatError: Damaged, truncated, of an older torch, or of several programs.
        DiskFullError: No room for the copies.
    """
    named = ((member.name.partition("/")[2], member) for member in members)
    stored = {name.removeprefix(_WEIGHTS): member for name, member in named if not member.deflated}
    tensors = {name: _tensor(told, stored) for name, told in _told(file, stored).items() if isinstance(told, dict)}

    def region_of(storage: Storage) -> Region | None:
        member = stored.get(storage.key)
        return None if member is None else Region(member.offset, member.size)

    return contents_of(tensors, file, scratch, region_of, kinds)


def _told(file: RawFile, members: Mapping[str, Member]) -> Mapping[str, object]:
    """What the archive tells of its tensors, by name."""
    found = [member for name, member in members.items() if name.endswith(_CONFIG) and "/" not in name]
    if len(found) != 1 or found[0].size > PICKLE_LIMIT:
        raise CheckpointFormatError(
            f"expected an exported program with one `{_CONFIG}` of at most {PICKLE_LIMIT} bytes, got {len(found)}.",
            file=file.name,
            next_step="save it with torch 2.8 or later, one program to a file.",
        )
    try:
        parsed = json.loads(found[0].head(found[0].size))
    except (ValueError, RecursionError) as error:
        raise found[0].error(f"not valid JSON: {error}.") from error
    match parsed:
        case {"config": dict(told)}:
            return told
    raise found[0].error("expected `config`, an object of tensors by name.")


def _tensor(told: Mapping[str, object], members: Mapping[str, Member]) -> TensorRecord:
    match told:
        case {
            "path_name": str(key),
            "is_param": bool(is_parameter),
            "use_pickle": False,
            "tensor_meta": {
                "dtype": scalar_type,
                "sizes": list(sizes),
                "strides": list(steps),
                "storage_offset": {"as_int": int(offset)},
                "layout": layout,
            },
        } if layout == _STRIDED and offset >= 0:
            shape, strides = whole_numbers(_integers(sizes)), whole_numbers(_integers(steps))
        case _:
            return TensorRecord.flawed("one that is kept as a pickle, or is not dense")
    if shape is None or strides is None or len(shape) != len(strides):
        return TensorRecord.flawed("one without a fixed shape")
    dtype = _DTYPES.get(scalar_type) if isinstance(scalar_type, int) else None
    itemsize = 1 if dtype is None else dtype.itemsize
    count = members[key].size // itemsize if key in members else 0
    storage = Storage(key, itemsize, dtype, count, (0, count))
    return TensorRecord(entries_of(shape), not is_parameter, storage, dtype, offset, shape, strides)


def _integers(listed: list[object]) -> tuple[object, ...]:
    return tuple(number.get("as_int") if isinstance(number, dict) else None for number in listed)
