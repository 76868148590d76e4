"""Sparse regression by inducing points, against the same formulas with all matrices written out."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from oracles import assert_mean_within, central_difference, normal, uniform
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from surrogate import (
    RBF,
    ExactGP,
    Hamming,
    InducingGP,
    Kernel,
    Matern32,
    Matern52,
    UnscaledData,
    fit,
    prior_set,
)
from surrogate.models import collapsed as collapsed_module
from surrogate.models.noise import NoisePerTask
from surrogate.models.objective import ExactObjective, Parameters
from surrogate.solvers import Cholesky
from tests.surrogate.helpers import Polynomial, log_density, prediction_by_cholesky, rows

MEAN, NOISE, JITTER = 0.7, 0.05, 1e-10
KERNELS = {
    "matern52": lambda: Matern52(3, [0.3, 1.0, 2.0], 1.7),
    "mixed": lambda: Matern52(2, 0.5, columns=[0, 1]) * (1.3 * Hamming(1, 0.7, columns=[2])),
    "sum": lambda: RBF(3, 0.5, 0.4) + Matern32(1, 0.2, columns=[0]),
    "not stationary": lambda: 0.3 * Polynomial(0.5) + Matern52(3, 0.8, 1.0),
}
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)
EVERY_MODEL = pytest.mark.parametrize("fitc", [False, True], ids=["bound", "FITC"])
NOISES = {"one noise": lambda: NOISE, "one per task": lambda: NoisePerTask(2, noise=[0.02, 0.2])}
EVERY_NOISE = pytest.mark.parametrize("noise", NOISES)


def data(rng: torch.Generator, n: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets, and noise given for a third of them; the last column is 0 or 1."""
    X = rows(rng, n)
    X[:, -1] = (X[:, -1] > 0.3).double()
    given = torch.full((n,), torch.nan, dtype=torch.float64)
    given[::3] = 0.3
    return X, torch.sin(5 * X[:, 0]) + X[:, 1] * X[:, 2] + MEAN + 0.2 * normal(rng, n), given


def model_of(inducing, name: str = "matern52", noise: str = "one noise", **options) -> InducingGP:
    return InducingGP(KERNELS[name](), inducing, mean=MEAN, noise=NOISES[noise](), **options)


def exact_of(model: InducingGP) -> ExactGP:
    """The same beliefs, without inducing points."""
    return ExactGP(model.kernel, mean=MEAN, noise=model.noise_model, solver=Cholesky())


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few dozen rows make several pieces, none of which divides n."""
    monkeypatch.setattr(collapsed_module, "_ENTRIES", 1)
    monkeypatch.setattr(collapsed_module, "_FEWEST", 7)


def parts(model: InducingGP, Z: Tensor, X: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, Q + D and what is left of K on its diagonal, written out."""
    K_ZZ = model.kernel(Z, Z)
    K_ZZ = K_ZZ + JITTER * K_ZZ.diagonal().diag()
    K_ZX = model.kernel(Z, X)
    Q = K_ZX.T @ torch.linalg.inv(K_ZZ) @ K_ZX
    left = model.kernel(X, X).diagonal() - Q.diagonal()
    D = model.noise_variances(X, noise) + (left if model.fitc else 0.0)
    return Q, Q + D.diag(), left


def dense_bound(model: InducingGP, Z: Tensor, X: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    _, covariance, left = parts(model, Z, X, noise)
    value = log_density(covariance, y - model.mean)
    return value if model.fitc else value - 0.5 * (left / model.noise_variances(X, noise)).sum()


def dense_prediction(
    model: InducingGP, Z: Tensor, X: Tensor, y: Tensor, noise: Tensor, X_new: Tensor
) -> tuple[Tensor, Tensor]:
    """What Q + D says of f from its covariances Q with y, and k(x, x') of f with itself."""
    with torch.no_grad():
        n, both = len(X), torch.cat([X, X_new])
        unused = torch.ones(len(X_new), dtype=torch.float64)
        Q = parts(model, Z, both, torch.cat([noise, unused]))[0][n:, :n]
        W = torch.linalg.inv(parts(model, Z, X, noise)[1])
        mean = model.mean + Q @ W @ (y - model.mean)
        return mean, model.kernel(X_new, X_new) - Q @ W @ Q.T


# --------------------------------------------------------------------------------------
# The bound.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
@EVERY_NOISE
@EVERY_MODEL
def test_the_bound_is_that_of_dense_algebra(name, noise, fitc, rng, small_pieces):
    X, y, given = data(rng)
    model = model_of(X[:8] + 0.01, name, noise, fitc=fitc)
    for some in (given, torch.full_like(given, torch.nan)):
        expected = dense_bound(model, model.inducing_points, X, y, some)
        estimate = model.log_marginal_likelihood(X, y, some)
        torch.testing.assert_close(estimate.value, expected, rtol=1e-9, atol=1e-9)


@EVERY_KERNEL
@EVERY_MODEL
def test_points_at_all_the_data_give_the_exact_likelihood_and_posterior(name, fitc, rng):
    X, y, given = data(rng)
    model = model_of(X, name, fitc=fitc)
    exact = exact_of(model)
    close = {"rtol": 1e-6, "atol": 1e-6}
    found = model.log_marginal_likelihood(X, y, given)
    expected = exact.log_marginal_likelihood(X, y, given)
    torch.testing.assert_close(found.value, expected.value, **close)
    ours, theirs = model.condition(X, y, given), exact.condition(X, y, given)
    new = torch.cat([rows(rng, 5), X[:3]])
    torch.testing.assert_close(ours.marginals(new), theirs.marginals(new), **close)
    torch.testing.assert_close(ours.predictive(new), theirs.predictive(new), **close)
    torch.testing.assert_close(ours.joint(new), theirs.joint(new), **close)
    torch.testing.assert_close(ours.fitted(), theirs.fitted(), **close)
    if not fitc:
        assert ours.gap < 1e-6


@EVERY_KERNEL
@EVERY_NOISE
def test_the_likelihood_is_between_the_bounds_which_close_as_points_are_added(name, noise, rng):
    X, y, given = data(rng)
    X = X[torch.randperm(len(X), generator=rng)]
    found = []
    for M in (1, 3, 8, 15, 30):
        model = model_of(X[:M], name, noise)
        found.append(model.log_marginal_likelihood(X, y, given))
    exact = float(exact_of(model).log_marginal_likelihood(X, y, given))
    for few, more in itertools.pairwise(found):
        assert few.lower <= more.lower + 1e-6
    assert all(e.lower <= exact + 1e-6 and exact <= e.upper + 1e-6 for e in found)
    assert all(float(e) == e.lower for e in found)
    assert found[-1].half_width < 1e-5


def test_the_upper_bound_is_that_of_dense_algebra(rng, small_pieces):
    X, y, given = data(rng)
    model = model_of(X[:8])
    _, covariance, left = parts(model, X[:8], X, given)
    wide = covariance + left.sum() * torch.eye(len(X))
    r = y - MEAN
    expected = -0.5 * (r @ torch.linalg.solve(wide, r) + torch.logdet(covariance))
    expected = expected - 0.5 * len(X) * math.log(2 * math.pi)
    upper = model.log_marginal_likelihood(X, y, given).upper
    assert upper == pytest.approx(float(expected.detach()), rel=1e-9)


def test_fitc_claims_no_bounds(rng):
    X, y, given = data(rng)
    estimate = model_of(X[:8], fitc=True).log_marginal_likelihood(X, y, given)
    assert (estimate.lower, estimate.upper) == (-math.inf, math.inf)


# --------------------------------------------------------------------------------------
# Its gradients.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
@EVERY_NOISE
@EVERY_MODEL
@pytest.mark.parametrize("learn", [False, True], ids=["points stay", "points learnt"])
def test_gradients_in_closed_form_are_those_of_autograd(
    name, noise, fitc, learn, rng, small_pieces
):
    X, y, given = data(rng)
    model = model_of(X[:8] + 0.01, name, noise, fitc=fitc, learn_inducing=learn)
    parameters = [*model.searched_parameters(), model.constant]
    assert (model.inducing_points is parameters[-2]) == learn
    ours = torch.autograd.grad(model.log_marginal_likelihood(X, y, given).value, parameters)
    dense = dense_bound(model, model.inducing_points, X, y, given)
    theirs = torch.autograd.grad(dense, parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@EVERY_MODEL
def test_what_is_added_to_the_diagonal_has_its_part_in_the_gradient(fitc, rng, monkeypatch):
    monkeypatch.setattr(collapsed_module, "_JITTER", 0.1)
    monkeypatch.setitem(globals(), "JITTER", 0.1)
    X, y, given = data(rng)
    model = model_of(X[:8], "not stationary", fitc=fitc)
    parameters = model.searched_parameters()
    ours = torch.autograd.grad(model.log_marginal_likelihood(X, y, given).value, parameters)
    theirs = torch.autograd.grad(dense_bound(model, X[:8], X, y, given), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_noise_too_small_to_work_with_has_no_gradient(rng):
    X, y, _ = data(rng)
    found = []
    for noise in (1e-12, 1e-13):
        model = InducingGP(Matern52(3, 0.5, 1.0), X[:8], noise=noise)
        found.append(model.log_marginal_likelihood(X, y).value)
        assert float(torch.autograd.grad(found[-1], model.noise_model.log_noise)[0]) == 0.0
    assert torch.equal(*found)


@EVERY_MODEL
@pytest.mark.parametrize("learn", [False, True], ids=["points stay", "points learnt"])
def test_the_objective_of_a_fit_has_the_gradient_that_differences_find(fitc, learn, rng):
    X, y, given = data(rng)
    model = model_of(X[:5] + 0.01, fitc=fitc, learn_inducing=learn)
    parameters = Parameters(model)
    objective = ExactObjective(parameters, X, y, given, Cholesky())
    at = parameters.position() + 0.1
    assert len(at) == 5 + 15 * learn  # m is always the most likely one
    value, gradient = objective(at)
    expected = central_difference(lambda u: objective(u)[0], at)
    torch.testing.assert_close(
        torch.from_numpy(gradient), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
    )
    assert objective(at)[0] == value


def test_the_mean_of_a_fit_is_that_of_generalised_least_squares(rng, small_pieces):
    X, y, given = data(rng)
    for fitc in (False, True):
        model = model_of(X[:5], fitc=fitc)
        value, gradients, jitter = model.evaluator(X, y, given, Cholesky(), best_mean=True)()
        W = torch.linalg.inv(parts(model, X[:5], X, given)[1])
        assert model.mean.item() == pytest.approx(((W @ y).sum() / W.sum()).item(), rel=1e-9)
        assert float(gradients[-1]) == pytest.approx(0.0, abs=1e-9)
        assert value == pytest.approx(float(model.log_marginal_likelihood(X, y, given)), rel=1e-12)
        assert jitter == 0.0


def test_noise_that_is_given_has_no_gradient_and_frozen_parameters_are_left(rng):
    X, y, _ = data(rng)
    model = model_of(X[:5])
    model.kernel.requires_grad_(False)
    value = model.log_marginal_likelihood(X, y, torch.full_like(y, 0.1)).value
    by_noise = torch.autograd.grad(value, model.noise_model.log_noise)[0]
    assert float(by_noise) == 0.0
    model.requires_grad_(False)
    assert not model.log_marginal_likelihood(X, y).value.requires_grad


# --------------------------------------------------------------------------------------
# The posterior.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
@EVERY_NOISE
@EVERY_MODEL
def test_the_posterior_is_that_of_dense_algebra(name, noise, fitc, rng, small_pieces):
    X, y, given = data(rng)
    model = model_of(X[:8] + 0.01, name, noise, fitc=fitc)
    posterior = model.condition(X, y, given)
    new = torch.cat([rows(rng, 4), X[:2], X[:8] + 0.01])
    new[:, -1] = (new[:, -1] > 0.3).double()
    mean, covariance = dense_prediction(model, model.inducing_points, X, y, given, new)
    close = {"rtol": 1e-8, "atol": 1e-8}
    found = posterior.marginals(new)
    torch.testing.assert_close(found[0], mean, **close)
    torch.testing.assert_close(found[1].square(), covariance.diagonal(), **close)
    torch.testing.assert_close(posterior.joint(new), (mean, covariance), **close)
    variances = covariance.diagonal() + model.noise_model(new).detach()
    torch.testing.assert_close(posterior.predictive(new)[1].square(), variances, **close)
    fitted, _ = dense_prediction(model, model.inducing_points, X, y, given, X)
    torch.testing.assert_close(posterior.fitted(), fitted, **close)
    lower, upper = posterior.variance_bounds(new)
    assert torch.equal(lower, upper)
    torch.testing.assert_close(found[1], upper.sqrt())


@EVERY_KERNEL
def test_marginals_and_joints_can_be_differentiated(name, rng):
    X, y, given = data(rng)
    posterior = model_of(X[:8], name).condition(X, y, given)
    fixed, reals = rows(rng, 3), uniform(rng, 3, 2).requires_grad_()

    def at(x: Tensor) -> Tensor:
        return torch.cat([x, fixed[:, 2:]], 1)

    assert gradcheck(lambda x: posterior.marginals(at(x)), (reals,))
    assert gradcheck(lambda x: posterior.joint(at(x)), (reals,))
    mean, std, pullback = posterior.linearise(at(reals.detach()))
    torch.testing.assert_close((mean, std), posterior.marginals(at(reals.detach())))
    x = reals.detach().clone().requires_grad_()
    (2 * posterior.marginals(at(x))[0] - posterior.marginals(at(x))[1]).sum().backward()
    by_hand = pullback(torch.full((3,), 2.0).double(), torch.full((3,), -1.0).double())
    torch.testing.assert_close(by_hand[:, :2], x.grad)


@EVERY_KERNEL
@EVERY_NOISE
@EVERY_MODEL
def test_rows_appended_are_as_if_they_had_been_there(name, noise, fitc, rng, small_pieces):
    X, y, given = data(rng, 40)
    model = model_of(X[:8], name, noise, fitc=fitc)
    whole = model.condition(X, y, given)
    first = model.condition(X[:21], y[:21], given[:21])
    new = rows(rng, 6)
    new[:, -1] = (new[:, -1] > 0.3).double()
    before = first.marginals(new)
    grown = first.append(X[21:25], y[21:25], given[21:25]).append(X[25:], y[25:], given[25:])
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(grown.marginals(new), whole.marginals(new), **close)
    torch.testing.assert_close(grown.joint(new), whole.joint(new), **close)
    torch.testing.assert_close(grown.fitted(), whole.fitted(), **close)
    assert grown.gap == pytest.approx(whole.gap, rel=1e-9)
    assert grown.info == whole.info
    assert torch.equal(grown.X, X) and torch.equal(grown.y, y)
    assert torch.equal(first.marginals(new)[0], before[0]), "the old one stays as it was"


@pytest.mark.parametrize("n", [0, 20])
def test_over_many_draws_paths_have_the_mean_and_covariance_of_the_posterior(n, rng):
    X, y, given = data(rng, 20)
    posterior = model_of(X[:6], "sum").condition(X[:n], y[:n], given[:n])
    new = torch.cat([rows(rng, 4), X[:2]])
    mean, covariance = posterior.joint(new)
    means, products = [], []
    for _ in range(300):
        off = posterior.sample_paths(64, rng, features=64)(new) - mean
        means.append(off.mean(0))
        products.append(off.T @ off / 64)
    assert_mean_within(torch.stack(means), 0.0)
    assert_mean_within(torch.stack(products), covariance)


def test_samples_have_the_mean_and_covariance_of_the_posterior(rng):
    X, y, given = data(rng)
    posterior, new = model_of(X[:6]).condition(X, y, given), rows(rng, 4)
    mean, covariance = posterior.joint(new)
    off = posterior.sample(new, 4000, rng) - mean
    assert_mean_within(off, 0.0)
    assert_mean_within(off.unsqueeze(1) * off.unsqueeze(2), covariance)


def test_paths_are_differentiable_functions_and_the_same_from_the_same_generator(rng):
    X, y, given = data(rng)
    posterior, new = model_of(X[:6]).condition(X, y, given), rows(rng, 4)
    f, g = (posterior.sample_paths(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(f(new), g(new)) and f.count == 3
    assert gradcheck(f, (new.clone().requires_grad_(),))


def test_a_posterior_says_how_it_was_made_and_how_much_the_points_leave_out(rng):
    X, y, given = data(rng)
    few, many = (model_of(X[:M]).condition(X, y, given) for M in (3, 20))
    info = few.info
    assert (info.solver, info.rank, info.n, info.jitter) == ("inducing points", 3, 30, 0.0)
    assert info.reason == "3 points for 30 observations, by the collapsed bound"
    _, _, left = parts(few.model, X[:3], X, given)
    expected = 0.5 * float((left / few.model.noise_variances(X, given)).mean())
    assert few.gap == pytest.approx(expected, rel=1e-8)
    assert few.gap > many.gap > 0
    assert repr(few) == "InducingPosterior(n=30, d=3, points=3)"
    assert not any(p.requires_grad for p in few.model.parameters())


# --------------------------------------------------------------------------------------
# Which points.
# --------------------------------------------------------------------------------------


def test_points_are_distinct_rows_of_the_data_and_the_same_ones_every_time(rng):
    X, y, _ = data(rng, 50)
    model = model_of(12, seed=3)
    assert model.inducing_points is None
    posterior = model.condition(X, y)
    Z = posterior.model.inducing_points
    assert model.inducing_points is None, "the model stays as it is"
    assert Z.shape == (12, 3) and len(Z.unique(dim=0)) == 12
    assert all((z == X).all(1).any() for z in Z)
    assert torch.equal(Z, copy.deepcopy(model).condition(X, y).points)
    assert not torch.equal(Z, model_of(12, seed=4).condition(X, y).points)
    with torch.no_grad():
        expected = model_of(Z).log_marginal_likelihood(X, y)
    assert float(model.log_marginal_likelihood(X, y)) == float(expected)


def test_points_chosen_leave_less_out_than_the_first_rows_do(rng):
    X, y, _ = data(rng, 200)
    chosen, first = (model_of(Z).condition(X, y).gap for Z in (20, X[:20]))
    assert chosen < first


def test_where_rows_repeat_or_say_the_same_there_are_fewer_points_or_any(rng):
    X, y, _ = data(rng, 10)
    twice = model_of(50).condition(X.repeat(2, 1), y.repeat(2))
    assert len(twice.points) == 10 == twice.info.rank
    assert len(twice.points.unique(dim=0)) == 10
    # One long wave: two or three pivots explain all, others are taken for later parameters.
    long = InducingGP(RBF(3, 1e3), 8, noise=NOISE).condition(X, y)
    assert len(long.points.unique(dim=0)) == 8
    assert all(v.isfinite().all() for v in long.marginals(X))


def test_points_that_repeat_are_no_harm(rng):
    X, y, given = data(rng)
    once, thrice = (model_of(Z) for Z in (X[:6], X[:6].repeat(3, 1)))
    values = [float(m.log_marginal_likelihood(X, y, given)) for m in (once, thrice)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    found = [m.condition(X, y, given).marginals(X) for m in (once, thrice)]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------------------------
# Fits.
# --------------------------------------------------------------------------------------


def smooth(rng: torch.Generator, n: int = 150) -> tuple[Tensor, Tensor]:
    X = uniform(rng, n, 2)
    y = torch.sin(6 * X[:, 0]) + X[:, 1] + 0.1 * normal(rng, n)
    return X, y - y.mean()


def test_a_fit_with_enough_points_finds_what_an_exact_one_finds(rng):
    X, y = smooth(rng)
    model, exact = (fit(m(Matern52(2), **o), X, y, tolerance=1e-6) for m, o in (
        (InducingGP, {"inducing": 80}), (ExactGP, {}),
    ))  # fmt: skip
    report = model.report
    assert (report.solver, report.n, report.products) == ("inducing points", 150, 0)
    assert report.reason == "80 points for 150 observations, by the collapsed bound"
    assert report.converged and report.gradient_norm < 0.05
    assert report.value == pytest.approx(exact.report.value, abs=0.3)
    assert report.likelihood.lower == float(report.likelihood)
    assert report.likelihood.lower <= float(exact.log_marginal_likelihood(X, y)) + 1e-6
    assert float(model.log_marginal_likelihood(X, y)) == pytest.approx(
        report.log_marginal_likelihood, abs=1e-8
    )
    assert model.inducing_points.shape == (80, 2)
    assert torch.equal(model.condition(X, y).points, model.inducing_points)
    new = uniform(rng, 20, 2)
    torch.testing.assert_close(
        model.condition(X, y).marginals(new), exact.condition(X, y).marginals(new),
        rtol=0, atol=0.02,
    )  # fmt: skip


def test_the_model_given_to_a_fit_stays_as_it_is_and_fits_are_the_same(rng):
    X, y = smooth(rng)
    model = InducingGP(Matern52(2), 10)
    before = copy.deepcopy(model.state_dict())
    found = [fit(model, X, y) for _ in range(2)]
    assert model.inducing_points is None and model.report is None
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found[0].report.value == found[1].report.value
    assert torch.equal(found[0].inducing_points, found[1].inducing_points)


@EVERY_MODEL
def test_points_that_are_learnt_reach_a_higher_bound(fitc, rng):
    X, y = smooth(rng)
    values = []
    for learn in (False, True):
        model = InducingGP(Matern52(2), 6, learn_inducing=learn, fitc=fitc)
        fitted = fit(model, X, y)
        assert fitted.inducing_points.requires_grad == learn
        values.append(fitted.report.value)
    assert values[1] > values[0] + 1
    again = fit(fitted, X, y, restart=False, max_evaluations=1)
    assert torch.equal(again.inducing_points, fitted.inducing_points), "where the next fit starts"
    posterior = fitted.condition(X, y)
    assert torch.equal(posterior.points, fitted.inducing_points)
    assert not posterior.points.requires_grad


def test_a_fit_of_a_fitted_model_goes_on_from_points_learnt_and_chooses_others_anew(rng):
    X, y = smooth(rng)
    still = fit(InducingGP(Matern52(2), 10, learn_inducing=False), X[:60], y[:60])
    anew = fit(still, X, y)
    assert all((z == X).all(1).any() for z in anew.inducing_points)
    assert not torch.equal(anew.inducing_points, still.inducing_points)
    first = fit(InducingGP(Matern52(2), 10), X[:60], y[:60])
    second = fit(first, X, y)
    moved = (second.inducing_points - first.inducing_points).abs().max()
    assert 0 < moved < 0.5
    given = fit(InducingGP(Matern52(2), X[:10]), X, y)
    assert torch.equal(given.inducing_points, X[:10])
    assert second.report.value > anew.report.value > given.report.value


def evaluations_by_size(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, bool], int]:
    """How often a bound of so many rows was evaluated, with the gradient in points or without."""
    counts: dict[tuple[int, bool], int] = {}
    original = collapsed_module.Collapsed.gradients

    def gradients(self, r, *, points):
        counts[len(r), points] = counts.get((len(r), points), 0) + 1
        return original(self, r, points=points)

    monkeypatch.setattr(collapsed_module.Collapsed, "gradients", gradients)
    return counts


@pytest.mark.parametrize("learn", [False, True])
def test_a_fit_asks_some_of_the_rows_before_it_asks_all(learn, rng, monkeypatch):
    monkeypatch.setattr("surrogate.models.inducing_start._SUBSET", 100)
    X, y = smooth(rng, 2500)
    counts = evaluations_by_size(monkeypatch)
    fitted = fit(InducingGP(Matern52(2), 20, learn_inducing=learn), X, y)
    assert {n for n, _ in counts} == {200, 800, 2500}
    assert fitted.report.evaluations == counts[2500, learn]
    assert counts[2500, learn] <= (40 if learn else 20)
    monkeypatch.setattr("surrogate.models.inducing_start._PER_POINT", 2500)
    at_once = fit(InducingGP(Matern52(2), 20, learn_inducing=learn), X, y)
    assert fitted.report.value > at_once.report.value - (1 if learn else 0.1)


def test_a_fitted_model_in_a_bad_basin_is_led_out_of_it(rng, monkeypatch):
    """What fitted earlier data says nothing of these; without `restart` it is believed."""
    X = uniform(rng, 300, 1)
    y = torch.sin(60 * X[:, 0])
    slow = fit(InducingGP(RBF(1), 40), X, X[:, 0] + 0.3 * normal(rng, 300))
    assert slow.kernel.lengthscale.item() > 0.5
    found = fit(slow, X, y)
    assert found.kernel.lengthscale.item() < 0.1
    assert found.report.value > fit(slow, X, y, restart=False).report.value + 50


def test_a_single_observation_chooses_no_points(rng):
    X, y = smooth(rng)
    model = fit(InducingGP(Matern52(2), 10), X[:1], y[:1])
    assert model.inducing_points is None
    assert len(model.condition(X, y).points) == 10


def test_points_are_chosen_at_parameters_that_suit_the_data(rng, monkeypatch):
    """A model that starts with far too long lengthscales first sees what an exact fit says."""
    monkeypatch.setattr("surrogate.models.inducing_start._SUBSET", 100)
    X = uniform(rng, 400, 1)
    y = torch.sin(40 * X[:, 0]) + 0.1 * normal(rng, 400)
    model = fit(InducingGP(RBF(1, 5.0), 30), X, y)
    assert model.kernel.lengthscale.item() < 0.1
    assert model.noise.item() == pytest.approx(0.01, rel=0.3)
    assert model.condition(X, y).gap < 0.01


def test_parameters_that_are_frozen_stay(rng):
    X, y = smooth(rng)
    model = InducingGP(Matern52(2, 0.4, 1.0), 10, learn_inducing=True, noise=0.02, mean=0.1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="all parameters of the model are frozen"):
        fit(model, X, y)
    model.kernel.requires_grad_(True)
    fitted = fit(model, X, y)
    assert fitted.noise.item() == pytest.approx(0.02) and fitted.mean.item() == 0.1
    assert not fitted.noise_model.log_noise.requires_grad
    assert not torch.equal(fitted.kernel.lengthscale, model.kernel.lengthscale)
    moved = InducingGP(Matern52(2, 0.4, 1.0), X[:5], learn_inducing=True, noise=0.02)
    for part in (moved.kernel, moved.noise_model):
        part.requires_grad_(False)
    moved.constant.requires_grad_(False)
    fitted = fit(moved, X, y)
    assert not torch.equal(fitted.inducing_points, X[:5])
    assert torch.equal(fitted.kernel.lengthscale, moved.kernel.lengthscale)


def test_inducing_points_have_no_prior(rng):
    X, _ = smooth(rng)
    plain, learnt = (InducingGP(Matern52(2), X[:5], learn_inducing=f) for f in (False, True))
    assert len(plain.log_priors().low) == 4 and len(learnt.log_priors().low) == 14
    u = torch.zeros(14).double().numpy()
    there, gradient = learnt.log_priors().log_density(u)
    assert there == plain.log_priors().log_density(u[:4])[0]
    assert not gradient[4:].any()
    assert learnt.is_lengthscale() == [True, True] + [False] * 12


def test_noise_that_is_given_stays_out_of_what_is_learnt(rng):
    X, y = smooth(rng)
    noise = torch.full_like(y, torch.nan)
    noise[:50] = 4.0
    y = torch.where(noise.isnan(), y, y + 2 * normal(rng, len(y)))
    model = fit(InducingGP(Matern52(2), 40), X, y, noise=noise)
    assert model.noise.item() == pytest.approx(0.01, rel=0.5)


def test_data_in_other_units_are_warned_of_once(rng):
    X, y = smooth(rng, 30)
    with pytest.warns(UnscaledData) as caught:
        fit(InducingGP(Matern52(2), 10), 100 * X, y)
    assert len(caught) == 1
    model = fit(InducingGP(Matern52(2), 10, priors="flat-1"), 100 * X, y)
    assert model.priors is prior_set("flat-1")


def test_a_fitted_model_can_be_pickled_and_copied(rng):
    X, y = smooth(rng, 40)
    model = fit(InducingGP(Matern52(2), 10), X, y)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.clone()):
        assert torch.equal(twin.inducing_points, model.inducing_points)
        assert torch.equal(twin.condition(X, y).fitted(), model.condition(X, y).fitted())


# --------------------------------------------------------------------------------------
# Limits.
# --------------------------------------------------------------------------------------


def degenerate(name: str, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None, float]:
    X, y, _ = data(rng, 24)
    return {
        "no observation": (X[:0], y[:0], None, NOISE),
        "one observation": (X[:1], y[:1], None, NOISE),
        "two observations": (X[:2], y[:2], None, NOISE),
        "every point twice": (X.repeat(2, 1), y.repeat(2), None, NOISE),
        "twice, and not equal": (X.repeat(2, 1), torch.cat([y, -y]), None, NOISE),
        "all points the same": (X[:1].expand(24, 3), y, None, NOISE),
        "constant targets": (X, torch.full_like(y, 2.5), None, NOISE),
        "a dead input": (X * torch.tensor([1.0, 0.0, 1.0]), y, None, NOISE),
        "shifted by a million": (X + torch.tensor([1e6, 1e6, 0.0]), y, None, NOISE),
        "hardly any noise": (X, y, None, 1e-10),
        "without noise": (X.repeat(2, 1), y.repeat(2), torch.zeros(48).double(), NOISE),
    }[name]


DEGENERATE = [
    "no observation",
    "one observation",
    "two observations",
    "every point twice",
    "twice, and not equal",
    "all points the same",
    "constant targets",
    "a dead input",
    "shifted by a million",
    "hardly any noise",
    "without noise",
]


@pytest.mark.parametrize("case", DEGENERATE)
@EVERY_MODEL
def test_degenerate_data_give_finite_answers(case, fitc, rng):
    X, y, noise, level = degenerate(case, rng)
    model = InducingGP(Matern52(3, 0.5), 10, noise=level, fitc=fitc, mean=MEAN)
    assert float(model.log_marginal_likelihood(X, y, noise)) == float(
        model.log_marginal_likelihood(X, y, noise)
    )
    posterior = model.condition(X, y, noise)
    new = torch.cat([rows(rng, 3), X[:2]])
    mean, std = posterior.marginals(new)
    assert mean.isfinite().all() and std.isfinite().all()
    # What rounding leaves of 1 where the data leave nothing.
    assert (std >= 0).all() and (std <= 1 + 1e-6).all()
    assert posterior.fitted().isfinite().all() and len(posterior.fitted()) == len(y)
    assert posterior.sample_paths(2, rng, features=16)(new).isfinite().all()
    assert len(posterior.points) == min(10, len(X.unique(dim=0)))


@pytest.mark.parametrize("case", DEGENERATE)
def test_fits_of_degenerate_data_come_to_an_end(case, rng):
    X, y, noise, _ = degenerate(case, rng)
    model = fit(InducingGP(Matern52(3), 10, priors="flat-1"), X, y, noise=noise)
    assert math.isfinite(model.report.value)
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.condition(X, y, noise).fitted().isfinite().all()


def test_without_data_there_is_the_prior_and_points_are_chosen_with_the_first_rows(rng):
    X, y, _ = data(rng)
    model = model_of(10)
    empty = model.condition(X[:0], y[:0])
    mean, std = empty.marginals(X)
    torch.testing.assert_close(mean, torch.full_like(mean, MEAN))
    torch.testing.assert_close(std.square(), torch.full_like(std, 1.7))
    assert empty.info.rank == 0 and empty.gap == 0.0
    torch.testing.assert_close(empty.append(X, y).marginals(X), model.condition(X, y).marginals(X))
    assert float(model.log_marginal_likelihood(X[:0], y[:0])) == 0.0


class Largest(TorchDispatchMode):
    """Remembers the most entries that a tensor made meanwhile had."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, Tensor):
                self.entries = max(self.entries, t.untyped_storage().nbytes() // 8)
        return out


class Own(Kernel):
    """What a user writes."""

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return (-torch.cdist(X1, X2).square()).exp()


@pytest.mark.parametrize("kernel", [Matern52(2, 0.3), Own()], ids=["stationary", "a user's own"])
@EVERY_MODEL
def test_no_matrix_of_the_size_of_all_the_data_is_ever_made(kernel, fitc, rng, monkeypatch):
    n, M = 2000, 12
    monkeypatch.setattr("surrogate.models.inducing_start._SUBSET", 50)
    X, y = smooth(rng, n)
    with Largest() as largest:
        model = fit(InducingGP(kernel, M, fitc=fitc), X, y, max_evaluations=4)
        posterior = model.condition(X, y)
        posterior.marginals(X[:500])
        posterior.fitted()
        posterior.append(X, y)
    # `random_pivots` looks at 64 rows of K at once.
    assert largest.entries <= 64 * n


def test_pieces_of_the_data_are_small_where_they_are_many(rng, small_pieces):
    X, y = smooth(rng, 500)
    model = InducingGP(Matern52(2, 0.3), X[:12], noise=NOISE)
    with Largest() as largest:
        posterior = model.condition(X, y)
        posterior.fitted()
    assert largest.entries <= 2 * len(X)  # X itself


def test_errors_say_what_to_do(rng):
    X, y, _ = data(rng)
    with pytest.raises(ValueError, match="at least 1 inducing point; got 0"):
        InducingGP(Matern52(3), 0)
    with pytest.raises(ValueError, match=r"inducing must have 3 column\(s\)"):
        InducingGP(Matern52(3), X[:5, :2])
    with pytest.raises(ValueError, match="inducing must have shape"):
        InducingGP(Matern52(3), X[0])
    with pytest.raises(ValueError, match="inducing must have at least one row"):
        InducingGP(Matern52(3), X[:0])
    with pytest.raises(ValueError, match="inducing has 1 NaN"):
        InducingGP(Matern52(3), X[:1].index_fill(1, torch.tensor([1]), torch.nan))
    # A kernel that takes any number of columns learns it from the points.
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        InducingGP(Polynomial(0.5), X[:5]).condition(X[:, :2], y)
    with pytest.raises(ValueError, match="y must have one value per row"):
        model_of(5).condition(X, y[:-1])
    posterior = model_of(5).condition(X, y)
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        posterior.marginals(X[:, :2])
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        posterior.append(X[:, :2], y)
    with pytest.raises(ValueError, match="q points"):
        posterior.joint(X[0])
    with pytest.raises(TypeError, match="has no random features"):
        InducingGP(Own(), 5).condition(X, y).sample_paths(2, rng)


def test_with_too_few_points_a_posterior_is_less_certain_never_more(rng):
    """Far from the few points there are it falls back to the prior."""
    X, y = smooth(rng, 100)
    model = InducingGP(RBF(2, 0.1), X[:3], noise=0.01)
    far = X[((X.unsqueeze(1) - X[:3]).norm(dim=2).amin(1) > 0.45)]
    _, std = model.condition(X, y).marginals(far)
    _, exact = prediction_by_cholesky(model, X, y, far, 0.0)
    assert len(far) and (std > 0.99).all() and (exact.diagonal() < 0.9).all()
