"""Every evil file gives a typed error that names the file, runs nothing, and takes little memory."""

from __future__ import annotations

import io
import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.checkpoints.block_reader import FileContents
from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.checkpoints.safetensors_format import read_safetensors
from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError
from tests.checkpoints.attacks.evil_files import (
    BOMBS,
    DAMAGED,
    INERT,
    MAGIC,
    MALICIOUS,
    OWN_LIMITS,
    SAFETENSORS,
    TENSORS,
    doubling_bomb,
    entry,
    good_safetensors,
    good_torch,
    safetensors,
)
from tests.checkpoints.attacks.verdict import verdict
from tests.checkpoints.checkpoint_writers import rewritten

Write = Callable[[Path], object]

pytestmark = pytest.mark.timeout(120)  # an attack on the time taken must not hang the tests


def _peak() -> int:
    """Highest resident memory since the last reset, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


@contextmanager
def _bounded_memory(limit: int) -> Iterator[None]:
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    yield
    assert _peak() - before < limit


@pytest.mark.parametrize("name", SAFETENSORS)
def test_damaged_safetensors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    SAFETENSORS[name](path)
    with _bounded_memory(300_000_000), pytest.raises(CheckpointFormatError) as caught:
        open_checkpoint([path])
    assert caught.value.file == str(path)
    with pytest.raises((SafetensorError, OSError)), safe_open(path, "pt"):
        pass


@pytest.mark.parametrize("name", OWN_LIMITS | MAGIC | DAMAGED)
def test_damaged_and_foreign_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    (OWN_LIMITS | MAGIC | DAMAGED)[name](path)
    limit = 700_000_000 if name in OWN_LIMITS else 200_000_000
    with _bounded_memory(limit), pytest.raises(CheckpointFormatError) as caught:
        open_checkpoint([path], scratch=tmp_path)
    assert caught.value.file == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_would_fill_the_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    BOMBS[name](path)
    with _bounded_memory(700_000_000), pytest.raises(CheckpointFormatError) as caught:
        open_checkpoint([path])
    assert caught.value.file == str(path)


@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 5}, {"_use_new_zipfile_serialization": False}], ids=str)
@pytest.mark.parametrize("name", INERT)
def test_what_lies_beside_tensors_is_left_alone(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": TENSORS, "beside": INERT[name], ("a", 1): INERT[name]}, path, **options)
    with _bounded_memory(200_000_000), open_checkpoint([path]) as reader:
        assert list(reader.tensors) == sorted(TENSORS)
        assert torch.equal(reader.read_block("layer.weight", 0, 64), TENSORS["layer.weight"].reshape(-1))


def test_calls_in_each_other_are_not_made(tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "beside": doubling_bomb()}, tmp_path / "model.pt")
    with _bounded_memory(200_000_000), open_checkpoint([tmp_path / "model.pt"]) as reader:
        assert list(reader.tensors) == sorted(TENSORS)


@pytest.mark.parametrize("name", MALICIOUS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_nothing_is_executed(name: str, suffix: str, tmp_path: Path) -> None:
    path, canary = tmp_path / f"model{suffix}", tmp_path / "canary"
    MALICIOUS[name].write(path, canary)
    with _bounded_memory(200_000_000), pytest.raises(UnsafeCheckpointError, match="Nothing was executed") as caught:
        open_checkpoint([path])
    assert MALICIOUS[name].names in str(caught.value)
    assert caught.value.file == str(path)
    assert caught.value.next_step
    assert not canary.exists()


_TRUSTED = ("os.system", "eval", "exec", "in a module", "in a legacy module", "pickle in a pickle")
_BARE = ("bare pickle, protocol 0", "bare pickle, protocol 4", "by attributes", "by a dotted name", "by INST", "by OBJ")


@pytest.mark.parametrize("name", _TRUSTED + _BARE)
def test_the_canary_does_sing_when_the_file_is_trusted(name: str, tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    path, canary = tmp_path / "model.pt", tmp_path / "canary"
    MALICIOUS[name].write(path, canary)
    if name in _BARE:
        pickle.loads(path.read_bytes())  # noqa: TID251
    else:
        torch.load(path, weights_only=False)
    assert canary.exists()


def test_wrong_magic_says_what_was_got_and_what_expected(tmp_path: Path) -> None:
    MAGIC["gguf"](tmp_path / "model.pt")
    with pytest.raises(CheckpointFormatError, match=r"begins with b'GGUF.*expected a safetensors header or .*PK"):
        open_checkpoint([tmp_path / "model.pt"])


def test_a_file_with_nan_is_read_as_it_is(tmp_path: Path) -> None:
    save_file({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "model.safetensors")
    with open_checkpoint([tmp_path / "model.safetensors"]) as reader:
        assert math.isnan(reader.read_block("weight", 0, 2)[1].item())


@pytest.mark.parametrize(
    ("name", "says"), [("a million names", "more than 1000000 values"), ("100,001 names", "more than 100000 tensors")]
)
def test_too_many_names_are_the_reason(name: str, says: str, tmp_path: Path) -> None:
    OWN_LIMITS[name](tmp_path / "model.safetensors")
    with pytest.raises(CheckpointFormatError, match=says):
        open_checkpoint([tmp_path / "model.safetensors"])


def test_a_hundred_thousand_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    names = {f"layer.{number}.weight": entry(4 * number, 4 * number + 4, [1]) for number in range(100_000)}
    safetensors(path, names, bytes(400_000))
    with _bounded_memory(600_000_000), open_checkpoint([path]) as reader:
        assert len(reader.tensors) == 100_000
        assert reader.read_block("layer.99999.weight", 0, 1).item() == 0.0


def _flip(content: bytes, flips: list[tuple[float, int]]) -> bytes:
    damaged = bytearray(content)
    for place, value in flips:
        damaged[int(place * (len(damaged) - 1))] ^= value
    return bytes(damaged)


_flips = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4)


def _exported_and_scripted() -> tuple[bytes, bytes]:
    layer, exported, scripted = torch.nn.Linear(2, 2), io.BytesIO(), io.BytesIO()
    torch.export.save(torch.export.export(layer, (torch.ones(1, 2),)), exported)
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(layer), scripted)
    return exported.getvalue(), scripted.getvalue()


@pytest.mark.parametrize(
    "content",
    [good_torch(), good_torch(legacy=True), good_safetensors(), *_exported_and_scripted()],
    ids=["zip", "legacy", "safetensors", "exported", "scripted"],
)
@settings(max_examples=200, deadline=None)
@given(flips=_flips, cut=st.floats(0.5, 1.0))
def test_random_damage_raises_nothing_but_our_errors(
    content: bytes, flips: list[tuple[float, int]], cut: float
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(_flip(content, flips)[: int(len(content) * cut) + 1])
        error = verdict(path)
        assert error is None or error.file == str(path)


@settings(max_examples=300, deadline=None)
@given(flips=_flips)
def test_a_damaged_pickle_with_a_right_checksum_raises_nothing_but_our_errors(flips: list[tuple[float, int]]) -> None:
    """The checksums of the archive would catch the damage before the pickle is looked at."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(
            rewritten(good_torch(), lambda name, data: _flip(data, flips) if name.endswith("data.pkl") else data)
        )
        error = verdict(path)
        assert error is None or error.file == str(path)


@settings(max_examples=300, deadline=None)
@given(flips=_flips)
def test_a_damaged_safetensors_header_is_judged_as_the_library_judges_it(flips: list[tuple[float, int]]) -> None:
    content = good_safetensors()
    header = 8 + int.from_bytes(content[:8], "little")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(_flip(content[:header], flips) + content[header:])
        try:
            with safe_open(path, "pt") as library:
                shapes = {name: tuple(library.get_slice(name).get_shape()) for name in library.keys()}  # noqa: SIM118
        except SafetensorError:
            with pytest.raises(CheckpointFormatError):
                _read(path)
        else:
            contents = _read(path)
            assert contents.names == set(shapes)
            assert all(tensor.info.shape == shapes[name] for name, tensor in contents.tensors.items())


def _read(path: Path) -> FileContents:
    with RawFile.open(path) as file:
        return read_safetensors(file)
