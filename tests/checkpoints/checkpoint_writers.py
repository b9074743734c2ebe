"""Writes the same tensors in every format that open_checkpoint reads, with the libraries that users write with."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import torch
import torch.distributed.checkpoint as distributed
from safetensors.torch import save_file
from torch.distributed.checkpoint.filesystem import SerializationFormat

from tests.checkpoints.torch_tar_writer import write_torch_tar

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


def torch_protocol_5(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.pt"
    torch.save(dict(tensors), path, pickle_protocol=5)
    return [path]


def torch_tar(tensors: Tensors, folder: Path) -> list[Path]:
    """As torch wrote before 0.1.10, without the zeros at the end, so that every byte counts."""
    path = folder / "model.pth.tar"
    os.truncate(path, write_torch_tar(dict(tensors), path))
    return [path]


def _module(tensors: Tensors) -> torch.nn.Module:
    """A module with these tensors, whatever their names: floating point ones as parameters, others as buffers."""
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            module._parameters[name] = torch.nn.Parameter(tensor)
        else:
            module._buffers[name] = tensor
    return module


def torch_module(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.pth"
    torch.save(_module(tensors), path)
    return [path]


def torch_module_legacy(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.pth"
    torch.save({"model": _module(tensors)}, path, _use_new_zipfile_serialization=False)
    return [path]


def torch_shards(tensors: Tensors, folder: Path) -> list[Path]:
    files = []
    for number in range(2):
        path = folder / f"pytorch_model-{number + 1:05d}-of-00002.bin"
        torch.save(dict(list(tensors.items())[number::2]), path)
        files.append(path)
    return files


def distributed_folder(tensors: Tensors, folder: Path, **options: Any) -> list[Path]:
    """One process's torch.distributed.checkpoint, with the optimizer beside the model, as training loops keep it."""
    state = {"model": dict(tensors), "optim": {"state": {"moment": torch.ones(1000)}}, "step": 3}
    with warnings.catch_warnings(action="ignore"):  # says that this is one process
        distributed.save(state, storage_writer=distributed.FileSystemWriter(folder, sync_files=False, **options))
    return sorted(path for path in folder.iterdir() if path.suffix == ".distcp" or path.name == ".metadata")


def distributed_safetensors(tensors: Tensors, folder: Path) -> list[Path]:
    """The same, a file for each tensor."""
    options = {"serialization_format": SerializationFormat.SAFETENSORS, "single_file_per_rank": False}
    return distributed_folder(_plain(tensors), folder, **options)


def _numpy(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """As arrays; numpy has no bfloat16 but the one that JAX and Keras bring along."""
    return {
        name: tensor.float().numpy().astype(ml_dtypes.bfloat16) if tensor.dtype is torch.bfloat16 else tensor.numpy()
        for name, tensor in tensors.items()
    }


def numpy_npz(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.npz"
    np.savez(path, **_numpy(as_written("numpy_npz", tensors)))  # type: ignore[arg-type]
    return [path]


def numpy_npz_compressed(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.npz"
    np.savez_compressed(path, **_numpy(as_written("numpy_npz_compressed", tensors)))  # type: ignore[arg-type]
    return [path]


def _hdf5(tensors: Tensors, target: Path | io.BytesIO, **options: Any) -> None:
    """As Keras writes its variables, bfloat16 with the mark that Keras gives it."""
    with h5py.File(target, "w") as file:
        for name, array in _numpy(as_written("keras_h5", tensors)).items():
            fits = array.ndim and array.size  # only such arrays can be cut in chunks
            made = file.create_dataset(name, data=array, **(options if fits else {}))
            if array.dtype == ml_dtypes.bfloat16:
                made.attrs["dtype"] = "bfloat16"


def keras_h5(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.h5"
    _hdf5(tensors, path)
    return [path]


def keras_h5_compressed(tensors: Tensors, folder: Path) -> list[Path]:
    path = folder / "model.h5"
    _hdf5(tensors, path, chunks=True, compression="gzip", shuffle=True)
    return [path]


def keras_archive(tensors: Tensors, folder: Path) -> list[Path]:
    path, weights = folder / "model.keras", io.BytesIO()
    _hdf5(tensors, weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", weights.getvalue())
    return [path]


COPIED = frozenset({"numpy_npz_compressed", "keras_h5_compressed"})
"""Writers of formats whose tensors are copied to scratch when the file is opened."""


def as_written(writer: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    """What the format of `writer` can express of `tensors`.

    Slashes are parts of no name in HDF5 and zip archives of arrays, where they make groups; a colon before a number is
    TensorFlow's; and .npz has no bfloat16.
    """
    if not writer.startswith(("numpy", "keras")):
        return dict(tensors)
    named = {name.replace("/", ".").replace(":", "."): tensor for name, tensor in tensors.items()}
    if writer.startswith("keras"):
        return named
    return {name: tensor.float() if tensor.dtype is torch.bfloat16 else tensor for name, tensor in named.items()}


WRITERS: Mapping[str, Writer] = {
    writer.__name__: writer
    for writer in (
        *(safetensors_file, safetensors_shards, torch_zip, torch_zip_misnamed, torch_legacy, torch_shards),
        *(torch_protocol_5, torch_tar, torch_module, torch_module_legacy),
        *(distributed_folder, distributed_safetensors),
        *(numpy_npz, numpy_npz_compressed, keras_h5, keras_h5_compressed, keras_archive),
    )
}


def rewritten(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """A zip archive with each member's bytes changed, and its checksums right again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()
