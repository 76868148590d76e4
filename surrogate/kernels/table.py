"""Covariance of the entries of a table: of its rows, times that of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.kernels.base import Features, Kernel, Linearised
from surrogate.kernels.combine import Columns, Product, Sum
from surrogate.operators.table import TableKernelOperator
from surrogate.tiles.formula import Formula
from surrogate.workspace import Workspace

_PAYS = 0.5  # most multiplications of a product by factors, as a share of those with the matrix


class TableKernel(Kernel):
    """k((x, s), (x', s')) = Σ_q k_q(x, x') c_q(s, s'), x and s side by side in one row of inputs.

    One term is the intrinsic model of coregionalisation (ICM) when c is a `Coregionalization` and
    s the number of a task, several are the linear one (LMC); with s a time, terms describe curves.
    Where rows of data share their x, and their s, products with K are made by the factors.

    Source: Alvarez, Rosasco & Lawrence (2012), https://arxiv.org/abs/1106.6251.

    Args:
        terms: Pairs (k, c); k sees the first columns, c the last.
        dims: How many columns x has.
        columns: How many s has.

    Attributes:
        split: How many columns x has.
        dims: How many x and s have.

    Raises:
        ValueError: If there is no term, or two share a parameter.
    """

    columns = None  # it looks at all there are

    def __init__(self, terms: Sequence[tuple[Kernel, Kernel]], dims: int, columns: int = 1) -> None:
        super().__init__()
        if not terms:
            raise ValueError("a table needs at least one pair of kernels; got none.")
        if dims < 1 or columns < 1:
            raise ValueError(f"dims and columns must be at least 1; got {dims} and {columns}.")
        seen: set[int] = set()
        for kernel in (kernel for pair in terms for kernel in pair):
            own = {id(p) for p in kernel.parameters()}
            if seen & own:
                raise ValueError(
                    "two of the kernels share parameters, whose gradients could not be told apart; "
                    "pass copy.deepcopy of the one as the other."
                )
            seen |= own
        self.split, self.dims = dims, dims + columns
        first, last = range(dims), range(dims, dims + columns)
        whole: Kernel | None = None
        for k, c in terms:
            product = Product(Columns(k, first), Columns(c, last))
            whole = product if whole is None else Sum(whole, product)
        assert whole is not None
        self.whole = whole

    @property
    def terms(self) -> list[tuple[Kernel, Kernel]]:
        """The pairs (k, c), each with its own part of the inputs."""
        node, terms = self.whole, []
        while isinstance(node, Sum):
            terms.append(node.second)
            node = node.first
        return [_pair(product) for product in [node, *reversed(terms)]]

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.whole(X1, X2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.whole.diagonal(X)

    def coordinates(self, X: Tensor) -> Tensor:
        return self.whole.coordinates(X)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return self.whole.linearise(X1, X2, workspace)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return self.whole.evaluate(X1, X2, out, workspace)

    def features(self, count: int, generator: torch.Generator) -> Features:
        return self.whole.features(count, generator)

    def formula(self) -> Formula | None:
        return self.whole.formula()

    def operator(self, X: Tensor, workspace: Workspace | None = None) -> TableKernelOperator | None:
        table = Table.of(self, X)
        return table.operator(self, workspace) if table is not None and table.pays else None


def _pair(product: Kernel) -> tuple[Kernel, Kernel]:
    assert isinstance(product, Product)
    k, c = product.first, product.second
    assert isinstance(k, Columns) and isinstance(c, Columns)
    return k.kernel, c.kernel


@dataclass(frozen=True)
class Table:
    """How the rows of long inputs [x, s] fill a table.

    Attributes:
        X: Distinct x, shape (n, d).
        S: Distinct s, shape (T, c).
        row, column: Where each observation stands, shape (N,).
    """

    X: Tensor
    S: Tensor
    row: Tensor
    column: Tensor

    @staticmethod
    def of(kernel: Kernel, X: Tensor) -> Table | None:
        """The table that inputs X (N, d + c) fill; None if the kernel is not one of a table.

        Nor if an entry stands there twice.
        """
        if not isinstance(kernel, TableKernel) or not len(X):
            return None
        rows, row = X[:, : kernel.split].unique(dim=0, return_inverse=True)
        columns, column = X[:, kernel.split :].unique(dim=0, return_inverse=True)
        if len((row * len(columns) + column).unique()) < len(X):
            return None
        return Table(rows, columns, row, column)

    @property
    def pays(self) -> bool:
        """Whether a product by the factors is quicker than with the matrix itself."""
        n, T, N = len(self.X), len(self.S), len(self.row)
        return n * n * T + n * T * T <= _PAYS * N * N

    @property
    def is_complete(self) -> bool:
        """Whether no entry is missing."""
        return len(self.row) == len(self.X) * len(self.S)

    def operator(self, kernel: TableKernel, workspace: Workspace | None) -> TableKernelOperator:
        """K, as a sum of Kronecker products."""
        entries = self.X, self.S, self.row, self.column
        return TableKernelOperator(kernel.terms, *entries, workspace=workspace)
