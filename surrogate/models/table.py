"""Data that fill a table, or part of one: where rows share their x, and columns their s."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from surrogate.kernels.base import Kernel
from surrogate.kernels.table import TableKernel
from surrogate.operators.table import TableKernelOperator
from surrogate.workspace import Workspace

_PAYS = 0.5  # most multiplications of a product by factors, as a share of those with the matrix


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
