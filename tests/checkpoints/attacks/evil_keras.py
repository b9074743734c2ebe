"""Makes evil HDF5 files and .keras archives."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from tests.checkpoints.attacks.evil_arrays import Write, h5, keras, npz, zipped
from tests.checkpoints.attacks.evil_hdf5 import ROOT, UNDEFINED, Builder


def hdf5(make: Callable[[Builder], bytes]) -> Write:
    """A file whose root group says what `make` returns."""

    def write() -> bytes:
        builder = Builder()
        return builder.file(make(builder))

    return write


def _with_dataset(*more: tuple[int, bytes], address: int | None = None, size: int = 24, shape: Any = (2, 3)) -> Write:
    def make(builder: Builder) -> bytes:
        data = builder.add(bytes(24))
        return builder.table({"kernel": builder.dataset(data if address is None else address, size, shape, *more)})

    return hdf5(make)


def _cyclic(builder: Builder) -> bytes:
    return builder.table({"again": ROOT})


def _bush(builder: Builder) -> bytes:
    """Groups that hold the same group twice, 40 deep: 2^40 paths."""
    group = builder.group({"kernel": builder.dataset(builder.add(bytes(24)), 24, (2, 3))})
    for _ in range(40):
        group = builder.group({"a": group, "b": group})
    return builder.table({"a": group})


def _deep(builder: Builder) -> bytes:
    group = builder.dataset(builder.add(bytes(24)), 24, (2, 3))
    for _ in range(3000):
        group = builder.group({"a" * 100: group})
    return builder.table({"a": group})


def _cyclic_tree(builder: Builder) -> bytes:
    tree = len(builder.content)
    builder.tree([tree] * 60_000, level=0)
    return struct.pack("<QQ", builder.tree([tree], level=1), builder.heap(bytes(8)))


def _tree_of_itself(builder: Builder) -> bytes:
    tree = len(builder.content)
    builder.tree([tree] * 60_000, level=3)
    return struct.pack("<QQ", tree, builder.heap(bytes(8)))


def _endless_header(builder: Builder) -> bytes:
    """A header's continuation that leads to itself."""
    block = len(builder.content)
    builder.add(struct.pack("<HHB3xQQ", 16, 16, 0, block, 24))
    header = builder.add(builder.header([(16, struct.pack("<QQ", block, 24))], count=65_535))
    return builder.table({"kernel": header})


def _large_header(builder: Builder) -> bytes:
    """A continuation of a megabyte that leads to itself."""
    block = len(builder.content)
    builder.add(struct.pack("<HHB3xQQ", 16, 16, 0, block, 1 << 20) + bytes(1 << 20))
    header = builder.add(builder.header([(16, struct.pack("<QQ", block, 1 << 20))], count=65_535))
    return builder.table({"kernel": header})


def _endless_names(builder: Builder) -> bytes:
    """Sixty thousand names of a megabyte, in a megabyte."""
    heap = builder.heap(b"A" * (1 << 20) + b"\0")
    entries = [struct.pack("<QQI20x", number, ROOT, 0) for number in range(60_000)]
    return struct.pack("<QQ", builder.tree([builder.symbols(entries)]), heap)


@functools.cache
def _million_names() -> bytes:
    builder = Builder()
    header = builder.dataset(builder.add(bytes(24)), 24, (2, 3))
    return builder.file(builder.table({f"{number:07d}": header for number in range(10**6)}))


def _many_messages(builder: Builder) -> bytes:
    """A hundred datasets with the same sixty thousand empty messages."""
    header = builder.add(builder.header([(0, b"")] * 60_000 + [(1, b"")]))
    return builder.table({f"{number}": header for number in range(100)})


def _long_paths(builder: Builder) -> bytes:
    """Five thousand names in sixty groups, one within the other, whose names take a thousand bytes each."""
    header = builder.dataset(builder.add(bytes(24)), 24, (2, 3))
    group = builder.group({f"{number}": header for number in range(5000)})
    for _ in range(60):
        group = builder.group({"a" * 1000: group})
    return builder.table({"a": group})


def _linked(builder: Builder) -> bytes:
    return builder.table({"link": ROOT}, cached=2)


def _overlapping(builder: Builder) -> bytes:
    data = builder.add(bytes(2000))
    return builder.table({f"{n:03d}": builder.dataset(data + 4 * n, 1000, (250,)) for n in range(100)})


def chunk_tree(builder: Builder, corners: Sequence[tuple[int, ...]], data: bytes, *, size: int | None = None) -> int:
    address = builder.add(data)
    entries = [
        struct.pack(f"<II{len(corner) + 1}QQ", len(data) if size is None else size, 0, *corner, 0, address)
        for corner in corners
    ]
    return builder.add(struct.pack("<4sBBHQQ", b"TREE", 1, 0, len(entries), UNDEFINED, UNDEFINED) + b"".join(entries))


def _chunked(corners: list[tuple[int, ...]], shape: tuple[int, ...], chunk: tuple[int, ...], **options: Any) -> Write:
    def make(builder: Builder) -> bytes:
        data = options.get("data", zlib.compress(bytes(4 * int(np.prod([min(side, 1 << 12) for side in chunk])))))
        tree = chunk_tree(builder, corners, data, size=options.get("size"))
        return builder.table({"kernel": builder.chunked(tree, shape, chunk)})

    return hdf5(make)


def _chunk_bomb(builder: Builder) -> bytes:
    """A thousand chunks of 4 MB zeros, all the same 4 KB of the file."""
    corners = [(number << 20,) for number in range(1000)]
    tree = chunk_tree(builder, corners, zlib.compress(bytes(1 << 22), 9))
    return builder.table({"kernel": builder.chunked(tree, (1000 << 20,), (1 << 20,))})


def _through_h5py(make: Callable[[h5py.File], object]) -> Write:
    def write() -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            make(file)
        return buffer.getvalue()

    return write


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((8,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "kernel", (8,))
    file.create_virtual_dataset("kernel", layout)


def _external(file: h5py.File) -> None:
    file.create_dataset("kernel", (8,), "<f4", external=[("/etc/passwd", 0, 32)])


def _external_link(file: h5py.File) -> None:
    file["kernel"] = np.ones(3)
    file["link"] = h5py.ExternalLink("/etc/passwd", "/kernel")


def _soft_link(file: h5py.File) -> None:
    file["kernel"] = np.ones(3)
    file["link"] = h5py.SoftLink("/kernel")


KERAS: dict[str, Write] = {
    "signature only": lambda: b"\x89HDF\r\n\x1a\n",
    "signature and zeros": lambda: b"\x89HDF\r\n\x1a\n" + bytes(1000),
    "signature and ones": lambda: b"\x89HDF\r\n\x1a\n" + b"\xff" * 1000,
    "no datasets": _through_h5py(lambda file: file.create_group("layers")),
    "optimizer only": _through_h5py(lambda file: file.create_dataset("optimizer/vars/1", data=np.ones(3))),
    "cyclic groups": hdf5(_cyclic),
    "2^40 paths": hdf5(_bush),
    "three thousand deep": hdf5(_deep),
    "node that is leaf and parent": hdf5(_cyclic_tree),
    "tree of itself": hdf5(_tree_of_itself),
    "header of itself": hdf5(_endless_header),
    "large header of itself": hdf5(_large_header),
    "names without end": hdf5(_endless_names),
    "a million names": _million_names,
    "many messages": hdf5(_many_messages),
    "long paths": hdf5(_long_paths),
    "link by name": hdf5(_linked),
    "soft link": _through_h5py(_soft_link),
    "link to another file": _through_h5py(_external_link),
    "kept in another file": _through_h5py(_external),
    "virtual dataset": _through_h5py(_virtual),
    "overlap": hdf5(_overlapping),
    "offset past the end": _with_dataset(address=10**6),
    "offset of 2^63": _with_dataset(address=2**63),
    "undefined offset": _with_dataset(address=UNDEFINED),
    "too few bytes": _with_dataset(size=20),
    "too many bytes": _with_dataset(size=28),
    "shape of 2^200": _with_dataset(shape=(2**50,) * 4),
    "shape of terabytes": _with_dataset(size=2**44, shape=(2**42,)),
    "255 dimensions": _with_dataset(shape=(1,) * 255),
    "chunks missing": _chunked([(0,)], (64,), (32,)),
    "chunks beyond": _chunked([(0,), (64,)], (64,), (32,)),
    "chunks out of place": _chunked([(0,), (7,)], (64,), (32,)),
    "chunks without extent": _chunked([(0,)], (64,), (0,)),
    "chunks of other dimensions": _chunked([(0, 0)], (64,), (32, 1)),
    "chunk too large": _chunked([(0,), (32,)], (64,), (32,), data=zlib.compress(bytes(1 << 20))),
    "chunk too small": _chunked([(0,), (32,)], (64,), (32,), data=zlib.compress(bytes(12))),
    "chunk is no zlib": _chunked([(0,), (32,)], (64,), (32,), data=b"hello"),
    "chunk past the end": _chunked([(0,), (32,)], (64,), (32,), data=b"", size=300),
    "chunk of gigabytes": _chunked([(0,)], (2**31,), (2**31,)),
    "chunks of exabytes": _chunked([(0, 0)], (2**60, 2**60), (2**30, 2**30)),
    "chunk bomb": hdf5(_chunk_bomb),
    "keras without HDF5": lambda: keras(b"not HDF5"),
    "keras of nothing": lambda: keras(b""),
    "keras path traversal": lambda: zipped(("../evil", b"1"), ("model.weights.h5", h5())),
    "keras member without a name": lambda: zipped(("model.weights.h5", h5()), ("?evil", b"1")).replace(
        b"?evil", b"\0evil"
    ),
    "keras cyclic": lambda: keras(hdf5(_cyclic)()),
    "keras bomb": lambda: keras(h5() + bytes(1 << 27), compressed=True),
    "keras two weights": lambda: zipped(("model.weights.h5", h5()), ("model.weights.h5", h5())),
    "keras of numpy": lambda: zipped(("config.json", b"{}"), ("model.weights.npz", npz())),
}
