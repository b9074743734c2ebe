"""Writes the tar archives of torch before 0.1.10, which no torch of today writes but every one still loads.

The layout is that of torch/serialization.py (`legacy_load`): members `sys_info`, `pickle`, `tensors` and `storages`.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import torch

_STORAGES = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
    torch.int64: torch.LongStorage,
    torch.uint8: torch.ByteStorage,
    torch.bool: torch.BoolStorage,
}


class _Pickler(pickle.Pickler):
    """Leaves tensors out and gathers them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.tensors: dict[int, torch.Tensor] = {}

    def persistent_id(self, value: object) -> str | None:
        if type(value) is not torch.Tensor:
            return None
        self.tensors[id(value)] = value
        return str(id(value))


def write_torch_tar(saved: object, path: Path) -> int:
    """Save `saved` as torch 0.1.9 did; tensors may be views of one storage.

    Returns the byte behind the last of them; the rest of the file is what fills a tar archive up.
    """
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.dump(saved)
    tensors = pickler.tensors
    storages = {tensor.untyped_storage()._cdata: tensor for tensor in tensors.values()}
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "sys_info", pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2))
        _add(archive, "pickle", content.getvalue())
        _add(archive, "tensors", _tensors(tensors))
        data = _storages(storages)
        _add(archive, "storages", data)
        return archive.offset - -len(data) % tarfile.BLOCKSIZE


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _storages(storages: dict[int, torch.Tensor]) -> bytes:
    out = io.BytesIO()
    pickle.dump(len(storages), out, 2)
    for key, tensor in storages.items():
        pickle.dump((key, "cpu", _STORAGES[tensor.dtype]), out, 2)
        raw = bytes(tensor.untyped_storage())
        out.write(struct.pack("<q", len(raw) // tensor.itemsize) + raw)
    pickle.dump([], out, 2)  # views of storages
    return out.getvalue()


def _tensors(tensors: dict[int, torch.Tensor]) -> bytes:
    out = io.BytesIO()
    pickle.dump(len(tensors), out, 2)
    for key, tensor in tensors.items():
        pickle.dump((key, tensor.untyped_storage()._cdata, torch.FloatTensor), out, 2)
        out.write(struct.pack("<ii", tensor.dim(), 0))
        for numbers in (tensor.shape, tensor.stride()):
            out.write(struct.pack(f"<{tensor.dim()}q", *numbers))
        out.write(struct.pack("<q", tensor.storage_offset()))
    return out.getvalue()
