"""What a Gaussian process believes about f after seeing data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from surrogate.checks import as_matrix, as_noise, as_targets
from surrogate.kernels.base import Linearised
from surrogate.models.cache import PredictiveCache
from surrogate.models.exact import ExactGP
from surrogate.models.paths import SamplePaths
from surrogate.solvers.cholesky import Cholesky

# Variances are never below this fraction of the prior variance: what is smaller is rounding.
_RELATIVE_FLOOR = 1e-14


@dataclass(frozen=True)
class PosteriorInfo:
    """How the linear algebra behind a posterior was done.

    Attributes:
        solver: Its name.
        n: Observations conditioned on.
        jitter: What had to be added to the diagonal of K̂ to factor it, in units of y squared.
    """

    solver: str
    n: int
    jitter: float


class Posterior:
    """f given n observations: immutable; it owns its caches and a frozen copy of the model.

    Made by `ExactGP.condition`. All methods take float64 or float32 inputs in the units of X and
    return float64 in the units of y; gradients flow to the inputs, not to the model's parameters.

    Attributes:
        model: The model, its parameters frozen.
        X: Training inputs, shape (n, d).
        y: Training targets, shape (n,).
        noise: Noise variances as given, NaN where the model's σ² is used, shape (n,).
    """

    def __init__(
        self, model: ExactGP, X: Tensor, y: Tensor, noise: Tensor, cache: PredictiveCache
    ) -> None:
        self.model, self.X, self.y, self.noise, self._cache = model, X, y, noise, cache

    @staticmethod
    def of(model: ExactGP, X: Tensor, y: Tensor, noise: Tensor) -> Posterior:
        """Condition on checked data; use `ExactGP.condition`, which checks."""
        model = model.clone().requires_grad_(False)
        with torch.no_grad():
            X, y, noise = X.clone(), y.clone(), noise.clone()
            K = model.kernel.linearise(X, X).K + model.noise_variances(noise).diag()
            cache = PredictiveCache(Cholesky().factor(K), y - model.constant)
        return Posterior(model, X, y, noise, cache)

    def __repr__(self) -> str:
        return f"Posterior(n={len(self.y)}, d={self.X.shape[-1]})"

    @property
    def info(self) -> PosteriorInfo:
        """Solver, size and jitter."""
        return PosteriorInfo("cholesky", len(self.y), self._cache.factor.jitter)

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f, noise not included, at each x by itself.

        Differentiable in X. Takes O(n²) time for each point and never forms their covariance.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        X = self._points(X)
        flat = X.reshape(-1, X.shape[-1])
        if flat.requires_grad and torch.is_grad_enabled():
            mean, std = _Marginals.apply(flat, self)
        else:
            mean, std, _ = self.linearise(flat)
        return mean.reshape(X.shape[:-1]), std.reshape(X.shape[:-1])

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """Marginals at X (m, d) and the map from (∂/∂mean, ∂/∂std) to ∂/∂X.

        What `marginals` runs on, without autograd: for loops in which its overhead counts.

        Returns:
            Mean (m,), standard deviation (m,), and a function that takes two (m,) tensors and
            returns the gradient, shape (m, d).
        """
        with torch.no_grad():
            model, cache = self.model, self._cache
            prior = model.kernel.diagonal(X)  # (m,)
            linearised = model.kernel.linearise(X, self.X)
            k = linearised.K  # (m, n)
            mean = model.constant + k @ cache.alpha
            v = k @ cache.inverse_root.T  # (m, n): ‖v‖² is what the data explain
            floor = prior * _RELATIVE_FLOOR
            variance = torch.maximum(prior - v.square().sum(-1), floor)
            std = variance.sqrt()
        return mean, std, Pullback(self, X, linearised, v, std, variance > floor)

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of f over each group of q points; differentiable in X.

        Args:
            X: Shape (..., q, d).

        Returns:
            Mean (..., q) and covariance (..., q, q).
        """
        X = self._points(X)
        if X.ndim < 2:
            raise ValueError(
                f"X must have shape (..., q, d), groups of q points; got {tuple(X.shape)}. "
                f"For a single point, pass X.unsqueeze(0)."
            )
        model, cache = self.model, self._cache
        k = model.kernel(X, self.X)  # (..., q, n)
        v = k @ cache.inverse_root.T
        covariance = model.kernel(X, X) - v @ v.transpose(-1, -2)
        return model.constant + k @ cache.alpha, covariance

    def sample(self, X: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` joint samples of f at the rows of X (m, d): shape (count, m).

        By a Cholesky factor of the m × m covariance; for more than a few thousand points, or for
        functions rather than values, use `sample_paths`.
        """
        X = as_matrix("X", X, self.X.shape[-1])
        with torch.no_grad():
            mean, covariance = self.joint(X)
            # Near the data the covariance is a small difference: rounding is relative to the prior.
            scale = float(self.model.kernel.diagonal(X).mean())
            L = Cholesky().factor(covariance, scale=scale).L
            e = torch.randn(count, len(X), generator=generator, dtype=torch.float64)
            return mean + e @ L.T

    def sample_paths(
        self, count: int, generator: torch.Generator, features: int = 2048
    ) -> SamplePaths:
        """Draw `count` functions from the posterior: see `SamplePaths`."""
        return SamplePaths.draw(self, count, features, generator)

    def solve(self, B: Tensor) -> Tensor:
        """Return K̂⁻¹B for B (n, t)."""
        return self._cache.factor.solve(B)

    def noise_variances(self) -> Tensor:
        """Noise variance of each observation, shape (n,)."""
        return self.model.noise_variances(self.noise)

    def append(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> Posterior:
        """The posterior after m more observations, in O(n² m); this one stays as it is.

        Args:
            X: Shape (m, d).
            y: Shape (m,).
            noise: Variance of each, shape (m,), NaN where the model's σ² is to be used.
        """
        X = as_matrix("X", X, self.X.shape[-1])
        y, noise = as_targets("y", y, len(X)), as_noise(noise, len(X))
        with torch.no_grad():
            K12 = self.model.kernel(self.X, X)
            K22 = self.model.kernel.linearise(X, X).K + self.model.noise_variances(noise).diag()
            cache = self._cache.append(K12, K22, y - self.model.constant)
            X, y = torch.cat([self.X, X]), torch.cat([self.y, y])
            noise = torch.cat([self.noise, noise])
        return Posterior(self.model, X, y, noise, cache)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Prediction of each y_i, noise included, from all the others: mean and std, each (n,).

            μ_i = y_i - α_i / [K̂⁻¹]_ii,    s_i² = 1 / [K̂⁻¹]_ii

        Source: Rasmussen & Williams (2006), eq. 5.12. The parameters stay those of the full fit.
        """
        with torch.no_grad():
            precision = self._cache.inverse_root.square().sum(0)  # diagonal of K̂⁻¹
            return self.y - self._cache.alpha / precision, precision.rsqrt()

    def _points(self, X: Tensor) -> Tensor:
        X = torch.as_tensor(X, dtype=torch.float64)
        if not X.ndim or X.shape[-1] != self.X.shape[-1]:
            raise ValueError(
                f"X must have {self.X.shape[-1]} column(s), as the training inputs do; "
                f"got shape {tuple(X.shape)}."
            )
        return X


@dataclass(frozen=True)
class Pullback:
    """Maps gradients in the marginals at X (m, d) to the gradient in X."""

    posterior: Posterior
    X: Tensor
    linearised: Linearised
    v: Tensor
    std: Tensor
    free: Tensor  # where the variance is not held by its floor

    def __call__(self, by_mean: Tensor, by_std: Tensor) -> Tensor:
        """Gradient in X, shape (m, d), of a loss with these gradients in mean and std (m,)."""
        cache = self.posterior._cache
        # std² = k(x, x) - ‖v‖²
        w = torch.where(self.free, by_std / self.std, 0.0)  # -2 ∂loss/∂‖v‖², (m,)
        G = by_mean.unsqueeze(-1) * cache.alpha - w.unsqueeze(-1) * (self.v @ cache.inverse_root)
        gradient = self.linearised.inputs(G)
        with torch.enable_grad():
            X = self.X.detach().requires_grad_(True)
            prior = self.posterior.model.kernel.diagonal(X)
        if prior.requires_grad:  # not for a stationary kernel, whose k(x, x) is a constant
            gradient = gradient + torch.autograd.grad(prior, X, 0.5 * w)[0]
        return gradient


class _Marginals(torch.autograd.Function):
    """`Posterior.linearise` for autograd."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, posterior: Posterior) -> tuple[Tensor, Tensor]:
        mean, std, ctx.pullback = posterior.linearise(X)
        return mean, std

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        return ctx.pullback(*gradients), None
