"""Sums, products and multiples of kernels are kernels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import Features, Kernel, Linearised, positive_parameter
from surrogate.workspace import Workspace


class Sum(Kernel):
    """k(x, x') = k₁(x, x') + k₂(x, x')."""

    def __init__(self, first: Kernel, second: Kernel) -> None:
        super().__init__()
        _check_distinct(first, second)
        self.first, self.second = first, second

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.first(X1, X2) + self.second(X1, X2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.first.diagonal(X) + self.second.diagonal(X)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedSum(*_both(self.first, self.second, X1, X2, workspace))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Half of the features for each term, side by side."""
        f = self.first.features(count - count // 2, generator)
        g = self.second.features(count // 2, generator)
        return lambda X: torch.cat([f(X), g(X)], dim=-1)


class Product(Kernel):
    """k(x, x') = k₁(x, x') k₂(x, x')."""

    def __init__(self, first: Kernel, second: Kernel) -> None:
        super().__init__()
        _check_distinct(first, second)
        self.first, self.second = first, second

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.first(X1, X2) * self.second(X1, X2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.first.diagonal(X) * self.second.diagonal(X)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedProduct(*_both(self.first, self.second, X1, X2, workspace))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Products of independent features: E[φ₁φ₁' φ₂φ₂'] = k₁ k₂, times `count` for the mean."""
        f, g = self.first.features(count, generator), self.second.features(count, generator)
        return lambda X: f(X) * g(X) * count**0.5


class Scaled(Kernel):
    """k(x, x') = c k₁(x, x') with a scale c > 0 that is learnt."""

    roles: ClassVar[dict[str, str]] = {"log_scale": "variance"}

    def __init__(self, kernel: Kernel, scale: float | Tensor = 1.0) -> None:
        super().__init__()
        self.log_scale = positive_parameter("scale", scale)
        self.kernel = kernel

    @property
    def scale(self) -> Tensor:
        """The factor c, shape ()."""
        return self.log_scale.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.scale * self.kernel(X1, X2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.scale * self.kernel.diagonal(X)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        inner = self.kernel.linearise(X1, X2, workspace and workspace.child("kernel"))
        return _LinearisedScaled(inner, self.log_scale.detach().exp())

    def features(self, count: int, generator: torch.Generator) -> Features:
        f, root = self.kernel.features(count, generator), self.scale.detach().sqrt()
        return lambda X: root * f(X)


def _check_distinct(first: Kernel, second: Kernel) -> None:
    if {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}:
        raise ValueError(
            "the two kernels share parameters, whose gradients could not be told apart; "
            "combine a kernel with copy.deepcopy of itself instead."
        )


def _both(
    first: Kernel, second: Kernel, X1: Tensor, X2: Tensor, workspace: Workspace | None
) -> tuple[Linearised, Linearised]:
    return (
        first.linearise(X1, X2, workspace and workspace.child("first")),
        second.linearise(X1, X2, workspace and workspace.child("second")),
    )


class _LinearisedSum(Linearised):
    def __init__(self, first: Linearised, second: Linearised) -> None:
        self._first, self._second = first, second
        self.K = first.K + second.K

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        return self._first.parameters(G) + self._second.parameters(G)

    def inputs(self, G: Tensor) -> Tensor:
        return self._first.inputs(G) + self._second.inputs(G)


class _LinearisedProduct(Linearised):
    def __init__(self, first: Linearised, second: Linearised) -> None:
        self._first, self._second = first, second
        self.K = first.K * second.K

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        first, second = self._first, self._second
        return first.parameters(G * second.K) + second.parameters(G * first.K)

    def inputs(self, G: Tensor) -> Tensor:
        first, second = self._first, self._second
        return first.inputs(G * second.K) + second.inputs(G * first.K)


class _LinearisedScaled(Linearised):
    def __init__(self, inner: Linearised, scale: Tensor) -> None:
        self._inner, self._scale = inner, scale
        self.K = scale * inner.K

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        return ((G * self.K).sum(), *self._inner.parameters(self._scale * G))

    def inputs(self, G: Tensor) -> Tensor:
        return self._inner.inputs(self._scale * G)
