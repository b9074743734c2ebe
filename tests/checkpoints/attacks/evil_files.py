"""Makes files that try to break a checkpoint reader: `python -m tests.checkpoints.attacks.evil_files FOLDER`.

Each is written at test time and never kept in the repository. A file that would run code if it were trusted creates
the canary: a file whose existence is the proof.
"""

from __future__ import annotations

import _codecs
import collections
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save, save_file

from tests.checkpoints.checkpoint_writers import rewritten

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
            return ("storage", torch.FloatStorage, value.key, "cpu", value.numel)
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
    "no tensors": lambda path: safetensors(path, {}),
    "integers only": lambda path: save_file({"a": torch.arange(4)}, path),
}
"""Refused here for reasons of our own: what a library may read need not be a model's weights."""


def _empty_zip(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.zeros(4))


MAGIC: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "random": lambda path: path.write_bytes(bytes(range(1, 256)) * 40),
    "gguf": lambda path: path.write_bytes(b"GGUF\x03\0\0\0" + bytes(100)),
    "hdf5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "pickle of numbers": lambda path: path.write_bytes(pickle.dumps({"weight": [1.0, 2.0]})),
    "npz": _npz,
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
    "protocol 4": lambda path: torch.save(TENSORS, path, pickle_protocol=4),
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
}


@dataclass(frozen=True)
class Malice:
    """A file that asks for code: how to write it, given the canary, and the name that the error must give."""

    write: Callable[[Path, Path], object]
    names: str


def _shell(canary: Path) -> Call:
    return Call(os.system, f"touch '{canary}'")


def _python(canary: Path) -> Call:
    return Call(eval, f"open({str(canary)!r}, 'w').close()")


def _module(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def _legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _recalled_from_memo(path: Path, canary: Path) -> None:
    # STACK_GLOBAL takes module and name from the stack; here they come from the memo, after other strings.
    command = f"touch '{canary}'".encode()
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text + b"\x94" for text in (b"posix", b"system", b"x", b"y"))
    path.write_bytes(b"\x80\x04" + texts + b"h\x00h\x01\x93X" + struct.pack("<I", len(command)) + command + b"\x85R.")


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
    "a whole module": Malice(lambda p, _: _module(p), "`torch.nn.modules.linear.Linear`"),
    "TorchScript": Malice(
        lambda p, _: _members(p, "m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), "TorchScript"
    ),
    "numpy scalar": Malice(lambda p, _: torch.save({"w": torch.ones(2), "x": _numpy_scalar()}, p), "numpy"),
    "memory bomb": Malice(lambda p, _: torch.save({"w": Call(bytearray, 10**12)}, p), "`__builtin__.bytearray`"),
    "doubling bomb": Malice(lambda p, _: torch.save({"w": _doubled(40)}, p), "`_codecs.encode`"),
    "tensor bomb": Malice(lambda p, _: torch.save({"w": Call(torch.FloatTensor, 10**12)}, p), "FloatTensor`"),
    "storage bomb": Malice(
        lambda p, _: archive(p, {"w": Call(collections.Counter, Storage("0", 4))}, {"0": bytes(16)}), "Counter"
    ),
    "entries as keys": Malice(lambda p, _: torch.save({"w": Call(set, torch.ones(9))}, p), "`__builtin__.set of"),
    "a storage called": Malice(lambda p, _: torch.save({"w": Call(torch.UntypedStorage, 10**12)}, p), "UntypedStorage"),
    "a call through a type": Malice(
        lambda p, _: torch.save({"w": Call(torch._tensor._rebuild_from_type_v2, set, set, (torch.ones(9),), {})}, p),
        "`torch._tensor._rebuild_from_type_v2 of __builtin__.set`",
    ),
    "a result called": Malice(
        lambda p, _: _members(p, "m/data.pkl", content=b"\x80\x02c__builtin__\nset\n)R)R."),
        "something that has no name",
    ),
    "conversion bomb": Malice(
        lambda p, _: torch.save({"w": Call(_convert(), torch.zeros(1).expand(10**11), torch.float64, "cpu", False)}, p),
        "`torch._utils._rebuild_device_tensor_from_cpu_tensor`",
    ),
}


def _numpy_scalar() -> object:
    return np.float64(0.5)


def _doubled(times: int) -> object:
    value: object = "latin1"
    for number in range(times):
        value = Call(_codecs.encode, value, "hex" if number else "latin1")
    return value


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
