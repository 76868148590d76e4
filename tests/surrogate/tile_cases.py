"""Kernels that are fused, data for them, and the same products from a dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from oracles import normal, uniform
from torch import Tensor, nn

from surrogate import (
    RBF,
    Columns,
    Coregionalization,
    FeatureMap,
    Hamming,
    Kernel,
    Matern12,
    Matern32,
    Matern52,
    Ordinal,
    Periodic,
    PiecewisePolynomial,
    RationalQuadratic,
    TableKernel,
    Warped,
)
from surrogate.kernels.stationary import Stationary
from surrogate.tiles.fused import TritonTiles

BOTH = (torch.float32, torch.float64)
# Products relative to |K| |v|, gradients to those of |G|.
TOLERANCE = {torch.float32: 2e-7, torch.float64: 1e-15}
GRADIENT_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}


def factor(tasks: int, rank: int) -> Tensor:
    return normal(torch.Generator().manual_seed(7), tasks, rank)


def network() -> FeatureMap:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return FeatureMap(Matern52(2, 0.4, 1.3), layers)


# Three real columns, two of categories, and one of tasks.
CASES: dict[str, Callable[[], Kernel]] = {
    "rbf": lambda: RBF(3, [0.5, 0.7, 1.0], 2.0, columns=[0, 1, 2]),
    "matern12": lambda: Matern12(3, [0.5, 0.7, 1.0], 0.3, columns=[0, 1, 2]),
    "matern32": lambda: Matern32(2, [0.3, 0.5], 1.7, columns=[2, 0]),
    "matern52": lambda: Matern52(6, [0.5, 0.7, 1.0, 2.0, 3.0, 4.0], 1.7),
    "rational quadratic": lambda: RationalQuadratic(3, 0.5, 2.0, 0.7, columns=[0, 1, 2]),
    **{
        f"piecewise {q}": lambda q=q: PiecewisePolynomial(3, q, 1.1, 2.0, columns=[0, 1, 2])
        for q in range(4)
    },
    "piecewise of one input": lambda: PiecewisePolynomial(1, 0, 0.4, columns=[1]),
    "periodic": lambda: Periodic(2, [0.7, 0.4], [0.8, 1.2], 1.5, columns=[0, 2]),
    "hamming": lambda: Hamming(2, [0.5, 2.0], columns=[3, 4]),
    "tasks": lambda: Coregionalization(3, 2, factor=factor(3, 2), diagonal=[0.1, 0.5, 2.0]),
    "scaled": lambda: 2.5 * (0.3 * Matern32(2, 0.9, 0.2, columns=[0, 1])),
    "sum": lambda: RBF(2, 0.4, columns=[0, 1]) + 3.0 * Matern52(2, 0.6, 1.5, columns=[1, 2]),
    "product": lambda: RBF(2, 0.8, columns=[0, 1]) * Matern32(2, 0.6, 1.5, columns=[1, 2]),
    "product of sums": lambda: (
        0.5
        * (RBF(2, 0.4, columns=[0, 1]) + Matern32(1, 0.4, columns=[2]))
        * (RationalQuadratic(1, 0.6, columns=[1]) + 2.0 * Hamming(1, 0.8, columns=[4]))
    ),
    "mixed": lambda: Matern52(2, 0.6, 1.5, columns=[0, 1]) * Hamming(2, [0.5, 2.0], columns=[3, 4]),
    "per task": lambda: (
        Matern52(2, 0.6, 1.5, columns=[0, 1]) * Coregionalization(3, 2, factor=factor(3, 2))
    ),
    "table": lambda: TableKernel(
        [
            (Matern52(5, 0.9, 1.5), Coregionalization(3, 1)),
            (RBF(2, 0.5, columns=[0, 3]), Coregionalization(3, 2, factor=factor(3, 2))),
        ],
        5,
    ),
    "columns": lambda: Columns(Matern52(2, 0.6), [2, 0]),
    "columns of columns": lambda: Columns(Columns(Periodic(1, 0.7, 0.9), [1]), [0, 2]),
    "ordinal": lambda: 2.0 * Ordinal(1, 4, columns=[0], steps=[1.0, 2.0, 0.5]),
    "warped": lambda: Warped(
        Matern52(3, 0.6, columns=[0, 1, 2]), 2, columns=[0, 2], a=[0.7, 1.4], b=[1.2, 0.8]
    ),
    "warped mixture": lambda: Warped(
        RBF(2, 0.6, columns=[0, 1]) * Hamming(1, 0.8, columns=[4]), 1, columns=[0], a=0.7
    ),
    "features": lambda: Columns(network(), [0, 1, 2]),
}


def data(rng: torch.Generator, n: int) -> Tensor:
    X = torch.cat([uniform(rng, n, 3), (3 * uniform(rng, n, 3)).floor()], 1)
    X[n // 2 : n // 2 + 3] = X[: len(X[n // 2 : n // 2 + 3])]  # points that coincide
    return X


def dense(kernel: Kernel, X1: Tensor, X2: Tensor) -> Tensor:
    """k(X1, X2), differentiable; that of a stationary kernel by direct differences.

    Products of points lose half of the digits where points nearly coincide, which a cusp shows.
    """
    if not isinstance(kernel, Stationary):
        return kernel(X1, X2)
    if kernel.columns is not None:
        X1, X2 = X1[:, kernel.columns], X2[:, kernel.columns]
    Z = (X1.unsqueeze(1) - X2) / kernel.lengthscale
    return kernel.variance * kernel.correlation(kernel.sharpness * Z.square().sum(-1))


def fused(kernel: Kernel, X: Tensor, dtype: torch.dtype = torch.float32) -> TritonTiles:
    formula = kernel.formula()
    assert formula is not None
    return TritonTiles(formula, [p.shape for p in kernel.parameters()], X, dtype)


def assert_product(received: Tensor, K: Tensor, V: Tensor, tolerance: float) -> None:
    """received = K V, but for `tolerance` relative to |K| |v|, column by column."""
    assert received.shape == (len(K), V.shape[1]) and received.dtype == torch.float64
    error = (received - K @ V.double()).norm(dim=0)
    scale = torch.linalg.matrix_norm(K, 2) if K.numel() else 0.0
    assert (error <= tolerance * scale * V.double().norm(dim=0)).all(), error


@dataclass(frozen=True)
class Slopes:
    """Gradients of Σ_k a_kᵀ K b_k by autograd, and those of Σ_ij |G_ij| k_ij for their size."""

    exact: tuple[Tensor, ...]
    size: tuple[Tensor, ...]

    @staticmethod
    def of(kernel: Kernel, X: Tensor, A: Tensor, B: Tensor) -> Slopes:
        G = A @ B.T
        K, parameters = dense(kernel, X, X), list(kernel.parameters())
        some = [p for p in parameters if p.requires_grad]

        def gradients(G: Tensor) -> tuple[Tensor, ...]:
            found: Any = torch.autograd.grad(K, some, G, retain_graph=True, allow_unused=True)
            by = {id(p): g for p, g in zip(some, found, strict=True)}
            return tuple(torch.zeros_like(p) if by[id(p)] is None else by[id(p)] for p in some)

        return Slopes(gradients((G + G.T) / 2), gradients((G + G.T).abs() / 2))

    def check(self, kernel: Kernel, received: tuple[Tensor, ...], tolerance: float) -> None:
        parameters = list(kernel.parameters())
        assert [g.shape for g in received] == [p.shape for p in parameters]
        learnt = [g for g, p in zip(received, parameters, strict=True) if p.requires_grad]
        size = max((s.norm().item() for s in self.size), default=0.0)
        for ours, exact in zip(learnt, self.exact, strict=True):
            error = (ours - exact).norm().item()
            assert error <= tolerance * max(size, 1e-300), (error, size)
