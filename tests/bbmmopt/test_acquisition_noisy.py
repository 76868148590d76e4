"""Facts about noisy expected improvement and the joint draws it is made from."""

import math

import pytest
import torch
from oracles import normal, spd_matrix, uniform

from bbmmopt.acquisition import Acquisition, LogExpectedImprovement
from bbmmopt.acquisition.noisy import (
    NoisyLogExpectedImprovement,
    base_samples,
    draw,
    log_ei,
    prune_baseline,
    triangular_root,
)
from surrogate import ExactGP, Matern52
from tests.bbmmopt.acquisitions import (
    ByAutograd,
    Smooth,
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    assert_groups_are_refused,
    assert_shapes_are_scored_alike,
)


class Conditioned(ByAutograd):
    """A posterior given values Y (S, k) of f itself at points (k, d), by dense algebra."""

    def __init__(self, posterior, points, Y):
        self.posterior, self.points, self.Y = posterior, points, Y

    def marginals(self, X):
        groups = torch.cat([X.unsqueeze(-2), self.points.expand(len(X), -1, -1)], -2)
        mean, C = self.posterior.joint(groups)
        eye = 1e-9 * torch.eye(len(self.points), dtype=torch.float64)
        gain = torch.linalg.solve(C[:, 1:, 1:] + eye, C[:, 1:, :1]).squeeze(-1)  # (m, k)
        shift = torch.einsum("mk,smk->sm", gain, self.Y[:, None] - mean[:, 1:])
        return mean[:, 0] + shift, (C[:, 0, 0] - (gain * C[:, 1:, 0]).sum(-1)).sqrt()


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def posterior(rng):
    X = uniform(rng, 8, 2)
    model = ExactGP(Matern52(2, lengthscale=0.4), noise=0.1)
    return model.condition(X, torch.sin(5 * X).sum(-1) + 0.3 * normal(rng, 8))


# --------------------------------------------------------------------------------------
# The acquisition
# --------------------------------------------------------------------------------------


def test_with_one_fantasy_it_is_expected_improvement_exactly(posterior, rng):
    class One:
        def marginals(self, X):
            mean, std = posterior.marginals(X)
            return mean.unsqueeze(0), std

        def linearise(self, X):
            mean, std, pullback = posterior.linearise(X)
            return mean.unsqueeze(0), std, lambda by_mean, by_std: pullback(by_mean[0], by_std)

    X = uniform(rng, 6, 2)
    noisy = NoisyLogExpectedImprovement([One()], torch.tensor([0.7], dtype=torch.float64))
    plain = LogExpectedImprovement(posterior, 0.7)
    assert torch.equal(noisy(X.unsqueeze(-2)), plain(X.unsqueeze(-2)))
    for received, expected in zip(
        noisy.value_and_gradient(X), plain.value_and_gradient(X), strict=True
    ):
        assert torch.equal(received, expected)


def test_it_is_the_expected_gain_over_trials_that_are_noisy_and_trials_that_are_pending(
    posterior, rng
):
    # What is wanted, by brute force: E max(f(x) - max f at all trials and pending points, 0).
    points, x = torch.cat([posterior.X, uniform(rng, 2, 2)]), uniform(rng, 1, 2)
    mean, C = posterior.joint(torch.cat([x, points]))
    f = mean + normal(rng, 400_000, 11) @ torch.linalg.cholesky(C).mT
    gain = (f[:, 0] - f[:, 1:].amax(-1)).clamp_min(0.0)
    error = float(gain.std()) / len(gain) ** 0.5

    mean, C = posterior.joint(points)
    Y = draw(mean, C, base_samples(4096, 10, rng), scale=1.0)
    value = NoisyLogExpectedImprovement([Conditioned(posterior, points, Y)], Y.amax(-1))(x)
    assert float(gain.mean()) > 20 * error
    assert float(value.exp()) == pytest.approx(float(gain.mean()), abs=5 * error)


def test_the_fantasies_of_a_posterior_give_the_same_as_dense_algebra(posterior, rng):
    points, X = torch.cat([posterior.X, uniform(rng, 2, 2)]), uniform(rng, 6, 2)
    Y = draw(*posterior.joint(points), base_samples(32, 10, rng), scale=1.0)
    beliefs = (posterior.fantasise(points, Y), Conditioned(posterior, points, Y))
    one, other = (NoisyLogExpectedImprovement([b], Y.amax(-1)) for b in beliefs)
    torch.testing.assert_close(one(X.unsqueeze(-2)), other(X.unsqueeze(-2)), rtol=1e-5, atol=1e-5)
    value, gradient = one.value_and_gradient(X)
    torch.testing.assert_close(value, one(X.unsqueeze(-2)))
    _, expected = Acquisition.value_and_gradient(other, X)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_at_the_points_of_the_fantasies_scores_and_gradients_are_finite(posterior, rng):
    points = torch.cat([posterior.X, posterior.X[:1], posterior.X[1:2] + 1e-9])
    Y = draw(*posterior.joint(points), base_samples(32, 10, rng), scale=1.0)
    acquisition = NoisyLogExpectedImprovement([posterior.fantasise(points, Y)], Y.amax(-1))
    value, gradient = acquisition.value_and_gradient(points)
    assert value.isfinite().all() and gradient.isfinite().all()
    away = acquisition(uniform(rng, 50, 1, 2))
    assert value.max() < away.max()


def test_a_pending_trial_makes_its_neighbourhood_less_attractive(posterior, rng):
    pending = uniform(rng, 1, 2)
    near = (pending + 0.01).unsqueeze(-2)

    def value(points):
        mean, C = posterior.joint(points)
        Y = draw(mean, C, base_samples(256, 9, torch.Generator().manual_seed(0)), scale=1.0)
        return NoisyLogExpectedImprovement([Conditioned(posterior, points, Y)], Y.amax(-1))(near)

    assert value(torch.cat([posterior.X, pending])) < value(posterior.X) - 1


def test_value_and_gradient_agree_with_autograd_and_with_differences(rng):
    acquisition = NoisyLogExpectedImprovement([Smooth(16, 3)], normal(rng, 16))
    X = uniform(rng, 5, 3)
    assert_gradients_agree_with_autograd(acquisition, X, rtol=1e-12, by=1e-12)
    assert_gradients_are_differences(acquisition, X)


def test_every_leading_shape_is_scored_alike_and_groups_are_refused(rng):
    acquisition = NoisyLogExpectedImprovement([Smooth(4, 3)], normal(rng, 4))
    X = uniform(rng, 6, 3)
    assert_shapes_are_scored_alike(acquisition, X)
    assert_groups_are_refused(acquisition, X.shape)


@pytest.mark.parametrize("below", [10.0, 1e4, 1e8])
def test_far_below_the_best_scores_and_gradients_are_finite_and_point_upwards(below, rng):
    best = normal(rng, 8) + below
    means = normal(rng, 1, 8, 5).requires_grad_(True)
    stds = (0.5 + uniform(rng, 1, 5)).requires_grad_(True)
    value = NoisyLogExpectedImprovement([Smooth(8, 3)], best).formula(means, stds)
    by_means, by_stds = torch.autograd.grad(value.sum(), (means, stds))
    assert value.isfinite().all() and by_means.isfinite().all() and by_stds.isfinite().all()
    assert (by_means >= 0).all() and (by_means.sum(1) > 0).all()
    assert (by_stds > 0).all()  # the more uncertain, the better


def test_log_ei_broadcasts_and_has_the_gradient_of_differences_from_u_of_minus_1e4_to_10(rng):
    mean = torch.tensor([[-1e4, -40.0, -25.0, -1.0, 0.0], [-3.0, -2.0, 0.5, 3.0, 10.0]])
    mean = mean.double().requires_grad_(True)
    std = torch.tensor([1.0, 1.0, 1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    best = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
    # Where -u is large the value is nearly -u²/2, for which central differences are exact.
    assert torch.autograd.gradcheck(lambda m, s: log_ei(m, s, best), (mean, std), rtol=1e-5)


# --------------------------------------------------------------------------------------
# Draws
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dims"), [(64, 1), (64, 7), (256, 100)])
def test_base_samples_are_standard_normal_more_evenly_than_chance(count, dims, rng):
    e = base_samples(count, dims, rng)
    assert e.shape == (count, dims) and e.dtype == torch.float64 and e.isfinite().all()
    # Chance would leave 1/√count.
    assert e.mean(0).abs().max() < 0.3 / count**0.5
    assert (e.square().mean(0) - 1).abs().max() < 0.15


def test_base_samples_repeat_with_their_generator_and_leave_the_global_one_alone():
    state = torch.get_rng_state()
    first, second = (torch.Generator().manual_seed(5) for _ in range(2))
    one, other, next_ = (base_samples(8, 3, rng) for rng in (first, second, second))
    assert torch.equal(one, other) and not torch.equal(one, next_)
    assert torch.equal(torch.get_rng_state(), state)


def test_base_samples_go_on_where_sobol_points_end(rng):
    e = base_samples(4, 21_202, rng)
    assert e.shape == (4, 21_202) and abs(float(e.mean())) < 0.02
    assert base_samples(2, 21_201, rng).isfinite().all()


def test_draws_have_the_mean_and_the_covariance_asked_for(rng):
    mean, C = normal(rng, 4), spd_matrix(torch.tensor([3.0, 1.0, 0.3, 0.01]).double(), rng)
    f = draw(mean, C, base_samples(2**14, 4, rng), scale=1.0)
    torch.testing.assert_close(f.mean(0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(f.mT.cov(), C, atol=0.03, rtol=0)


@pytest.mark.parametrize("new", ["elsewhere", "at the first point", "near the first point"])
def test_one_more_point_leaves_the_samples_at_the_others_as_they_were(new, posterior, rng):
    X = uniform(rng, 12, 2)
    other = {"elsewhere": uniform(rng, 2), "at the first point": X[0]}.get(new, X[0] + 1e-7)
    mean, C = posterior.joint(torch.cat([X, other.unsqueeze(0)]))
    base = base_samples(64, 13, rng)
    fewer, more = draw(mean[:12], C[:12, :12], base, scale=1.0), draw(mean, C, base, scale=1.0)
    torch.testing.assert_close(more[:, :12], fewer, atol=1e-9, rtol=0)
    if new != "elsewhere":
        torch.testing.assert_close(more[:, 12], more[:, 0], atol=1e-4, rtol=0)


def test_draws_at_points_without_noise_are_the_mean(rng):
    X = uniform(rng, 10, 2)
    model = ExactGP(Matern52(2, lengthscale=0.4), noise=1e-3)
    posterior = model.condition(X, torch.sin(5 * X).sum(-1), torch.zeros(10, dtype=torch.float64))
    f = draw(*posterior.joint(X), base_samples(16, 10, rng), scale=1.0)
    torch.testing.assert_close(f, torch.sin(5 * X).sum(-1).expand(16, 10), atol=1e-4, rtol=0)


def test_no_points_have_no_values(rng):
    empty = torch.zeros(0, dtype=torch.float64)
    assert draw(empty, empty.diag(), base_samples(8, 3, rng), scale=1.0).shape == (8, 0)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_the_root_of_a_singular_matrix_is_exact_triangular_and_differentiable(rank, rng):
    A = normal(rng, 2, 5, rank).requires_grad_(True)
    C = A @ A.mT
    L = triangular_root(C, 1.0)
    torch.testing.assert_close(L @ L.mT, C, atol=1e-9, rtol=0)
    assert torch.equal(L, L.tril()) and (L.diagonal(dim1=-2, dim2=-1) >= 0).all()
    if rank:
        assert torch.autograd.grad(L.sum(), A)[0].isfinite().all()


def test_pivots_of_the_size_of_rounding_are_zero_even_where_a_factor_exists():
    small = torch.tensor([1.0, 1e-12, 1.0, 2e-10], dtype=torch.float64, requires_grad=True)
    L = triangular_root(small.diag(), 1.0)
    expected = torch.tensor([1.0, 0.0, 1.0, 2e-10], dtype=torch.float64).sqrt().diag()
    torch.testing.assert_close(L.detach(), expected)
    (slope,) = torch.autograd.grad(L.sum(), small)
    assert slope[1] == 0 and slope.max() < 1e5
    torch.testing.assert_close(triangular_root(100 * small.diag(), 100.0), 10 * L)


def test_both_ways_to_the_root_agree_and_so_do_their_gradients(rng):
    A = normal(rng, 4, 4).requires_grad_(True)
    C = A @ A.mT + torch.eye(4, dtype=torch.float64)
    singular = torch.zeros(4, 4, dtype=torch.float64)  # its neighbour has to go column by column
    direct, by_columns = triangular_root(C, 1.0), triangular_root(torch.stack([C, singular]), 1.0)
    torch.testing.assert_close(by_columns[0], direct)
    weights = normal(rng, 4, 4).tril()
    one, other = (
        torch.autograd.grad((L * weights).sum(), A, retain_graph=True)[0]
        for L in (direct, by_columns[0])
    )
    torch.testing.assert_close(one, other)


def test_a_baseline_keeps_the_points_that_are_best_in_some_sample():
    samples = torch.tensor([[1.0, 2.0, 0.0, 2.0], [3.0, 1.0, 2.0, 0.0], [-torch.inf] * 4])
    assert prune_baseline(samples).tolist() == [True, True, False, True]
    assert not prune_baseline(samples[2:]).any()


def test_pruning_a_baseline_leaves_the_best_of_each_sample_as_it_was(posterior, rng):
    Y = draw(*posterior.joint(posterior.X), base_samples(32, 8, rng), scale=1.0)
    kept = prune_baseline(Y)
    assert 0 < int(kept.sum()) < 8
    assert torch.equal(Y[:, kept].amax(-1), Y.amax(-1))


def test_the_value_is_the_log_of_a_mean_not_the_mean_of_logs():
    best = torch.tensor([0.0, 20.0], dtype=torch.float64)
    means, stds = torch.zeros(1, 2, 1).double(), torch.ones(1, 1).double()
    value = NoisyLogExpectedImprovement([Smooth(2, 1)], best).formula(means, stds)
    assert float(value) == pytest.approx(math.log(0.5 / math.sqrt(2 * math.pi)), abs=1e-12)
