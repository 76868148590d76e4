"""What a posterior tells, and its derivatives in where it was asked, without a graph of size n."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from surrogate.kernels.base import Linearised
from surrogate.models.cache import Explained

if TYPE_CHECKING:
    from surrogate.models.posterior import Posterior

CHUNK = 2**23  # covariances of test points with the data computed at once: 64 MiB


@dataclass(frozen=True)
class Pullback:
    """Maps gradients in the marginals at X (m, d) to the gradient in X."""

    posterior: Posterior
    X: Tensor
    linearised: Linearised
    explained: Explained
    std: Tensor
    free: Tensor  # where the variance is not held by its floor

    def __call__(self, by_mean: Tensor, by_std: Tensor) -> Tensor:
        """Gradient in X, shape (m, d), of a loss with these gradients in mean and std (m,)."""
        return self.of_means(by_mean.unsqueeze(-1) * self.posterior._cache.alpha, by_std)

    def of_means(self, G: Tensor, by_std: Tensor) -> Tensor:
        """The same for means that are linear in k = k(X, data): G (m, n) is ∂loss/∂k by them."""
        # std² = k(x, x) - kᵀK̂⁻¹k
        w = torch.where(self.free, by_std / self.std, 0.0)  # -2 ∂loss/∂(kᵀK̂⁻¹k), (m,)
        gradient = self.linearised.inputs(G - w.unsqueeze(-1) * self.explained.weights())
        with torch.enable_grad():
            X = self.X.detach().requires_grad_(True)
            prior = self.posterior.model.kernel.diagonal(X)
        if prior.requires_grad:  # not for a stationary kernel, whose k(x, x) is a constant
            gradient = gradient + torch.autograd.grad(prior, X, 0.5 * w)[0]
        return gradient


@dataclass(frozen=True)
class CovarianceWith:
    """Covariances of f with f at k points, as a function.

        x ↦ k(x, X2) - k(x, X) K̂⁻¹ k(X, X2)

    Attributes:
        posterior: Of f.
        points: X and X2, shape (n + k, d).
        weights: -K̂⁻¹k(X, X2) above the identity, shape (n + k, k).
    """

    posterior: Posterior
    points: Tensor
    weights: Tensor

    @staticmethod
    @torch.no_grad()
    def of(posterior: Posterior, X2: Tensor) -> CovarianceWith:
        """One solve with a column for each row of X2 (k, d)."""
        k = posterior._covariances(X2)[1]  # (k, n)
        solved = posterior.solve(k.mT) if k.numel() else k.mT
        one = torch.eye(len(X2), dtype=X2.dtype, device=X2.device)
        return CovarianceWith(posterior, torch.cat([posterior.X, X2]), torch.cat([-solved, one]))

    def __call__(self, X: Tensor) -> Tensor:
        """Covariances at X (..., d), shape (..., k); differentiable in X."""
        X = self.posterior._points(X)
        flat = X.reshape(-1, X.shape[-1])
        if flat.requires_grad and torch.is_grad_enabled():
            (out,) = ByLinearise.apply(flat, self)
        else:
            out = torch.cat([self._at(part) for part in pieces(flat, len(self.points))])
        return out.reshape(*X.shape[:-1], out.shape[-1])

    def _at(self, X: Tensor) -> Tensor:
        k = X.new_empty(len(X), len(self.points))
        return self.posterior.model.kernel.evaluate(X, self.points, k) @ self.weights

    def linearise(self, X: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The same at X (m, d) without autograd, and the map from ∂/∂covariance to ∂/∂X."""
        with torch.no_grad():
            linearised = self.posterior.model.kernel.linearise(X, self.points)
            covariance = linearised.K @ self.weights

        def pullback(by_covariance: Tensor) -> Tensor:
            return linearised.inputs(by_covariance @ self.weights.mT)

        return covariance, pullback


class HasLinearise(Protocol):
    """What knows its derivative in X (m, d)."""

    def linearise(self, X: Tensor, /) -> tuple[Any, ...]:
        """Tensors, and the map from the gradients in them to the gradient in X."""
        ...


class ByLinearise(torch.autograd.Function):
    """What `linearise` returns, for autograd."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, function: HasLinearise) -> tuple[Tensor, ...]:
        *values, ctx.pullback = function.linearise(X)
        return tuple(values)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        return ctx.pullback(*gradients), None


def pieces(X: Tensor, n: int) -> tuple[Tensor, ...]:
    """Rows of X, as many at once as their covariances with n points may take memory."""
    return X.split(max(1, CHUNK // max(n, 1)))
