"""Makes files that try to break a checkpoint reader: `python -m tests.checkpoints.attacks.evil_files FOLDER`.

Each is written at test time and never kept in the repository. A file that would run code if it were trusted creates
the canary: a file whose existence is the proof.
"""

from __future__ import annotations

import _codecs
import _pickle
import argparse
import collections
import ctypes
import datetime as dt
import functools
import importlib
import io
import json
import operator
import os
import pickle
import runpy
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save, save_file

from spectral_edge.checkpoints.inert_pickle import load_several
from tests.checkpoints.checkpoint_writers import rewritten
from tests.checkpoints.torch_tar_writer import write_torch_tar

SHARES = (0.05, 0.15, 0.25, 0.35)  # the last half of a small tar archive is padding

TENSORS = {"layer.weight": torch.arange(64.0).reshape(8, 8), "layer.bias": torch.arange(8.0)}


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self._reduced


class SetState:
    """Pickles as an object whose state would be set: `os.system` as a type to build."""

    def __init__(self, state: object) -> None:
        self._state = state

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...], object]:
        return (collections.OrderedDict, (), self._state)


@dataclass(frozen=True)
class Storage:
    """Pickles as a reference to the archive's record `data/{key}`, said to hold `numel` float32."""

    key: str
    numel: int


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        if isinstance(value, Storage):
            kind = torch.device if isinstance(value, Unknown) else torch.FloatStorage
            return ("storage", kind, value.key, "cpu", value.numel)
        return None


def tensor(key: str, numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    """A tensor on record `data/{key}`, with whatever layout one likes to claim."""
    rebuild = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]
    return Call(rebuild, Storage(key, numel), offset, size, stride, False, collections.OrderedDict())


def archive(path: Path, content: object, records: Mapping[str, bytes] | None = None, **zip_options: Any) -> None:
    """A zip archive as torch.save lays it out, with `content` pickled as it is."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", **zip_options) as made:
        made.writestr("model/data.pkl", buffer.getvalue())
        made.writestr("model/byteorder", "little")
        for key, data in (records or {}).items():
            made.writestr(f"model/data/{key}", data)
        made.writestr("model/version", "3\n")


def safetensors(path: Path, header: object, data: bytes = b"") -> None:
    """A .safetensors file with `header` (bytes as they are, anything else as JSON) and `data`."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + data)


def entry(begin: int, end: int, shape: object = (4,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def good_safetensors() -> bytes:
    return save(TENSORS)


def good_torch(*, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _empty_tensors(count: int) -> bytes:
    told = b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return b"{" + b",".join(b'"layer.%d%b' % (number, told) for number in range(count)) + b"}"


def _cut(content: bytes, share: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content[: int(len(content) * share)])


SAFETENSORS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "four bytes": lambda path: path.write_bytes(b"\x08\0\0\0"),
    "header only claimed": lambda path: path.write_bytes(struct.pack("<Q", 50) + b"{"),
    "header of 2^63 bytes": lambda path: path.write_bytes(struct.pack("<Q", 1 << 63) + b"{}"),
    "header over the limit": lambda path: path.write_bytes(struct.pack("<Q", 100_000_001) + b"{}"),
    "not JSON": lambda path: safetensors(path, b"{no json}"),
    "not UTF-8": lambda path: safetensors(path, b'{"\xff": 1}'),
    "nested": lambda path: safetensors(path, b'{"a":' * 50_000),
    "nested lists": lambda path: safetensors(path, b'{"a":' + b"[" * 1_000_000),
    "entry is a number": lambda path: safetensors(path, {"a": 5}),
    "entry is a list": lambda path: safetensors(path, {"a": [1, 2]}),
    "entry without dtype": lambda path: safetensors(path, {"a": {"shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "unknown dtype": lambda path: safetensors(path, {"a": entry(0, 16, dtype="F33")}, bytes(16)),
    "dtype is a list": lambda path: safetensors(path, {"a": entry(0, 16, dtype=["F32"])}, bytes(16)),
    "negative shape": lambda path: safetensors(path, {"a": entry(0, 16, [-4])}, bytes(16)),
    "twice negative shape": lambda path: safetensors(path, {"a": entry(0, 16, [-2, -2])}, bytes(16)),
    "fractional shape": lambda path: safetensors(path, {"a": entry(0, 16, [4.0])}, bytes(16)),
    "true as shape": lambda path: safetensors(path, {"a": entry(0, 4, [True])}, bytes(4)),
    "shape is text": lambda path: safetensors(path, {"a": entry(0, 16, "4")}, bytes(16)),
    "too few bytes for the shape": lambda path: safetensors(path, {"a": entry(0, 12)}, bytes(12)),
    "too many bytes for the shape": lambda path: safetensors(path, {"a": entry(0, 20)}, bytes(20)),
    "shape of 2^200": lambda path: safetensors(path, {"a": entry(0, 16, [2**50] * 4)}, bytes(16)),
    "shape of a million dimensions": lambda path: safetensors(path, {"a": entry(0, 16, [2**60] * 10**6)}, bytes(16)),
    "offsets past the end": lambda path: safetensors(path, {"a": entry(0, 16)}, bytes(12)),
    "offset of 10^30": lambda path: safetensors(path, {"a": entry(10**30, 10**30 + 16)}, bytes(16)),
    "negative offset": lambda path: safetensors(path, {"a": entry(-16, 0)}, bytes(16)),
    "offsets reversed": lambda path: safetensors(path, {"a": entry(16, 0)}, bytes(16)),
    "overlap": lambda path: safetensors(path, {"a": entry(0, 16), "b": entry(8, 24)}, bytes(24)),
    "same bytes twice": lambda path: safetensors(path, {"a": entry(0, 16), "b": entry(0, 16)}, bytes(16)),
    "hole": lambda path: safetensors(path, {"a": entry(0, 16), "b": entry(20, 36)}, bytes(36)),
    "bytes before the first": lambda path: safetensors(path, {"a": entry(4, 20)}, bytes(20)),
    "bytes after the last": lambda path: safetensors(path, {"a": entry(0, 16)}, bytes(99)),
    "three offsets": lambda path: safetensors(
        path, {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}, bytes(16)
    ),
    "number of 5000 digits": lambda path: safetensors(path, b'{"a": ' + b"9" * 5000 + b"}"),
    "metadata is no text": lambda path: safetensors(path, {"__metadata__": {"a": 1}, "b": entry(0, 16)}, bytes(16)),
    **{f"truncated at {share}": _cut(good_safetensors(), share) for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.999)},
}
"""Refused by the safetensors library too."""

OWN_LIMITS: dict[str, Callable[[Path], object]] = {
    "a name twice": lambda path: safetensors(
        path,
        b'{"a":' + json.dumps(entry(0, 16)).encode() + b',"a":' + json.dumps(entry(0, 16)).encode() + b"}",
        bytes(16),
    ),
    "seven million values": lambda path: safetensors(path, b'{"a":[' + b"[]," * 7_000_000 + b"[]]}"),
    "a million names": lambda path: safetensors(path, _empty_tensors(10**6)),
    "100,001 names": lambda path: safetensors(path, _empty_tensors(100_001)),
    "no tensors": lambda path: safetensors(path, {}),
    "integers only": lambda path: save_file({"a": torch.arange(4)}, path),
}
"""Refused here for reasons of our own: what a library may read need not be a model's weights."""


def _empty_zip(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


MAGIC: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "random": lambda path: path.write_bytes(bytes(range(1, 256)) * 40),
    "gguf": lambda path: path.write_bytes(b"GGUF\x03\0\0\0" + bytes(100)),
    "hdf5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "pickle of numbers": lambda path: path.write_bytes(pickle.dumps({"weight": [1.0, 2.0]})),
    "empty zip": _empty_zip,
    "folder": Path.mkdir,
    "named pipe": os.mkfifo,
}


def _expanded(path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(2**40)}, path)


def _sum_of_views(path: Path) -> None:
    storage = torch.zeros(1024)
    torch.save({f"w{number}": storage[number:] for number in range(100)}, path)


def _endless(path: Path) -> None:
    loop: dict[str, object] = {f"key{number}": None for number in range(300)}
    for key in loop:
        loop[key] = loop
    torch.save(loop, path)


def _deep(path: Path) -> None:
    nested: object = TENSORS
    for _ in range(100):
        nested = {"model": nested}
    torch.save(nested, path)


def _big_endian(path: Path) -> None:
    path.write_bytes(rewritten(good_torch(), lambda name, data: b"big" if name.endswith("byteorder") else data))


def _members(path: Path, *names: str, compression: int = zipfile.ZIP_STORED, content: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", compression) as made:
        for name in names:
            made.writestr(name, content or b"\x80\x02}.")


class Unknown(Storage):
    """A storage of a type that torch has not."""


def _tensor_of(storage: Storage) -> Call:
    return Call(_rebuild(), storage, 0, (4,), (1,), False, collections.OrderedDict())


class _Record:
    """Pickles as a module with these attributes."""

    def __init__(self, **modules: object) -> None:
        self.state = {"_parameters": {}, "_buffers": {}, "_modules": modules}

    def __reduce__(self) -> tuple[object, ...]:
        return (collections.deque, (), self.state)


def _module_within_itself() -> _Record:
    module = _Record()
    module.state["_modules"] = {"again": module}
    return module


def _doubled_module(times: int) -> _Record:
    module = _Record()
    for _ in range(times):
        module = _Record(a=module, b=module)
    return module


def _nested_module(times: int) -> _Record:
    module = _Record()
    for _ in range(times):
        module = _Record(a=module)
    return module


def _legacy_changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(good_torch(legacy=True)))


def _counted(content: bytes, count: int) -> bytes:
    """The first storage's number of entries changed."""
    for entries in (64, 8):
        content = content.replace(struct.pack("<q", entries), struct.pack("<q", count))
    return content


LEGACY: dict[str, Callable[[bytes], bytes]] = {
    "legacy storage of 2^60": lambda content: _counted(content, 2**60),
    "legacy storage of minus one": lambda content: _counted(content, -1),
    "legacy storage of nothing": lambda content: _counted(content, 0),
    "legacy big-endian": lambda content: content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
    "legacy without keys": lambda content: _last_pickle(content, {}),
    "legacy with a key of no tensor": lambda content: _last_pickle(content, ["no such key"]),
    "legacy with keys that are none": lambda content: _last_pickle(content, [[], None]),
    "legacy with 10^6 keys": lambda content: _last_pickle(content, ["a"] * 10**6),
}
"""What is changed in a good file of torch's old format."""


def _last_pickle(content: bytes, keys: object) -> bytes:
    read = load_several(content, 4, file="good")
    return content[: read.end] + pickle.dumps(keys, 2)


def _tar_changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    write_torch_tar(TENSORS, path)
    path.write_bytes(change(path.read_bytes()))


TAR: dict[str, Callable[[bytes], bytes]] = {
    "tar without storages": lambda content: content.replace(b"storages", b"starages"),
    "tar of others": lambda content: content.replace(b"pickle\0", b"pikkle\0"),
    "tar member without size": lambda content: content[:124] + b"9" * 12 + content[136:],
    "tar storage of 2^60": lambda content: _counted(content, 2**60),
    "tar storage of minus one": lambda content: _counted(content, -1),
    "tar tensor of 2^31 dimensions": lambda content: content.replace(
        struct.pack("<iiq", 2, 0, 8), struct.pack("<iiq", 2**31 - 1, 0, 8)
    ),
    "tar tensor larger than its storage": lambda content: content.replace(
        struct.pack("<2q", 8, 8), struct.pack("<2q", 8, 80)
    ),
    **{f"tar cut at {share}": (lambda content, share=share: content[: int(len(content) * share)]) for share in SHARES},  # type: ignore[misc]
}
"""What is changed in a good tar archive."""


def _many_tensors(path: Path) -> None:
    archive(path, {f"layer.{number}": tensor(str(number), 1, (1,), (1,)) for number in range(100_000)})


DAMAGED: dict[str, Callable[[Path], object]] = {
    **{f"zip truncated at {share}": _cut(good_torch(), share) for share in (0.05, 0.25, 0.5, 0.75, 0.99, 0.9999)},
    **{f"legacy truncated at {s}": _cut(good_torch(legacy=True), s) for s in (0.05, 0.1, 0.25, 0.5, 0.75, 0.999)},
    "missing record": lambda path: archive(path, {"weight": tensor("0", 4, (4,), (1,))}),
    "record too short": lambda path: archive(path, {"weight": tensor("0", 4, (4,), (1,))}, {"0": bytes(8)}),
    "record too long": lambda path: archive(path, {"weight": tensor("0", 4, (4,), (1,))}, {"0": bytes(64)}),
    "storage of terabytes": lambda path: archive(path, {"w": tensor("0", 2**40, (2**40,), (1,))}, {"0": bytes(16)}),
    "storage of minus one": lambda path: archive(path, {"w": tensor("0", -1, (4,), (1,))}, {"0": bytes(16)}),
    "size beyond its storage": lambda path: archive(path, {"w": tensor("0", 4, (4000,), (1,))}, {"0": bytes(16)}),
    "offset beyond its storage": lambda path: archive(path, {"w": tensor("0", 4, (4,), (1,), 400)}, {"0": bytes(16)}),
    "negative offset": lambda path: archive(path, {"w": tensor("0", 4, (4,), (1,), -2)}, {"0": bytes(16)}),
    "negative stride": lambda path: archive(path, {"w": tensor("0", 4, (4,), (-1,))}, {"0": bytes(16)}),
    "negative size": lambda path: archive(path, {"w": tensor("0", 4, (-4,), (1,))}, {"0": bytes(16)}),
    "one number as a tensor of terabytes": _expanded,
    "views that add up": _sum_of_views,
    "dictionary of itself": _endless,
    "nested a hundred times": _deep,
    "a bare tensor": lambda path: torch.save(torch.ones(3), path),
    "a list": lambda path: torch.save([torch.ones(3)], path),
    "no tensors": lambda path: torch.save({"epoch": 3}, path),
    "optimizer only": lambda path: torch.save({"optimizer": {"state": torch.ones(3)}}, path),
    "sparse": lambda path: torch.save({"weight": torch.eye(30).to_sparse()}, path),
    "big-endian": _big_endian,
    "compressed": lambda path: archive(path, {}, {"0": bytes(99)}, compression=zipfile.ZIP_DEFLATED),
    "zip bomb": lambda path: _members(
        path, "model/data.pkl", compression=zipfile.ZIP_DEFLATED, content=bytes(100_000_000)
    ),
    "pickle of 20 MB": lambda path: _members(path, "model/data.pkl", content=bytes(20_000_000)),
    "path traversal": lambda path: _members(path, "model/data.pkl", "model/../../../evil"),
    "absolute path": lambda path: _members(path, "model/data.pkl", "/tmp/evil"),
    "two pickles": lambda path: _members(path, "one/data.pkl", "two/data.pkl"),
    "no pickle": lambda path: _members(path, "model/data/0"),
    "empty pickle": lambda path: _members(path, "model/data.pkl", content=b"\n"),
    "pickle that underflows": lambda path: _members(path, "model/data.pkl", content=b"\x80\x02s."),
    "pickle with an unknown memo": lambda path: _members(path, "model/data.pkl", content=b"\x80\x02h\x09."),
    "pickle of a storage that is none": lambda path: _members(path, "model/data.pkl", content=b"\x80\x02NQ."),
    "100,000 tensors": _many_tensors,
    "tensors of 10^11 entries, converted": lambda path: torch.save(
        {"w": Call(_convert(), torch.zeros(1).expand(10**11), torch.float64, "cpu", False)}, path
    ),
    "storage of text": lambda path: archive(path, {"w": Call(_rebuild(), "storage", 0, (4,), (1,), False, {})}),
    "storage of an unknown type": lambda path: archive(path, {"w": _tensor_of(Unknown("0", 4))}, {"0": bytes(16)}),
    "tensor without a shape": lambda path: archive(path, {"w": Call(_rebuild(), Storage("0", 4), 0)}, {"0": bytes(16)}),
    "shape of text": lambda path: archive(path, {"w": tensor("0", 4, ("4",), (1,))}, {"0": bytes(16)}),  # type: ignore[arg-type]
    "shape of a hundred dimensions": lambda path: archive(path, {"w": tensor("0", 1, (1,) * 100, (1,) * 100)}),
    "shape of 2^200": lambda path: archive(path, {"w": tensor("0", 4, (2**50,) * 4, (1,) * 4)}, {"0": bytes(16)}),
    "strides of 2^62": lambda path: archive(path, {"w": tensor("0", 4, (2,), (2**62,))}, {"0": bytes(16)}),
    "more strides than sizes": lambda path: archive(path, {"w": tensor("0", 4, (4,), (1, 1))}, {"0": bytes(16)}),
    "quantized": lambda path: archive(path, {"w": Call(torch._utils._rebuild_qtensor, Storage("0", 4))}),  # type: ignore[attr-defined]
    "without data": lambda path: torch.save({"w": torch.ones(3, device="meta")}, path),
    "lazily negated": lambda path: torch.save({"w": torch.ones(3, dtype=torch.cfloat).conj().imag}, path),
    "module within itself": lambda path: archive(path, _module_within_itself()),
    "2^40 modules": lambda path: archive(path, _doubled_module(40)),
    "module deep within modules": lambda path: archive(path, _nested_module(110)),
    "user's object": lambda path: torch.save(Call(collections.deque, [torch.ones(3)]), path),
    **{name: (lambda path, change=change: _legacy_changed(path, change)) for name, change in LEGACY.items()},  # type: ignore[misc]
    **{name: (lambda path, change=change: _tar_changed(path, change)) for name, change in TAR.items()},  # type: ignore[misc]
}


def _bomb(content: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: _members(path, "m/data.pkl", content=b"\x80\x04" + content())


def _colliding() -> bytes:
    """Numbers that fall into the same slot of a dictionary."""
    keys = ((number * (2**61 - 1)).to_bytes(12, "little") for number in range(400_000))
    return b"}(" + b"".join(b"\x8a\x0c" + key + b"N" for key in keys) + b"u."


def _bytes_from_one_text() -> bytes:
    text = b"X" + struct.pack("<I", 2**23) + b"a" * 2**23 + b"q\0" + b"X\6\0\0\0latin1q\2"
    return b"c_codecs\nencode\nq\1" + text + b"h\1h\0h\2\x86R" * 10**5 + b"."


def _long_texts() -> bytes:
    """Two texts of six megabytes, alike to the last letter, as keys in turn."""
    text = b"X" + struct.pack("<I", 6 * 2**20) + b"a" * 6 * 2**20 + b"\x94"
    return text + text + b"}(" + b"h\0Nh\1N" * 200_000 + b"u."


BOMBS: dict[str, Callable[[Path], object]] = {
    "two million lists": _bomb(lambda: b"]" * 2_000_000 + b"."),
    "lists in each other": _bomb(lambda: b"]" * 500_000 + b"a" * 499_999 + b"."),
    "a key half a million deep": _bomb(lambda: b"})" + b"\x85" * 500_000 + b"Ns."),
    "a key that doubles": _bomb(lambda: b"})" + b"2\x86" * 100 + b"Ns."),
    "two million sets": _bomb(lambda: b"\x8f" * 2_000_000 + b"."),
    "names without end": _bomb(lambda: b"\x8c\xf0" + b"a." * 120 + b"q\0" + b"h\0h\0\x93" * 600_000 + b"."),
    "bytes from one text": _bomb(_bytes_from_one_text),
    "keys that collide": _bomb(_colliding),
    "long texts compared": _bomb(_long_texts),
    "memo at 2^31": _bomb(lambda: b"Nr\xff\xff\xff\x7f."),
    "more opcodes than any": _bomb(lambda: b"N0" * 1_300_000 + b"N."),
    "one tensor half a million times": lambda path: archive(path, [tensor("0", 4, (4,), (1,))] * 500_000),
}
"""Pickles that would take much memory or time if all that they ask for were made."""


@dataclass(frozen=True)
class Malice:
    """A file that asks for code: how to write it, given the canary, and the name that the error must give."""

    write: Callable[[Path, Path], object]
    names: str


def _shell(canary: Path) -> Call:
    return Call(os.system, f"touch '{canary}'")


def _python(canary: Path) -> Call:
    return Call(eval, f"open({str(canary)!r}, 'w').close()")


def _legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _recalled_from_memo(path: Path, canary: Path) -> None:
    # STACK_GLOBAL takes module and name from the stack; here they come from the memo, after other strings.
    command = f"touch '{canary}'".encode()
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text + b"\x94" for text in (b"posix", b"system", b"x", b"y"))
    path.write_bytes(b"\x80\x04" + texts + b"h\x00h\x01\x93X" + struct.pack("<I", len(command)) + command + b"\x85R.")


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _by_attributes(path: Path, canary: Path) -> None:
    """getattr(getattr(torch.serialization, "os"), "system"): no name in it is unsafe by itself."""
    get, command = b"c__builtin__\ngetattr\n", _text(f"touch '{canary}'")
    module = get + b"ctorch\nserialization\n" + _text("os") + b"\x86R"
    path.write_bytes(b"\x80\x02" + get + module + _text("system") + b"\x86R" + command + b"\x85R.")


def _by_dotted_name(path: Path, canary: Path) -> None:
    names = b"\x8c\x13torch.serialization\x8c\x09os.system\x93"
    path.write_bytes(b"\x80\x04" + names + _text(f"touch '{canary}'") + b"\x85R.")


class _Setter:
    """Pickles with a function that sets the state: `exec` of the object and the state."""

    def __init__(self, setter: Callable[..., Any], state: object) -> None:
        self._reduced = (str, ("pass",), state, None, None, setter)

    def __reduce__(self) -> tuple[object, ...]:
        return self._reduced


def _in_a_module(path: Path, canary: Path, **options: Any) -> None:
    module = torch.nn.Linear(2, 2)
    module.note = _shell(canary)  # type: ignore[assignment]
    torch.save(module, path, **options)


MALICIOUS: dict[str, Malice] = {
    "os.system": Malice(lambda p, c: torch.save({"weight": _shell(c)}, p), "`posix.system`"),
    "os.system at the top": Malice(lambda p, c: torch.save(_shell(c), p), "`posix.system`"),
    "eval": Malice(lambda p, c: torch.save({"a": {"b": [_python(c)]}}, p), "`__builtin__.eval`"),
    "beside good tensors": Malice(lambda p, c: torch.save(TENSORS | {"z": _shell(c)}, p), "`posix.system`"),
    "in the state of an object": Malice(lambda p, c: torch.save(SetState({"a": _shell(c)}), p), "`posix.system`"),
    "as a key": Malice(lambda p, c: archive(p, [(_python(c), 1)]), "`__builtin__.eval`"),
    "two at once": Malice(lambda p, c: torch.save([_shell(c), _python(c)], p), "`posix.system`, `__builtin__.eval`"),
    "legacy os.system": Malice(lambda p, c: _legacy({"weight": _shell(c)}, p), "`posix.system`"),
    "legacy eval": Malice(lambda p, c: _legacy(_python(c), p), "`__builtin__.eval`"),
    **{
        f"bare pickle, protocol {protocol}": Malice(
            lambda p, c, protocol=protocol: p.write_bytes(pickle.dumps(_shell(c), protocol)),  # type: ignore[misc]
            "`posix.system`",
        )
        for protocol in range(6)
    },
    "name recalled from the memo": Malice(_recalled_from_memo, "`posix.system`"),
    "in an archive, protocol 4": Malice(lambda p, c: torch.save(_shell(c), p, pickle_protocol=4), "`posix.system`"),
    "cut short after the call": Malice(
        lambda p, c: p.write_bytes(pickle.dumps([_shell(c), "x" * 1000], 2)[:-500]), "`posix.system`"
    ),
    "exec": Malice(lambda p, c: torch.save(Call(exec, f"open({str(c)!r}, 'w').close()"), p), "`__builtin__.exec`"),
    "subprocess": Malice(lambda p, c: torch.save(Call(subprocess.Popen, ["touch", str(c)]), p), "`commands.Popen`"),
    "importlib": Malice(lambda p, _: torch.save(Call(importlib.import_module, "this"), p), "`importlib.import_module`"),
    "runpy": Malice(lambda p, c: torch.save(Call(runpy.run_path, str(c)), p), "`runpy.run_path`"),
    "pickle in a pickle": Malice(
        lambda p, c: torch.save(Call(_pickle.loads, pickle.dumps(_shell(c))), p), "`pickle.loads`"
    ),
    "torch.load": Malice(lambda p, c: torch.save(Call(torch.load, str(c)), p), "`torch.serialization.load`"),
    "torch.hub": Malice(lambda p, _: torch.save(Call(torch.hub.load, "a/b", "c"), p), "`torch.hub.load`"),
    "ctypes": Malice(lambda p, _: torch.save(Call(ctypes.CDLL, "libc.so.6"), p), "`ctypes.CDLL`"),
    "setattr": Malice(lambda p, _: torch.save(Call(setattr, torch.float32, "a", 1), p), "`__builtin__.setattr`"),
    "methodcaller": Malice(lambda p, _: torch.save(operator.methodcaller("__reduce__"), p), "`operator.methodcaller`"),
    "by attributes": Malice(_by_attributes, "`torch.serialization.os.system`"),
    "by a dotted name": Malice(_by_dotted_name, "`torch.serialization.os.system`"),
    "by INST": Malice(lambda p, c: p.write_bytes(f"(S'touch {c}'\nios\nsystem\n.".encode()), "`os.system`"),
    "by OBJ": Malice(
        lambda p, c: p.write_bytes(b"\x80\x02(cos\nsystem\n" + _text(f"touch {c}") + b"o."), "`os.system`"
    ),
    "as setter of state": Malice(lambda p, _: torch.save(_Setter(exec, {}), p), "`__builtin__.exec`"),
    "in a module": Malice(_in_a_module, "`posix.system`"),
    "in a module, protocol 5": Malice(lambda p, c: _in_a_module(p, c, pickle_protocol=5), "`posix.system`"),
    "in a legacy module": Malice(
        lambda p, c: _in_a_module(p, c, _use_new_zipfile_serialization=False), "`posix.system`"
    ),
    "in a tar": Malice(lambda p, c: write_torch_tar({"w": torch.ones(2), "z": _shell(c)}, p), "`posix.system`"),
    "as a key of a storage": Malice(
        lambda p, c: archive(p, {"w": Call(_rebuild(), _shell(c), 0, (1,), (1,), False, {})}), "`posix.system`"
    ),
}


class Unheard:
    """A class of a user's own."""

    def __init__(self) -> None:
        self.lr = np.float64(0.5)
        self.path = Path("somewhere")
        self.layer = torch.nn.Linear(2, 2)


INERT: dict[str, object] = {
    "numpy": {"scalar": np.float64(0.5), "array": np.arange(9), "state": np.random.default_rng(0).bit_generator.state},
    "user's object": Unheard(),
    "namespace": argparse.Namespace(lr=0.1, weights=torch.ones(3)),
    "bound method": torch.nn.Linear(2, 2).forward,
    "partial function": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "datetime": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "memory bomb": Call(bytearray, 10**12),
    "tensor bomb": Call(torch.FloatTensor, 10**12),
    "storage called": Call(torch.UntypedStorage, 10**12),
    "entries as keys": Call(set, torch.ones(9)),
    "a call through a type": Call(torch._tensor._rebuild_from_type_v2, set, set, (torch.ones(9),), {}),
    "state of a dictionary": SetState({"a": 1}),
}
"""What a pickle may hold beside tensors: nothing is made of it."""


def doubling_bomb() -> object:
    """40 calls in each other, each of which would make the text twice as long."""
    return _doubled(40)


def _doubled(times: int) -> object:
    value: object = "latin1"
    for number in range(times):
        value = Call(_codecs.encode, value, "hex" if number else "latin1")
    return value


def _rebuild() -> Callable[..., Any]:
    found: Callable[..., Any] = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]
    return found


def _convert() -> Callable[..., Any]:
    found: Callable[..., Any] = torch._utils._rebuild_device_tensor_from_cpu_tensor  # type: ignore[attr-defined]
    return found


def main(folder: Path) -> None:
    """Write every evil file into `folder`, with a canary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in (SAFETENSORS | OWN_LIMITS | MAGIC | DAMAGED).items():
        write(folder / f"{name}.bin")
    for name, malice in MALICIOUS.items():
        malice.write(folder / f"{name}.pt", folder / "canary")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
