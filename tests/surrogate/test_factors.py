"""Posteriors that keep a factor of K̂, with and without a root for quick variances."""

import itertools

import pytest
import torch
from oracles import uniform

from surrogate import BBMM, RBF, Cholesky, ExactGP, Matern52

ROOTED = Cholesky(root_from=10)
FACTORS = {"factor": Cholesky(), "factor and root": ROOTED}


def repeated(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of which some stand twice: without noise, K̂ is singular."""
    X = uniform(rng, 60, 2)
    X = torch.cat([X, X[:20]])
    return X, torch.sin(5 * X.sum(1))


@pytest.mark.parametrize("solver", FACTORS.values(), ids=FACTORS)
def test_a_singular_covariance_gets_the_same_small_jitter_with_and_without_a_root(solver, rng):
    X, y = repeated(rng)
    model = ExactGP(RBF(2, 0.5), noise=1e-30, priors="flat-1", solver=solver)
    posterior = model.condition(X, y)
    assert 0 < posterior.info.jitter <= 1e-9
    torch.testing.assert_close(posterior.marginals(X)[0], y, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*FACTORS, "products"])
def test_the_mean_at_the_data_is_right_where_jitter_was_needed(name, rng):
    X, y = repeated(rng)
    y[60:] += 1.0  # and no noise: so contradictory that the weights are huge
    solver = FACTORS.get(name, BBMM(tolerance=1e-4))
    model = ExactGP(Matern52(2, 0.5), noise=1e-20, priors="flat-1", solver=solver)
    posterior = model.condition(X, y)
    assert posterior.info.jitter > 0
    torch.testing.assert_close(posterior.fitted(), posterior.marginals(X)[0], rtol=0, atol=1e-4)
    more = posterior.append(X[:5], y[:5] - 1.0)
    X = torch.cat([X, X[:5]])
    torch.testing.assert_close(more.fitted(), more.marginals(X)[0], rtol=0, atol=1e-4)


def condition(solver, X, y, noise, borders=(40,)):
    """A posterior of the last rows appended to one of the first."""
    ends = [*borders, len(X)]
    model = ExactGP(RBF(2, 0.3), noise=noise, solver=solver)
    posterior = model.condition(X[: ends[0]], y[: ends[0]])
    for start, end in itertools.pairwise(ends):
        posterior = posterior.append(X[start:end], y[start:end])
    return posterior


@pytest.mark.parametrize("borders", [(60,), (40,), (40, 50)], ids=["none", "one", "two"])
def test_a_covariance_at_low_noise_is_that_of_the_factor_behind_a_root_too(borders, rng):
    X = uniform(rng, 60, 2)
    y, new = torch.sin(5 * X.sum(1)), uniform(rng, 6, 2)
    rooted, exact = (condition(solver, X, y, 1e-11, borders) for solver in (ROOTED, Cholesky()))
    ours, theirs = rooted.joint(new)[1], exact.joint(new)[1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours, ours.mT, rtol=0, atol=0)


def test_covariances_behind_a_root_have_the_gradient_of_the_factor(rng):
    X = uniform(rng, 60, 2)
    y, new = torch.sin(5 * X.sum(1)), uniform(rng, 2, 4, 2)
    gradients = []
    for solver in (ROOTED, Cholesky()):
        x = new.clone().requires_grad_()
        condition(solver, X, y, 0.01).joint(x)[1].square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("inverse", [0, 1500], ids=["by solves", "by the inverse"])
@pytest.mark.parametrize("solver", FACTORS.values(), ids=FACTORS)
def test_leaving_one_out_is_conditioning_on_the_others(solver, inverse, rng, monkeypatch):
    monkeypatch.setattr("surrogate.models.cache._INVERSE_TO", inverse)
    monkeypatch.setattr("surrogate.models.cache._COLUMNS", 7)
    X = uniform(rng, 25, 2)
    y = torch.sin(5 * X.sum(1))
    mean, std = condition(solver, X, y, 1e-4, (20,)).leave_one_out()
    for i in range(25):
        others = torch.arange(25) != i
        expected, deviation = (
            ExactGP(RBF(2, 0.3), noise=1e-4, solver=Cholesky())
            .condition(X[others], y[others])
            .marginals(X[i : i + 1])
        )
        torch.testing.assert_close(mean[i : i + 1], expected, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(std[i].square(), deviation[0].square() + 1e-4, rtol=1e-6, atol=0)
