"""From tensors as views of storages to where their bytes lie: in place when contiguous, else copied to scratch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch

from spectral_edge.checkpoints.block_reader import FileContents, StoredTensor
from spectral_edge.checkpoints.module_pickle import without_records
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import Bytes, RawFile, ScratchFile
from spectral_edge.checkpoints.state_dict import find_state_dict
from spectral_edge.checkpoints.tensor_records import Storage, TensorRecord
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind

_OVERLAP: Final = 4
"""How many times the file's size its tensors may add up to: views may overlap, but a few bytes must not be declared
to be a tensor of terabytes."""


class Region(NamedTuple):
    """The bytes of a storage: `size` of them from `offset` on."""

    offset: int
    size: int


def contents_of(
    loaded: object,
    file: RawFile,
    scratch: ScratchFile,
    region_of: Callable[[Storage], Region | None],
    kinds: frozenset[Kind],
) -> FileContents:
    """The tensors in `loaded`, what a file of torch holds, read inertly and with :class:`TensorRecord` for its tensors.

    Args:
        loaded: A dictionary as training loops save it, a module, or either within the other.
        file: The file.
        scratch: Where copies of tensors that are not contiguous go.
        region_of: Where in the file a storage lies; None when it is not there.
        kinds: Which tensors to give.

    Raises:
        CheckpointFormatError: There are none, or one is said to be larger than its storage, or is none that is dense.
        DiskFullError: No room for the copies.
    """
    try:
        found = find_state_dict(without_records(loaded), kinds)
    except CheckpointFormatError as error:
        raise CheckpointFormatError(error.what, file=file.name) from error
    views = _Views(file, scratch, region_of)
    tensors = {name: leaf for name, leaf in found.items() if isinstance(leaf, TensorRecord) and leaf.entries}
    stored = {name: views.stored(name, tensor, info) for name, tensor in tensors.items() if (info := tensor.info)}
    buffers = frozenset(name for name, tensor in found.items() if tensor.is_buffer)
    return FileContents(frozenset(found), stored, buffers)


def stored_tensor(
    tensor: TensorRecord, file: RawFile, scratch: ScratchFile, region_of: Callable[[Storage], Region | None]
) -> StoredTensor | None:
    """Where the bytes of a single tensor lie; None when it is not of floating point. See :func:`contents_of`."""
    info = tensor.info
    return None if info is None else _Views(file, scratch, region_of).stored(None, tensor, info)


class _Views:
    """Places views of the storages of one file."""

    def __init__(self, file: RawFile, scratch: ScratchFile, region_of: Callable[[Storage], Region | None]) -> None:
        self._file = file
        self._scratch = scratch
        self._region_of = region_of
        self._declared = 0

    def stored(self, name: str | None, tensor: TensorRecord, info: TensorInfo) -> StoredTensor:
        """Where the tensor's bytes lie."""
        if tensor.flaw or tensor.storage is None:
            raise self._error(name, f"expected a plain dense tensor, got {tensor.flaw}.")
        self._check_size(name, info)
        begin = self._begin(name, tensor, tensor.storage, info.dtype.itemsize)
        place = (self._file.name, self._file.begin + begin, info.n_parameters)
        if _is_contiguous(tensor):
            return StoredTensor.at(info, self._file, begin, place)
        gathered = self._gathered(tensor, info, begin)
        return StoredTensor.at(info, self._scratch.file, self._scratch.append(gathered), place)

    def _check_size(self, name: str | None, info: TensorInfo) -> None:
        """Hold the declared shape to the size of the file, before anything is made of it."""
        count, size = info.n_parameters * info.dtype.itemsize, self._file.size
        self._declared += count
        if count > size or self._declared > _OVERLAP * size:
            raise self._error(name, f"shape {str(info.shape)[:100]} asks for more than the {size} bytes of the file.")

    def _begin(self, name: str | None, tensor: TensorRecord, storage: Storage, itemsize: int) -> int:
        """First byte of the tensor in the file."""
        region = self._region_of(storage)
        if region is None:
            raise self._error(name, f"the file has no storage {ascii(storage.key)[:100]}.")
        size = storage.entries * storage.itemsize
        if region.size != size:
            raise self._error(name, f"its storage is said to have {size} bytes, got {region.size}.")
        # Of a storage without a type the tensor tells one: then its entries are bytes.
        first, count = (number * storage.itemsize // itemsize for number in storage.part)
        if tensor.offset + _span(tensor) > count:
            raise self._error(
                name,
                f"shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} ask for more than the "
                f"{count} entries of its storage.",
            )
        return region.offset + (first + tensor.offset) * itemsize

    def _gathered(self, tensor: TensorRecord, info: TensorInfo, begin: int) -> Bytes:
        """The row-major bytes of a tensor that is not contiguous, from those that it spans."""
        flat = torch.from_numpy(self._file.read(begin, _span(tensor) * info.dtype.itemsize)).view(info.dtype)
        steps = [stride if extent > 1 else 0 for extent, stride in zip(tensor.shape, tensor.strides, strict=True)]
        in_order: Bytes = flat.as_strided(tensor.shape, steps).contiguous().view(-1).view(torch.uint8).numpy()
        return in_order

    def _error(self, name: str | None, what: str) -> CheckpointFormatError:
        return CheckpointFormatError(what, file=self._file.name, tensor=name)


def _span(tensor: TensorRecord) -> int:
    """Entries of the storage from the tensor's first to its last."""
    return 1 + sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.strides, strict=True))


def _is_contiguous(tensor: TensorRecord) -> bool:
    expected = 1
    for extent, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if extent > 1 and stride != expected:
            return False
        expected *= extent
    return True
