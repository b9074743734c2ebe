"""Evil folders of torch.distributed.checkpoint: a typed error each, nothing run, nothing written, little memory."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
)

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.errors import CheckpointError, CheckpointFormatError, UnsafeCheckpointError
from tests.checkpoints.attacks.evil_files import MALICIOUS, Call
from tests.checkpoints.checkpoint_writers import distributed_folder

pytestmark = pytest.mark.timeout(120)  # an attack on the time taken must not hang the tests

WEIGHTS = {"weight": torch.arange(64.0).reshape(8, 8), "bias": torch.arange(8.0)}
NAME = "model.weight"


@contextmanager
def _bounded_memory(limit: int) -> Iterator[None]:
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    yield
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    assert 1024 * int(found[1]) - before < limit


@dataclass
class Folder:
    """A good folder, whose metadata an attack changes."""

    told: Metadata

    @property
    def weight(self) -> Any:
        return self.told.state_dict_metadata[NAME]

    @property
    def index(self) -> MetadataIndex:
        return MetadataIndex(NAME, (0, 0))

    def move(self, **changes: Any) -> None:
        """Change where the weight's chunk is said to lie."""
        self.told.storage_data[self.index] = replace(self.told.storage_data[self.index], **changes)

    def cut(self, *boxes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        """Say that the weight is kept as these chunks, all at the same place."""
        self.weight.chunks = [ChunkStorageMetadata(torch.Size(o), torch.Size(s)) for o, s in boxes]
        place = self.told.storage_data[self.index]
        self.told.storage_data |= {MetadataIndex(NAME, offsets): place for offsets, _ in boxes}


def _shape(folder: Folder, *shape: int) -> None:
    folder.weight.size = torch.Size(shape)
    folder.cut(((0,) * len(shape), shape))


def _beside(folder: Folder, name: str) -> None:
    """One more tensor of the model, described as the weight is, list of chunks and all."""
    folder.told.state_dict_metadata[f"model.{name}"] = folder.weight
    folder.told.planner_data[f"model.{name}"] = ("model", name)


def _same_bytes(folder: Folder) -> None:
    _beside(folder, "twin")
    folder.told.storage_data[MetadataIndex("model.twin", (0, 0))] = folder.told.storage_data[folder.index]


def _million_chunks(folder: Folder) -> None:
    """One list of a million times one chunk: three megabytes of pickle."""
    folder.weight.chunks = folder.weight.chunks * 1_000_000


def _too_long(folder: Folder) -> None:
    folder.told.planner_data["padding"] = "x" * 20_000_000


def _ten_thousand_cells(folder: Folder) -> None:
    """A grid of chunks that are all said to be the same 256 bytes."""
    folder.weight.size = torch.Size([800, 800])
    folder.cut(*(((8 * row, 8 * column), (8, 8)) for row in range(100) for column in range(100)))


def _shared_chunks(folder: Folder) -> None:
    """A list of ten thousand chunks for twenty thousand tensors."""
    folder.weight.chunks = folder.weight.chunks * 10_000
    for number in range(20_000):
        _beside(folder, str(number))


def _keys(*path: str) -> Callable[[Folder], None]:
    return lambda folder: folder.told.planner_data.update({NAME: path})


def _set(attribute: str, value: object) -> Callable[[Folder], None]:
    return lambda folder: setattr(folder.told, attribute, value)


HALVES = (((0, 0), (4, 8)), ((4, 0), (4, 8)))

DAMAGED: dict[str, tuple[Callable[[Folder], None], str]] = {
    "offset past the end": (lambda f: f.move(offset=10**6), "truncated"),
    "offset of 10^30": (lambda f: f.move(offset=10**30), "truncated"),
    "negative offset": (lambda f: f.move(offset=-8), "does not tell where"),
    "negative length": (lambda f: f.move(length=-8), "does not tell where"),
    "length past the end": (lambda f: f.move(length=10**9), "truncated"),
    "length of nothing": (lambda f: f.move(length=0), "zip archive"),
    "offset into the middle": (
        lambda f: f.move(offset=f.told.storage_data[f.index].offset + 7),
        "share the same bytes",
    ),
    "offset is text": (lambda f: f.move(offset="0"), "does not tell where"),
    "path traversal": (lambda f: f.move(relative_path="../../../etc/passwd"), "which was not given"),
    "absolute path": (lambda f: f.move(relative_path="/etc/passwd"), "which was not given"),
    "itself as data": (lambda f: f.move(relative_path=".metadata"), "which was not given"),
    "path in a folder below": (lambda f: f.move(relative_path="./__0_0.distcp"), "which was not given"),
    "path is a number": (lambda f: f.move(relative_path=3), "does not tell where"),
    "transforms are a number": (lambda f: f.move(transform_descriptors=3), "does not tell where"),
    "transform": (lambda f: f.move(transform_descriptors=["stream.zstd/1"]), "through stream.zstd/1"),
    "overlap": (lambda f: f.cut(((0, 0), (5, 8)), ((4, 0), (4, 8))), "overlap"),
    "hole": (lambda f: f.cut(((0, 0), (3, 8)), ((4, 0), (4, 8))), "lack some"),
    "overlap and hole": (lambda f: f.cut(((0, 0), (4, 8)), ((2, 0), (4, 8))), "overlap and lack some"),
    "a chunk twice": (lambda f: f.cut(HALVES[0], HALVES[0]), "does not tell where all"),
    "chunk outside": (lambda f: f.cut(((0, 0), (4, 8)), ((8, 0), (4, 8))), "lies outside"),
    "same bytes for two chunks": (lambda f: f.cut(*HALVES), "share the same bytes"),
    "same bytes for two tensors": (_same_bytes, "share"),
    "no chunks": (lambda f: f.cut(), "lack some"),
    "another number of dimensions": (lambda f: f.cut(((0,), (64,))), "1 offsets and 1 sizes for 2 dimensions"),
    "chunk of a larger shape than its entry": (lambda f: _shape(f, 8, 9), "is not a tensor of that size and"),
    "shape of 2^200": (lambda f: _shape(f, *[2**50] * 4), "is not a tensor of that size"),
    "shape of a hundred dimensions": (lambda f: _shape(f, *[1] * 100), "its shape is not one"),
    "cut along twelve dimensions": (
        lambda f: (setattr(f.weight, "size", torch.Size([2] * 12)), f.cut(((0,) * 12, (1,) * 12)))[1],
        "hold 1 entries of 4096",
    ),
    "another dtype": (
        lambda f: setattr(f.weight.properties, "dtype", torch.float64),
        "is not a tensor of that size and",
    ),
    "properties are none": (lambda f: setattr(f.weight, "properties", None), "its dtype is not one"),
    "size is text": (lambda f: setattr(f.weight, "size", "8, 8"), "its shape is not one"),
    "size of text": (lambda f: setattr(f.weight, "size", ("8", "8")), "its shape is not one"),
    "chunks are a number": (lambda f: setattr(f.weight, "chunks", 3), "does not tell where"),
    "chunks are numbers": (lambda f: setattr(f.weight, "chunks", [3]), "no numbers"),
    "no entry for the chunk": (lambda f: f.told.storage_data.pop(f.index) and None, "does not tell where"),
    "a million times one chunk": (_million_chunks, "does not tell where all"),
    "too long": (_too_long, "the limit is"),
    "ten thousand chunks on the same bytes": (_ten_thousand_cells, "share the same bytes"),
    "twenty thousand tensors with one list of chunks": (_shared_chunks, "does not tell where"),
    "keys half a million deep": (_keys(*["model"] * 500_000), "keys that led to it"),
    "a tensor within a tensor": (_keys("model", "bias", "weight"), "lead to more than one"),
    "two tensors under the same keys": (_keys("model", "bias"), "lead to more than one"),
    "only bytes": (_set("state_dict_metadata", {"step": BytesStorageMetadata()}), "expected a dictionary"),
    "no tensors": (_set("state_dict_metadata", {}), "expected a dictionary"),
    "tensors are a list": (_set("state_dict_metadata", [1]), "expected the `Metadata`"),
    "storage is none": (_set("storage_data", None), "expected the `Metadata`"),
    "storage of others": (_set("storage_data", {1: 2, "a": "b", (3,): 4}), "does not tell where"),
}
"""What is changed in a good folder's metadata, and what the error must say."""


def _attacked(folder: Path, change: Callable[[Folder], None]) -> list[Path]:
    files = distributed_folder(WEIGHTS, folder)
    told = pickle.loads((folder / ".metadata").read_bytes())  # noqa: TID251 - written a line above
    change(Folder(told))
    (folder / ".metadata").write_bytes(pickle.dumps(told))
    return files


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metadata(name: str, tmp_path: Path) -> None:
    change, message = DAMAGED[name]
    files = _attacked(tmp_path, change)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with _bounded_memory(700_000_000), pytest.raises(CheckpointFormatError, match=re.escape(message)) as caught:
        open_checkpoint(files, scratch=scratch)
    assert caught.value.file in {str(file) for file in files}
    assert list(scratch.iterdir()) == []


def test_the_folder_is_good_when_nothing_is_changed(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    with open_checkpoint(_attacked(tmp_path, lambda _: None)) as reader:
        assert torch.equal(reader.read_block("weight", 0, 64), WEIGHTS["weight"].reshape(-1))


def _verdict(files: list[Path]) -> CheckpointError | None:
    """Reads the whole checkpoint; what is raised beside our own errors goes through and fails the test."""
    try:
        with open_checkpoint(files) as reader:
            for name, info in reader.tensors.items():
                assert reader.read_block(name, 0, info.n_parameters).numel() == info.n_parameters
    except CheckpointError as error:
        return error
    return None


# Pickles that ask for code.


def _evil_metadata(folder: Path, told: object) -> list[Path]:
    files = distributed_folder(WEIGHTS, folder)
    (folder / ".metadata").write_bytes(told if isinstance(told, bytes) else pickle.dumps(told))
    return files


def _calls(canary: Path) -> tuple[Call, ...]:
    return Call(os.system, f"touch '{canary}'"), Call(eval, f"open({str(canary)!r}, 'w').close()")


@pytest.mark.parametrize("place", ["metadata", "described", "size", "chunks", "relative_path"])
@pytest.mark.parametrize("which", [0, 1], ids=["os.system", "eval"])
def test_code_where_something_is_needed_is_an_error(place: str, which: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    call = _calls(canary)[which]
    evil: dict[str, Callable[[Folder], None]] = {
        "described": lambda folder: setattr(folder.told, "state_dict_metadata", {NAME: call}),
        "size": lambda folder: setattr(folder.weight, "size", call),
        "chunks": lambda folder: setattr(folder.weight, "chunks", [call]),
        "relative_path": lambda folder: folder.move(relative_path=call),
    }
    files = _evil_metadata(tmp_path, call) if place == "metadata" else _attacked(tmp_path, evil[place])
    with pytest.raises(UnsafeCheckpointError) as caught:
        open_checkpoint(files)
    assert caught.value.file == str(tmp_path / ".metadata")
    assert not canary.exists()


def test_code_beside_what_is_needed_is_refused_too(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    system, evaluate = _calls(canary)

    def change(folder: Folder) -> None:
        folder.told.state_dict_metadata["evil"] = system
        folder.told.storage_data[evaluate] = system
        folder.told.planner_data[NAME] = evaluate
        folder.told.storage_meta = system

    with pytest.raises(UnsafeCheckpointError, match=r"posix\.system.*eval.*Nothing was executed"):
        open_checkpoint(_attacked(tmp_path, change))
    assert not canary.exists()


def test_the_canary_does_sing_when_the_file_is_trusted(tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    for call in _calls(tmp_path / "canary"):
        _evil_metadata(tmp_path, call)
        pickle.loads((tmp_path / ".metadata").read_bytes())  # noqa: TID251 - our own
        (tmp_path / "canary").unlink()


@pytest.mark.parametrize("name", MALICIOUS)
def test_nothing_is_executed_from_a_data_file(name: str, tmp_path: Path) -> None:
    evil, canary = tmp_path / "__0_0.distcp", tmp_path / "canary"
    MALICIOUS[name].write(tmp_path / "evil", canary)
    content = (tmp_path / "evil").read_bytes()
    files = _attacked(tmp_path, lambda folder: folder.move(offset=0, length=len(content)))
    evil.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(files)
    assert caught.value.file in {str(file) for file in files}
    assert not canary.exists()


# Bytes damaged at random.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"\x80\x04.",
        b"\x80\x04N" + b"\x85" * 200_000 + b".",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        b"not a pickle at all",
        bytes(1000),
        pickle.dumps({f"{number}": number for number in range(1000)}),
    ],
    ids=["empty", "cut", "nothing", "nested tuples", "long bytes", "text", "zeros", "another dictionary"],
)
def test_what_is_no_metadata(content: bytes, tmp_path: Path) -> None:
    files = _evil_metadata(tmp_path, content)
    with _bounded_memory(700_000_000), pytest.raises(CheckpointFormatError) as caught:
        open_checkpoint(files)
    assert caught.value.file == str(tmp_path / ".metadata")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("which", [".metadata", "__0_0.distcp"])
def test_truncated(which: str, share: float, tmp_path: Path) -> None:
    files = distributed_folder(WEIGHTS, tmp_path)
    content = (tmp_path / which).read_bytes()
    cut = share if which == ".metadata" else share / 3  # a distcp's last entries are the optimizer's, and never read
    (tmp_path / which).write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(CheckpointFormatError) as caught:
        open_checkpoint(files)
    assert caught.value.file == str(tmp_path / which)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files = distributed_folder(WEIGHTS, tmp_path_factory.mktemp("good"))
    return {file.name: file.read_bytes() for file in files}


_flips = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(flips=_flips, which=st.sampled_from([".metadata", "__0_0.distcp"]))
def test_random_damage_raises_nothing_but_our_errors(
    good: dict[str, bytes], flips: list[tuple[float, int]], which: str
) -> None:
    with TemporaryDirectory() as folder:
        damaged = bytearray(good[which])
        for place, value in flips:
            damaged[int(place * (len(damaged) - 1))] ^= value
        for name, content in (good | {which: bytes(damaged)}).items():
            Path(folder, name).write_bytes(content)
        files = [Path(folder, name) for name in good]
        error = _verdict(files)
        assert error is None or error.file in {str(file) for file in files}
