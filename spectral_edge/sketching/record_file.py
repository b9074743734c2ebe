"""One append-only file with the sketches of a run: a header, then one record after another.

    b"SESKETCH"                                                     8 bytes
    format version, bytes of the header, CRC-32 of it               3 x uint32
    header: JSON in UTF-8                                           see Header
    for each record:
        bytes of the payload, CRC-32 of it                          uint64, uint32
        payload: step int64, learning rate float64 (NaN: unknown),
                 the sketch as float64, metrics as JSON in UTF-8

All numbers are little-endian. A record is written by one call of the system, so that a process killed while it writes
leaves at most one record torn, at the end; the reader leaves that one out, and a recorder that goes on cuts it off.
A file is untrusted: nothing in it is executed, and nothing is allocated because a number in it says so.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from spectral_edge.band import Matrix
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.groups import CATEGORIES, Cell
from spectral_edge.sketching.sketcher import LARGEST_SIZE, CellSketch, Sketcher

FORMAT_VERSION: Final = 1

_MAGIC: Final = b"SESKETCH"
_HEAD: Final = struct.Struct("<III")
_FRAME: Final = struct.Struct("<QI")
_POINT: Final = struct.Struct("<qd")
_NUMBER: Final = np.dtype("<f8")

_MOST_HEADER_BYTES: Final = 1 << 24
_MOST_METRIC_BYTES: Final = 1 << 16
_MOST_PARAMETERS: Final = 1 << 53


@dataclass(frozen=True)
class Header:
    """What all records of a file share.

    Attributes:
        seed: Of the sketch.
        layout: Hash of the tensors' names and numbers of entries.
        cells: How each cell is sketched, in the order in which a record holds their numbers.
    """

    seed: int
    layout: str
    cells: tuple[CellSketch, ...]

    @classmethod
    def of(cls, sketcher: Sketcher) -> Header:
        """The header of a file that `sketcher` fills."""
        return cls(sketcher.seed, sketcher.layout, sketcher.cells)

    @property
    def numbers(self) -> int:
        """Numbers in a record's sketch."""
        return sum(cell.size for cell in self.cells)

    @property
    def sketch_sizes(self) -> tuple[int, ...]:
        """Numbers kept of each cell that has more parameters than that, increasing; empty where all is exact."""
        return tuple(sorted(cell.size for cell in self.cells if cell.size < cell.n_parameters))

    def to_bytes(self) -> bytes:
        """How a file begins."""
        cells = [asdict(one) | one.cell._asdict() for one in self.cells]
        content = json.dumps({"seed": self.seed, "layout": self.layout, "cells": cells}).encode()
        return _MAGIC + _HEAD.pack(FORMAT_VERSION, len(content), zlib.crc32(content)) + content


@dataclass(frozen=True)
class Record:
    """One record of a file, without its sketch.

    Attributes:
        step: Training step.
        learning_rate: None where it was not told.
        metrics: What was logged with it.
        offset: Where in the file its sketch begins.
        size: Bytes of its payload.
        checksum: CRC-32 of the payload.
    """

    step: int
    learning_rate: float | None
    metrics: Mapping[str, float]
    offset: int
    size: int
    checksum: int


@dataclass(frozen=True)
class RecordFile:
    """What a file holds.

    Attributes:
        path: The file.
        header: What all records share.
        records: The records in the order of the file.
        end: Where the last whole record ends.
        torn: Bytes after that, of a record that was not written to its end.
    """

    path: Path
    header: Header
    records: tuple[Record, ...]
    end: int
    torn: int

    def sketches(self, records: tuple[Record, ...]) -> Iterator[Matrix]:
        """The sketch of each of `records`, one at a time: shape (numbers,), float64.

        Raises:
            CheckpointFormatError: A record is damaged, or has changed since the file was looked at.
        """
        with self.path.open("rb") as file:
            for record in records:
                file.seek(record.offset - _POINT.size)
                payload = file.read(record.size)
                if zlib.crc32(payload) != record.checksum:
                    raise CheckpointFormatError(
                        f"the record of step {record.step} is damaged.",
                        file=str(self.path),
                        next_step="restore the file from a copy and audit it with --force, or record the run anew.",
                    )
                yield np.frombuffer(payload, _NUMBER, self.header.numbers, _POINT.size).astype(np.float64)


def record_bytes(step: int, sketch: Matrix, learning_rate: float | None, metrics: Mapping[str, float]) -> bytes:
    """A record as it is appended to a file. Metrics beyond 64 KiB are left out from the last on."""
    rate = math.nan if learning_rate is None else learning_rate
    payload = _POINT.pack(step, rate) + sketch.astype(_NUMBER).tobytes() + _metric_bytes(metrics)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _metric_bytes(metrics: Mapping[str, float]) -> bytes:
    told: list[str] = []
    room = _MOST_METRIC_BYTES - len("{}")
    for name, value in metrics.items():
        pair = f"{json.dumps(name)}:{json.dumps(value)}"  # ASCII: as many bytes as characters
        room -= len(pair) + len(",")
        if room < 0:
            break
        told.append(pair)
    return f"{{{','.join(told)}}}".encode()


def read_file(path: Path, *, check: bool = True) -> RecordFile:
    """Read header and records. A record that is torn at the end is left out.

    Args:
        path: The file.
        check: Whether every byte is read and checked. Otherwise sketches are passed over, all but that of the last
            record; they are checked when they are asked for.

    Raises:
        CheckpointFormatError: Not such a file, of a newer format, or damaged before its last record.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        header = _header(file, str(path))
        records: list[Record] = []
        end = file.tell()
        smallest = _POINT.size + header.numbers * _NUMBER.itemsize
        while frame := file.read(_FRAME.size):
            record = _record(file, frame, smallest, size, check=check)
            if record is None:
                break
            records.append(record)
            end = file.tell()
    torn = size - end
    if torn > _FRAME.size + smallest + _MOST_METRIC_BYTES:
        raise CheckpointFormatError(
            f"record {len(records) + 1} is damaged, and more than one record follows it.",
            file=str(path),
            next_step=f"its first {end} bytes are whole: cut the file there to analyse the {len(records)} before.",
        )
    return RecordFile(path, header, tuple(records), end, torn)


def _header(file: BinaryIO, name: str) -> Header:
    head = file.read(len(_MAGIC) + _HEAD.size)
    if not head.startswith(_MAGIC) or len(head) < len(_MAGIC) + _HEAD.size:
        raise CheckpointFormatError(f"is no file of recorded sketches: it begins with {head[:8]!r}.", file=name)
    version, length, checksum = _HEAD.unpack(head[len(_MAGIC) :])
    if version > FORMAT_VERSION:
        raise CheckpointFormatError(
            f"has format version {version}, this spectral-edge knows versions up to {FORMAT_VERSION}.",
            file=name,
            next_step="update spectral-edge.",
        )
    if length > _MOST_HEADER_BYTES:
        raise CheckpointFormatError(f"claims a header of {length} bytes.", file=name)
    content = file.read(length)
    if len(content) < length or zlib.crc32(content) != checksum:
        raise CheckpointFormatError("the header is damaged.", file=name)
    try:
        return _parsed(json.loads(content))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise CheckpointFormatError(f"the header is not as expected: {error!r:.100}", file=name) from error


def _parsed(content: Any) -> Header:
    cells = tuple(
        CellSketch(
            Cell(_text(one["category"]), _text(one["layer"])),
            _whole(one["n_parameters"], 1, _MOST_PARAMETERS),
            _whole(one["size"], 1, LARGEST_SIZE),
            float(one["rounding_eps"]),
        )
        for one in content["cells"]
    )
    kinds = [one.cell for one in cells]
    if not cells or len(set(kinds)) < len(kinds) or any(cell.category not in CATEGORIES for cell in kinds):
        raise ValueError("cells are missing, told twice, or of no known category")
    if any(not 0 <= one.rounding_eps < 1 or one.size > one.n_parameters for one in cells):
        raise ValueError("a cell's size or rounding is impossible")
    return Header(_whole(content["seed"], -(2**63), 2**63), _text(content["layout"]), cells)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise ValueError(f"expected a short text, got {value!r:.40}")
    value.encode()  # a lone surrogate is no text that a table can hold
    return value


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"expected a number from {low} to {high}, got {value!r:.40}")
    return value


def _record(file: BinaryIO, frame: bytes, smallest: int, size: int, *, check: bool) -> Record | None:
    """The record that `frame` begins; None where it is not whole."""
    if len(frame) < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack(frame)
    if not smallest <= length <= min(smallest + _MOST_METRIC_BYTES, size - file.tell()):
        return None
    start = file.tell()
    if check or start + length == size:
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return None
        point, metrics = payload[: _POINT.size], payload[smallest:]
    else:
        point = file.read(_POINT.size)
        file.seek(start + smallest)
        metrics = file.read(length - smallest)
        if len(point) < _POINT.size or len(metrics) < length - smallest:
            return None
    step, rate = _POINT.unpack(point)
    told = rate if math.isfinite(rate) else None
    return Record(step, told, _metrics(metrics), start + _POINT.size, length, checksum)


def _metrics(content: bytes) -> dict[str, float]:
    """Metrics of a record; those that are no numbers are left out."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: float(value) for name, value in found.items() if isinstance(value, (int, float)) and abs(value) < 1e308
    }
