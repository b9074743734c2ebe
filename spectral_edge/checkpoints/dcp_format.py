"""Reader of checkpoint folders as torch.distributed.checkpoint writes them: `.metadata`, `__0_0.distcp` and so on.

A .distcp file is a row of entries, one for each chunk of a tensor: small archives of torch.save, or, with
`SerializationFormat.SAFETENSORS`, one safetensors file for all. The names of files in `.metadata` are only ever
compared with those that were given. Chunks are read where they lie, or gathered: see :mod:`chunk_tiling`.

Unlike torch.save, this format writes tied weights out once for each of their names, so that they cannot be told to be
tied: they count once for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spectral_edge.checkpoints.block_reader import FileContents, StoredTensor
from spectral_edge.checkpoints.chunk_tiling import Box, Chunk, tensor_of_chunks
from spectral_edge.checkpoints.dcp_metadata import DcpMetadata, Entry, KeyPath, read_metadata
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.checkpoints.safetensors_format import looks_like_safetensors, read_safetensors
from spectral_edge.checkpoints.state_dict import PARAMETERS, Leaf, find_state_dict
from spectral_edge.checkpoints.torch_format import read_single_tensor
from spectral_edge.checkpoints.weight_files import DCP_METADATA
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import Kind


def read_distributed(
    files: Iterable[RawFile], scratch: ScratchFile, kinds: frozenset[Kind] = PARAMETERS
) -> FileContents:
    """The tensors of one folder, from its `.metadata` and its data files, those that it does not name passed by.

    What is of none of `kinds`, as far as the keys tell that it was saved under, is not looked at.

    Raises:
        CheckpointFormatError: Truncated, damaged, or a file that it names was not given; chunks overlap, leave a hole,
            or lie past the end of their file.
        UnsafeCheckpointError: It asks for code.
        DiskFullError: No room for tensors that must be gathered.
    """
    by_name = _by_name(files)
    told = read_metadata(by_name.pop(DCP_METADATA))
    data, names = _DataFiles(told, by_name, scratch), _full_names(told, kinds)
    infos = {name: told.info(full_name) for name, full_name in names.items()}
    floating = {name: info for name, info in infos.items() if info is not None and info.n_parameters}
    places = {name: told.chunks(names[name], info.shape) for name, info in floating.items()}
    data.check_apart((names[name], entry) for name, placed in places.items() for _, entry in placed)
    stored = {
        name: tensor_of_chunks(info, [data.chunk(names[name], info, *place) for place in places[name]], scratch)
        for name, info in floating.items()
    }
    return FileContents(frozenset(names), stored)


def _by_name(files: Iterable[RawFile]) -> dict[str, RawFile]:
    """The files by their names without folders: a tracker may have fetched each into a folder of its own."""
    found: dict[str, RawFile] = {}
    for file in files:
        name = Path(file.name).name
        if name in found:
            raise CheckpointFormatError(f"two files are called `{name}`, expected those of one folder.", file=file.name)
        found[name] = file
    return found


@dataclass(frozen=True)
class _Saved(Leaf):
    """A tensor where it lay in the dictionary that was saved, and what the metadata calls it."""

    full_name: str


def _full_names(told: DcpMetadata, kinds: frozenset[Kind]) -> dict[str, str]:
    """The tensors of these kinds by their names within the model, and what each is called in the metadata."""
    saved: dict[str | int, object] = {}
    for full_name, path in told.paths.items():
        _put(saved, path, _Saved(told.n_entries(full_name), is_buffer=False, full_name=full_name), told)
    try:
        found = find_state_dict(saved, kinds)
    except CheckpointFormatError as error:
        raise told.error(error.what) from error
    return {name: leaf.full_name for name, leaf in found.items() if isinstance(leaf, _Saved)}


def _put(saved: dict[str | int, object], path: KeyPath, leaf: Leaf, told: DcpMetadata) -> None:
    """Set `leaf` in the nested dictionaries that it was saved in."""
    *above, last = path
    inside: object = saved
    for key in above:
        inside = inside.setdefault(key, {}) if isinstance(inside, dict) else None
    if not isinstance(inside, dict) or last in inside:
        raise told.error(f"the keys {ascii(path)[:100]} lead to more than one thing.")
    inside[last] = leaf


class _DataFiles:
    """The data files of a folder, by the names that its metadata gives them."""

    def __init__(self, told: DcpMetadata, files: Mapping[str, RawFile], scratch: ScratchFile) -> None:
        self._told = told
        self._files = files
        self._scratch = scratch
        self._safetensors: dict[str, FileContents | None] = {}

    def check_apart(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """Hold that no two of the `entries`, each given with its tensor, are the same bytes.

        Else a few bytes could be said to be a tensor of terabytes.

        Raises:
            CheckpointFormatError: Two are, or one is in no file that was given.
        """
        reached: tuple[str, int] = ("", 0)
        for file, begin, end, tensor in sorted(self._region(*named) for named in entries):
            if file == reached[0] and begin < reached[1]:
                raise self._told.error("two chunks are said to share the same bytes.", tensor)
            reached = file, end

    def chunk(self, tensor: str, info: TensorInfo, box: Box, entry: Entry) -> Chunk:
        """The chunk of `tensor` that is `box`, and where its bytes lie.

        Raises:
            CheckpointFormatError: They do not lie there, or are not those of such a chunk.
        """
        stored = self._stored(tensor, entry)
        if stored is None or stored.info != TensorInfo(box[1], info.dtype):
            raise self._told.error(
                f"the entry of its chunk {box} is not a tensor of that size and {info.dtype}.", tensor
            )
        stretch, *_ = stored.stretches
        return Chunk(*box, stretch.file, stretch.offset)

    def _region(self, tensor: str, entry: Entry) -> tuple[str, int, int, str]:
        """File, first byte and last but one of an entry, and its tensor."""
        contents, file = self._as_safetensors(entry, tensor), self._file(entry, tensor)
        if contents is None:
            end = entry.offset + entry.length
            if end > file.size:
                raise CheckpointFormatError(
                    f"truncated: its entry ends at byte {end}, the file has {file.size}.", file=file.name, tensor=tensor
                )
            return entry.file, entry.offset, end, tensor
        # The offsets in `.metadata` are not kept for these files: the safetensors header tells.
        stored = contents.tensors.get(tensor)
        begin = -1 if stored is None else stored.place[1]
        return entry.file, begin, begin + 1, tensor

    def _stored(self, tensor: str, entry: Entry) -> StoredTensor | None:
        contents, file = self._as_safetensors(entry, tensor), self._file(entry, tensor)
        if contents is not None:
            return contents.tensors.get(tensor)
        if entry.transforms:
            raise CheckpointFormatError(
                f"it is stored through {', '.join(entry.transforms[:3])}, and only plain entries are read.",
                file=file.name,
                tensor=tensor,
                next_step="save it without stream transforms (`_extensions`).",
            )
        return read_single_tensor(file.part(entry.offset, entry.length, file.name), self._scratch)

    def _file(self, entry: Entry, tensor: str) -> RawFile:
        if entry.file not in self._files:
            raise CheckpointFormatError(
                f"it lies in {ascii(entry.file)[:100]}, which was not given.",
                file=self._told.name,
                tensor=tensor,
                next_step="give all files of the folder.",
            )
        return self._files[entry.file]

    def _as_safetensors(self, entry: Entry, tensor: str) -> FileContents | None:
        """What the entry's whole file holds, if it is a safetensors file."""
        if entry.file not in self._safetensors:
            file = self._file(entry, tensor)
            self._safetensors[entry.file] = read_safetensors(file) if looks_like_safetensors(file) else None
        return self._safetensors[entry.file]
