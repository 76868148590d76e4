"""What an acquisition function may know of a model, and what it must be able to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Pullback(Protocol):
    """Maps gradients in mean and standard deviation, each (m,), to the gradient in X (m, d)."""

    def __call__(self, by_mean: Tensor, by_std: Tensor, /) -> Tensor: ...


class Posterior(Protocol):
    """All that an acquisition function of single points may know about a model."""

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at X (..., d), each of shape (...)."""
        ...

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """The marginals at X (m, d), and how their gradients become one in X."""
        ...


class Acquisition(ABC):
    """Scores groups of q candidates: larger means more worth trying."""

    @abstractmethod
    def __call__(self, X: Tensor) -> Tensor:
        """Score each group: X of shape (..., q, d) gives values of shape (...)."""

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of single candidates X (m, d), shape (m,), and their gradients, shape (m, d)."""
        X = X.detach().requires_grad_(True)
        with torch.enable_grad():
            value = self(X.unsqueeze(-2))
            (gradient,) = torch.autograd.grad(value.sum(), X)
        return value.detach(), gradient


class MarginalAcquisition(Acquisition):
    """An acquisition function of one point's mean and standard deviation alone.

    Subclasses give the formula with its two partial derivatives, once: `__call__` runs it under
    autograd, `value_and_gradient` without.
    """

    posterior: Posterior

    @abstractmethod
    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The value and its derivatives in mean and std, elementwise."""

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        if X.ndim < 2 or X.shape[-2] != 1:
            raise ValueError(
                f"{type(self).__name__} scores single candidates: X must have shape (..., 1, d); "
                f"got {tuple(X.shape)}. For one row per candidate, pass X.unsqueeze(-2)."
            )
        return _Formula.apply(*self.posterior.marginals(X.squeeze(-2)), self.formula)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        mean, std, pullback = self.posterior.linearise(X)
        value, by_mean, by_std = self.formula(mean, std)
        return value, pullback(by_mean, by_std)


class _Formula(torch.autograd.Function):
    """A formula with its own derivatives, for autograd."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, std: Tensor, formula: Any) -> Tensor:
        value, by_mean, by_std = formula(mean, std)
        ctx.save_for_backward(by_mean, by_std)
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        by_mean, by_std = ctx.saved_tensors
        return gradient * by_mean, gradient * by_std, None
