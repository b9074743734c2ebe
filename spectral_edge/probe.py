"""A loss probe: which directions of a window matter to the loss (theory 6 and 7).

A probe is a function of the parameters on fixed data that a user writes: :class:`Probe`. :func:`probe_window` evaluates
it at the end of one window: the gradient and the curvature along each direction v_j, what each is predicted to
contribute, and what the loss really does when the window's movement along v_j is undone.

Memory: the parameters and one direction, one changed copy of the parameters and two gradients, each as large as the
model, what the loss itself needs to be differentiated twice, and a block of each checkpoint. It grows neither with the
window nor with the number of directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import spearmanr

from spectral_edge.gram import LocalCheckpoint
from spectral_edge.groups import TOTAL
from spectral_edge.probing.directions import Window
from spectral_edge.probing.losses import Loss, LossFunction, Tensors
from spectral_edge.settings import Settings


@dataclass(frozen=True)
class Probe:
    """Losses on fixed data, each a function of a dict of the parameters by name that gives a scalar tensor.

    The names are those of the checkpoint without prefixes of wrappers (`module.`, `_orig_mod.`), the tensors float32,
    or float64 where the checkpoint has that; buffers are not among them. Each function must be repeatable and twice
    differentiable.

    Attributes:
        train_loss: On training data.
        validation_loss: On held-out data; None where there is none, and the training loss then stands in for it.
    """

    train_loss: LossFunction
    validation_loss: LossFunction | None = None


@dataclass(frozen=True)
class Direction:
    """One direction v_j of a window, at the window's last checkpoint theta.

    Attributes:
        j: 1-indexed.
        sigma: sigma_j, parameter units.
        stability: Lower bound of overlap_j^2 (spectral_edge.spectrum); None without a window before.
        gradient_train: <v_j, gradient of the training loss>, loss / parameter unit.
        gradient_validation: The same of the validation loss; None where the probe has none.
        curvature: h_j = v_j' H v_j of the training loss, loss / parameter unit squared.
        contribution: stability x gradient_train x gradient_validation; gradient_train squared where the probe has no
            validation loss. None without a window before.
        displacement: <theta - theta_start, v_j>, how far the window went along v_j, parameter units; v_j has the sign
            for which this is not negative.
        removal_train: Training loss at theta - displacement v_j, less that at theta: positive where moving helped.
        removal_validation: The same of the validation loss; None where the probe has none.
    """

    j: int
    sigma: float
    stability: float | None
    gradient_train: float
    gradient_validation: float | None
    curvature: float
    contribution: float | None
    displacement: float
    removal_train: float
    removal_validation: float | None


@dataclass(frozen=True)
class FlowTerms:
    """The three terms of the gap flow at k* and what was seen (theory 6; paper, Theorem 5.4), parameter units a step.

    The driving term is computed as the paper states it, although its unit is that of the others only if the learning
    rate has none; docs/probe.md.

    Attributes:
        k_star: Capped at W // 2.
        curvature_asymmetry: -eta (h_k* - h_k*+1) (sigma_k* + sigma_k*+1) / 2.
        damping: -eta ((h_k* + h_k*+1) / 2 + weight decay) g.
        driving: eta W (G_k*^2 / sigma_k* - G_k*+1^2 / sigma_k*+1), of the training loss.
        predicted: Their sum.
        measured: Change of sigma_k* - sigma_k*+1 since the window before, a step; None without one.
        residual: measured - predicted.
    """

    k_star: int
    curvature_asymmetry: float
    damping: float
    driving: float
    predicted: float
    measured: float | None
    residual: float | None


@dataclass(frozen=True)
class ProbedWindow:
    """What a probe says of one window.

    Attributes:
        group: Parameter group that the directions lie in.
        step_first: Step at which the window's first update begins.
        step: Step of its last checkpoint, at which everything is evaluated.
        train_loss: There.
        validation_loss: There; None where the probe has none.
        learning_rate: As told by the run; None where unknown, and then what needs it is None too.
        weight_decay: As told by the run; taken as 0 in `flow` where unknown.
        k_star: Capped at W // 2; None where undefined.
        directions: Those above the numerical floor.
        spearman: Rank correlation over the directions between `contribution` and the loss change at removal (of the
            validation loss where there is one); None for fewer than three, or where one of the two is constant.
        krylov_bound: Number of h_j >= 1 / (eta W), as in the paper, with W counted in updates.
        krylov_bound_steps: The same with W counted in optimizer steps, in which eta acts.
        flow: None where k* or the learning rate is unknown.
    """

    group: str
    step_first: int
    step: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float | None
    weight_decay: float | None
    k_star: int | None
    directions: tuple[Direction, ...]
    spearman: float | None
    krylov_bound: int | None
    krylov_bound_steps: int | None
    flow: FlowTerms | None

    def as_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        return asdict(self)


def probe_window(
    probe: Probe,
    checkpoints: Sequence[LocalCheckpoint],
    settings: Settings,
    *,
    group: str = TOTAL,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
) -> ProbedWindow:
    """Evaluate `probe` at the end of one window.

    Args:
        probe: The losses.
        checkpoints: The window's W + 1 checkpoints by increasing step and, first, the one before them: without it there
            is no window to compare with, so no stability, no contribution and no measured dg/dt.
        settings: Uses `window`, `numerical_floor` and `include`.
        group: Parameter group that the directions lie in; all other parameters stay as they are.
        learning_rate: eta at the window's last checkpoint.
        weight_decay: omega of the optimizer.

    Raises:
        UsageError: A loss breaks its contract; an unknown group; a wrong number of checkpoints.
        CheckpointError: A file is damaged, asks for code to be run, or holds NaN or Inf.
        TrajectoryError: Tensors change within the window, or nothing moves.
    """
    with Window(checkpoints, settings, group) as window:
        theta = window.parameters()
        losses = [Loss(probe.train_loss, "training loss", window.names)]
        if probe.validation_loss is not None:
            losses.append(Loss(probe.validation_loss, "validation loss", window.names))
        values = [loss.require_repeatable(theta) for loss in losses]
        slopes = [window.projections(loss.gradient(theta)) for loss in losses]
        directions = tuple(
            _direction(window, j, theta, losses, values, [float(slope[j]) for slope in slopes])
            for j in range(window.spectrum.resolved)
        )
        return _probed(window, group, directions, values, learning_rate, weight_decay)


def _direction(
    window: Window, j: int, theta: Tensors, losses: Sequence[Loss], values: Sequence[float], slopes: Sequence[float]
) -> Direction:
    v = window.direction(j)
    displacement = float(window.spectrum.displacement[j])
    moved = theta | {name: theta[name] - displacement * v[name] for name in v}
    removals = [loss.value(moved) - value for loss, value in zip(losses, values, strict=True)]
    stability = _known(float(window.spectrum.stability[j]))
    return Direction(
        j=j + 1,
        sigma=float(window.spectrum.sigma[j]),
        stability=stability,
        gradient_train=slopes[0],
        gradient_validation=slopes[1] if len(slopes) > 1 else None,
        curvature=losses[0].curvature(theta, v),
        contribution=None if stability is None else stability * slopes[0] * slopes[-1],
        displacement=displacement,
        removal_train=removals[0],
        removal_validation=removals[1] if len(removals) > 1 else None,
    )


def _probed(
    window: Window,
    group: str,
    directions: tuple[Direction, ...],
    values: Sequence[float],
    learning_rate: float | None,
    weight_decay: float | None,
) -> ProbedWindow:
    width = len(window.checkpoints) - 1
    first, last = window.checkpoints[0].step, window.checkpoints[-1].step
    spans = (width, last - first)
    bounds = [_krylov_bound(directions, learning_rate, span) for span in spans]
    return ProbedWindow(
        group=group,
        step_first=first,
        step=last,
        train_loss=values[0],
        validation_loss=values[1] if len(values) > 1 else None,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        k_star=window.spectrum.k_star or None,
        directions=directions,
        spearman=_rank_correlation(directions),
        krylov_bound=bounds[0],
        krylov_bound_steps=bounds[1],
        flow=_flow(window, directions, learning_rate, weight_decay or 0.0),
    )


def _krylov_bound(directions: Sequence[Direction], learning_rate: float | None, span: int) -> int | None:
    if not learning_rate:
        return None
    return sum(direction.curvature >= 1 / (learning_rate * span) for direction in directions)


def _flow(
    window: Window, directions: Sequence[Direction], learning_rate: float | None, weight_decay: float
) -> FlowTerms | None:
    k, width = window.spectrum.k_star, len(window.checkpoints) - 1
    if learning_rate is None or k == 0:
        return None
    upper, lower = directions[k - 1], directions[k]
    gap = upper.sigma - lower.sigma
    asymmetry = -learning_rate * (upper.curvature - lower.curvature) * (upper.sigma + lower.sigma) / 2
    damping = -learning_rate * ((upper.curvature + lower.curvature) / 2 + weight_decay) * gap
    driven = upper.gradient_train**2 / upper.sigma - lower.gradient_train**2 / lower.sigma
    driving = learning_rate * width * driven
    predicted = asymmetry + damping + driving
    before, measured = window.spectrum.sigma_before, None
    if before is not None:
        elapsed = window.checkpoints[-1].step - window.checkpoints[-2].step
        measured = (gap - float(before[k - 1] - before[k])) / elapsed
    return FlowTerms(
        k_star=k,
        curvature_asymmetry=asymmetry,
        damping=damping,
        driving=driving,
        predicted=predicted,
        measured=measured,
        residual=None if measured is None else measured - predicted,
    )


def _rank_correlation(directions: Sequence[Direction]) -> float | None:
    predicted = [direction.contribution for direction in directions]
    actual = [d.removal_train if d.removal_validation is None else d.removal_validation for d in directions]
    known = [value for value in predicted if value is not None]
    if len(known) < 3 or len(set(known)) == 1 or len(set(actual)) == 1:
        return None
    return float(spearmanr(known, actual).statistic)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
