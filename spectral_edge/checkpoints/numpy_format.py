"""Reader of NumPy's .npz archives and .npy files.

The format (numpy.lib.format): a magic string, a version, the header's length, the header (a Python literal with
`descr`, `fortran_order` and `shape`), then the entries; an .npz is a zip archive of these. Headers are read as literals
only and never longer than numpy itself trusts. numpy's own reader of headers is not used: it warns of what Python 2
wrote where an error is due, and keeps to itself how long the header was.

Read in place: what np.savez and np.save write. Copied to scratch: what np.savez_compressed writes, and tensors in
Fortran order. Arrays of objects are pickles: never looked into, and refused.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from spectral_edge.checkpoints.block_reader import FileContents, Place, StoredTensor
from spectral_edge.checkpoints.copies import CopyAllowance, append_all
from spectral_edge.checkpoints.dotted import dotted
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import Bytes, RawFile, ScratchFile
from spectral_edge.checkpoints.zip_members import Member, zip_members
from spectral_edge.errors import CheckpointError, CheckpointFormatError, UnsafeCheckpointError

NPY_MAGIC: Final = b"\x93NUMPY"

NPY_SUFFIX: Final = ".npy"

ONLY_ARRAY: Final = "array"
"""What the one tensor of an .npy file is called."""

_LENGTH_BYTES: Final = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}
_HEADER_LIMIT: Final = 10_000
"""Longest header in bytes: what numpy reads from files that it does not trust."""

_FLOATING: Final = {"<f8": torch.float64, "<f4": torch.float32, "<f2": torch.float16}
_DIMENSIONS: Final = 64

_SLAB: Final = 64 * 2**20
"""Bytes that are put in order in memory at a time."""

_SHORTEST_RUN: Final = 128
"""Bytes that lie together below which putting in order would take a second for 50 MB."""


@dataclass(frozen=True)
class _Header:
    """What an array's header tells; `descr` is empty for structured arrays, `length` is where the entries begin."""

    descr: str
    fortran: bool
    shape: tuple[int, ...]
    length: int


def read_npy(file: RawFile, scratch: ScratchFile) -> FileContents:
    """The one tensor of an .npy file, called `array`; read in place unless it lies in Fortran order.

    Raises:
        CheckpointFormatError: Damaged, truncated, or of a dtype that cannot be read.
        UnsafeCheckpointError: It holds pickled objects.
        DiskFullError: No room for the copy.
    """
    header = _header(bytes(file.read(0, min(file.size, _HEADER_LIMIT))), ONLY_ARRAY, file)
    dtype = _dtype(header, ONLY_ARRAY, file)
    if dtype is None:
        return FileContents(frozenset({ONLY_ARRAY}), {})
    info = TensorInfo(header.shape, dtype)
    _check_size(header, info, file.size, ONLY_ARRAY, file)
    stored = _stored(header, info, file, header.length, scratch, ONLY_ARRAY)
    return FileContents(frozenset({ONLY_ARRAY}), {ONLY_ARRAY: stored})


def read_npz(file: RawFile, scratch: ScratchFile) -> FileContents:
    """The tensors of an .npz archive, under dotted names; compressed ones are inflated to `scratch` once.

    Raises:
        CheckpointFormatError: Damaged, truncated, of a dtype that cannot be read, or larger than the file may come to.
        UnsafeCheckpointError: It holds pickled objects.
        DiskFullError: No room for the copies.
    """
    members = {member.name.removesuffix(NPY_SUFFIX): member for member in zip_members(file)}
    names = dotted(members, file.name)
    allowance = CopyAllowance(file)
    tensors = {}
    for key, member in members.items():
        stored = _member_tensor(member, names[key], scratch, allowance)
        if stored is not None:
            tensors[names[key]] = stored
    return FileContents(frozenset(names.values()), tensors)


def _member_tensor(member: Member, name: str, scratch: ScratchFile, allowance: CopyAllowance) -> StoredTensor | None:
    file = member.file
    header = _header(member.head(_HEADER_LIMIT), name, file)
    dtype = _dtype(header, name, file)
    if dtype is None:
        return None
    info = TensorInfo(header.shape, dtype)
    _check_size(header, info, member.size, name, file)
    if not member.deflated:
        return _stored(header, info, file, member.offset + header.length, scratch, name)
    allowance.take(member.size * (2 if header.fortran else 1), name)
    begin = append_all(scratch, member.inflated())
    place = (file.name, member.offset, info.n_parameters)
    return _stored(header, info, scratch.file, begin + header.length, scratch, name, place)


def _header(head: bytes, name: str, file: RawFile) -> _Header:
    width = _LENGTH_BYTES.get(head[6:8], 0)
    if not head.startswith(NPY_MAGIC) or not width:
        raise CheckpointFormatError(
            f"begins with {head[:8]!r}, expected a NumPy array of version 1.0, 2.0 or 3.0.", file=file.name, tensor=name
        )
    begin = 8 + width
    length = begin + int.from_bytes(head[8:begin], "little")
    if length > len(head):
        raise CheckpointFormatError(
            f"its header claims {length} bytes, expected at most {len(head)}: truncated or damaged.",
            file=file.name,
            tensor=name,
        )
    try:
        told = ast.literal_eval(head[begin:length].decode("latin1"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise CheckpointFormatError("its header is not a Python literal.", file=file.name, tensor=name) from error
    match told:
        case {"descr": str() | list() as descr, "fortran_order": bool(fortran), "shape": tuple(shape)} if _is_shape(
            shape
        ):
            if "|O" in repr(descr):
                raise _pickled(name, file)
            return _Header(descr if isinstance(descr, str) else "", fortran, shape, length)
        case _:
            raise CheckpointFormatError(
                "expected `descr`, `fortran_order` and `shape` in its header.", file=file.name, tensor=name
            )


def _is_shape(shape: tuple[object, ...]) -> bool:
    return len(shape) <= _DIMENSIONS and all(type(extent) is int and extent >= 0 for extent in shape)


def _pickled(name: str, file: RawFile) -> CheckpointError:
    return UnsafeCheckpointError(
        "an array of Python objects, which numpy keeps as a pickle. Nothing was executed.",
        file=file.name,
        tensor=name,
        next_step="save the arrays by name, `np.savez(path, **arrays)`, not a dictionary of them as one.",
    )


def _dtype(header: _Header, name: str, file: RawFile) -> torch.dtype | None:
    """The tensor's dtype; None for what holds no floating point numbers."""
    dtype = _FLOATING.get(header.descr)
    if dtype is not None:
        return dtype
    kind, size = header.descr[1:2], header.descr[2:]
    if kind == "V" and size in {"1", "2"}:
        raise CheckpointFormatError(
            f"numpy kept {size} bytes an entry without telling which numbers they are: bfloat16 or float8.",
            file=file.name,
            tensor=name,
            next_step="convert it before saving, `array.astype(np.float32)`, or use safetensors, which knows the type.",
        )
    if kind == "f":
        raise CheckpointFormatError(
            f"got numbers of type {ascii(header.descr)[:20]}, expected little-endian float16, float32 or float64.",
            file=file.name,
            tensor=name,
            next_step="convert it before saving: `array.astype('<f4')`.",
        )
    return None


def _check_size(header: _Header, info: TensorInfo, size: int, name: str, file: RawFile) -> None:
    """Hold the declared shape to the bytes there are, without the minutes that a hostile shape's product takes."""
    room = size - header.length
    asked = 0 if 0 in header.shape else info.dtype.itemsize
    for extent in header.shape:
        asked *= extent
        if asked > room:
            break
    if asked != room:
        raise CheckpointFormatError(
            f"shape {str(header.shape)[:100]} asks for {'more' if asked > room else 'fewer'} bytes than the {room} "
            "there are: truncated or damaged.",
            file=file.name,
            tensor=name,
        )


def _stored(
    header: _Header,
    info: TensorInfo,
    file: RawFile,
    offset: int,
    scratch: ScratchFile,
    name: str,
    place: Place | None = None,
) -> StoredTensor:
    if not header.fortran or sum(extent > 1 for extent in info.shape) < 2 or 0 in info.shape:
        return StoredTensor.at(info, file, offset, place)
    begin = append_all(scratch, _row_major(info, file, offset, name))
    return StoredTensor.at(info, scratch.file, begin, place or (file.name, offset, info.n_parameters))


def _row_major(info: TensorInfo, file: RawFile, offset: int, name: str) -> Iterator[Bytes]:
    """The bytes of a tensor in Fortran order, put in row-major order a slab of first indices at a time.

    The file runs over the first index fastest: it is a C array of the reversed shape, here (others, first).

    Raises:
        CheckpointFormatError: So few entries of a slab lie together that reading them one by one takes minutes.
    """
    itemsize, first = info.dtype.itemsize, info.shape[0]
    others = info.n_parameters // first
    rows = min(first, _SLAB // (others * itemsize))
    if rows < first and rows * itemsize < _SHORTEST_RUN:
        raise CheckpointFormatError(
            f"a tensor of shape {info.shape} in Fortran order takes minutes to read.",
            file=file.name,
            tensor=name,
            next_step="save `np.ascontiguousarray(array)`.",
        )
    for begin in range(0, first, rows):
        count = min(rows, first - begin)
        slab = np.empty((others, count * itemsize), dtype=np.uint8)
        if count == first:
            file.read_into(offset, slab.reshape(-1))
        else:
            for other, run in enumerate(slab):
                file.read_into(offset + (other * first + begin) * itemsize, run)
        entries = slab.view(f"u{itemsize}").reshape(*reversed(info.shape[1:]), count)
        yield np.ascontiguousarray(entries.T).reshape(-1).view(np.uint8)
