"""Evil .npz, .npy, .h5 and .keras files: typed errors that name the file, bounded memory and time, nothing followed."""

from __future__ import annotations

import functools
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.checkpoints import copies, open_checkpoint
from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError
from tests.checkpoints.attacks.evil_arrays import CUT, GOOD, NUMPY, npy, npy_of, told, zipped
from tests.checkpoints.attacks.evil_files import Call
from tests.checkpoints.attacks.evil_hdf5 import Builder
from tests.checkpoints.attacks.evil_keras import KERAS, chunk_tree, hdf5
from tests.checkpoints.attacks.verdict import verdict

pytestmark = pytest.mark.timeout(60)  # an attack on the time taken must not hang the tests

MEMORY = 400_000_000


@contextmanager
def _bounded_memory() -> Iterator[None]:
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    yield
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    assert 1024 * int(found[1]) - before < MEMORY


@pytest.mark.parametrize("name", NUMPY | KERAS | CUT)
def test_damaged_files_give_an_error_that_names_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes((NUMPY | KERAS | CUT)[name]())
    with _bounded_memory(), pytest.raises(CheckpointFormatError) as caught:
        open_checkpoint([path], scratch=tmp_path)
    assert caught.value.file == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["link to another file", "kept in another file", "virtual dataset"])
def test_nothing_leads_to_another_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(KERAS[name]())
    opened = []
    unwatched = os.open
    monkeypatch.setattr(os, "open", lambda file, *rest, **more: opened.append(file) or unwatched(file, *rest, **more))
    with pytest.raises(CheckpointFormatError):
        open_checkpoint([path])
    assert opened == [path]


def test_files_made_by_hand_are_sound_but_for_the_attack(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""

    def make(builder: Builder) -> bytes:
        data = builder.add(np.arange(6, dtype="<f4").tobytes())
        plain = builder.dataset(data, 24, (2, 3))
        tree = chunk_tree(builder, [(0,), (32,)], zlib.compress(np.ones(32, "<f4").tobytes()))
        return builder.table({"a": builder.group({"kernel": plain}), "b": builder.chunked(tree, (64,), (32,))})

    path = tmp_path / "model.h5"
    path.write_bytes(hdf5(make)())
    with h5py.File(path) as file, open_checkpoint([path]) as reader:
        assert list(reader.tensors) == ["a.kernel", "b"]
        assert np.array_equal(file["a/kernel"][()].ravel(), reader.read_block("a.kernel", 0, 6).numpy())
        assert reader.read_block("b", 0, 64).tolist() == [1.0] * 64


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_objects_are_never_unpickled(compressed: bool, alone: bool, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.npz"
    hostile = np.empty(1, dtype=object)
    hostile[0] = Call(os.system, f"touch '{canary}'")
    content = npy(hostile, allow_pickle=True)
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    path.write_bytes(content if alone else zipped(("a.npy", npy()), ("b.npy", content), method=method))
    with pytest.raises(UnsafeCheckpointError, match="Nothing was executed") as caught:
        open_checkpoint([path])
    assert (caught.value.file, caught.value.tensor) == (str(path), "array" if alone else "b")
    assert not canary.exists()
    pickle.loads(content[content.index(b"\n") + 1 :])  # noqa: TID251
    assert canary.exists()  # else the test could not fail


@pytest.mark.parametrize("descr", ["'|O'", "'|O8'", "[('weight', '<f4'), ('evil', '|O')]"])
def test_every_way_to_say_object(descr: str, tmp_path: Path) -> None:
    path = tmp_path / "model.npy"
    path.write_bytes(npy_of(told("(1,)", descr), pickle.dumps(Call(os.system, "true"))))
    with pytest.raises(UnsafeCheckpointError):
        open_checkpoint([path])


@pytest.mark.parametrize("name", ["npz many small bombs", "chunk bomb", "keras bomb"])
def test_what_is_written_to_scratch_is_bounded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes((NUMPY | KERAS)[name]())
    written: list[int] = []
    unwatched = os.pwrite

    def watched(file: int, data: Any, offset: int) -> int:
        written.append(len(data))
        return unwatched(file, data, offset)

    monkeypatch.setattr(os, "pwrite", watched)
    with pytest.raises(CheckpointFormatError, match="would come to more than"):
        open_checkpoint([path], scratch=tmp_path)
    assert sum(written) <= copies.ALLOWED_AT_ONCE + copies.EXPANSION * path.stat().st_size


_flips = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=150, deadline=None)
@given(flips=_flips, cut=st.one_of(st.just(1.0), st.floats(0.3, 1.0)))
def test_random_damage_raises_nothing_but_our_errors(name: str, flips: list[tuple[float, int]], cut: float) -> None:
    content = bytearray(_good(name))
    for place, value in flips:
        content[int(place * (len(content) - 1))] ^= value
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        path.write_bytes(content[: int(len(content) * cut) + 1])
        error = verdict(path)
        assert error is None or error.file == str(path)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), compressed=st.booleans())
def test_damage_to_the_structures_of_hdf5(data: st.DataObject, compressed: bool) -> None:
    """Most bytes of the files above are zeros that nothing reads: here only others are changed."""
    content = bytearray(_good("h5 compressed" if compressed else "h5"))
    used = [place for place, byte in enumerate(content) if byte]
    for place in data.draw(st.lists(st.sampled_from(used), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.h5"
        path.write_bytes(content)
        error = verdict(path)
        assert error is None or error.file == str(path)


@functools.cache
def _good(name: str) -> bytes:
    return GOOD[name]()
