"""Every format, damaged in every way: the tensors, or one of our errors that names the file, and nothing else.

The fuzz test at the end starts from good files of all formats and from all the hostile ones of `evil_files`.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.errors import CheckpointError
from tests.checkpoints.attacks import evil_files
from tests.checkpoints.checkpoint_writers import WRITERS

pytestmark = pytest.mark.timeout(180)  # an attack on the time taken must not hang the tests

_LARGEST_SEED = 1 << 20
_TENSORS = {
    "layers.0.weight": torch.arange(60.0).reshape(6, 10),
    "layers.0.bias": torch.ones(6),
    "layers.1.weight": torch.full((4, 6), 0.5, dtype=torch.float16),
}


def _outcome(files: list[Path], folder: Path) -> CheckpointError | dict[str, list[float]]:
    """All tensors, or our error; anything else that is raised goes through and fails the test."""
    scratch = folder / "scratch"
    scratch.mkdir()
    before = sorted(folder.rglob("*"))
    found: CheckpointError | dict[str, list[float]]
    try:
        with open_checkpoint(files, scratch=scratch) as reader:
            found = {
                name: reader.read_block(name, 0, info.n_parameters).tolist() for name, info in reader.tensors.items()
            }
            assert [len(values) for values in found.values()] == [info.n_parameters for info in reader.tensors.values()]
    except CheckpointError as error:
        found = error
    assert sorted(folder.rglob("*")) == before
    assert not isinstance(found, CheckpointError) or found.file
    return found


def _written(writer: str, folder: Path) -> list[Path]:
    home = folder / "files"
    home.mkdir()
    return WRITERS[writer](_TENSORS, home)


@pytest.mark.parametrize("writer", WRITERS)
def test_undamaged(writer: str, tmp_path: Path) -> None:
    """Else the tests below could not fail."""
    found = _outcome(_written(writer, tmp_path), tmp_path)
    assert isinstance(found, dict)
    assert {len(values) for values in found.values()} >= {60, 6, 24}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.6, 0.85, 0.99, None])
@pytest.mark.parametrize("writer", WRITERS)
def test_each_file_cut_short_or_missing(writer: str, share: float | None, tmp_path: Path) -> None:
    """A file of several may hold nothing that is read (optimizer state): then the tensors are those of before."""
    files = _written(writer, tmp_path)
    whole, errors = _outcome(files, tmp_path), []
    for damaged in range(len(files)):
        folder = tmp_path / str(damaged)
        folder.mkdir()
        files = _written(writer, folder)
        content = files[damaged].read_bytes()
        if share is None:
            del files[damaged]
        else:
            files[damaged].write_bytes(content[: int(len(content) * share)])
        if files:
            found = _outcome(files, folder)
            assert isinstance(found, CheckpointError) or found == whole or _is_without_index(writer)
            errors.append(isinstance(found, CheckpointError))
    assert errors == [] or any(errors) or _is_without_index(writer)


def _is_without_index(writer: str) -> bool:
    """Shards that nothing lists: that one is missing shows only in which tensors there are."""
    return writer == "torch_shards"


_changes = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("zero"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("ones"), st.floats(0, 1), st.integers(1, 16)),
        st.tuples(st.just("end"), st.floats(0, 1), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def _changed(content: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    for kind, place, amount in changes:
        at = int(place * max(0, len(content) - 1))
        before, there, after = content[:at], content[at : at + amount], content[at + amount :]
        content = {
            "flip": before + bytes(byte ^ amount for byte in content[at : at + 1]) + content[at + 1 :],
            "cut": before + after,
            "repeat": before + there + there + after,
            "zero": before + bytes(len(there)) + after,
            "ones": before + b"\xff" * len(there) + after,
            "end": before,
        }[kind]
    return content


@functools.cache
def _seeds() -> tuple[tuple[str, tuple[tuple[str, bytes], ...]], ...]:
    """Each seed's name and its files: name and content."""
    found = []
    with TemporaryDirectory() as folder:
        for writer in WRITERS:
            home = Path(folder) / writer
            home.mkdir()
            files = WRITERS[writer](_TENSORS, home)
            found.append((writer, tuple((file.name, file.read_bytes()) for file in files)))
        evil = Path(folder) / "evil"
        evil_files.main(evil)
        found += [
            (path.name, ((f"model{path.suffix}", path.read_bytes()),))
            for path in sorted(evil.iterdir())
            if path.is_file() and path.stat().st_size <= _LARGEST_SEED
        ]
    return tuple(found)


def test_the_seeds_are_all_there() -> None:
    names = {name for name, _ in _seeds()}
    assert names >= set(WRITERS)
    assert len(names) > 100


@settings(max_examples=800, deadline=None)
@given(data=st.data(), changes=_changes)
def test_fuzz(data: st.DataObject, changes: list[tuple[str, float, int]]) -> None:
    name, contents = data.draw(st.sampled_from(_seeds()))
    damaged = data.draw(st.integers(0, len(contents) - 1))
    with TemporaryDirectory() as made:
        folder = Path(made)
        files = []
        for number, (file, content) in enumerate(contents):
            files.append(folder / file)
            files[-1].write_bytes(_changed(content, changes) if number == damaged else content)
        error = _outcome(files, folder)
        if isinstance(error, CheckpointError):
            assert str(error.file).startswith(str(folder)), (name, error)
        shutil.rmtree(folder / "scratch")
        assert sorted(folder.iterdir()) == sorted(files)  # and no canary
