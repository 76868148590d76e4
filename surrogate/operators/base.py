"""What a linear operator is: a symmetric matrix known by its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from surrogate.operators.basic import ScaledOperator, SumOperator


class LinearOperator(ABC):
    """A symmetric positive semi-definite (n, n) matrix A that knows how to multiply.

    `A + B` and `s * A` are operators too. One of your own needs `n` and `matmul`; with `diagonal`
    and `rows` its systems can be preconditioned.

    Attributes:
        n: Rows and columns.
    """

    n: int

    @abstractmethod
    def matmul(self, V: Tensor) -> Tensor:
        """Return A @ V, shape (n, t), for V (n, t).

        Solvers keep their right-hand sides one after another in memory, as the columns of a
        column-major V: `V.mT` is then contiguous.
        """

    def diagonal(self) -> Tensor:
        """Return the diagonal of A, shape (n,)."""
        raise TypeError(
            f"{type(self).__name__} does not say its diagonal, which a preconditioner reads; "
            f"define `diagonal()`, or solve with rank=0."
        )

    def rows(self, index: Tensor) -> Tensor:
        """Return the rows of A at `index` (k,), shape (k, n)."""
        raise TypeError(
            f"{type(self).__name__} does not give its rows, some of which a preconditioner reads; "
            f"define `rows(index)`, or solve with rank=0."
        )

    def blocks(self, index: Tensor) -> Tensor:
        """Return A[index[c]][:, index[c]] for each c: shape (m, b, b) for `index` (m, b)."""
        m, b = index.shape
        blocks = [self.rows(some)[:, some] for some in index]
        return torch.stack(blocks) if m else torch.empty(0, b, b, dtype=torch.float64)

    @property
    def coordinates(self) -> Tensor | None:
        """Points (n, d), the closer the more related their rows; None where there are none.

        A preconditioner treats clusters of them exactly.
        """
        return None

    @property
    def precise(self) -> LinearOperator:
        """The same matrix with products as accurate as float64 allows, if slower."""
        return self

    def __add__(self, other: LinearOperator) -> SumOperator:
        from surrogate.operators.basic import SumOperator

        if not isinstance(other, LinearOperator):
            return NotImplemented
        return SumOperator(self, other)

    def __rmul__(self, scale: float | Tensor) -> ScaledOperator:
        from surrogate.operators.basic import ScaledOperator

        if not isinstance(scale, Real | Tensor):
            return NotImplemented
        return ScaledOperator(scale, self)


def check_columns(name: str, V: Tensor, n: int) -> None:
    """Raise ValueError unless V is a matrix of n rows, one vector per column."""
    if V.ndim != 2 or len(V) != n:
        raise ValueError(
            f"{name} must have shape ({n}, t), one vector per column; got {tuple(V.shape)}. "
            f"For a single vector, pass {name}.unsqueeze(-1)."
        )
