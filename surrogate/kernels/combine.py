"""Sums, products and multiples of kernels are kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import Features, Kernel, Linearised, among_all, positive_parameter
from surrogate.kernels.devices import Moving, chosen
from surrogate.tiles.formula import Formula, View
from surrogate.workspace import Workspace


class Sum(Kernel):
    """k(x, x') = k₁(x, x') + k₂(x, x')."""

    def __init__(self, first: Kernel, second: Kernel) -> None:
        super().__init__()
        check_distinct(first, second)
        self.first, self.second = first, second

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.first(X1, X2) + self.second(X1, X2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.first.diagonal(X) + self.second.diagonal(X)

    def coordinates(self, X: Tensor) -> Tensor:
        return torch.cat([self.first.coordinates(X), self.second.coordinates(X)], dim=-1)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        workspace = workspace or Workspace(X1.device)
        first = self.first.linearise(X1, X2, workspace.child("first"))
        second = self.second.linearise(X1, X2, workspace.child("second"))
        return _LinearisedSum(first, second, workspace)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return _evaluate_both(self.first, self.second, X1, X2, out, workspace, Tensor.add_)

    def formula(self) -> Formula | None:
        first, second = _formulas(self.first, self.second)
        return first + second if first and second else None

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Half of the features for each term, side by side."""
        f = self.first.features(count - count // 2, generator)
        g = self.second.features(count // 2, generator)
        return lambda X: torch.cat([f(X), g(X)], dim=-1)


class Product(Kernel):
    """k(x, x') = k₁(x, x') k₂(x, x')."""

    def __init__(self, first: Kernel, second: Kernel) -> None:
        super().__init__()
        check_distinct(first, second)
        self.first, self.second = first, second

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.first(X1, X2) * self.second(X1, X2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.first.diagonal(X) * self.second.diagonal(X)

    def coordinates(self, X: Tensor) -> Tensor:
        return torch.cat([self.first.coordinates(X), self.second.coordinates(X)], dim=-1)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        workspace = workspace or Workspace(X1.device)
        first = self.first.linearise(X1, X2, workspace.child("first"))
        second = self.second.linearise(X1, X2, workspace.child("second"))
        return _LinearisedProduct(first, second, workspace)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return _evaluate_both(self.first, self.second, X1, X2, out, workspace, Tensor.mul_)

    def formula(self) -> Formula | None:
        first, second = _formulas(self.first, self.second)
        return first * second if first and second else None

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Products of independent features: E[φ₁φ₁' φ₂φ₂'] = k₁ k₂, times `count` for the mean.

        In random pairs: where either is a sum, its first features belong to its first term.
        """
        f, g = self.first.features(count, generator), self.second.features(count, generator)
        order = torch.randperm(count, generator=generator)
        return Moving(lambda X, order: f(X) * g(X)[..., order] * count**0.5, order)


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

    def coordinates(self, X: Tensor) -> Tensor:
        return self.kernel.coordinates(X)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        workspace = workspace or Workspace(X1.device)
        inner = self.kernel.linearise(X1, X2, workspace.child("kernel"))
        return _LinearisedScaled(inner, self.log_scale.detach().exp(), workspace)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return self.kernel.evaluate(X1, X2, out, workspace).mul_(float(self.scale.detach()))

    def formula(self) -> Formula | None:
        inner = self.kernel.formula()
        if inner is None:
            return None
        places = range(1, 1 + sum(1 for _ in self.kernel.parameters()))
        return inner.placed(places).times(float(self.scale.detach()), 0)

    def features(self, count: int, generator: torch.Generator) -> Features:
        f, root = self.kernel.features(count, generator), self.scale.detach().sqrt()
        return lambda X: root * f(X)


class Columns(Kernel):
    """k(x[c], x'[c]): a kernel that is shown some columns c of the inputs alone.

    For a kernel that takes all columns there are, as one of your own may.

    Args:
        kernel: k.
        columns: Which columns, in the order in which k is to see them.
    """

    def __init__(self, kernel: Kernel, columns: Sequence[int]) -> None:
        super().__init__()
        self.kernel, self.columns = kernel, tuple(columns)

    def extra_repr(self) -> str:
        return f"columns={self.columns}"

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.kernel(*self._seen(X1, X2))

    def diagonal(self, X: Tensor) -> Tensor:
        return self.kernel.diagonal(chosen(X, self.columns))

    def coordinates(self, X: Tensor) -> Tensor:
        return self.kernel.coordinates(chosen(X, self.columns))

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        inner = self.kernel.linearise(*self._seen(X1, X2), workspace)
        return _LinearisedColumns(inner, self.columns, X1.shape[-1])

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return self.kernel.evaluate(*self._seen(X1, X2), out, workspace)

    def formula(self) -> Formula | None:
        inner = self.kernel.formula()
        return inner and inner.seeing(
            View(
                points=lambda X: chosen(X, self.columns),
                pullback=lambda X, G: {},
                inputs=lambda X, G: among_all(G, self.columns, X.shape[1]),
                is_choice=True,
            )
        )

    def features(self, count: int, generator: torch.Generator) -> Features:
        f = self.kernel.features(count, generator)
        return lambda X: f(chosen(X, self.columns))

    def _seen(self, X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
        """One tensor given twice stays one: so k(X, X) is told apart."""
        first = chosen(X1, self.columns)
        return first, first if X2 is X1 else chosen(X2, self.columns)


def check_distinct(*kernels: Kernel) -> None:
    """Raise ValueError if a parameter belongs to more than one of the kernels."""
    found = [id(p) for kernel in kernels for p in kernel.parameters()]
    if len(set(found)) < len(found):
        raise ValueError(
            "the kernels share parameters, whose gradients could not be told apart; "
            "combine a kernel with copy.deepcopy of itself instead."
        )


def _formulas(first: Kernel, second: Kernel) -> tuple[Formula | None, Formula | None]:
    """Of both, with the parameters of the second after those of the first."""
    f, g = first.formula(), second.formula()
    start = sum(1 for _ in first.parameters())
    return f, g and g.placed(range(start, start + sum(1 for _ in second.parameters())))


def _evaluate_both(
    first: Kernel,
    second: Kernel,
    X1: Tensor,
    X2: Tensor,
    out: Tensor,
    workspace: Workspace | None,
    combine: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Write the one into `out`, the other beside it, with the same scratch memory, then combine."""
    workspace = workspace or Workspace(X1.device)
    beside = workspace.buffer("beside", *out.shape, dtype=out.dtype)
    first.evaluate(X1, X2, out, workspace.child("either"))
    return combine(out, second.evaluate(X1, X2, beside, workspace.child("either")))


class _LinearisedSum(Linearised):
    def __init__(self, first: Linearised, second: Linearised, workspace: Workspace) -> None:
        self._first, self._second = first, second
        self.K = torch.add(first.K, second.K, out=workspace.buffer("K", *first.K.shape))

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        return self._first.parameters(G) + self._second.parameters(G)

    def inputs(self, G: Tensor) -> Tensor:
        return self._first.inputs(G) + self._second.inputs(G)


class _LinearisedProduct(Linearised):
    def __init__(self, first: Linearised, second: Linearised, workspace: Workspace) -> None:
        self._first, self._second = first, second
        self.K = torch.mul(first.K, second.K, out=workspace.buffer("K", *first.K.shape))
        self._by_factor = workspace.buffer("by factor", *first.K.shape)  # ∂loss/∂k₁, then k₂

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        first, second, by_factor = self._first, self._second, self._by_factor
        gradients = first.parameters(torch.mul(G, second.K, out=by_factor))
        return gradients + second.parameters(torch.mul(G, first.K, out=by_factor))

    def inputs(self, G: Tensor) -> Tensor:
        first, second, by_factor = self._first, self._second, self._by_factor
        gradient = first.inputs(torch.mul(G, second.K, out=by_factor))
        return gradient + second.inputs(torch.mul(G, first.K, out=by_factor))


class _LinearisedColumns(Linearised):
    def __init__(self, inner: Linearised, columns: tuple[int, ...], width: int) -> None:
        self._inner, self._columns, self._width = inner, columns, width
        self.K = inner.K

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        return self._inner.parameters(G)

    def inputs(self, G: Tensor) -> Tensor:
        return among_all(self._inner.inputs(G), self._columns, self._width)


class _LinearisedScaled(Linearised):
    def __init__(self, inner: Linearised, scale: Tensor, workspace: Workspace) -> None:
        self._inner, self._scale = inner, scale
        self.K = torch.mul(inner.K, scale, out=workspace.buffer("K", *inner.K.shape))

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        # Pullbacks are linear in G: their few numbers are scaled instead.
        inner = [self._scale * gradient for gradient in self._inner.parameters(G)]
        return (torch.dot(G.reshape(-1), self.K.view(-1)), *inner)

    def inputs(self, G: Tensor) -> Tensor:
        return self._scale * self._inner.inputs(G)
