import copy
import math
import pickle

import numpy as np
import pytest
import torch
from oracles import normal, uniform
from torch import Tensor

from surrogate import (
    RBF,
    Cholesky,
    ExactGP,
    Hamming,
    Kernel,
    Matern52,
    NotPositiveDefinite,
    UnscaledData,
    fit,
    positive_parameter,
)


def sample_from_prior(
    kernel: Kernel, n: int, noise: float, rng: torch.Generator, mean: float = 0.0
) -> tuple[Tensor, Tensor]:
    X = 4 * uniform(rng, n, 2)  # many lengthscales wide, or the sample says little about them
    K = kernel(X, X).detach() + noise * torch.eye(n)
    return X, mean + torch.linalg.cholesky(K) @ normal(rng, n)


@pytest.fixture
def smooth(rng) -> tuple[Tensor, Tensor]:
    """Forty noisy values of a smooth function of two inputs, standardised."""
    X = uniform(rng, 40, 2)
    y = torch.sin(5 * X[:, 0]) + X[:, 1] ** 2 + 0.1 * normal(rng, 40)
    return X, (y - y.mean()) / y.std()


def state(model: ExactGP) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def objective(model: ExactGP, X: Tensor, y: Tensor, noise: Tensor | None = None) -> Tensor:
    """Log likelihood plus log prior by autograd: the independent way to the same number."""
    parameters = [*model.kernel.parameters(), model.noise_model.log_noise]
    u = torch.cat([p.reshape(-1) for p in parameters])
    priors = model.log_priors()
    location, precision = torch.from_numpy(priors.location), torch.from_numpy(priors.precision)
    log_prior = -(u * (precision > 0)).sum() - 0.5 * (precision * (u - location) ** 2).sum()
    return model.log_marginal_likelihood(X, y, noise).value + log_prior


# --------------------------------------------------------------------------------------
# What is found.
# --------------------------------------------------------------------------------------


def test_hyperparameters_are_recovered_from_a_large_sample_of_the_prior(rng):
    truth = Matern52(2, [0.15, 0.6], 1.5)
    X, y = sample_from_prior(truth, 400, 0.05, rng, mean=3.0)
    model = fit(ExactGP(Matern52(2), priors="flat-1"), X, y)
    kernel = model.kernel
    torch.testing.assert_close(kernel.log_lengthscale, truth.log_lengthscale, rtol=0, atol=0.4)
    assert kernel.variance.item() == pytest.approx(1.5, rel=0.4)
    assert model.noise.item() == pytest.approx(0.05, rel=0.3)
    assert model.mean.item() == pytest.approx(3.0, abs=1.5)
    # And no truth can beat the maximum.
    at_truth = ExactGP(truth, mean=3.0, noise=0.05, priors="flat-1")
    assert model.report.value >= float(at_truth.log_marginal_likelihood(X, y))


@pytest.mark.parametrize("priors", ["dimension-scaled-1", "flat-1"])
def test_the_slope_at_the_end_is_small_and_is_the_one_reported(priors, smooth):
    model = fit(ExactGP(Matern52(2), priors=priors), *smooth, tolerance=1e-10)
    value = objective(model, *smooth)
    slopes = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))]
    )
    assert slopes.abs().max() < 1e-3
    assert model.report.gradient_norm == pytest.approx(slopes.abs().max().item(), abs=1e-8)
    assert model.report.converged


def test_a_parameter_held_by_its_bound_may_keep_its_slope(rng):
    X = uniform(rng, 30, 1)
    y = torch.sin(6 * X[:, 0])  # without noise, so the noise goes to its floor
    model = fit(ExactGP(RBF(1)), X, y, tolerance=1e-10)
    assert model.noise.item() == pytest.approx(1e-4)
    (slope,) = torch.autograd.grad(objective(model, X, y), [model.noise_model.log_noise])
    assert slope < -1.0  # less noise would be better still
    assert model.report.gradient_norm < 1e-2


def test_another_kind_of_minimiser_finds_nothing_better(smooth):
    from scipy import optimize

    model = fit(ExactGP(Matern52(2)), *smooth, tolerance=1e-8)
    other = copy.deepcopy(model)
    parameters = list(other.parameters())

    def loss(u: np.ndarray) -> float:
        with torch.no_grad():
            parts = torch.from_numpy(u).split([p.numel() for p in parameters])
            for p, part in zip(parameters, parts, strict=True):
                p.copy_(part.view(p.shape))
            return -objective(other, *smooth).item()

    start = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
    rough = optimize.minimize(
        loss, start + 0.3, method="Nelder-Mead", options={"maxfev": 3000, "fatol": 1e-7}
    )
    assert model.report.value == pytest.approx(-rough.fun, abs=1e-3)


def test_a_second_start_gets_out_of_a_bad_basin(smooth):
    # f as good as constant and all else noise, which is a maximum too.
    lost = ExactGP(RBF(2, 100.0), noise=0.1, priors="flat-1")
    alone, guarded = fit(lost, *smooth, restart=False), fit(lost, *smooth)
    fresh = fit(ExactGP(RBF(2), priors="flat-1"), *smooth)
    assert alone.report.value < fresh.report.value - 5
    assert guarded.report.value == pytest.approx(fresh.report.value, abs=1e-2)
    assert (alone.report.starts, guarded.report.starts) == (1, 2)


def test_there_is_no_second_start_where_the_first_one_is_it(smooth):
    model = ExactGP(Matern52(2), mean=float(smooth[1].mean()))
    assert fit(model, *smooth).report.starts == 1


def test_given_noise_is_used_and_leaves_its_own_parameter_to_the_prior(smooth):
    X, y = smooth
    noise = torch.full((40,), 0.02).double()
    model = fit(ExactGP(Matern52(2)), X, y, noise=noise, tolerance=1e-8)
    value = objective(model, X, y, noise)
    assert model.report.value == pytest.approx(value.item(), rel=1e-10)
    assert model.noise.item() == pytest.approx(math.exp(-5), rel=1e-2)  # the mode


def test_a_user_kernel_of_a_few_lines_is_fitted_like_any_other(rng):
    class Periodic(Kernel):
        def __init__(self, period: float) -> None:
            super().__init__()
            self.log_period = positive_parameter("period", period)

        def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
            lag = X1[..., 0].unsqueeze(-1) - X2[..., 0].unsqueeze(-2)
            return torch.exp(-2 * torch.sin(math.pi * lag / self.log_period.exp()) ** 2)

    X = uniform(rng, 40, 1)
    y = torch.sin(2 * math.pi * X[:, 0] / 0.31)
    start = ExactGP(Periodic(0.28), noise=0.1, priors="flat-1")
    model = fit(start, X, y, restart=False)
    assert model.kernel.log_period.exp().item() == pytest.approx(0.31, rel=0.02)


# --------------------------------------------------------------------------------------
# What is left alone.
# --------------------------------------------------------------------------------------


def test_the_model_and_the_data_of_the_caller_stay_as_they_were(smooth):
    X, y = smooth
    model = ExactGP(Matern52(2))
    before, data = state(model), (X.clone(), y.clone())
    fitted = fit(model, X, y)
    assert fitted is not model and model.report is None
    assert all(torch.equal(a, b) for a, b in zip(state(model), before, strict=True))
    assert torch.equal(X, data[0]) and torch.equal(y, data[1])
    assert all(p.grad is None for p in (*model.parameters(), *fitted.parameters()))


def test_frozen_parameters_stay_and_the_others_move(smooth):
    model = ExactGP(Matern52(2), noise=0.3)
    model.noise_model.log_noise.requires_grad_(False)
    model.kernel.log_lengthscale.requires_grad_(False)
    fitted = fit(model, *smooth, tolerance=1e-8)
    assert torch.equal(fitted.noise_model.log_noise, model.noise_model.log_noise)
    assert torch.equal(fitted.kernel.log_lengthscale, model.kernel.log_lengthscale)
    assert not torch.equal(fitted.kernel.log_variance, model.kernel.log_variance)
    assert fitted.report.inverse_hessian.shape == (1, 1)  # over the variance
    value = objective(fitted, *smooth)
    free = [fitted.kernel.log_variance, fitted.constant]
    assert max(g.abs().item() for g in torch.autograd.grad(value, free)) < 1e-3


def test_a_model_of_which_all_is_frozen_is_refused(smooth):
    posterior = ExactGP(Matern52(2)).condition(*smooth)
    with pytest.raises(ValueError, match=r"all parameters .* are frozen.*requires_grad_"):
        fit(posterior.model, *smooth)


def test_a_function_that_wiggles_is_not_taken_for_noise():
    X = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(-1)
    y = torch.sin(40 * X[:, 0])
    long = fit(ExactGP(RBF(1)), X, y, restart=False)  # from the priors' start alone
    fitted = fit(ExactGP(RBF(1)), X, y)
    assert fitted.report.value > long.report.value + 5
    assert fitted.noise < 0.01 < long.noise


@pytest.mark.parametrize("n", [20, 1200])
def test_the_thread_count_of_the_caller_is_restored(n, rng):
    torch.set_num_threads(3)
    X, y = uniform(rng, n, 1), normal(rng, n)
    fit(ExactGP(RBF(1)), X, y, max_evaluations=2)
    assert torch.get_num_threads() == 3


def test_the_thread_count_is_restored_when_the_kernel_raises(rng):
    class Broken(RBF):
        def linearise(self, X1, X2, workspace=None):
            raise RuntimeError("broken")

    torch.set_num_threads(3)
    with pytest.raises(RuntimeError, match="broken"):
        fit(ExactGP(Broken(1)), uniform(rng, 5, 1), normal(rng, 5))
    assert torch.get_num_threads() == 3


def test_the_same_fit_twice_is_the_same_to_the_last_bit(smooth):
    first, second = (fit(ExactGP(Matern52(2)), *smooth) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(state(first), state(second), strict=True))


def test_a_fitted_model_survives_pickling_with_its_report(smooth):
    model = fit(ExactGP(Matern52(2)), *smooth)
    twin = pickle.loads(pickle.dumps(model))
    assert twin.report.value == model.report.value
    assert all(torch.equal(a, b) for a, b in zip(state(twin), state(model), strict=True))


# --------------------------------------------------------------------------------------
# The report and warm starts.
# --------------------------------------------------------------------------------------


def test_the_report_states_value_likelihood_effort_and_outcome(smooth):
    model = fit(ExactGP(Matern52(2)), *smooth)
    report = model.report
    likelihood = float(model.log_marginal_likelihood(*smooth))
    assert report.log_marginal_likelihood == pytest.approx(likelihood, rel=1e-10)
    assert report.value == pytest.approx(objective(model, *smooth).item(), rel=1e-10)
    assert 1 < report.evaluations < 60
    assert report.seconds > 0
    assert report.jitter == 0.0
    assert report.converged and "gain less than 0.0001" in report.message
    assert "inverse_hessian" not in repr(report)


def test_the_inverse_hessian_reported_is_near_the_true_one(smooth):
    model = fit(ExactGP(Matern52(2)), *smooth, tolerance=1e-10)
    parameters = list(model.parameters())
    values = torch.cat([p.detach().reshape(-1) for p in parameters])
    names = [name for name, _ in model.named_parameters()]
    order = ["kernel.log_lengthscale", "kernel.log_variance", "noise_model.log_noise", "constant"]

    def loss(flat: Tensor) -> Tensor:
        parts = dict(zip(names, flat.split([p.numel() for p in parameters]), strict=True))
        parts = {k: v.view(p.shape) for (k, v), p in zip(parts.items(), parameters, strict=True)}
        u = torch.cat([parts[name].reshape(-1) for name in order[:3]])
        priors = model.log_priors()
        precision = torch.from_numpy(priors.precision)
        log_prior = (
            -u.sum() - 0.5 * (precision * (u - torch.from_numpy(priors.location)) ** 2).sum()
        )
        K = torch.func.functional_call(
            model.kernel, {k[7:]: v for k, v in parts.items() if "kernel" in k}, (X, X)
        )
        normal = torch.distributions.MultivariateNormal(
            parts["constant"].expand(40), K + parts["noise_model.log_noise"].exp() * torch.eye(40)
        )
        return -normal.log_prob(y) - log_prior

    X, y = smooth
    hessian = torch.autograd.functional.hessian(loss, values)
    # From the order of model.parameters() to the order of the report.
    at, index = 0, {}
    for name, p in model.named_parameters():
        index[name] = list(range(at, at + p.numel()))
        at += p.numel()
    # The mean is not in the report; where it is always the likeliest, the inverse Hessian of the
    # others is their block of the inverse of the whole.
    covariance = torch.linalg.inv(hessian).diagonal()
    expected = covariance[[i for name in order[:3] for i in index[name]]]
    ratio = torch.from_numpy(model.report.inverse_hessian).diagonal() / expected
    assert (ratio > 0.4).all() and (ratio < 2.5).all()


def test_a_warm_refit_takes_at_most_three_evaluations(smooth):
    model = fit(ExactGP(Matern52(2)), *smooth)
    again = fit(model, *smooth, restart=False)
    assert again.report.evaluations <= 3
    assert again.report.value >= model.report.value - 1e-9


def test_a_warm_refit_with_one_more_observation_is_cheaper_than_a_cold_one(smooth):
    X, y = smooth
    last = fit(ExactGP(Matern52(2)), X[:39], y[:39])
    warm, cold = fit(last, X, y, restart=False), fit(ExactGP(Matern52(2)), X, y, restart=False)
    assert warm.report.evaluations < cold.report.evaluations
    assert warm.report.value == pytest.approx(cold.report.value, abs=1e-2)


def test_curvature_from_other_free_parameters_is_not_used(smooth):
    model = fit(ExactGP(Matern52(2)), *smooth)
    model.noise_model.log_noise.data += 1.0
    model.noise_model.log_noise.requires_grad_(False)
    assert fit(model, *smooth).report.inverse_hessian.shape == (3, 3)


def test_no_more_evaluations_are_made_than_allowed_per_start(smooth):
    report = fit(ExactGP(Matern52(2), noise=1.0), *smooth, max_evaluations=3).report
    assert report.evaluations <= 3 * report.starts + 3  # three to find where to start
    assert not report.converged and "3 evaluations" in report.message


def test_where_the_matrix_has_no_factor_the_search_backs_away(smooth, monkeypatch):
    class Fragile(Cholesky):
        def factor(self, K, out=None, *, scale=None):
            if K[0, 0] > 3:
                raise NotPositiveDefinite("too large")
            return super().factor(K, out)

    model = fit(ExactGP(Matern52(2), priors="flat-1", solver=Fragile()), *smooth)
    assert math.isfinite(model.report.value)
    assert model.kernel.variance.item() + model.noise.item() <= 3

    class Never(Cholesky):
        def factor(self, K, out=None, *, scale=None):
            raise NotPositiveDefinite("never")

    report = fit(ExactGP(Matern52(2), solver=Never()), *smooth).report
    assert report.value == -math.inf
    assert not report.converged and "not finite" in report.message


# --------------------------------------------------------------------------------------
# Degenerate data.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1])
def test_with_fewer_than_two_observations_nothing_is_learnt(n, rng):
    model = ExactGP(Matern52(2))
    fitted = fit(model, uniform(rng, n, 2), normal(rng, n))
    assert fitted is not model
    assert all(torch.equal(a, b) for a, b in zip(state(fitted), state(model), strict=True))
    assert fitted.report.evaluations == 0 and "fewer than two" in fitted.report.message


def degenerate(name: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    X, y = uniform(rng, 12, 2), normal(rng, 12)
    return {
        "two points": (X[:2], y[:2]),
        "constant targets": (X, torch.full_like(y, 2.5)),
        "all points the same": (X[:1].expand(12, 2), y),
        "every point twice": (torch.cat([X, X]), torch.cat([y, y])),
        "twice, and not equal": (torch.cat([X, X]), torch.cat([y, -y])),
        "a dead input": (torch.cat([X[:, :1], torch.zeros(12, 1)], 1), X[:, 0].sin()),
        "one outlier": (X, torch.cat([y[:-1], torch.tensor([1e4])])),
        "shifted by a million": (X + 1e6, y),
        "tiny targets": (X, 1e-9 * y),
    }[name]


@pytest.mark.parametrize("priors", ["dimension-scaled-1", "exact-objective-1", "flat-1"])
@pytest.mark.parametrize(
    "name",
    [
        "two points",
        "constant targets",
        "all points the same",
        "every point twice",
        "twice, and not equal",
        "a dead input",
        "one outlier",
        "shifted by a million",
        "tiny targets",
    ],
)
@pytest.mark.filterwarnings("ignore::surrogate.UnscaledData")
def test_degenerate_data_give_finite_parameters_and_predictions(name, priors, rng):
    X, y = degenerate(name, rng)
    model = fit(ExactGP(Matern52(2), priors=priors), X, y)
    assert all(p.isfinite().all() for p in model.parameters())
    assert math.isfinite(model.report.value)
    mean, std = model.condition(X, y).marginals(torch.cat([X, X + 0.1]))
    assert mean.isfinite().all() and std.isfinite().all() and (std >= 0).all()


def test_a_dead_input_gets_the_longest_lengthscale(rng):
    X = uniform(rng, 40, 3)
    model = fit(ExactGP(Matern52(3)), X, torch.sin(6 * X[:, 0]) + X[:, 2])
    assert model.kernel.lengthscale.argmax() == 1


def test_single_precision_and_plain_lists_are_taken(smooth):
    X, y = smooth
    expected = fit(ExactGP(Matern52(2)), X.float().double(), y.float().double())
    for inputs in ((X.float(), y.float()), (X.float().tolist(), y.float().tolist())):
        model = fit(ExactGP(Matern52(2)), *inputs)
        assert all(torch.equal(a, b) for a, b in zip(state(model), state(expected), strict=True))


def test_categories_that_do_not_matter_share_what_they_know(rng):
    X = uniform(rng, 60, 2)
    X[:, 1] = (3 * X[:, 1]).floor()
    kernel = Matern52(1, columns=[0]) * Hamming(1, columns=[1])
    alike = fit(ExactGP(kernel), X, torch.sin(6 * X[:, 0]))
    apart = fit(ExactGP(kernel), X, torch.sin(6 * X[:, 0] + 2 * X[:, 1]))
    assert alike.kernel.second.lengthscale > 3 * apart.kernel.second.lengthscale


def test_data_that_do_not_fit_are_refused(smooth):
    X, y = smooth
    with pytest.raises(ValueError, match="one value per row"):
        fit(ExactGP(Matern52(2)), X, y[:-1])
    with pytest.raises(ValueError, match="one variance per observation"):
        fit(ExactGP(Matern52(2)), X, y, noise=y[:3] ** 2)
    with pytest.raises(ValueError, match=r"2 column\(s\)"):
        fit(ExactGP(Matern52(2)), X[:, :1], y)


def test_data_in_raw_units_are_warned_of_where_the_priors_expect_scaled_ones(smooth):
    X, y = smooth
    for raw in ((1000 * X, y), (X, 1e5 + y), (X, 1e3 * y)):
        with pytest.warns(UnscaledData, match=r"unit cube.*Scale the data.*flat-1"):
            fit(ExactGP(Matern52(2)), *raw, max_evaluations=2)
        fit(ExactGP(Matern52(2), priors="flat-1"), *raw, max_evaluations=2)
