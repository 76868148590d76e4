"""Facts about learning f everywhere: real trials as the oracle."""

import math

import pytest
import torch

from bbmmopt.acquisition.active import IntegratedVariance, PosteriorVariance, log_variance_reduction
from surrogate import ExactGP, Matern52, Posterior
from tests.bbmmopt.acquisitions import (
    GROUPS,
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    assert_groups_are_refused,
    assert_shapes_are_scored_alike,
)

KINDS = {
    "integrated": lambda p: IntegratedVariance(p, points(), 0.01),
    "variance": PosteriorVariance,
}


def points() -> torch.Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.rand(15, 3, generator=rng, dtype=torch.float64)


def mean_variance(posterior: Posterior) -> torch.Tensor:
    return posterior.marginals(points())[1].square().mean()


@pytest.mark.parametrize("noise", [1e-4, 0.01, 1.0])
def test_the_reduction_is_that_of_a_real_trial_whatever_it_returns(posterior, candidates, noise):
    received = IntegratedVariance(posterior, points(), noise)(candidates.unsqueeze(-2)).exp()
    variance = torch.tensor([noise], dtype=torch.float64)
    expected = [
        mean_variance(posterior) - mean_variance(posterior.append(x[None], x[:1] + 7.0, variance))
        for x in candidates
    ]
    torch.testing.assert_close(received, torch.stack(expected), rtol=1e-8, atol=1e-12)


def test_pending_trials_in_the_posterior_send_the_next_one_elsewhere(posterior, candidates):
    first = int(IntegratedVariance(posterior, points(), 0.01)(candidates[:, None]).argmax())
    told = posterior.append(candidates[[first]], candidates[first, :1])
    values = IntegratedVariance(told, points(), 0.01)(candidates[:, None])
    assert int(values.argmax()) != first


def test_posterior_variance_is_the_log_of_the_standard_deviation(posterior, candidates):
    _, std = posterior.marginals(candidates)
    torch.testing.assert_close(PosteriorVariance(posterior)(candidates[:, None]), std.log())


@pytest.mark.parametrize("kind", KINDS)
def test_law_value_and_gradient_agree_with_autograd_through_the_call(kind, posterior, candidates):
    assert_gradients_agree_with_autograd(KINDS[kind](posterior), candidates)


@pytest.mark.parametrize("kind", KINDS)
def test_law_the_gradient_is_that_of_finite_differences(kind, posterior, candidates):
    assert_gradients_are_differences(KINDS[kind](posterior), candidates)


@pytest.mark.parametrize("kind", KINDS)
def test_law_every_leading_shape_is_scored_alike(kind, posterior, candidates):
    assert_shapes_are_scored_alike(KINDS[kind](posterior), candidates, rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", GROUPS)
def test_law_groups_of_several_candidates_are_refused_with_advice(kind, shape, posterior):
    assert_groups_are_refused(KINDS[kind](posterior), shape)


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_scores_and_gradients_are_finite_at_the_data_themselves(noise):
    X = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(-1)
    posterior = ExactGP(Matern52(1, lengthscale=0.3), noise=1e-8).condition(X, X.squeeze(-1))
    acquisition = IntegratedVariance(posterior, X, noise)
    value, gradient = acquisition.value_and_gradient(torch.cat([X, X + 1e-9]))
    assert value.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("scale", [0.0, 1e-250, 1e-170, 1e-10, 1e150])
def test_the_log_is_finite_and_exact_where_squares_underflow(scale):
    cross = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) * scale
    cross.requires_grad_(True)
    value = log_variance_reduction(torch.tensor(2.0, dtype=torch.float64), cross, 1.0)
    (gradient,) = torch.autograd.grad(value, cross)
    assert value.isfinite() and gradient.isfinite().all()
    if scale:
        assert value.item() == pytest.approx(math.log(1.75 / 5.0) + 2 * math.log(scale), rel=1e-12)
