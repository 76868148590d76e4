"""Models on a grid: exact at its nodes, against dense algebra between them, and never n × n."""

import copy
import itertools
import math
import warnings

import pytest
import torch
from oracles import gp_prediction, normal, uniform
from torch import Tensor

from surrogate import (
    BBMM,
    RBF,
    Auto,
    Cholesky,
    CoarseGrid,
    ExactGP,
    GridGP,
    Hamming,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Periodic,
    Scaled,
    fit,
)
from surrogate.kernels import Columns
from surrogate.kernels.axes import Axis
from surrogate.kernels.grid import GridKernel, GridKernelOperator
from surrogate.models.products import ProductCache
from surrogate.operators import KernelOperator
from surrogate.operators.base import check_operator

FACTORS = {
    "one input": [Matern52(1, 0.3, 1.4)],
    "two inputs": [RBF(1, 0.4), Matern32(1, 0.6, 0.7)],
    "a cusp": [Matern12(1, 0.5), Matern12(1, 0.8)],
    "three inputs": [Matern52(1, 0.5), RBF(1, 0.7), Matern32(1, 0.9, 2.0)],
    "a sum, and a period": [0.5 * Matern52(1, 0.4) + RBF(1, 0.9), Periodic(1, 0.7, 1.5)],
}
EVERY_FACTOR = pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)


def on_grid(factors, points: int = 9) -> GridKernel:
    return GridKernel(factors, 1.3, [Axis.over(0.0, 1.0, points + j) for j in range(len(factors))])


def product(factors, variance: float = 1.0):
    """The same by kernels that know nothing of a grid."""
    kernel = None
    for j, factor in enumerate(factors):
        part = Columns(copy.deepcopy(factor), [j])
        kernel = part if kernel is None else kernel * part
    return Scaled(kernel, variance)


def nodes_of(factors, points: int, rng: torch.Generator, n: int) -> Tensor:
    """Points drawn from the nodes of a grid over the unit cube; some of them twice."""
    return torch.randint(0, points, (n, len(factors)), generator=rng).double() / (points - 1)


def surface(X: Tensor, rng: torch.Generator) -> Tensor:
    return torch.sin(6 * X.sum(1)) + 0.5 * X[:, 0] ** 2 + 0.1 * normal(rng, len(X))


def keys(x: float) -> float:
    """The interpolation kernel of Keys (1981), eq. 15."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


# --------------------------------------------------------------------------------------
# Interpolation and the kernel.
# --------------------------------------------------------------------------------------


def test_weights_are_those_of_cubic_convolution(rng):
    axis = Axis.over(-1.0, 2.0, 7)
    x = torch.cat([3 * uniform(rng, 40) - 1, torch.tensor([*axis.span, -1.0, 2.0]).double()])
    place = axis.locate(x)
    for i, value in enumerate(x.tolist()):
        expected = [keys((value - node) / axis.step) for node in axis.nodes.tolist()]
        received = torch.zeros(axis.count).double()
        received[place.first[i] : place.first[i] + 4] = place.weights[i]
        torch.testing.assert_close(
            received, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0
        )


def test_parabolas_are_interpolated_exactly_up_to_the_last_node_but_one(rng):
    axis = Axis.over(0.0, 1.0, 5)
    x = torch.linspace(*axis.span, 50).double().requires_grad_()
    place = axis.locate(x)
    table = 2 - 3 * axis.nodes + 5 * axis.nodes**2
    received = (table[place.first.unsqueeze(1) + torch.arange(4)] * place.weights).sum(1)
    torch.testing.assert_close(received, 2 - 3 * x + 5 * x**2)
    (slope,) = torch.autograd.grad(received.sum(), x)
    torch.testing.assert_close(slope, -3 + 10 * x.detach())


@EVERY_FACTOR
def test_the_kernel_is_the_grid_between_weights(factors, rng):
    kernel, d = on_grid(factors), len(factors)
    X1, X2 = uniform(rng, 6, d), uniform(rng, 11, d)
    whole = torch.tensor(1.3, dtype=torch.float64)
    for j, (factor, axis) in enumerate(zip(factors, kernel.axes, strict=True)):
        T = factor(axis.nodes.unsqueeze(1), axis.nodes.unsqueeze(1))
        W1, W2 = (
            torch.tensor(
                [[keys((x - g) / axis.step) for g in axis.nodes.tolist()] for x in column.tolist()],
                dtype=torch.float64,
            )
            for column in (X1[:, j], X2[:, j])
        )
        whole = whole * (W1 @ T @ W2.T)
    torch.testing.assert_close(kernel(X1, X2), whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(kernel(X2, X1), kernel(X1, X2).T, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(kernel.diagonal(X2), kernel(X2, X2).diagonal())
    out = torch.empty(6, 11).double()
    torch.testing.assert_close(kernel.evaluate(X1, X2, out), kernel(X1, X2).detach())


@EVERY_FACTOR
def test_at_the_nodes_the_kernel_is_the_product_itself(factors, rng):
    X = nodes_of(factors, 9, rng, 30)
    axes = [Axis.over(0.0, 1.0, 9) for _ in factors]
    kernel = GridKernel(factors, 1.3, axes)
    expected = product(factors, 1.3)(X, X)
    torch.testing.assert_close(kernel(X, X), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel.on(None)(X, X), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel.diagonal(X), expected.diagonal(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel.on(None).diagonal(X), expected.diagonal())


@EVERY_FACTOR
def test_batches_of_points_are_points(factors, rng):
    kernel, d = on_grid(factors), len(factors)
    X, Y = uniform(rng, 2, 3, 4, d), uniform(rng, 5, d)
    rows = kernel(X.reshape(-1, d), Y)
    torch.testing.assert_close(kernel(X, Y), rows.reshape(2, 3, 4, 5))
    torch.testing.assert_close(kernel(Y, X)[1, 2], kernel(Y, X[1, 2]))
    torch.testing.assert_close(kernel(X, X)[1, 2], kernel(X[1, 2], X[1, 2]))
    torch.testing.assert_close(kernel.diagonal(X)[0, 1], kernel.diagonal(X[0, 1]))


@EVERY_FACTOR
@pytest.mark.parametrize("same", [True, False])
def test_gradients_in_closed_form_are_those_by_autograd(factors, same, rng):
    kernel, d = on_grid(factors).requires_grad_(True), len(factors)
    X1 = uniform(rng, 7, d)
    X2 = X1 if same else uniform(rng, 12, d)
    G = normal(rng, len(X1), len(X2))
    linearised = kernel.linearise(X1, X2)
    torch.testing.assert_close(linearised.K, kernel(X1, X2).detach())
    expected = torch.autograd.grad((kernel(X1, X2) * G).sum(), list(kernel.parameters()))
    torch.testing.assert_close(linearised.parameters(G), expected, rtol=1e-9, atol=1e-10)
    at = X1.clone().requires_grad_()
    (expected,) = torch.autograd.grad((kernel(at, X2) * G).sum(), at)
    torch.testing.assert_close(linearised.inputs(G), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("placed", [True, False])
def test_random_features_have_the_covariance_of_the_grid(placed, rng):
    kernel = on_grid(FACTORS["two inputs"], 5)
    kernel = kernel if placed else kernel.on(None)
    X = uniform(rng, 6, 2)
    phi = kernel.features(200_000, rng)(X)
    K = kernel(X, X).detach()
    torch.testing.assert_close(phi @ phi.T, K, rtol=0, atol=0.05)
    assert (phi @ phi.T - K).abs().mean() < 0.01


# --------------------------------------------------------------------------------------
# Products.
# --------------------------------------------------------------------------------------


@EVERY_FACTOR
def test_law_products_rows_and_blocks_are_those_of_the_whole_matrix(factors, rng):
    kernel = on_grid(factors)
    X = uniform(rng, 41, len(factors))
    operator, K = GridKernelOperator(kernel, X), kernel(X, X).detach()
    close = {"rtol": 1e-12, "atol": 1e-12}
    for t in (0, 1, 5):
        V = normal(rng, len(X), t)
        torch.testing.assert_close(operator.matmul(V), K @ V, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(operator.diagonal(), K.diagonal(), **close)
    index = torch.tensor([3, 0, 3, 40])
    torch.testing.assert_close(operator.rows(index), K[index], **close)
    blocks = operator.blocks(torch.stack([index, index.flip(0)]))
    torch.testing.assert_close(blocks[0], K[index][:, index], **close)
    assert len(operator.coordinates) == len(X) and operator.precise is operator
    check_operator(operator)


@EVERY_FACTOR
@pytest.mark.parametrize("k", [0, 1, 4])
def test_gradients_of_a_bilinear_form_are_those_of_the_whole_matrix(factors, k, rng):
    kernel = on_grid(factors).requires_grad_(True)
    X = uniform(rng, 23, len(factors))
    A, B = normal(rng, 23, k), normal(rng, 23, k)
    expected = torch.autograd.grad((A * (kernel(X, X) @ B)).sum(), list(kernel.parameters()))
    received = GridKernelOperator(kernel, X).pullback(A, B)
    torch.testing.assert_close(received, expected, rtol=1e-9, atol=1e-9)


def test_the_pullback_refuses_what_is_not_in_pairs(rng):
    operator = GridKernelOperator(on_grid(FACTORS["one input"]), uniform(rng, 5, 1))
    with pytest.raises(ValueError, match="taken in pairs"):
        operator.pullback(normal(rng, 5, 2), normal(rng, 5, 3))


# --------------------------------------------------------------------------------------
# The model, where all data are at nodes: exact.
# --------------------------------------------------------------------------------------

EXACTLY = {
    "cholesky": Cholesky(),
    "products": BBMM(tolerance=1e-13, training_tolerance=1e-13, variance_tolerance=1e-9, block=0),
}


def both(factors, solver, noise: float = 0.05) -> tuple[GridGP, ExactGP]:
    ours = GridGP(factors, 9, 1.3, bounds=(0, 1), mean=0.3, noise=noise, solver=solver)
    exact = ExactGP(product(factors, 1.3), mean=0.3, noise=noise, solver=Cholesky())
    return ours, exact


@EVERY_FACTOR
@pytest.mark.parametrize("solver", EXACTLY.values(), ids=EXACTLY)
def test_data_at_nodes_have_the_posterior_of_the_product_kernel(factors, solver, rng):
    X = nodes_of(factors, 9, rng, 40)
    y, new = surface(X, rng), nodes_of(factors, 9, rng, 12)
    ours, exact = (model.condition(X, y) for model in both(factors, solver))
    close = {"rtol": 1e-10, "atol": 1e-10}
    for _ in range(2):  # then appended to
        torch.testing.assert_close(ours.mean(new), exact.marginals(new)[0], **close)
        for a, b in zip(ours.marginals(new), exact.marginals(new), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(ours.joint(new), exact.joint(new), **close)
        torch.testing.assert_close(ours.fitted(), exact.fitted(), **close)
        ours, exact = (p.append(new[:2], torch.tensor([0.3, -0.2])) for p in (ours, exact))


@EVERY_FACTOR
def test_data_at_nodes_have_the_likelihood_of_the_product_kernel(factors, rng):
    X = nodes_of(factors, 9, rng, 40)
    y = surface(X, rng)
    ours, exact = both(factors, Cholesky())
    values = [model.log_marginal_likelihood(X, y).value for model in (ours, exact)]
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    by_noise = [
        torch.autograd.grad(value, list(model.noise_model.parameters()))
        for value, model in zip(values, (ours, exact), strict=True)
    ]
    torch.testing.assert_close(*by_noise, rtol=1e-9, atol=1e-9)
    by_products, _ = both(factors, EXACTLY["products"])
    estimate = by_products.log_marginal_likelihood(X, y)
    assert estimate.lower <= float(values[1].detach()) <= estimate.upper


# --------------------------------------------------------------------------------------
# Between nodes.
# --------------------------------------------------------------------------------------


def test_the_error_of_predictions_shrinks_with_the_grid(rng):
    X, new = uniform(rng, 300, 2), uniform(rng, 50, 2)
    y, factors = surface(X, rng), [Matern52(1, 0.4), Matern52(1, 0.5)]
    exact = ExactGP(product(factors), noise=0.02, solver=Cholesky()).condition(X, y)
    expected, off, told = exact.marginals(new), [], []
    solver = BBMM(tolerance=1e-10, variance_tolerance=1e-8, block=0)
    for points in (10, 20, 40, 80):
        model = GridGP(factors, points, noise=0.02, solver=solver)
        received = model.condition(X, y).marginals(new)
        off.append([float((a - b).abs().max()) for a, b in zip(received, expected, strict=True)])
        told.append(model.interpolation_error(X))
    for errors in (*zip(*off, strict=True), told):
        assert all(b < 0.6 * a for a, b in itertools.pairwise(errors))
    assert off[-1][0] < 2e-4 and off[-1][1] < 2e-3 and told[-1] < 1e-4


def test_the_error_of_interpolation_is_the_largest_between_both_kernels(rng):
    X = uniform(rng, 60, 2)
    factors = [Matern52(1, 0.3, 2.0), RBF(1, 0.4)]
    model = GridGP(factors, 12, bounds=(0, 1))
    gap = model.kernel(X, X) - product(factors)(X, X)
    expected = float(gap.detach().abs().max()) / 2.0
    assert model.interpolation_error(X) == pytest.approx(expected, rel=1e-9)
    assert f"off by up to {expected:.1g} s²" in model.condition(X, X[:, 0]).info.reason
    assert model.interpolation_error(X[:0]) == 0.0


def test_a_grid_that_is_too_coarse_is_told_of(rng):
    X = uniform(rng, 50, 2)
    fine = GridGP(Matern52(1, 0.1), 50, dims=2)
    fine.condition(X, X[:, 0])
    coarse = GridGP(Matern52(1, 0.1), 12, dims=2)
    with pytest.warns(CoarseGrid, match=r"12 × 12 nodes is too coarse.*InducingGP"):
        coarse.condition(X, X[:, 0])


def test_means_are_differentiable_and_those_of_the_dense_covariances(rng):
    X, at = uniform(rng, 80, 2), uniform(rng, 3, 4, 2).requires_grad_()
    posterior = GridGP(Matern52, dims=2, noise=0.05).condition(X, surface(X, rng))
    mean = posterior.mean(at)
    assert mean.shape == (3, 4)
    gradients = [
        torch.autograd.grad(values.sum(), at)[0] for values in (mean, posterior.marginals(at)[0])
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(mean.detach(), posterior.marginals(at)[0])
        torch.testing.assert_close(
            posterior.marginals(at)[1], posterior.joint(at)[1].diagonal(dim1=-2, dim2=-1).sqrt()
        )


@pytest.mark.parametrize("rank", [20, 60, 1000])
@EVERY_FACTOR
def test_a_root_on_the_grid_brackets_variances(factors, rank, rng, monkeypatch):
    monkeypatch.setattr("surrogate.models.grid_root._RANK", rank)
    d = len(factors)
    X, new, noise = uniform(rng, 200, d), uniform(rng, 30, d), 0.01 + uniform(rng, 200)
    y = surface(X, rng)
    solver = BBMM(variance_tolerance=math.inf)
    quick = GridGP(factors, 12, bounds=(0, 1), solver=solver)
    exact = GridGP(factors, 12, bounds=(0, 1), solver=Cholesky())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoarseGrid)
        quick, exact = (model.condition(X, y, noise) for model in (quick, exact))
    for _ in range(2):  # then appended to
        variance = exact.marginals(new)[1].square()
        lower, upper = quick.variance_bounds(new)
        assert (lower <= variance + 1e-8).all() and (variance <= upper + 1e-8).all()
        torch.testing.assert_close(quick.marginals(new)[1], upper.sqrt())
        if rank == 1000:
            torch.testing.assert_close(lower, variance, rtol=0.02, atol=1e-4)
            torch.testing.assert_close(upper, variance, rtol=0.02, atol=1e-4)
        quick, exact = (p.append(new[:4], torch.zeros(4)) for p in (quick, exact))


@pytest.mark.parametrize("rank", [20, 1000])
def test_variances_are_as_certain_as_asked_for(rank, rng, monkeypatch):
    monkeypatch.setattr("surrogate.models.grid_root._RANK", rank)
    X, new = uniform(rng, 300, 2), uniform(rng, 5, 6, 2)
    y, factors = surface(X, rng), [Matern52(1, 0.3)] * 2
    posteriors = []
    for solver in (BBMM(variance_tolerance=1e-3), Cholesky()):
        posteriors.append(GridGP(factors, 20, noise=0.05, solver=solver).condition(X, y))
    asked = []
    explain = ProductCache.explain
    monkeypatch.setattr(
        ProductCache, "explain", lambda self, *k: (asked.append(1), explain(self, *k))[1]
    )
    results = []
    for posterior in posteriors:
        at = new.clone().requires_grad_()
        mean, std = posterior.marginals(at)
        (mean.sum() + std.sum()).backward()
        results.append((mean.detach(), std.detach().square(), at.grad))
        with torch.no_grad():
            torch.testing.assert_close(posterior.marginals(new)[1], std.detach())
    (_, v, g), (_, v_exact, g_exact) = results
    assert ((v - v_exact).abs() <= 1e-3 * (v_exact + 0.05)).all()
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(g, g_exact, rtol=0.02, atol=0.02)
    lower, upper = posteriors[0].variance_bounds(new)
    assert (lower <= v_exact + 1e-9).all() and (v_exact <= upper + 1e-9).all()
    assert bool(asked) == (rank == 20)


def test_paths_have_the_moments_of_the_posterior(rng):
    X, new = uniform(rng, 40, 2), uniform(rng, 5, 2)
    posterior = GridGP([RBF(1, 0.4)] * 2, 15, noise=0.05).condition(X, surface(X, rng))
    mean, std = posterior.marginals(new)
    values = posterior.sample_paths(3000, rng, features=1000)(new)
    assert ((values.mean(0) - mean).abs() < 5 * std / 3000**0.5 + 1e-3).all()
    torch.testing.assert_close(values.std(0), std, rtol=0.1, atol=1e-3)


# --------------------------------------------------------------------------------------
# Fits.
# --------------------------------------------------------------------------------------


def test_a_fit_of_two_thousand_rows_finds_the_likelihood_of_an_exact_one(rng):
    X = uniform(rng, 2000, 2)
    y = torch.sin(9 * X[:, 0]) * torch.cos(7 * X[:, 1]) + 0.2 * normal(rng, 2000)
    y = (y - y.mean()) / y.std()
    model = fit(GridGP(Matern52, 50, dims=2), X, y)
    report = model.report
    assert report.solver == "bbmm" and report.storage == "tiles" and report.products > 0
    exact = ExactGP(product([Matern52(1), Matern52(1)]), solver=BBMM())
    hold = [f.kernel.log_variance for f in (exact.kernel.kernel.first, exact.kernel.kernel.second)]
    for parameter in hold:
        parameter.data.zero_()
        parameter.requires_grad_(False)
    exact = fit(exact, X, y)
    # Both at what they found, by the exact likelihood of the product kernel.
    values = []
    for kernel, noise, mean in (
        (model.kernel.on(None), model.noise, model.mean),
        (exact.kernel, exact.noise, exact.mean),
    ):
        with torch.no_grad():
            K_hat = kernel(X, X) + noise * torch.eye(2000).double()
            L = torch.linalg.cholesky(K_hat)
            white = torch.linalg.solve_triangular(L, (y - mean).unsqueeze(1), upper=False)
            value = -0.5 * white.square().sum() - L.diagonal().log().sum()
            values.append(float(value) - 1000 * math.log(2 * math.pi))
    assert values[0] == pytest.approx(values[1], abs=1.0)
    assert report.likelihood.lower - 0.5 <= values[0] <= report.likelihood.upper + 0.5


def test_a_fit_is_the_same_each_time(rng):
    X = uniform(rng, 700, 2)
    y = surface(X, rng)
    models = [fit(GridGP(Matern52, 30, dims=2), X, y) for _ in range(2)]
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(p, q)
    new = uniform(rng, 9, 2)
    first, second = (model.condition(X, y).marginals(new) for model in models)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gradients_of_the_likelihood_reach_the_parameters_of_an_unplaced_model(rng):
    X = uniform(rng, 60, 2)
    y = surface(X, rng)
    found = []
    for bounds in (None, (0, 1)):
        model = GridGP([RBF(1, 0.4)] * 2, 15, bounds=bounds, noise=0.05, solver=Cholesky())
        wanted = [p for p in model.parameters() if p.requires_grad]
        assert len(wanted) == 5
        found.append(torch.autograd.grad(model.log_marginal_likelihood(X, y).value, wanted))
    torch.testing.assert_close(*found)


def test_no_matrix_of_all_pairs_is_made(rng, monkeypatch):
    largest = 0
    evaluate, linearise = GridKernel.evaluate, GridKernel.linearise

    def count(X1: Tensor, X2: Tensor) -> None:
        nonlocal largest
        largest = max(largest, len(X1) * len(X2))

    monkeypatch.setattr(
        GridKernel,
        "evaluate",
        lambda self, X1, X2, *r: (count(X1, X2), evaluate(self, X1, X2, *r))[1],
    )
    monkeypatch.setattr(
        GridKernel,
        "linearise",
        lambda self, X1, X2, *r: (count(X1, X2), linearise(self, X1, X2, *r))[1],
    )
    monkeypatch.setattr(KernelOperator, "matmul", None)
    X = uniform(rng, 5000, 2)
    y = surface(X, rng)
    solver = Auto(fit_from=500, predict_from=2000, bbmm=BBMM(rank=50, block=0, probes=4))
    model = fit(GridGP(Matern52, 30, dims=2, solver=solver), X, y, tolerance=1.0)
    posterior = model.condition(X, y)
    mean, std = posterior.marginals(X[:20])
    assert posterior.info.solver == "bbmm" and posterior.info.weights.converged
    assert (std > 0).all() and (mean - y[:20]).abs().max() < 1
    assert largest <= 1250**2  # the subset that a fit begins with


# --------------------------------------------------------------------------------------
# Where the grid lies.
# --------------------------------------------------------------------------------------


def test_the_grid_lies_over_the_unit_cube_and_the_data(rng):
    X = 1.5 * uniform(rng, 30, 2)
    model = fit(GridGP(RBF, 12, dims=2), X, surface(X, rng))
    for nodes, column in zip(model.grid, X.T, strict=True):
        assert len(nodes) == 18
        assert float(nodes[3]) == pytest.approx(0.0) and float(nodes[-4]) == pytest.approx(
            max(1.0, float(column.max()))
        )
    flat = fit(GridGP(RBF, [12, 7], dims=2, priors="flat-1"), X, surface(X, rng))
    for nodes, column, count in zip(flat.grid, X.T, (12, 7), strict=True):
        torch.testing.assert_close(nodes[3], column.min())
        torch.testing.assert_close(nodes[2 + count], column.max())
    assert GridGP(RBF, dims=2).grid is None


def test_a_fitted_model_keeps_its_grid_and_says_what_is_beyond_it(rng):
    X = uniform(rng, 30, 2)
    model = fit(GridGP(RBF, 12, dims=2), X, surface(X, rng))
    posterior = model.condition(X, X[:, 0])
    assert all(torch.equal(a, b) for a, b in zip(posterior.model.grid, model.grid, strict=True))
    posterior.mean(X + 0.1)  # two steps beyond the bounds
    beyond = torch.tensor([[0.5, 1.3]]).double()
    for ask in (posterior.mean, posterior.marginals, posterior.joint):
        with pytest.raises(ValueError, match=r"column 1 of X goes from 1\.3 to 1\.3"):
            ask(beyond)
    with pytest.raises(ValueError, match="bounds that hold all points"):
        posterior.append(beyond, torch.zeros(1))
    with pytest.raises(ValueError, match="fit it again"):
        model.condition(beyond, torch.zeros(1))
    again = fit(model, torch.cat([X, beyond]), torch.cat([X[:, 0], X[:1, 0]]))
    again.condition(beyond, torch.zeros(1))
    held = GridGP(RBF, 12, dims=2, bounds=[(0, 1), (0, 1)])
    with pytest.raises(ValueError, match="beyond the grid"):
        fit(held, torch.cat([X, beyond]), torch.cat([X[:, 0], X[:1, 0]]))


@pytest.mark.parametrize("priors", ["dimension-scaled-1", "flat-1"])
@pytest.mark.parametrize("solver", [None, BBMM(), Cholesky()], ids=["auto", "bbmm", "cholesky"])
@pytest.mark.parametrize("n", [0, 1, 2, 8])
def test_few_and_equal_observations_are_no_trouble(n, solver, priors, rng):
    X = torch.tensor([[0.3, 0.6]]).double().expand(n, 2)  # duplicates, all of them
    y = torch.linspace(-1, 1, max(n, 1))[:n].double()
    model = fit(GridGP(Matern52, 20, dims=2, priors=priors, noise=0.1, solver=solver), X, y)
    with warnings.catch_warnings():
        # Nothing keeps a lengthscale from 0 where all points are one and there is no prior.
        warnings.simplefilter("ignore" if priors == "flat-1" else "error", CoarseGrid)
        posterior = model.condition(X, y)
    at = torch.tensor([[0.3, 0.6], [0.31, 0.6]]).double()
    mean, std = posterior.marginals(at)
    assert bool(mean.isfinite().all() & (std > 0).all())
    if priors != "flat-1":
        with torch.no_grad():
            k = model.kernel.on(None)
            noise = model.noise.expand(n)
            expected, covariance = gp_prediction(k, X, y, noise, at, float(model.mean))
        torch.testing.assert_close(mean, expected, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(std.square(), covariance.diagonal(), rtol=1e-2, atol=1e-2)
    appended = posterior.append(at, torch.zeros(2))
    assert all(bool(v.isfinite().all()) for v in appended.marginals(at))
    assert math.isfinite(float(model.log_marginal_likelihood(X, y)))


def test_a_copy_of_a_model_has_parameters_of_its_own(rng):
    model = GridGP([Matern52(1, 0.3)] * 2, 12, bounds=(0, 1))
    twin = model.clone()
    twin.kernel.parts[0].log_lengthscale.data.add_(1.0)
    first, second = (part.lengthscale for part in model.kernel.parts)
    torch.testing.assert_close(first, second)
    assert first.tolist() == pytest.approx([0.3])
    assert model.kernel.axes == twin.kernel.axes


# --------------------------------------------------------------------------------------
# At the door.
# --------------------------------------------------------------------------------------


def test_variances_of_factors_are_one_number():
    given = GridGP([RBF(1, 0.3, 2.0), RBF(1, 0.3, 3.0)], variance=0.5)
    assert given.kernel.variance.item() == pytest.approx(3.0)
    assert [p.variance.item() for p in given.kernel.parts] == [1.0, 1.0]
    left_out = GridGP(RBF, dims=2)
    assert left_out.kernel.variance.item() == 1.0
    free = [p for p in left_out.kernel.parameters() if p.requires_grad]
    assert len(free) == 3 and left_out.dims == 2


def test_what_cannot_lie_on_a_grid_is_refused():
    with pytest.raises(ValueError, match=r"1 to 3 inputs.*got 4\. Use InducingGP"):
        GridGP(Matern52, dims=4)
    with pytest.raises(ValueError, match="1 to 3 inputs"):
        GridGP([])
    with pytest.raises(ValueError, match=r"kernel of one input.*no product"):
        GridGP([Matern52(2)])
    with pytest.raises(ValueError, match="kernel of one input"):
        GridGP([RBF(1), Matern52(1, columns=[1])])
    with pytest.raises(ValueError, match="must be stationary"):
        GridGP([Linear(1)])
    with pytest.raises(TypeError, match="must be a Kernel"):
        GridGP([3.0])
    with pytest.raises(ValueError, match="pass dims"):
        GridGP(Matern52)
    with pytest.raises(ValueError, match="leave dims out"):
        GridGP([RBF(1)], dims=2)
    with pytest.raises(ValueError, match="too large"):
        GridGP(RBF, 1000, dims=3)
    for grid in (1, [5], [5, 5, 5]):
        with pytest.raises(ValueError, match="number of nodes of at least 2"):
            GridGP(RBF, grid, dims=2)
    for bounds in ((1, 0), (0, math.inf)):
        with pytest.raises(ValueError, match="low < high"):
            GridGP(RBF, dims=2, bounds=bounds)
    with pytest.raises(ValueError, match="one for each of 2 inputs"):
        GridGP(RBF, dims=2, bounds=[0, 1, 2])
    with pytest.raises(ValueError, match="an axis for each"):
        GridKernel([RBF(1)], axes=[])
    with pytest.raises(ValueError, match="at least one kernel"):
        GridKernel([])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GridGP([Hamming(1), RBF(1)])


def test_inputs_of_another_width_are_refused(rng):
    X = uniform(rng, 9, 3)
    with pytest.raises(ValueError, match="2 column"):
        GridGP(RBF, dims=2).condition(X, X[:, 0])
