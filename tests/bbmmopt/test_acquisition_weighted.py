"""Facts about acquisitions weighted by cost, by success and by a user's belief."""

import itertools
import math

import pytest
import torch
from oracles import normal, uniform
from scipy import integrate, stats

from bbmmopt.acquisition import LogExpectedImprovement
from bbmmopt.acquisition.weighted import Feasible, Levels, LogPrior, Normal, PerCost, PriorGuided
from tests.bbmmopt.acquisitions import (
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    assert_groups_are_refused,
    assert_shapes_are_scored_alike,
    gp,
)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(99)  # the data of gp(k) come from k


class Linear:
    """A belief that is certain: the mean is the first column, times a slope."""

    def __init__(self, slope):
        self.slope = slope

    def marginals(self, X):
        return self.slope * X[..., 0], torch.full_like(X[..., 0], 1.0)

    def linearise(self, X):
        def pullback(by_mean, by_std):
            gradient = torch.zeros_like(X)
            gradient[:, 0] = self.slope * by_mean
            return gradient

        return *self.marginals(X), pullback


PRIOR = LogPrior({0: Normal(0.3, 0.1), 2: Levels([1.0, 2.0, 5.0])})
BUILD = {
    "cost": lambda a: PerCost(a, gp(1), 0.7),
    "success": lambda a: Feasible(a, [gp(2)], torch.tensor([0.4]).double()),
    "prior": lambda a: PriorGuided(a, PRIOR, 2.0),
    "all": lambda a: PriorGuided(BUILD["success"](PerCost(a, gp(1))), PRIOR, 2.0),
}


@pytest.mark.parametrize("kind", BUILD)
def test_law_value_and_gradient_agree_with_autograd_and_with_differences(kind, rng):
    acquisition = BUILD[kind](LogExpectedImprovement(gp(0), 1.0))
    X = uniform(rng, 6, 3)
    assert_gradients_agree_with_autograd(acquisition, X, rtol=1e-11, by=1e-11)
    assert_gradients_are_differences(acquisition, X)


@pytest.mark.parametrize("kind", BUILD)
def test_law_every_leading_shape_is_scored_alike_and_groups_are_refused(kind, rng):
    acquisition, X = BUILD[kind](LogExpectedImprovement(gp(0), 1.0)), uniform(rng, 6, 3)
    assert_shapes_are_scored_alike(acquisition, X)
    assert_groups_are_refused(acquisition, X.shape)


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("best", [1e4, 1e8])
def test_law_far_below_the_best_scores_and_gradients_are_finite(kind, best, rng):
    acquisition = BUILD[kind](LogExpectedImprovement(gp(0), best))
    value, gradient = acquisition.value_and_gradient(uniform(rng, 6, 3))
    assert value.isfinite().all() and gradient.isfinite().all()


def test_the_caller_s_rows_are_left_alone(rng):
    X = uniform(rng, 6, 3)
    before = X.clone()
    BUILD["all"](LogExpectedImprovement(gp(0), 1.0)).value_and_gradient(X)
    assert torch.equal(X, before)


# --------------------------------------------------------------------------------------
# Cost
# --------------------------------------------------------------------------------------


def test_of_two_that_gain_the_same_the_cheaper_is_preferred():
    X = torch.tensor([[0.1, 0.5], [0.9, 0.5]], dtype=torch.float64).unsqueeze(-2)
    plain = LogExpectedImprovement(Linear(0.0), 1.0)
    cheap, dear = PerCost(plain, Linear(3.0))(X)
    assert float(cheap - dear) == pytest.approx(0.8 * 3.0)
    assert torch.equal(PerCost(plain, Linear(3.0), 0.0)(X), plain(X))


def test_it_is_the_log_of_improvement_over_cost(rng):
    X = uniform(rng, 5, 1, 3)
    plain, cost = LogExpectedImprovement(gp(0), 1.0), gp(1)
    seconds = cost.marginals(X.squeeze(-2))[0].exp()
    for exponent in (0.5, 1.0):
        received = PerCost(plain, cost, exponent)(X).exp()
        torch.testing.assert_close(received, plain(X).exp() / seconds**exponent)


# --------------------------------------------------------------------------------------
# Success
# --------------------------------------------------------------------------------------


def test_improvement_is_worth_what_monte_carlo_says_if_trials_may_fail(rng):
    x, f, success = uniform(rng, 1, 3), gp(0), gp(2)
    (mf, sf), (ms, ss) = (belief.marginals(x) for belief in (f, success))
    best, bound = float(mf + 0.5 * sf), ms + 0.3 * ss
    gain = (mf + sf * normal(rng, 400_000) - best).clamp_min(0.0)
    gain = gain * (ms + ss * normal(rng, 400_000) >= bound)
    error = float(gain.std()) / len(gain) ** 0.5
    received = Feasible(LogExpectedImprovement(f, best), [success], bound)(x)
    assert float(received.exp()) == pytest.approx(float(gain.mean()), abs=4 * error)
    assert float(gain.mean()) > 20 * error


# --------------------------------------------------------------------------------------
# Beliefs of users
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("std", [1e-3, 0.2, 5.0, 1e6])
def test_a_truncated_normal_is_the_density_that_scipy_knows(mean, std):
    x = torch.linspace(0, 1, 11, dtype=torch.float64).requires_grad_(True)
    value, slope = Normal(mean, std).log(x)
    exact = stats.truncnorm.logpdf(x.detach(), -mean / std, (1 - mean) / std, mean, std)
    torch.testing.assert_close(value.detach(), torch.from_numpy(exact), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope, torch.autograd.grad(value.sum(), x)[0])


@pytest.mark.parametrize(
    ("density", "edges"),
    [
        (Normal(0.2, 0.05), [0.0, 0.1, 0.2, 0.3, 1.0]),
        (Normal(0.9, 3.0), [0.0, 1.0]),
        (Levels([1.0, 4.0, 2.0]), [0.0, 1 / 3, 2 / 3, 1.0]),
    ],
)
def test_densities_integrate_to_one(density, edges):
    def pdf(x):
        return math.exp(float(density.log(torch.tensor(x, dtype=torch.float64))[0]))

    total = sum(integrate.quad(pdf, *piece)[0] for piece in itertools.pairwise(edges))
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 10, 49])
def test_levels_are_those_whose_middles_the_columns_hold(k):
    weights = torch.arange(1.0, k + 1, dtype=torch.float64)
    middles = (torch.arange(k, dtype=torch.float64) + 0.5) / k
    value, slope = Levels(weights.tolist()).log(middles)
    torch.testing.assert_close(value.exp() / k, weights / weights.sum())
    assert torch.equal(slope, torch.zeros(k, dtype=torch.float64))
    ends, _ = Levels(weights.tolist()).log(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.equal(ends, value[[0, -1]])


def test_the_prior_is_the_product_of_its_columns_and_uniform_in_the_others(rng):
    X = uniform(rng, 5, 3)
    expected = Normal(0.3, 0.1).log(X[:, 0])[0] + Levels([1.0, 2.0, 5.0]).log(X[:, 2])[0]
    torch.testing.assert_close(PRIOR(X.unsqueeze(-2)), expected)
    value, gradient = PRIOR.value_and_gradient(X)
    torch.testing.assert_close(value, expected)
    assert not gradient[:, 1:].any() and gradient[:, 0].all()
    assert not LogPrior({})(X.unsqueeze(-2)).any()


@pytest.mark.parametrize("exponent", [10.0, 1.0, 0.1, 0.0])
def test_a_prior_counts_with_its_power(rng, exponent):
    plain, X = LogExpectedImprovement(gp(0), 1.0), uniform(rng, 5, 1, 3)
    share = (PriorGuided(plain, PRIOR, exponent)(X) - plain(X)) / PRIOR(X)
    torch.testing.assert_close(share, torch.full_like(share, exponent), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(-0.1, 0.1), (1.1, 0.1), (0.5, 0.0), (0.5, math.nan)])
def test_normals_that_make_no_sense_on_the_unit_interval_are_refused(mean, std):
    with pytest.raises(ValueError, match=r"a mean in it and a positive std; got mean"):
        Normal(mean, std)


@pytest.mark.parametrize("weights", [[], [1.0, 0.0], [1.0, -1.0], [1.0, math.inf], [math.nan]])
def test_weights_that_are_no_density_are_refused(weights):
    with pytest.raises(ValueError, match="must be positive and finite"):
        Levels(weights)
