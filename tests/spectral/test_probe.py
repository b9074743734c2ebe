"""The loss probe against brute force in float64: explicit directions, gradients and Hessians, and closed forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from spectral_edge.band import Matrix
from spectral_edge.errors import ShapeChangeError, TrajectoryError, UsageError
from spectral_edge.gram import LocalCheckpoint
from spectral_edge.probe import Probe, ProbedWindow, probe_window
from spectral_edge.probing.directions import Window
from spectral_edge.probing.losses import LossFunction
from spectral_edge.settings import Settings
from tests.spectral.trajectories import State, write_checkpoints

W = 4
SETTINGS = Settings(window=W, lags=W)
SHAPES = {"layers.0.mlp.weight": (3, 4), "layers.0.mlp.bias": (3,), "norm.weight": (4,)}
NAMES = sorted(SHAPES)
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def walk(count: int, seed: int, dtype: torch.dtype = torch.float64) -> list[State]:
    """Checkpoints whose updates have singular values well apart and a first direction that stays."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((SIZE, W)))[0].T
    theta = rng.standard_normal(SIZE)
    rows = [theta]
    for _ in range(count - 1):
        rows.append(
            rows[-1] + 0.1 * (2 * (np.arange(W) == 0) + rng.standard_normal(W) * 0.5 ** np.arange(1, W + 1)) @ basis
        )
    return [state_of(torch.tensor(row, dtype=dtype)) for row in rows]


def state_of(flat: torch.Tensor) -> State:
    pieces, start = {}, 0
    for name in NAMES:
        count = int(np.prod(SHAPES[name]))
        pieces[name] = flat[start : start + count].reshape(SHAPES[name])
        start += count
    return pieces


def flat_of(parameters: State, names: Sequence[str] = NAMES) -> torch.Tensor:
    return torch.cat([parameters[name].reshape(-1) for name in names])


def small_network(seed: int) -> LossFunction:
    """A loss that is far from quadratic in its parameters."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(20, 3, generator=generator, dtype=torch.float64)

    def loss(parameters: State) -> torch.Tensor:
        hidden = torch.tanh(inputs * parameters["norm.weight"])
        out = torch.tanh(hidden @ parameters["layers.0.mlp.weight"].T + parameters["layers.0.mlp.bias"])
        return ((out - targets) ** 2).mean()

    return loss


def oracle(
    states: Sequence[State], names: Sequence[str], train: LossFunction, held_out: LossFunction
) -> dict[str, Matrix]:
    """All per direction, from an SVD of X and full derivatives; signs as the SVD gives them."""
    rows = np.array([flat_of(state, names).numpy() for state in states])
    x = np.diff(rows, axis=0)
    _, sigma, right = np.linalg.svd(x[-W:], full_matrices=False)
    operators = [x[-W - lag : len(x) - lag].T @ x[-W - lag : len(x) - lag] for lag in (0, 1)]
    change = np.linalg.norm(operators[0] - operators[1])
    others = np.linalg.svd(x[-W - 1 : -1], compute_uv=False) ** 2
    distance = np.abs(sigma[:, None] ** 2 - others) + np.where(np.eye(W) > 0, np.inf, 0)
    stability = np.maximum(0, 1 - (change / np.minimum(distance.min(axis=1), sigma**2)) ** 2)
    end = states[-1]

    def along(loss: LossFunction) -> Callable[[torch.Tensor], torch.Tensor]:
        def of_flat(flat: torch.Tensor) -> torch.Tensor:
            pieces = flat.split([end[name].numel() for name in names])
            changed = {name: piece.reshape(end[name].shape) for name, piece in zip(names, pieces, strict=True)}
            return loss(end | changed)

        return of_flat

    theta = flat_of(end, names)
    displacement = right @ (rows[-1] - rows[-W - 1])
    found: dict[str, Matrix] = {"sigma": sigma, "stability": stability, "displacement": displacement}
    for role, loss in (("train", train), ("validation", held_out)):
        function = along(loss)
        leaf = theta.clone().requires_grad_()
        gradient = torch.autograd.grad(function(leaf), leaf)[0].numpy()
        found[f"gradient_{role}"] = right @ gradient
        removed = [theta - torch.tensor(c * v) for c, v in zip(displacement, right, strict=True)]
        found[f"removal_{role}"] = np.array([float(function(point) - function(theta)) for point in removed])
    hessian = torch.autograd.functional.hessian(along(train), theta).numpy()
    found["curvature"] = np.einsum("ji,ik,jk->j", right, hessian, right)
    found["contribution"] = stability * found["gradient_train"] * found["gradient_validation"]
    found["right"] = right
    return found


def column(probed: ProbedWindow, name: str) -> Matrix:
    return np.array([getattr(direction, name) for direction in probed.directions], dtype=np.float64)


@pytest.mark.parametrize("group", ["total", "mlp"])
@pytest.mark.parametrize("shards", [1, 2])
def test_every_quantity_is_that_of_brute_force(tmp_path: Path, group: str, shards: int) -> None:
    states = walk(W + 2, seed=3)
    names = NAMES if group == "total" else [name for name in NAMES if "mlp" in name]
    train, held_out = small_network(1), small_network(2)
    expected = oracle(states, names, train, held_out)
    checkpoints = write_checkpoints(tmp_path, states, shards=shards)
    probed = probe_window(Probe(train, held_out), checkpoints, SETTINGS, group=group, learning_rate=0.1)
    assert [direction.j for direction in probed.directions] == [1, 2, 3, 4]
    signs = np.sign(expected["displacement"])
    assert (column(probed, "displacement") >= 0).all()
    for name in ("sigma", "stability", "curvature", "contribution", "removal_train", "removal_validation"):
        np.testing.assert_allclose(column(probed, name), expected[name], rtol=1e-7, atol=1e-12, err_msg=name)
    for name in ("displacement", "gradient_train", "gradient_validation"):
        np.testing.assert_allclose(column(probed, name), signs * expected[name], rtol=1e-7, atol=1e-12, err_msg=name)
    assert probed.train_loss == pytest.approx(float(train(states[-1])), rel=1e-12)
    assert probed.validation_loss == pytest.approx(float(held_out(states[-1])), rel=1e-12)
    assert expected["stability"][0] > 0.5
    rho = spearmanr(expected["contribution"], expected["removal_validation"]).statistic
    assert probed.spearman == pytest.approx(rho)
    assert (probed.step_first, probed.step) == (10, 10 * (W + 1))


def test_directions_are_the_right_singular_vectors(tmp_path: Path) -> None:
    states = walk(W + 1, seed=5)
    right = np.linalg.svd(np.diff([flat_of(s).numpy() for s in states], axis=0), full_matrices=False)[2]
    with Window(write_checkpoints(tmp_path, states), SETTINGS, "total") as window:
        found = np.array([flat_of(window.direction(j)).numpy() for j in range(W)])
        vector = state_of(torch.arange(SIZE, dtype=torch.float64))
        np.testing.assert_allclose(window.projections(vector), found @ np.arange(SIZE), rtol=1e-9)
    np.testing.assert_allclose(np.abs(found @ right.T), np.eye(W), atol=1e-9)


@given(seed=st.integers(0, 10_000), rate=st.floats(1e-3, 1.0), decay=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_of_a_quadratic_loss_everything_is_known(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rate: float, decay: float
) -> None:
    """L = theta'A theta/2 + c'theta: G_j = v_j'(A theta + c), h_j = v_j'A v_j; a removal has two terms."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((SIZE, SIZE))
    a, c = torch.tensor(root @ root.T / SIZE), torch.tensor(rng.standard_normal(SIZE))

    def loss(parameters: State) -> torch.Tensor:
        flat = flat_of(parameters)
        return flat @ a @ flat / 2 + c @ flat

    states = walk(W + 2, seed)
    checkpoints = write_checkpoints(tmp_path_factory.mktemp("run"), states, every=7)
    probed = probe_window(Probe(loss), checkpoints, SETTINGS, learning_rate=rate, weight_decay=decay)
    g, h, d = (column(probed, name) for name in ("gradient_train", "curvature", "displacement"))
    removal = column(probed, "removal_train")
    np.testing.assert_allclose(removal, -d * g + d**2 * h / 2, rtol=1e-6, atol=1e-10)
    x = np.diff([flat_of(s).numpy() for s in states], axis=0)
    _, sigma, right = np.linalg.svd(x[1:], full_matrices=False)
    np.testing.assert_allclose(h, np.einsum("ji,ik,jk->j", right, a.numpy(), right), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(g**2, (right @ (a @ flat_of(states[-1]) + c).numpy()) ** 2, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(column(probed, "contribution"), column(probed, "stability") * g**2)
    assert probed.krylov_bound == np.sum(h >= 1 / (rate * W))
    assert probed.krylov_bound_steps == np.sum(h >= 1 / (rate * W * 7))
    check_flow(probed, sigma, np.linalg.svd(x[:-1], compute_uv=False), g, h)


def check_flow(probed: ProbedWindow, sigma: Matrix, before: Matrix, g: Matrix, h: Matrix) -> None:
    """The three terms, written out as in theory 6."""
    flow, rate, decay = probed.flow, probed.learning_rate, probed.weight_decay
    assert flow is not None
    assert rate is not None
    assert decay is not None
    k = int(np.argmax(sigma[: W // 2] / sigma[1 : W // 2 + 1]))
    assert flow.k_star == probed.k_star == k + 1
    gap, last = sigma[k] - sigma[k + 1], before[k] - before[k + 1]
    assert flow.curvature_asymmetry == pytest.approx(-rate * (h[k] - h[k + 1]) * (sigma[k] + sigma[k + 1]) / 2)
    assert flow.damping == pytest.approx(-rate * ((h[k] + h[k + 1]) / 2 + decay) * gap)
    assert flow.driving == pytest.approx(rate * W * (g[k] ** 2 / sigma[k] - g[k + 1] ** 2 / sigma[k + 1]))
    assert flow.predicted == pytest.approx(flow.curvature_asymmetry + flow.damping + flow.driving)
    assert flow.measured == pytest.approx((gap - last) / 7, rel=1e-6, abs=1e-9)
    assert flow.residual == pytest.approx(flow.measured - flow.predicted)


def test_the_driving_term_depends_on_the_unit_of_the_loss_and_the_others_do_not(tmp_path: Path) -> None:
    """Ten times the loss at a tenth of the rate is the same gradient descent; docs/probe.md tells of it."""
    checkpoints, loss = write_checkpoints(tmp_path, walk(W + 2, seed=3)), small_network(1)
    once = probe_window(Probe(loss), checkpoints, SETTINGS, learning_rate=0.1).flow
    tenfold = probe_window(Probe(lambda p: 10 * loss(p)), checkpoints, SETTINGS, learning_rate=0.01).flow
    assert once is not None
    assert tenfold is not None
    assert tenfold.curvature_asymmetry == pytest.approx(once.curvature_asymmetry)
    assert tenfold.damping == pytest.approx(once.damping)
    assert tenfold.driving == pytest.approx(10 * once.driving)


def test_float32_checkpoints_are_as_exact_as_float32(tmp_path: Path) -> None:
    states = walk(W + 2, seed=3, dtype=torch.float32)
    as_float64 = [{name: tensor.double() for name, tensor in state.items()} for state in states]
    double = small_network(1)

    def loss(parameters: State) -> torch.Tensor:
        assert all(tensor.dtype == torch.float32 for tensor in parameters.values())
        return double({name: tensor.double() for name, tensor in parameters.items()})

    expected = oracle(as_float64, NAMES, double, double)
    probed = probe_window(Probe(loss), write_checkpoints(tmp_path, states), SETTINGS)
    np.testing.assert_allclose(column(probed, "curvature"), expected["curvature"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        np.abs(column(probed, "gradient_train")), np.abs(expected["gradient_train"]), rtol=1e-4, atol=1e-6
    )


def test_attention_has_a_curvature(tmp_path: Path) -> None:
    """PyTorch's fused attention on CPUs cannot be differentiated twice; the plain formula is used instead."""
    inputs = torch.randn(2, 1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def query(parameters: State) -> torch.Tensor:
        return inputs @ parameters["layers.0.mlp.weight"].T @ parameters["layers.0.mlp.weight"]

    def loss(parameters: State) -> torch.Tensor:
        attended = torch.nn.functional.scaled_dot_product_attention(query(parameters), inputs, inputs)
        return attended.square().mean()

    def by_hand(parameters: State) -> torch.Tensor:
        scores = query(parameters) @ inputs.transpose(-2, -1) / inputs.shape[-1] ** 0.5
        return (scores.softmax(dim=-1) @ inputs).square().mean()

    states = walk(W + 2, seed=1)
    probed = probe_window(Probe(loss), write_checkpoints(tmp_path, states), SETTINGS)
    expected = oracle(states, NAMES, by_hand, by_hand)
    np.testing.assert_allclose(column(probed, "curvature"), expected["curvature"], rtol=1e-6, atol=1e-12)


def test_what_is_not_known_stays_empty(tmp_path: Path) -> None:
    checkpoints = write_checkpoints(tmp_path, walk(W + 1, seed=3))
    probed = probe_window(Probe(small_network(1)), checkpoints, SETTINGS)
    first = probed.directions[0]
    assert (first.stability, first.contribution, first.gradient_validation, first.removal_validation) == (None,) * 4
    assert (probed.spearman, probed.krylov_bound, probed.flow, probed.validation_loss) == (None,) * 4
    told = probe_window(Probe(small_network(1)), checkpoints, SETTINGS, learning_rate=0.1).flow
    assert told is not None
    assert (told.measured, told.residual) == (None, None)


def test_a_linear_loss_has_no_curvature_and_unused_parameters_no_gradient(tmp_path: Path) -> None:
    checkpoints = write_checkpoints(tmp_path, walk(W + 2, seed=3))
    probed = probe_window(Probe(lambda parameters: parameters["norm.weight"].sum()), checkpoints, SETTINGS)
    assert [direction.curvature for direction in probed.directions] == [0.0] * W


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda _: 1.0, "returned float, not a tensor"),
        (lambda p: p["norm.weight"], r"returned a tensor of shape \(4,\), not a scalar"),
        (lambda p: p["norm.weight"].sum() * float("nan"), "is nan"),
        (lambda p: p["norm.weight"].sum().long(), "not of floats"),
        (lambda _: torch.tensor(1.0), "does not depend on the parameters"),
        (lambda p: p["norm.weight"].sum().detach(), "does not depend on the parameters"),
        (lambda p: p["norm.weight"].sum() * torch.rand(()), "must be the same on each call"),
        (lambda p: (p["norm.weight"] * 0).sqrt().sum(), "has a derivative by norm.weight that is NaN or Inf"),
    ],
)
def test_a_wrong_loss_is_told_what_is_wrong(tmp_path: Path, loss: Any, says: str) -> None:
    checkpoints = write_checkpoints(tmp_path, walk(W + 2, seed=3))
    with pytest.raises(UsageError, match=says) as caught:
        probe_window(Probe(loss), checkpoints, SETTINGS)
    assert "training loss of the probe" in str(caught.value)
    assert caught.value.next_step
    with pytest.raises(UsageError, match=says) as caught:
        probe_window(Probe(small_network(1), loss), checkpoints, SETTINGS)
    assert "validation loss of the probe" in str(caught.value)


def test_checkpoints_that_make_no_window_are_refused(tmp_path: Path) -> None:
    states = walk(W + 2, seed=3)
    checkpoints = write_checkpoints(tmp_path, states)
    probe = Probe(small_network(1))
    with pytest.raises(UsageError, match="a window of 4 updates has 5 checkpoints"):
        probe_window(probe, checkpoints[:3], SETTINGS)
    with pytest.raises(UsageError, match=r"no group `attention`; it has total, mlp, norm, layer\.0"):
        probe_window(probe, checkpoints, SETTINGS, group="attention")
    with pytest.raises(TrajectoryError, match="all updates are zero"):
        probe_window(probe, [renamed(checkpoints[0], step) for step in range(W + 1)], SETTINGS)


@pytest.mark.parametrize("index", [0, 2])
def test_a_tensor_that_changes_within_the_window_is_named(tmp_path: Path, index: int) -> None:
    states = walk(W + 2, seed=3)
    states[index] = {name: tensor for name, tensor in states[index].items() if name != "norm.weight"}
    with pytest.raises(ShapeChangeError, match=r"tensor norm\.weight"):
        probe_window(Probe(small_network(1)), write_checkpoints(tmp_path, states), SETTINGS)


def renamed(checkpoint: LocalCheckpoint, step: int) -> LocalCheckpoint:
    return LocalCheckpoint(step, f"step_{step}", checkpoint.files)
