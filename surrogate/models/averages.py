"""What a Gaussian process believes about the mean of f over groups of points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.models.differentiated import CHUNK, ByLinearise
from surrogate.models.posterior import _RELATIVE_FLOOR, Posterior


@dataclass(frozen=True)
class Averages:
    """Marginals of g = 1/w Σ_i f(x_i) for groups of w points: see `Posterior.averages`.

    Attributes:
        posterior: Of f.
    """

    posterior: Posterior

    def __call__(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of g for X (..., w, d), each (...); differentiable."""
        groups = X.reshape(-1, *X.shape[-2:])
        if groups.requires_grad and torch.is_grad_enabled():
            mean, std = ByLinearise.apply(groups, self)
        else:
            w = X.shape[-2]
            size = max(1, CHUNK // max(1, w * max(w, len(self.posterior.X))))
            parts = [self._at(part) for part in groups.split(size)]
            mean, std = (torch.cat(column) for column in zip(*parts, strict=True))
        return mean.reshape(X.shape[:-2]), std.reshape(X.shape[:-2])

    @torch.no_grad()
    def _at(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation for X (m, w, d), in one piece."""
        posterior = self.posterior
        _, k = posterior._covariances(X.flatten(0, 1))
        k = k.reshape(*X.shape[:2], k.shape[-1]).mean(1)  # of g with the data, (m, n)
        prior = self._prior(X)
        variance = prior - posterior._cache.explain(k, prior).amount
        std = torch.maximum(variance, prior * _RELATIVE_FLOOR).sqrt()
        return posterior.model.constant + k @ posterior._cache.alpha, std

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """The same for X (m, w, d) without autograd, and the map from (∂/∂mean, ∂/∂std) to ∂/∂X."""
        posterior, w = self.posterior, X.shape[1]
        alpha = posterior._cache.alpha
        with torch.no_grad():
            linearised = posterior.model.kernel.linearise(X.flatten(0, 1), posterior.X)
            k = linearised.K.reshape(*X.shape[:2], len(alpha)).mean(1)
            prior = self._prior(X)
            explained = posterior._cache.explain(k, prior)
            variance, floor = prior - explained.amount, prior * _RELATIVE_FLOOR
            std = torch.maximum(variance, floor).sqrt()
            mean = posterior.model.constant + k @ alpha

        def pullback(by_mean: Tensor, by_std: Tensor) -> Tensor:
            share = torch.where(variance > floor, by_std / std, 0.0)  # -2 ∂loss/∂(kᵀK̂⁻¹k), (m,)
            by_k = by_mean.unsqueeze(-1) * alpha - share.unsqueeze(-1) * explained.weights()
            gradient = linearised.inputs((by_k / w).repeat_interleave(w, 0)).reshape(X.shape)
            with torch.enable_grad():
                points = X.detach().requires_grad_(True)
                prior = self._prior(points)
                return gradient + torch.autograd.grad(prior, points, 0.5 * share)[0]

        return mean, std, pullback

    def _prior(self, X: Tensor) -> Tensor:
        """Prior variances of g for X (m, w, d), shape (m,)."""
        return self.posterior.model.kernel(X, X).mean((-2, -1))
