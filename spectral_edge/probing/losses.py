"""Calling a loss that a user wrote: its value, gradient and curvature, with every way to be wrong told plainly.

The function is called on a dict of tensors by name. Second derivatives are taken by differentiating twice, so attention
is computed by PyTorch's plain formula: its fused kernels have no second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectral_edge.errors import UsageError

Tensors = dict[str, torch.Tensor]
LossFunction = Callable[[Tensors], torch.Tensor]

SAME_WITHIN: Final = 1e-5
"""Two values of a loss at the same parameters may differ by this share: sums of threads come in any order."""


class Loss:
    """One loss function at one point.

    Args:
        function: The user's function.
        role: What messages call it: `training loss`, `validation loss`.
        names: Parameters of which derivatives are taken; the others are held fixed.

    Every method raises UsageError where the function breaks its contract; what it raises itself is not caught.
    """

    def __init__(self, function: LossFunction, role: str, names: list[str]) -> None:
        self._function = function
        self._role = role
        self._names = names

    def value(self, parameters: Mapping[str, torch.Tensor]) -> float:
        """The loss, without derivatives."""
        with torch.no_grad():
            return float(self._called({name: tensor.detach() for name, tensor in parameters.items()}))

    def require_repeatable(self, parameters: Mapping[str, torch.Tensor]) -> float:
        """The loss, after a second call has given the same: fixed data, no dropout."""
        first, second = self.value(parameters), self.value(parameters)
        if not math.isclose(first, second, rel_tol=SAME_WITHIN, abs_tol=1e-12):
            raise self._wrong(
                f"gave {first!r} and then {second!r} for the same parameters; it must be the same on each call",
                "fix the data, and switch the model to eval() so that dropout is off.",
            )
        return first

    def gradient(self, parameters: Mapping[str, torch.Tensor]) -> Tensors:
        """Gradient by name, in each parameter's dtype; zero where the loss does not use a parameter."""
        leaves, loss = self._differentiable(parameters)
        found = torch.autograd.grad(loss, [leaves[name] for name in self._names], allow_unused=True)
        return self._finite(self._filled(found, leaves))

    def curvature(self, parameters: Mapping[str, torch.Tensor], direction: Mapping[str, torch.Tensor]) -> float:
        """D'H d by one Hessian-vector product (the gradient of <gradient, d>); `direction` has every name of ours."""
        leaves, loss = self._differentiable(parameters)
        of = [leaves[name] for name in self._names]
        with _plain_attention():
            first = torch.autograd.grad(loss, of, create_graph=True, allow_unused=True)
            pairs = [(g, direction[name]) for g, name in zip(first, self._names, strict=True) if g is not None]
            slope = torch.stack([(g * d).sum() for g, d in pairs]).sum()
            if slope.grad_fn is None:
                return 0.0  # the loss is linear, so there is nothing to differentiate again
            second = torch.autograd.grad(slope, of, allow_unused=True)
        products = self._finite(self._filled(second, leaves))
        return sum(dot(products[name], direction[name]) for name in self._names)

    def _differentiable(self, parameters: Mapping[str, torch.Tensor]) -> tuple[Tensors, torch.Tensor]:
        leaves = {name: tensor.detach().requires_grad_(name in self._names) for name, tensor in parameters.items()}
        loss = self._called(leaves)
        if not loss.requires_grad:
            raise self._wrong(
                "does not depend on the parameters it was given: its result has no gradient",
                "compute it from the tensors of `parameters`, for instance with torch.func.functional_call, "
                "and not under torch.no_grad().",
            )
        return leaves, loss

    def _called(self, parameters: Tensors) -> torch.Tensor:
        with _plain_attention():
            loss: object = self._function(parameters)
        if not isinstance(loss, torch.Tensor):
            raise self._wrong(f"returned {type(loss).__name__}, not a tensor", "return the loss as a tensor.")
        if loss.numel() != 1:
            raise self._wrong(f"returned a tensor of shape {tuple(loss.shape)}, not a scalar", "return its mean.")
        if not loss.dtype.is_floating_point:
            raise self._wrong(f"returned a tensor of {loss.dtype}, not of floats", "return the loss itself.")
        if not torch.isfinite(loss).all():
            raise self._wrong(f"is {float(loss.detach())}", "check its data and that it fits these checkpoints.")
        return loss.reshape(())

    def _filled(self, found: tuple[torch.Tensor | None, ...], leaves: Tensors) -> Tensors:
        return {
            name: torch.zeros_like(leaves[name]) if one is None else one.detach()
            for name, one in zip(self._names, found, strict=True)
        }

    def _finite(self, derivatives: Tensors) -> Tensors:
        for name, tensor in derivatives.items():
            if not torch.isfinite(tensor).all():
                raise self._wrong(f"has a derivative by {name} that is NaN or Inf", "check it at this parameter.")
        return derivatives

    def _wrong(self, what: str, next_step: str) -> UsageError:
        return UsageError(f"the {self._role} of the probe {what}.", next_step=next_step)


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Inner product in float64, by stretches, so that no copy of a whole tensor in float64 is made."""
    x, y, size = a.detach().reshape(-1), b.detach().reshape(-1), 1 << 20
    return sum(
        float(x[start : start + size].double() @ y[start : start + size].double())
        for start in range(0, x.numel(), size)
    )


def _plain_attention() -> AbstractContextManager[None]:
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context
