"""The inner loop: the compiled kernel and torch against brute force, threads, and what is read how."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from spectral_edge.block_sums import _ROUNDING_EPS, MEMORY, Rows, Workspace, products_on, row_bytes, threads_given
from spectral_edge.blocks import WHOLE, Piece, Shard, blocks, in_memory
from spectral_edge.checkpoints import CheckpointReader, TensorInfo, open_checkpoint
from spectral_edge.checkpoints.tensor_records import FLOATING
from spectral_edge.errors import CheckpointFormatError, TrajectoryError, UsageError, ZeroUpdatesError
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.kernels import COLUMNS, add_products, compiled, padded, read_rows
from spectral_edge.settings import Settings
from spectral_edge.threads import map_in_order
from spectral_edge.trajectory import Trajectory, add_up
from tests.spectral.trajectories import band_of, random_states, update_matrix, write_checkpoints


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(1, 30),
    size=st.one_of(st.integers(1, 9), st.integers(1, 3 * COLUMNS)),
    lags=st.integers(1, 40),
    first_share=st.floats(0, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**20),
)
def test_products_are_those_of_brute_force(
    count: int, size: int, lags: int, first_share: float, dtype: type[np.floating], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    theta = generator.standard_normal((count + 1, size + 7)).astype(dtype)
    first = int(first_share * (count - 1))
    updates = np.diff(theta[:, :size].astype(np.float64), axis=0)
    exact = updates @ updates.T
    products = np.zeros((padded(count), padded(count)))
    for _ in range(2):  # it adds
        add_products(theta, size, first, lags, np.zeros((padded(count), COLUMNS)), products)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact))).max()
    for i in range(first, count):
        begin = max(0, i - lags)
        np.testing.assert_allclose(
            products[i, begin : i + 1], 2 * exact[i, begin : i + 1], rtol=1e-12, atol=1e-14 * scale
        )
    by_torch = products_on(torch.device("cpu"), torch.from_numpy(theta), size, first)
    np.testing.assert_allclose(by_torch, exact[first:], rtol=1e-12, atol=1e-14 * scale)


def test_nan_and_infinity_come_through_the_compiled_sums() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        theta = np.ones((4, 300), np.float32)
        theta[2, 299] = bad
        products = np.zeros((padded(3), padded(3)))
        add_products(theta, 300, 0, 3, np.zeros((padded(3), COLUMNS)), products)
        assert not np.isfinite([products[1, 1], products[2, 2]]).any()
        assert products[0, 0] == 0.0


def test_a_function_without_a_place_for_its_compiled_form_is_compiled_all_the_same() -> None:
    namespace: dict[str, object] = {}
    exec(compile("def double(x): return 2 * x", "<no file>", "exec"), namespace)  # numba finds no folder for this
    function = namespace["double"]
    assert callable(function)
    assert compiled(function)(21) == 42


class TestWorkspace:
    def _rows(self, tmp_path: Path, dtype: torch.dtype, n_old: int) -> tuple[Rows, list[dict[str, torch.Tensor]]]:
        states = [
            {name: value.to(dtype) for name, value in state.items()}
            for state in random_states({"a": (40, 30), "b": (5,), "c": (3, 3)}, 12, seed=3)
        ]
        readers: list[CheckpointReader] = []
        for index, state in enumerate(states):
            save_file(state, tmp_path / f"{index}.safetensors")
            readers.append(open_checkpoint([tmp_path / f"{index}.safetensors"]))
        return Rows(tuple(readers), tuple(map(str, range(12))), n_old, lags=6), states

    @pytest.mark.parametrize("is_compiled", [True, False])
    @pytest.mark.parametrize("n_old", [0, 1, 7])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_sums(self, tmp_path: Path, dtype: torch.dtype, n_old: int, is_compiled: bool) -> None:
        rows, states = self._rows(tmp_path, dtype, n_old)
        workspace = Workspace(12, 2000, torch.device("cpu"), compiled=is_compiled)
        found = workspace.sums(rows, list(blocks(WHOLE.pieces(rows.readers[0].tensors), rows.readers[0].tensors, 2000)))
        exact = band_of(update_matrix(states, ["a", "b", "c"]), 6).values[max(0, n_old - 1) :]
        np.testing.assert_allclose(found.values, exact, rtol=1e-12, atol=1e-12)
        eps = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}.get(dtype, 0.0)
        energy = [sum(float((value.double() ** 2).sum()) for value in state.values()) for state in states[n_old:]]
        np.testing.assert_allclose(found.rounding, eps**2 / 3 * np.asarray(energy), rtol=1e-12)

    def test_a_workspace_is_used_again_for_fewer_rows_and_shorter_blocks(self, tmp_path: Path) -> None:
        rows, states = self._rows(tmp_path, torch.float32, 0)
        workspace = Workspace(12, 20_000, torch.device("cpu"), compiled=True)
        chunk = list(blocks(WHOLE.pieces(rows.readers[0].tensors), rows.readers[0].tensors, 20_000))
        workspace.sums(rows, chunk)
        fewer = Rows(rows.readers[:5], rows.names, 0, 6)
        exact = band_of(update_matrix(states[:5], ["a", "b", "c"]), 6).values
        np.testing.assert_allclose(workspace.sums(fewer, chunk).values, exact, rtol=1e-12, atol=1e-12)

    def test_a_file_that_loses_bytes_while_it_is_read_is_an_error_with_its_name(self, tmp_path: Path) -> None:
        rows, _ = self._rows(tmp_path, torch.float32, 0)
        workspace = Workspace(12, 20_000, torch.device("cpu"), compiled=True)
        chunk = list(blocks(WHOLE.pieces(rows.readers[0].tensors), rows.readers[0].tensors, 20_000))
        os.truncate(tmp_path / "7.safetensors", 1000)
        with pytest.raises(CheckpointFormatError, match="ends at byte 1000") as caught:
            workspace.sums(rows, chunk)
        assert caught.value.file == str(tmp_path / "7.safetensors")


def test_rows_are_read_until_one_fails(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(bytes(range(200)))
    room = np.zeros((3, 20), np.uint8)
    with (tmp_path / "bytes").open("rb") as file:
        descriptors = np.full(3, file.fileno(), np.int32)
        assert read_rows(descriptors, np.array([0, 50, 190]), room[:, 4:14]) == 3
        assert room[:, 4:14].tolist() == [list(range(start, start + 10)) for start in (0, 50, 190)]
        assert not room[:, :4].any()
        assert not room[:, 14:].any()
        assert read_rows(descriptors, np.array([0, 195, 0]), room[:, 4:14]) == 1
        assert read_rows(np.array([-1], np.int32), np.array([0]), room[:1]) == 0


def test_every_narrow_dtype_that_parameters_may_have_carries_the_precision_guard() -> None:
    assert set(_ROUNDING_EPS) == {dtype for dtype in FLOATING.values() if dtype.itemsize <= 2}
    for dtype, eps in _ROUNDING_EPS.items():
        # Not from torch.finfo, which is wrong of float8_e5m2fnuz in torch 2.13: from all numbers that there are.
        codes = torch.arange(2 ** (8 * dtype.itemsize)).to(torch.uint8 if dtype.itemsize == 1 else torch.uint16)
        numbers = codes.view(dtype).float()
        assert eps == (numbers[numbers > 1].min().item() - 1) / 2


@given(checkpoints=st.integers(1, 600))
def test_blocks_fit_into_the_memory_allowed(checkpoints: int) -> None:
    width = row_bytes(checkpoints)
    assert width == 1 << 15 or width * checkpoints <= MEMORY
    assert 1 << 15 <= width <= 1 << 18
    assert width % 8 == 0  # a row of float64 follows a row of float64


def test_the_result_is_the_same_for_every_number_of_threads(tmp_path: Path) -> None:
    shapes = {f"layers.{layer}.mlp.fc{part}.weight": (331, 400) for layer in range(3) for part in range(4)}
    checkpoints = write_checkpoints(tmp_path, random_states(shapes, 9, seed=12))
    found = []
    for threads in (1, 2, 5):
        run = TrajectoryPass(Settings(), threads=threads)
        run.extend([], checkpoints)
        found.append(run.result().bands)
    for bands in found[1:]:
        for name, band in bands.items():
            assert np.array_equal(band.values, found[0][name].values)
    assert 1 <= threads_given() <= 16


LONG = 1 << 20

_layouts = st.dictionaries(
    st.text("abc", min_size=1, max_size=4),
    st.tuples(st.integers(1, 3 * LONG), st.sampled_from([torch.float64, torch.float32, torch.bfloat16])),
    min_size=1,
    max_size=6,
).map(lambda sizes: {name: TensorInfo((size,), dtype) for name, (size, dtype) in sizes.items()})


@settings(max_examples=50, deadline=None)
@given(tensors=_layouts, count=st.integers(1, 4), width=st.integers(LONG // 2, 8 * LONG))
def test_every_parameter_is_in_one_block_of_one_shard(tensors: dict[str, TensorInfo], count: int, width: int) -> None:
    covered: dict[str, list[tuple[int, int]]] = {name: [] for name in tensors}
    for index in range(count):
        for block in blocks(Shard(index, count).pieces(tensors), tensors, width):
            assert 0 < in_memory(block.dtype).itemsize * block.size <= width
            for piece in block.pieces:
                assert tensors[piece.name].dtype == block.dtype
                covered[piece.name].append((piece.start, piece.stop))
    for name, spans in covered.items():
        edges = [0, *(edge for span in sorted(spans) for edge in span), tensors[name].n_parameters]
        assert edges[0::2] == edges[1::2]


_SHAPES = {"embed.weight": (11,), "layers.0.mlp.fc1.weight": (3, LONG // 2), "layers.0.attn.q_proj.weight": (7, 5)}


class TestShards:
    def _part(self, checkpoints: list[LocalCheckpoint], shard: Shard) -> Trajectory:
        run = TrajectoryPass(Settings(window=4, lags=4), shard=shard)
        run.extend([], checkpoints[:4])
        run.extend(checkpoints[:4], checkpoints[4:])
        return run.result()

    def test_the_bands_of_all_shards_add_up(self, tmp_path: Path) -> None:
        checkpoints = write_checkpoints(tmp_path, random_states(_SHAPES, 6, seed=13))
        names = [checkpoint.name for checkpoint in checkpoints]
        whole = self._part(checkpoints, WHOLE)
        for count in (1, 3, 9):  # with nine, some shards have no parameter at all
            parts = [self._part(checkpoints, Shard(index, count)) for index in range(count)]
            added = add_up(parts[::-1], names)
            assert added.steps == whole.steps
            for group, band in whole.bands.items():
                assert added.bands[group].n_parameters == band.n_parameters
                np.testing.assert_allclose(added.bands[group].values, band.values, rtol=1e-12)

    def test_what_was_not_fetched_is_not_read_as_zeros(self, tmp_path: Path) -> None:
        checkpoints = write_checkpoints(tmp_path, random_states(_SHAPES, 6, seed=13))
        pieces = [replace(checkpoint, pieces=frozenset[Piece]()) for checkpoint in checkpoints]
        with pytest.raises(CheckpointFormatError, match="only a part of its parameters was fetched"):
            self._part(pieces, Shard(0, 2))

    def test_that_nothing_moves_is_told_of_the_sum_only(self, tmp_path: Path) -> None:
        states = random_states(_SHAPES, 1, seed=13) * 5
        checkpoints = write_checkpoints(tmp_path, states)
        parts = [self._part(checkpoints, Shard(index, 2)) for index in range(2)]
        with pytest.raises(ZeroUpdatesError, match="hold identical weights"):
            add_up(parts, [checkpoint.name for checkpoint in checkpoints])

    def test_shards_of_different_checkpoints_do_not_add_up(self, tmp_path: Path) -> None:
        checkpoints = write_checkpoints(tmp_path, random_states(_SHAPES, 6, seed=13))
        parts = [self._part(checkpoints, Shard(0, 2)), self._part(checkpoints[1:], Shard(1, 2))]
        with pytest.raises(TrajectoryError, match="different checkpoints"):
            add_up(parts, ["a"] * 6)

    @pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
    def test_an_index_outside_is_refused(self, index: int, count: int) -> None:
        with pytest.raises(UsageError, match="`index` of a shard"):
            Shard(index, count)


class TestMapInOrder:
    def test_results_come_in_order_and_each_worker_does_one_thing_at_a_time(self) -> None:
        busy: dict[str, int] = {"a": 0, "b": 0, "c": 0}
        started = threading.Barrier(3, timeout=30)

        def work(worker: str, item: int) -> int:
            busy[worker] += 1
            assert busy[worker] == 1
            if item < 3:
                started.wait()  # three at once, or this would time out
            busy[worker] -= 1
            return item * item

        assert list(map_in_order(work, list(busy), range(50))) == [item * item for item in range(50)]

    def test_an_error_comes_in_its_place_and_ends_the_work(self) -> None:
        begun: list[int] = []

        def work(worker: str, item: int) -> int:
            begun.append(item)
            if item == 5:
                raise ValueError("five")
            return item

        results = map_in_order(work, ["a", "b"], range(1000))
        found: list[int] = []
        with pytest.raises(ValueError, match="five"):
            found.extend(results)
        assert found == [0, 1, 2, 3, 4]
        assert len(begun) < 20

    def test_closing_early_leaves_no_thread(self) -> None:
        before = threading.active_count()
        with closing(map_in_order(lambda _, item: item, [None, None], range(1000))) as results:
            assert next(results) == 0
        assert threading.active_count() == before
