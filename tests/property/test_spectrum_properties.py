"""Properties that hold for every trajectory, checked against definitions in float64."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from spectral_edge import spectrum as sp
from spectral_edge.adiabatic import gram_change, gram_change_operator
from spectral_edge.band import Band, Matrix
from spectral_edge.settings import Settings
from spectral_edge.windows import windows
from tests.spectral.trajectories import band_of

WINDOW = 5


@st.composite
def update_matrices(draw: st.DrawFn) -> Matrix:
    """Updates with correlation, anisotropy and drift: shape (T, P), T from 7 to 14."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, n_parameters = draw(st.integers(7, 14)), draw(st.integers(12, 40))
    scale = 10.0 ** rng.uniform(-draw(st.floats(0, 3)), 0, n_parameters)
    drift = draw(st.sampled_from([0.0, 0.3, 3.0])) * rng.standard_normal(n_parameters)
    noise = rng.standard_normal((count, n_parameters))
    for update in range(1, count):
        noise[update] += draw(st.sampled_from([0.0, 0.8])) * noise[update - 1]
    return np.asarray((noise + drift) * scale * 10.0 ** draw(st.integers(-6, 3)))


def window_of(updates: Matrix, end: int) -> Matrix:
    return updates[end - WINDOW + 1 : end + 1]


@settings(max_examples=60, deadline=None)
@given(update_matrices())
def test_quantities_follow_their_definitions(updates: Matrix) -> None:
    band = band_of(updates, 2 * WINDOW)
    ends = np.arange(WINDOW, len(updates))
    now, before = sp.spectrum(band, ends, WINDOW), sp.spectrum(band, ends - 1, WINDOW)
    cosines = sp.directions(band, before, now, 1e-6)
    k = sp.k_star(now.sigma, 1e-6)
    rotation = sp.rotation_degrees(cosines, k)
    operator = gram_change_operator(band, ends, WINDOW)
    change = gram_change(now, before)
    for row, end in enumerate(ends):
        x, earlier = window_of(updates, end), window_of(updates, end - 1)
        sigma, directions = np.linalg.svd(x, full_matrices=False)[1:]
        earlier_directions = np.linalg.svd(earlier, full_matrices=False)[2]
        np.testing.assert_allclose(now.sigma[row], sigma, rtol=1e-6)
        ratios = sigma[:-1] / sigma[1:]
        assert ratios[k[row] - 1] >= ratios.max() * (1 - 1e-6)
        np.testing.assert_allclose(change[row], np.linalg.norm(x @ x.T - earlier @ earlier.T), rtol=1e-8)
        np.testing.assert_allclose(operator[row], np.linalg.norm(x.T @ x - earlier.T @ earlier), rtol=1e-6)
        np.testing.assert_allclose(np.abs(cosines[row]), np.abs(earlier_directions @ directions.T), atol=1e-5)
        angles = np.degrees(subspace_angles(earlier_directions[: k[row]].T, directions[: k[row]].T))
        np.testing.assert_allclose(rotation[row], angles.max(), atol=1e-2)


@settings(max_examples=60, deadline=None)
@given(update_matrices())
def test_operator_change_bounds_the_rotation(updates: Matrix) -> None:
    """Davis-Kahan: sin(theta_j) <= ||dC||_F / distance of lambda_j to the other window's other eigenvalues."""
    band = band_of(updates, 2 * WINDOW)
    ends = np.arange(WINDOW, len(updates))
    now, before = sp.spectrum(band, ends, WINDOW), sp.spectrum(band, ends - 1, WINDOW)
    cosines = np.diagonal(sp.directions(band, before, now, 1e-6), axis1=1, axis2=2)
    operator = gram_change_operator(band, ends, WINDOW)
    for row in range(len(ends)):
        for j in range(WINDOW):
            others = np.delete(before.sigma[row] ** 2, j)
            distance = min(np.abs(now.sigma[row, j] ** 2 - np.append(others, 0.0)))
            sine = np.sqrt(max(0.0, 1.0 - cosines[row, j] ** 2))
            assert sine * distance <= operator[row] * (1 + 1e-6) + 1e-9 * now.sigma[row, 0] ** 2


@settings(max_examples=100, deadline=None)
@given(update_matrices())
def test_stability_never_exceeds_the_true_overlap(updates: Matrix) -> None:
    """The column of the tables, against singular vectors formed in R^P in float64, wherever a direction is resolved."""
    chosen = Settings(window=WINDOW)
    found = windows(band_of(updates, chosen.lags), chosen)
    first = int(np.flatnonzero(found.full)[0])
    assert np.isnan(found.stability[: first + 1]).all()
    for row in range(first + 1, len(found.ends)):
        end = int(found.ends[row])
        _, sigma, now = np.linalg.svd(window_of(updates, end), full_matrices=False)
        before = np.linalg.svd(window_of(updates, end - 1), full_matrices=False)[2]
        overlap = np.abs((now * before).sum(axis=1))
        assert (found.stability[row] <= overlap**2 + 1e-6)[sigma > 1e-5 * sigma[0]].all()


def test_stability_is_more_than_a_trivial_bound() -> None:
    """A drift that stands out moves little, and is told to."""
    rng = np.random.default_rng(0)
    updates = 10 * rng.standard_normal(500) + rng.standard_normal((30, 500))
    found = windows(band_of(updates, 30), Settings(window=WINDOW))
    told = found.stability[found.full][1:]
    assert np.median(told[:, 0]) > 0.9
    assert np.nanmax(told[:, 2]) < 0.5


@settings(max_examples=60, deadline=None)
@given(update_matrices(), st.floats(1e-4, 1e4), st.integers(0, 2**32 - 1))
def test_units_and_coordinates_do_not_matter(updates: Matrix, unit: float, seed: int) -> None:
    """Scaling all parameters scales what has units; rotating parameter space changes nothing."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((updates.shape[1],) * 2))[0]
    chosen = Settings(window=WINDOW)
    found = windows(band_of(updates, chosen.lags), chosen)
    other = windows(band_of(unit * updates @ rotation, chosen.lags), chosen)
    np.testing.assert_allclose(other.singular_values, unit * found.singular_values, rtol=1e-5, equal_nan=True)
    for name in ("gap_ratio", "effective_rank", "drift", "gram_change_relative", "noise_threshold_ratio"):
        np.testing.assert_allclose(other.scalars[name], found.scalars[name], rtol=1e-4)
    for name, power in (("gap", 1), ("update_norm", 1), ("g23_eigen", 2), ("gram_change", 2)):
        np.testing.assert_allclose(
            other.scalars[name],
            unit**power * found.scalars[name],
            rtol=1e-4,
            atol=1e-9 * unit**power * found.singular_values[0, 0] ** power,
        )


@settings(max_examples=60, deadline=None)
@given(update_matrices())
def test_ranges(updates: Matrix) -> None:
    chosen = Settings(window=WINDOW)
    found = windows(band_of(updates, chosen.lags), chosen)
    assert (np.diff(found.singular_values, axis=1)[found.full] <= 0).all()
    assert ((found.k_star >= 1) & (found.k_star < found.updates)).all()
    assert ((found.k_star_weighted >= 1) & (found.k_star_weighted < found.updates)).all()
    assert (
        (found.scalars["effective_rank"] >= 1 - 1e-9) & (found.scalars["effective_rank"] <= found.updates + 1e-9)
    ).all()
    assert ((found.scalars["drift"] >= 0) & (found.scalars["drift"] <= 1)).all()
    for values in (found.overlap, found.stability):
        inside = values[np.isfinite(values)]
        assert ((inside >= 0) & (inside <= 1 + 1e-9)).all()
    assert (found.scalars["gap_ratio"] >= 1).all()


@settings(max_examples=40, deadline=None)
@given(update_matrices(), st.data())
def test_bands_of_parts_add_up(updates: Matrix, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, updates.shape[1] - 1))
    parts: Band = band_of(updates[:, :cut], 8) + band_of(updates[:, cut:], 8)
    np.testing.assert_allclose(
        parts.values, band_of(updates, 8).values, rtol=1e-9, atol=1e-12 * np.abs(parts.values).max()
    )
    assert parts.n_parameters == updates.shape[1]


def test_rank_one_has_no_gap() -> None:
    """With one direction no ratio exists: the quotient of two numerical zeros is not reported."""
    direction = np.random.default_rng(0).standard_normal(30)
    updates = np.outer(np.arange(1.0, 9.0), direction)
    found = windows(band_of(updates, 10), Settings(window=WINDOW))
    assert (found.k_star == 0).all()
    assert np.isnan(found.scalars["gap"]).all()


def test_nothing_moved() -> None:
    found = windows(band_of(np.zeros((9, 4)), 10), Settings(window=WINDOW))
    assert (found.k_star == 0).all()
    for name in ("effective_rank", "drift", "gram_change_relative", "rounding_share", "noise_threshold_ratio"):
        assert np.isnan(found.scalars[name]).all()


def test_a_crossing_is_seen() -> None:
    """Two directions swap places between windows: the first one shrinks while the second grows."""
    rng = np.random.default_rng(1)
    a, b = np.linalg.qr(rng.standard_normal((50, 2)))[0].T
    sizes = [(5.0, 1.0)] * 6 + [(0.1, 8.0)] * 6
    updates = np.asarray([x * a * (-1) ** i + y * b * (-1) ** (i // 2) for i, (x, y) in enumerate(sizes)])
    updates += 1e-3 * rng.standard_normal(updates.shape)
    found = windows(band_of(updates, 10), Settings(window=4))
    assert found.level_crossing.any()
    assert not found.level_crossing[found.ends <= 5].any()
