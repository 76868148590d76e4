"""Values and gradients observed together, against derivatives found by autograd."""

import math

import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import Tensor
from torch.autograd import gradcheck

from surrogate import (
    BBMM,
    RBF,
    Cholesky,
    ExactGP,
    GradientGP,
    Matern32,
    Matern52,
    WithGradients,
    fit,
)
from surrogate.models.gradients import GradientPaths

NAN = math.nan
BASES = {"rbf": RBF(2, [0.5, 0.8], 1.4), "matern52": Matern52(2, [0.5, 0.8], 1.4)}
EVERY_BASE = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


def rows(X: Tensor) -> Tensor:
    """A value and both derivatives at each point."""
    which = torch.arange(3).double().repeat(len(X)).unsqueeze(1)
    return torch.cat([X.repeat_interleave(3, 0), which], 1)


def derivative(base, a: Tensor, i: int, b: Tensor, j: int) -> float:
    """∂_i ∂'_j k(a, b), by autograd through a formula in δ that is smooth where it can be."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    k = base(a.unsqueeze(0), b.unsqueeze(0))[0, 0]
    if i:
        k = torch.autograd.grad(k, a, create_graph=True)[0][i - 1]
    if j:
        k = torch.autograd.grad(k, b)[0][j - 1]
    return float(k.detach())


@EVERY_BASE
def test_entries_are_derivatives_of_the_kernel(base, rng):
    X1, X2 = rows(uniform(rng, 3, 2)), rows(uniform(rng, 4, 2))
    K = WithGradients(base, offset=0.7)(X1, X2).detach()
    for a, row in enumerate(X1):
        for b, column in enumerate(X2):
            i, j = int(row[2]), int(column[2])
            expected = derivative(base, row[:2], i, column[:2], j) + (0.7 if i == j == 0 else 0.0)
            assert float(K[a, b]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@EVERY_BASE
def test_law_symmetric_positive_definite_and_of_the_diagonal_it_says(base, rng):
    kernel, X = WithGradients(base, offset=0.7), rows(uniform(rng, 8, 2))
    K = kernel(X, X).detach()
    torch.testing.assert_close(K, K.T, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(K).min() > -1e-9
    torch.testing.assert_close(K.diagonal(), kernel.diagonal(X).detach())
    out = torch.empty(24, 24, dtype=torch.float64)
    torch.testing.assert_close(kernel.evaluate(X, X, out), K)
    batched = kernel(X.view(4, 6, 3), X[:5])
    torch.testing.assert_close(batched, kernel(X, X[:5]).view(4, 6, 5))


@EVERY_BASE
def test_gradients_in_the_parameters_match_differences(base, rng):
    kernel, X = WithGradients(base, offset=0.7), rows(uniform(rng, 4, 2))
    G, step = normal(rng, 12, 12), 1e-6
    found = torch.cat([g.flatten() for g in kernel.pullback(X, X, G)])
    expected = []
    with torch.no_grad():
        for p in kernel.parameters():
            for i in range(p.numel()):
                sums = []
                for sign in (1, -1):
                    p.view(-1)[i] += sign * step
                    sums.append(float((kernel(X, X) * G).sum()))
                    p.view(-1)[i] -= sign * step
                expected.append((sums[0] - sums[1]) / (2 * step))
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)


@EVERY_BASE
def test_random_features_have_the_kernel_as_their_mean_product(base, rng):
    kernel, X = WithGradients(base, offset=0.7), rows(uniform(rng, 2, 2))
    products = []
    for _ in range(2000):
        phi = kernel.features(20, rng)(X)
        products.append(phi @ phi.T)
    assert_mean_within(torch.stack(products), kernel(X, X).detach())


def data(rng: torch.Generator, n: int = 10) -> tuple[Tensor, Tensor]:
    X = uniform(rng, n, 2).requires_grad_()
    f = torch.sin(4 * X[:, 0]) * (1 + X[:, 1])
    (slope,) = torch.autograd.grad(f.sum(), X)
    return X.detach(), torch.cat([f.detach().unsqueeze(1), slope], 1)


@pytest.mark.parametrize("solver", [Cholesky(), BBMM(tolerance=1e-11, variance_tolerance=1e-9)])
def test_the_posterior_is_that_of_the_dense_covariance(solver, rng):
    X, Y = data(rng)
    Y[2, 1], Y[5] = NAN, NAN
    model = GradientGP(BASES["matern52"], noise=(0.01, 0.04), solver=solver)
    posterior, new = model.condition(X, Y), uniform(rng, 5, 2)
    there = ~Y.flatten().isnan()
    A = rows(X)[there]
    noise = torch.where(A[:, 2] > 0, 0.04, 0.01).double()
    with torch.no_grad():
        Khat = model.kernel(A, A) + noise.diag()
        k = model.kernel(rows(new), A)
        mean = k @ torch.linalg.solve(Khat, Y.flatten()[there])
        variance = model.kernel(rows(new), rows(new)) - k @ torch.linalg.solve(Khat, k.T)
    mean, std = mean.view(5, 3), variance.diagonal().sqrt().view(5, 3)
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(posterior.marginals(new), (mean[:, 0], std[:, 0]), **close)
    torch.testing.assert_close(posterior.gradient(new), (mean[:, 1:], std[:, 1:]), **close)
    torch.testing.assert_close(posterior.joint(new)[1], variance[::3, ::3], **close)
    noisy = (std[:, 0].square() + 0.01).sqrt()
    torch.testing.assert_close(posterior.predictive(new)[1], noisy, **close)
    assert posterior.info.n == int(there.sum())
    assert posterior.sample(new, 7, rng).shape == (7, 5)


def test_the_mean_gradient_is_the_gradient_of_the_mean(rng):
    X, Y = data(rng)
    posterior = GradientGP(BASES["rbf"]).condition(X, Y)
    new = uniform(rng, 4, 2).requires_grad_()
    (slope,) = torch.autograd.grad(posterior.marginals(new)[0].sum(), new)
    torch.testing.assert_close(posterior.gradient(new)[0].detach(), slope, rtol=1e-7, atol=1e-9)


def test_gradients_that_are_told_make_predictions_better(rng):
    X, Y = data(rng, 14)
    Y = Y / Y[:, 0].std()
    new, truth = data(rng, 100)
    truth = truth[:, 0] / data_scale(rng)
    with_gradients = fit(GradientGP(Matern52(2), priors="flat-1"), X, Y)
    without = fit(ExactGP(Matern52(2), priors="flat-1"), X, Y[:, 0])
    X_new, Y_new = new, truth
    errors = [
        float((m.condition(X, y).marginals(X_new)[0] - Y_new).square().mean())
        for m, y in ((with_gradients, Y), (without, Y[:, 0]))
    ]
    assert errors[0] < 0.1 * errors[1]
    assert with_gradients.report.n == 42
    assert with_gradients.noise.shape == (2,)


def data_scale(rng: torch.Generator) -> float:
    """Of the targets of the test above, drawn anew from the same seed."""
    again = torch.Generator().manual_seed(0)
    return float(data(again, 14)[1][:, 0].std())


def test_values_alone_and_appended_gradients_are_taken_too(rng):
    X, Y = data(rng)
    model = GradientGP(BASES["matern52"], noise=0.01)
    values = torch.cat([Y[:, :1], torch.full((10, 2), NAN)], 1)
    torch.testing.assert_close(
        model.condition(X, Y[:, 0]).marginals(X), model.condition(X, values).marginals(X)
    )
    gradients = torch.cat([torch.full((10, 1), NAN), Y[:, 1:]], 1)
    appended = model.condition(X, Y[:, 0]).append(X, gradients)
    torch.testing.assert_close(
        appended.marginals(X), model.condition(X, Y).marginals(X), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(("budget", "storage"), [(10**6, "float64"), (0, "tiles")])
def test_a_large_set_of_gradients_is_multiplied_by_its_points(budget, storage, rng, monkeypatch):
    monkeypatch.setattr("surrogate.operators.gradients.default_budget", lambda: budget)
    X, Y = data(rng, 60)
    posterior = GradientGP(BASES["rbf"], noise=0.01, solver=BBMM(tolerance=1e-8)).condition(X, Y)
    assert posterior.info.storage == storage
    exact = GradientGP(BASES["rbf"], noise=0.01, solver=Cholesky()).condition(X, Y)
    torch.testing.assert_close(posterior.marginals(X)[0], exact.marginals(X)[0], rtol=0, atol=1e-5)


def test_a_large_set_of_few_gradients_is_multiplied_in_tiles(rng):
    X, Y = data(rng, 60)
    Y[6:, 1:] = NAN
    solver = BBMM(budget=0, tolerance=1e-8)
    posterior = GradientGP(BASES["rbf"], noise=0.01, solver=solver).condition(X, Y)
    assert posterior.info.storage == "tiles"
    exact = GradientGP(BASES["rbf"], noise=0.01, solver=Cholesky()).condition(X, Y)
    torch.testing.assert_close(posterior.marginals(X)[0], exact.marginals(X)[0], rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------
# Sample paths.
# --------------------------------------------------------------------------------------


def posterior_of(base, rng: torch.Generator, noise: tuple[float, float] = (0.05, 0.2)):
    """Of a value and gradients at a few points, some missing."""
    X, Y = data(rng, 5)
    Y[1, 0], Y[2, 1:] = NAN, NAN
    return GradientGP(base, noise=noise).condition(X, Y), X, Y


def numbers(paths: GradientPaths, X: Tensor) -> Tensor:
    """A value and both derivatives at each point, as `rows` has them: (count, 3 m)."""
    return torch.cat([paths(X).unsqueeze(-1), paths.gradient(X)], -1).flatten(1)


@EVERY_BASE
def test_over_many_draws_paths_have_the_mean_and_covariance_of_the_posterior(base, rng):
    posterior, X, _ = posterior_of(base, rng)
    X = torch.cat([uniform(rng, 3, 2), X[:1]])
    mean, covariance = posterior.long.joint(rows(X))
    means, products = [], []
    for _ in range(300):
        off = numbers(posterior.sample_paths(64, rng, features=64), X) - mean
        means.append(off.mean(0))
        products.append(off.T @ off / 64)
    assert_mean_within(torch.stack(means), 0.0)
    assert_mean_within(torch.stack(products), covariance)


@EVERY_BASE
def test_the_gradient_of_a_path_is_that_of_its_values(base, rng):
    f, X = posterior_of(base, rng)[0].sample_paths(3, rng, features=32), uniform(rng, 4, 2)
    assert f.count == 3 and f(X).shape == (3, 4) and f.gradient(X).shape == (3, 4, 2)
    own = uniform(rng, 3, 4, 2).requires_grad_()
    (slopes,) = torch.autograd.grad(f(own).sum(), own)
    torch.testing.assert_close(f.gradient(own).detach(), slopes, rtol=1e-7, atol=1e-9)
    for i in range(3):
        torch.testing.assert_close(f(own)[i], f(own[i])[i])
        torch.testing.assert_close(f.gradient(own)[i], f.gradient(own[i])[i])
    assert gradcheck(f, (X.requires_grad_(),))
    assert gradcheck(f.gradient, (X,))


def test_the_same_generator_state_gives_the_same_paths(rng):
    posterior, X, _ = posterior_of(BASES["rbf"], rng)
    first, second = (
        numbers(posterior.sample_paths(3, torch.Generator().manual_seed(1)), X) for _ in range(2)
    )
    assert torch.equal(first, second)


@EVERY_BASE
def test_paths_go_through_observations_without_noise(base, rng):
    posterior, X, Y = posterior_of(base, rng, (1e-8, 1e-8))
    values, there = numbers(posterior.sample_paths(5, rng), X), ~Y.flatten().isnan()
    expected = Y.flatten()[there].expand(5, -1)
    torch.testing.assert_close(values[:, there], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("solver", [Cholesky(), BBMM(tolerance=1e-11)])
def test_paths_are_drawn_by_any_solver(solver, rng):
    X, Y = data(rng)
    paths = GradientGP(BASES["rbf"], noise=(0.01, 0.04), solver=solver).condition(X, Y)
    drawn = numbers(paths.sample_paths(3, torch.Generator().manual_seed(1)), X)
    exact = GradientGP(BASES["rbf"], noise=(0.01, 0.04), solver=Cholesky()).condition(X, Y)
    expected = numbers(exact.sample_paths(3, torch.Generator().manual_seed(1)), X)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)


def test_points_that_are_not_those_of_paths_are_refused(rng):
    f = posterior_of(BASES["rbf"], rng)[0].sample_paths(4, rng, features=16)
    for ask in (f, f.gradient):
        for wrong in (uniform(rng, 3, 2, 2), uniform(rng, 1, 4, 2, 2), uniform(rng, 2)):
            with pytest.raises(ValueError, match=r"X must have shape \(m, d\) or \(4, m, d\); got"):
                ask(wrong)
        with pytest.raises(ValueError, match=r"2 column\(s\)"):
            ask(uniform(rng, 3, 3))


def test_what_does_not_fit_together_is_refused(rng):
    X, Y = data(rng)
    model = GradientGP(RBF(2))
    with pytest.raises(TypeError, match=r"RBF or a Matern52.*got Matern32"):
        GradientGP(Matern32(2))  # pyright: ignore
    with pytest.raises(ValueError, match="leave out columns"):
        WithGradients(RBF(1, columns=[0]))
    with pytest.raises(ValueError, match=r"2 derivative\(s\).*shape \(10, 3\).*got \(10, 2\)"):
        model.condition(X, Y[:, :2])
    with pytest.raises(ValueError, match=r"the shape \(10, 3\) of y"):
        model.condition(X, Y, torch.ones(10))
    with pytest.raises(ValueError, match=r"2 column\(s\)"):
        model.condition(X, Y).marginals(X[:, :1])
    with pytest.raises(ValueError, match=r"0 for a value and 1 … 2 .* got \[3.0\]"):
        model.kernel(rows(X) + torch.tensor([0, 0, 1.0]), rows(X))
    with pytest.raises(ValueError, match=r"\[x, i\], 3 columns; got 2"):
        model.kernel(X, X)
