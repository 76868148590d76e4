"""What a sparse Gaussian process believes about f after seeing data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.checks import as_matrix, as_noise, as_targets
from surrogate.models.cache import Cache, Explained
from surrogate.models.collapsed import Sums, pieces
from surrogate.models.differentiated import Pullback
from surrogate.models.html import posterior_html
from surrogate.models.inducing import InducingGP
from surrogate.models.paths import SamplePaths
from surrogate.models.posterior import Posterior, PosteriorInfo
from surrogate.randomness import normal


@dataclass(frozen=True)
class InducingCache(Cache):
    """The data as M observations at Z: K̂⁻¹ = K_ZZ⁻¹ - (L B Lᵀ)⁻¹ = L⁻ᵀ (I - B⁻¹) L⁻¹.

    That is what an exact posterior would have of observations at Z with noise L S⁻¹ Lᵀ, S = B - I.
    What those are nobody asks, so there is no `residual`.

    Attributes:
        sums: Of the data.
    """

    sums: Sums

    @cached_property
    def alpha(self) -> Tensor:
        """L⁻ᵀ B⁻¹ b, shape (M,)."""
        with torch.inference_mode(False):
            sums = self.sums
            return sums.factor.unwhiten(sums.B.solve(sums.b.unsqueeze(1))).squeeze(1)

    @property
    def jitter(self) -> float:
        return max(self.sums.factor.jitter, self.sums.B.jitter)

    def solve(self, B: Tensor) -> Tensor:
        return self.sums.factor.unwhiten(self._damped(self.sums.factor.whiten(B)))

    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        a = self.sums.factor.whiten(k.mT)  # (M, m)
        v = self.sums.B.whiten(a)
        amount = a.square().sum(0) - v.square().sum(0)

        def weights() -> Tensor:
            return self.sums.factor.unwhiten(a - self.sums.B.unwhiten(v)).mT

        return Explained(amount, torch.zeros_like(amount), weights)

    def quadratic(self, k: Tensor) -> Tensor:
        a = self.sums.factor.whiten(k.reshape(-1, k.shape[-1]).mT)
        v = self.sums.B.whiten(a)
        a, v = a.mT.reshape(k.shape), v.mT.reshape(k.shape)
        return a @ a.transpose(-1, -2) - v @ v.transpose(-1, -2)

    def precisions(self) -> Tensor:
        b = self.sums.b
        return self.solve(torch.eye(len(b), dtype=b.dtype, device=b.device)).diagonal()

    def append(self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor) -> Cache:
        raise TypeError("observations are appended to an InducingPosterior, not to its points.")

    def _damped(self, A: Tensor) -> Tensor:
        """(I - B⁻¹)A."""
        return A - self.sums.B.solve(A)


class InducingPosterior:
    """f given n observations, by way of M inducing points: immutable, as `Posterior` is.

    Made by `InducingGP.condition`. Methods take inputs in the units of X and return float64 in the
    units of y; gradients flow to the inputs, not to the model's parameters.

    Attributes:
        model: The model, its parameters frozen.
        X: Training inputs, shape (n, d).
        y: Training targets, shape (n,).
        noise: Noise variances as given, NaN where the model's σ² is used, shape (n,).
        points: Inducing points Z, shape (M, d).
    """

    def __init__(
        self,
        model: InducingGP,
        X: Tensor,
        y: Tensor,
        noise: Tensor,
        points: Tensor,
        sums: Sums,
    ) -> None:
        self.model, self.X, self.y, self.noise, self.points = model, X, y, noise, points
        self._sums, self._cache = sums, InducingCache(sums)
        self._choice = model.choice(len(y), points)
        # Of what it is told here, only the cache is ever asked.
        nothing, unknown = points.new_zeros(len(points)), points.new_full((len(points),), torch.nan)
        self._at_points = Posterior(model, points, nothing, unknown, self._cache, self._choice)

    @staticmethod
    def of(model: InducingGP, X: Tensor, y: Tensor, noise: Tensor) -> InducingPosterior:
        """Condition on checked data; use `InducingGP.condition`, which checks."""
        with torch.no_grad():
            points = model.points(X, noise).detach().clone()
            model = model.clone()
            if len(X):  # without data nothing was chosen
                model.place(points)
            model.requires_grad_(False)
            empty = InducingPosterior(
                model, X[:0], y[:0], noise[:0], points, Sums.of(model.kernel, points)
            )
            return empty._with(X, y, noise) if len(X) else empty

    def __repr__(self) -> str:
        n, d = self.X.shape
        return f"InducingPosterior(n={n}, d={d}, points={len(self.points)})"

    def _repr_html_(self) -> str:
        return posterior_html(type(self).__name__, self.model, self.info)

    @property
    def info(self) -> PosteriorInfo:
        """How the linear algebra was done; its rank is the number of inducing points."""
        return PosteriorInfo(
            self._choice.name,
            self._choice.reason,
            len(self.y),
            self._cache.jitter,
            rank=len(self.points),
        )

    @property
    def gap(self) -> float:
        """What the points leave out, in nats per observation: ½ mean_i (k_ii - q_ii) / σ_i².

        About how far the bound is below log p(y). Beyond a few hundredths more points would help,
        or an exact model.
        """
        return self._sums.trace_term / max(len(self.y), 1)

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f, noise not included, at each x by itself.

        Differentiable in X. O(M²) time and O(M) memory for each of them.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        return self._at_points.marginals(X)

    def predictive(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a new observation at each x: of f, with noise.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        return self._at_points.predictive(X)

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """Marginals at X (m, d) and the map from (∂/∂mean, ∂/∂std) to ∂/∂X, without autograd."""
        return self._at_points.linearise(X)

    def variance_bounds(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The variance of f at each x, twice: of this model it is known exactly.

        Args:
            X: Shape (..., d).

        Returns:
            Lower and upper bound, each of shape (...).
        """
        return self._at_points.variance_bounds(X)

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of f over each group of q points; differentiable in X.

        Args:
            X: Shape (..., q, d).

        Returns:
            Mean (..., q) and covariance (..., q, q).
        """
        return self._at_points.joint(X)

    def sample(self, X: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` joint samples of f at the rows of X (m, d): shape (count, m)."""
        return self._at_points.sample(X, count, generator)

    @torch.no_grad()
    def sample_paths(
        self, count: int, generator: torch.Generator, features: int = 2048
    ) -> SamplePaths:
        """Draw `count` functions from the posterior: see `SamplePaths`.

            f(x) = m + φ(x)ᵀw + k(x, Z) K_ZZ⁻¹ (u - Φ_Z w),    u ~ q(u) = N(L B⁻¹b, L B⁻¹ Lᵀ)

        Source: Wilson et al. (2020), https://arxiv.org/abs/2002.09309.

        Raises:
            TypeError: If the kernel has no random features.
        """
        kernel, Z, sums = self.model.kernel, self.points, self._sums
        phi = kernel.features(features, generator)
        w = normal(features, count, generator=generator, device=Z.device)
        e = normal(len(Z), count, generator=generator, device=Z.device)
        white = sums.B.solve(sums.b.unsqueeze(1)) + sums.B.unwhiten(e)  # L⁻¹u, (M, count)
        v = sums.factor.unwhiten(white - sums.factor.whiten(phi(Z) @ w))
        return SamplePaths(kernel, Z, self.model.constant.detach(), phi, w, v)

    @torch.no_grad()
    def fitted(self) -> Tensor:
        """Posterior mean of f at the training inputs, shape (n,)."""
        kernel, Z, fitted = self.model.kernel, self.points, torch.empty_like(self.y)
        for rows in pieces(len(self.X), len(Z)):
            X = self.X[rows]
            k = kernel.evaluate(X, Z, X.new_empty(len(X), len(Z)))
            fitted[rows] = self.model.constant + k @ self._cache.alpha
        return fitted

    def noise_variances(self) -> Tensor:
        """Noise variance of each observation, shape (n,)."""
        return self.model.noise_variances(self.X, self.noise)

    def append(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> InducingPosterior:
        """The posterior after m more observations, in O(m M² + M³); this one stays as it is.

        The points stay too, so begin with data that say where they belong. A posterior without
        data has none, and chooses now.

        Args:
            X: Shape (m, d).
            y: Shape (m,).
            noise: Variance of each, shape (m,), NaN where the model's σ² is to be used.
        """
        X = as_matrix("X", X, self.X.shape[-1], self.X.device)
        y, noise = as_targets("y", y, len(X), X.device), as_noise(noise, len(X), X.device)
        if not len(self.points):
            return InducingPosterior.of(self.model, X, y, noise)
        return self._with(X, y, noise)

    @torch.no_grad()
    def _with(self, X: Tensor, y: Tensor, noise: Tensor) -> InducingPosterior:
        model = self.model
        sums = self._sums.plus(
            model.kernel,
            self.points,
            X,
            y - model.constant,
            model.noise_variances(X, noise),
            fitc=model.fitc,
        )
        X, y, noise = (
            torch.cat([old, new])
            for old, new in zip((self.X, self.y, self.noise), (X, y, noise), strict=True)
        )
        return InducingPosterior(model, X, y, noise, self.points, sums)
