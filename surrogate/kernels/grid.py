"""A product of one-dimensional kernels, interpolated from a grid."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from surrogate.kernels.axes import Axis, Place
from surrogate.kernels.base import Features, Kernel, Linearised, detached, number_parameter
from surrogate.kernels.devices import Moving
from surrogate.operators.base import CovarianceOperator, check_columns
from surrogate.operators.structured import Interpolated, Kronecker, Toeplitz, toeplitz_rows
from surrogate.sums import sums_by_group
from surrogate.workspace import Workspace

_TILE = 2048  # columns computed at once
_UNEVEN = 1e-6  # relative change of k(x, x') when both move, from which k is not stationary


class GridKernel(Kernel):
    """k(x, x') = s² Π_j k_j(x_j, x'_j), interpolated from a grid: w(x)ᵀ K_grid w(x').

    w(x) are cubic weights of the 4^d nodes around x, so k is exact between nodes. Before it has a
    grid, it is the product itself.

    Source: Wilson & Nickisch (2015), https://arxiv.org/abs/1503.01957.

    Args:
        factors: k_j, one stationary kernel of one input for each column of x; copies are kept.
            Their variances become a part of s², and are held at 1.
        variance: s² > 0, in the units of y squared.
        axes: The grid.

    Attributes:
        dims: d.
        axes: The grid, None before it has one.

    Raises:
        TypeError: If a factor is no kernel.
        ValueError: If there is none, or one is not stationary or sees more than one input.
    """

    roles: ClassVar[dict[str, str]] = {"log_variance": "variance"}
    columns = None  # it looks at all there are

    def __init__(
        self,
        factors: Sequence[Kernel],
        variance: float | Tensor | None = None,
        axes: Sequence[Axis] | None = None,
    ) -> None:
        super().__init__()
        if not factors:
            raise ValueError("a product needs at least one kernel; got none.")
        for factor in factors:
            _check_factor(factor)
        self.dims = len(factors)
        own = [copy.deepcopy(factor) for factor in factors]
        found, known = _take_variances(own)
        self.unset = frozenset() if known or variance is not None else frozenset({"log_variance"})
        given = torch.as_tensor(1.0 if variance is None else variance, dtype=torch.float64)
        self.log_variance = number_parameter("variance", given * found)
        self.factors = nn.ModuleList(own)
        self.axes = None if axes is None else tuple(axes)
        if self.axes is not None and len(self.axes) != self.dims:
            raise ValueError(f"there must be an axis for each of {self.dims} kernels.")

    @property
    def variance(self) -> Tensor:
        """s², in the units of y squared, shape ()."""
        return self.log_variance.exp()

    @property
    def parts(self) -> list[Kernel]:
        """k_j."""
        return [factor for factor in self.factors if isinstance(factor, Kernel)]

    def on(self, axes: Sequence[Axis] | None) -> GridKernel:
        """The same kernel, its parameters shared, on another grid."""
        twin = copy.copy(self)
        twin.axes = None if axes is None else tuple(axes)
        return twin

    def column(self, j: int, device: torch.device | None = None) -> Tensor:
        """k_j of the first node of axis j and all of them, shape (count,); differentiable."""
        first, others = self._lags(j, device)
        factor = self.parts[j]
        return torch.cat([factor(first, first)[0], factor(first, others)[0]])

    def pullback_column(self, j: int, gradient: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the parameters of k_j, given those in its column, shape (count,)."""
        first, others = self._lags(j, gradient.device)
        factor, row = self.parts[j], gradient.unsqueeze(0)
        at_zero = factor.pullback(first, first, row[:, :1])
        beyond = factor.pullback(first, others, row[:, 1:])
        return tuple(a + b for a, b in zip(at_zero, beyond, strict=True))

    def _lags(self, j: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
        """A node, and the others of its axis. Given twice, it is exactly where it is."""
        assert self.axes is not None
        axis = self.axes[j]
        steps = torch.arange(axis.count, dtype=torch.float64, device=device)
        lags = axis.step * steps.unsqueeze(1)
        return lags[:1], lags[1:]

    def locate(self, X: Tensor) -> list[Place]:
        """Where the rows of X (..., d) are, axis by axis.

        Raises:
            ValueError: If one is outside of the grid.
        """
        assert self.axes is not None
        held = torch.stack([axis.holds(X[..., j]) for j, axis in enumerate(self.axes)])
        if not bool(held.all()):  # one wait for all axes
            j = held.tolist().index(False)
            axis, (low, high) = self.axes[j], X[..., j].detach().aminmax()
            raise ValueError(
                f"column {j} of X goes from {float(low):.6g} to {float(high):.6g}, beyond the "
                f"grid, which interpolates from {axis.span[0]:.6g} to {axis.span[1]:.6g}. Make "
                f"the model with bounds that hold all points there will be, or fit it again."
            )
        return [axis.locate(X[..., j]) for j, axis in enumerate(self.axes)]

    def nodes(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes around the rows of X (n, d) and w(x), each (n, 4^d); differentiable in X."""
        assert self.axes is not None
        index = torch.zeros(len(X), 1, dtype=torch.long, device=X.device)
        four = torch.arange(4, device=X.device)
        weights = X.new_ones(len(X), 1)
        for axis, place in zip(self.axes, self.locate(X), strict=True):
            near = place.first.unsqueeze(1) + four  # (n, 4)
            index = (index.unsqueeze(2) * axis.count + near.unsqueeze(1)).flatten(1)
            weights = (weights.unsqueeze(2) * place.weights.unsqueeze(1)).flatten(1)
        return index, weights

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        if self.axes is None:
            parts = []
            for j, factor in enumerate(self.parts):
                x = X1[..., j : j + 1]
                parts.append(factor(x, x if X1 is X2 else X2[..., j : j + 1]))
        else:
            at1 = self.locate(X1)
            at2 = at1 if X1 is X2 else self.locate(X2)
            parts = [
                _between(self.column(j, X1.device), a.first, a.weights, b.first, b.weights)
                for j, (a, b) in enumerate(zip(at1, at2, strict=True))
            ]
        return self.variance * math.prod(parts[1:], start=parts[0])

    def diagonal(self, X: Tensor) -> Tensor:
        if self.axes is None:
            parts = [f.diagonal(X[..., j : j + 1]) for j, f in enumerate(self.parts)]
        else:
            near = torch.arange(4, device=X.device)
            lags = (near.unsqueeze(1) - near).abs()
            parts = []
            for j, place in enumerate(self.locate(X)):
                w = place.weights
                parts.append(((w @ self.column(j, X.device)[lags]) * w).sum(-1))
        return self.variance * math.prod(parts[1:], start=parts[0])

    def coordinates(self, X: Tensor) -> Tensor:
        parts = [f.coordinates(X[..., j : j + 1]) for j, f in enumerate(self.parts)]
        return torch.cat(parts, -1)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        if self.axes is None:
            return super().linearise(X1, X2, workspace)
        return _LinearisedGrid(self, *detached(X1, X2))

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        with torch.no_grad():
            if self.axes is None:
                return out.copy_(self(X1, X2))
            for some, part in zip(X2.split(_TILE), out.split(_TILE, 1), strict=True):
                part.copy_(self(X1, some))
        return out

    def operator(self, X: Tensor, workspace: Workspace | None = None) -> GridKernelOperator | None:
        return None if self.axes is None else GridKernelOperator(self, X)

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Products of independent features of the k_j, interpolated from the grid as k is."""
        maps = [factor.features(count, generator) for factor in self.parts]
        scale = self.variance.detach().sqrt() * count ** (0.5 * (self.dims - 1))
        if self.axes is None:
            return lambda X: math.prod(
                (f(X[..., j : j + 1]) for j, f in enumerate(maps)), start=scale
            )
        pairs = zip(maps, self.axes, strict=True)
        tables = [f(axis.nodes.unsqueeze(1)) for f, axis in pairs]  # (count, F)

        def interpolated(X: Tensor, *tables: Tensor) -> Tensor:
            whole = scale
            for table, place in zip(tables, self.locate(X), strict=True):
                w = place.weights.unsqueeze(-1)  # (..., 4, 1)
                whole = whole * _weighted(table, place.first, w)
            return whole

        return Moving(interpolated, *tables)


def _check_factor(factor: Kernel) -> None:
    if not isinstance(factor, Kernel):
        raise TypeError(f"each factor must be a Kernel, such as Matern52(dims=1); got {factor!r}.")
    for part in factor.modules():
        columns = getattr(part, "columns", None)
        if getattr(part, "dims", 1) != 1 or columns not in (None, (0,), (-1,)):
            raise ValueError(
                f"each factor must be a kernel of one input, such as Matern52(dims=1), which sees "
                f"one column; got {factor!r}. A Matérn kernel of several inputs is no product of "
                f"kernels of one."
            )
    x = torch.tensor([[0.0], [0.31], [1.7]], dtype=torch.float64)
    with torch.no_grad():
        here, there = factor(x, x), factor(x + 0.73, x + 0.73)
    if not bool(((here - there).abs() <= _UNEVEN * here.abs().max()).all()):
        raise ValueError(
            f"each factor must be stationary, a function of x - x' alone; got {factor!r}."
        )


def _take_variances(factors: list[Kernel]) -> tuple[float, bool]:
    """Set the variances of the factors to 1 for good; what they were, and if one was given."""
    found, known = 1.0, False
    for factor in factors:
        own = factor._parameters.get("log_variance")
        if own is None:
            continue
        if "log_variance" not in factor.unset:
            found, known = found * math.exp(float(own.detach())), True
        own.data.zero_()
        own.requires_grad_(False)
        factor.unset = factor.unset - {"log_variance"}
    return found, known


def _of_four(term: Callable[[int], Tensor]) -> Tensor:
    return term(0) + term(1) + term(2) + term(3)


def _weighted(table: Tensor, first: Tensor, w: Tensor) -> Tensor:
    """Four rows of a table (G, F) from `first` (...) on, with weights (..., 4, 1): (..., F)."""
    return _of_four(lambda a: table[first + a] * w[..., a, :])


def _between(c: Tensor, first1: Tensor, w1: Tensor, first2: Tensor, w2: Tensor) -> Tensor:
    """w1ᵀ T w2 for all pairs, T the Toeplitz matrix with the column c (G,): shape (..., n, m).

    Args:
        first1, first2: First of four nodes, shapes (..., n) and (..., m).
        w1, w2: Their weights, shapes (..., n, 4) and (..., m, 4).
    """
    if first1.shape[-1] > first2.shape[-1]:  # rows of T are made for the fewer
        return _between(c, first2, w2, first1, w1).transpose(-1, -2)
    # (..., n, G)
    rows = _of_four(lambda a: w1[..., a].unsqueeze(-1) * toeplitz_rows(c, first1 + a))
    if first2.ndim == 1:
        return _of_four(lambda a: rows[..., first2 + a] * w2[:, a])
    n, m = first1.shape[-1], first2.shape[-1]
    batch = torch.broadcast_shapes(first1.shape[:-1], first2.shape[:-1])
    rows = rows.expand(*batch, n, len(c))
    at = first2.unsqueeze(-2).expand(*batch, n, m)
    w2 = w2.unsqueeze(-3)  # (..., 1, m, 4)
    return _of_four(lambda a: rows.gather(-1, at + a) * w2[..., a])


class _LinearisedGrid(Linearised):
    """K as a product over axes; its gradients in their columns by sums over equal lags."""

    def __init__(self, kernel: GridKernel, X1: Tensor, X2: Tensor) -> None:
        self._kernel = kernel
        with torch.no_grad():
            self._at1 = kernel.locate(X1)
            self._at2 = self._at1 if X1 is X2 else kernel.locate(X2)
            self._columns = [kernel.column(j, X1.device) for j in range(kernel.dims)]
            self._variance = kernel.variance.detach()
            self._parts = [self._part(j, self._at1[j].weights) for j in range(kernel.dims)]
        self.K = self._variance * math.prod(self._parts[1:], start=self._parts[0])

    def _part(self, j: int, weights: Tensor) -> Tensor:
        """k_j with these weights of the nodes around X1, shape (n, m)."""
        at1, at2 = self._at1[j], self._at2[j]
        return _between(self._columns[j], at1.first, weights, at2.first, at2.weights)

    def _by_part(self, j: int, G: Tensor) -> Tensor:
        """∂loss/∂k_j, shape (n, m)."""
        others = [part for i, part in enumerate(self._parts) if i != j]
        return math.prod(others, start=self._variance * G)

    @torch.no_grad()
    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        gradients = [(G * self.K).sum()]
        for j in range(self._kernel.dims):
            by_column = self._by_column(j, self._by_part(j, G))
            gradients += self._kernel.pullback_column(j, by_column)
        return tuple(gradients)

    def _by_column(self, j: int, G: Tensor) -> Tensor:
        at1, at2, count = self._at1[j], self._at2[j], len(self._columns[j])
        w1, w2 = at1.weights, at2.weights
        apart = at1.first.unsqueeze(1) - at2.first  # (n, m)
        total = G.new_zeros(count)
        for lag in range(-3, 4):  # of nodes a and b, beside that of the first ones
            a = slice(max(0, lag), min(4, 4 + lag))
            b = slice(max(0, -lag), min(4, 4 - lag))
            share = (w1[:, a] @ w2[:, b].mT).mul_(G)
            total += sums_by_group(share.flatten(), (apart + lag).abs_().flatten(), count)
        return total

    @torch.no_grad()
    def inputs(self, G: Tensor) -> Tensor:
        columns = [
            (self._by_part(j, G) * self._part(j, place.slopes)).sum(1)
            for j, place in enumerate(self._at1)
        ]
        return torch.stack(columns, 1)


class GridKernelOperator(Interpolated, CovarianceOperator):
    """K = k(X, X) of a kernel on a grid, without gradients.

    A product costs n 4^d multiplications a column, twice, and FFTs along the axes of the grid; no
    matrix of n × n or of nodes × nodes is made.

    Args:
        kernel: k, which has a grid.
        X: Shape (n, d), inside it.

    Raises:
        ValueError: If a point is outside of the grid.
    """

    @torch.no_grad()
    def __init__(self, kernel: GridKernel, X: Tensor) -> None:
        self.kernel, self.X = kernel, X.detach()
        columns = [kernel.column(j, X.device) for j in range(kernel.dims)]
        self.grid = Kronecker([Toeplitz(column) for column in columns])
        self._variance = kernel.variance.detach()
        super().__init__(float(self._variance) * self.grid, *kernel.nodes(self.X))

    def __repr__(self) -> str:
        return f"GridKernelOperator(n={self.n}, grid={self.grid.shape})"

    @property
    def device(self) -> torch.device:
        """Where the points are, and all arithmetic is."""
        return self.X.device

    @torch.no_grad()
    def diagonal(self) -> Tensor:
        return self.kernel.diagonal(self.X)

    @torch.no_grad()
    def rows(self, index: Tensor) -> Tensor:
        out = self.X.new_empty(len(index), self.n)
        return self.kernel.evaluate(self.X[index], self.X, out)

    @torch.no_grad()
    def blocks(self, index: Tensor) -> Tensor:
        m, b = index.shape
        out = self.X.new_empty(m, b, b)
        for some, part in zip(index, out, strict=True):
            self.kernel.evaluate(self.X[some], self.X[some], part)
        return out

    @property
    def coordinates(self) -> Tensor:
        return self.kernel.coordinates(self.X).detach()

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        # The form is one of WᵀA and WᵀB on the grid, and there one along each axis, whose gradient
        # in the column of that axis is a correlation.
        check_columns("A", A, self.n)
        check_columns("B", B, self.n)
        if A.shape != B.shape:
            raise ValueError(
                f"A and B must have as many columns, taken in pairs; "
                f"got shapes {tuple(A.shape)} and {tuple(B.shape)}."
            )
        parts = self.grid.parts(self.project(A), self._variance * self.project(B))
        gradients: list[Tensor] = []
        for j, (factor, (a, b)) in enumerate(zip(self.grid.factors, parts, strict=True)):
            assert isinstance(factor, Toeplitz)
            by_column = factor.pullback(a, b)
            if not j:  # s² is a factor of every column
                gradients.append(by_column @ factor.column)
            gradients += self.kernel.pullback_column(j, by_column)
        return tuple(gradients)
