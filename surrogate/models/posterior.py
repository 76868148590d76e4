"""What a Gaussian process believes about f after seeing data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from surrogate.checks import as_matrix, as_noise, as_points, as_targets
from surrogate.models.cache import Cache, CholeskyCache, FactorCache
from surrogate.models.covariance import dense_covariance
from surrogate.models.differentiated import ByLinearise, CovarianceWith, Pullback, pieces
from surrogate.models.exact import ExactGP
from surrogate.models.html import posterior_html
from surrogate.models.kronecker import kronecker_factor, structured
from surrogate.models.paths import SamplePaths
from surrogate.models.products import ProductCache
from surrogate.models.rooted import RootedCache
from surrogate.operators.kernel import Storage
from surrogate.randomness import normal
from surrogate.solvers.auto import Auto, Choice, for_prediction
from surrogate.solvers.base import SolveInfo
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.cholesky import Cholesky

if TYPE_CHECKING:
    from surrogate.models.fantasies import Fantasies

# Variances are never below this fraction of the prior variance: what is smaller is rounding.
_RELATIVE_FLOOR = 1e-14


@dataclass(frozen=True)
class PosteriorInfo:
    """How the linear algebra behind a posterior was done.

    Attributes:
        solver: "cholesky", "bbmm", "inducing points" or, for a complete table, "eigenvectors".
        reason: Why that one.
        n: Observations conditioned on.
        jitter: What had to be added to the diagonal of K̂ to factor it, in units of y squared.
        weights: How the solve for α went; None where it was exact.
        rank: Columns of the cached root of K̂⁻¹; n where it is exact, 0 before it was needed. Or
            how many inducing points there are.
        storage: Where K is kept for products: "float64", "float32" or "tiles" (nowhere); None
            where it is not.
        arithmetic: What computes K at each product where it is kept nowhere, and in which type:
            "torch float64", "triton float32" or "triton float64"; and on how many ranks, if asked.
    """

    solver: str
    reason: str
    n: int
    jitter: float
    weights: SolveInfo | None = None
    rank: int = 0
    storage: Storage | None = None
    arithmetic: str | None = None


class Posterior:
    """f given n observations: immutable; it owns its caches and a frozen copy of the model.

    Made by `ExactGP.condition`. All methods take float64 or float32 inputs in the units of X and
    return float64 in the units of y; gradients flow to the inputs, not to the model's parameters.
    Inputs must be where the data are; so is what is returned.

    Attributes:
        model: The model, its parameters frozen.
        X: Training inputs, shape (n, d).
        y: Training targets, shape (n,).
        noise: Noise variances as given, NaN where the model's σ² is used, shape (n,).
    """

    def __init__(
        self, model: ExactGP, X: Tensor, y: Tensor, noise: Tensor, cache: Cache, choice: Choice
    ) -> None:
        self.model, self.X, self.y, self.noise, self._cache = model, X, y, noise, cache
        self._choice = choice

    @staticmethod
    def of(model: ExactGP, X: Tensor, y: Tensor, noise: Tensor) -> Posterior:
        """Condition on checked data; use `ExactGP.condition`, which checks."""
        model = model.clone().requires_grad_(False)
        choice, table = structured(model, X, noise, for_prediction(model.solver, len(X)))
        with torch.no_grad():
            X, y, noise = X.clone(), y.clone(), noise.clone()
            variances, residual = model.noise_variances(X, noise), y - model.constant
            if table is not None:
                cache = FactorCache(kronecker_factor(model, table), residual)
            elif isinstance(choice.solver, BBMM):
                cache = ProductCache(choice.solver, model.kernel, X, variances, residual)
            elif choice.solver.root_from is not None and len(X) >= choice.solver.root_from:
                options = model.solver.bbmm if isinstance(model.solver, Auto) else BBMM()
                cache = RootedCache.of(model.kernel, X, variances, residual, choice.solver, options)
            else:
                K = dense_covariance(model.kernel, X, variances)
                cache = CholeskyCache(choice.solver.factor(K), residual)
        return Posterior(model, X, y, noise, cache, choice)

    def __repr__(self) -> str:
        return f"Posterior(n={len(self.y)}, d={self.X.shape[-1]})"

    def _repr_html_(self) -> str:
        return posterior_html(type(self).__name__, self.model, self.info)

    @property
    def info(self) -> PosteriorInfo:
        """How the linear algebra was done, and how well."""
        cache, n, name, reason = self._cache, len(self.y), self._choice.name, self._choice.reason
        if isinstance(cache, ProductCache):
            rank = cache.root.rank if "root" in cache.__dict__ else 0
            kept = cache.storage, cache.arithmetic
            return PosteriorInfo(name, reason, n, cache.jitter, cache.info, rank, *kept)
        rank = cache.root.rank if isinstance(cache, RootedCache) else n
        return PosteriorInfo(name, reason, n, cache.jitter, rank=rank)

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f, noise not included, at each x by itself.

        Differentiable in X. Never forms the covariance of the points with each other; O(n²) time
        for each of them, O(n r) where a root of rank r suffices. A standard deviation that was not
        found exactly is an upper bound: see `variance_bounds`.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        X = self._points(X)
        flat = X.reshape(-1, X.shape[-1])
        if flat.requires_grad and torch.is_grad_enabled():
            mean, std = ByLinearise.apply(flat, self)
        else:
            parts = [self._marginals(part) for part in self._parts(flat)]
            mean, std = (torch.cat(column) for column in zip(*parts, strict=True))
        return mean.reshape(X.shape[:-1]), std.reshape(X.shape[:-1])

    def predictive(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a new observation at each x: of f, with noise.

        Differentiable in X as far as f is.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        X = self._points(X)
        mean, std = self.marginals(X)
        noise = self.model.noise_model(X.detach().reshape(-1, X.shape[-1])).detach()
        return mean, (std.square() + noise.reshape(std.shape)).sqrt()

    @torch.no_grad()
    def _marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation at X (m, d), in one piece."""
        k, std = self._spread(X)
        return self.model.constant + k @ self._cache.alpha, std

    @torch.no_grad()
    def _spread(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances with the data (m, n) and standard deviations (m,) at X (m, d)."""
        prior, k = self._covariances(X)
        variance = prior - self._cache.explain(k, prior).amount
        return k, torch.maximum(variance, prior * _RELATIVE_FLOOR).sqrt()

    def _covariances(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Prior variances (m,) of f at X (m, d), and its covariances with the data (m, n)."""
        kernel = self.model.kernel
        k = X.new_empty(len(X), len(self.X))
        kernel.evaluate(X, self.X, k)
        return kernel.diagonal(X), k

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """Marginals at X (m, d) and the map from (∂/∂mean, ∂/∂std) to ∂/∂X.

        What `marginals` runs on, without autograd: for loops in which its overhead counts.

        Returns:
            Mean (m,), standard deviation (m,), and a function that takes two (m,) tensors and
            returns the gradient, shape (m, d).
        """
        pullback = self._linearise_spread(X)
        with torch.no_grad():
            mean = self.model.constant + pullback.linearised.K @ self._cache.alpha
        return mean, pullback.std, pullback

    @torch.no_grad()
    def _linearise_spread(self, X: Tensor) -> Pullback:
        """`linearise` but for the mean: α is not asked for."""
        kernel = self.model.kernel
        prior = kernel.diagonal(X)  # (m,)
        linearised = kernel.linearise(X, self.X)
        explained = self._cache.explain(linearised.K, prior)
        floor = prior * _RELATIVE_FLOOR
        variance = torch.maximum(prior - explained.amount, floor)
        return Pullback(self, X, linearised, explained, variance.sqrt(), variance > floor)

    def variance_bounds(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Two numbers that the variance of f at each x is certainly between, rounding apart.

        One and the same where the solver is exact; `marginals` returns the root of the upper one.

        Args:
            X: Shape (..., d).

        Returns:
            Lower and upper bound, each of shape (...).
        """
        X = self._points(X)
        flat = X.reshape(-1, X.shape[-1])
        lower, upper = flat.new_empty(len(flat)), flat.new_empty(len(flat))
        with torch.no_grad():
            for some in self._parts(torch.arange(len(flat), device=flat.device)):
                prior, k = self._covariances(flat[some])
                explained = self._cache.explain(k, prior)
                floor = prior * _RELATIVE_FLOOR
                upper[some] = torch.maximum(prior - explained.amount, floor)
                lower[some] = torch.maximum(upper[some] - explained.short, torch.zeros_like(floor))
        return lower.reshape(X.shape[:-1]), upper.reshape(X.shape[:-1])

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
        covariance = model.kernel(X, X) - cache.quadratic(k)
        return model.constant + k @ cache.alpha, covariance

    def covariance(self, X1: Tensor, X2: Tensor) -> Tensor:
        """Covariance of f at X1 with f at X2; differentiable in both.

            k(X1, X2) - k(X1, X) K̂⁻¹ k(X, X2)

        One solve for X2, and one for X1 if X2 wants a gradient. Where K̂ is not factored, it is off
        by what these leave, not by the square of that as `joint` is.

        Args:
            X1: Shape (..., d).
            X2: Shape (k, d).

        Returns:
            Shape (..., k).
        """
        X1, X2 = self._points(X1), self._points(X2)
        covariance = self.covariance_with(X2)(X1)
        if X2.requires_grad and torch.is_grad_enabled():
            other = self.covariance_with(X1.reshape(-1, X1.shape[-1]))(X2)  # (k, m)
            # A term that is zero, and whose derivative is that in X2.
            covariance = covariance + (other - other.detach()).mT.reshape(covariance.shape)
        return covariance

    def covariance_with(self, X2: Tensor) -> CovarianceWith:
        """X1 ↦ `covariance(X1, X2)` for one X2 (k, d), held: solved for once."""
        return CovarianceWith.of(self, self._matrix(X2, "X2"))

    def averages(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the mean of f over each group of w points.

            E = 1/w Σ_i μ(x_i),    var = 1/w² Σ_ij cov(f(x_i), f(x_j))

        Differentiable in X. The data are asked once for each group, not once for each point as by
        `joint`: O(n² + n w) time.

        Args:
            X: Shape (..., w, d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        from surrogate.models.averages import Averages

        X = self._points(X)
        if X.ndim < 2 or not X.shape[-2]:
            raise ValueError(
                f"X must have shape (..., w, d), groups of w ≥ 1 points; got {tuple(X.shape)}. "
                f"For a single point, pass X.unsqueeze(-2)."
            )
        return Averages(self)(X)

    def sample(self, X: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` joint samples of f at the rows of X (m, d): shape (count, m).

        By a Cholesky factor of the m × m covariance; for more than a few thousand points, or for
        functions rather than values, use `sample_paths`.
        """
        X = self._matrix(X)
        with torch.no_grad():
            mean, covariance = self.joint(X)
            # Near the data the covariance is a small difference: rounding is relative to the prior.
            scale = float(self.model.kernel.diagonal(X).mean())
            L = Cholesky().factor(covariance, scale=scale).L
            e = normal(count, len(X), generator=generator, device=X.device)
            return mean + e @ L.T

    def sample_paths(
        self, count: int, generator: torch.Generator, features: int = 2048
    ) -> SamplePaths:
        """Draw `count` functions from the posterior: see `SamplePaths`."""
        return SamplePaths.draw(self, count, features, generator)

    def fitted(self) -> Tensor:
        """Posterior mean of f at the training inputs, shape (n,).

        m + Kα = y - noise α, without a product with K, unless noise had to be helped by jitter.
        """
        with torch.no_grad():
            if not self._cache.jitter:
                return self.y - self.noise_variances() * self._cache.alpha
            covariances = (self._covariances(X)[1] for X in self._parts(self.X))
            return self.model.constant + torch.cat([k @ self._cache.alpha for k in covariances])

    def solve(self, B: Tensor) -> Tensor:
        """Return K̂⁻¹B for B (n, t)."""
        return self._cache.solve(B)

    def noise_variances(self) -> Tensor:
        """Noise variance of each observation, shape (n,)."""
        return self.model.noise_variances(self.X, self.noise)

    def append(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> Posterior:
        """The posterior after m more observations, in O(n² m); this one stays as it is.

        Args:
            X: Shape (m, d).
            y: Shape (m,).
            noise: Variance of each, shape (m,), NaN where the model's σ² is to be used.
        """
        X = self._matrix(X)
        y, noise = as_targets("y", y, len(X), X.device), as_noise(noise, len(X), X.device)
        with torch.no_grad():
            K12 = self._covariances(X)[1].mT
            K22 = self.model.kernel.linearise(X, X).K + self.model.noise_variances(X, noise).diag()
            residual = y - self.model.constant
            X, y = torch.cat([self.X, X]), torch.cat([self.y, y])
            noise = torch.cat([self.noise, noise])
            variances = self.model.noise_variances(X, noise)
            cache = self._cache.append(K12, K22, residual, X, variances)
        return Posterior(self.model, X, y, noise, cache, self._choice)

    def fantasise(self, X: Tensor, Y: Tensor, noise: Tensor | None = None) -> Fantasies:
        """Beliefs after f at X has turned out as each row of Y; this one stays as it is.

        The data are extended once, by `append`; one solve with S columns finds all the weights.

        f is known without noise, but for 1e-10 of the mean prior variance: without that, points
        that coincide, or lie on the data, could not be told from a contradiction. That leaves
        standard deviations of 1e-5 of the prior's.

        Args:
            X: Shape (k, d); k may be 0.
            Y: Values of f, shape (S, k).
            noise: Where Y are observations: the variance of each, shape (k,), NaN where the
                model's σ² is to be used; what is less than the above counts as that.
        """
        from surrogate.models.fantasies import Fantasies

        return Fantasies.of(self, X, Y, noise)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Prediction of each y_i, noise included, from all the others: mean and std, each (n,).

            μ_i = y_i - α_i / [K̂⁻¹]_ii,    s_i² = 1 / [K̂⁻¹]_ii

        Source: Rasmussen & Williams (2006), eq. 5.12. The parameters stay those of the full fit.
        """
        with torch.no_grad():
            precision = self._cache.precisions()
            return self.y - self._cache.alpha / precision, precision.rsqrt()

    def _parts(self, X: Tensor) -> tuple[Tensor, ...]:
        """Rows of X, as many at once as their covariances with the data may take memory."""
        return pieces(X, len(self.y))

    def _points(self, X: Tensor) -> Tensor:
        return as_points(X, self.X.shape[-1], self.X.device)

    def _matrix(self, X: Tensor, name: str = "X") -> Tensor:
        return as_matrix(name, X, self.X.shape[-1], self.X.device)
