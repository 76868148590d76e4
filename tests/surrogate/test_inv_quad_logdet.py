"""log N(y; m, K̂), its gradient and its mean, with bounds, against dense algebra; work, counted."""

import math

import pytest
import torch
from oracles import assert_mean_within, normal, spd_matrix, uniform

from surrogate import BBMM, RBF, Matern12, Matern52
from surrogate.operators import Dense, Diagonal, KernelOperator, LinearOperator
from surrogate.solvers import (
    Preconditioner,
    Probes,
    inv_quad_logdet,
    log_marginal_likelihood,
    log_quadratic_forms,
)
from tests.surrogate.helpers import log_density, observations

KERNELS = (RBF, Matern12, Matern52)


class Clustered(Dense):
    """A stored matrix of which a preconditioner may keep blocks."""

    def __init__(self, A, X):
        super().__init__(A)
        self.X = X

    @property
    def coordinates(self):
        return self.X


def evaluate(K, noise, y, options, tolerance=1e-12, lanczos=False, mean: float | None = 0.0):
    system = options.system(K, noise)
    P = system.preconditioner
    probes = Probes.draw(P, options)
    return inv_quad_logdet(
        system.operator, P, probes, y, mean=mean, tolerance=tolerance, lanczos=lanczos, warn=False
    )


# --- The value. ------------------------------------------------------------------------


def test_the_bounds_contain_the_truth_in_200_problems():
    missed = []
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        n = 5 + int(uniform(rng, 1) * 55)
        X, y, noise = observations(
            rng, n, 1 + seed % 3, 10.0 ** -(seed % 5), 10.0 ** (1 - seed % 7)
        )
        K = KERNELS[seed % len(KERNELS)](X.shape[1], 0.1 + float(uniform(rng, 1)))(X, X).detach()
        exact = float(log_density(K + noise.diag(), y))
        for rank, block in ((0, 0), (n // 4, 0), (n // 4, 7), (n, 0)):
            tolerance = 10.0 ** -(1 + seed % 4 * 2)
            solver = BBMM(rank=rank, block=block, seed=seed, training_tolerance=tolerance)
            found = log_marginal_likelihood(Clustered(K, X), noise, y, solver)
            slack = 1e-7 * (n + abs(exact))
            if not found.lower - slack <= exact <= found.upper + slack:
                missed.append((seed, rank, block, exact, str(found)))
            assert found.lower <= float(found) <= found.upper
    assert not missed


def test_the_bounds_close_when_nothing_is_left_to_chance(rng):
    X, y, noise = observations(rng)
    K = Matern52(2, 0.5)(X, X).detach()
    widths = []
    for rank in (0, 5, 15, 40):
        solver = BBMM(rank=rank, training_tolerance=1e-8)
        found = log_marginal_likelihood(Dense(K), noise, y, solver)
        widths.append(found.half_width)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 2e-2
    assert found.standard_error < 1e-2
    assert float(found) == pytest.approx(float(log_density(K + noise.diag(), y)), abs=1e-2)


def test_the_quadratic_form_is_bracketed_however_rough_the_solve(rng):
    X, y, noise = observations(rng)
    for kernel in KERNELS:
        K = kernel(2, 0.5)(X, X).detach()
        exact = float(y @ torch.linalg.solve(K + noise.diag(), y))
        for rank, block in ((0, 0), (10, 0), (10, 7)):
            gaps = []
            for tolerance in (1.0, 0.5, 0.1, 1e-2, 1e-5):
                options = BBMM(rank=rank, block=block)
                low, high = evaluate(Clustered(K, X), noise, y, options, tolerance).quadratic()
                assert low <= exact * (1 + 1e-9) and exact <= high * (1 + 1e-9)
                gaps.append(high - low)
            assert gaps[-1] < 1e-5 * exact < gaps[0]


def test_each_probe_estimates_the_log_determinant_without_bias(rng):
    X, y, noise = observations(rng, 30)
    K = Matern12(2, 0.3)(X, X).detach()
    exact = torch.logdet(K + noise.diag())
    for rank, block in ((0, 0), (10, 0), (10, 6)):
        options = BBMM(rank=rank, block=block, probes=4000)
        solved = evaluate(Clustered(K, X), noise, y, options, lanczos=True)
        assert solved.lanczos is not None
        P = solved.preconditioner
        each = log_quadratic_forms(solved.lanczos, P.floor)[1][2:]
        assert_mean_within(P.logdet() + each, exact)
        value, lower, upper, error = solved.logdet()
        assert error == pytest.approx(float(each.std()) / 4000**0.5, rel=1e-3)
        assert lower <= float(exact) <= upper
        assert value == pytest.approx(float(exact), abs=5 * error)


def test_a_length_that_does_not_vary_makes_probes_better(rng):
    X, _, noise = observations(rng, 50)
    K_hat = Matern12(2, 0.2)(X, X).detach() + noise.diag()
    P = Preconditioner(Dense(K_hat), 0 * noise + 1e-3, BBMM(rank=0).structure(Dense(K_hat), noise))
    probes = Probes.draw(P, BBMM(probes=2000))
    torch.testing.assert_close((probes.Z * probes.U).sum(0), torch.full((2000,), 50.0).double())
    torch.testing.assert_close(probes.Z, probes.U * 1e-3)
    assert_mean_within(torch.einsum("is,js->sij", probes.Z, probes.U), torch.eye(50).double(), 5.0)
    values, vectors = torch.linalg.eigh(K_hat / 1e-3)
    G = vectors.T @ probes.Z / 1e-3**0.5
    lengthless = (G.square() * values.log().unsqueeze(1)).sum(0).std()
    normal_ones = (2 * values.log().square().sum()).sqrt()
    assert 2 * float(lengthless) < float(normal_ones)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("options", [BBMM(), BBMM(rank=0, block=0)], ids=["default", "bare"])
def test_the_smallest_data_have_a_likelihood(n, options, rng):
    X, y, noise = observations(rng, n)
    K = RBF(2, 0.5)(X, X).detach()
    found = log_marginal_likelihood(Clustered(K, X), noise, y, options)
    exact = float(log_density(K + noise.diag(), y)) if n else 0.0
    assert found.lower - 1e-6 <= exact <= found.upper + 1e-6
    assert math.isfinite(found.half_width)


@pytest.mark.parametrize("options", [BBMM(), BBMM(rank=10, block=0), BBMM(rank=10, block=9)])
def test_degenerate_data_have_finite_likelihoods(options, rng):
    X = uniform(rng, 20, 2)
    X = torch.cat([X, X]) + 1e6
    for noise in (1e-2, 1e-6, 1e-10):
        for y in (torch.zeros(40).double(), torch.ones(40).double(), torch.sin(9 * X[:, 0])):
            variances = torch.full((40,), noise, dtype=torch.float64)
            found = log_marginal_likelihood(KernelOperator(RBF(2, 0.5), X), variances, y, options)
            exact = float(log_density(RBF(2, 0.5)(X, X).detach() + variances.diag(), y))
            assert math.isfinite(float(found))
            slack = 1e-3 * (40 + abs(exact)) if noise < 1e-8 else 1e-7 * (40 + abs(exact))
            assert found.lower - slack <= exact <= found.upper + slack


def test_an_operator_that_only_multiplies_has_a_likelihood_too(rng):
    class Products(LinearOperator):
        n = 30

        def matmul(self, V):
            return K @ V

    K = spd_matrix(torch.logspace(-3, 0, 30, dtype=torch.float64), rng)
    y, noise = normal(rng, 30), torch.tensor(0.1, dtype=torch.float64)
    found = log_marginal_likelihood(Products(), noise, y, BBMM(rank=0))
    exact = float(log_density(K + 0.1 * torch.eye(30), y))
    assert found.lower <= exact <= found.upper
    assert found.half_width < 10


# --- The gradient. ---------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "block"), [(0, 0), (10, 0), (40, 0), (0, 8), (10, 8)])
def test_each_probe_estimates_the_gradient_without_bias(rank, block, rng):
    X, y, noise = observations(rng)
    lengthscale = torch.tensor(0.4, dtype=torch.float64)

    def covariance(x):
        return Matern52(2)(X / x, X / x).detach()

    dK = (covariance(lengthscale + 1e-5) - covariance(lengthscale - 1e-5)) / 2e-5
    K = covariance(lengthscale)
    inverse = torch.linalg.inv(K + noise.diag())
    solved = evaluate(Clustered(K, X), noise, y, BBMM(rank=rank, block=block, probes=4000))
    alpha = inverse @ y
    torch.testing.assert_close(solved.alpha, alpha, rtol=1e-6, atol=1e-6)
    # Of the lengthscale, and of each observation's noise; probe by probe.
    A, B = solved.bilinear
    by_length = 4000 * ((dK @ B) * A)[:, 1:].sum(0)
    assert_mean_within(by_length, -0.5 * (inverse * dK).sum())
    assert_mean_within(4000 * (A * B)[:, 1:].T, -0.5 * inverse.diagonal())
    form = 0.5 * alpha @ dK @ alpha
    torch.testing.assert_close(((dK @ B) * A)[:, 0].sum(), form, rtol=1e-6, atol=1e-6)


def test_the_gradient_is_that_of_the_estimate_where_it_was_preconditioned(rng):
    # With P and the probes held fixed, the value is a smooth function of the parameters.
    X, y, noise = observations(rng)
    options = BBMM(rank=40, block=0, probes=3)
    at = KernelOperator(Matern52(2, 0.5), X)
    P = Preconditioner(at, noise, options.structure(at, noise))
    probes = Probes.draw(P, options)

    def solved(x):
        K = KernelOperator(Matern52(2, 0.5 * math.exp(x)), X)
        return K, inv_quad_logdet(
            K + Diagonal(noise), P, probes, y, mean=0.0, tolerance=1e-12, lanczos=True, warn=False
        )

    def value(x):
        _, found = solved(x)
        assert found.lanczos is not None
        logdet = log_quadratic_forms(found.lanczos, 0.5)[1][2:].mean()
        return -0.5 * (float(logdet) + found.quadratic()[0])

    K, found = solved(0.0)
    slope = float(K.pullback(*found.bilinear)[0].sum())
    assert slope == pytest.approx((value(1e-4) - value(-1e-4)) / 2e-4, rel=1e-5)


def test_autograd_reaches_parameters_noise_and_targets(rng):
    X, y, noise = observations(rng, 30, least=1e-2)
    kernel = Matern52(2, 0.5)
    y.requires_grad_(True)
    noise.requires_grad_(True)
    solver = BBMM(rank=12, probes=5000, training_tolerance=1e-10)
    inputs = [*kernel.parameters(), noise, y]
    found = log_marginal_likelihood(Dense(kernel(X, X)), noise, y, solver)
    exact = log_density(kernel(X, X) + noise.diag(), y)
    gradients = torch.autograd.grad(found.value, inputs)
    for got, expected in zip(gradients, torch.autograd.grad(exact, inputs), strict=True):
        torch.testing.assert_close(
            got, expected, rtol=0.05, atol=0.02 * float(expected.abs().max())
        )
    torch.testing.assert_close(
        gradients[-1], -torch.linalg.solve(kernel(X, X) + noise.diag(), y).detach()
    )
    with torch.no_grad():
        plain = log_marginal_likelihood(Dense(kernel(X, X)), noise, y, solver)
    assert not plain.value.requires_grad
    assert float(plain) == float(found)


def test_one_noise_variance_for_all_gets_the_sum_of_their_gradients(rng):
    X, y, _ = observations(rng, 20)
    K, noise = RBF(2, 0.5)(X, X).detach(), torch.tensor(0.05, dtype=torch.float64)
    each = noise.repeat(20).requires_grad_(True)
    noise.requires_grad_(True)
    for value in (noise, each):
        log_marginal_likelihood(Dense(K), value, y).value.backward()
    assert noise.grad is not None and each.grad is not None
    torch.testing.assert_close(noise.grad, each.grad.sum())


def test_two_evaluations_are_equal_to_the_bit_and_another_seed_is_not(rng):
    X, y, noise = observations(rng)
    K = KernelOperator(Matern52(2, 0.5), X)
    first, second, other = (
        evaluate(K, noise, y, BBMM(rank=10, block=8, seed=seed), 1e-2, lanczos=True)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.solved, second.solved)
    assert first.logdet() == second.logdet()
    assert all(map(torch.equal, first.bilinear, second.bilinear))
    assert not torch.equal(first.bilinear[1], other.bilinear[1])


# --- The mean. -------------------------------------------------------------------------


def test_a_mean_left_out_is_the_most_likely_one(rng):
    X, y, noise = observations(rng)
    y = y + 3.0
    K = KernelOperator(Matern52(2, 0.5), X)
    inverse = torch.linalg.inv(K.rows(torch.arange(40)) + noise.diag())
    best = float((inverse @ y).sum() / inverse.sum())
    for tolerance, accuracy in ((1e-1, 1e-2), (1e-2, 1e-4), (1e-10, 1e-9)):
        solved = evaluate(K, noise, y, BBMM(rank=10, block=0), tolerance, mean=None)
        assert solved.mean == pytest.approx(best, rel=accuracy)
    torch.testing.assert_close(solved.alpha, inverse @ (y - best))
    empty = evaluate(KernelOperator(RBF(2, 0.5), X[:0]), noise[:0], y[:0], BBMM(), mean=None)
    assert empty.mean == 0.0


def test_the_mean_of_a_rough_warm_solve_is_right_to_second_order(rng):
    X, y, noise = observations(rng, 120, 3)
    y = y + 3.0
    options = BBMM(rank=15, block=0)
    before, K = (KernelOperator(Matern52(3, length), X) for length in (0.5, 0.55))
    P = options.system(before, noise).preconditioner
    probes, guess = Probes.draw(P, options), None
    for operator in (before, K):
        solved = inv_quad_logdet(operator + Diagonal(noise), P, probes, y, guess=guess)
        guess = solved.solved
    inverse = torch.linalg.inv(K.rows(torch.arange(120)) + noise.diag())
    best = float((inverse @ y).sum() / inverse.sum())
    assert solved.mean == pytest.approx(best, rel=3e-5)  # the tolerance is 1e-2
    by_y, by_one = solved.solved[:, :2].sum(0).tolist()
    assert by_y / by_one != pytest.approx(best, rel=3e-5)


# --- Products, counted. ----------------------------------------------------------------


def reference(name, rng, n=300):
    """Kernel, inputs and noise of five problems as they come."""
    even = torch.full((n,), 1.0, dtype=torch.float64)
    if name == "smooth":
        return RBF(2, 0.4), uniform(rng, n, 2), 1e-6 * even
    if name == "rough":
        return Matern12(4, 0.7), uniform(rng, n, 4), 1e-2 * even
    if name == "duplicates":
        return Matern52(4, 0.7), uniform(rng, n // 3, 4).repeat(3, 1), 1e-4 * even
    if name == "uneven noise":
        return Matern52(4, 0.7), uniform(rng, n, 4), 1e-5 * 10 ** (5 * uniform(rng, n))
    centres = uniform(rng, n // 5, 4).repeat(5, 1)
    return Matern52(4, 0.2), centres + 0.02 * normal(rng, n, 4), 1e-5 * even


def products(name, rng, **options):
    """Of a solve for likelihood and gradient, and of one for weights."""
    kernel, X, noise = reference(name, rng)
    system = BBMM(**options).system(KernelOperator(kernel, X), noise)
    y = torch.sin(5 * X.sum(1))
    train = evaluate(system.K, noise, y, system.options, 1e-2, lanczos=True).info
    predict = system.solve(y.unsqueeze(1)).info
    return train.products, predict.products


@pytest.mark.parametrize(
    ("name", "train", "predict"),
    [
        ("smooth", 6, 11),
        ("rough", 8, 18),
        ("duplicates", 8, 12),
        ("uneven noise", 14, 29),
        ("clusters", 12, 22),
    ],
)
def test_products_to_convergence_stay_within_a_budget(name, train, predict, rng):
    used = products(name, rng, rank=40, block=50)
    assert used[0] <= train and used[1] <= predict, used


def test_clusters_halve_the_products_where_neighbours_are_what_rank_cannot_hold(rng):
    state = rng.get_state()
    without = products("clusters", rng, rank=40, block=0)
    rng.set_state(state)
    with_blocks = products("clusters", rng, rank=40, block=50)
    assert 2 * with_blocks[0] <= without[0]
    assert 2 * with_blocks[1] <= without[1]
