"""Reading one checkpoint of each format in blocks, beside the library that wrote it loading it whole, in one run.

    python -m benchmarks.formats [--megabytes 200]

`blocks` opens the file and reads every parameter in blocks of 64 Ki; `library` is the usual way to load the same file
into memory; `read` reads the same bytes into one buffer. All files are in the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from benchmarks.gram import BLOCK, read
from spectral_edge.checkpoints import open_checkpoint

Tensors = Mapping[str, torch.Tensor]


def _npz(load: Callable[[Path], Any]) -> Callable[[Path], object]:
    return lambda path: {name: array.copy() for name, array in load(path).items()}


def _load_safetensors(path: Path) -> object:
    return {name: tensor.clone() for name, tensor in load_file(path).items()}  # load_file alone only maps the file


def _h5(path: Path) -> object:
    with h5py.File(path) as file:
        found: dict[str, np.ndarray] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found


def _write_h5(tensors: Tensors, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            file[f"layers/{name.replace('.', '/')}"] = tensor.numpy()


def _write_dcp(tensors: Tensors, path: Path) -> None:
    dcp.save(dict(tensors), checkpoint_id=path, no_dist=True)


def _load_dcp(path: Path, tensors: Tensors) -> object:
    into = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    dcp.load(into, checkpoint_id=path, no_dist=True)
    return into


def formats(tensors: Tensors) -> dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]]:
    """By name: the file's or folder's name, how users write it, how they load it."""
    whole = {name: tensor.numpy() for name, tensor in tensors.items()}
    model = torch.nn.ModuleDict({name.replace(".", "_"): _module(tensor) for name, tensor in tensors.items()})
    return {
        "safetensors": ("m.safetensors", lambda p: save_file(dict(tensors), p), _load_safetensors),
        "torch zip": ("m.pt", lambda p: torch.save(dict(tensors), p), torch.load),
        "torch before 1.6": (
            "m.pth",
            lambda p: torch.save(dict(tensors), p, _use_new_zipfile_serialization=False),
            torch.load,
        ),
        "pickled nn.Module": (
            "model.pth",
            lambda p: torch.save(model, p),
            lambda p: torch.load(p, weights_only=False),  # written here a moment ago
        ),
        "torch distributed": ("dcp", lambda p: _write_dcp(tensors, p), lambda p: _load_dcp(p, tensors)),
        "npz": ("m.npz", lambda p: np.savez(p, **whole), _npz(np.load)),
        "npz, compressed": ("c.npz", lambda p: np.savez_compressed(p, **whole), _npz(np.load)),
        "h5": ("m.weights.h5", lambda p: _write_h5(tensors, p), _h5),
    }


def _module(tensor: torch.Tensor) -> torch.nn.Module:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(tensor)
    return module


def in_blocks(files: list[Path]) -> None:
    with open_checkpoint(files) as reader:
        for name, info in reader.tensors.items():
            out = torch.empty(BLOCK, dtype=info.read_dtype)
            for start in range(0, info.n_parameters, BLOCK):
                stop = min(start + BLOCK, info.n_parameters)
                reader.read_into(name, start, stop, out[: stop - start])


def best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    megabytes = parser.parse_args().megabytes
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is meant
    tensors = {f"layers.{index}.weight": torch.randn(megabytes * 25_000) for index in range(10)}
    print(f"one checkpoint of {megabytes} MB in 10 tensors, GB/s of parameters, page cache warm")
    print(f"  {'format':20s}{'read':>8s}{'blocks':>8s}{'library':>9s}")
    for name, (file, write, load) in formats(tensors).items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            write(path)
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            seconds = [best(lambda: read(files)), best(lambda: in_blocks(files)), best(lambda: load(path))]  # noqa: B023
        rates = [megabytes / 1e3 / each for each in seconds]
        print(f"  {name:20s}{rates[0]:8.2f}{rates[1]:8.2f}{rates[2]:9.2f}", flush=True)


if __name__ == "__main__":
    main()
