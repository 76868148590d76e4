"""Operators made of a matrix, of a diagonal, and of other operators."""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator, check_columns


class Dense(LinearOperator):
    """A symmetric matrix, stored in float64.

    Args:
        A: Shape (n, n).

    Raises:
        ValueError: If it is not square.
    """

    def __init__(self, A: Tensor) -> None:
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise ValueError(f"A must be square, shape (n, n); got {tuple(A.shape)}.")
        self.A, self.n = A.to(torch.float64), len(A)

    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        return (V.mT @ self.A).mT

    def diagonal(self) -> Tensor:
        return self.A.diagonal()

    @property
    def device(self) -> torch.device:
        return self.A.device

    def rows(self, index: Tensor) -> Tensor:
        return self.A[index]


class Diagonal(LinearOperator):
    """A diagonal matrix.

    Args:
        values: Its diagonal, shape (n,), kept in float64.

    Raises:
        ValueError: If it is not a vector.
    """

    def __init__(self, values: Tensor) -> None:
        if values.ndim != 1:
            raise ValueError(f"values must have shape (n,); got {tuple(values.shape)}.")
        self.values, self.n = values.to(torch.float64), len(values)

    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        return (V.mT * self.values).mT

    @property
    def device(self) -> torch.device:
        return self.values.device

    def diagonal(self) -> Tensor:
        return self.values

    def rows(self, index: Tensor) -> Tensor:
        rows = self.values.new_zeros(len(index), self.n)
        rows[torch.arange(len(index), device=index.device), index] = self.values[index]
        return rows

    def blocks(self, index: Tensor) -> Tensor:
        return torch.diag_embed(self.values[index])


class SumOperator(LinearOperator):
    """A + B.

    Raises:
        ValueError: If they differ in size.
    """

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if first.n != second.n:
            raise ValueError(
                f"operators that are added must be of one size; got n = {first.n} and {second.n}. "
                f"Make both from the same rows."
            )
        self.first, self.second, self.n = first, second, first.n
        self.roundoff = max(first.roundoff, second.roundoff)

    def matmul(self, V: Tensor) -> Tensor:
        return self.first.matmul(V) + self.second.matmul(V)

    @property
    def device(self) -> torch.device:
        return self.first.device

    def diagonal(self) -> Tensor:
        return self.first.diagonal() + self.second.diagonal()

    def rows(self, index: Tensor) -> Tensor:
        return self.first.rows(index) + self.second.rows(index)

    def blocks(self, index: Tensor) -> Tensor:
        return self.first.blocks(index) + self.second.blocks(index)

    @property
    def coordinates(self) -> Tensor | None:
        parts = [self.first.coordinates, self.second.coordinates]
        known = [part for part in parts if part is not None]
        return torch.cat(known, dim=1) if known else None

    @property
    def precise(self) -> LinearOperator:
        first, second = self.first.precise, self.second.precise
        same = first is self.first and second is self.second
        return self if same else SumOperator(first, second)


class ScaledOperator(LinearOperator):
    """s·A with s ≥ 0.

    Raises:
        ValueError: If s is negative, not finite, or not one number.
    """

    def __init__(self, scale: float | Tensor, operator: LinearOperator) -> None:
        value = torch.as_tensor(scale).detach()
        if value.numel() != 1 or not 0 <= float(value) < float("inf"):
            raise ValueError(
                f"scale must be one finite number, at least 0; got {value.tolist()}. "
                f"An operator is positive semi-definite: to subtract one, define your own."
            )
        # Of no dimension it goes with an operator on any device.
        self.scale = scale.reshape(()) if isinstance(scale, Tensor) else scale
        self.operator, self.n = operator, operator.n
        self.roundoff = operator.roundoff

    def matmul(self, V: Tensor) -> Tensor:
        return self.scale * self.operator.matmul(V)

    @property
    def device(self) -> torch.device:
        return self.operator.device

    def diagonal(self) -> Tensor:
        return self.scale * self.operator.diagonal()

    def rows(self, index: Tensor) -> Tensor:
        return self.scale * self.operator.rows(index)

    def blocks(self, index: Tensor) -> Tensor:
        return self.scale * self.operator.blocks(index)

    @property
    def coordinates(self) -> Tensor | None:
        return self.operator.coordinates

    @property
    def precise(self) -> LinearOperator:
        inner = self.operator.precise
        return self if inner is self.operator else ScaledOperator(self.scale, inner)
