"""Where a search meets a model on another device: points go there, scores come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbmmopt.acquisition.base import Acquisition


def from_the_cpu(acquisition: Acquisition, device: torch.device) -> Acquisition:
    """The acquisition for points on the CPU, where searches are; itself if that is its device.

    Args:
        acquisition: Of a model on `device`.
        device: Where points have to be for it.
    """
    return acquisition if device.type == "cpu" else _Elsewhere(acquisition, device)


@dataclass(frozen=True)
class _Elsewhere(Acquisition):
    """An acquisition function on another device than its points: one copy there, one back.

    Attributes:
        acquisition: What is on the device.
        device: Where points have to be for it.
    """

    acquisition: Acquisition
    device: torch.device

    def __call__(self, X: Tensor) -> Tensor:
        """Score each group: X of shape (..., q, d) gives values of shape (...)."""
        if torch.is_grad_enabled() and X.requires_grad:
            return _Scores.apply(self, X)
        with torch.no_grad():
            return self.acquisition(X.to(self.device)).to(X.device)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        there = X.detach().to(self.device)
        return _back(*self.acquisition.value_and_gradient(there), X.device)

    def graded(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of groups X (..., q, d), shape (...), and their gradients (..., q, d)."""
        there = X.detach().to(self.device).requires_grad_(True)
        with torch.enable_grad():
            value = self.acquisition(there)
            (gradient,) = torch.autograd.grad(value.sum(), there)
        return _back(value.detach(), gradient, X.device)


def _back(value: Tensor, gradient: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both on a device, in one copy."""
    both = torch.cat([value.flatten(), gradient.flatten()]).to(device)
    return both[: value.numel()].view(value.shape), both[value.numel() :].view(gradient.shape)


class _Scores(torch.autograd.Function):
    """Scores for autograd. A group's score depends on that group alone, so its gradient is known
    as soon as it is, and comes with it.
    """

    @staticmethod
    def forward(ctx: Any, scored: _Elsewhere, X: Tensor) -> Tensor:
        value, gradient = scored.graded(X)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, by_value: Tensor
    ) -> tuple[None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, by_value[..., None, None] * gradient
