"""Facts about the value of a batch under fantasies, and the search for the best one."""

import math

import numpy as np
import pytest
import torch
from oracles import normal, uniform

from bbmmopt import Categorical, Integer, Real, Space
from bbmmopt.acquisition import LogPrior, NoisyBatchLogExpectedImprovement
from bbmmopt.acquisition.noisy import NoisyLogExpectedImprovement, base_samples
from bbmmopt.acquisition.weighted import Normal
from bbmmopt.search import Domain, maximise_together
from surrogate import ExactGP, Matern52
from tests.bbmmopt.acquisitions import batch_improvement

LINE = Space({"x": Real(0, 1)})


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def fantasies(rng):
    """A belief about three inputs under 4 fantasies of two points."""
    X = uniform(rng, 9, 3)
    model = ExactGP(Matern52(3, lengthscale=0.5), noise=1e-3)
    posterior = model.condition(X, torch.sin(5 * X).sum(-1))
    return posterior.fantasise(uniform(rng, 2, 3), normal(rng, 4, 2))


# --------------------------------------------------------------------------------------
# The value of a batch
# --------------------------------------------------------------------------------------


def test_joint_fantasies_have_the_means_and_covariance_of_a_posterior_given_them(rng):
    X, y = uniform(rng, 7, 2), normal(rng, 7)
    Z, values = uniform(rng, 2, 2), normal(rng, 3, 2)
    posterior = ExactGP(Matern52(2, lengthscale=0.4), noise=0.1).condition(X, y)
    fantasies = posterior.fantasise(Z, values)
    groups = uniform(rng, 5, 4, 2)
    means, covariance = fantasies.joint(groups)
    assert means.shape == (3, 5, 4) and covariance.shape == (5, 4, 4)
    for s in range(3):
        given = posterior.append(Z, values[s], torch.full((2,), 1e-10, dtype=torch.float64))
        mean, expected = given.joint(groups)
        torch.testing.assert_close(means[s], mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-6)


def test_joint_fantasies_are_differentiable(fantasies, rng):
    def function(X):
        means, covariance = fantasies.joint(X)
        return means.square().sum() + covariance.square().sum()

    X = uniform(rng, 2, 3, 3).requires_grad_(True)
    assert torch.autograd.gradcheck(function, (X,), atol=1e-6)


def test_without_fantasies_it_is_the_batch_improvement_on_a_known_best(rng):
    X = uniform(rng, 9, 3)
    posterior = ExactGP(Matern52(3, lengthscale=0.5), noise=1e-3).condition(X, X.sum(-1))
    one = posterior.fantasise(X[:0], X.new_zeros(1, 0))
    base, groups = base_samples(64, 4, rng), uniform(rng, 6, 4, 3)
    best = torch.tensor([1.9], dtype=torch.float64)
    noisy = NoisyBatchLogExpectedImprovement(one, best, base[None], 2.0)
    plain = batch_improvement(posterior, 1.9, base, 2.0)
    torch.testing.assert_close(noisy(groups), plain(groups), rtol=0, atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_of_one_point_it_is_the_closed_form_but_for_sampling(fantasies, weighted, rng):
    best = torch.tensor([1.0, 1.2, 0.8, 1.1], dtype=torch.float64)
    weights = [(0.7, LogPrior({1: Normal(0.3, 0.2)}))] if weighted else []
    base = base_samples(4 * 4096, 1, rng).reshape(4, 4096, 1)
    batch = NoisyBatchLogExpectedImprovement(fantasies, best, base, 1.0, weights)
    X = uniform(rng, 20, 1, 3)
    expected = NoisyLogExpectedImprovement([fantasies], best)(X)
    for exponent, log_weight in weights:
        expected = expected + exponent * log_weight(X)
    near = expected > -4  # beyond, few of the samples improve at all
    assert near.sum() > 5
    torch.testing.assert_close(batch(X)[near], expected[near], rtol=0, atol=0.03)


def test_it_refuses_more_points_than_it_has_samples_for(fantasies):
    base = torch.zeros(4, 8, 2, dtype=torch.float64)
    batch = NoisyBatchLogExpectedImprovement(fantasies, torch.zeros(4), base)
    with pytest.raises(ValueError, match="groups of up to 2 candidates"):
        batch(torch.zeros(3, 3))


# --------------------------------------------------------------------------------------
# The search for one
# --------------------------------------------------------------------------------------


def two_bumps():
    """Both ends known to be 0: one point is best in the middle, two of them on both sides."""
    X = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    posterior = ExactGP(Matern52(1, lengthscale=0.2), noise=1e-6).condition(X, X[:, 0] * 0)
    base = base_samples(256, 2, torch.Generator().manual_seed(3))
    return posterior, batch_improvement(posterior, 0.5, base)


def one_after_another(posterior) -> np.ndarray:
    """Two points of largest expected improvement on 0.5, the first at its mean for the second."""
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64).unsqueeze(-1)
    chosen = []
    for _ in range(2):
        given = posterior
        if chosen:
            there = torch.stack(chosen)
            given = posterior.append(there, posterior.marginals(there)[0])
        mean, std = given.marginals(grid)
        z = (mean - 0.5) / std
        gain = std * (z * torch.special.ndtr(z) + torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
        chosen.append(grid[int(gain.argmax())])
    return torch.stack(chosen).numpy()


def test_a_pair_beats_the_greedy_one_and_is_as_good_as_the_best_of_all_on_a_grid(rng):
    posterior, acquisition = two_bumps()
    greedy = one_after_another(posterior)
    found = maximise_together(
        acquisition, greedy, Domain(LINE), generator=rng, scale=torch.tensor([0.2])
    )
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    pairs = torch.combinations(grid, 2).unsqueeze(-1)
    brute = float(torch.cat([acquisition(part) for part in pairs.split(2000)]).max())
    assert found.before == pytest.approx(float(acquisition(torch.from_numpy(greedy))))
    assert greedy[0, 0] == pytest.approx(0.5, abs=0.25)
    assert found.value > found.before + 0.02
    assert found.value >= brute - 1e-3
    assert found.value == pytest.approx(float(acquisition(torch.from_numpy(found.X))), abs=1e-9)


def test_a_batch_that_cannot_be_improved_is_kept(rng):
    def flat(X):
        return X.sum((-2, -1)) * 0

    batch = np.array([[0.25, 0.5], [0.75, 0.125]])
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    found = maximise_together(
        flat, batch, Domain(space), generator=rng, scale=torch.ones(2, dtype=torch.float64)
    )
    assert np.array_equal(found.X, batch) and found.value == found.before == 0


@pytest.mark.parametrize("tried", [[], [10]], ids=str)
def test_points_do_not_meet_though_the_score_is_largest_there(tried, rng):
    space = Space({"x": Integer(0, 20)})
    seen = frozenset(Domain(space).keys(space.encode_many([{"x": x} for x in tried])))

    def centred(X):
        return -(X - 0.5).square().sum((-2, -1))

    batch = space.snap(np.array([[0.1], [0.9], [0.3]]))
    found = maximise_together(
        centred, batch, Domain(space, {}, seen), generator=rng, scale=torch.ones(1)
    )
    levels = {space.decode(x)["x"] for x in found.X}
    best = ({8, 9, 11}, {9, 11, 12}) if tried else ({9, 10, 11},)
    assert levels in best and found.value > found.before


def test_evaluations_of_a_batch_count_every_point_of_it(rng):
    counts = []

    def scored(X):
        counts.append(X.shape[0] * X.shape[1])
        return -(X - 0.3).square().sum((-2, -1))

    space = Space({"x": Real(0, 1), "k": Categorical(["a", "b"])})
    batch = space.snap(np.array([[0.1, 0.0], [0.9, 1.0], [0.5, 0.0]]))
    found = maximise_together(scored, batch, Domain(space), generator=rng, scale=torch.ones(2))
    assert found.evaluations == sum(counts)
