"""Facts about the knowledge gradient: quadrature, Monte Carlo, degenerate lines."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bbmmopt.acquisition.base import Acquisition
from bbmmopt.acquisition.knowledge import (
    KnowledgeGradient,
    knowledge_gradient,
    log_knowledge_gradient,
)
from surrogate import ExactGP, Matern52

mp = mpmath.mp.clone()
mp.dps = 60

LOWEST = -1e300


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    mean = torch.randn(*shape, generator=rng, dtype=torch.float64)
    return mean, torch.randn(*shape, generator=rng, dtype=torch.float64)


def by_quadrature(mean: torch.Tensor, slopes: torch.Tensor) -> float:
    """E max_a (μ_a + b_a Z) - max μ, between all the places where any two lines meet."""
    mu, b = mean.numpy(), slopes.numpy()
    i, j = np.triu_indices(len(mu), 1)
    rise = b[j] - b[i]
    meets = (mu[i] - mu[j])[rise != 0] / rise[rise != 0]
    edges = np.unique(np.concatenate([[-12.0, 12.0], meets[np.abs(meets) < 12]]))

    def gain(z):
        return ((mu + b * z).max() - mu.max()) * stats.norm.pdf(z)

    return sum(integrate.quad(gain, *pair)[0] for pair in itertools.pairwise(edges))


@pytest.fixture
def acquisition(posterior) -> KnowledgeGradient:
    rng = torch.Generator().manual_seed(2)
    return KnowledgeGradient(posterior, torch.rand(20, 3, generator=rng, dtype=torch.float64), 0.01)


# --------------------------------------------------------------------------------------
# The formula
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("A", [2, 3, 7, 30])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_expectation_by_quadrature(A, seed):
    mean, slopes = draw(seed, A)
    expected = by_quadrature(mean, slopes)
    assert float(knowledge_gradient(mean, slopes)) == pytest.approx(expected, rel=1e-7, abs=1e-10)


def test_it_is_the_expectation_by_monte_carlo():
    mean, slopes = draw(5, 12)
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gains = (mean + slopes * z.unsqueeze(-1)).amax(-1) - mean.max()
    error = float(gains.std()) / len(z) ** 0.5
    expected = float(gains.mean())
    assert float(knowledge_gradient(mean, slopes)) == pytest.approx(expected, abs=4 * error)


TIES = {
    "equal means": (tensor(1.0, 1.0, 1.0), tensor(-1.0, 0.5, 2.0)),
    "equal slopes": (tensor(0.3, 1.0, 0.2, -1.0), tensor(0.5, 0.5, 0.5, 0.8)),
    "duplicates": (tensor(0.3, 1.0, 1.0, 0.3, 0.3), tensor(0.5, 0.1, 0.1, 0.5, 0.5)),
    "three lines in one point": (tensor(0.0, -1.0, -2.0), tensor(0.0, 1.0, 2.0)),
    "a line that only touches": (tensor(0.0, -1.0, -1.0), tensor(0.0, 1.0, -1.0)),
    "all zero means": (tensor(0.0, 0.0), tensor(0.0, 1.0)),
}


@pytest.mark.parametrize("case", TIES)
def test_ties_and_duplicates_change_nothing(case):
    mean, slopes = TIES[case]
    expected = by_quadrature(mean, slopes)
    assert float(knowledge_gradient(mean, slopes)) == pytest.approx(expected, rel=1e-8, abs=1e-12)
    more = knowledge_gradient(mean.repeat(3), slopes.repeat(3))
    assert float(more) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(
    ("mean", "slopes"),
    [
        (tensor(0.7), tensor(2.0)),
        (tensor(0.7, 0.7), tensor(2.0, 2.0)),
        (tensor(1, 2.0), tensor(0, 0.0)),
    ],
)
def test_where_no_decision_can_change_it_is_zero_with_a_finite_log_and_no_gradient(mean, slopes):
    mean.requires_grad_(True), slopes.requires_grad_(True)
    value = log_knowledge_gradient(mean, slopes)
    assert value.item() == LOWEST and knowledge_gradient(mean, slopes).item() == 0
    for gradient in torch.autograd.grad(value, (mean, slopes)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("gap", [1e-8, 0.5, 10.0, 50.0, 1e4])
@pytest.mark.parametrize("rise", [1e-6, 0.1, 3.0])
def test_of_two_lines_the_log_keeps_its_digits_however_small(gap, rise):
    u = -mp.mpf(gap) / mp.mpf(rise)
    exact = mp.log(rise) + mp.log(mp.npdf(u) + u * mp.ncdf(u)) if u > -1e4 else None
    value = float(log_knowledge_gradient(tensor(gap, 0.0), tensor(0.2, 0.2 + rise)))
    assert math.isfinite(value)
    if exact is not None:  # the sum 0.2 + rise is off by 1e-17
        assert value == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


def test_each_row_of_a_batch_is_as_if_alone():
    mean, slopes = draw(6, 2, 5, 9)
    received = log_knowledge_gradient(mean, slopes)
    assert received.shape == (2, 5)
    for i in range(2):
        for j in range(5):
            assert float(received[i, j]) == pytest.approx(
                float(log_knowledge_gradient(mean[i, j], slopes[i, j])), rel=1e-14
            )
    shared = log_knowledge_gradient(mean[0, 0], slopes)
    torch.testing.assert_close(shared[1, 2], log_knowledge_gradient(mean[0, 0], slopes[1, 2]))


def test_the_gradient_is_that_of_finite_differences():
    mean, slopes = (part.requires_grad_(True) for part in draw(7, 3, 6))
    assert torch.autograd.gradcheck(log_knowledge_gradient, (mean, slopes))
    assert torch.autograd.gradcheck(knowledge_gradient, (mean, slopes))
    shared = mean[0].detach().requires_grad_(True)
    assert torch.autograd.gradcheck(log_knowledge_gradient, (shared, slopes))


def test_the_gradient_in_the_mean_is_how_likely_each_option_becomes_the_best():
    mean, slopes = draw(8, 6)
    mean.requires_grad_(True)
    (gradient,) = torch.autograd.grad(knowledge_gradient(mean, slopes), mean)
    z = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = (mean.detach() + slopes * z.unsqueeze(-1)).argmax(-1)
    share = torch.bincount(best, minlength=6).double() / len(z)
    share[mean.argmax()] -= 1
    torch.testing.assert_close(gradient, share, rtol=0, atol=0.007)


@pytest.mark.parametrize("scale", [1e-120, 1e-20, 1e20, 1e100])
def test_values_and_gradients_are_finite_for_extreme_means_and_slopes(scale):
    mean, slopes = draw(9, 4, 8)
    for factors in ((scale, 1.0), (1.0, scale), (scale, scale)):
        leaves = [
            (part * f).requires_grad_(True) for part, f in zip((mean, slopes), factors, strict=True)
        ]
        value = log_knowledge_gradient(*leaves)
        assert value.isfinite().all()
        for gradient in torch.autograd.grad(value.sum(), leaves):
            assert gradient.isfinite().all()


# --------------------------------------------------------------------------------------
# On a posterior
# --------------------------------------------------------------------------------------


def test_it_is_the_expected_rise_of_the_highest_mean_after_a_real_trial(acquisition, candidates):
    posterior, noise = acquisition.posterior, tensor(acquisition.noise)
    z = np.linspace(-6, 6, 301)
    weights = stats.norm.pdf(z) * (z[1] - z[0])
    for x, received in zip(candidates[:3], acquisition(candidates[:3].unsqueeze(-2)), strict=True):
        everywhere = torch.cat([acquisition.points, x[None]])
        before = posterior.marginals(everywhere)[0].max()
        mean, std = posterior.marginals(x[None])
        spread = (std.square() + noise).sqrt()
        after = [
            posterior.append(x[None], mean + spread * float(e), noise)
            .marginals(everywhere)[0]
            .max()
            for e in z
        ]
        gain = (torch.stack(after) - before) @ torch.as_tensor(weights)
        assert float(received.exp()) == pytest.approx(float(gain), rel=2e-3)


def test_value_and_gradient_agree_with_autograd_through_the_call(acquisition, candidates):
    value, gradient = acquisition.value_and_gradient(candidates)
    expected, expected_gradient = Acquisition.value_and_gradient(acquisition, candidates)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


def test_its_gradient_is_that_of_finite_differences(acquisition, candidates):
    assert torch.autograd.gradcheck(acquisition, candidates.unsqueeze(-2).requires_grad_(True))


def test_every_leading_shape_is_scored_alike(acquisition, candidates):
    flat = acquisition(candidates.unsqueeze(-2))
    received = acquisition(candidates.reshape(2, 3, 1, 3))
    torch.testing.assert_close(received, flat.reshape(2, 3), rtol=1e-13, atol=1e-13)
    assert acquisition(candidates[:1]).shape == ()


@pytest.mark.parametrize("shape", [(3,), (6, 3), (4, 2, 3)])
def test_groups_of_several_candidates_are_refused_with_advice(shape, acquisition):
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 1, d\); got .*unsqueeze"):
        acquisition(torch.zeros(shape, dtype=torch.float64))


def test_more_noise_is_worth_less(acquisition, candidates):
    values = [
        KnowledgeGradient(acquisition.posterior, acquisition.points, noise)(candidates[:, None])
        for noise in (0.0, 0.01, 1.0, 100.0)
    ]
    assert (torch.stack(values).diff(dim=0) < 0).all()


@pytest.mark.parametrize("A", [1, 8])
def test_scores_and_gradients_are_finite_at_the_data_and_at_the_points(A):
    X = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(-1)
    posterior = ExactGP(Matern52(1, lengthscale=0.3), noise=1e-8).condition(X, X.squeeze(-1))
    acquisition = KnowledgeGradient(posterior, X[:A], 0.0)
    value, gradient = acquisition.value_and_gradient(torch.cat([X, X + 1e-9, X + 0.01]))
    assert value.isfinite().all() and gradient.isfinite().all()
