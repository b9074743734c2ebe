"""Makes evil .npy and .npz files, and sound ones of all formats of NumPy and Keras to damage."""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

Write = Callable[[], bytes]

WEIGHTS = {"layer.kernel": np.arange(64, dtype=np.float32).reshape(8, 8), "layer.bias": np.arange(8.0)}


def npy(array: Any = WEIGHTS["layer.kernel"], **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def npy_of(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy file whose header says `text`."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin1") + data


def told(shape: str, descr: str = "'<f4'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}\n"


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:  # duplicate names
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def npz(*, compressed: bool = False) -> bytes:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    return zipped(*((f"{name}.npy", npy(array)) for name, array in WEIGHTS.items()), method=method)


def h5(**options: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in WEIGHTS.items():
            file.create_dataset(f"layers/{name.replace('.', '/')}", data=array, **options)
    return buffer.getvalue()


def _h5_compressed() -> bytes:
    return h5(chunks=True, compression="gzip", shuffle=True)


def keras(weights: bytes | None = None, *, compressed: bool = False) -> bytes:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    return zipped(("config.json", b"{}"), ("model.weights.h5", h5() if weights is None else weights), method=method)


GOOD: dict[str, Write] = {
    "npy": npy,
    "npz": npz,
    "npz compressed": lambda: npz(compressed=True),
    "h5": h5,
    "h5 compressed": _h5_compressed,
    "keras": keras,
    "keras compressed": lambda: keras(compressed=True),
}


def _cut(name: str, share: float) -> bytes:
    content = GOOD[name]()
    return content[: int(len(content) * share)]


CUT: dict[str, Write] = {
    f"{name} at {share}": functools.partial(_cut, name, share)
    for name in GOOD
    for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.99)
}


def _patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def _resized(content: bytes, place: int, value: int) -> bytes:
    """An archive whose directory's first entry has `value` in the four bytes from `place` on."""
    at = content.index(b"PK\1\2") + place
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


def _overlapping_members() -> bytes:
    """The second member's entry leads to the first's data."""
    content = bytearray(npz())
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    content[second + 42 : second + 46] = bytes(4)
    return bytes(content)


def _npz_bomb() -> bytes:
    return zipped(("bomb.npy", npy(np.zeros(1 << 25, dtype=np.float32))), method=zipfile.ZIP_DEFLATED)


def _many_small_bombs() -> bytes:
    part = npy(np.zeros(1 << 22, dtype=np.float32))
    return zipped(*((f"{number}.npy", part) for number in range(8)), method=zipfile.ZIP_DEFLATED)


def _inflates_to_more() -> bytes:
    """Header and directory agree on 64 bytes; the compressed stream holds 64 MB."""
    head = npy_of(told("(16,)"))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = deflate.compress(head + bytes(1 << 26)) + deflate.flush()
    size = len(head) + 64
    name = b"bomb.npy"
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(stream), size, len(name), 0)
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(stream), size, len(name), *[0] * 6)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry + name), len(local + name + stream), 0)
    return local + name + stream + entry + name + end


@functools.cache
def _million_members() -> bytes:
    """A directory of a million entries that all lead to one array, and its end in the form for large archives."""
    data = npy()
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, 0, len(data), len(data), 9, 0) + b"0000000.n" + data
    head = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, len(data), len(data), 11, *[0] * 6)
    directory = b"".join(head + b"%07d.npy" % number for number in range(10**6))
    begin, size = len(local), len(directory)
    large = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, size, begin)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, begin + size, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + directory + large + locator + end


NUMPY: dict[str, Write] = {
    "empty archive": zipped,
    "npy of nothing": lambda: b"\x93NUMPY",
    "npy of version 9": lambda: b"\x93NUMPY\x09\0" + bytes(100),
    "npy header past the end": lambda: b"\x93NUMPY\x01\0\xff\xff{'descr'",
    "npy header of 4 GB": lambda: b"\x93NUMPY\x02\0\xff\xff\xff\xff{'descr'",
    "npy header over the limit": lambda: npy_of(told("(2,)") + " " * 20_000, bytes(8)),
    "npy header is code": lambda: npy_of("__import__('os').system('touch canary')"),
    "npy header nested": lambda: npy_of("(" * 9000),
    "npy header of signs": lambda: npy_of("-" * 9000 + "1"),
    "npy header of sums": lambda: npy_of("+".join("1" * 4500)),
    "npy header with an odd escape": lambda: npy_of(r"'\d'"),
    "npy header with a zero byte": lambda: npy_of("{'descr'\0}"),
    "npy header with a huge number": lambda: npy_of(told(f"({'9' * 6000},)")),
    "npy header of Python 2": lambda: npy_of(told("(2L,)"), bytes(8)),
    "npy header is a list": lambda: npy_of("[1, 2]"),
    "npy header lacks a key": lambda: npy_of("{'descr': '<f4', 'shape': (2,)}", bytes(8)),
    "npy negative shape": lambda: npy_of(told("(-2,)"), bytes(8)),
    "npy twice negative shape": lambda: npy_of(told("(-2, -1)"), bytes(8)),
    "npy true as shape": lambda: npy_of(told("(True,)"), bytes(4)),
    "npy shape is a list": lambda: npy_of(told("[2]"), bytes(8)),
    "npy order is a number": lambda: npy_of(told("(2,)", fortran="1"), bytes(8)),
    "npy descr is a number": lambda: npy_of(told("(2,)", descr="4"), bytes(8)),
    "npy shape of 2^200": lambda: npy_of(told("(1125899906842624,) * 4".replace(" * 4", "")), bytes(8)),
    "npy shape of terabytes": lambda: npy_of(told(f"({2**40}, 4)"), bytes(64)),
    "npy of a thousand dimensions": lambda: npy_of(told(f"({'9,' * 1000})"), bytes(8)),
    "npy too few bytes": lambda: npy()[:-4],
    "npy too many bytes": lambda: npy() + bytes(4),
    "npz member is no array": lambda: zipped(("a.npy", b"hello, world")),
    "npz too few bytes": lambda: zipped(("a.npy", npy()[:-4])),
    "npz sizes differ": lambda: _resized(npz(), 24, 77),
    "npz member past the end": lambda: _resized(_resized(npz(), 20, 10**6), 24, 10**6),
    "npz offset past the end": lambda: _resized(npz(), 42, 10**6),
    "npz overlap": _overlapping_members,
    "npz a name twice": lambda: zipped(("a.npy", npy()), ("a.npy", npy())),
    "npz path traversal": lambda: zipped(("../../evil.npy", npy())),
    "npz absolute path": lambda: zipped(("/evil.npy", npy())),
    "npz encrypted": lambda: _patched(npz(), b"PK\1\2\x14\x03\x14\0\0", b"PK\1\2\x14\x03\x14\0\1"),
    "npz by bzip2": lambda: zipped(("a.npy", npy()), method=zipfile.ZIP_BZIP2),
    "npz by lzma": lambda: zipped(("a.npy", npy()), method=zipfile.ZIP_LZMA),
    "npz wrong checksum": lambda: _resized(npz(compressed=True), 16, 7),
    "npz declares terabytes": lambda: zipped(("a.npy", npy_of(told(f"({2**40},)"), bytes(64))), method=8),
    "npz bomb": _npz_bomb,
    "npz many small bombs": _many_small_bombs,
    "npz inflates to more": _inflates_to_more,
    "npz a million names": _million_members,
}
