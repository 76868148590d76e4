"""Facts about the expected improvement of several trials together."""

import math

import pytest
import torch
from oracles import normal, uniform

from bbmmopt.acquisition import LogExpectedImprovement
from bbmmopt.acquisition.batch import fat_max, log_fat_plus
from bbmmopt.acquisition.noisy import base_samples
from surrogate import ExactGP, Matern52
from tests.bbmmopt.acquisitions import batch_improvement


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def posterior(rng):
    X = uniform(rng, 9, 3)
    model = ExactGP(Matern52(3, lengthscale=0.5), noise=1e-3)
    return model.condition(X, torch.sin(5 * X).sum(-1))


def batch(posterior, best=1.5, count=256, q=4, **options):
    base = base_samples(count, q, torch.Generator().manual_seed(1))
    return batch_improvement(posterior, best, base, **options)


# --------------------------------------------------------------------------------------
# The smooth maxima
# --------------------------------------------------------------------------------------


def test_the_fat_positive_part_is_as_close_as_it_says_and_its_excess_integrates_to_2_tau_squared():
    tau = 0.1
    x = torch.linspace(-300, 300, 6_000_001, dtype=torch.float64)
    excess = log_fat_plus(x, tau).exp() - x.clamp_min(0.0)
    assert (excess > 0).all() and excess.argmax() == len(x) // 2
    assert float(excess.max()) == pytest.approx((math.log(2) + 0.1) * tau, rel=1e-12)
    exact = (math.pi**2 / 6 + 0.1 * math.pi) * tau**2
    assert float(excess.sum() * (x[1] - x[0])) == pytest.approx(exact, rel=1e-3)
    assert exact < 2 * tau**2


def test_the_fat_positive_part_increases_and_is_convex():
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    slope = log_fat_plus(x, 1.0).exp().diff()
    assert (slope > 0).all() and (slope.diff() > 0).all()


@pytest.mark.parametrize("x", [-1e12, -1e4, -1.0, 0.0, 1e-7, 1.0, 1e12])
def test_the_fat_positive_part_has_a_slope_everywhere(x):
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = log_fat_plus(x, 1e-6)
    (slope,) = torch.autograd.grad(value, x)
    assert value.isfinite() and slope.isfinite() and slope > 0


@pytest.mark.parametrize("q", [1, 2, 5, 100, 5000])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.1, 10.0, 1e6])
def test_the_fat_maximum_solves_its_equation_and_is_as_close_as_it_says(q, spread, rng):
    tau = 0.01
    x = (spread * normal(rng, 7, q) - 3).requires_grad_(True)
    m = fat_max(x, tau)
    above = m - x.amax(-1)
    assert (above >= 0).all() and (above <= tau * (q**0.5 - 1) * (1 + 1e-12) + 1e-9).all()
    total = (1 + (m.unsqueeze(-1) - x) / tau).pow(-2).sum(-1)
    torch.testing.assert_close(total, torch.ones(7).double(), rtol=1e-9, atol=0)
    (slope,) = torch.autograd.grad(m.sum(), x)
    assert (slope > 0).all()
    torch.testing.assert_close(slope.sum(-1), torch.ones(7).double())


def test_the_fat_maximum_is_smooth_where_elements_tie(rng):
    x = torch.tensor([[0.0, 0.0, -0.3], [1.0, 1.0, 1.0], [0.2, -5.0, 0.1]]).double()
    assert torch.autograd.gradcheck(lambda x: fat_max(x, 0.5), x.requires_grad_(True))


# --------------------------------------------------------------------------------------
# Against exact values and plain Monte Carlo
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [-1.0, 1.0, 1.5])
def test_one_candidate_has_its_exact_expected_improvement(best, posterior, rng):
    X = uniform(rng, 20, 1, 3)
    value = batch(posterior, best, count=2**14)(X)
    exact = LogExpectedImprovement(posterior, best)(X)
    likely = exact > math.log(1e-3)  # rarer gains need more samples than these
    assert int(likely.sum()) >= 10
    torch.testing.assert_close(value[likely], exact[likely], atol=0.01, rtol=0)


@pytest.mark.parametrize("q", [2, 4])
def test_the_bias_of_smoothing_is_within_what_is_promised(q, posterior, rng):
    X = uniform(rng, 10, q, 3)
    acquisition = batch(posterior, 1.0, count=512)
    mean, covariance = posterior.joint(X)
    f = mean.unsqueeze(-1) + torch.linalg.cholesky(covariance) @ acquisition.base[0, :, :q].mT
    plain = (f - 1.0).clamp_min(0.0).amax(-2).mean(-1).log()  # on the same samples
    bias = acquisition(X) - plain
    assert (bias > 0).all() and (bias < 0.01 * (q**0.5 - 1) + 1e-4).all()


@pytest.mark.parametrize("q", [2, 4])
def test_several_candidates_agree_with_plain_monte_carlo(q, posterior, rng):
    X = uniform(rng, 5, q, 3)
    mean, covariance = posterior.joint(X)
    L = torch.linalg.cholesky(covariance)
    f = mean.unsqueeze(-1) + L @ normal(rng, q, 200_000)
    gain = (f - 1.0).clamp_min(0.0).amax(-2)
    value = batch(posterior, 1.0, count=2**13)(X).exp()
    error = gain.std(-1) / 200_000**0.5
    assert ((value - gain.mean(-1)).abs() < 4 * error + 0.02 * gain.mean(-1)).all()


def test_each_sample_may_have_a_best_of_its_own(posterior, rng):
    X, best = uniform(rng, 6, 2, 3), 1.0 + normal(rng, 64)
    value = batch(posterior, best, count=64)(X)
    alone = [
        batch_improvement(posterior, float(b), e.unsqueeze(0))(X)
        for b, e in zip(best, batch(posterior, count=64).base[0], strict=True)
    ]
    torch.testing.assert_close(value, torch.stack(alone).logsumexp(0) - math.log(64))
    same = torch.full((64,), 1.5, dtype=torch.float64)
    torch.testing.assert_close(batch(posterior, same, 64)(X), batch(posterior, 1.5, 64)(X))


# --------------------------------------------------------------------------------------
# Gradients and shapes
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2, 4])
def test_the_gradient_is_that_of_finite_differences(q, posterior, rng):
    X = uniform(rng, 3, q, 3).requires_grad_(True)
    # A larger temperature, since with the usual one corners are as narrow as gradcheck's steps.
    assert torch.autograd.gradcheck(batch(posterior, 1.0, count=16, scale=1e3), X)


def test_value_and_gradient_are_those_of_the_call(posterior, rng):
    X = uniform(rng, 5, 3)
    acquisition = batch(posterior)
    value, gradient = acquisition.value_and_gradient(X)
    torch.testing.assert_close(value, acquisition(X.unsqueeze(-2)))
    for j in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[j] = 1e-7
        up, down = (acquisition((X + s).unsqueeze(-2)) for s in (step, -step))
        torch.testing.assert_close(gradient[:, j], (up - down) / 2e-7, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("best", [2.0, 50.0, 1e4, 1e8])
def test_every_candidate_has_a_slope_however_far_below_the_best(best, posterior, rng):
    X = uniform(rng, 6, 4, 3).requires_grad_(True)
    value = batch(posterior, best)(X)
    (gradient,) = torch.autograd.grad(value.sum(), X)
    assert value.isfinite().all() and gradient.isfinite().all()
    assert (gradient.abs().amax(-1) > 0).all()


def test_candidates_that_coincide_or_are_known_are_scored_with_finite_gradients(rng):
    X = uniform(rng, 6, 3)
    model = ExactGP(Matern52(3, lengthscale=0.5), noise=1e-8)
    known = model.condition(X, torch.sin(5 * X).sum(-1), torch.zeros(6, dtype=torch.float64))
    same = uniform(rng, 1, 3).expand(3, 3)
    groups = torch.stack([X[:3], same, uniform(rng, 3, 3)]).requires_grad_(True)
    value = batch(known, 1.0)(groups)
    (gradient,) = torch.autograd.grad(value.sum(), groups)
    assert value.isfinite().all() and gradient.isfinite().all()
    alone = batch(known, 1.0)(same[:1])
    # The same trial three times gains as much as once.
    torch.testing.assert_close(value[1].detach(), alone, atol=0.01, rtol=0)


def test_more_candidates_gain_more_and_their_order_does_not_matter_much(posterior, rng):
    X = uniform(rng, 8, 4, 3)
    acquisition = batch(posterior, 1.0, count=2**12)
    values = torch.stack([acquisition(X[:, :q]) for q in (1, 2, 3, 4)])
    assert (values.diff(dim=0) > -1e-3).all()
    torch.testing.assert_close(acquisition(X.flip(-2)), values[-1], atol=0.05, rtol=0)


def test_leading_shapes_are_kept_and_too_large_groups_refused(posterior, rng):
    acquisition, X = batch(posterior), uniform(rng, 6, 2, 3)
    flat = acquisition(X)
    assert flat.shape == (6,) and acquisition(X[0]).shape == ()
    torch.testing.assert_close(acquisition(X.reshape(2, 3, 2, 3)), flat.reshape(2, 3))
    for wrong in (uniform(rng, 5, 3), uniform(rng, 3)):
        with pytest.raises(ValueError, match="groups of up to 4 candidates"):
            acquisition(wrong)
