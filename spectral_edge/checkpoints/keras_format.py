"""Reader of what Keras writes: `.weights.h5`, whole-model `.h5` of Keras 2 and 3, and `.keras` archives.

A `.keras` archive is a zip that holds `model.weights.h5`. Its other members, the configuration that would tell Keras
which classes to build, are not looked at.

Names: slashes become dots, and TensorFlow's `:0` goes. In Keras 3 a layer's variables are numbered under `vars`; they
are called `layers.dense_1.vars_0` here, because a number alone between dots is a layer's (groups.py).

The optimizer's state lies under `optimizer/` or `optimizer_weights/`, and is told by that (state_dict.py). Running
statistics of batch normalisation are buffers. Keras 2 names them. Keras 3 numbers a layer's variables, the trained ones
first: where the path says `batch_normalization` or `bn` (it does, unless a model of one's own keeps the layer under
another name), the last two are statistics, or with `renorm` the last five. Under another name, three or four vectors of
one length are taken for a batch normalisation, as no other layer of Keras has them; with two it looks like any layer's
scale and shift, and its statistics are followed as parameters.

Metrics are not kept by Keras, and random generators' states are integers.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from spectral_edge.checkpoints.block_reader import FileContents, StoredTensor
from spectral_edge.checkpoints.copies import CopyAllowance, append_all
from spectral_edge.checkpoints.dotted import dotted
from spectral_edge.checkpoints.hdf5_datasets import Dataset, floating_dataset, stored_dataset
from spectral_edge.checkpoints.hdf5_objects import Hdf5File
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.zip_members import Member
from spectral_edge.errors import CheckpointFormatError

KERAS_WEIGHTS: Final = "model.weights.h5"
"""The member of a `.keras` archive that holds the tensors."""

_WHOLE_MODEL: Final = "model_weights/"
_TENSORFLOW: Final = re.compile(r":\d+\Z")
_NUMBERED: Final = re.compile(r"(?P<layer>.*/|)vars/(?P<number>[0-9]+)", re.DOTALL)
_BATCH_NORM: Final = re.compile(r"batch_?norm|\Abn(_?\d+)?\Z|_bn\Z", re.IGNORECASE)
_STATISTICS: Final = frozenset({"moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"})
_RENORM: Final = 5
"""Statistics that `renorm` keeps; without it there are two. Trained are at most two: scale and shift."""


def read_hdf5(file: RawFile, scratch: ScratchFile) -> FileContents:
    """The tensors of one HDF5 file as Keras writes it; chunked ones are copied to `scratch`.

    Raises:
        CheckpointFormatError: Truncated, damaged, of a layout or numbers that cannot be read, or it refers to other
            files, which are not followed.
        DiskFullError: No room for the copies.
    """
    return _contents(Hdf5File(file, 0, file.size, file.name), scratch, CopyAllowance(file))


def read_keras_archive(members: Iterable[Member], scratch: ScratchFile) -> FileContents:
    """The tensors of one `.keras` archive with these members, one of them :data:`KERAS_WEIGHTS`.

    Raises:
        CheckpointFormatError: As :func:`read_hdf5`.
        DiskFullError: No room for the copies.
    """
    member = next(member for member in members if member.name == KERAS_WEIGHTS)
    file, allowance = member.file, CopyAllowance(member.file)
    if not member.deflated:
        return _contents(Hdf5File(file, member.offset, member.size, file.name), scratch, allowance)
    allowance.take(member.size, KERAS_WEIGHTS)
    begin = append_all(scratch, member.inflated())
    return _contents(Hdf5File(scratch.file, begin, member.size, file.name), scratch, allowance)


def _contents(file: Hdf5File, scratch: ScratchFile, allowance: CopyAllowance) -> FileContents:
    try:
        found = {path: floating_dataset(file, path, messages) for path, messages in file.datasets()}
        names = _names(found, file.name)
        floating = {path: dataset for path, dataset in found.items() if dataset is not None}
        stored = {names[path]: stored_dataset(file, dataset, scratch, allowance) for path, dataset in floating.items()}
    except struct.error as error:
        raise file.error("damaged: a header is shorter than what it should say") from error
    _check_apart(file, stored)
    return FileContents(frozenset(names.values()), stored, frozenset(names[path] for path in _statistics(floating)))


def _names(paths: Iterable[str], file: str) -> dict[str, str]:
    """What the dataset at each of `paths` is called."""
    plain = {path: _plain(path) for path in paths}
    names = dotted((path.removeprefix(_WHOLE_MODEL) for path in plain.values()), file)
    if len(names) < len(plain):
        raise CheckpointFormatError("two of its datasets have the same name but for TensorFlow's `:0`.", file=file)
    return {path: names[name.removeprefix(_WHOLE_MODEL)] for path, name in plain.items()}


def _plain(path: str) -> str:
    numbered = _NUMBERED.fullmatch(path)
    return f"{numbered['layer']}vars_{numbered['number']}" if numbered else _TENSORFLOW.sub("", path)


def _statistics(datasets: Mapping[str, Dataset]) -> set[str]:
    """The paths of running statistics, as the module's docstring tells."""
    layers: dict[str, dict[int, str]] = defaultdict(dict)
    found = set()
    for path in datasets:
        numbered = _NUMBERED.fullmatch(path)
        if numbered:
            layers[numbered["layer"].rstrip("/")][int(numbered["number"])] = path
        elif _TENSORFLOW.sub("", path).rpartition("/")[2] in _STATISTICS:
            found.add(path)
    for layer, variables in layers.items():
        paths = [variables[number] for number in sorted(variables)]
        count = _n_statistics(layer, [datasets[path].info.shape for path in paths])
        found.update(paths[len(paths) - count :])
    return found


def _n_statistics(layer: str, shapes: list[tuple[int, ...]]) -> int:
    """How many of the variables of a layer of Keras 3, the last ones, are a batch normalisation's statistics."""
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        return 0
    if _BATCH_NORM.search(layer.rpartition("/")[2]) and len(shapes) >= 2:
        return _RENORM if len(shapes) >= _RENORM else 2
    return 2 if len(shapes) in {3, 4} else 0


def _check_apart(file: Hdf5File, stored: Mapping[str, StoredTensor]) -> None:
    """Refuse tensors that overlap, by which a small file could ask for reading terabytes; the same twice is a tie."""
    spans = {
        (tensor.place[1], tensor.info.n_parameters * tensor.info.dtype.itemsize): name
        for name, tensor in stored.items()
        if tensor.place[1] == tensor.stretches[0].offset
    }
    reached = 0
    for (begin, size), name in sorted(spans.items()):
        if begin < reached:
            raise file.error("damaged: it overlaps another dataset", name)
        reached = begin + size
