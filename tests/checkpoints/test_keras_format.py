"""Files written by Keras itself, and by h5py as Keras's users might."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.checkpoints import hdf5_datasets, open_checkpoint
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.groups import cells
from spectral_edge.kinds import Kind

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    script = [sys.executable, "-m", "tests.checkpoints.keras_models", str(folder)]
    settings_of_keras = os.environ | {"KERAS_HOME": str(folder)}  # else it writes into the user's home
    subprocess.run(script, check=True, capture_output=True, cwd=Path(__file__).parents[2], env=settings_of_keras)
    return folder


def _read(path: Path) -> dict[str, Array]:
    with open_checkpoint([path]) as reader:
        return {
            name: reader.read_block(name, 0, info.n_parameters).float().numpy().reshape(info.shape)
            for name, info in reader.tensors.items()
        }


def _contents(arrays: Any) -> list[tuple[tuple[int, ...], bytes]]:
    return sorted((array.shape, array.tobytes()) for array in arrays)


WRITTEN = ["functional.weights.h5", "functional.keras", "functional.h5", "weights_of_keras_2.h5", "own.weights.h5"]


@pytest.mark.parametrize("name", [*WRITTEN, "half.weights.h5"])
def test_what_keras_trains_is_read_and_nothing_else(name: str, models: Path) -> None:
    """Not the optimizer, not running statistics (with and without scale, shift and renorm), not generators' states."""
    with np.load(models / f"{name}.npz") as truth:
        assert _contents(_read(models / name).values()) == _contents(truth.values())


@pytest.mark.parametrize("name", WRITTEN)
def test_statistics_and_the_optimizer_are_told_apart(name: str, models: Path) -> None:
    def names(kind: Kind) -> list[str]:
        with open_checkpoint([models / name], include=frozenset({kind})) as reader:
            return list(reader.tensors)

    n_statistics = 4 if name.startswith("own") else 2 + 2 + 5
    assert len(names("buffers")) == n_statistics
    if name in {"functional.weights.h5", "functional.keras", "functional.h5"}:
        # Two moments for each trained weight, and the learning rate.
        assert len(names("optimizer")) == 2 * len(names("parameters")) + 1


def test_names_are_dotted_and_tell_groups(models: Path) -> None:
    names = list(_read(models / "own.weights.h5"))
    assert "attend.query_dense.vars_0" in names
    assert "blocks.dense_1.vars_1" in names
    told = cells(names)
    assert told["bn.vars_0"].category == "norm"
    assert told["layers.layer_normalization.vars_1"].category == "norm"
    assert told["embed.vars_0"].category == "embedding"
    assert {cell.layer for cell in told.values()} == {""}  # a variable's number is no layer's


def test_names_of_keras_2(models: Path) -> None:
    names = set(_read(models / "functional.h5"))
    assert names == set(_read(models / "weights_of_keras_2.h5"))
    assert {"stem.stem.kernel", "batch_normalization.batch_normalization.gamma", "inner.inner.dense.kernel"} <= names


def test_bfloat16_keeps_its_dtype(models: Path) -> None:
    with open_checkpoint([models / "half.weights.h5"]) as reader:
        assert {info.dtype for info in reader.tensors.values()} == {torch.bfloat16}


def test_every_tensor_keras_writes_is_read_in_place(models: Path) -> None:
    for name in WRITTEN:
        with open_checkpoint([models / name]) as reader:
            stored = reader._stored.values()  # type: ignore[attr-defined]
            assert {tensor.file.name for tensor in stored} == {str(models / name)}


def test_an_archive_that_was_compressed_again(models: Path, tmp_path: Path) -> None:
    archive = zipfile.ZipFile
    with (
        archive(models / "functional.keras") as old,
        archive(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
    expected = _read(models / "functional.keras")
    found = _read(tmp_path / "model.keras")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


_extents = st.integers(1, 12)


@settings(max_examples=40, deadline=None)
@given(
    sides=st.lists(st.tuples(_extents, _extents), min_size=1, max_size=4),
    dtype=st.sampled_from(["<f2", "<f4", "<f8"]),
    filters=st.sampled_from([{}, {"compression": "gzip"}, {"compression": 1, "shuffle": True}, {"shuffle": True}]),
)
def test_any_chunks_give_what_h5py_reads(
    sides: list[tuple[int, int]], dtype: str, filters: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = tuple(max(side) for side in sides)
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    path = tmp_path_factory.mktemp("chunks") / "model.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", data=array, chunks=tuple(min(side) for side in sides), **filters)
    assert np.array_equal(_read(path)["kernel"], array.astype(np.float32))


def test_many_groups_and_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        for number in range(3000):
            file.create_dataset(f"layer_{number % 50}/part_{number}/kernel:0", data=np.full(2, number, "<f4"))
    found = _read(tmp_path / "model.h5")
    assert len(found) == 3000
    assert found["layer_49.part_1999.kernel"].tolist() == [1999, 1999]


def test_one_dataset_under_two_names_is_tied(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["b/kernel"] = np.ones(3, "<f4")
        file["a"] = file["b/kernel"]
    assert list(_read(tmp_path / "model.h5")) == ["a"]


def test_small_datasets_within_the_header(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3,))
        made = h5py.h5d.create(file.id, b"bias", h5py.h5t.IEEE_F32LE, space, creation)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3, dtype="<f4"))
    assert _read(tmp_path / "model.h5")["bias"].tolist() == [0, 1, 2]


def test_what_holds_no_floating_point_numbers_is_left_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["kernel"] = np.ones(2, "<f4")
        file["step"] = 3
        file["name"] = "dense"
        file["phases"] = np.ones(2, "c8")
        file["nothing"] = h5py.Empty("f4")
        file["empty"] = np.zeros((0, 3), "f4")
        file["native"] = np.dtype("<f4")
        file.create_group("dropout")
    assert list(_read(tmp_path / "model.h5")) == ["kernel"]


def _with(path: Path, **options: Any) -> h5py.File:
    return h5py.File(path, "w", **options)


def _newer(path: Path) -> None:
    with _with(path, libver="latest") as file:
        file["kernel"] = np.ones(3)


def _tracked(path: Path) -> None:
    with _with(path, track_order=True) as file:
        file["kernel"] = np.ones(3)


def _lzf(path: Path) -> None:
    with _with(path) as file:
        file.create_dataset("kernel", data=np.ones(300), compression="lzf")


def _fletcher(path: Path) -> None:
    with _with(path) as file:
        file.create_dataset("kernel", data=np.ones(300), fletcher32=True)


def _of_type(dtype: Any) -> Any:
    def write(path: Path) -> None:
        with _with(path) as file:
            file.create_dataset("kernel", data=np.zeros(3, dtype))

    return write


def _never_written(path: Path) -> None:
    with _with(path) as file:
        file.create_dataset("kernel", (3,), "<f4")


def _same_name(path: Path) -> None:
    with _with(path) as file:
        file["kernel"], file["kernel:0"] = np.ones(3), np.ones(2)


def _user_block(path: Path) -> None:
    with _with(path, userblock_size=512) as file:
        file["kernel"] = np.ones(3)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_newer, r"version 3 of HDF5's superblock.*Next: write each"),
        (_tracked, r"version 2 of HDF5's object headers.*Next: write each"),
        (_lzf, r"filters \[32000\], expected gzip or none"),
        (_fletcher, r"filters \[3\], expected gzip or none"),
        (_of_type(">f4"), "of an unusual type, expected little-endian IEEE"),
        (_of_type(np.longdouble), "of an unusual type"),
        (_of_type("V2"), "nothing tells which numbers they are"),
        (_never_written, "never written"),
        (_same_name, "the same name but for TensorFlow's `:0`"),
        (_user_block, "unknown format"),
    ],
)
def test_what_is_not_read_is_refused_with_the_reason(write: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    write(path)
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        open_checkpoint([path])
    assert caught.value.file == str(path)


def test_the_way_out_of_newer_layouts_works(tmp_path: Path) -> None:
    _newer(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as old, h5py.File(tmp_path / "model.h5", "w") as new:
        for name in old:
            new[name] = old[name][()]
    assert _read(tmp_path / "model.h5")["kernel"].tolist() == [1, 1, 1]


def test_chunks_that_are_too_wide_to_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_datasets, "_SLAB", 1000)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.create_dataset("kernel", data=np.ones((10, 100)), chunks=(5, 10))
    with pytest.raises(CheckpointFormatError, match="side by side, the limit is 1000") as caught:
        open_checkpoint([tmp_path / "model.h5"])
    assert caught.value.tensor == "kernel"


def test_h5py_in_memory_files_are_the_same(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2), "<f4")
    (tmp_path / "model.weights.h5").write_bytes(buffer.getvalue())
    assert list(_read(tmp_path / "model.weights.h5")) == ["layers.dense.vars_0"]
