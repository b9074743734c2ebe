"""Tensors that lie as plain runs of bytes in open files, read block by block: the reader behind every format."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType

import torch

from spectral_edge.checkpoints.protocol import CheckpointReader, TensorInfo
from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.errors import CheckpointFormatError

Place = tuple[str, int, int]
"""File, address of the first entry, number of entries: two names with the same place are one tensor."""


@dataclass(frozen=True)
class StoredTensor:
    """Where the row-major bytes of one tensor lie: from byte `offset` of `file` on.

    `place` is where the checkpoint itself keeps them, which differs from `offset` for a copy in a scratch file.
    """

    info: TensorInfo
    file: RawFile
    offset: int
    place: Place

    @classmethod
    def in_place(cls, info: TensorInfo, file: RawFile, offset: int) -> StoredTensor:
        """A tensor read from the checkpoint's own bytes."""
        return cls(info, file, offset, (file.name, offset, info.n_parameters))


@dataclass(frozen=True)
class FileContents:
    """What one file of a checkpoint holds: all tensors' `names` as written, and the floating point `tensors`."""

    names: frozenset[str]
    tensors: Mapping[str, StoredTensor]


class BlockReader(CheckpointReader):
    """Reads blocks of `stored` tensors; memory does not grow with the size of the checkpoint.

    Args:
        stored: The tensors by name; their order is kept.
        resources: The open files; closed together with this reader.
    """

    def __init__(self, stored: Mapping[str, StoredTensor], resources: ExitStack) -> None:
        self._tensors = MappingProxyType({name: tensor.info for name, tensor in stored.items()})
        self._layout = {
            name: (tensor.file, tensor.offset, tensor.info.dtype, tensor.info.n_parameters)
            for name, tensor in stored.items()
        }
        self._resources = resources

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Shapes and dtypes by name, sorted by name."""
        return self._tensors

    def read_block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Entries `start:stop` of the flattened (row-major) tensor `name`: shape (stop - start,), the file's own dtype.

        The block is a copy that belongs to the caller.

        Raises:
            CheckpointFormatError: No such tensor or entries, or the file has lost bytes since it was opened.
        """
        if name not in self._layout:
            raise CheckpointFormatError("the checkpoint holds no such tensor.", tensor=name)
        file, offset, dtype, count = self._layout[name]
        if not 0 <= start <= stop <= count:
            raise CheckpointFormatError(
                f"got a request for entries {start}:{stop}, expected a range within 0:{count}.",
                file=file.name,
                tensor=name,
            )
        data = file.read(offset + start * dtype.itemsize, (stop - start) * dtype.itemsize)
        # torch cannot view an empty array as another dtype.
        return torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)

    def close(self) -> None:
        """Release the files; may be called twice."""
        self._resources.close()

    def __exit__(self, *_: object) -> None:
        self.close()
