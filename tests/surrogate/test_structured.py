"""Operators with a structure, against the same matrices written out."""

import pytest
import torch
from oracles import normal, spd_matrix, uniform
from torch import Tensor

from surrogate import BBMM, log_marginal_likelihood, solve
from surrogate.operators import Dense, Interpolated, Kronecker, LinearOperator, Toeplitz
from surrogate.operators.base import check_operator
from tests.surrogate.helpers import assert_is_product, log_density


def toeplitz_matrix(c: Tensor) -> Tensor:
    n = len(c)
    return torch.stack([torch.stack([c[abs(i - j)] for j in range(n)]) for i in range(n)])


def decaying(n: int, ell: float = 3.0) -> Tensor:
    return torch.exp(-torch.arange(n).double() / ell)


def sparse(rng: torch.Generator, n: int, nodes: int, s: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, some of them twice, their weights, some of them negative; and W."""
    index, weights = torch.randint(0, nodes, (n, s), generator=rng), normal(rng, n, s)
    W = torch.zeros(n, nodes).double()
    for i in range(n):
        for node, weight in zip(index[i], weights[i], strict=True):
            W[i, node] += weight
    return index, weights, W


def _toeplitz(n: int):
    def make(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
        return Toeplitz(decaying(n)), toeplitz_matrix(decaying(n))

    return make


def _kronecker(*sizes: int):
    def make(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
        matrices = [spd_matrix(uniform(rng, n), rng) for n in sizes]
        matrices = [0.5 * (A + A.T) for A in matrices]
        whole = matrices[0]
        for A in matrices[1:]:
            whole = torch.kron(whole, A)
        return Kronecker([Dense(A) for A in matrices]), whole

    return make


def _mixed(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
    A, B = decaying(5), spd_matrix(uniform(rng, 3), rng)
    B = 0.5 * (B + B.T)
    return Kronecker([Toeplitz(A), Dense(B)]), torch.kron(toeplitz_matrix(A), B)


def _interpolated(n: int):
    def make(rng: torch.Generator) -> tuple[LinearOperator, Tensor]:
        inner, A = _mixed(rng)
        index, weights, W = sparse(rng, n, inner.n)
        return Interpolated(inner, index, weights), W @ A @ W.T

    return make


OPERATORS = {
    "toeplitz": _toeplitz(17),
    "toeplitz, large": _toeplitz(230),
    "toeplitz of two": _toeplitz(2),
    "toeplitz of one": _toeplitz(1),
    "kronecker of one": _kronecker(7),
    "kronecker of three": _kronecker(3, 1, 5),
    "kronecker of toeplitz and dense": _mixed,
    "interpolated": _interpolated(11),
    "interpolated, more points than nodes": _interpolated(37),
    "interpolated at one point": _interpolated(1),
    "interpolated at none": _interpolated(0),
}
EVERY_OPERATOR = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)


@EVERY_OPERATOR
@pytest.mark.parametrize("t", [0, 1, 5])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_law_a_product_is_that_of_the_matrix(make, t, layout, rng):
    operator, A = make(rng)
    V = normal(rng, len(A), t)
    V = V if layout == "rows" else V.mT.contiguous().mT
    before = V.clone()
    # An FFT mixes all entries of a column: its rounding is relative to the largest of them.
    A_or_more = A.abs() + A.abs().max() if len(A) else A
    received = operator.matmul(V)
    assert received.shape == V.shape and received.dtype == torch.float64
    assert ((received - A @ V).abs() <= 1e-14 * (A_or_more @ V.abs())).all()
    assert torch.equal(V, before)


@EVERY_OPERATOR
def test_law_diagonal_rows_and_blocks_are_those_of_the_matrix(make, rng):
    operator, A = make(rng)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(operator.diagonal(), A.diagonal(), **close)
    some = torch.randint(0, max(len(A), 1), (6,), generator=rng)[: 6 * min(len(A), 1)]
    torch.testing.assert_close(operator.rows(some), A[some], **close)
    index = some.reshape(2, -1)
    expected = torch.stack([A[i][:, i] for i in index])
    torch.testing.assert_close(operator.blocks(index), expected, **close)
    check_operator(operator)


@EVERY_OPERATOR
def test_law_a_float32_vector_is_multiplied_in_float64(make, rng):
    operator, A = make(rng)
    V = normal(rng, len(A), 3).float()
    assert_is_product(operator.matmul(V), A, V.double(), 1e-10)


@pytest.mark.parametrize("n", [1, 2, 9, 40])
@pytest.mark.parametrize("k", [0, 1, 4])
def test_the_gradient_in_a_toeplitz_column_is_that_by_autograd(n, k, rng):
    A, B = normal(rng, n, k), normal(rng, n, k)
    c = decaying(n).requires_grad_()
    (expected,) = torch.autograd.grad((A * (toeplitz_matrix(c) @ B)).sum(), c)
    operator = Toeplitz(c.detach())
    torch.testing.assert_close(operator.pullback(A, B), expected, rtol=1e-12, atol=1e-12)


def test_products_are_differentiable_in_the_column_and_the_weights(rng):
    index, weights, _ = sparse(rng, 9, 6)
    c, V = decaying(6), normal(rng, 9, 3)

    def product(c: Tensor, weights: Tensor) -> Tensor:
        return Interpolated(Toeplitz(c), index, weights).matmul(V)

    def written_out(c: Tensor, weights: Tensor) -> Tensor:
        W = torch.zeros(9, 6).double().scatter_add(1, index, weights)
        return W @ toeplitz_matrix(c) @ W.T @ V

    gradients = []
    for form in (product, written_out):
        at = c.clone().requires_grad_(), weights.clone().requires_grad_()
        gradients.append(torch.autograd.grad(form(*at).square().sum(), at))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sizes", [(7,), (4, 5), (3, 2, 4)])
def test_a_bilinear_form_falls_into_one_for_each_factor(sizes, rng):
    operator, A = _kronecker(*sizes)(rng)
    L, R = normal(rng, operator.n, 3), normal(rng, operator.n, 3)
    expected = (L * (A @ R)).sum()
    for factor, (left, right) in zip(operator.factors, operator.parts(L, R), strict=True):
        torch.testing.assert_close((left * factor.matmul(right)).sum(), expected)


def test_inference_runs_on_them(rng):
    index, weights, W = sparse(rng, 60, 40)
    ell = torch.tensor(3.0).double().requires_grad_()
    column = torch.exp(-torch.arange(40).double() / ell)
    K, y = Interpolated(Toeplitz(column), index, weights), normal(rng, 60)
    K_hat = W @ toeplitz_matrix(column) @ W.T + 0.1 * torch.eye(60).double()
    options = BBMM(tolerance=1e-10, training_tolerance=1e-8)
    with torch.no_grad():
        found = solve(K, 0.1, y.unsqueeze(1), options)
    torch.testing.assert_close(found.U[:, 0], torch.linalg.solve(K_hat, y), rtol=1e-8, atol=1e-8)
    estimate = log_marginal_likelihood(K, 0.1, y, options)
    expected = log_density(K_hat, y)
    assert estimate.lower <= expected.item() <= estimate.upper
    (slope,) = torch.autograd.grad(estimate.value, ell)
    assert bool(slope.isfinite()) and float(slope) != 0.0


def test_what_does_not_fit_together_is_refused(rng):
    with pytest.raises(ValueError, match="the first column of the matrix"):
        Toeplitz(torch.eye(3))
    with pytest.raises(ValueError, match="n ≥ 1"):
        Toeplitz(torch.zeros(0))
    with pytest.raises(ValueError, match="at least one factor"):
        Kronecker([])
    inner, index = Toeplitz(decaying(5)), torch.tensor([[0, 5]])
    with pytest.raises(ValueError, match="nodes, 0 to 4; got 0 to 5"):
        Interpolated(inner, index, torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"one shape \(n, s\)"):
        Interpolated(inner, index, torch.ones(2, 1))
    for operator in (inner, Kronecker([inner]), Interpolated(inner, index - index, index)):
        with pytest.raises(ValueError, match="one vector per column"):
            operator.matmul(torch.ones(7, 1))
