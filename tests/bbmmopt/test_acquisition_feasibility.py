"""Facts about constraints: probabilities of keeping them, and improvement that has to."""

import math

import mpmath
import pytest
import torch
from oracles import normal, uniform

from bbmmopt.acquisition import Acquisition, LogProbabilityOfImprovement
from bbmmopt.acquisition.feasibility import (
    ConstrainedLogExpectedImprovement,
    LogProbabilityOfFeasibility,
    best_feasible,
    log_probability_of_feasibility,
)
from bbmmopt.acquisition.noisy import NoisyLogExpectedImprovement
from tests.bbmmopt.acquisitions import (
    Smooth,
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    gp,
)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(99)  # the data of gp(k) come from k


def bounds(*values):
    return torch.tensor(values, dtype=torch.float64)


# --------------------------------------------------------------------------------------
# The probability alone
# --------------------------------------------------------------------------------------


def test_the_probability_and_its_derivatives_match_mpmath():
    mp = mpmath.mp.clone()
    mp.dps = 50
    means, stds, least = bounds(-40.0, 0.2, 3.0), bounds(0.5, 1.0, 2.0), bounds(0.0, 0.5, 1.0)
    value, by_means, by_stds = log_probability_of_feasibility(means, stds, least)
    terms = [
        lambda m, s, b=b: mp.log(mp.ncdf((m - mp.mpf(b)) / s)) for b in map(float, least.tolist())
    ]
    at = list(zip(map(mp.mpf, means.tolist()), map(mp.mpf, stds.tolist()), strict=True))
    assert float(value) == pytest.approx(
        float(sum(t(*a) for t, a in zip(terms, at, strict=True))), rel=1e-12
    )
    for j, term in enumerate(terms):
        assert float(by_means[j]) == pytest.approx(float(mp.diff(term, at[j], (1, 0))), rel=1e-10)
        assert float(by_stds[j]) == pytest.approx(float(mp.diff(term, at[j], (0, 1))), rel=1e-10)


def test_the_probability_is_that_of_monte_carlo(rng):
    means, stds, least = normal(rng, 3), 0.5 + uniform(rng, 3), bounds(-0.5, 0.0, -1.0)
    draws = means + stds * normal(rng, 400_000, 3)
    kept = (draws >= least).all(-1).double()
    value, _, _ = log_probability_of_feasibility(means, stds, least)
    error = float(kept.std()) / len(kept) ** 0.5
    assert float(value.exp()) == pytest.approx(float(kept.mean()), abs=4 * error)


def test_one_constraint_is_the_probability_of_improving_on_its_bound(rng):
    X = uniform(rng, 5, 3)
    one = LogProbabilityOfFeasibility([gp(0)], bounds(0.3))
    other = LogProbabilityOfImprovement(gp(0), 0.3)
    torch.testing.assert_close(one(X.unsqueeze(-2)), other(X.unsqueeze(-2)))
    for received, expected in zip(
        one.value_and_gradient(X), other.value_and_gradient(X), strict=True
    ):
        torch.testing.assert_close(received, expected)


@pytest.mark.parametrize("least", [-3.0, 0.0, 3.0, 1e4])
def test_value_and_gradient_of_the_probability_agree_with_autograd_and_differences(least, rng):
    acquisition = LogProbabilityOfFeasibility([gp(0), gp(1)], bounds(least, 0.1))
    X = uniform(rng, 5, 3)
    value, gradient = acquisition.value_and_gradient(X)
    expected, expected_gradient = Acquisition.value_and_gradient(acquisition, X)
    assert value.isfinite().all() and gradient.isfinite().all()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)
    if least < 1e4:
        assert torch.autograd.gradcheck(acquisition, X.unsqueeze(-2).requires_grad_(True))


def test_leading_shapes_are_kept_and_groups_refused(rng):
    acquisition = LogProbabilityOfFeasibility([gp(0), gp(1)], bounds(0.0, 0.1))
    X = uniform(rng, 6, 3)
    flat = acquisition(X.unsqueeze(-2))
    assert flat.shape == (6,) and acquisition(X[:1]).shape == ()
    torch.testing.assert_close(acquisition(X.reshape(2, 3, 1, 3)), flat.reshape(2, 3))
    with pytest.raises(ValueError, match="scores single candidates"):
        acquisition(X)


# --------------------------------------------------------------------------------------
# Improvement under constraints
# --------------------------------------------------------------------------------------


def test_constrained_improvement_is_the_mean_gain_of_feasible_draws(rng):
    f, c1, c2 = Smooth(8, 3, 0), Smooth(8, 3, 1), Smooth(8, 3, 2)
    best, least, X = 0.5 * normal(rng, 8), bounds(0.2, -0.5), uniform(rng, 4, 3)
    value = ConstrainedLogExpectedImprovement([f, c1, c2], least, best)(X.unsqueeze(-2))
    (mf, sf), (m1, s1), (m2, s2) = (belief.marginals(X) for belief in (f, c1, c2))
    e = normal(rng, 3, 50_000, 8, 4)
    gain = (mf + sf * e[0] - best[:, None]).clamp_min(0.0)
    gain = gain * (m1 + s1 * e[1] >= 0.2) * (m2 + s2 * e[2] >= -0.5)
    means = gain.mean(1)  # of each block of draws, over fantasies
    error = means.std(0) / 50_000**0.5
    assert ((value.exp() - means.mean(0)).abs() < 4 * error).all()


def test_it_is_averaged_over_fantasies_of_objective_and_constraints_together():
    # In one fantasy the gain is large and infeasible, in the other feasible and small.
    means = torch.tensor([[[100.0], [-100.0]], [[-1e3], [1e3]]], dtype=torch.float64)
    stds = torch.ones(2, 1, dtype=torch.float64)
    value = ConstrainedLogExpectedImprovement([], bounds(0.0), bounds(0.0, 0.0)).formula(
        means, stds
    )
    assert float(value) < -4000


@pytest.mark.parametrize("count", [0, 1, 3])
def test_constraints_that_are_certainly_kept_change_nothing(count, rng):
    f, best, X = Smooth(8, 3, 0), normal(rng, 8), uniform(rng, 5, 3)
    certain = [Smooth(8, 3, k + 1, level=1e3, std=1e-3) for k in range(count)]
    constrained = ConstrainedLogExpectedImprovement([f, *certain], bounds(*[0.0] * count), best)
    plain = NoisyLogExpectedImprovement([f], best)
    assert torch.equal(constrained(X.unsqueeze(-2)), plain(X.unsqueeze(-2)))
    for received, expected in zip(
        constrained.value_and_gradient(X), plain.value_and_gradient(X), strict=True
    ):
        torch.testing.assert_close(received, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("least", [10.0, 1e4])
def test_where_nothing_is_feasible_the_gradient_points_towards_feasibility(least, rng):
    f, c, best, X = Smooth(4, 3, 0), Smooth(4, 3, 1), normal(rng, 4), uniform(rng, 6, 3)
    acquisition = ConstrainedLogExpectedImprovement([f, c], bounds(least), best)
    value, gradient = acquisition.value_and_gradient(X)
    assert value.isfinite().all() and gradient.isfinite().all() and (value < -20).all()
    step = 1e-4 * gradient / gradient.norm(dim=-1, keepdim=True)
    stepped = X + step
    alone = LogProbabilityOfFeasibility([_One(c)], bounds(least))
    assert (alone(stepped.unsqueeze(-2)) > alone(X.unsqueeze(-2))).all()


class _One:
    """The fantasy of a `Smooth` that is the likeliest to be feasible, as a posterior."""

    def __init__(self, belief):
        self.belief = belief

    def marginals(self, X):
        mean, std = self.belief.marginals(X)
        return mean.amax(0), std

    def linearise(self, X):
        raise NotImplementedError


def test_value_and_gradient_of_the_constrained_agree_with_autograd_and_differences(rng):
    beliefs = [Smooth(8, 3, 0), Smooth(8, 3, 1), Smooth(8, 3, 2)]
    acquisition = ConstrainedLogExpectedImprovement(beliefs, bounds(0.3, -0.2), normal(rng, 8))
    X = uniform(rng, 5, 3)
    assert_gradients_agree_with_autograd(acquisition, X, rtol=1e-12, by=1e-12)
    assert_gradients_are_differences(acquisition, X)


@pytest.mark.parametrize("below", [10.0, 1e4, 1e8])
def test_extreme_means_give_finite_scores_and_gradients(below, rng):
    means = (normal(rng, 3, 4, 5) - below).requires_grad_(True)
    stds = (0.5 + uniform(rng, 3, 5)).requires_grad_(True)
    acquisition = ConstrainedLogExpectedImprovement([], bounds(0.0, 0.0), normal(rng, 4))
    value = acquisition.formula(means, stds)
    by_means, by_stds = torch.autograd.grad(value.sum(), (means, stds))
    assert value.isfinite().all() and by_means.isfinite().all() and by_stds.isfinite().all()
    assert (by_means.sum(1) > 0).all() and (by_stds > 0).all()


# --------------------------------------------------------------------------------------
# The best feasible value
# --------------------------------------------------------------------------------------


def test_the_best_is_taken_over_points_that_keep_every_constraint_in_that_sample():
    f = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]).double()
    c = torch.tensor(
        [
            [[1.0, 1.0, -1.0], [0.0, -1.0, -1.0], [-1.0, -1.0, -1.0]],
            [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
        ]
    ).double()
    assert best_feasible(f, c, bounds(0.0, 0.5), -9.0).tolist() == [2.0, 1.0, -9.0]
    assert best_feasible(f, c, bounds(0.0, 2.0), -9.0).tolist() == [-9.0] * 3


def test_worst_is_only_for_samples_in_which_nothing_is_feasible():
    f, c = torch.full((1, 2), -50.0).double(), torch.ones(1, 1, 2).double()
    assert best_feasible(f, c, bounds(0.0), -9.0).tolist() == [-50.0]


def test_no_points_and_no_constraints_have_a_best_too(rng):
    f = normal(rng, 4, 3)
    nothing = torch.zeros(0, 4, 3, dtype=torch.float64)
    assert torch.equal(best_feasible(f, nothing, bounds(), -9.0), f.amax(-1))
    assert best_feasible(f[:, :0], nothing[..., :0], bounds(), -9.0).tolist() == [-9.0] * 4


def test_the_gain_over_the_best_feasible_of_each_fantasy_is_the_one_of_joint_draws(rng):
    # Three trials, a pending one, a candidate, one constraint, all noisy: by brute force.
    f, c = gp(0, noise=0.3), gp(1, noise=0.3)
    points, x = torch.cat([f.X[:3], uniform(rng, 1, 3)]), uniform(rng, 1, 3)
    joint = [belief.joint(torch.cat([x, points])) for belief in (f, c)]
    count = 200_000
    F, G = (m + normal(rng, count, 5) @ torch.linalg.cholesky(C).mT for m, C in joint)
    best = best_feasible(F[:, 1:], G[:, 1:].unsqueeze(0), bounds(0.5), -3.0)
    gain = (F[:, 0] - best).clamp_min(0.0) * (G[:, 0] >= 0.5)
    error = float(gain.std()) / count**0.5
    # The same with x integrated out given the draws at the points.
    means, stds = [], []
    for draws, (m, C) in zip((F[:20_000], G[:20_000]), joint, strict=True):
        weights = torch.linalg.solve(C[1:, 1:], C[1:, 0])
        means.append((m[0] + (draws[:, 1:] - m[1:]) @ weights).unsqueeze(-1))
        stds.append((C[0, 0] - C[0, 1:] @ weights).sqrt().reshape(1))
    acquisition = ConstrainedLogExpectedImprovement([], bounds(0.5), best[:20_000])
    value = acquisition.formula(torch.stack(means), torch.stack(stds))
    assert float(value.exp()) == pytest.approx(float(gain.mean()), abs=4 * math.sqrt(10) * error)
    assert float(gain.mean()) > 40 * error
