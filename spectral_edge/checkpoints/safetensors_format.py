"""Reader of .safetensors files.

The format (specified in the README of github.com/huggingface/safetensors): a little-endian u64 with the header's
length, a JSON header {name: {dtype, shape, data_offsets}}, then the data, which the tensors must fill without holes
or overlaps. The header is parsed here, and not by the safetensors library, because the library gives slices by
dimension and keeps each file mapped, while blocks of the flattened tensor need the offsets themselves. Tests hold this
reader to the library's verdict on damaged files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from spectral_edge.checkpoints.block_reader import FileContents, StoredTensor
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.errors import CheckpointFormatError

HEADER_LIMIT: Final = 100_000_000
"""Largest header in bytes, as the format sets it."""

_MOST_TENSORS: Final = 100_000
"""Most tensors in a file: no model comes near, and a million take half a minute and gigabytes to look at."""

_MOST_VALUES: Final = 10 * _MOST_TENSORS
"""Most JSON values in a header, counted before it is parsed: a tensor of few dimensions takes five."""

_PREFIX: Final = 8

_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F8_E8M0": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

_FLOATING: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def looks_like_safetensors(file: RawFile) -> bool:
    """Whether the file begins as the format demands: a plausible header length, then a brace."""
    if file.size <= _PREFIX:
        return False
    head = bytes(file.read(0, _PREFIX + 1))
    return int.from_bytes(head[:_PREFIX], "little") <= HEADER_LIMIT and head[_PREFIX:] == b"{"


def read_safetensors(file: RawFile) -> FileContents:
    """The tensors of one .safetensors file; no data is read.

    Raises:
        CheckpointFormatError: The header is damaged, or does not fit the file.
    """
    length = _header_length(file)
    header = _parsed(file, bytes(file.read(_PREFIX, length)))
    _check_metadata(file, header.pop("__metadata__", {}))
    spans = {name: _span(file, name, entry, file.size - _PREFIX - length) for name, entry in header.items()}
    _check_filled(file, sorted((begin, end, name) for name, (begin, end) in spans.items()), _PREFIX + length)
    floating = {
        name: StoredTensor.at(
            TensorInfo(tuple(header[name]["shape"]), _FLOATING[header[name]["dtype"]]), file, _PREFIX + length + begin
        )
        for name, (begin, _) in spans.items()
        if header[name]["dtype"] in _FLOATING
    }
    return FileContents(frozenset(header), floating)


def _header_length(file: RawFile) -> int:
    if file.size < _PREFIX:
        raise CheckpointFormatError(
            f"got {file.size} bytes, expected at least the {_PREFIX} of a header.", file=file.name
        )
    length = int.from_bytes(bytes(file.read(0, _PREFIX)), "little")
    room = file.size - _PREFIX
    if length > HEADER_LIMIT:
        raise CheckpointFormatError(f"the header claims {length} bytes, the limit is {HEADER_LIMIT}.", file=file.name)
    if length > room:
        raise CheckpointFormatError(
            f"truncated: the header claims {length} bytes, the file has {room} after its first {_PREFIX}.",
            file=file.name,
        )
    return length


def _parsed(file: RawFile, header: bytes) -> dict[str, Any]:
    if header.count(b",") > _MOST_VALUES:
        raise CheckpointFormatError(f"the header holds more than {_MOST_VALUES} values.", file=file.name)
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise CheckpointFormatError("the header is nested too deeply.", file=file.name) from error
    except ValueError as error:
        raise CheckpointFormatError(f"the header is not valid JSON: {error}.", file=file.name) from error
    if not isinstance(parsed, dict):
        raise CheckpointFormatError(
            f"the header is a JSON {type(parsed).__name__}, expected an object.", file=file.name
        )
    if len(parsed) - ("__metadata__" in parsed) > _MOST_TENSORS:
        raise CheckpointFormatError(f"the header names more than {_MOST_TENSORS} tensors.", file=file.name)
    return parsed


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _check_metadata(file: RawFile, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointFormatError("expected `__metadata__` to map names to text.", file=file.name)


def _span(file: RawFile, name: str, entry: object, room: int) -> tuple[int, int]:
    """First and last-but-one byte of a tensor within the data, after checking its header entry."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if dtype in _BITS:
            pass
        case _:
            raise CheckpointFormatError(
                "expected a known `dtype`, a `shape` and two `data_offsets` in the header entry.",
                file=file.name,
                tensor=name,
            )
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise CheckpointFormatError("shape and offsets must be non-negative integers.", file=file.name, tensor=name)
    if not begin <= end <= room:
        raise CheckpointFormatError(
            f"got data offsets {begin}:{end}, expected a range within the {room} bytes of data: truncated or damaged.",
            file=file.name,
            tensor=name,
        )
    _check_size(file, name, shape, _BITS[dtype], end - begin)
    return begin, end


def _check_size(file: RawFile, name: str, shape: Sequence[int], bits: int, got: int) -> None:
    expected = 0 if 0 in shape else bits
    for extent in shape:
        expected *= extent
        if expected > 8 * got:  # stop early: the full product of a hostile shape takes minutes
            break
    if expected != 8 * got:
        raise CheckpointFormatError(
            f"shape and dtype ask for {'more' if expected > 8 * got else 'fewer'} bytes than the {got} given.",
            file=file.name,
            tensor=name,
        )


def _check_filled(file: RawFile, spans: Sequence[tuple[int, int, str]], data_begins: int) -> None:
    reached = 0
    for begin, end, name in spans:
        if begin != reached:
            raise CheckpointFormatError(
                f"its data begin at byte {begin}, expected {reached}: tensors overlap or leave a hole.",
                file=file.name,
                tensor=name,
            )
        reached = end
    if data_begins + reached != file.size:
        raise CheckpointFormatError(
            f"the file has {file.size} bytes, its header accounts for {data_begins + reached}.", file=file.name
        )
