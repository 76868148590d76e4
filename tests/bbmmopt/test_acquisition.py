"""Facts about acquisition functions: formulas against mpmath, gradients, shapes."""

import math

import mpmath
import pytest
import torch

from bbmmopt.acquisition import (
    Acquisition,
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    log_expected_improvement,
)
from bbmmopt.acquisition.normal import log_cdf, log_h
from surrogate import ExactGP, Matern52
from tests.bbmmopt.acquisitions import (
    GROUPS,
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    assert_groups_are_refused,
    assert_shapes_are_scored_alike,
)

mp = mpmath.mp.clone()
mp.dps = 60

# Every decade, the edges of the branches from both sides, and the zero of log h near 0.9.
EDGES = [-25.0, -1.0, 0.0]
U = sorted(
    {
        *(-(10.0**e) for e in torch.linspace(-3, 8, 78).tolist()),
        *torch.linspace(-30, 10, 161).tolist(),
        *(edge + step for edge in EDGES for step in (-1e-9, -1e-15, 0.0, 1e-15, 1e-9)),
        *(math.nextafter(edge, way) for edge in EDGES for way in (-math.inf, math.inf)),
        0.90001,
        0.9,
    }
)


def exact_h(u):
    """h(u) = φ(u) + u Φ(u), with digits to spare."""
    return mp.npdf(u) + u * mp.ncdf(u)


def assert_agree(received, expected, rel, absolute=1e-15):
    """The distance of each double to its exact value, in exact arithmetic."""
    for u, value, exact in zip(U, received.tolist(), expected, strict=True):
        assert abs(mp.mpf(value) - exact) <= rel * abs(exact) + absolute, u


# --------------------------------------------------------------------------------------
# Functions of the normal distribution
# --------------------------------------------------------------------------------------


def test_log_h_keeps_fourteen_digits_from_minus_1e8_to_10():
    value, _ = log_h(torch.tensor(U, dtype=torch.float64))
    assert_agree(value, [mp.log(exact_h(mp.mpf(u))) for u in U], 1e-14)


def test_the_derivative_of_log_h_keeps_twelve_digits_from_minus_1e8_to_10():
    _, slope = log_h(torch.tensor(U, dtype=torch.float64))
    assert_agree(slope, [mp.ncdf(mp.mpf(u)) / exact_h(mp.mpf(u)) for u in U], 1e-12)


def test_log_cdf_and_its_derivative_keep_twelve_digits_from_minus_1e8_to_10():
    value, slope = log_cdf(torch.tensor(U, dtype=torch.float64))
    assert_agree(value, [mp.log(mp.ncdf(mp.mpf(u))) for u in U], 1e-12)
    assert_agree(slope, [mp.npdf(mp.mpf(u)) / mp.ncdf(mp.mpf(u)) for u in U], 1e-12)


@pytest.mark.parametrize("u", [-1e8, -26.0, -3.0, 2.0])
def test_log_h_of_one_element_does_not_depend_on_its_neighbours(u):
    alone, _ = log_h(torch.tensor([u], dtype=torch.float64))
    among, _ = log_h(torch.tensor([u, *U], dtype=torch.float64))
    assert alone[0] == among[0]


# --------------------------------------------------------------------------------------
# Formulas
# --------------------------------------------------------------------------------------

EXACT = {
    LogExpectedImprovement: lambda m, s: mp.log(s * exact_h((m - mp.mpf(0.7)) / s)),
    LogProbabilityOfImprovement: lambda m, s: mp.log(mp.ncdf((m - mp.mpf(0.7)) / s)),
    UpperConfidenceBound: lambda m, s: m + mp.sqrt(4) * s,
    PosteriorMean: lambda m, s: m,
}


def build(kind, posterior) -> Acquisition:
    best = {"best": 0.7} if "best" in kind.__dataclass_fields__ else {}
    return kind(posterior, **best)


@pytest.mark.parametrize("kind", EXACT)
def test_law_every_formula_and_its_partial_derivatives_match_mpmath(kind, posterior):
    formula, exact = build(kind, posterior).formula, EXACT[kind]
    for mean in (-300.0, -40.0, -2.0, 0.69, 0.7, 0.71, 3.0):
        for std in (1e-2, 0.3, 2.0):
            if abs(mean - 0.7) / std > 40 and mean > 0.7:
                continue  # φ underflows, and with it the derivative of log Φ: both are 0 to us
            arguments = (torch.tensor(x, dtype=torch.float64) for x in (mean, std))
            value, by_mean, by_std = (float(x) for x in formula(*arguments))
            at = (mp.mpf(mean), mp.mpf(std))
            assert value == pytest.approx(float(exact(*at)), rel=1e-12, abs=1e-13)
            for received, order in ((by_mean, (1, 0)), (by_std, (0, 1))):
                expected = float(mp.diff(exact, at, order))
                assert received == pytest.approx(expected, rel=1e-10, abs=1e-100)


def test_the_weight_of_the_bound_is_the_root_of_beta(posterior, candidates):
    mean, std = posterior.marginals(candidates)
    received = UpperConfidenceBound(posterior, beta=9.0)(candidates.unsqueeze(-2))
    torch.testing.assert_close(received, mean + 3 * std)


def test_log_expected_improvement_is_the_log_of_a_monte_carlo_mean():
    rng = torch.Generator().manual_seed(0)
    f = 0.2 + 0.5 * torch.randn(400_000, generator=rng, dtype=torch.float64)
    gain = (f - 0.6).clamp_min(0.0)
    value, _, _ = log_expected_improvement(*torch.tensor([0.2, 0.5], dtype=torch.float64), best=0.6)
    error = float(gain.std()) / len(gain) ** 0.5
    assert float(value.exp()) == pytest.approx(float(gain.mean()), abs=4 * error)


@pytest.mark.parametrize("below", [1.0, 30.0, 1e3, 1e6])
def test_far_below_the_best_more_uncertainty_is_always_better(below):
    mean = torch.full((50,), -below, dtype=torch.float64)
    std = torch.logspace(-3, 1, 50, dtype=torch.float64)
    value, by_mean, by_std = log_expected_improvement(mean, std, best=0.0)
    assert (value.diff() > 0).all() and (by_std > 0).all() and (by_mean > 0).all()


# --------------------------------------------------------------------------------------
# On a posterior
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXACT)
def test_law_value_and_gradient_agree_with_autograd_through_the_call(kind, posterior, candidates):
    acquisition = build(kind, posterior)
    assert_gradients_agree_with_autograd(acquisition, candidates, rtol=1e-13, by=1e-12)


@pytest.mark.parametrize("kind", EXACT)
def test_law_the_gradient_is_that_of_finite_differences(kind, posterior, candidates):
    assert_gradients_are_differences(build(kind, posterior), candidates)


@pytest.mark.parametrize("kind", EXACT)
def test_law_every_leading_shape_is_scored_alike(kind, posterior, candidates):
    assert_shapes_are_scored_alike(build(kind, posterior), candidates, rtol=0.0)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("shape", GROUPS)
def test_law_groups_of_several_candidates_are_refused_with_advice(kind, shape, posterior):
    assert_groups_are_refused(build(kind, posterior), shape)


@pytest.mark.parametrize("kind", EXACT)
def test_law_scores_and_gradients_are_finite_at_the_data_themselves(kind):
    X = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(-1)
    model = ExactGP(Matern52(1, lengthscale=0.3), noise=1e-8)
    posterior = model.condition(X, X.squeeze(-1), torch.zeros(8, dtype=torch.float64))
    value, gradient = build(kind, posterior).value_and_gradient(X)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_the_inputs_of_the_caller_are_left_alone(posterior, candidates):
    before = candidates.clone()
    for acquisition in (build(LogExpectedImprovement, posterior), PosteriorMean(posterior)):
        acquisition.value_and_gradient(candidates)
        Acquisition.value_and_gradient(acquisition, candidates)
    assert torch.equal(candidates, before) and not candidates.requires_grad
