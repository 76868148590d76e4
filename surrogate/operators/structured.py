"""Matrices with a structure: Toeplitz, Kronecker products, interpolation from a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import embedding_bag

from surrogate.operators.base import LinearOperator, check_columns

# A product by FFT is off by a few roundings of |A| |v|, more than a sum of n terms is.
_FFT_ROUNDOFF = 1e-15
_CHUNK = 2**22  # entries of blocks made at once: 32 MiB


class Toeplitz(LinearOperator):
    """The symmetric matrix with A_ij = c[|i - j|]: a stationary covariance at even steps.

    A product costs O(n log n): A is a corner of a circulant matrix, which the FFT diagonalises.

    Args:
        column: c, its first column, shape (n,), n ≥ 1. Products are differentiable in it.

    Raises:
        ValueError: If it is not a vector, or empty.
    """

    roundoff = _FFT_ROUNDOFF

    def __init__(self, column: Tensor) -> None:
        if column.ndim != 1 or not len(column):
            raise ValueError(
                f"column must have shape (n,) with n ≥ 1, the first column of the matrix; "
                f"got {tuple(column.shape)}."
            )
        self.column, self.n = column.to(torch.float64), len(column)
        size = next_fast_len(2 * self.n - 1, real=True)
        self._size: int = size  # pyright: ignore[reportAttributeAccessIssue]
        wrapped = self.column.new_zeros(self._size - 2 * self.n + 1)
        circle = torch.cat([self.column, wrapped, self.column[1:].flip(0)])
        self._spectrum = torch.fft.rfft(circle).real  # of a symmetric circle: no imaginary part

    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        if not V.shape[1]:
            return torch.zeros_like(V, dtype=torch.float64)
        waves = torch.fft.rfft(V.mT.to(torch.float64), self._size)  # (t, size / 2 + 1)
        return torch.fft.irfft(waves * self._spectrum, self._size)[:, : self.n].mT

    @property
    def device(self) -> torch.device:
        return self.column.device

    def diagonal(self) -> Tensor:
        return self.column[:1].expand(self.n)

    def rows(self, index: Tensor) -> Tensor:
        return toeplitz_rows(self.column, index)

    def blocks(self, index: Tensor) -> Tensor:
        return self.column[(index.unsqueeze(-1) - index.unsqueeze(-2)).abs()]

    def pullback(self, A: Tensor, B: Tensor) -> Tensor:
        """Gradient of Σ_k a_kᵀ A b_k in `column`, shape (n,): correlations, by FFT.

        Args:
            A, B: Shape (n, k), one vector per column.
        """
        check_columns("A", A, self.n)
        check_columns("B", B, self.n)
        if not A.shape[1]:
            return torch.zeros_like(self.column)
        a, b = (torch.fft.rfft(M.mT.to(torch.float64), self._size) for M in (A, B))
        lags = torch.fft.irfft((a.conj() * b).sum(0), self._size)  # Σ_i a_i b_(i+l), l modulo size
        gradient = lags[: self.n].clone()
        gradient[1:] += lags[self._size - self.n + 1 :].flip(0)
        return gradient


def toeplitz_rows(column: Tensor, index: Tensor) -> Tensor:
    """Rows of the Toeplitz matrix with this column (n,) at `index` (...): shape (..., n)."""
    n = len(column)
    both = torch.cat([column.flip(0), column[1:]])  # (2n - 1,): row i is what starts at n - 1 - i
    return both.unfold(0, n, 1)[n - 1 - index]


class Kronecker(LinearOperator):
    """A₁ ⊗ A₂ ⊗ …: the covariance of a product kernel on a grid, the last axis running fastest.

    A product is one with each factor, along its own axis of the vectors as tables.

    Args:
        factors: At least one.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, factors: Sequence[LinearOperator]) -> None:
        if not factors:
            raise ValueError("a Kronecker product needs at least one factor; got none.")
        self.factors, self.shape = list(factors), tuple(factor.n for factor in factors)
        self.n = math.prod(self.shape)
        self.roundoff = sum(factor.roundoff for factor in factors)

    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        tables = self._tables(V)
        for j in range(len(self.factors)):
            tables = self._along(j, tables)
        return tables.reshape(V.shape[1], self.n).mT

    def _tables(self, V: Tensor) -> Tensor:
        """The columns of V (n, t) as tables, shape (t, n₁, n₂, …)."""
        return V.mT.to(torch.float64).reshape(V.shape[1], *self.shape)

    def _along(self, j: int, tables: Tensor) -> Tensor:
        """A_j times each line of the tables along axis j."""
        lines = tables.movedim(j + 1, -1)
        product = self.factors[j].matmul(_flat(lines).mT).mT
        return product.reshape(lines.shape).movedim(-1, j + 1)

    @property
    def device(self) -> torch.device:
        return self.factors[0].device

    def diagonal(self) -> Tensor:
        diagonal = self.factors[0].diagonal()
        for factor in self.factors[1:]:
            diagonal = torch.kron(diagonal, factor.diagonal())
        return diagonal

    def rows(self, index: Tensor) -> Tensor:
        places = self._places(index)
        rows = self.factors[0].rows(places[0])
        for factor, place in zip(self.factors[1:], places[1:], strict=True):
            crossed = rows.unsqueeze(2) * factor.rows(place).unsqueeze(1)
            rows = crossed.flatten(1)
        return rows

    def blocks(self, index: Tensor) -> Tensor:
        blocks = index.new_ones(*index.shape, index.shape[1], dtype=torch.float64)
        for factor, place in zip(self.factors, self._places(index), strict=True):
            blocks = blocks * factor.blocks(place)
        return blocks

    def _places(self, index: Tensor) -> list[Tensor]:
        """Rows of each factor; `torch.unravel_index` would send the sizes to the device."""
        places: list[Tensor] = []
        for size in reversed(self.shape):
            places.insert(0, index % size)
            index = index // size
        return places

    def parts(self, A: Tensor, B: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each factor what a bilinear form asks of it, all other factors held fixed.

        Args:
            A, B: Shape (n, k), one vector per column.

        Returns:
            A_j, B_j of shapes (n_j, m), with Σ_k a_kᵀ A b_k the same form of factor j in them.
        """
        check_columns("A", A, self.n)
        check_columns("B", B, self.n)
        parts = []
        for j in range(len(self.factors)):
            a, b = self._tables(A), self._tables(B)
            for i in range(len(self.factors)):
                b = b if i == j else self._along(i, b)
            parts.append((_flat(a.movedim(j + 1, -1)).mT, _flat(b.movedim(j + 1, -1)).mT))
        return parts


def _flat(lines: Tensor) -> Tensor:
    """Shape (..., n) as (m, n); m may be 0."""
    return lines.reshape(lines.shape[:-1].numel(), lines.shape[-1])


class Interpolated(LinearOperator):
    """W A Wᵀ with a sparse W: covariances between points, from those between the nodes of a grid.

    Structured kernel interpolation (SKI): Wilson & Nickisch (2015),
    https://arxiv.org/abs/1503.01957, eq. 8. A product costs that with A and 2 n s multiplications
    a column.

    Args:
        inner: A, of the nodes.
        index: Nodes that each row of W is made of, shape (n, s).
        weights: What it has there, shape (n, s); a node that stands twice counts twice.

    Raises:
        ValueError: If shapes do not match, or there is no such node.
    """

    def __init__(self, inner: LinearOperator, index: Tensor, weights: Tensor) -> None:
        if index.ndim != 2 or index.shape != weights.shape:
            raise ValueError(
                f"index and weights must have one shape (n, s); got {tuple(index.shape)} and "
                f"{tuple(weights.shape)}."
            )
        least, most = torch.stack(index.aminmax()).tolist() if index.numel() else (0, -1)
        if not 0 <= least <= most + 1 <= inner.n:
            raise ValueError(f"index must name nodes, 0 to {inner.n - 1}; got {least} to {most}.")
        self.inner, self.n = inner, len(index)
        self.roundoff = max(inner.roundoff, _FFT_ROUNDOFF)
        # 32 bits make gathering twice as fast.
        self.index, self.weights = index.to(torch.int32), weights.to(torch.float64)
        # Wᵀ, sorted by node: summed in order, in a third of the time of adding to nodes at random.
        flat = self.index.flatten()
        order = flat.argsort(stable=True)
        self._members = torch.div(order, max(index.shape[1], 1), rounding_mode="floor").int()
        self._shares = self.weights.flatten()[order]
        counts = torch.bincount(flat, minlength=inner.n)
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()

    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        return self.interpolate(self.inner.matmul(self.project(V)))

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def project(self, V: Tensor) -> Tensor:
        """Wᵀ V, shape (nodes, t), for V (n, t)."""
        V = V.to(torch.float64)
        if not (V.numel() and self.index.numel()):
            return V.new_zeros(self.inner.n, V.shape[1])
        return embedding_bag(
            self._members,
            V.contiguous(),
            self._starts,
            mode="sum",
            per_sample_weights=self._shares,
            include_last_offset=True,
        )

    def interpolate(self, U: Tensor) -> Tensor:
        """W U, shape (n, t), column-major, for U (nodes, t)."""
        if not (U.numel() and self.index.numel()):
            return U.new_zeros(self.n, U.shape[1])
        values = embedding_bag(
            self.index, U.contiguous(), mode="sum", per_sample_weights=self.weights
        )
        return values.mT.contiguous().mT

    def diagonal(self) -> Tensor:
        size = max(self.index.shape[1], 1)
        parts = []
        step = max(1, _CHUNK // size**2)
        for i in range(0, self.n, step):
            w = self.weights[i : i + step]
            A = self.inner.blocks(self.index[i : i + step].long())  # (m, s, s)
            parts.append(((A @ w.unsqueeze(-1)).squeeze(-1) * w).sum(-1))
        return torch.cat(parts) if parts else self.weights.new_zeros(0)

    def rows(self, index: Tensor) -> Tensor:
        nodes = self.weights.new_zeros(len(index), self.inner.n)
        # One node of each row at a time: on CUDA the order within one call is left to chance.
        for node, w in zip(self.index[index].long().mT, self.weights[index].mT, strict=True):
            nodes.scatter_add_(1, node.unsqueeze(1), w.unsqueeze(1))
        return self.interpolate(self.inner.matmul(nodes.mT)).mT
