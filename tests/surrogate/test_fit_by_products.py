"""Likelihoods and fits by products, against those of a Cholesky factor."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import Tensor

from surrogate import (
    BBMM,
    RBF,
    Auto,
    Cholesky,
    ExactGP,
    Hamming,
    Kernel,
    LogNormal,
    Matern12,
    Matern52,
    Prior,
    PriorSet,
    fit,
    positive_parameter,
)
from surrogate.models.covariance import kept_as
from surrogate.models.objective import Parameters, ProductObjective
from tests.surrogate.helpers import rows


class Own(Kernel):
    """What a user writes."""

    def __init__(self) -> None:
        super().__init__()
        self.log_width = positive_parameter("width", 0.4)

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        squares = (X1.unsqueeze(-2) - X2.unsqueeze(-3)).square().sum(-1)
        return (-squares / self.log_width.exp()).exp()


KERNELS = {
    "matern52": Matern52(3, [0.3, 1.0, 2.0], 1.7),
    "mixed": RBF(2, 0.5, columns=[0, 1]) * (1.3 * Hamming(1, 0.7, columns=[2])),
    "sum": RBF(3, 0.5, 0.4) + Matern12(1, 0.4, columns=[0]),
    "a user's own": 0.8 * Own(),
}
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)


def data(rng: torch.Generator, n: int = 60, noise: float = 0.02) -> tuple[Tensor, Tensor]:
    """Inputs as `rows` has them; targets standardised."""
    X = rows(rng, n)
    f = torch.sin(5 * X[:, 0]) + 2 * X[:, 1] ** 2 + X[:, 2]
    return X, (f - f.mean()) / f.std() + noise**0.5 * normal(rng, n)


def model_of(name: str, solver) -> ExactGP:
    return ExactGP(KERNELS[name], mean=0.3, noise=0.02, solver=solver)


def gradient(value: Tensor, model: ExactGP) -> Tensor:
    """In all parameters, as one vector."""
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))])


def density(model: ExactGP, X: Tensor, y: Tensor) -> float:
    """Log likelihood plus log prior, by a Cholesky factor."""
    model = model.clone()
    model.solver = Cholesky()
    parameters = [*model.kernel.parameters(), model.noise_model.log_noise]
    at = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
    return float(model.log_marginal_likelihood(X, y)) + model.log_priors().log_density(at)[0]


# --------------------------------------------------------------------------------------
# The likelihood.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True], ids=["learnt noise", "given noise"])
@EVERY_KERNEL
def test_the_exact_likelihood_is_within_the_bounds_of_the_one_by_products(name, given, rng):
    X, y = data(rng)
    noise = torch.full((60,), torch.nan).double()
    if given:
        noise[::3] = 0.1
    exact = float(model_of(name, Cholesky()).log_marginal_likelihood(X, y, noise))
    for options in ({}, {"block": 15, "rank": 10}, {"block": 0, "rank": 10}):
        estimate = model_of(name, BBMM(**options)).log_marginal_likelihood(X, y, noise)
        assert estimate.lower - 1e-6 <= exact <= estimate.upper + 1e-6
        assert estimate.lower <= float(estimate) <= estimate.upper
        assert abs(float(estimate) - exact) <= 6 * estimate.standard_error + 0.05


@EVERY_KERNEL
def test_with_a_preconditioner_that_is_k_the_likelihood_is_exact(name, rng):
    X, y = data(rng)
    exact = float(model_of(name, Cholesky()).log_marginal_likelihood(X, y))
    solver = BBMM(block=60, training_tolerance=1e-10)
    estimate = model_of(name, solver).log_marginal_likelihood(X, y)
    assert float(estimate) == pytest.approx(exact, abs=1e-6)
    assert estimate.half_width < 1e-6


@pytest.mark.parametrize("given", [False, True], ids=["learnt noise", "given noise"])
@EVERY_KERNEL
def test_gradients_in_all_parameters_are_the_exact_ones_on_average(name, given, rng):
    X, y = data(rng)
    noise = torch.full((60,), torch.nan).double()
    if given:
        noise[::3] = 0.1
    model = model_of(name, Cholesky())
    exact = gradient(model.log_marginal_likelihood(X, y, noise).value, model)
    for options in ({"block": 15, "rank": 10}, {"block": 0, "rank": 0}):
        received = []
        for seed in range(60):
            solver = BBMM(seed=seed, training_tolerance=1e-9, **options)
            model = model_of(name, solver)
            received.append(gradient(model.log_marginal_likelihood(X, y, noise).value, model))
        # By both solvers that of the mean has no chance in it.
        assert_mean_within(torch.stack(received)[:, 1:], exact[1:], 4.5)
        assert_mean_within(torch.stack(received)[:, :1], exact[:1], 4.5)


def test_the_part_of_a_gradient_that_y_makes_has_no_chance_in_it(rng):
    X, y = data(rng)
    for solver in (BBMM(seed=1, training_tolerance=1e-11), BBMM(seed=2, training_tolerance=1e-11)):
        model, exact = model_of("matern52", solver), model_of("matern52", Cholesky())
        by_products, by_cholesky = (
            gradient(m.log_marginal_likelihood(X, y).value, m)
            - gradient(m.log_marginal_likelihood(X, 0 * y + m.mean.detach()).value, m)
            for m in (model, exact)
        )
        torch.testing.assert_close(by_products, by_cholesky, rtol=1e-7, atol=1e-7)


def test_without_a_wish_for_gradients_none_are_made(rng):
    X, y = data(rng)
    model = model_of("matern52", BBMM())
    with torch.no_grad():
        assert not model.log_marginal_likelihood(X, y).value.requires_grad
    assert model.log_marginal_likelihood(X, y).value.requires_grad


@pytest.mark.parametrize("storage", ["float32", "tiles"])
def test_wherever_k_is_kept_the_likelihood_is_the_same(storage, rng):
    X, y = data(rng)
    estimates = [
        model_of("matern52", BBMM(storage=s, training_tolerance=1e-5)).log_marginal_likelihood(X, y)
        for s in ("float64", storage)
    ]
    assert float(estimates[1]) == pytest.approx(float(estimates[0]), abs=2e-3)


# --------------------------------------------------------------------------------------
# Float32 where noise hides it.
# --------------------------------------------------------------------------------------


SMOOTH = {
    "rbf": RBF(3, 1.0, 2.0),
    "matern52": Matern52(3, 2.0, 2.0),
    "rough": Matern12(3, 0.5, 2.0),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_at_the_least_noise_that_float32_is_taken_for_it_moves_no_likelihood(name, rng):
    n, kernel = 400, SMOOTH[name]
    X, limit = uniform(rng, n, 3), 1e-6 * 2.0 * math.sqrt(n)
    options = BBMM(budget=4 * n * (n + 512) // 2 + 8)  # room for K in float32 only
    for factor, expected in ((0.999, "tiles"), (1.001, "float32")):
        noise = torch.full((n,), factor * limit).double()
        kept = kept_as(kernel, X, noise, options)
        assert (kept.storage, kept.float32) == (expected, expected == "float32")
        noise[7] = 0.0
        assert kept_as(kernel, X, noise, options).storage == "tiles"
    assert kept_as(kernel, X, noise, BBMM()).storage == "float64"
    with torch.no_grad():
        K = kernel(X, X) + limit * torch.eye(n).double()
    y = torch.linalg.cholesky(K) @ normal(rng, n)
    values = []
    for storage in ("float64", "float32"):
        model = ExactGP(kernel, noise=limit, solver=BBMM(storage=storage))
        values.append(float(model.log_marginal_likelihood(X, y)))
    assert 0 < abs(values[0] - values[1]) < 1e-3 * n


# --------------------------------------------------------------------------------------
# The fit.
# --------------------------------------------------------------------------------------


def gaps(probes: int, X: Tensor, y: Tensor, best: float) -> np.ndarray:
    """How far below the exact optimum, in nats, fits of 20 seeds end."""
    fits = [fit(ExactGP(Matern52(3), solver=BBMM(seed=s, probes=probes)), X, y) for s in range(20)]
    return np.array([best - density(model, X, y) for model in fits])


def test_fits_end_as_far_below_the_exact_optimum_as_their_probes_leave_open(rng):
    X, y = data(rng, 160)
    exact = fit(ExactGP(Matern52(3), solver=Cholesky()), X, y, tolerance=1e-8)
    few, many = gaps(8, X, y, exact.report.value), gaps(32, X, y, exact.report.value)
    p = 5
    assert few.min() > -1e-3
    assert few.mean() <= 2 * p / (2 * 8)
    # A quarter, and some of what the search leaves.
    assert many.mean() <= 2 * p / (2 * 32)
    assert many.mean() <= 0.5 * few.mean()


@EVERY_KERNEL
def test_both_solvers_fit_alike(name, rng):
    X, y = data(rng, 150)
    kernel = KERNELS[name]
    exact = fit(ExactGP(kernel, solver=Cholesky()), X, y)
    models = [fit(ExactGP(kernel, solver=BBMM(seed=seed)), X, y) for seed in range(4)]
    left = [exact.report.value - density(model, X, y) for model in models]
    p = sum(q.numel() for q in exact.parameters()) - 1
    assert np.mean(left) <= p / BBMM().probes
    for model in models:
        mean, exact_mean = (m.condition(X, y).marginals(X)[0] for m in (model, exact))
        assert (mean - exact_mean).abs().max() < 0.2


def test_the_report_of_a_fit_by_products_says_what_is_certain_and_what_it_took(rng):
    X, y = data(rng, 150)
    for options in ({}, {"rank": 20, "block": 15}):
        model = fit(ExactGP(Matern52(3), solver=BBMM(**options)), X, y)
        report = model.report
        assert (report.solver, report.reason, report.storage) == ("bbmm", "as asked", "float64")
        assert report.products > report.evaluations > 0 and report.n == 150
        exact = density(model, X, y) - (report.value - report.log_marginal_likelihood)
        assert report.likelihood.lower - 1e-6 <= exact <= report.likelihood.upper + 1e-6
        assert report.converged and "gain less" in report.message


def test_auto_fits_and_predicts_by_what_its_limits_say(rng):
    X, y = data(rng, 140)
    model = ExactGP(Matern52(3), solver=Auto(fit_from=140, predict_from=141))
    model = fit(model, X, y, max_evaluations=5)
    assert model.report.solver == "bbmm" and "140 observations, at or above" in model.report.reason
    info = model.condition(X, y).info
    assert info.solver == "cholesky" and "below the 141" in info.reason
    fewer = fit(model, X[:139], y[:139], restart=False)
    assert fewer.report.solver == "cholesky" and fewer.report.products == 0
    assert fewer.report.likelihood.half_width == 0.0


def test_a_warm_refit_with_more_data_is_cheaper_than_a_cold_one(rng):
    X, y = data(rng, 400)
    model = ExactGP(Matern52(3), solver=BBMM(rank=20, block=20))
    last = fit(model, X[:380], y[:380])
    blind = last.clone()
    blind.report = replace(last.report, inverse_hessian=None)
    warm, by_place, cold = (fit(m, X, y, restart=False) for m in (last, blind, model))
    assert warm.report.evaluations < by_place.report.evaluations <= cold.report.evaluations
    assert warm.report.products < by_place.report.products <= cold.report.products
    assert abs(density(warm, X, y) - density(cold, X, y)) < 5 / BBMM().probes


def test_each_solve_of_a_fit_starts_from_the_one_before(rng):
    X, y = data(rng, 140)
    noise, options = torch.full((140,), torch.nan).double(), BBMM(rank=5, block=0)
    objectives = [
        ProductObjective(Parameters(ExactGP(Matern52(3))), X, y, noise, options) for _ in range(2)
    ]
    near = objectives[0].parameters.position()
    objectives[0](near)
    before, after = objectives[0].products, near + 1e-3
    warm, cold = (objective(after) for objective in objectives)
    assert 2 * (objectives[0].products - before) <= objectives[1].products
    # Probes that were drawn nearby are other probes, and estimate the same.
    np.testing.assert_allclose(warm, cold, atol=0.1 * np.abs(cold).max())
    assert objectives[0].evaluations == 2
    value, gradient = objectives[0].with_value(after)
    np.testing.assert_array_equal(objectives[0](after), gradient)  # which is known
    assert objectives[0].evaluations == 3 and value.lower < float(value) < value.upper


@EVERY_KERNEL
def test_the_same_seed_gives_the_same_fit_to_the_bit(name, rng, monkeypatch):
    monkeypatch.setitem(fit.__globals__, "_SUBSET", 20)  # to 9, 35 and 140 observations
    X, y = data(rng, 140)
    options = BBMM(rank=10, block=15)
    first, second = (
        fit(ExactGP(KERNELS[name], solver=options), X, y, max_evaluations=6) for _ in range(2)
    )
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first.report.value == second.report.value
    assert first.report.products == second.report.products


def test_another_seed_gives_another_fit(rng):
    X, y = data(rng, 140)
    models = [
        fit(ExactGP(Matern52(3), solver=BBMM(seed=s)), X, y, max_evaluations=6) for s in (0, 1)
    ]
    assert not torch.equal(models[0].noise_model.log_noise, models[1].noise_model.log_noise)


def test_what_is_frozen_stays_and_the_rest_is_fitted(rng):
    X, y = data(rng, 140)
    for solver in (BBMM(), Cholesky()):
        model = ExactGP(Matern52(3), mean=0.4, noise=0.05, solver=solver)
        model.noise_model.log_noise.requires_grad_(False)
        model.constant.requires_grad_(False)
        fitted = fit(model, X, y)
        assert fitted.noise.item() == pytest.approx(0.05) and fitted.mean.item() == 0.4
        assert not torch.equal(fitted.kernel.lengthscale, model.kernel.lengthscale)
        assert fitted.report.inverse_hessian.shape == (4, 4)
        assert fitted.report.gradient_norm < 1.0


def test_a_parameter_at_its_bound_stays_there_and_holds_up_nothing(rng):
    def prior(role: str, low: float, high: float):
        return lambda dims: Prior(LogNormal(0.0, 1.0), math.sqrt(low * high), low, high)

    tight = PriorSet(
        "tight",
        {
            "noise": prior("noise", 0.2, 1.0),  # far above the noise there is
            "lengthscale": prior("lengthscale", 0.01, 100.0),
            "variance": prior("variance", 0.01, 100.0),
        },
    )
    X, y = data(rng, 140)
    fits = [fit(ExactGP(Matern52(3), priors=tight, solver=s), X, y) for s in (BBMM(), Cholesky())]
    for model in fits:
        assert model.noise.item() == pytest.approx(0.2)
        assert model.report.converged
        assert model.report.gradient_norm < 1.0
    assert density(fits[1], X, y) - density(fits[0], X, y) <= 4 / BBMM().probes


def test_given_noises_are_taken_and_only_the_others_learnt(rng):
    X, y = data(rng, 140)
    noise = torch.full((140,), torch.nan).double()
    noise[:40] = 0.5
    y[:40] += 0.5**0.5 * normal(rng, 40)
    model = fit(ExactGP(Matern52(3), solver=BBMM()), X, y, noise=noise)
    exact = fit(ExactGP(Matern52(3), solver=Cholesky()), X, y, noise=noise)
    assert model.noise.item() == pytest.approx(exact.noise.item(), rel=0.5)
    assert model.noise.item() < 0.1
    model = fit(ExactGP(Matern52(3), solver=BBMM()), X, y, noise=torch.full((140,), 0.1))
    assert model.report.converged  # σ² has its prior alone to go by


DEGENERATE = {
    "two points": lambda X, y: (X[:2], y[:2]),
    "three points": lambda X, y: (X[:3], y[:3]),
    "constant targets": lambda X, y: (X, torch.full_like(y, 2.5)),
    "all points the same": lambda X, y: (X[:1].expand(30, 3), y),
    "every point twice": lambda X, y: (X.repeat(2, 1), y.repeat(2)),
    "twice, and not equal": lambda X, y: (X.repeat(2, 1), torch.cat([y, -y])),
    "a dead input": lambda X, y: (X * torch.tensor([1.0, 0.0, 1.0]), y),
    "one outlier": lambda X, y: (X, torch.cat([y[:-1], torch.tensor([1e4])])),
    "shifted by a million": lambda X, y: (X + 1e6, y),
    "tiny targets": lambda X, y: (X, 1e-9 * y),
}


@pytest.mark.parametrize("priors", ["dimension-scaled-1", "exact-objective-1", "flat-1"])
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("ignore::surrogate.UnscaledData")
def test_degenerate_data_give_finite_parameters_and_predictions(name, priors, rng):
    X, y = DEGENERATE[name](*data(rng, 30))
    model = fit(ExactGP(Matern52(3), priors=priors, solver=BBMM()), X, y)
    assert all(p.isfinite().all() for p in model.parameters())
    assert math.isfinite(model.report.value)
    mean, std = model.condition(X, y).marginals(torch.cat([X, X + 0.1]))
    assert mean.isfinite().all() and std.isfinite().all() and (std >= 0).all()


@pytest.mark.parametrize("n", [0, 1])
def test_with_fewer_than_two_observations_nothing_is_learnt(n, rng):
    X, y = data(rng)
    model = ExactGP(Matern52(3), solver=BBMM())
    fitted = fit(model, X[:n], y[:n])
    for one, other in zip(fitted.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert fitted.report.evaluations == 0
    assert model.log_marginal_likelihood(X[:0], y[:0]).value.item() == 0.0
