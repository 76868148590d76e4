"""Facts about acquisitions under perturbation: numpy's quantiles, averages taken by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from bbmmopt.acquisition import LogExpectedImprovement, PosteriorMean
from bbmmopt.acquisition.robust import (
    ConditionalValueAtRisk,
    ExpectedUnderPerturbation,
    ValueAtRisk,
    conditional_value_at_risk,
    log_sampled_improvement,
    perturbations,
    perturbed,
    value_at_risk,
)
from surrogate import ExactGP, Matern52
from tests.bbmmopt.acquisitions import (
    GROUPS,
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    assert_groups_are_refused,
    assert_shapes_are_scored_alike,
)

LEVELS = [0.01, 0.1, 0.25, 0.3, 0.5, 0.7, 0.95, 1.0]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def deltas() -> torch.Tensor:
    return perturbations(9, torch.tensor([0.05, 0.1, 0.0], dtype=torch.float64), seeded(4))


def sampled(posterior):
    return posterior.sample_paths(5, seeded(7), features=128)


KINDS = {
    "value at risk": lambda p: ValueAtRisk(sampled(p), deltas(), 0.3),
    "conditional": lambda p: ConditionalValueAtRisk(sampled(p), deltas(), 0.3),
    "improvement": lambda p: ConditionalValueAtRisk(sampled(p), deltas(), 0.3, 0.4, 0.05),
    "each its own": lambda p: ValueAtRisk(sampled(p), deltas(), 0.3, draw(9, 5), 0.05),
    "expectation": lambda p: PosteriorMean(ExpectedUnderPerturbation(p, deltas())),
    "expected improvement": lambda p: LogExpectedImprovement(
        ExpectedUnderPerturbation(p, deltas()), 0.7
    ),
}


# --------------------------------------------------------------------------------------
# Perturbations and measures
# --------------------------------------------------------------------------------------


def test_perturbations_have_the_spread_they_are_asked_for_and_repeat():
    std = torch.tensor([0.1, 0.0, 2.0], dtype=torch.float64)
    delta = perturbations(20_000, std, seeded(0))
    assert torch.equal(delta, perturbations(20_000, std, seeded(0)))
    torch.testing.assert_close(delta.std(0), std, rtol=0.02, atol=0)
    torch.testing.assert_close(delta.mean(0), torch.zeros_like(std), rtol=0, atol=0.06)


def test_perturbed_points_stay_in_the_unit_cube(candidates):
    points = perturbed(candidates, 10 * deltas())
    assert points.shape == (6, 9, 3) and ((points >= 0) & (points <= 1)).all()
    small = perturbed(candidates * 0.2 + 0.4, deltas())
    torch.testing.assert_close(small, candidates[:, None] * 0.2 + 0.4 + deltas())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("w", [1, 2, 10, 37])
def test_value_at_risk_is_the_quantile_of_numpy(level, w):
    values = draw(w, 4, w)
    expected = np.quantile(values.numpy(), level, axis=-1, method="inverted_cdf")
    np.testing.assert_array_equal(value_at_risk(values, level).numpy(), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("w", [1, 2, 10, 37])
def test_conditional_value_at_risk_is_the_mean_of_the_quantiles_below(level, w):
    values = draw(w, w)
    edges = [k / w for k in range(1, w) if k / w < level]

    def quantile(u):
        return np.quantile(values.numpy(), u, method="inverted_cdf")

    pieces = zip([0.0, *edges], [*edges, level], strict=True)
    total = sum((b - a) * quantile((a + b) / 2) for a, b in pieces)
    received = float(conditional_value_at_risk(values, level))
    assert received == pytest.approx(total / level, rel=1e-12, abs=1e-13)


def test_conditional_value_at_risk_is_the_best_of_its_lower_bounds():
    values, level = draw(3, 25), 0.37  # max_t t - E[(t - f)+] / α, at one of the values
    bounds = [float(t - (t - values).clamp_min(0).mean() / level) for t in values]
    assert float(conditional_value_at_risk(values, level)) == pytest.approx(max(bounds), rel=1e-12)


def test_measures_run_from_the_minimum_to_the_mean_and_the_maximum():
    values = draw(0, 3, 20)
    for measure, top in (
        (value_at_risk, values.amax(-1)),
        (conditional_value_at_risk, values.mean(-1)),
    ):
        torch.testing.assert_close(measure(values, 1e-6), values.amin(-1))
        torch.testing.assert_close(measure(values, 1.0), top)
        rising = torch.stack([measure(values, level) for level in LEVELS])
        assert (rising.diff(dim=0) >= -1e-15).all()


@pytest.mark.parametrize("measure", [value_at_risk, conditional_value_at_risk])
@pytest.mark.parametrize("level", [0.0, -0.1, 1.1, math.nan])
def test_levels_that_are_no_share_are_refused(measure, level):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\]"):
        measure(draw(0, 5), level)


@pytest.mark.parametrize("measure", [value_at_risk, conditional_value_at_risk])
def test_gradients_of_measures_are_those_of_finite_differences(measure):
    values = draw(5, 3, 8).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: measure(v, 0.3), values)


# --------------------------------------------------------------------------------------
# Improvement over samples
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-1, 1e-3, 1e-6])
def test_smoothed_improvement_is_the_mean_improvement_within_its_bound(temperature):
    values, best = draw(0, 16, 30), draw(1, 16)
    received = log_sampled_improvement(values, best, temperature).exp()
    expected = (values - best[:, None]).clamp_min(0).mean(0)
    assert ((received - expected).abs() <= (math.log(2) + 0.1) * temperature).all()


def test_smoothed_improvement_rises_with_the_value_without_a_kink():
    values = torch.linspace(-3, 3, 4001, dtype=torch.float64).requires_grad_(True)
    value = log_sampled_improvement(values[None], 0.0, 0.1).exp()
    (slope,) = torch.autograd.grad(value.sum(), values)
    assert (slope > 0).all()
    total = integrate.trapezoid(slope.numpy(), values.detach().numpy())
    assert total == pytest.approx(float(value[-1].detach() - value[0].detach()), rel=1e-5)
    assert float(slope.diff().abs().max()) < 1e-2


@pytest.mark.parametrize("value", [-1e30, -1e6, -1.0, 0.0, 1.0, 1e6, 1e30])
def test_improvement_and_its_gradient_are_finite_however_far_from_the_best(value):
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    received = log_sampled_improvement(values, 0.0)
    (gradient,) = torch.autograd.grad(received.sum(), values)
    assert received.isfinite().all() and gradient.isfinite().all() and (gradient > 0).all()


def test_gradients_of_improvement_are_those_of_finite_differences():
    values = draw(2, 4, 5).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: log_sampled_improvement(v, draw(3, 4), 0.3), values)


# --------------------------------------------------------------------------------------
# On a posterior
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.2, 0.5])
def test_risks_are_measured_on_each_path_at_each_perturbed_point(posterior, candidates, level):
    paths = sampled(posterior)
    values = torch.stack(
        [paths((x + deltas()).clamp(0, 1)) for x in candidates], dim=1
    )  # (S, m, w)
    k = math.ceil(level * 9)
    expected = values.sort(-1).values[..., k - 1]
    torch.testing.assert_close(ValueAtRisk(paths, deltas(), level).risks(candidates), expected)
    score = ValueAtRisk(paths, deltas(), level)(candidates[:, None])
    torch.testing.assert_close(score, expected.mean(0))
    mean = ConditionalValueAtRisk(paths, deltas(), 1.0)(candidates[:, None])
    torch.testing.assert_close(mean, values.mean((0, 2)))


def test_candidates_are_scored_in_parts_as_at_once(posterior):
    X = torch.rand(1000, 3, generator=seeded(8), dtype=torch.float64)
    acquisition = KINDS["conditional"](posterior)
    whole = acquisition(X[:, None])
    torch.testing.assert_close(whole[-7:], acquisition(X[-7:, None]), rtol=1e-12, atol=1e-12)
    assert whole.shape == (1000,)


def test_improvement_is_over_what_each_path_reaches_elsewhere(posterior, candidates):
    paths = sampled(posterior)
    plain = ValueAtRisk(paths, deltas(), 0.3)
    best = plain.risks(candidates[:3]).amax(-1)
    received = ValueAtRisk(paths, deltas(), 0.3, best, 1e-9)(candidates[:, None]).exp()
    expected = (plain.risks(candidates) - best[:, None]).clamp_min(0).mean(0)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-9)


def test_the_expectation_is_the_belief_about_the_mean_of_f(posterior, candidates):
    mean, std = ExpectedUnderPerturbation(posterior, deltas()).marginals(candidates)
    for i, x in enumerate(candidates):
        centre, covariance = posterior.joint((x + deltas()).clamp(0, 1))
        share = torch.full((9,), 1 / 9, dtype=torch.float64)
        assert float(mean[i]) == pytest.approx(float(share @ centre), rel=1e-12)
        assert float(std[i]) ** 2 == pytest.approx(float(share @ covariance @ share), rel=1e-8)


def test_without_perturbation_the_expectation_is_f_itself(posterior, candidates):
    still = torch.zeros(4, 3, dtype=torch.float64)
    received = ExpectedUnderPerturbation(posterior, still).marginals(candidates)
    for part, expected in zip(received, posterior.marginals(candidates), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-7, atol=1e-9)


def test_the_expectation_prefers_a_broad_hill_to_a_narrow_one():
    X = torch.linspace(0, 1, 41, dtype=torch.float64).unsqueeze(-1)
    broad, narrow = torch.exp(-(((X - 0.3) / 0.15) ** 2)), torch.exp(-(((X - 0.8) / 0.03) ** 2))
    y = (broad + 1.2 * narrow).squeeze(-1)
    posterior = ExactGP(Matern52(1, lengthscale=0.1), noise=1e-6).condition(X, y)
    spread = perturbations(32, torch.tensor([0.08], dtype=torch.float64), seeded(0))
    plain = PosteriorMean(posterior)(X[:, None])
    assert float(X[plain.argmax()]) == pytest.approx(0.8, abs=0.03)
    paths = posterior.sample_paths(8, seeded(1), features=512)
    for robust in (
        PosteriorMean(ExpectedUnderPerturbation(posterior, spread)),
        ValueAtRisk(paths, spread, 0.2),
        ConditionalValueAtRisk(paths, spread, 0.2),
    ):
        assert float(X[robust(X[:, None]).argmax()]) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_law_value_and_gradient_agree_with_autograd_through_the_call(kind, posterior, candidates):
    assert_gradients_agree_with_autograd(KINDS[kind](posterior), candidates)


@pytest.mark.parametrize("kind", KINDS)
def test_law_the_gradient_is_that_of_finite_differences(kind, posterior, candidates):
    assert_gradients_are_differences(KINDS[kind](posterior), candidates)


@pytest.mark.parametrize("kind", KINDS)
def test_law_every_leading_shape_is_scored_alike(kind, posterior, candidates):
    assert_shapes_are_scored_alike(KINDS[kind](posterior), candidates)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", GROUPS)
def test_law_groups_of_several_candidates_are_refused_with_advice(kind, shape, posterior):
    assert_groups_are_refused(KINDS[kind](posterior), shape)


def test_scores_and_gradients_are_finite_at_the_data_and_at_the_walls():
    X = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(-1)
    posterior = ExactGP(Matern52(1, lengthscale=0.3), noise=1e-8).condition(X, X.squeeze(-1))
    still = torch.zeros(5, 1, dtype=torch.float64)
    belief = ExpectedUnderPerturbation(posterior, still)
    paths = posterior.sample_paths(3, seeded(0), features=64)
    for acquisition in (
        LogExpectedImprovement(belief, 1.0),
        ValueAtRisk(paths, still, 0.2, 100.0),
        ConditionalValueAtRisk(paths, still, 0.2, 100.0),
    ):
        value, gradient = acquisition.value_and_gradient(X)
        assert value.isfinite().all() and gradient.isfinite().all()
