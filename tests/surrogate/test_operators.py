"""Laws that hold for every operator, then operators made of others, and a user's own."""

import math

import numpy as np
import pytest
import torch
from oracles import normal, spd_matrix, uniform
from torch import Tensor, nn

from surrogate import RBF, Hamming, Matern52
from surrogate.operators import (
    Dense,
    Diagonal,
    KernelOperator,
    LinearOperator,
    ScaledOperator,
    SumOperator,
)
from surrogate.operators.base import check_operator
from tests.surrogate.helpers import assert_is_product

# --------------------------------------------------------------------------------------
# Laws of every operator.
# --------------------------------------------------------------------------------------


class Projection(LinearOperator):
    """What a user writes: v vᵀ, with all that a preconditioner asks for."""

    def __init__(self, v: Tensor) -> None:
        self.v, self.n = v, len(v)

    def matmul(self, V: Tensor) -> Tensor:
        return self.v.unsqueeze(1) * (self.v @ V)

    def diagonal(self) -> Tensor:
        return self.v.square()

    def rows(self, index: Tensor) -> Tensor:
        return torch.outer(self.v[index], self.v)


def _kernel_operator(rng: torch.Generator, storage: str) -> tuple[LinearOperator, Tensor]:
    kernel = Matern52(3, 0.9, 1.5) * Hamming(1, 0.7, columns=[2])
    X = torch.cat([uniform(rng, 37, 2), (3 * uniform(rng, 37, 1)).floor()], 1)
    return KernelOperator(kernel, X, storage=storage), kernel(X, X).detach()


def _dense(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    A = spd_matrix(uniform(rng, 37), rng)
    A = (A + A.T) / 2
    return Dense(A), A


def _diagonal(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    values = uniform(rng, 37)
    return Diagonal(values), values.diag()


def _projection(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    v = normal(rng, 37)
    return Projection(v), torch.outer(v, v)


def _sum(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    (A, a), (B, b), (C, c) = _dense(rng), _diagonal(rng), _kernel_operator(rng, "tiles")
    return A + B + C, a + b + c


def _scaled(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    A, a = _projection(rng)
    return 2.5 * A, 2.5 * a


def _mixed(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    (A, a), (B, b), (C, c) = _kernel_operator(rng, "float32"), _diagonal(rng), _scaled(rng)
    return 0.3 * (torch.tensor(2.0).double() * A + B) + C, 0.6 * a + 0.3 * b + c


OPERATORS = {
    "dense": _dense,
    "diagonal": _diagonal,
    "a user's own": _projection,
    "sum": _sum,
    "scaled": _scaled,
    "sums of multiples": _mixed,
    **{
        f"kernel, {s}": lambda rng, s=s: _kernel_operator(rng, s)
        for s in ("float64", "float32", "tiles")
    },
}


@pytest.fixture(params=OPERATORS.values(), ids=OPERATORS)
def every(request, rng, small_tiles) -> tuple[LinearOperator, Tensor]:
    """An operator, and the same as a matrix."""
    return request.param(rng)


def _rounding(A: LinearOperator) -> float:
    return 1e-13 if A.precise is A else 5e-6


def test_law_a_product_is_that_of_the_matrix_for_any_number_of_columns(every, rng):
    A, dense = every
    for t in (0, 1, 2, 65):
        V = normal(rng, A.n, t)
        for layout in (V, V.T.contiguous().T, V.repeat(1, 2)[:, :t]):
            before = layout.clone()
            assert_is_product(A.matmul(layout), dense, V, _rounding(A))
            assert torch.equal(layout, before)


def test_law_every_operator_is_symmetric(every, rng):
    A, _ = every
    u, v = normal(rng, A.n, 1), normal(rng, A.n, 1)
    left, right = (u * A.matmul(v)).sum(), (v * A.matmul(u)).sum()
    torch.testing.assert_close(left, right, rtol=0, atol=100 * _rounding(A))


def test_law_rows_and_diagonal_and_blocks_are_those_of_the_matrix(every, rng):
    A, dense = every
    index = torch.tensor([0, 36, 5, 5, 12])
    near = {"rtol": 1e-13, "atol": 1e-14}  # computed in float64, however K is stored
    torch.testing.assert_close(A.rows(index), dense[index], **near)
    torch.testing.assert_close(A.rows(torch.arange(37)), dense, **near)
    torch.testing.assert_close(A.diagonal(), dense.diagonal(), **near)
    index = torch.randperm(37, generator=rng)[:36].view(4, 9)
    expected = torch.stack([dense[some][:, some] for some in index])
    torch.testing.assert_close(A.blocks(index), expected, **near)
    assert A.rows(index[0, :0]).shape == (0, 37)
    assert A.blocks(index[:0]).shape == (0, 9, 9)


def test_law_the_diagonal_of_rows_is_the_diagonal_to_the_last_bit(every):
    A, _ = every
    assert torch.equal(A.rows(torch.arange(37)).diagonal(), A.diagonal())


def test_law_precise_is_the_same_matrix_in_float64(every, rng):
    A, dense = every
    V, precise = normal(rng, A.n, 3), A.precise
    assert precise.precise is precise
    assert_is_product(precise.matmul(V), dense, V, 1e-13)
    torch.testing.assert_close(precise.diagonal(), A.diagonal(), rtol=1e-14, atol=0)


def test_law_a_multiple_of_a_sum_multiplies_and_adds_the_products(every, rng):
    A, dense = every
    V = normal(rng, A.n, 2)
    combined = 2.0 * (A + Diagonal(torch.ones(37).double())) + A
    expected = 3 * dense + 2 * torch.eye(37).double()
    assert isinstance(combined, SumOperator) and isinstance(2.0 * A, ScaledOperator)
    assert_is_product(combined.matmul(V), expected, V, _rounding(A))
    torch.testing.assert_close(combined.diagonal(), expected.diagonal())


def test_law_products_carry_no_graph_and_leave_parameters_alone(every, rng):
    A, _ = every
    V = normal(rng, A.n, 1)
    index = torch.arange(3)
    results = (A.matmul(V), A.diagonal(), A.rows(index), A.blocks(index.view(1, 3)))
    assert not any(result.requires_grad for result in results)


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"a user's own", "scaled"}))
def test_law_a_right_hand_side_of_another_shape_is_refused(name, rng):
    A, _ = OPERATORS[name](rng)
    for shape in ((36, 2), (37,), (1, 37, 2)):
        with pytest.raises(ValueError, match=r"V must have shape \(37, t\).*got .*unsqueeze\(-1\)"):
            A.matmul(torch.zeros(shape).double())


# --------------------------------------------------------------------------------------
# Operators made of others, and a user's own.
# --------------------------------------------------------------------------------------


class Reversal(LinearOperator):
    """What a user writes who knows products only."""

    n = 4

    def matmul(self, V: Tensor) -> Tensor:
        return V.flip(0)


@pytest.mark.parametrize("operator", [Reversal(), 2.0 * Reversal(), Reversal() + Reversal()])
def test_what_an_operator_does_not_define_says_what_to_define(operator):
    with pytest.raises(
        TypeError,
        match=r"Reversal does not say its diagonal.*define `diagonal.*BBMM\(rank=0, block=0\)",
    ):
        operator.diagonal()
    for ask in (operator.rows, lambda index: operator.blocks(index.view(1, 2))):
        with pytest.raises(
            TypeError,
            match=r"Reversal does not give its rows.*define `rows\(ind.*BBMM\(rank=0, block=0\)",
        ):
            ask(torch.tensor([0, 1]))
    assert operator.coordinates is None
    assert operator.precise is operator


def test_operators_of_different_sizes_are_not_added():
    A, B = Diagonal(torch.ones(3).double()), Diagonal(torch.ones(4).double())
    with pytest.raises(ValueError, match=r"of one size; got n = 3 and 4"):
        A + B
    with pytest.raises(TypeError, match="unsupported operand"):
        A + 1.0


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan, torch.ones(2)])
def test_a_scale_is_one_finite_number_not_below_zero(scale):
    with pytest.raises(ValueError, match="scale must be one finite number, at least 0; got"):
        scale * Diagonal(torch.ones(3).double())


@pytest.mark.parametrize("scale", ["2", None, Diagonal(torch.ones(3))])
def test_only_numbers_multiply_an_operator(scale):
    with pytest.raises(TypeError):
        scale * Diagonal(torch.ones(3).double())


@pytest.mark.parametrize(
    "scale", [2, np.float32(2), torch.tensor(2.0), nn.Parameter(torch.ones(1))]
)
def test_every_kind_of_number_multiplies_an_operator(scale):
    A = scale * Diagonal(torch.ones(3).double())
    assert isinstance(A, ScaledOperator)
    expected = float(torch.as_tensor(scale).detach()) * torch.ones(3).double()
    torch.testing.assert_close(A.diagonal().detach(), expected)


def test_matrices_and_diagonals_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"A must be square.*got \(2, 3\)"):
        Dense(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"values must have shape \(n,\); got \(2, 2\)"):
        Diagonal(torch.ones(2, 2))


def test_coordinates_of_a_sum_stand_side_by_side_and_those_of_a_multiple_stay(rng):
    X = uniform(rng, 5, 2)
    A, B = (KernelOperator(RBF(2, ell), X, storage="tiles") for ell in (0.5, 2.0))
    noise = Diagonal(torch.ones(5).double())
    torch.testing.assert_close(A.coordinates, X / 0.5)
    torch.testing.assert_close((A + noise + B).coordinates, torch.cat([X / 0.5, X / 2], 1))
    torch.testing.assert_close((3.0 * B + noise).coordinates, X / 2)
    assert (noise + noise).coordinates is None


def test_blocks_are_made_from_the_rows_of_one_cluster_at_a_time(rng):
    class Asked(Projection):
        most = 0

        def rows(self, index):
            self.most = max(self.most, len(index))
            return super().rows(index)

    A = Asked(normal(rng, 60))
    A.blocks(torch.arange(60).view(12, 5))
    assert A.most == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_matrices_and_diagonals_of_another_type_are_kept_in_float64(dtype, rng):
    values, V = torch.tensor([2, 3, 5], dtype=dtype), normal(rng, 3, 2)
    for A in (Dense(values.diag()), Diagonal(values), Dense(values.diag()) + Diagonal(values)):
        assert A.matmul(V).dtype == A.rows(torch.tensor([1])).dtype == torch.float64
        assert A.diagonal().dtype == torch.float64


# --------------------------------------------------------------------------------------
# What does not agree with itself.
# --------------------------------------------------------------------------------------


def test_law_no_operator_contradicts_itself(every):
    A, _ = every
    check_operator(A)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_the_smallest_operators_are_checked_too(n, rng):
    check_operator(Projection(normal(rng, n)))
    check_operator(Diagonal(torch.zeros(n)))


def test_products_in_float32_agree_with_rows_in_float64(rng):
    class Rough(Projection):
        def matmul(self, V):
            return super().matmul(V).float()

    for n in (3, 40, 1000):
        check_operator(Rough(normal(rng, n)))
        check_operator(Rough(torch.ones(n).double()))
        X = uniform(rng, n, 2)
        check_operator(KernelOperator(RBF(2, 3.0), X, storage="float32"))


def test_an_operator_that_only_multiplies_is_checked_for_symmetry_alone(rng):
    class Products(LinearOperator):
        n = 40

        def matmul(self, V):
            return A @ V

    A = uniform(rng, 40, 40)
    A = A + A.T
    check_operator(Products())
    A[7, 9] += 1.0
    with pytest.raises(ValueError, match=r"Products.matmul is not that of a symm.*vᵀ\(Ku\) = -?\d"):
        check_operator(Products())


def test_rows_or_a_diagonal_that_the_product_does_not_have_are_refused(rng):
    class Tripled(Projection):
        def rows(self, index):
            return 3 * super().rows(index)

    class Noisy(Projection):
        def diagonal(self):
            return super().diagonal() + 0.1

    v = torch.ones(9).double()
    with pytest.raises(ValueError, match=r"Tripled.rows disagrees with matmul by up to 2 at .*8\]"):
        check_operator(Tripled(v))
    with pytest.raises(ValueError, match=r"Noisy.diagonal disagrees .* 0.1 .*without the noise"):
        check_operator(Noisy(v))


def test_answers_of_another_shape_or_type_are_refused_with_what_came():
    class Odd(Projection):
        def __init__(self, method, answer):
            super().__init__(torch.ones(7).double())
            setattr(self, method, lambda *_: answer)

    cases = [
        ("matmul", torch.ones(5, 7), r"matmul\(V\) must .* \(7, 5\); got \(5, 7\), torch.float32"),
        ("matmul", torch.ones(7, 5, dtype=torch.long), r"\(7, 5\); got \(7, 5\), torch.int64"),
        ("matmul", np.ones((7, 5)), r"float tensor of shape \(7, 5\); got ndarray"),
        ("matmul", torch.full((7, 5), torch.nan), r"matmul\(V\) is not finite"),
        ("rows", torch.ones(7, 3), r"rows\(index\) must .* \(3, 7\); got \(7, 3\)"),
        ("diagonal", torch.ones(1), r"diagonal\(\) must .* \(7,\); got \(1,\)"),
    ]
    for method, answer, message in cases:
        with pytest.raises(ValueError, match=message):
            check_operator(Odd(method, answer))


def test_coordinates_are_points():
    class Flat(Projection):
        @property
        def coordinates(self):
            return self.v

    with pytest.raises(ValueError, match=r"Flat.coordinates .* \(7, d\); got \(7,\)"):
        check_operator(Flat(torch.ones(7).double()))


def test_what_is_no_operator_or_has_no_size_is_refused():
    class Sizeless(LinearOperator):
        def matmul(self, V):
            return V

    with pytest.raises(TypeError, match=r"must be a LinearOperator; got Tensor.*Dense\(K\)"):
        check_operator(torch.eye(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="Sizeless does not say its size; set `n`"):
        check_operator(Sizeless())
