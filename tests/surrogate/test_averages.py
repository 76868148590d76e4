"""Beliefs about the mean of f over groups of points."""

import pytest
import torch

from surrogate import BBMM, Cholesky, ExactGP, Linear, Matern52
from surrogate.models import cache

SOLVERS = {"cholesky": Cholesky(), "root": Cholesky(root_from=10), "bbmm": BBMM(tolerance=1e-10)}


def make_posterior(rng, solver=None, kernel=None):
    X = torch.rand(40, 3, generator=rng, dtype=torch.float64)
    y = torch.sin(5 * X).sum(-1)
    kernel = kernel or Matern52(3, lengthscale=0.4)
    return ExactGP(kernel, noise=1e-2, solver=solver or Cholesky()).condition(X, y)


@pytest.mark.parametrize("solver", SOLVERS)
def test_averages_are_the_mean_and_the_sum_of_the_joint_belief(solver, rng):
    posterior = make_posterior(rng, SOLVERS[solver])
    X = torch.rand(2, 3, 7, 3, generator=rng, dtype=torch.float64)
    mean, std = posterior.averages(X)
    centre, covariance = posterior.joint(X)
    torch.testing.assert_close(mean, centre.mean(-1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(std.square(), covariance.mean((-2, -1)), rtol=1e-4, atol=1e-7)


def test_groups_of_one_point_are_the_marginals(rng):
    posterior = make_posterior(rng)
    X = torch.rand(5, 1, 3, generator=rng, dtype=torch.float64)
    for received, expected in zip(
        posterior.averages(X), posterior.marginals(X.squeeze(-2)), strict=True
    ):
        torch.testing.assert_close(received, expected)


@pytest.mark.parametrize("kernel", ["stationary", "with a slope"])
def test_averages_have_the_gradient_of_finite_differences(kernel, rng):
    plain = Matern52(3, lengthscale=0.4)
    posterior = make_posterior(rng, kernel=plain if kernel == "stationary" else plain + Linear(3))
    X = torch.rand(2, 4, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(posterior.averages, X)


def test_the_data_are_asked_once_for_each_group(rng, monkeypatch):
    posterior, rows = make_posterior(rng), []
    explain = cache.CholeskyCache.explain

    def counted(self, k, prior):
        rows.append(len(k))
        return explain(self, k, prior)

    monkeypatch.setattr(cache.CholeskyCache, "explain", counted)
    posterior.averages(torch.rand(6, 50, 3, generator=rng, dtype=torch.float64))
    assert sum(rows) == 6


def test_many_groups_are_taken_in_pieces_of_bounded_size(rng, monkeypatch):
    from surrogate.models import averages

    posterior = make_posterior(rng)
    X = torch.rand(30, 8, 3, generator=rng, dtype=torch.float64)
    expected, sizes, kernel = posterior.averages(X), [], type(posterior.model.kernel)
    evaluate = kernel.evaluate

    def counted(self, X1, X2, out, workspace=None):
        sizes.append(out.numel())
        return evaluate(self, X1, X2, out, workspace)

    monkeypatch.setattr(kernel, "evaluate", counted)
    monkeypatch.setattr(averages, "CHUNK", 1000)
    for received, whole in zip(posterior.averages(X), expected, strict=True):
        torch.testing.assert_close(received, whole)
    assert max(sizes) <= 1000 and sum(sizes) == 30 * 8 * 40


def test_a_group_without_points_is_refused_with_advice(rng):
    posterior = make_posterior(rng)
    for X in (torch.rand(3, dtype=torch.float64), torch.rand(2, 0, 3, dtype=torch.float64)):
        with pytest.raises(ValueError, match="groups of w ≥ 1 points"):
            posterior.averages(X)
