"""Opening a checkpoint: one file or several, each read as what its first bytes say it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from spectral_edge.checkpoints.block_reader import BlockReader, FileContents, StoredTensor
from spectral_edge.checkpoints.naming import INDEX_SUFFIX
from spectral_edge.checkpoints.pickle_scan import scan
from spectral_edge.checkpoints.protocol import CheckpointReader
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.safetensors_format import HEADER_LIMIT, looks_like_safetensors, read_safetensors
from spectral_edge.checkpoints.state_dict import parameters
from spectral_edge.checkpoints.torch_format import (
    LEGACY_MAGIC,
    PICKLE_LIMIT,
    ZIP_MAGIC,
    read_torch_archive,
    read_torch_legacy,
)
from spectral_edge.errors import CheckpointError, CheckpointFormatError, UnsafeCheckpointError, UsageError


def open_checkpoint(files: Sequence[Path], *, scratch: Path | None = None) -> CheckpointReader:
    """Open one checkpoint, whose tensors are spread over `files`; the format is told by content, not by name.

    Args:
        files: The checkpoint's files: one, or all shards. An index (`*.index.json`) among them is held against the
            shards; the names in it are never followed to other files.
        scratch: Folder for copies of tensors that cannot be read in place (torch's older format, tensors that are not
            contiguous); None for the system's folder for temporary files. The copies go with the reader.

    Raises:
        CheckpointFormatError: A file is damaged, truncated or of an unknown format, or the shards contradict.
        UnsafeCheckpointError: A file asks for code to be run. It was not.
        NotFoundError, AccessDeniedError: A file is not there, or may not be read.
        DiskFullError: No room in `scratch`.
        UsageError: No files were given, or more than the system lets one process open.
    """
    if not files:
        raise UsageError("`files` must name at least one file of the checkpoint, got none.")
    with ExitStack() as opened:
        tensors = _tensors(files, scratch, opened)
        resources = opened.pop_all()  # from here on the files belong to the reader; an error above closed them
    return BlockReader(tensors, resources)


def _tensors(files: Sequence[Path], scratch: Path | None, resources: ExitStack) -> dict[str, StoredTensor]:
    spare = resources.enter_context(ScratchFile(scratch))
    shards: dict[str, FileContents] = {}
    indexes: list[RawFile] = []
    for path in files:
        file = resources.enter_context(RawFile.open(path))
        if path.name.endswith(INDEX_SUFFIX):
            indexes.append(file)
        else:
            shards[file.name] = _contents(file, spare)
    for index in indexes:
        _check_index(index, shards)
    try:
        return parameters(_merged(shards))
    except CheckpointFormatError as error:
        error.file = error.file or ", ".join(list(shards)[:3])
        raise


def _contents(file: RawFile, spare: ScratchFile) -> FileContents:
    head = bytes(file.read(0, min(file.size, len(LEGACY_MAGIC))))
    if head.startswith(ZIP_MAGIC):
        return read_torch_archive(file, spare)
    if head == LEGACY_MAGIC:
        return read_torch_legacy(file, spare)
    if looks_like_safetensors(file):
        return read_safetensors(file)
    raise _unknown(file, head)


def _unknown(file: RawFile, head: bytes) -> CheckpointError:
    """The error for a file of no known format, which says so if it is a pickle that asks for code."""
    error = CheckpointFormatError(
        f"unknown format: the file begins with {head[:8]!r}, expected a safetensors header or what torch.save writes "
        f"({ZIP_MAGIC!r}, or in old files {LEGACY_MAGIC[:8]!r}).",
        file=file.name,
    )
    try:
        scan(bytes(file.read(0, min(file.size, PICKLE_LIMIT))), 1, file.name)
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
