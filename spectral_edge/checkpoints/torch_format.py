"""Reader of files written by torch.save: zip archives, and the older plain format.

This is the only place in the package that calls `torch.load`, always with `weights_only=True`, and only after
:mod:`pickle_scan` has found nothing but plain tensors in the pickle. A zip archive is loaded with `mmap=True`, which
touches no tensor data; that load serves to learn where the tensors lie, and blocks are then read by position. The
older format cannot be mapped: it is loaded once and copied to a scratch file.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import torch
from torch.types import Storage

from spectral_edge.checkpoints.block_reader import FileContents, StoredTensor
from spectral_edge.checkpoints.pickle_scan import scan
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import Bytes, RawFile, ScratchFile
from spectral_edge.checkpoints.state_dict import find_state_dict
from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError

ZIP_MAGIC: Final = b"PK\x03\x04"
LEGACY_MAGIC: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The pickled magic number with which torch.save began its files before torch 1.6."""

PICKLE_LIMIT: Final = 16 * 2**20
"""Largest pickle that is looked at: a model's is about 150 bytes a tensor."""

_LEGACY_PICKLES: Final = 5  # magic number, protocol, system, the object, the storages' keys

_OVERLAP: Final = 4
"""How many times the file's size its tensors may add up to: views may overlap, but a few bytes must not be declared
to be a tensor of terabytes."""

_LOAD_ERRORS: Final = (
    RuntimeError,  # torch's own, and RecursionError, NotImplementedError
    ValueError,  # and UnicodeDecodeError
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,  # IndexError and KeyError of an empty stack or memo
    EOFError,
    struct.error,
    OverflowError,
    MemoryError,  # a storage declared larger than the machine
    OSError,
)
"""All that torch.load raises on damaged pickles and archives beside UnpicklingError."""


@dataclass(frozen=True)
class _Record:
    """One member of the archive: where its bytes begin in the file, and how many they are."""

    offset: int
    size: int


def read_torch_archive(file: RawFile, scratch: ScratchFile) -> FileContents:
    """The tensors of one zip archive; only tensors that are not contiguous are read, and copied to `scratch`.

    Raises:
        CheckpointFormatError: Damaged, truncated, or not an archive of torch.save.
        UnsafeCheckpointError: It asks for code.
        DiskFullError: No room for the copies.
    """
    records, pickled = _directory(file)
    contents = scan(pickled, 1, file.name)
    storages: list[Storage] = []

    def remember(storage: Storage, _: str) -> Storage:
        storages.append(storage)
        return storage

    loaded = _load(file, remember, mmap=True)
    base = _map_address(contents.storage_keys, storages, records, file)
    places = {record.offset: record.size for record in records.values()}

    def stored(name: str, tensor: torch.Tensor) -> StoredTensor:
        storage = tensor.untyped_storage()
        at = storage.data_ptr() - base
        if places.get(at) != storage.nbytes():
            raise CheckpointFormatError("its declared size is not that of its record.", file=file.name, tensor=name)
        begin = at + int(tensor.storage_offset()) * tensor.itemsize
        if tensor.is_contiguous():
            return StoredTensor.at(_info(tensor), file, begin)
        return _copied(_gathered(tensor, file, begin), (file.name, begin, tensor.numel()), scratch)

    return _contents(loaded, file, stored)


def read_torch_legacy(file: RawFile, scratch: ScratchFile) -> FileContents:
    """The tensors of one file in torch's older format, copied to `scratch` so that they do not stay in memory.

    Raises:
        CheckpointFormatError: Damaged or truncated.
        UnsafeCheckpointError: It asks for code.
        DiskFullError: No room for the copy.
    """
    scan(bytes(file.read(0, min(file.size, PICKLE_LIMIT))), _LEGACY_PICKLES, file.name)
    loaded = _load(file, lambda storage, _: storage, mmap=False)

    def stored(_: str, tensor: torch.Tensor) -> StoredTensor:
        return _copied(tensor, (file.name, tensor.data_ptr(), tensor.numel()), scratch)

    return _contents(loaded, file, stored)


def _load(file: RawFile, map_location: Callable[[Storage, str], Storage], *, mmap: bool) -> object:
    # By descriptor: torch must load the file that was scanned, and it trusts a name that ends in .safetensors.
    try:
        return torch.load(file.descriptor_path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
        raise UnsafeCheckpointError(
            f"torch's safe loader refused the file: {reason} Nothing was executed.",
            file=file.name,
            next_step="save the weights alone, `torch.save(model.state_dict(), ...)`, or use safetensors.",
        ) from error
    except _LOAD_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointFormatError(f"damaged or truncated: torch says {reason!r}.", file=file.name) from error


def _directory(file: RawFile) -> tuple[dict[str, _Record], bytes]:
    """The archive's storages by key, and its pickle."""
    try:
        with zipfile.ZipFile(file.descriptor_path) as archive:
            members = archive.infolist()
            _check_members(members, file)
            root, pickled = _pickle_member(members, file)
            content = archive.read(pickled)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, EOFError, OSError) as error:
        raise CheckpointFormatError(f"truncated or damaged zip archive: {error}.", file=file.name) from error
    prefix = f"{root}data/"
    return {
        member.filename.removeprefix(prefix): _record(member, file)
        for member in members
        if member.filename.startswith(prefix)
    }, content


def _check_members(members: Iterable[zipfile.ZipInfo], file: RawFile) -> None:
    names: set[str] = set()
    for member in members:
        parts = member.filename.split("/")
        if member.filename in names or ".." in parts or parts[0] == "":
            _not_written_by_torch(
                file, f"a member named `{ascii(member.filename)[1:-1][:100]}`, twice or outside the archive"
            )
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            _not_written_by_torch(file, "a compressed or encrypted member")
        if parts[1:] == ["constants.pkl"]:
            raise UnsafeCheckpointError(
                "the file is a TorchScript archive, which holds code. Nothing was executed.",
                file=file.name,
                next_step="save the weights: `torch.save(model.state_dict(), ...)`.",
            )
        names.add(member.filename)


def _pickle_member(members: Iterable[zipfile.ZipInfo], file: RawFile) -> tuple[str, zipfile.ZipInfo]:
    found = {member.filename: member for member in members if member.filename.split("/")[1:] == ["data.pkl"]}
    if len(found) != 1:
        _not_written_by_torch(file, f"{len(found)} members `data.pkl`")
    name, member = found.popitem()
    if member.file_size > PICKLE_LIMIT:
        _not_written_by_torch(file, f"a pickle of {member.file_size} bytes (the limit is {PICKLE_LIMIT})")
    root = name.removesuffix("data.pkl")
    if any(other.filename == f"{root}byteorder" and other.file_size != len("little") for other in members):
        raise CheckpointFormatError("written on a big-endian machine, expected little-endian numbers.", file=file.name)
    return root, member


def _not_written_by_torch(file: RawFile, got: str) -> NoReturn:
    raise CheckpointFormatError(f"expected a zip archive as torch.save writes it, got {got}.", file=file.name)


def _record(member: zipfile.ZipInfo, file: RawFile) -> _Record:
    """Where a member's bytes lie: behind its local header, whose name and padding have lengths of their own."""
    header = bytes(file.read(member.header_offset, 30))
    name_length, extra_length = struct.unpack("<HH", header[26:])
    offset = member.header_offset + 30 + name_length + extra_length
    if offset + member.file_size > file.size:
        raise CheckpointFormatError(
            f"truncated: member `{ascii(member.filename)[1:-1]}` runs past the end.", file=file.name
        )
    return _Record(offset, member.file_size)


def _map_address(
    keys: Iterable[str], storages: Iterable[Storage], records: Mapping[str, _Record], file: RawFile
) -> int:
    """Address at which torch mapped the file: that of the first storage with data, less its record's offset.

    torch asks `map_location` once for each storage, in the pickle's order, and again for those without data.
    """
    known: set[str] = set()
    remaining = iter(storages)
    for key in keys:
        storage = None if key in known else next(remaining, None)
        if storage is not None and storage.nbytes():
            if key not in records:
                raise CheckpointFormatError(f"the archive has no record `data/{ascii(key)[1:-1]}`.", file=file.name)
            return storage.data_ptr() - records[key].offset
        if storage is not None and storage.data_ptr():
            known.add(key)
    return 0


def _contents(loaded: object, file: RawFile, stored: Callable[[str, torch.Tensor], StoredTensor]) -> FileContents:
    try:
        tensors = find_state_dict(loaded)
    except CheckpointFormatError as error:
        raise CheckpointFormatError(error.what, file=file.name) from error
    floating = {name: tensor.detach() for name, tensor in tensors.items() if _is_floating(tensor)}
    _check_plain(floating, file)
    return FileContents(frozenset(tensors), {name: stored(name, tensor) for name, tensor in floating.items()})


def _is_floating(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def _check_plain(tensors: Mapping[str, torch.Tensor], file: RawFile) -> None:
    declared = 0
    for name, tensor in tensors.items():
        if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise CheckpointFormatError("expected a dense tensor.", file=file.name, tensor=name)
        if tensor.is_neg() or tensor.is_nested:
            raise CheckpointFormatError(
                "expected a plain tensor, got a lazy or nested one.", file=file.name, tensor=name
            )
        declared += tensor.numel() * tensor.itemsize
        if tensor.numel() * tensor.itemsize > file.size or declared > _OVERLAP * file.size:
            raise CheckpointFormatError(
                f"shape {tuple(tensor.shape)} asks for more than the {file.size} bytes that the file has.",
                file=file.name,
                tensor=name,
            )


def _info(tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(tuple(tensor.shape), tensor.dtype)


def _gathered(tensor: torch.Tensor, file: RawFile, begin: int) -> torch.Tensor:
    """`tensor`, which is not contiguous, from the bytes that it spans; the map itself stays untouched."""
    span = 1 + sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride(), strict=True))
    flat = torch.from_numpy(file.read(begin, span * tensor.itemsize)).view(tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride())


def _copied(tensor: torch.Tensor, place: tuple[str, int, int], scratch: ScratchFile) -> StoredTensor:
    flat: Bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return StoredTensor.at(_info(tensor), scratch.file, scratch.append(flat), place)
