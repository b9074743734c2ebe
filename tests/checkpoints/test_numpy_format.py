"""What NumPy's own writers make, beyond what every format has in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from spectral_edge.checkpoints import numpy_format, open_checkpoint
from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError

Array = np.ndarray[Any, np.dtype[Any]]


def _npz(path: Path, compressed: bool = False, **arrays: Array) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


def _read(path: Path) -> dict[str, Array]:
    with open_checkpoint([path]) as reader:
        return {
            name: reader.read_block(name, 0, info.n_parameters).numpy().reshape(info.shape)
            for name, info in reader.tensors.items()
        }


def test_names_with_slashes_become_dotted(tmp_path: Path) -> None:
    path = _npz(tmp_path / "p.npz", **{"params/layers_0/kernel": np.ones((2, 3)), "params/head/bias": np.zeros(4)})
    assert sorted(_read(path)) == ["params.head.bias", "params.layers_0.kernel"]


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    path = _npz(tmp_path / "p.npz", **{"a/b": np.ones(2), "a.b": np.ones(3)})
    with pytest.raises(CheckpointFormatError, match="are one name once slashes are dots") as caught:
        open_checkpoint([path])
    assert (caught.value.file, caught.value.tensor) == (str(path), "a.b")


def test_an_npy_file_is_one_tensor(tmp_path: Path) -> None:
    theta = np.random.default_rng(0).standard_normal((5, 7))
    np.save(tmp_path / "theta.npy", theta)
    found = _read(tmp_path / "theta.npy")
    assert list(found) == ["array"]
    assert np.array_equal(found["array"], theta)


_dtypes = st.sampled_from([np.float16, np.float32, np.float64])


@settings(max_examples=60, deadline=None)
@given(
    array=arrays_of.arrays(_dtypes, arrays_of.array_shapes(max_dims=5, max_side=6), elements={"allow_nan": False}),
    permutation=st.randoms(use_true_random=False),
    slab=st.sampled_from([1 << 26, 1600, 400]),
    write=st.sampled_from(["npy", "npz", "compressed"]),
)
def test_any_order_of_axes_is_read_row_major(array: Array, permutation: Any, slab: int, write: str) -> None:
    axes = list(range(array.ndim))
    permutation.shuffle(axes)
    turned = array.transpose(axes)
    row = turned[0].nbytes if turned.flags.f_contiguous and not turned.flags.c_contiguous else 0
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_format, "_SLAB", slab)  # else every array of a test is one slab
        patch.setattr(numpy_format, "_SHORTEST_RUN", 1)
        path = Path(folder) / f"a.{write[:3]}"
        if write == "npy":
            np.save(path, turned)
        else:
            path = _npz(path.with_suffix(".npz"), write == "compressed", array=turned)
        if row > slab:
            with pytest.raises(CheckpointFormatError, match="in Fortran order takes minutes"):
                open_checkpoint([path])
        else:
            assert np.array_equal(_read(path)["array"], turned)


def test_headers_of_version_two(tmp_path: Path) -> None:
    with (tmp_path / "v2.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(6.0).reshape(2, 3), version=(2, 0))
    assert _read(tmp_path / "v2.npy")["array"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_holds_no_floating_point_numbers_is_left_out(tmp_path: Path) -> None:
    records = np.zeros(3, dtype=[("名", "<f4"), ("b", "<i4")])  # a header of version 3
    with pytest.warns(UserWarning, match="format 3.0"):
        path = _npz(
            tmp_path / "p.npz",
            weight=np.ones(2),
            step=np.array(3),
            names=np.array(["a", "b"]),
            records=records,
            mask=np.ones(3, dtype=bool),
            phases=np.ones(3, dtype=np.complex64),
            raw=np.zeros(3, dtype="V5"),
        )
    assert list(_read(path)) == ["weight"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3, dtype=ml_dtypes.bfloat16), "bfloat16 or float8"),
        (np.ones(3, dtype=ml_dtypes.float8_e4m3fn), "bfloat16 or float8|of type '.f1'"),
        (np.ones(3, dtype=">f4"), "of type '>f4', expected little-endian"),
        (np.ones(3, dtype=np.longdouble), "of type '<f16'"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_numbers_that_cannot_be_read_are_refused_with_a_way_out(
    array: Array, message: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"p.{suffix}"
    np.save(path, array) if suffix == "npy" else _npz(path, weight=np.ones(2), array=array)
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        open_checkpoint([path])
    assert caught.value.tensor == "array"
    assert "astype" in str(caught.value.next_step)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_dictionary_saved_as_one_array_is_a_pickle_and_refused(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "p.npz", params={"kernel": np.ones(3)})
    with pytest.raises(UnsafeCheckpointError, match=r"a pickle\. Nothing was executed") as caught:
        open_checkpoint([tmp_path / "p.npz"])
    assert caught.value.tensor == "params"


_LINES = np.ones((300, 200), dtype=np.float32)


@pytest.mark.parametrize(
    ("array", "compressed", "copied"),
    [(_LINES, False, 0), (_LINES, True, 128 + _LINES.nbytes), (np.asfortranarray(_LINES), False, _LINES.nbytes)],
)
def test_stored_tensors_are_read_in_place_and_others_are_copied(
    array: Array, compressed: bool, copied: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _npz(tmp_path / "p.npz", compressed, a=array)
    written = [0]
    unwatched = os.pwrite

    def watched(file: int, data: Any, offset: int) -> int:
        written.append(unwatched(file, data, offset))
        return written[-1]

    monkeypatch.setattr(os, "pwrite", watched)
    assert np.array_equal(_read(path)["a"], array)
    assert sum(written) == copied


@pytest.mark.parametrize("entries", [1 << 18, (1 << 18) - 32, (1 << 18) - 33, 1 << 20])
def test_compressed_zeros_that_come_in_several_pieces(entries: int, tmp_path: Path) -> None:
    """All of the input is taken in long before all of the output is given out."""
    path = _npz(tmp_path / "p.npz", compressed=True, weight=np.zeros(entries, dtype=np.float32))
    assert np.array_equal(_read(path)["weight"], np.zeros(entries))


def test_a_slow_fortran_tensor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_format, "_SLAB", 1 << 12)
    path = _npz(tmp_path / "p.npz", weight=np.zeros((3, 1 << 11), order="F"))
    with pytest.raises(CheckpointFormatError, match="in Fortran order takes minutes") as caught:
        open_checkpoint([path])
    assert caught.value.tensor == "weight"


def test_half_precision_keeps_its_dtype(tmp_path: Path) -> None:
    path = _npz(tmp_path / "p.npz", weight=np.ones(3, dtype=np.float16))
    with open_checkpoint([path]) as reader:
        assert reader.tensors["weight"].dtype is torch.float16
