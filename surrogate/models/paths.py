"""Samples of a posterior as functions that can be evaluated anywhere and differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from surrogate.checks import on_device
from surrogate.kernels.base import Features, Kernel
from surrogate.randomness import normal
from surrogate.tiles.base import Tiles
from surrogate.tiles.choose import is_fused, tiles_for

if TYPE_CHECKING:
    from surrogate.models.posterior import Posterior


# Features, or covariances with the data: 2 MiB, which a core's cache holds. Elsewhere it is the
# number of operations that counts: 256 MiB.
_AT_ONCE, _AT_ONCE_ELSEWHERE = 2**18, 2**25


@dataclass(frozen=True)
class SamplePaths:
    """Functions drawn from a posterior by Matheron's rule.

        f(x) = m + φ(x)ᵀw + k(x, X) v,    v = K̂⁻¹(y - m - Φw - ε)

    The first part is a function from the prior, by random features; the second moves it to where
    the data are, exactly. Error from the finite number of features is that of the prior alone.

    Source: Wilson et al. (2020), https://arxiv.org/abs/2002.09309, eq. 13.

    Attributes:
        kernel: k, frozen.
        X: Training inputs, shape (n, d).
        mean: m, shape ().
        features: φ, maps (..., d) to (..., F).
        w: Weights of the features, one column per path, shape (F, count).
        v: Weights of the data, shape (n, count).
    """

    kernel: Kernel
    X: Tensor
    mean: Tensor
    features: Features
    w: Tensor
    v: Tensor

    @staticmethod
    def draw(
        posterior: Posterior, count: int, features: int, generator: torch.Generator
    ) -> SamplePaths:
        """Draw `count` paths; one solve with `count` right-hand sides.

        Raises:
            TypeError: If the kernel has no random features.
        """
        model, X = posterior.model, posterior.X
        with torch.no_grad():
            phi = model.kernel.features(features, generator)
            Phi = phi(X)  # (n, F)
            w = normal(features, count, generator=generator, device=X.device)
            e = normal(len(X), count, generator=generator, device=X.device)
            epsilon = posterior.noise_variances().sqrt().unsqueeze(-1) * e
            residual = (posterior.y - model.constant).unsqueeze(-1) - Phi @ w - epsilon
            v = posterior.solve(residual)
        return SamplePaths(model.kernel, X, model.constant.detach(), phi, w, v)

    @property
    def count(self) -> int:
        """How many paths."""
        return self.w.shape[-1]

    def __call__(self, X: Tensor) -> Tensor:
        """Values of every path; differentiable in X.

        Args:
            X: Shape (m, d), where all paths are evaluated, or (count, m, d), where path i is
                evaluated at X[i].

        Returns:
            Shape (count, m).
        """
        X = on_device("X", X, self.X.device)
        if X.ndim == 2 and not (X.requires_grad and torch.is_grad_enabled()):
            entries = _AT_ONCE if X.device.type == "cpu" else _AT_ONCE_ELSEWHERE
            rows = max(1, entries // max(len(self.X), len(self.w)))
            return torch.cat([self._at(part) for part in X.split(rows)]).T
        if X.ndim == 2:
            return (self.mean + self.features(X) @ self.w + self.kernel(X, self.X) @ self.v).T
        if X.ndim != 3 or len(X) != self.count:
            raise ValueError(
                f"X must have shape (m, d) or ({self.count}, m, d); got {tuple(X.shape)}."
            )
        prior = torch.einsum("cmf,fc->cm", self.features(X), self.w)
        update = torch.einsum("cmn,nc->cm", self.kernel(X, self.X), self.v)
        return self.mean + prior + update

    @cached_property
    def _fused(self) -> Tiles | None:
        """Products with k(x, X) that need no memory for it, where there are some."""
        if not is_fused(self.kernel, self.X.device):
            return None
        return tiles_for(self.kernel, self.X, float32=False)

    @torch.no_grad()
    def _at(self, X: Tensor) -> Tensor:
        """Values at X (m, d), shape (m, count), in one piece and without a graph."""
        prior = self.mean + self.features(X) @ self.w
        if self._fused is not None:
            return prior + self._fused.cross(X, self.v)
        k = self.kernel.evaluate(X, self.X, X.new_empty(len(X), len(self.X)))
        return torch.addmm(prior, k, self.v)
