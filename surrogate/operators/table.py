"""Covariance of some entries of a table, as sums of Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from surrogate.operators.base import CovarianceOperator, LinearOperator, check_columns
from surrogate.operators.kernel import KernelLike, KernelOperator
from surrogate.workspace import Workspace


class _Factor(Protocol):
    """What is asked of the first factor: a `KernelOperator` has it."""

    n: int

    def matmul(self, V: Tensor, /) -> Tensor: ...

    def rows(self, index: Tensor, /) -> Tensor: ...

    def diagonal(self) -> Tensor: ...

    def pullback(self, A: Tensor, B: Tensor, /) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class Term:
    """K ⊗ C: covariance of rows times covariance of columns.

    Attributes:
        K: Of the rows, (n, n).
        C: Of the columns, shape (T, T), symmetric.
    """

    K: _Factor
    C: Tensor


class TableOperator(LinearOperator):
    """Σ_q K_q ⊗ C_q at some entries of an (n, T) table: Cov(f_it, f_js) = Σ_q K_q[i, j] C_q[t, s].

    A product costs n²T + nT² multiplications a term and column, for entries that are missing stand
    for zeros. The matrix itself, N² entries, is not made.

    Source: latent Kronecker structure, Lin et al. (2024), https://arxiv.org/abs/2410.09239.

    Args:
        terms: At least one; all of one size.
        row, column: Where each entry stands in the table, shape (N,), on the device of the terms;
            no entry twice.

    Raises:
        ValueError: If sizes do not match, an entry is outside the table, or `row`, `column` or a C
            is on another device.
    """

    def __init__(self, terms: Sequence[Term], row: Tensor, column: Tensor) -> None:
        sizes = {(term.K.n, *term.C.shape) for term in terms}
        size = next(iter(sizes)) if len(sizes) == 1 else ()
        if len(size) != 3 or size[1] != size[2]:
            raise ValueError(
                f"terms must be of one size, with square C; got sizes {sorted(sizes)}."
            )
        self.terms, self.shape = list(terms), size[:2]  # (n, T)
        if row.shape != column.shape or row.ndim != 1:
            raise ValueError(
                f"row and column must have one shape (N,); got {tuple(row.shape)} and "
                f"{tuple(column.shape)}."
            )
        if len({row.device, column.device, *(term.C.device for term in terms)}) > 1:
            raise ValueError(
                f"row and column must be where the terms are; they are on {row.device} and "
                f"{column.device}, C on {', '.join(str(term.C.device) for term in terms)}."
            )
        n, T = self.shape
        if len(row) and not bool(((row >= 0) & (row < n) & (column >= 0) & (column < T)).all()):
            raise ValueError(f"entries must be inside the table of {n} × {T}.")
        self.row, self.column, self.n = row, column, len(row)
        self._flat = row * T + column

    @property
    def device(self) -> torch.device:
        """Where the table is, and all arithmetic is."""
        return self.row.device

    @torch.no_grad()
    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        table = self._table(V)  # (t, n, T)
        out = torch.zeros_like(table)
        for term in self.terms:
            out += self._by_row(term.K, table @ term.C)
        return out.reshape(len(out), out.shape[1] * out.shape[2])[:, self._flat].mT

    def _table(self, V: Tensor) -> Tensor:
        """The columns of V (N, t) as tables, zero where there is no entry: (t, n, T)."""
        n, T = self.shape
        table = V.new_zeros(V.shape[1], n * T, dtype=torch.float64)
        table[:, self._flat] = V.mT.to(torch.float64)
        return table.view(V.shape[1], n, T)

    @staticmethod
    def _by_row(K: _Factor, tables: Tensor) -> Tensor:
        """K times each of the tables (t, n, T)."""
        t, n, T = tables.shape
        rows = tables.transpose(1, 2).reshape(t * T, n)
        return K.matmul(rows.mT).mT.reshape(t, T, n).transpose(1, 2)

    @torch.no_grad()
    def diagonal(self) -> Tensor:
        parts = [t.K.diagonal()[self.row] * t.C.diagonal()[self.column] for t in self.terms]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def rows(self, index: Tensor) -> Tensor:
        distinct, inverse = self.row[index].unique(return_inverse=True)
        out = self.terms[0].C.new_zeros(len(index), self.n)
        for term in self.terms:
            by_row = term.K.rows(distinct)[inverse][:, self.row]
            out += by_row * term.C[self.column[index]][:, self.column]
        return out

    @torch.no_grad()
    def pullbacks(self, A: Tensor, B: Tensor) -> tuple[tuple[tuple[Tensor, ...], Tensor], ...]:
        """Gradients of Σ_k a_kᵀ K b_k, term by term: in the parameters of K_q, and in C_q (T, T).

        Args:
            A, B: Shape (N, k), one vector per column.
        """
        check_columns("A", A, self.n)
        check_columns("B", B, self.n)
        a, b = self._table(A), self._table(B)
        return tuple(self._pullback(term, a, b) for term in self.terms)

    def _pullback(self, term: Term, a: Tensor, b: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        # tr(aᵀ K b C), over the tables.
        bC = b @ term.C
        by_K = term.K.pullback(_columns(a), _columns(bC))
        by_C = (a.transpose(1, 2) @ self._by_row(term.K, b)).sum(0)
        return by_K, 0.5 * (by_C + by_C.mT)


def _columns(tables: Tensor) -> Tensor:
    """Tables (t, n, T) side by side: (n, t T)."""
    t, n, T = tables.shape
    return tables.transpose(1, 2).reshape(t * T, n).mT


class TableKernelOperator(TableOperator, CovarianceOperator):
    """`TableOperator` of kernels: Σ_q k_q(X, X) ⊗ c_q(S, S) at some entries.

    Args:
        kernels: Pairs (k_q, c_q).
        X: Distinct rows of the table, shape (n, d).
        S: Distinct columns, shape (T, c).
        row, column: Where each entry stands, shape (N,).
        workspace: Where storage comes from; this operator is then valid until its next use.
    """

    storage = "float64"

    def __init__(
        self,
        kernels: Sequence[tuple[KernelLike, KernelLike]],
        X: Tensor,
        S: Tensor,
        row: Tensor,
        column: Tensor,
        *,
        workspace: Workspace | None = None,
    ) -> None:
        workspace = workspace or Workspace(X.device)
        self.kernels, self.X, self.S = list(kernels), X, S
        terms = []
        for q, (k, c) in enumerate(kernels):
            K = KernelOperator(k, X, float32=False, workspace=workspace.child(f"rows {q}"))
            C = c.evaluate(S, S, S.new_empty(len(S), len(S)))
            terms.append(Term(K, C))
        super().__init__(terms, row, column)

    @property
    def coordinates(self) -> Tensor:
        parts = []
        for k, c in self.kernels:
            parts += [k.coordinates(self.X)[self.row], c.coordinates(self.S)[self.column]]
        return torch.cat(parts, 1)

    @torch.no_grad()
    def blocks(self, index: Tensor) -> Tensor:
        row, column = self.row[index], self.column[index]  # (m, b)
        blocks = self.X.new_zeros(*index.shape, index.shape[1])
        for (k, _), term in zip(self.kernels, self.terms, strict=True):
            by_column = term.C[column.unsqueeze(-1), column.unsqueeze(-2)]
            blocks += KernelOperator(k, self.X, storage="tiles").blocks(row) * by_column
        return blocks

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        """Gradients of Σ_k a_kᵀ K b_k in the parameters of all kernels, pair by pair."""
        gradients: tuple[Tensor, ...] = ()
        parts = zip(self.kernels, self.pullbacks(A, B), strict=True)
        for (_, c), (by_k, by_C) in parts:
            gradients += by_k + c.linearise(self.S, self.S).parameters(by_C)
        return gradients
