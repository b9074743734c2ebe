"""What the `.metadata` file of torch.distributed.checkpoint tells: a pickle, read as inert records.

`Metadata.state_dict_metadata` gives each tensor's dtype, shape and chunks by its full name, `planner_data` the keys
that led to that name in the saved dictionary, and `storage_data` the file and range of bytes of each chunk. All of it
is untrusted: a tensor is described only when it is asked for, and nothing costs more than the pickle has entries.
Source: torch/distributed/checkpoint/{metadata,filesystem}.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spectral_edge.checkpoints.chunk_tiling import Box, flaw_of_tiling
from spectral_edge.checkpoints.inert_pickle import Made, load
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.checkpoints.tensor_records import FLOATING
from spectral_edge.errors import CheckpointFormatError

_CONVERTER: Final = "torch.distributed.checkpoint.format_utils"

_DIMENSIONS: Final = 64
_LARGEST: Final = 2**63 - 1
_MOST_ENTRIES: Final = 2**40
_DEEPEST: Final = 32
"""Most keys that lead to a tensor; no deeper dictionary is a model's."""

KeyPath = tuple[str | int, ...]
"""The keys that led to a tensor in the dictionary that was saved."""


@dataclass(frozen=True)
class Entry:
    """Where one chunk lies: `length` bytes from `offset` on, in the data file that is called `file`."""

    file: str
    offset: int
    length: int
    transforms: tuple[str, ...]


@dataclass(frozen=True)
class DcpMetadata:
    """The described tensors, of any dtype, by their full names: `paths` has the keys that led to each."""

    name: str
    paths: Mapping[str, KeyPath]
    _described: Mapping[str, Mapping[object, object]]
    _entries: Mapping[str, Mapping[tuple[int, ...], object]]

    def info(self, tensor: str) -> TensorInfo | None:
        """Shape and dtype of a tensor; None when it is not of floating point.

        Raises:
            CheckpointFormatError: Not described as torch does.
        """
        name = _dtype_name(self._described[tensor].get("properties"))
        if name is None:
            raise self.error("its dtype is not one.", tensor)
        return TensorInfo(self._shape(tensor), FLOATING[name]) if name in FLOATING else None

    def n_entries(self, tensor: str) -> int:
        """Number of a tensor's entries, of any dtype, as far as it matters for telling the model; 2^40 at most.

        Raises:
            CheckpointFormatError: It has no shape.
        """
        return min(math.prod(self._shape(tensor)), _MOST_ENTRIES)

    def chunks(self, tensor: str, shape: tuple[int, ...]) -> list[tuple[Box, Entry]]:
        """The chunks of a tensor of this shape, which they tile, and where each lies; those without entries left out.

        Raises:
            CheckpointFormatError: They do not tile it, or the metadata does not tell where one lies.
        """
        listed, entries = self._described[tensor].get("chunks"), self._entries.get(tensor, {})
        if not isinstance(listed, list) or len(listed) > len(entries):
            # Compared before any is looked at: a pickle may name one list a million times over.
            raise self.error(f"it does not tell where all chunks lie; it does of {len(entries)}.", tensor)
        boxes = [_box(chunk) for chunk in listed]
        known = [box for box in boxes if box is not None]
        flaw = "a chunk's offsets or sizes are no numbers" if len(known) < len(boxes) else flaw_of_tiling(shape, known)
        if flaw:
            raise self.error(f"{flaw}.", tensor)
        return [(box, self._entry(tensor, box[0], entries)) for box in known if 0 not in box[1]]

    def _shape(self, tensor: str) -> tuple[int, ...]:
        shape = _numbers(self._described[tensor].get("size"))
        if shape is None:
            raise self.error("its shape is not one.", tensor)
        return shape

    def error(self, what: str, tensor: str | None = None) -> CheckpointFormatError:
        """An error about this file."""
        return CheckpointFormatError(what, file=self.name, tensor=tensor)

    def _entry(self, tensor: str, offsets: tuple[int, ...], entries: Mapping[tuple[int, ...], object]) -> Entry:
        told = _fields(entries.get(offsets), "_StorageInfo") or {}
        match told.get("relative_path"), told.get("offset"), told.get("length"), told.get("transform_descriptors"):
            case str(file), int(offset), int(length), (None | list() | tuple()) as transforms if (
                min(offset, length) >= 0
            ):
                return Entry(file, offset, length, tuple(_shown(transform) for transform in transforms or ()))
        raise self.error(f"it does not tell where the chunk at {offsets} lies.", tensor)


def read_metadata(file: RawFile) -> DcpMetadata:
    """What `file` tells; nothing in it is executed.

    Raises:
        CheckpointFormatError: Truncated, damaged, or not what torch.distributed.checkpoint writes.
        UnsafeCheckpointError: It asks for code.
    """
    try:
        told = _fields(load(file, file=file.name), "Metadata") or {}
    except CheckpointFormatError as error:
        error.next_step = (
            f"if torch reads it, convert the folder: `python -m {_CONVERTER} dcp_to_torch FOLDER FILE.pt`."
        )
        raise
    described, stored = told.get("state_dict_metadata"), told.get("storage_data")
    if not isinstance(described, dict) or not isinstance(stored, dict):
        raise CheckpointFormatError(
            "expected the `Metadata` of torch.distributed.checkpoint with `state_dict_metadata` and `storage_data`.",
            file=file.name,
        )
    tensors = {
        name: fields
        for name, value in described.items()
        if isinstance(name, str) and (fields := _fields(value, "TensorStorageMetadata")) is not None
    }
    planned = told.get("planner_data")
    paths = {name: _key_path(name, planned if isinstance(planned, dict) else {}, file.name) for name in tensors}
    return DcpMetadata(file.name, paths, tensors, _by_tensor(stored))


def _by_tensor(stored: Mapping[object, object]) -> dict[str, dict[tuple[int, ...], object]]:
    """What `storage_data` tells, by tensor and by the chunk's offsets."""
    entries: dict[str, dict[tuple[int, ...], object]] = defaultdict(dict)
    for index, told in stored.items():
        key = _fields(index, "MetadataIndex") or {}
        name, offsets = key.get("fqn"), _numbers(key.get("offset"))
        if isinstance(name, str) and offsets is not None:
            entries[name][offsets] = told
    return entries


def _key_path(name: str, planned: Mapping[object, object], file: str) -> KeyPath:
    """The keys that led to the tensor; its whole name where none are told, as when a flat dictionary was saved as such.

    Raises:
        CheckpointFormatError: What is told are no keys.
    """
    match planned.get(name, (name,)):
        case tuple(path) if 0 < len(path) <= _DEEPEST and all(isinstance(key, (str, int)) for key in path):
            return path
    raise CheckpointFormatError(
        f"the keys that led to it are not told as up to {_DEEPEST} words and numbers.", file=file, tensor=name
    )


def _fields(value: object, kind: str) -> dict[object, object] | None:
    """The fields of a record of torch's class `kind`; None for anything else."""
    match value:
        case Made(name=name, state=dict(state)) if _is_of_torch(name, kind):
            return state
    return None


def _is_of_torch(name: str, kind: str) -> bool:
    # The module moved from torch.distributed._shard.checkpoint to torch.distributed.checkpoint in torch 2.0.
    return name.startswith("torch.distributed.") and name.endswith(f".{kind}")


def _shown(transform: object) -> str:
    return ascii(transform)[1:-1][:40] if isinstance(transform, str) else "an unknown transform"


def _box(chunk: object) -> Box | None:
    fields = _fields(chunk, "ChunkStorageMetadata") or {}
    offsets, sizes = _numbers(fields.get("offsets")), _numbers(fields.get("sizes"))
    return None if offsets is None or sizes is None else (offsets, sizes)


def _numbers(size: object) -> tuple[int, ...] | None:
    """The numbers in a `torch.Size`; None when there are too many or too large ones, or it is none."""
    match size:
        case Made(name="torch.Size", arguments=(tuple(numbers),)) if len(numbers) <= _DIMENSIONS:
            if all(type(number) is int and 0 <= number <= _LARGEST for number in numbers):
                return numbers
    return None


def _dtype_name(properties: object) -> str | None:
    """The dtype's full name, first in the state of `TensorProperties`; None when it is not told."""
    match properties:
        case Made(name=name, state=(Made(name=dtype), *_)) if _is_of_torch(name, "TensorProperties"):
            return dtype if dtype.startswith("torch.") else None
    return None
