"""Opening a checkpoint: one file or several, each read as what its first bytes say it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from spectral_edge.checkpoints.block_reader import BlockReader, FileContents, StoredTensor
from spectral_edge.checkpoints.dcp_format import read_distributed
from spectral_edge.checkpoints.export_format import EXPORTED, read_exported
from spectral_edge.checkpoints.hdf5_objects import HDF5_MAGIC
from spectral_edge.checkpoints.inert_pickle import PICKLE_LIMIT, load
from spectral_edge.checkpoints.keras_format import KERAS_WEIGHTS, read_hdf5, read_keras_archive
from spectral_edge.checkpoints.numpy_format import NPY_MAGIC, NPY_SUFFIX, read_npy, read_npz
from spectral_edge.checkpoints.protocol import CheckpointReader
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.safetensors_format import HEADER_LIMIT, looks_like_safetensors, read_safetensors
from spectral_edge.checkpoints.scales import with_scales
from spectral_edge.checkpoints.state_dict import PARAMETERS, parameters
from spectral_edge.checkpoints.torch_format import read_torch_archive
from spectral_edge.checkpoints.torch_legacy import LEGACY_MAGIC, read_torch_legacy
from spectral_edge.checkpoints.torch_tar import looks_like_tar, read_torch_tar
from spectral_edge.checkpoints.weight_files import DCP_DATA, DCP_METADATA, INDEX_SUFFIX
from spectral_edge.checkpoints.zip_members import ZIP_MAGIC, zip_members
from spectral_edge.errors import CheckpointError, CheckpointFormatError, UnsafeCheckpointError, UsageError
from spectral_edge.kinds import Kind


def open_checkpoint(
    files: Sequence[Path], *, scratch: Path | None = None, include: frozenset[Kind] = PARAMETERS
) -> CheckpointReader:
    """Open one checkpoint, whose tensors are spread over `files`; the format is told by content, not by name.

    Args:
        files: The checkpoint's files: one, all shards, or the `.metadata` and all .distcp files of a folder of
            torch.distributed.checkpoint. An index (`*.index.json`) among them is held against the shards; the names in
            it or in `.metadata` are never followed to other files.
        scratch: Folder for copies of tensors that cannot be read in place (tensors that are not
            contiguous or are compressed); None for the system's folder for temporary files. The copies go with the
            reader.
        include: Kinds of the tensors to give. An averaged copy's are called `averaged.<name>` and an optimizer's
            `optimizer.<path>`.

    Raises:
        CheckpointFormatError: A file is damaged, truncated or of an unknown format, or the shards contradict.
        UnsafeCheckpointError: A file names what serves to run code. Nothing was run.
        NotFoundError, AccessDeniedError: A file is not there, or may not be read.
        DiskFullError: No room in `scratch`.
        UsageError: No files were given, or more than the system lets one process open.
    """
    if not files:
        raise UsageError("`files` must name at least one file of the checkpoint, got none.")
    with ExitStack() as opened:
        tensors = _tensors(files, scratch, include, opened)
        resources = opened.pop_all()  # from here on the files belong to the reader; an error above closed them
    return BlockReader(tensors, resources)


def _tensors(
    files: Sequence[Path], scratch: Path | None, kinds: frozenset[Kind], resources: ExitStack
) -> dict[str, StoredTensor]:
    spare = resources.enter_context(ScratchFile(scratch))
    opened = [resources.enter_context(RawFile.open(path)) for path in files]
    indexes = [file for file in opened if file.name.endswith(INDEX_SUFFIX)]
    shards = _shards([file for file in opened if file not in indexes], spare, kinds)
    for index in indexes:
        _check_index(index, shards)
    try:
        names = {name for contents in shards.values() for name in contents.names}
        buffers = {name for contents in shards.values() for name in contents.buffers}
        return parameters(with_scales(_merged(shards), names), buffers, kinds)
    except CheckpointFormatError as error:
        error.file = error.file or ", ".join(list(shards)[:3])
        raise


def _shards(files: Sequence[RawFile], spare: ScratchFile, kinds: frozenset[Kind]) -> dict[str, FileContents]:
    """What each of `files` holds, by its name; a folder of torch.distributed.checkpoint goes by its `.metadata`."""
    metadata = next((file for file in files if Path(file.name).name == DCP_METADATA), None)
    if metadata is not None:
        return {metadata.name: read_distributed(files, spare, kinds)}
    lonely = next((file for file in files if file.name.endswith(DCP_DATA)), None)
    if lonely is not None:
        raise CheckpointFormatError(
            f"a data file of torch.distributed.checkpoint, got no `{DCP_METADATA}` to tell what it holds.",
            file=lonely.name,
            next_step="give all files of its folder.",
        )
    return {file.name: _contents(file, spare, kinds) for file in files}


def _contents(file: RawFile, spare: ScratchFile, kinds: frozenset[Kind]) -> FileContents:
    head = bytes(file.read(0, min(file.size, len(LEGACY_MAGIC))))
    if head.startswith(ZIP_MAGIC):
        return _zip_contents(file, spare, kinds)
    if head == LEGACY_MAGIC:
        return read_torch_legacy(file, spare, kinds)
    if head.startswith(HDF5_MAGIC):
        return read_hdf5(file, spare)
    if head.startswith(NPY_MAGIC):
        return read_npy(file, spare)
    if looks_like_safetensors(file):
        return read_safetensors(file)
    if looks_like_tar(file):
        return read_torch_tar(file, spare, kinds)
    raise _unknown(file, head)


def _zip_contents(file: RawFile, spare: ScratchFile, kinds: frozenset[Kind]) -> FileContents:
    members = zip_members(file)
    names = [member.name for member in members]
    if KERAS_WEIGHTS in names:
        return read_keras_archive(members, spare)
    if names and all(name.endswith(NPY_SUFFIX) for name in names):
        return read_npz(file, spare)
    if any(name.partition("/")[2] == EXPORTED for name in names):
        return read_exported(file, members, spare, kinds)
    return read_torch_archive(file, members, spare, kinds)


def _unknown(file: RawFile, head: bytes) -> CheckpointError:
    """The error for a file of no known format, which says so if it is a pickle that asks for code."""
    error = CheckpointFormatError(
        f"unknown format: the file begins with {head[:8]!r}, expected a safetensors header or what torch.save, "
        f"NumPy or Keras write ({ZIP_MAGIC!r}, {HDF5_MAGIC!r}, {NPY_MAGIC!r}, or in old files {LEGACY_MAGIC[:8]!r}).",
        file=file.name,
    )
    try:
        load(bytes(file.read(0, min(file.size, PICKLE_LIMIT))), file=file.name)
    except UnsafeCheckpointError as unsafe:
        return unsafe
    except CheckpointFormatError:
        return error
    return error


def _merged(shards: Mapping[str, FileContents]) -> dict[str, StoredTensor]:
    merged: dict[str, StoredTensor] = {}
    for file, contents in shards.items():
        for name in contents.tensors:
            if name in merged:
                raise CheckpointFormatError(
                    f"the tensor is in this file and in {merged[name].file.name}, expected one.", file=file, tensor=name
                )
        merged |= contents.tensors
    return merged


def _check_index(index: RawFile, shards: Mapping[str, FileContents]) -> None:
    """Hold the index to the shards given: each tensor where it says, nothing missing, nothing beyond.

    Raises:
        CheckpointFormatError: They contradict, or the index is damaged.
    """
    told = _weight_map(index)
    held = {Path(file).name: contents.names for file, contents in shards.items()}
    missing = sorted(set(told.values()) - set(held))
    if missing:
        raise CheckpointFormatError(
            f"the index names {len(missing)} files that were not given, {ascii(missing[0])[:100]} first.",
            file=index.name,
        )
    for name, file in told.items():
        if name not in held[file]:
            raise CheckpointFormatError(
                f"the index says that it is in {file}, which lacks it.", file=index.name, tensor=name
            )
    beyond = sorted({name for names in held.values() for name in names} - set(told))
    if beyond:
        raise CheckpointFormatError("the index does not name this tensor.", file=index.name, tensor=beyond[0])


def _weight_map(index: RawFile) -> dict[str, str]:
    if index.size > HEADER_LIMIT:
        raise CheckpointFormatError(f"the index has {index.size} bytes, the limit is {HEADER_LIMIT}.", file=index.name)
    try:
        parsed = json.loads(bytes(index.read(0, index.size)).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointFormatError(f"the index is not valid JSON: {error}.", file=index.name) from error
    match parsed:
        case {"weight_map": dict(told)} if all(isinstance(file, str) for file in told.values()):
            return told
        case _:
            raise CheckpointFormatError("expected `weight_map`, an object from tensor names to files.", file=index.name)
