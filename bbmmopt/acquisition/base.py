"""What an acquisition function may know of a model, and what it must be able to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NoiseVariance = float | Callable[[Tensor], Tensor]
"""Variance of an observation's noise, ≥ 0, in the units of f squared: one number, or a
differentiable function from X (..., d) to (...)."""


class Pullback(Protocol):
    """Maps gradients in mean and standard deviation to the gradient in X (m, d)."""

    def __call__(self, by_mean: Tensor, by_std: Tensor, /) -> Tensor: ...


class Posterior(Protocol):
    """All that an acquisition function of single points may know about a model."""

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at X (..., d), each of shape (...)."""
        ...

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """The marginals at X (m, d), and how their gradients become one in X."""
        ...


class JointPosterior(Posterior, Protocol):
    """What may be known where points are looked at together."""

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., q) and covariance (..., q, q) of f over groups of q points X (..., q, d)."""
        ...

    def covariance(self, X1: Tensor, X2: Tensor) -> Tensor:
        """Covariance of f at X1 (m, d) with f at X2 (k, d), shape (m, k); differentiable."""
        ...

    def covariance_with(self, X2: Tensor) -> Callable[[Tensor], Tensor]:
        """The same as a function of X1, for one X2 that is held."""
        ...


class Fantasised(Protocol):
    """Beliefs under S fantasies: S sets of values that f might have at some points.

    What is left uncertain is the same under each of them, as always for Gaussian processes.
    """

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means (S, m) and standard deviations (m,) of f at X (m, d); differentiable in X."""
        ...

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """The same without autograd, and how gradients (S, m) and (m,) become one in X (m, d)."""
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
        X = single_candidates(self, X)
        return elementwise(self.formula, *self.posterior.marginals(X))

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        mean, std, pullback = self.posterior.linearise(X)
        value, by_mean, by_std = self.formula(mean, std)
        return value, pullback(by_mean, by_std)


class FantasyAcquisition(Acquisition):
    """An acquisition function of one point's means and standard deviations under S fantasies.

    Attributes:
        beliefs: One for each of k outputs, all of the same S.
    """

    beliefs: Sequence[Fantasised]

    @abstractmethod
    def formula(self, means: Tensor, stds: Tensor) -> Tensor:
        """Values (m,) from means (k, S, m) and standard deviations (k, m); differentiable."""

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        X = single_candidates(self, X)
        parts = [belief.marginals(X.reshape(-1, X.shape[-1])) for belief in self.beliefs]
        means, stds = (torch.stack(column) for column in zip(*parts, strict=True))
        return self.formula(means, stds).reshape(X.shape[:-1])

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        parts = [belief.linearise(X) for belief in self.beliefs]
        means = torch.stack([mean for mean, _, _ in parts]).requires_grad_(True)
        stds = torch.stack([std for _, std, _ in parts]).requires_grad_(True)
        with torch.enable_grad():
            value = self.formula(means, stds)
            by_means, by_stds = torch.autograd.grad(value.sum(), (means, stds))
        pulled = [
            pullback(by_mean, by_std)
            for (_, _, pullback), by_mean, by_std in zip(parts, by_means, by_stds, strict=True)
        ]
        return value.detach(), torch.stack(pulled).sum(0)


def single_candidates(acquisition: Acquisition, X: Tensor) -> Tensor:
    """X (..., 1, d) as (..., d).

    Raises:
        ValueError: If X holds groups of more than one candidate.
    """
    if X.ndim < 2 or X.shape[-2] != 1:
        raise ValueError(
            f"{type(acquisition).__name__} scores single candidates: X must have shape "
            f"(..., 1, d); got {tuple(X.shape)}. For one row per candidate, pass X.unsqueeze(-2)."
        )
    return X.squeeze(-2)


def noise_at(noise: NoiseVariance, X: Tensor) -> Tensor:
    """The variance at X (..., d), shape (...), or () where it is the same everywhere."""
    return noise(X) if callable(noise) else X.new_full((), noise, dtype=torch.float64)


def elementwise(formula: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> Tensor:
    """formula(*arguments) for autograd, by the derivatives that it gives itself, once.

    Args:
        formula: Returns its value and the derivative in each argument, of that argument's shape. A
            value may be a sum over the first dimensions of the arguments.
        arguments: Each of a shape that ends in the value's.
    """
    return _Elementwise.apply(formula, *arguments)


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Any, *arguments: Tensor) -> Tensor:
        value, *derivatives = formula(*arguments)
        ctx.save_for_backward(*derivatives)
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        return None, *(gradient * derivative for derivative in ctx.saved_tensors)
