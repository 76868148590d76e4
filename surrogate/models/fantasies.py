"""What a Gaussian process would believe, had f at some points turned out as imagined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.checks import as_noise, check_finite, on_device
from surrogate.models.covariance import helped
from surrogate.models.differentiated import ByLinearise
from surrogate.models.posterior import Posterior


@dataclass(frozen=True)
class Fantasies:
    """f given n observations and, at k points, S sets of values: S beliefs, one uncertainty.

        mean_s(x) = m + k(x, [X, X']) w_s,    w_s = [α, 0] + K̂'⁻¹ [0, y'_s - mean(X')]

    with X' the k points, K̂' the covariance with them. Made by `Posterior.fantasise`.

    Attributes:
        posterior: After the k points, whose values are there what had been expected: so its means
            are those of before, its standard deviations those of every fantasy.
        weights: w_s, one column per fantasy, shape (n + k, S).
    """

    posterior: Posterior
    weights: Tensor

    @staticmethod
    @torch.no_grad()
    def of(posterior: Posterior, X: Tensor, Y: Tensor, noise: Tensor | None) -> Fantasies:
        """Use `Posterior.fantasise`."""
        X = posterior._matrix(X)
        n, k, kernel = len(posterior.y), len(X), posterior.model.kernel
        Y = _as_values(Y, k, X.device)
        given = X.new_zeros(k) if noise is None else as_noise(noise, k, X.device)
        alpha = posterior._cache.alpha.unsqueeze(1)
        if not k:
            return Fantasies(posterior, alpha.expand(n, len(Y)))
        expected = posterior.model.constant + (posterior._covariances(X)[1] @ alpha).squeeze(1)
        least = helped(given, kernel.diagonal(torch.cat([posterior.X, X])))
        extended = posterior.append(X, expected, least)
        weights = extended.solve(torch.cat([Y.new_zeros(n, len(Y)), (Y - expected).mT]))
        weights[:n] += alpha
        return Fantasies(extended, weights)

    def __repr__(self) -> str:
        return f"Fantasies(count={self.count}, {self.posterior!r})"

    @property
    def count(self) -> int:
        """S."""
        return self.weights.shape[1]

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviation of f, noise not included, at each x by itself.

        Differentiable in X; O(n² + n S) time for each of them.

        Args:
            X: Shape (..., d).

        Returns:
            Mean in each fantasy, shape (S, ...), and standard deviation in all, shape (...).
        """
        X = self.posterior._points(X)
        flat = X.reshape(-1, X.shape[-1])
        if flat.requires_grad and torch.is_grad_enabled():
            mean, std = ByLinearise.apply(flat, self)
        else:
            mean, std = flat.new_empty(self.count, len(flat)), flat.new_empty(len(flat))
            for some in self.posterior._parts(torch.arange(len(flat), device=flat.device)):
                k, std[some] = self.posterior._spread(flat[some])
                mean[:, some] = self._means(k)
        return mean.reshape(self.count, *X.shape[:-1]), std.reshape(X.shape[:-1])

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """Marginals at X (m, d) and the map from (∂/∂mean, ∂/∂std) to ∂/∂X, without autograd.

        Returns:
            Mean (S, m), standard deviation (m,), and a function that takes two tensors of these
            shapes and returns the gradient, shape (m, d).
        """
        inner = self.posterior._linearise_spread(X)

        def pullback(by_mean: Tensor, by_std: Tensor) -> Tensor:
            return inner.of_means(by_mean.mT @ self.weights.mT, by_std)

        return self._means(inner.linearised.K), inner.std, pullback

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and covariance of f over each group of q points; differentiable in X.

        Args:
            X: Shape (..., q, d).

        Returns:
            Mean in each fantasy, shape (S, ..., q), and covariance in all, shape (..., q, q).
        """
        _, covariance = self.posterior.joint(X)
        k = self.posterior.model.kernel(self.posterior._points(X), self.posterior.X)
        return (self.posterior.model.constant + k @ self.weights).movedim(-1, 0), covariance

    def covariance(self, X1: Tensor, X2: Tensor) -> Tensor:
        """Covariance of f at X1 (..., d) with f at X2 (k, d), in every fantasy: (..., k).

        Differentiable: see `Posterior.covariance`.
        """
        return self.posterior.covariance(X1, X2)

    @torch.no_grad()
    def _means(self, k: Tensor) -> Tensor:
        """Means (S, m) from covariances with the data (m, n + k)."""
        return self.posterior.model.constant + (k @ self.weights).mT


def _as_values(Y: Tensor, k: int, device: torch.device) -> Tensor:
    """Return Y as a float64 tensor, or raise unless it is a finite (S, k) matrix with S ≥ 1."""
    Y = on_device("Y", Y, device)
    if Y.ndim != 2 or Y.shape[1] != k or not len(Y):
        raise ValueError(
            f"Y must have shape (S, {k}), a row for each fantasy, at least one, and a value for "
            f"each row of X; got {tuple(Y.shape)}. For a single fantasy, pass Y.unsqueeze(0)."
        )
    check_finite("Y", Y)
    return Y
