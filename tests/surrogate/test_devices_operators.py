"""Operators answer where they are, with the numbers of the CPU."""

from __future__ import annotations

import pytest
import torch
from oracles import normal, spd_matrix, uniform
from pretended_device import DEVICE, pretended_device
from torch import Tensor

from surrogate.operators import (
    Dense,
    Diagonal,
    Interpolated,
    Kronecker,
    LinearOperator,
    ScaledOperator,
    SumOperator,
    Toeplitz,
)
from surrogate.operators.base import check_operator
from surrogate.operators.bordered import Bordered


def there(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


def same(found: Tensor, expected: Tensor) -> None:
    assert found.device == DEVICE
    assert torch.equal(found.cpu(), expected)


def _operators(a: Tensor, b: Tensor, column: Tensor, index: Tensor, w: Tensor):
    """Each operator, 24 rows, made of these tensors: (24, 24), (24,), (6,), (24, 4), (24, 4)."""
    small = Toeplitz(column)
    yield Dense(a)
    yield Diagonal(b)
    yield SumOperator(Dense(a), Diagonal(b))
    yield ScaledOperator(torch.tensor([2.5]), Dense(a))
    yield Bordered(Dense(a[:20, :20]), a[:20, 20:], a[20:, 20:])
    yield Toeplitz(b)
    yield Kronecker([small, Dense(a[:4, :4])])
    yield Interpolated(small, index, w)


NAMES = ["Dense", "Diagonal", "Sum", "Scaled", "Bordered", "Toeplitz", "Kronecker", "Interpolated"]


@pytest.mark.parametrize("which", range(len(NAMES)), ids=NAMES)
def test_an_operator_answers_where_it_is_and_as_it_does_on_the_cpu(which, rng):
    a = spd_matrix(uniform(rng, 24), rng)
    # Rows that stand on one node three times: their order within a sum must not be left open.
    index = torch.randint(6, (24, 4), generator=rng)
    index[::3, :3] = index[::3, 3:]
    data = (
        (a + a.mT) / 2,
        uniform(rng, 24),
        torch.exp(-torch.arange(6.0)),
        index,
        uniform(rng, 24, 4),
    )
    V, some = normal(rng, 24, 3), torch.tensor([21, 3, 3, 0, 17, 23])
    known = list(_operators(*data))[which]
    with pretended_device():
        K = list(_operators(*there(*data)))[which]
        assert K.device == DEVICE and known.device.type == "cpu"
        same(K.matmul(V.to(DEVICE)), known.matmul(V))
        same(K.diagonal(), known.diagonal())
        same(K.rows(some.to(DEVICE)), known.rows(some))
        same(K.blocks(some.view(2, 3).to(DEVICE)), known.blocks(some.view(2, 3)))
        same(K.blocks(some.view(2, 3)[:0].to(DEVICE)), known.blocks(some.view(2, 3)[:0]))


def test_gradients_of_structured_products_are_those_of_the_cpu(rng):
    column, A, B = uniform(rng, 12), normal(rng, 12, 2), normal(rng, 12, 2)
    C, D = normal(rng, 24, 2), normal(rng, 24, 2)
    known = Toeplitz(column)
    pairs = Kronecker([known, Dense(torch.eye(2))]).parts(C, D)
    with pretended_device():
        K = Toeplitz(column.to(DEVICE))
        same(K.pullback(*there(A, B)), known.pullback(A, B))
        found = Kronecker([K, Dense(torch.eye(2, device=DEVICE))]).parts(*there(C, D))
        for pair, expected in zip(found, pairs, strict=True):
            same(pair[0], expected[0])
            same(pair[1], expected[1])


def test_an_operator_that_does_not_say_where_it_is_is_where_its_diagonal_is(rng):
    class Own(LinearOperator):
        def __init__(self, A: Tensor) -> None:
            self.A, self.n = A, len(A)

        def matmul(self, V: Tensor) -> Tensor:
            return self.A @ V

    class WithDiagonal(Own):
        def diagonal(self) -> Tensor:
            return self.A.diagonal()

    A = spd_matrix(uniform(rng, 8), rng)
    assert Own(A).device.type == "cpu"
    with pretended_device():
        K = WithDiagonal(A.to(DEVICE))
        assert K.device == DEVICE
        check_operator(K)


def test_an_operator_that_contradicts_itself_there_is_described(rng):
    class Wrong(Dense):
        def diagonal(self) -> Tensor:
            return super().diagonal() + 1.0

    A = spd_matrix(uniform(rng, 8), rng)
    with pretended_device(), pytest.raises(ValueError, match=r"Wrong\.diagonal disagrees"):
        check_operator(Wrong(A.to(DEVICE)))
