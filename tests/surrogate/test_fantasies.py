"""Covariances between points, and beliefs under fantasies, against dense algebra."""

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
    Fantasies,
    GridGP,
    Matern52,
    MultiOutputGP,
    Posterior,
)
from tests.surrogate.helpers import rows
from tests.surrogate.posterior_cases import EVERY_KERNEL, KERNELS, MEAN, data, model_of

LEAST = 1e-10  # of the mean prior variance: the noise of what is known without noise
SMOOTH = [name for name in KERNELS if name != "mixed"]
TIGHT = BBMM(tolerance=1e-11, variance_tolerance=1e-9, rank=30, block=20)
SOLVERS = {
    "cholesky": Cholesky(),
    "products": TIGHT,
    "products, root alone": BBMM(
        tolerance=1e-11, variance_tolerance=math.inf, append_tolerance=math.inf, rank=30, block=20
    ),
    "factor and root": Cholesky(root_from=10),
}
EXACT = ["cholesky", "products"]


def extended(posterior: Posterior, X: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All inputs (n + k, d) and K̂ of them, written out."""
    model, both = posterior.model, torch.cat([posterior.X, X])
    K = model.kernel(both, both)
    least = LEAST * float(K.diagonal().mean())
    added = torch.full((len(X),), least).double() if noise is None else noise
    variances = torch.cat([posterior.noise_variances(), added])
    return both, K + variances.diag()


def dense(
    posterior: Posterior, X: Tensor, Y: Tensor, X_new: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means (S, m), a conditioning for each, and covariance (m, m); differentiable in X_new."""
    model = posterior.model
    both, K = extended(posterior, X, noise)
    k = model.kernel(X_new, both)
    means = []
    for values in Y:
        residual = torch.cat([posterior.y, values]) - model.constant
        means.append(model.constant + k @ torch.linalg.solve(K, residual))
    covariance = model.kernel(X_new, X_new) - k @ torch.linalg.solve(K, k.mT)
    return torch.stack(means), covariance


def small(name: str, rng: torch.Generator, noise: float = 0.02, n: int = 60) -> Posterior:
    """By one of the solvers, or by products at the usual tolerances."""
    X = uniform(rng, n, 3)
    y = torch.sin(6 * X[:, 0]) + X[:, 1] + noise**0.5 * normal(rng, n)
    kernel = Matern52(3, [0.3, 1.0, 2.0], 1.7)
    return ExactGP(kernel, mean=MEAN, noise=noise, solver=SOLVERS.get(name, BBMM())).condition(X, y)


# --------------------------------------------------------------------------------------
# Covariances.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
def test_a_covariance_is_a_block_of_the_joint_one(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X = torch.cat([rows(rng, 6), posterior.X[:2]])
    expected = posterior.joint(X)[1]
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(posterior.covariance(X[:5], X[3:]), expected[:5, 3:], **close)
    held = posterior.covariance_with(X[3:])
    torch.testing.assert_close(held(X[:5]), expected[:5, 3:], **close)
    torch.testing.assert_close(held(X[0]), expected[0, 3:], **close)
    groups = X[:6].reshape(2, 3, 3)
    torch.testing.assert_close(held(groups), expected[:6, 3:].reshape(2, 3, 5), **close)
    torch.testing.assert_close(posterior.covariance(groups, X[3:]), held(groups))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_covariance_is_that_of_the_joint_with_every_solver(name, rng):
    posterior = small(name, rng)
    X = torch.cat([uniform(rng, 8, 3), posterior.X[:2]])
    ours, theirs = posterior.covariance(X[:4], X[2:]), posterior.joint(X)[1][:4, 2:]
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_a_covariance_in_a_complete_table_or_on_a_grid_is_that_of_the_joint(rng):
    X, Y = uniform(rng, 8, 2), normal(rng, 8, 3)
    table = MultiOutputGP(Matern52(2, 0.5), 3).condition(X, Y).long
    assert table.info.solver == "eigenvectors"
    new = table.model.rows(uniform(rng, 3, 2)).flatten(0, 1)
    torch.testing.assert_close(table.covariance(new[:4], new[2:]), table.joint(new)[1][:4, 2:])
    for solver in (Cholesky(), TIGHT):
        grid = GridGP(RBF(1, 0.5), 12, dims=2, bounds=(0.0, 1.0), solver=solver)
        posterior = grid.condition(X, Y[:, 0])
        new = uniform(rng, 6, 2)
        ours, theirs = posterior.covariance(new[:4], new[2:]), posterior.joint(new)[1][:4, 2:]
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_a_covariance_in_both_inputs_match_differences(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X1, X2 = uniform(rng, 4, 3).requires_grad_(), uniform(rng, 2, 3).requires_grad_()
    assert gradcheck(posterior.covariance, (X1, X2))
    assert gradcheck(posterior.covariance, (X1.detach(), X2))
    held = posterior.covariance_with(X2.detach())
    assert gradcheck(held, (X1,))
    G = normal(rng, 4, 2)
    (expected,) = torch.autograd.grad((held(X1) * G).sum(), X1)
    value, pullback = held.linearise(X1.detach())
    torch.testing.assert_close(value, held(X1.detach()))
    torch.testing.assert_close(pullback(G), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "matern12"])  # it has a cusp there
def test_the_gradient_of_a_covariance_of_points_with_themselves_is_that_of_the_joint(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X, G = rows(rng, 4).requires_grad_(), normal(rng, 4, 4)
    (ours,) = torch.autograd.grad((posterior.covariance(X, X) * G).sum(), X)
    (theirs,) = torch.autograd.grad((posterior.joint(X)[1] * G).sum(), X)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_of_a_covariance_are_those_of_the_joint_with_every_solver(name, rng):
    posterior = small(name, rng)
    X1, X2 = uniform(rng, 4, 3).requires_grad_(), uniform(rng, 2, 3).requires_grad_()
    ours = torch.autograd.grad(posterior.covariance(X1, X2).sin().sum(), (X1, X2))
    block = posterior.joint(torch.cat([X1, X2]))[1][:4, 4:]
    theirs = torch.autograd.grad(block.sin().sum(), (X1, X2))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [Cholesky(), BBMM()], ids=["cholesky", "products"])
@pytest.mark.parametrize(("n", "m", "k"), [(0, 3, 2), (5, 0, 2), (5, 3, 0)])
def test_covariances_without_data_or_points_need_no_special_care(solver, n, m, k, rng):
    X, y = data(rng, n)
    posterior = ExactGP(RBF(3, 0.35, 1.0), noise=0.1, solver=solver).condition(X, y)
    X1, X2 = rows(rng, m), rows(rng, k)
    covariance = posterior.covariance(X1, X2)
    assert covariance.shape == (m, k)
    both = torch.cat([X1, X2])
    torch.testing.assert_close(covariance, posterior.joint(both)[1][:m, m:])


# --------------------------------------------------------------------------------------
# Fantasies: values.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("S", [1, 5])
@pytest.mark.parametrize("k", [0, 1, 4])
@EVERY_KERNEL
def test_beliefs_under_fantasies_are_those_of_conditioning_on_each(name, k, S, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X, X_new = uniform(rng, k, 3), uniform(rng, 6, 3)
    Y = posterior.sample(X, S, rng)
    fantasies = posterior.fantasise(X, Y)
    assert isinstance(fantasies, Fantasies) and fantasies.count == S
    assert fantasies.weights.shape == (9 + k, S)
    means, covariance = dense(posterior, X, Y, X_new)
    for mean, std in (fantasies.marginals(X_new), fantasies.linearise(X_new)[:2]):
        assert mean.shape == (S, 6) and std.shape == (6,)
        torch.testing.assert_close(mean, means, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(std, covariance.diagonal().sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        fantasies.covariance(X_new, X_new[:2]), covariance[:, :2], rtol=1e-6, atol=1e-7
    )
    mean, std = fantasies.marginals(X_new.reshape(2, 3, 3))
    assert mean.shape == (S, 2, 3) and std.shape == (2, 3)
    torch.testing.assert_close(mean.flatten(1), means, rtol=1e-6, atol=1e-6)
    assert fantasies.marginals(X_new[0])[0].shape == (S,)
    assert fantasies.marginals(X_new[:0])[0].shape == (S, 0)


@EVERY_KERNEL
def test_fantasised_observations_have_the_noise_they_are_given_or_the_models(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X, Y, X_new = rows(rng, 3), normal(rng, 4, 3), rows(rng, 6)
    noise = torch.tensor([0.3, torch.nan, 0.02]).double()
    fantasies = posterior.fantasise(X, Y, noise)
    known = torch.where(noise.isnan(), posterior.model.noise.detach(), noise)
    means, covariance = dense(posterior, X, Y, X_new, known)
    mean, std = fantasies.marginals(X_new)
    torch.testing.assert_close(mean, means, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(std, covariance.diagonal().sqrt(), rtol=1e-8, atol=1e-9)


def test_the_extended_posterior_expects_what_was_expected_and_is_as_sure_as_each_fantasy(rng):
    posterior = model_of(Matern52(3, 0.8)).condition(*data(rng))
    X, X_new = rows(rng, 3), rows(rng, 7)
    fantasies = posterior.fantasise(X, normal(rng, 4, 3))
    mean, std = fantasies.posterior.marginals(X_new)
    torch.testing.assert_close(mean, posterior.marginals(X_new)[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(std, fantasies.marginals(X_new)[1], rtol=0, atol=0)
    assert fantasies.posterior.info.n == 12


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("solver", [Cholesky(), BBMM()], ids=["cholesky", "products"])
def test_few_observations_or_none_need_no_special_care(solver, n, rng):
    model = ExactGP(RBF(3, 0.35, 1.0), mean=MEAN, noise=0.1, solver=solver)
    posterior = model.condition(*data(rng, n))
    X, Y, X_new = rows(rng, 2), normal(rng, 3, 2), rows(rng, 5)
    means, covariance = dense(posterior, X, Y, X_new)
    mean, std = posterior.fantasise(X, Y).marginals(X_new)
    torch.testing.assert_close(mean, means, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(std, covariance.diagonal().sqrt(), rtol=0.02, atol=1e-5)


def test_candidates_are_taken_a_few_at_a_time(rng, monkeypatch):
    posterior = model_of(Matern52(3, 0.8)).condition(*data(rng))
    fantasies = posterior.fantasise(rows(rng, 2), normal(rng, 4, 2))
    X = rows(rng, 10)
    at_once, covariance = fantasies.marginals(X), fantasies.covariance(X, X[:3])
    monkeypatch.setattr("surrogate.models.differentiated.CHUNK", 33)
    torch.testing.assert_close(fantasies.marginals(X), at_once, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fantasies.covariance(X, X[:3]), covariance, rtol=1e-12, atol=1e-12)


def test_single_precision_is_taken_and_predicted_in_double(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    X, Y, X_new = rows(rng, 2).float(), normal(rng, 4, 2).float(), rows(rng, 5).float()
    received = posterior.fantasise(X, Y).marginals(X_new.requires_grad_())
    assert all(part.dtype == torch.float64 for part in received)
    sum(part.sum() for part in received).backward()
    assert X_new.grad is not None and X_new.grad.dtype == torch.float32 and X_new.grad.any()


# --------------------------------------------------------------------------------------
# Fantasies: gradients.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_in_the_inputs_match_differences(name, k, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    fantasies = posterior.fantasise(uniform(rng, k, 3), normal(rng, 4, k))
    X = uniform(rng, 3, 3).requires_grad_()
    assert gradcheck(fantasies.marginals, (X,), rtol=1e-3, atol=1e-4)
    assert gradcheck(fantasies.covariance, (X, uniform(rng, 2, 3)), rtol=1e-3, atol=1e-4)


@EVERY_KERNEL
def test_linearise_maps_gradients_back_as_autograd_of_the_dense_formulas_does(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X, Y, X_new = rows(rng, 3), normal(rng, 4, 3), rows(rng, 5).requires_grad_()
    noise = torch.full((3,), 1e-3).double()
    fantasies = posterior.fantasise(X, Y, noise)
    by_mean, by_std = normal(rng, 4, 5), normal(rng, 5)
    means, covariance = dense(posterior, X, Y, X_new, noise)
    loss = (by_mean * means).sum() + by_std @ covariance.diagonal().sqrt()
    (expected,) = torch.autograd.grad(loss, X_new)
    _, _, pullback = fantasies.linearise(X_new.detach())
    torch.testing.assert_close(pullback(by_mean, by_std), expected, rtol=1e-7, atol=1e-7)
    mean, std = fantasies.marginals(X_new)
    (received,) = torch.autograd.grad((by_mean * mean).sum() + by_std @ std, X_new)
    torch.testing.assert_close(received, pullback(by_mean, by_std), rtol=1e-12, atol=1e-12)


@EVERY_KERNEL
def test_gradients_at_what_is_known_are_finite(name, rng):
    X, y = data(rng)
    posterior = model_of(KERNELS[name], noise=1e-8).condition(X, y)
    new = rows(rng, 2)
    fantasies = posterior.fantasise(new, posterior.sample(new, 3, rng))
    everywhere = torch.cat([X, new]).requires_grad_()
    mean, std = fantasies.marginals(everywhere)
    (gradient,) = torch.autograd.grad(mean.sum() + std.sum(), everywhere)
    assert gradient.isfinite().all()


def test_without_a_wish_for_gradients_none_are_recorded(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    X, Y = rows(rng, 2).requires_grad_(), normal(rng, 3, 2).requires_grad_()
    fantasies = posterior.fantasise(X, Y)
    parts = (*fantasies.marginals(rows(rng, 2)), fantasies.covariance(*rows(rng, 2, 2)))
    for result in (fantasies.weights, fantasies.posterior.X, *parts):
        assert not result.requires_grad
    with torch.no_grad():
        assert not fantasies.marginals(X)[0].requires_grad
        assert not posterior.covariance(X, X).requires_grad


# --------------------------------------------------------------------------------------
# Fantasies: near what is known.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.05, 1e-4, 1e-8])
@pytest.mark.parametrize("name", ["cholesky", "usual products", "factor and root"])
def test_what_was_fantasised_is_believed_where_it_was(name, noise, rng):
    posterior = small(name, rng, noise)
    X = uniform(rng, 6, 3)
    Y = posterior.sample(X, 20, rng)
    mean, std = posterior.fantasise(X, Y).marginals(X)
    scale = 1.7**0.5
    torch.testing.assert_close(mean, Y, rtol=0, atol=1e-4 * scale)
    assert (std < 2e-5 * scale).all()


@pytest.mark.parametrize("noise", [0.05, 1e-8])
@EVERY_KERNEL
def test_points_on_the_data_and_on_each_other_break_nothing(name, noise, rng):
    X, y = rows(rng, 30), normal(rng, 30)
    if noise < 1e-6:  # what such a model is told: values of a function
        y = model_of(KERNELS[name]).condition(X[:0], y[:0]).sample(X, 1, rng)[0]
    posterior = model_of(KERNELS[name], noise=noise).condition(X, y)
    new = rows(rng, 3)
    doubled = torch.cat([new, X[:4], new, X[2:6], new + 1e-9])
    scale = float(posterior.model.kernel.diagonal(doubled).mean().sqrt())
    Y = posterior.sample(doubled, 8, rng)
    fantasies = posterior.fantasise(doubled, Y)
    mean, std = fantasies.marginals(doubled)
    # The Matérn-1/2 knows points so near each other to half the digits only: see the limits.
    close = {0.05: 1e-3, 1e-8: 0.1}[noise] if name == "matern12" else 1e-4
    torch.testing.assert_close(mean, Y, rtol=0, atol=close * scale)
    assert (std < 1e-3 * scale).all()
    everywhere = rows(rng, 20)
    mean, std = fantasies.marginals(everywhere)
    assert mean.isfinite().all() and std.isfinite().all()
    assert (std <= posterior.marginals(everywhere)[1] + 1e-6).all()


def test_fantasies_that_contradict_each_other_meet_in_the_middle(rng):
    posterior = model_of(Matern52(3, 0.8)).condition(*data(rng))
    x = uniform(rng, 1, 3)
    Y = torch.tensor([[0.0, 1.0], [3.0, -1.0]]).double()
    mean, _ = posterior.fantasise(x.expand(2, 3), Y).marginals(x)
    torch.testing.assert_close(mean.squeeze(1), Y.mean(1), rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------
# Fantasies: what holds on average.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
def test_on_average_over_what_may_turn_out_beliefs_are_those_of_before(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X, X_new = rows(rng, 3), rows(rng, 6)
    before_mean, before_std = posterior.marginals(X_new)
    mean, std = posterior.fantasise(X, posterior.sample(X, 4000, rng)).marginals(X_new)
    assert_mean_within(mean, before_mean)
    assert_mean_within((mean - before_mean).square() + std.square(), before_std.square())


@pytest.mark.parametrize("name", EXACT)
def test_with_every_exact_solver_the_law_of_total_variance_holds_without_samples(name, rng):
    # Of one point, a mean one standard deviation up and one down have the variance of all.
    posterior = small(name, rng)
    x, X_new = uniform(rng, 1, 3), uniform(rng, 9, 3)
    mean, std = posterior.marginals(x)
    means, after = posterior.fantasise(x, torch.stack([mean - std, mean + std])).marginals(X_new)
    before_mean, before_std = posterior.marginals(X_new)
    torch.testing.assert_close(means.mean(0), before_mean, rtol=1e-7, atol=1e-7)
    total = (means - before_mean).square().mean(0) + after.square()
    torch.testing.assert_close(total, before_std.square(), rtol=1e-6, atol=1e-7)
    # cov(x, x')² / v(x'), what is learnt about x from x'.
    learnt = posterior.covariance(X_new, x).squeeze(1).square() / std.square()
    torch.testing.assert_close(total - after.square(), learnt, rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------
# Every way to condition.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.02, 1e-4])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_has_the_same_means_and_stds_that_are_never_too_small(name, noise, rng):
    posterior = small(name, rng, noise)
    X, X_new = uniform(rng, 4, 3), uniform(rng, 15, 3)
    exact = ExactGP(posterior.model.kernel, mean=MEAN, noise=noise, solver=Cholesky())
    exact = exact.condition(posterior.X, posterior.y)
    Y = exact.sample(X, 5, rng)
    expected, sure = exact.fantasise(X, Y).marginals(X_new)
    fantasies = posterior.fantasise(X, Y)
    mean, std = fantasies.marginals(X_new)
    # Weights from a root alone are the best in it.
    close = 2e-2 if name == "products, root alone" else 1e-6
    torch.testing.assert_close(mean, expected, rtol=0, atol=close)
    if name in EXACT:
        torch.testing.assert_close(std, sure, rtol=1e-5, atol=1e-6)
    assert (std >= sure - 1e-8).all() and (std <= posterior.marginals(X_new)[1] + 1e-8).all()
    by_mean, by_std = normal(rng, 5, 15), normal(rng, 15)
    X_new.requires_grad_()
    mean, std = fantasies.marginals(X_new)
    (received,) = torch.autograd.grad((by_mean * mean).sum() + by_std @ std, X_new)
    pullback = fantasies.linearise(X_new.detach())[2]
    torch.testing.assert_close(pullback(by_mean, by_std), received, rtol=1e-9, atol=1e-9)


def test_by_products_at_the_usual_tolerances_means_are_right_to_six_digits(rng):
    X = uniform(rng, 200, 3)
    y = torch.sin(6 * X[:, 0]) + X[:, 1]
    models = [ExactGP(Matern52(3, 0.5), noise=1e-4, solver=s) for s in (BBMM(), Cholesky())]
    products, exact = (model.condition(X, y) for model in models)
    new, X_new = uniform(rng, 5, 3), uniform(rng, 20, 3)
    Y = exact.sample(new, 10, rng)
    mean, std = products.fantasise(new, Y).marginals(X_new)
    expected, sure = exact.fantasise(new, Y).marginals(X_new)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-5)
    assert (std >= sure - 1e-9).all() and (std.square() <= sure.square() + 1e-3).all()
    ours, theirs = (p.covariance(X_new, new) for p in (products, exact))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_fantasies_of_a_complete_table_and_on_a_grid(rng):
    X, Y = uniform(rng, 8, 2), normal(rng, 8, 3)
    model = MultiOutputGP(Matern52(2, 0.5), 3)
    table = model.condition(X, Y).long
    assert table.info.solver == "eigenvectors"
    new, x_new = (table.model.rows(uniform(rng, 2, 2)).flatten(0, 1) for _ in range(2))
    values = table.sample(new, 4, rng)
    means, covariance = dense(table, new, values, x_new)
    mean, std = table.fantasise(new, values).marginals(x_new)
    torch.testing.assert_close(mean, means, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(std, covariance.diagonal().sqrt(), rtol=1e-6, atol=1e-6)
    for solver in (Cholesky(), TIGHT):
        grid = GridGP(RBF(1, 0.5), 12, dims=2, bounds=(0.0, 1.0), solver=solver)
        posterior = grid.condition(X, Y[:, 0])
        new, x_new = uniform(rng, 3, 2), uniform(rng, 4, 2)
        values = posterior.sample(new, 4, rng)
        means, covariance = dense(posterior, new, values, x_new)
        mean, std = posterior.fantasise(new, values).marginals(x_new)
        torch.testing.assert_close(mean, means, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(std, covariance.diagonal().sqrt(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_fantasies_leave_the_posterior_as_it_was(name, rng):
    posterior = small(name, rng)
    X, X_new = uniform(rng, 3, 3), uniform(rng, 5, 3)
    before = posterior.marginals(X_new)
    fantasies = posterior.fantasise(X, normal(rng, 4, 3))
    fantasies.marginals(X_new)
    fantasies.covariance(X_new, X)
    torch.testing.assert_close(posterior.marginals(X_new), before, rtol=0, atol=0)
    assert posterior.info.n == 60 and fantasies.posterior.info.n == 63
    again = posterior.fantasise(X_new[:0], torch.empty(2, 0))
    assert again.posterior is posterior
    torch.testing.assert_close(again.marginals(X_new)[0], before[0].expand(2, 5))


def test_fantasies_may_be_fantasised_upon(rng):
    posterior = model_of(Matern52(3, 0.8)).condition(*data(rng))
    X, Y, X_new = rows(rng, 4), normal(rng, 1, 4), uniform(rng, 5, 3)
    chained = posterior.append(X[:2], Y[0, :2], torch.full((2,), LEAST)).fantasise(X[2:], Y[:, 2:])
    whole = posterior.fantasise(X, Y)
    torch.testing.assert_close(
        chained.marginals(X_new), whole.marginals(X_new), rtol=1e-6, atol=1e-6
    )


# --------------------------------------------------------------------------------------
# Refusals.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (5, 3), (0, 2), (1, 5, 2)])
def test_values_of_another_shape_are_refused(shape, rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    with pytest.raises(ValueError, match=r"Y must have shape \(S, 2\), a row for each fantasy"):
        posterior.fantasise(rows(rng, 2), torch.zeros(shape))


def test_what_is_not_finite_or_has_other_columns_is_refused(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    X, Y = rows(rng, 2), normal(rng, 4, 2)
    with pytest.raises(ValueError, match=r"Y has 8 NaN or infinite value"):
        posterior.fantasise(X, Y * torch.nan)
    with pytest.raises(ValueError, match=r"X has 6 NaN or infinite value"):
        posterior.fantasise(X / 0 * torch.inf, Y)
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        posterior.fantasise(X[:, :2], Y)
    with pytest.raises(ValueError, match=r"noise must hold one variance per observation"):
        posterior.fantasise(X, Y, torch.ones(3))
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        posterior.fantasise(X, Y).marginals(X[:, :2])
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        posterior.covariance(X[:, :2], X)
    with pytest.raises(ValueError, match=r"X2 must have shape \(n, d\)"):
        posterior.covariance(X, X[0])
    with pytest.raises(ValueError, match=r"X2 has 6 NaN or infinite value"):
        posterior.covariance_with(X * torch.nan)
