"""Products with the covariance of values and gradients, against the matrix written out."""

import math

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import surrogate.operators.gradients as tiling
from surrogate import BBMM, RBF, Cholesky, GradientGP, Matern52, WithGradients, fit
from surrogate.operators import GradientOperator
from surrogate.operators.base import check_operator
from surrogate.workspace import Workspace
from tests.surrogate.helpers import assert_is_product

BASES = {"rbf": RBF, "matern52": Matern52}
EVERY_BASE = pytest.mark.parametrize("base", BASES.values(), ids=BASES)
EVERY_SIZE = pytest.mark.parametrize("d", [1, 2, 5])
EVERY_STORAGE = pytest.mark.parametrize("storage", ["float64", "tiles"])
POINTS = 23


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tile, so that these here make many, none of which divides n."""
    monkeypatch.setattr(tiling, "_ROWS", 4)
    monkeypatch.setattr(tiling, "_COLUMNS", 6)


def kernel_of(base, d: int) -> WithGradients:
    return WithGradients(base(d, [0.4 + 0.2 * j for j in range(d)], 1.7), offset=0.7)


def all_rows(X: Tensor) -> Tensor:
    """A value and all derivatives at each point."""
    n, d = X.shape
    which = torch.arange(1 + d).double().repeat(n).unsqueeze(1)
    return torch.cat([X.repeat_interleave(1 + d, 0), which], 1)


def shuffled(rng: torch.Generator, d: int, missing: bool = True) -> Tensor:
    """The same in no order, and if some are missing, with points of nothing but derivatives."""
    X = all_rows(uniform(rng, POINTS, d))
    return X[torch.randperm(len(X), generator=rng)][(len(X) // 3 if missing else 0) :]


def operator_of(kernel: WithGradients, X: Tensor, **options) -> GradientOperator:
    points, row = X[:, :-1].unique(dim=0, return_inverse=True)
    return GradientOperator(kernel, points, row, X[:, -1].long(), **options)


def expected_pullback(kernel, X: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((A * (kernel(X, X) @ B)).sum(), list(kernel.parameters()))


# --------------------------------------------------------------------------------------
# K.
# --------------------------------------------------------------------------------------


@EVERY_BASE
@EVERY_SIZE
@EVERY_STORAGE
@pytest.mark.parametrize("missing", [False, True])
def test_law_products_are_those_with_the_matrix(base, d, storage, missing, rng, few_points):
    kernel, X = kernel_of(base, d), shuffled(rng, d, missing)
    K, operator = kernel(X, X).detach(), operator_of(kernel, X, storage=storage)
    assert operator.n == len(X) and operator.storage == storage
    for t in (0, 1, 4):
        V = normal(rng, t, len(X)).mT
        assert_is_product(operator.matmul(V), K, V, 1e-13)


@EVERY_BASE
@EVERY_SIZE
def test_law_diagonal_rows_and_blocks_are_those_of_the_matrix(base, d, rng, few_points):
    kernel, X = kernel_of(base, d), shuffled(rng, d)
    K, operator = kernel(X, X).detach(), operator_of(kernel, X)
    check_operator(operator)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(operator.diagonal(), K.diagonal(), **close)
    index = torch.tensor([3, 0, 3, 11])
    torch.testing.assert_close(operator.rows(index), K[index], **close)
    index = torch.stack([index, index.flip(0)])
    expected = torch.stack([K[some][:, some] for some in index])
    torch.testing.assert_close(operator.blocks(index), expected, **close)
    assert torch.equal(operator.coordinates, kernel.coordinates(X))


@EVERY_BASE
@EVERY_SIZE
@EVERY_STORAGE
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("t", [1, 4])
def test_law_gradients_of_bilinear_forms_are_those_of_the_matrix(
    base, d, storage, missing, t, rng, few_points
):
    kernel, X = kernel_of(base, d), shuffled(rng, d, missing)
    A, B = normal(rng, len(X), t), normal(rng, len(X), t)
    received = operator_of(kernel, X, storage=storage).pullback(A, B)
    for ours, dense in zip(received, expected_pullback(kernel, X, A, B), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)


@EVERY_BASE
def test_law_gradients_of_nothing_are_zero(base, rng, few_points):
    X = shuffled(rng, 2)
    gradients = operator_of(kernel_of(base, 2), X).pullback(*normal(rng, 2, len(X), 0))
    assert [g.shape for g in gradients] == [(), (2,), ()]
    assert not any(g.any() for g in gradients)


@EVERY_BASE
def test_a_number_observed_twice_stands_there_twice(base, rng, few_points):
    kernel, X = kernel_of(base, 2), shuffled(rng, 2)
    X = torch.cat([X, X[:5], X[:2]])
    V = normal(rng, len(X), 3)
    operator, K = operator_of(kernel, X), kernel(X, X).detach()
    assert_is_product(operator.matmul(V), K, V, 1e-13)
    for ours, dense in zip(
        operator.pullback(V, V), expected_pullback(kernel, X, V, V), strict=True
    ):
        torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)


# --------------------------------------------------------------------------------------
# Where digits could be lost: in sums of large numbers with small differences.
# --------------------------------------------------------------------------------------


def precise_matrix(base, lengthscale: float, X: Tensor) -> Tensor:
    """K of `all_rows(X)` for s² = 1 and c² = 0, by differences of points and nothing else."""
    n, d = X.shape
    delta = (X.unsqueeze(1) - X) / lengthscale  # (n, n, d)
    r2 = delta.square().sum(-1)
    if base is RBF:
        g = (-r2 / 2).exp()
        g1, g2 = -g / 2, g / 4
    else:
        u = (5 * r2).sqrt()
        levels = torch.stack([1 + u + u * u / 3, -5 / 6 * (1 + u), torch.full_like(u, 25 / 12)])
        g, g1, g2 = levels * (-u).exp()
    K = X.new_empty(n, 1 + d, n, 1 + d)
    K[:, 0, :, 0] = g
    slope = 2 * g1.unsqueeze(-1) * delta / lengthscale  # of the first
    K[:, 1:, :, 0], K[:, 0, :, 1:] = slope.transpose(1, 2), -slope
    both = -4 * g2[..., None, None] * delta.unsqueeze(-1) * delta.unsqueeze(-2)
    both = both - 2 * g1[..., None, None] * torch.eye(d)
    K[:, 1:, :, 1:] = both.transpose(1, 2) / lengthscale**2
    return K.reshape(n * (1 + d), n * (1 + d))


@EVERY_BASE
@EVERY_SIZE
@pytest.mark.parametrize("apart", [1e-6, 1.0])
@pytest.mark.parametrize("lengthscale", [0.01, 0.1, 1.0, 10.0, 100.0])
def test_products_are_accurate_at_any_distance(base, d, apart, lengthscale, rng, few_points):
    X = uniform(rng, POINTS, d)
    X = torch.cat([X, X + apart * normal(rng, POINTS, d)])
    A, kernel = all_rows(X), WithGradients(base(d, lengthscale), offset=1e-30)
    K = precise_matrix(base, lengthscale, X)
    scale = kernel.diagonal(A).detach().sqrt().unsqueeze(1)
    V = normal(rng, len(A), 4) / scale
    off = (operator_of(kernel, A).matmul(V) - K @ V) / scale
    assert off.abs().max() < 1e-10 * ((K.abs() @ V.abs()) / scale).max()


@EVERY_BASE
@EVERY_SIZE
@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-6, 1.0])
@pytest.mark.parametrize("lengthscale", [0.01, 1.0, 100.0])
def test_gradients_are_accurate_at_any_distance(base, d, apart, lengthscale, rng, few_points):
    X = uniform(rng, POINTS, d)
    rows = all_rows(torch.cat([X, X + apart * normal(rng, POINTS, d)]))
    kernel = WithGradients(base(d, lengthscale), offset=0.7)
    scale = kernel.diagonal(rows).detach().sqrt()
    A, B = normal(rng, 2, len(rows), 3) / scale.unsqueeze(1)
    received = operator_of(kernel, rows).pullback(A, B)
    most = (A.abs() * (kernel(rows, rows).detach().abs() @ B.abs())).sum()
    for ours, dense in zip(received, expected_pullback(kernel, rows, A, B), strict=True):
        assert (ours - dense).abs().max() < 1e-11 * most


@EVERY_BASE
def test_where_the_origin_is_makes_no_difference(base, rng, few_points):
    """Eighths and millions are exact."""
    X, V = (8 * uniform(rng, POINTS, 2)).round() / 8, normal(rng, 3 * POINTS, 4)
    near, far = (operator_of(kernel_of(base, 2), all_rows(X + at)) for at in (0.0, 1e6))
    torch.testing.assert_close(near.matmul(V), far.matmul(V), rtol=1e-12, atol=1e-12)


def test_rounding_is_told_by_how_far_points_are_from_each_other(rng, few_points):
    X = all_rows(uniform(rng, POINTS, 2))
    near, far = (operator_of(WithGradients(RBF(2, ell)), X) for ell in (1.0, 1e-3))
    assert near.roundoff < 1e-15 < far.roundoff < 1e-12


# --------------------------------------------------------------------------------------
# What is stored, and what is refused.
# --------------------------------------------------------------------------------------


def test_storage_is_chosen_by_the_budget(rng, few_points):
    X = all_rows(uniform(rng, 100, 3))
    for base, levels in ((RBF, 1), (Matern52, 3)):
        kernel = kernel_of(base, 3)
        stored = operator_of(kernel, X)
        assert stored.storage == "float64" and "points=100" in repr(stored)
        assert levels * 4 * 100**2 < stored.bytes <= levels * 4 * (100**2 + 4 * 100)
        assert operator_of(kernel, X, budget=stored.bytes).storage == "float64"
        tiles = operator_of(kernel, X, budget=stored.bytes - 1)
        assert tiles.storage == "tiles" and tiles.bytes == 0


@EVERY_BASE
def test_storage_is_used_again_by_the_next_operator(base, rng, few_points):
    X, workspace = shuffled(rng, 2), Workspace()
    V = normal(rng, len(X), 3)
    first = kernel_of(base, 2)
    operator_of(first, X, workspace=workspace).matmul(V)
    for kernel, inputs in ((WithGradients(base(2, 0.3)), X), (first, X[:-9])):
        K, V = kernel(inputs, inputs).detach(), V[: len(inputs)]
        received = operator_of(kernel, inputs, workspace=workspace).matmul(V)
        assert_is_product(received, K, V, 1e-13)


def test_what_does_not_fit_together_is_refused(rng):
    kernel, X = kernel_of(RBF, 2), uniform(rng, 3, 2)
    row, column = torch.tensor([0, 2]), torch.tensor([1, 0])
    with pytest.raises(ValueError, match=r"storage must be one of .* got 'float32'"):
        GradientOperator(kernel, X, row, column, storage="float32")
    with pytest.raises(ValueError, match="inside the table of 3 × 3"):
        GradientOperator(kernel, X, row, column + 2)
    with pytest.raises(ValueError, match=r"one shape \(N,\)"):
        GradientOperator(kernel, X, row, column[:1])
    operator = GradientOperator(kernel, X, row, column)
    with pytest.raises(ValueError, match=r"V must have shape \(2, t\)"):
        operator.matmul(normal(rng, 3, 1))
    with pytest.raises(ValueError, match=r"B must have shape \(2, t\)"):
        operator.pullback(normal(rng, 2, 1), normal(rng, 3, 1))
    with pytest.raises(ValueError, match="as many columns"):
        operator.pullback(normal(rng, 2, 1), normal(rng, 2, 2))


class Largest(TorchDispatchMode):
    """Remembers the most entries that a tensor made meanwhile had."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, Tensor):
                self.entries = max(self.entries, t.untyped_storage().nbytes() // 8)
        return out


@EVERY_BASE
def test_no_matrix_of_the_size_of_all_the_numbers_is_ever_made(base, rng, monkeypatch):
    n, d = 200, 4
    monkeypatch.setattr(tiling, "_ROWS", 30)
    monkeypatch.setattr(tiling, "_COLUMNS", 50)
    kernel, X = kernel_of(base, d), all_rows(uniform(rng, n, d))
    V = normal(rng, len(X), 2)
    with Largest() as largest:
        operator = kernel.operator(X)
        assert operator is not None
        operator.matmul(V)
        operator.pullback(V, V)
    assert largest.entries <= n * n  # of the (5n)² in K
    with Largest() as largest:
        operator = operator_of(kernel, X, storage="tiles")
        operator.matmul(V)
        operator.pullback(V, V)
    assert largest.entries <= 4 * V.numel()


# --------------------------------------------------------------------------------------
# In a model.
# --------------------------------------------------------------------------------------


def test_a_kernel_has_these_products_where_they_pay(rng):
    x = uniform(rng, 20, 2)
    kernel, X = kernel_of(Matern52, 2), all_rows(x)
    assert isinstance(kernel.operator(X), GradientOperator)
    values, slopes = X[X[:, 2] == 0], X[X[:, 2] > 0]
    assert kernel.operator(values) is None
    assert kernel.operator(torch.cat([values, values, values])) is None
    assert kernel.operator(X[X[:, 2] == 1]) is None
    assert kernel.operator(torch.cat([values, slopes[:4]])) is None  # gradients at two points
    assert kernel.operator(X[:0]) is None
    with pytest.raises(ValueError, match=r"0 for a value and 1 … 2"):
        kernel.operator(X + torch.tensor([0, 0, 1.0]))
    X = all_rows(uniform(rng, 20, 3))
    assert isinstance(kernel_of(Matern52, 3).operator(X[X[:, 3] > 0]), GradientOperator)


def data(rng: torch.Generator, n: int = 100) -> tuple[Tensor, Tensor]:
    """A function of two inputs and its gradient, with noise; some numbers missing."""
    X = uniform(rng, n, 2).requires_grad_()
    f = torch.sin(4 * X[:, 0]) * (1 + X[:, 1])
    (slope,) = torch.autograd.grad(f.sum(), X)
    Y = torch.cat([f.detach().unsqueeze(1), slope], 1) + 0.1 * normal(rng, n, 3)
    Y[uniform(rng, n, 3) < 0.1] = math.nan
    return X.detach(), Y


def test_a_fit_by_products_ends_where_that_by_a_factor_does(rng):
    X, Y = data(rng)
    options = BBMM(training_tolerance=1e-4)
    models = [
        fit(GradientGP(Matern52(2), priors="flat-1", solver=solver), X, Y)
        for solver in (options, Cholesky())
    ]
    assert models[0].report.solver == "bbmm" and models[0].report.storage == "float64"
    densities = []
    for model in models:
        model.solver = Cholesky()
        densities.append(float(model.log_marginal_likelihood(X, Y)))
    assert densities[0] == pytest.approx(densities[1], abs=0.3)


@EVERY_BASE
def test_a_posterior_by_products_is_that_by_a_factor(base, rng):
    X, Y = data(rng)
    options = BBMM(tolerance=1e-11, variance_tolerance=1e-9)
    ours, exact = (
        GradientGP(base(2, 0.5), noise=0.01, solver=solver).condition(X, Y)
        for solver in (options, Cholesky())
    )
    assert isinstance(ours.long._cache.K, GradientOperator)
    new = uniform(rng, 5, 2)
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(ours.marginals(new), exact.marginals(new), **close)
    torch.testing.assert_close(ours.gradient(new), exact.gradient(new), **close)


def test_the_likelihood_by_products_is_near_the_exact_one(rng):
    X, Y = data(rng, 60)
    estimate, exact = (
        GradientGP(RBF(2, 0.5), noise=0.01, solver=solver).log_marginal_likelihood(X, Y)
        for solver in (BBMM(), Cholesky())
    )
    assert estimate.lower - 1e-6 <= float(exact) <= estimate.upper + 1e-6
