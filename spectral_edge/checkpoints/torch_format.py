"""Reader of the zip archives that torch.save has written since torch 1.6, and of TorchScript's.

The archive's pickle is read inertly (:mod:`inert_pickle`). Storages are members of their own, kept as they are, so that
tensors are read where they lie. Nothing of torch's own loader is used.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final, NoReturn

from spectral_edge.checkpoints.block_reader import FileContents, StoredTensor
from spectral_edge.checkpoints.copies import CopyAllowance
from spectral_edge.checkpoints.inert_pickle import PICKLE_LIMIT, Made, load
from spectral_edge.checkpoints.module_pickle import script_module
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.state_dict import PARAMETERS
from spectral_edge.checkpoints.tensor_records import Storage, tensor_of
from spectral_edge.checkpoints.tensor_views import Region, contents_of, stored_tensor
from spectral_edge.checkpoints.zip_members import Member, shown, zip_members
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind

_PICKLE: Final = "data.pkl"
_CLASS: Final = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]$", re.MULTILINE)
_NOT_COMPUTED: Final = 0
"""The checksum under `torch.serialization.set_crc32_options(False)`."""


def read_torch_archive(
    file: RawFile, members: Sequence[Member], scratch: ScratchFile, kinds: frozenset[Kind] = PARAMETERS
) -> FileContents:
    """The tensors of one zip archive with these members; only tensors not contiguous are copied to `scratch`.

    Raises:
        CheckpointFormatError: Damaged, truncated, or not an archive of torch.save.
        UnsafeCheckpointError: Its pickle names what serves to run code.
        DiskFullError: No room for the copies.
    """
    archive = _Archive(file, members)
    loaded = archive.loaded()
    if archive.has("constants.pkl") and isinstance(loaded, Made):
        loaded = script_module(loaded, archive.parameters_of_classes())
    return contents_of(loaded, file, scratch, archive.region, kinds)


def read_single_tensor(file: RawFile, scratch: ScratchFile) -> StoredTensor | None:
    """The tensor of an archive that holds nothing else, as in .distcp files; None when it is no tensor of floats.

    Raises:
        CheckpointFormatError, UnsafeCheckpointError, DiskFullError: As :func:`read_torch_archive`.
    """
    archive = _Archive(file, zip_members(file))
    tensor = tensor_of(archive.loaded())
    return None if tensor is None else stored_tensor(tensor, file, scratch, archive.region)


class _Archive:
    """The members of one archive, without the name of the folder that all of them lie in."""

    def __init__(self, file: RawFile, members: Sequence[Member]) -> None:
        self._file = file
        roots = [member.name.removesuffix(_PICKLE) for member in members if member.name.split("/")[1:] == [_PICKLE]]
        if len(roots) != 1:
            self._refuse(f"{len(roots)} members `{_PICKLE}`")
        self._members = {
            member.name.removeprefix(roots[0]): member for member in members if member.name.startswith(roots[0])
        }
        order = self._members.get("byteorder")
        if order is not None and order.size != len("little"):
            raise CheckpointFormatError(
                "written on a big-endian machine, expected little-endian numbers.", file=file.name
            )

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self._members

    def loaded(self) -> object:
        """What its pickle stands for."""
        member = self._stored(self._members[_PICKLE])
        if member.size > PICKLE_LIMIT:
            self._refuse(f"a pickle of {member.size} bytes (the limit is {PICKLE_LIMIT})")
        pickled = bytes(self._file.read(member.offset, member.size))
        if member.checksum not in {_NOT_COMPUTED, zlib.crc32(pickled)}:
            raise member.error("damaged: got another checksum than it declares.")
        return load(pickled, file=self._file.name)

    def region(self, storage: Storage) -> Region | None:
        """Where a storage's bytes lie."""
        member = self._members.get(f"data/{storage.key}")
        if member is None:
            return None
        self._stored(member)
        return Region(member.offset, member.size)

    def parameters_of_classes(self) -> dict[str, frozenset[str]]:
        """The names of the parameters of each class of TorchScript, which its code tells beside its functions."""
        allowance = CopyAllowance(self._file)
        told: dict[str, frozenset[str]] = {}
        for name, member in self._members.items():
            if name.startswith("code/") and name.endswith(".py"):
                allowance.take(member.size, name)
                module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
                for kind, names in _CLASS.findall(_text(member)):
                    told[f"{module}.{kind}"] = frozenset(re.findall(r'"([^"]*)"', names))
        return told

    def _stored(self, member: Member) -> Member:
        if member.deflated:
            self._refuse(f"member {shown(member.name)} compressed")
        return member

    def _refuse(self, got: str) -> NoReturn:
        raise CheckpointFormatError(f"expected a zip archive as torch.save writes it, got {got}.", file=self._file.name)


def _text(member: Member) -> str:
    pieces: Sequence[bytes] = [*member.inflated()] if member.deflated else [member.head(member.size)]
    return b"".join(pieces).decode("utf-8", errors="replace")
