"""Writes the same tensors in every format that open_checkpoint reads, with the libraries that users write with."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = Mapping[str, torch.Tensor]
Writer = Callable[[Tensors, Path], list[Path]]


def _plain(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def safetensors_file(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.safetensors"
    save_file(_plain(tensors), path)
    return [path]


def safetensors_shards(tensors: Tensors, folder: Path) -> list[Path]:
    plain, files, told = _plain(tensors), [], {}
    for number in range(3):
        path = folder / f"model-{number + 1:05d}-of-00003.safetensors"
        part = dict(list(plain.items())[number::3])
        save_file(part, path)
        told |= dict.fromkeys(part, path.name)
        files.append(path)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": told}))
    return [*files, index]


def torch_zip(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.pt"
    torch.save(dict(tensors), path)
    return [path]


def torch_zip_misnamed(tensors: Tensors, folder: Path) -> list[Path]:
    """torch.load trusts the ending .safetensors; the reader must go by content."""
    path = folder / "model.safetensors"
    torch.save(dict(tensors), path)
    return [path]


def torch_legacy(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.pth"
    torch.save(dict(tensors), path, _use_new_zipfile_serialization=False)
    return [path]


def torch_shards(tensors: Tensors, folder: Path) -> list[Path]:
    files = []
    for number in range(2):
        path = folder / f"pytorch_model-{number + 1:05d}-of-00002.bin"
        torch.save(dict(list(tensors.items())[number::2]), path)
        files.append(path)
    return files


WRITERS: Mapping[str, Writer] = {
    writer.__name__: writer
    for writer in (safetensors_file, safetensors_shards, torch_zip, torch_zip_misnamed, torch_legacy, torch_shards)
}


def rewritten(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """A zip archive with each member's bytes changed, and its checksums right again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()
