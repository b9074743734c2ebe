"""The random map of a sketch against its definition, its statistics over seeds, and its algebra."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.band import Matrix
from spectral_edge.errors import UsageError
from spectral_edge.groups import Cell
from spectral_edge.sketching import Piece, Sketcher, relative_error, variance
from spectral_edge.sketching.signs import add_signed, add_signed_on_device, key_of

WORD = 1 << 64
SHAPES = {"layers.0.attn.q_proj.weight": 70, "layers.1.attn.q_proj.weight": 31, "layers.0.norm.weight": 5, "head": 12}


def mixed(word: int) -> int:
    """The finaliser of SplitMix64, in Python's integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % WORD
    return word ^ (word >> 31)


def matrix_of_map(seed: int, n_parameters: int, size: int) -> Matrix:
    """The map as a matrix, shape (size, P), by its definition."""
    digest = hashlib.sha256(str(seed).encode()).digest()
    signs, shifts = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
    found = np.zeros((size, n_parameters))
    for place in range(n_parameters):
        row, column = divmod(place, size)
        word = mixed((signs + (row * math.ceil(size / 64) + column // 64 + 1) * 0x9E3779B97F4A7C15) % WORD)
        shift = (mixed((shifts + (row + 1) * 0x9E3779B97F4A7C15) % WORD) >> 33) % size
        found[(column + shift) % size, place] = 1 - 2 * (word >> column % 64 & 1)
    return found


def sketched(values: Matrix, size: int, seed: int, first: int = 0) -> Matrix:
    sums = np.zeros(size)
    add_signed(values, first, key_of(seed), sums)
    return sums


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63), st.integers(1, 300), st.integers(1, 150), st.data())
def test_both_loops_follow_the_definition(seed: int, n_parameters: int, size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n_parameters - 1))
    values = np.random.default_rng(seed).standard_normal(n_parameters).astype(np.float32)
    expected = matrix_of_map(seed, n_parameters, size)[:, first:] @ values[first:].astype(np.float64)
    on_device = torch.zeros(size, dtype=torch.float64)
    add_signed_on_device(torch.from_numpy(values[first:]), first, key_of(seed), on_device)
    np.testing.assert_allclose(sketched(values[first:], size, seed, first), expected, atol=1e-12)
    np.testing.assert_allclose(on_device.numpy(), expected, atol=1e-12)


def test_long_vectors_are_the_same_in_blocks_on_a_device() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((1 << 20) + 4321))
    on_device = torch.zeros(1000, dtype=torch.float64)
    add_signed_on_device(values, 17, key_of(3), on_device)
    np.testing.assert_allclose(on_device.numpy(), sketched(values.numpy(), 1000, 3, 17), atol=1e-9)


def test_the_map_is_the_same_in_every_process_and_release() -> None:
    """Computed by matrix_of_map; a file recorded once is read with the same seed for ever."""
    np.testing.assert_array_equal(sketched(np.arange(1.0, 31.0), 10, 7), GOLDEN)


GOLDEN = (55, -2, 3, -4, -15, 32, 17, -46, -5, -4)


@pytest.mark.parametrize("size", [50, 128, 1000])
def test_inner_products_are_unbiased_with_the_stated_variance(size: int) -> None:
    """Over 4000 seeds: the mean within 4 standard errors, the variance within 15 % (its own error is about 3 %)."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(3000) * np.arange(1, 3001) ** -0.3
    b = 0.5 * a + 0.1 * rng.standard_normal(3000)
    estimates = np.array([sketched(a, size, seed) @ sketched(b, size, seed) for seed in range(4000)])
    stated = variance(a, b, size)
    assert abs(estimates.mean() - a @ b) < 4 * np.sqrt(stated / 4000)
    assert estimates.var() == pytest.approx(stated, rel=0.15)


def test_structure_that_lines_up_with_the_sketch_costs_nothing() -> None:
    """A matrix whose columns are as many as the sketch has buckets, with all weight in one of them."""
    a = np.zeros((300, 64))
    a[:, 5] = 1.0
    estimates = np.array([np.sum(sketched(a.ravel(), 64, seed) ** 2) for seed in range(4000)])
    assert estimates.mean() == pytest.approx(300, rel=0.02)
    assert estimates.std() / 300 == pytest.approx(math.sqrt(2 / 64), rel=0.1)


@pytest.mark.parametrize("equal", [1, 10])
def test_singular_values_err_by_as_much_as_is_stated(equal: int) -> None:
    """Over 300 seeds, 10 %: alone, and among ten equal ones, where the error is 2.3 times as large."""
    updates = np.linalg.qr(np.random.default_rng(1).standard_normal((20_000, equal)))[0].T.copy()
    found = [
        np.linalg.svd(np.stack([sketched(row, 500, seed) for row in updates]), compute_uv=False) for seed in range(300)
    ]
    assert np.sqrt(np.mean((np.array(found) - 1) ** 2)) == pytest.approx(relative_error(500, equal), rel=0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(-5, 5), st.floats(-5, 5), st.integers(10, 200))
def test_sketches_are_linear(seed: int, alpha: float, beta: float, size: int) -> None:
    a, b = np.random.default_rng(seed).standard_normal((2, 400))
    np.testing.assert_allclose(
        sketched(alpha * a + beta * b, size, seed),
        alpha * sketched(a, size, seed) + beta * sketched(b, size, seed),
        atol=1e-10,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 70), max_size=4))
def test_sketches_of_shards_add_up(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    state = {name: torch.from_numpy(rng.standard_normal(count)) for name, count in SHAPES.items()}
    sketcher = Sketcher(SHAPES, 20, seed=seed)
    whole = sketcher.sketch(Piece(name, 0, values) for name, values in state.items())
    bounds = [0, *sorted(cuts), 70]
    pieces = [Piece(name, low, values[low:high]) for name, values in state.items() for low, high in pairwise(bounds)]
    parts = [sketcher.sketch([piece]) for piece in pieces]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, atol=1e-12)


def test_as_many_numbers_as_parameters_keep_them_all() -> None:
    values = np.random.default_rng(2).standard_normal(300)
    sketch = sketched(values, 300, 9)
    np.testing.assert_array_equal(np.sort(np.abs(sketch)), np.sort(np.abs(values)))
    assert variance(values, values, 300) == 0


def test_cells_are_sketched_apart_and_never_larger_than_they_are() -> None:
    sketcher = Sketcher(SHAPES, 20, sizes={"attention": 30})
    told = {one.cell: (one.n_parameters, one.size) for one in sketcher.cells}
    assert told == {
        Cell("attention", "layer.0"): (70, 30),
        Cell("attention", "layer.1"): (31, 30),
        Cell("norm", "layer.0"): (5, 5),
        Cell("other", ""): (12, 12),
    }
    assert sketcher.numbers == 77
    merged = {one.cell: (one.n_parameters, one.size) for one in Sketcher(SHAPES, 20, by_layer=False).cells}
    assert merged == {Cell("attention", ""): (101, 20), Cell("norm", ""): (5, 5), Cell("other", ""): (12, 12)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_all_types_are_widened_first(dtype: torch.dtype) -> None:
    values = torch.randn(70, generator=torch.Generator().manual_seed(0)).to(dtype)
    sketcher = Sketcher(SHAPES, 20)
    name = "layers.0.attn.q_proj.weight"
    np.testing.assert_array_equal(
        sketcher.sketch([Piece(name, 0, values)]), sketcher.sketch([Piece(name, 0, values.double())])
    )


def test_what_cannot_be_sketched_is_refused() -> None:
    with pytest.raises(UsageError, match="no floating-point parameter"):
        Sketcher({})
    with pytest.raises(UsageError, match="10 to 1048576 numbers, got 3 for attention"):
        Sketcher(SHAPES, 3)
    with pytest.raises(UsageError, match=r"categories .*, got heads"):
        Sketcher(SHAPES, sizes={"heads": 100})
