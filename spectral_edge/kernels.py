"""The inner loop of the pass, compiled: products of updates of one block of parameters (theory 2).

Why not a matrix product: with 20 to 100 rows and millions of columns BLAS spends its time packing, computes both
triangles and all lags, and wants the differences stored first. Here a few hundred parameters at a time are subtracted
into the first-level cache and multiplied there, only for the pairs of updates that the band keeps, in tiles of 4 x 3
products that fit the vector registers. `python -m benchmarks.gram` prints both beside each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from spectral_edge.band import Matrix

COLUMNS: Final = 256
"""Parameters subtracted and multiplied at a time: the rows of a tile, 7 x 2 KiB, stay in the first-level cache."""

_HEIGHT: Final = 4
_WIDTH: Final = 3

# The C library's own, called by compiled code: descriptor, address, bytes, offset.
_pread: Final = cast(
    "Callable[[Any, int, int, Any], int]",
    types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64)),
)

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS: Final[dict[str, Any]] = {
    "nogil": True,  # blocks are summed by several threads
    # Sums may be split over vector lanes. NaN and Inf keep their meaning: `nnan` and `ninf` are not among these.
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}


def compiled(function: _Function) -> _Function:
    """`function` compiled when it is first called; kept on disk for the next process where there is a place for it."""
    try:
        return cast("_Function", njit(cache=True, **_OPTIONS)(function))
    except RuntimeError:  # numba's word for: neither the package's folder nor the user's cache folder can be written
        return cast("_Function", njit(**_OPTIONS)(function))


def padded(updates: int) -> int:
    """Rows that arrays for `updates` updates need, so that the last tile fits."""
    return -(-updates // _HEIGHT) * _HEIGHT + _WIDTH - 1


@compiled
def _subtract(theta: NDArray[Any], updates: Matrix, count: int, start: int, columns: int) -> None:
    for row in range(count):
        before = theta[row, start : start + columns]
        after = theta[row + 1, start : start + columns]
        update = updates[row]
        for column in range(columns):
            update[column] = np.float64(after[column]) - np.float64(before[column])


@compiled
def _add_tile(updates: Matrix, products: Matrix, i: int, j: int, columns: int) -> None:
    # Twelve sums in registers: written out, because a compiler keeps array elements in memory.
    r0, r1, r2, r3 = updates[i], updates[i + 1], updates[i + 2], updates[i + 3]
    c0, c1, c2 = updates[j], updates[j + 1], updates[j + 2]
    s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = s30 = s31 = s32 = 0.0
    for k in range(columns):
        x0, x1, x2, x3, y0, y1, y2 = r0[k], r1[k], r2[k], r3[k], c0[k], c1[k], c2[k]
        s00, s01, s02 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2
        s10, s11, s12 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2
        s20, s21, s22 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2
        s30, s31, s32 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2
    p0, p1, p2, p3 = products[i], products[i + 1], products[i + 2], products[i + 3]
    p0[j], p0[j + 1], p0[j + 2] = p0[j] + s00, p0[j + 1] + s01, p0[j + 2] + s02
    p1[j], p1[j + 1], p1[j + 2] = p1[j] + s10, p1[j + 1] + s11, p1[j + 2] + s12
    p2[j], p2[j + 1], p2[j + 2] = p2[j] + s20, p2[j + 1] + s21, p2[j + 2] + s22
    p3[j], p3[j + 1], p3[j + 2] = p3[j] + s30, p3[j + 1] + s31, p3[j + 2] + s32


@compiled
def add_products(theta: NDArray[Any], size: int, first: int, lags: int, updates: Matrix, products: Matrix) -> None:
    """Add the inner products of the updates of one block to `products`.

    Args:
        theta: Parameters of the block, one checkpoint a row: shape (T + 1, at least `size`), float32 or float64,
            C-contiguous (the loops are not vectorised for arrays of unknown strides).
        size: Parameters in the block.
        first: Products are wanted of updates `first` … T - 1 with those up to `lags` before them.
        lags: L.
        updates: Room to work in: shape (padded(T), COLUMNS), float64; rows from T on must be zero.
        products: Shape (padded(T), padded(T)), float64: `products[i, j]` gains the inner product of updates i and j,
            for first <= i < T and i - L <= j <= i. Entries around these are changed too and mean nothing.
    """
    count = theta.shape[0] - 1
    for start in range(0, size, COLUMNS):
        columns = min(COLUMNS, size - start)
        _subtract(theta, updates, count, start, columns)
        for i in range(first // _HEIGHT * _HEIGHT, count, _HEIGHT):
            for j in range(max(0, i - lags) // _WIDTH * _WIDTH, min(i + _HEIGHT, count), _WIDTH):
                _add_tile(updates, products, i, j, columns)


@compiled
def read_rows(descriptors: NDArray[np.int32], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> int:
    """Fill each row of `out` from one open file by position, without the interpreter between two of them.

    Args:
        descriptors: The open file of each row: shape (n,).
        offsets: Where in the file to begin: shape (n,).
        out: Shape (n, bytes), each row contiguous.

    Returns:
        Rows filled before the first that could not be: `n` if all went well. The system's reason is not kept; the
        caller gets it from reading that row its own way.
    """
    for row in range(len(out)):
        done = 0
        while done < out.shape[1]:
            got = _pread(descriptors[row], out[row, done:].ctypes.data, out.shape[1] - done, offsets[row] + done)
            if got <= 0:
                return row
            done += got
    return len(out)
