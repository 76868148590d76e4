"""Facts about information on the maximum: mpmath, quadrature, brute force on two points."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bbmmopt.acquisition.entropy import (
    Cut,
    JointEntropySearch,
    LowerBoundMaxValueEntropySearch,
    MaxValueEntropySearch,
    joint_information,
    log_cut_information,
    log_max_value_information,
    lower_bound_information,
    sample_maxima,
)
from surrogate import ExactGP, Matern52
from tests.bbmmopt.acquisitions import (
    GROUPS,
    assert_gradients_agree_with_autograd,
    assert_gradients_are_differences,
    assert_groups_are_refused,
    assert_shapes_are_scored_alike,
)

mp = mpmath.mp.clone()
mp.dps = 120

U = sorted(
    {
        *torch.linspace(-12, 45, 115).tolist(),
        *(-(10.0**e) for e in torch.linspace(-3, 8, 34).tolist()),
        *(10.0**e for e in torch.linspace(-3, 4, 22).tolist()),
        *(math.nextafter(-4.0, way) for way in (-math.inf, math.inf)),
        *(-4.0, 0.0, math.nextafter(0.0, 1.0)),
    }
)
MAXIMA = torch.tensor([0.4, 1.1, 2.3], dtype=torch.float64)
NOISE = 0.05


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact_cut(u):
    """What `Cut` says of u, by its definitions."""
    hazard = mp.npdf(u) / mp.ncdf(u)
    short = u + hazard
    variance = 1 - hazard * short
    return {
        "hazard": hazard,
        "short": short,
        "bend": 1 + u * short,
        "variance": variance,
        "lost": hazard * short,
        "slope": hazard * (short**2 - variance),
    }


def exact_information(u):
    """u φ(u) / (2 Φ(u)) - log Φ(u)."""
    log_mass = mp.log1p(-mp.ncdf(-u)) if u > 3 else mp.log(mp.ncdf(u))
    return u * mp.npdf(u) / (2 * mp.ncdf(u)) - log_mass


def optima() -> torch.Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.rand(3, 3, generator=rng, dtype=torch.float64)


def pending() -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    return torch.rand(2, 3, generator=rng, dtype=torch.float64)


KINDS = {
    "mes": lambda p: MaxValueEntropySearch(p, MAXIMA),
    "bound": lambda p: LowerBoundMaxValueEntropySearch(p, MAXIMA, NOISE),
    "pending": lambda p: LowerBoundMaxValueEntropySearch(p, MAXIMA, NOISE, pending()),
    "joint": lambda p: JointEntropySearch(p, optima(), MAXIMA, NOISE),
}


# --------------------------------------------------------------------------------------
# The cut normal
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hazard", "short", "bend", "variance", "lost", "slope"])
def test_law_the_cut_normal_keeps_eleven_digits_from_minus_1e8_up(name):
    received = getattr(Cut.at(tensor(*U)), name).tolist()
    for u, value in zip(U, received, strict=True):
        exact = exact_cut(mp.mpf(u))[name]
        assert abs(mp.mpf(value) - exact) <= mp.mpf(5e-12) * abs(exact) + mp.mpf(1e-280), u


def test_log_information_and_its_derivative_keep_twelve_digits_from_minus_1e8_to_1e4():
    value, slope = log_cut_information(tensor(*U))
    for u, v, s in zip(U, value.tolist(), slope.tolist(), strict=True):
        cut, exact = exact_cut(mp.mpf(u)), exact_information(mp.mpf(u))
        log = mp.log(exact)
        assert abs(mp.mpf(v) - log) <= 1e-13 * (1 + abs(log)), u
        expected = -cut["hazard"] * cut["bend"] / (2 * exact)
        assert abs(mp.mpf(s) - expected) <= 1e-12 * abs(expected), u


@pytest.mark.parametrize("u", [-6.0, -2.0, 0.0, 0.7, 3.0])
def test_information_is_the_entropy_that_is_lost_by_quadrature(u):
    mass = stats.norm.cdf(u)

    def term(z):
        log = stats.norm.logpdf(z) - math.log(mass)
        return math.exp(log) * log

    lost, _ = integrate.quad(term, -12.0, u, limit=400)
    value, _ = log_cut_information(tensor(u))
    assert float(value.exp()) == pytest.approx(stats.norm.entropy() + lost, rel=1e-7)


# --------------------------------------------------------------------------------------
# Formulas
# --------------------------------------------------------------------------------------


def exact_max_value(mean, std):
    return mp.log(sum(exact_information((mp.mpf(m) - mean) / std) for m in MAXIMA.tolist()) / 3)


def exact_lower_bound(mean, std, noise):
    def one(u):
        return -mp.log(1 - std**2 / (std**2 + noise) * exact_cut(u)["lost"]) / 2

    return sum(one((mp.mpf(m) - mean) / std) for m in MAXIMA.tolist()) / 3


@pytest.mark.parametrize("mean", [-300.0, -3.0, 0.3, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("std", [1e-2, 0.3, 2.0])
def test_max_value_information_and_its_partial_derivatives_match_mpmath(mean, std):
    received = log_max_value_information(tensor(mean), tensor(std), MAXIMA)
    at = (mp.mpf(mean), mp.mpf(std))
    expected = [exact_max_value(*at)]
    expected += [mp.diff(exact_max_value, at, order, h=mp.mpf(1e-25)) for order in ((1, 0), (0, 1))]
    for value, exact in zip(received, expected, strict=True):
        assert float(value) == pytest.approx(float(exact), rel=1e-10)


@pytest.mark.parametrize("mean", [-8.0, 0.3, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("std", [0.2, 2.0])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.5])
def test_the_lower_bound_and_its_partial_derivatives_match_mpmath(mean, std, noise):
    received = lower_bound_information(tensor(mean), tensor(std), MAXIMA, noise)

    at = (mp.mpf(mean), mp.mpf(std), mp.mpf(noise))
    orders = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    expected = [exact_lower_bound(*at)]
    expected += [mp.diff(exact_lower_bound, at, order, h=mp.mpf(1e-25)) for order in orders]
    for value, reference in zip(received, expected, strict=True):
        assert float(value) == pytest.approx(float(reference), rel=2e-10, abs=1e-250)


def cut_normal_with_noise(u: float, noise: float) -> float:
    """Information about the cut: H(z + e) - H(z + e | z ≤ u) for z ~ N(0, 1), by quadrature."""
    total = math.sqrt(1 + noise)
    y = np.linspace(min(u, 0) - 9 * total, max(u, 0) + 9 * total, 40001)
    inner = (u - y / total**2) * total / math.sqrt(noise)
    log_density = stats.norm.logpdf(y, scale=total) + stats.norm.logcdf(inner)
    log_density -= stats.norm.logcdf(u)
    entropy = integrate.trapezoid(-np.exp(log_density) * log_density, y)
    return 0.5 * math.log(2 * math.pi * math.e * total**2) - entropy


@pytest.mark.parametrize("u", [-3.0, -1.0, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("noise", [0.01, 0.3, 5.0])
def test_the_lower_bound_is_one_and_the_more_noise_the_closer(u, noise):
    bound = float(lower_bound_information(tensor(0.0), tensor(1.0), tensor(u), noise)[0])
    exact = cut_normal_with_noise(u, noise)
    assert bound <= exact + 1e-9
    assert bound >= exact * (0.995 if noise == 5.0 else 0.5)


def test_without_noise_the_lower_bound_is_below_the_information_everywhere():
    u = torch.linspace(-50, 30, 801, dtype=torch.float64)
    exact, _ = log_cut_information(u)
    bounds = [lower_bound_information(-x, torch.ones_like(x), tensor(0.0), 0.0)[0] for x in u]
    assert (torch.stack(bounds) <= exact.exp() * (1 + 1e-12)).all()


@pytest.mark.parametrize("u", [-1e60, -1e4, 1e4, 1e60])
@pytest.mark.parametrize("std", [1e-30, 1.0])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_values_and_derivatives_are_finite_however_far_the_maximum(u, std, noise):
    maxima = tensor(u * std)
    for formula, rest in ((log_max_value_information, ()), (lower_bound_information, (noise,))):
        for part in formula(tensor(0.0), tensor(std), maxima, *rest):
            assert part.isfinite().all()


# --------------------------------------------------------------------------------------
# Brute force: f at two points, of which the first is observed
# --------------------------------------------------------------------------------------

TWO = [
    ([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
    ([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]]),
    ([0.5, -1.0], [[1.0, -0.3], [-0.3, 0.5]]),
    ([0.0, 1.0], [[0.2, 0.1], [0.1, 2.0]]),
]


def information_of_two(mean, covariance, noise):
    """I(y; x*, f*) and I(y; f*) for y = f_1 + e and f of two points, on a grid of f* and y."""

    def given(i, j, m):
        """Mean and std of f_j where f_i = m."""
        slope = covariance[i][j] / covariance[i][i]
        left = covariance[j][j] - slope * covariance[i][j]
        return mean[j] + slope * (m - mean[i]), math.sqrt(left)

    def prior(i, j):
        """Density of x* = i and f* = m."""
        centre, scale = given(i, j, m)
        own = stats.norm.pdf(m, mean[i], math.sqrt(covariance[i][i]))
        return own * stats.norm.cdf((m - centre) / scale)

    m = np.linspace(-7, 9, 801)
    y = np.linspace(-9, 9, 2001)
    total = math.sqrt(covariance[0][0] + noise)
    here = stats.norm.logpdf(y, m[:, None], math.sqrt(noise))
    centre, scale = (np.broadcast_to(part, m.shape)[:, None] for part in given(1, 0, m))
    spread = np.sqrt(scale**2 + noise)
    inner = centre + (scale / spread) ** 2 * (y - centre)
    there = stats.norm.logpdf(y, centre, spread)
    there = there + stats.norm.logcdf((m[:, None] - inner) * spread / scale / math.sqrt(noise))
    there = there - stats.norm.logcdf((m[:, None] - centre) / scale)

    def entropy(density):
        return -integrate.trapezoid(density * np.log(np.maximum(density, 1e-300)), y)

    first, second = prior(0, 1), prior(1, 0)
    here, there = np.exp(here), np.exp(there)
    either = (first[:, None] * here + second[:, None] * there) / (first + second)[:, None]
    whole = 0.5 * math.log(2 * math.pi * math.e * total**2)
    joint = whole - integrate.trapezoid(first * entropy(here) + second * entropy(there), m)
    return joint, whole - integrate.trapezoid((first + second) * entropy(either), m)


@pytest.mark.parametrize(("mean", "covariance"), TWO)
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_joint_information_is_a_close_lower_bound_of_brute_force_on_two_points(
    mean, covariance, noise
):
    exact, of_maximum = information_of_two(mean, covariance, noise)
    assert 0 < of_maximum < exact
    C, mu = torch.tensor(covariance, dtype=torch.float64), tensor(*mean)
    rng = torch.Generator().manual_seed(0)
    e = torch.randn(40_000, 2, generator=rng, dtype=torch.float64)
    maxima, which = (mu + e @ torch.linalg.cholesky(C).T).max(-1)
    here, there = C[0, 0].sqrt(), C.diagonal().sqrt()[which]
    whole = joint_information(mu[0], here, C[0][which], maxima, mu[which], there, noise)
    columns = (part.unsqueeze(-1) for part in (C[0][which], maxima, mu[which], there))
    parts = joint_information(mu[:1].expand(40_000), here.expand(40_000), *columns, noise)
    torch.testing.assert_close(parts.mean(), whole)
    error = float(parts.std()) / 200
    assert float(whole) <= exact + 4 * error
    assert float(whole) >= 0.95 * exact - 4 * error


def test_the_lower_bound_may_exceed_the_information_itself_as_the_module_says():
    mean, C = tensor(0.0, 0.0), torch.eye(2, dtype=torch.float64)
    joint, of_maximum = information_of_two(mean.tolist(), C.tolist(), 0.5)
    e = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = lower_bound_information(mean[0], C[0, 0], e.amax(-1), 0.5)[0]
    assert of_maximum * 1.02 < float(bound) < joint


def test_joint_information_is_that_of_the_formula_term_by_term():
    rng = torch.Generator().manual_seed(4)
    A = torch.randn(4, 4, generator=rng, dtype=torch.float64)
    C, mu = A @ A.T, torch.randn(4, generator=rng, dtype=torch.float64)
    maxima = mu[1:] + tensor(0.3, 1.5, 2.0)
    total = 0.0
    for s in range(3):
        j = s + 1
        weight = C[0, j] / C[j, j]
        v = float(C[0, 0] - weight * C[0, j])
        m = float(mu[0] + weight * (maxima[s] - mu[j]))
        cut = stats.truncnorm(-np.inf, (float(maxima[s]) - m) / math.sqrt(v))
        total += 0.5 * math.log((float(C[0, 0]) + 0.2) / (v * cut.var() + 0.2)) / 3
    received = joint_information(
        mu[0], C[0, 0].sqrt(), C[0, 1:], maxima, mu[1:], C.diagonal()[1:].sqrt(), 0.2
    )
    assert float(received) == pytest.approx(total, rel=1e-8)


# --------------------------------------------------------------------------------------
# On a posterior
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_law_value_and_gradient_agree_with_autograd_through_the_call(kind, posterior, candidates):
    assert_gradients_agree_with_autograd(KINDS[kind](posterior), candidates)


@pytest.mark.parametrize("kind", KINDS)
def test_law_the_gradient_is_that_of_finite_differences(kind, posterior, candidates):
    assert_gradients_are_differences(KINDS[kind](posterior), candidates)


def test_the_gradient_of_a_group_is_that_of_finite_differences(posterior, candidates):
    X = candidates.reshape(2, 3, 3).requires_grad_(True)
    assert torch.autograd.gradcheck(KINDS["bound"](posterior), X)
    assert torch.autograd.gradcheck(KINDS["pending"](posterior), X)


@pytest.mark.parametrize("kind", KINDS)
def test_law_every_leading_shape_is_scored_alike(kind, posterior, candidates):
    assert_shapes_are_scored_alike(KINDS[kind](posterior), candidates, rtol=1e-13)


@pytest.mark.parametrize("kind", ["mes", "joint"])
@pytest.mark.parametrize("shape", GROUPS)
def test_law_groups_of_several_candidates_are_refused_with_advice(kind, shape, posterior):
    assert_groups_are_refused(KINDS[kind](posterior), shape)


@pytest.mark.parametrize("kind", ["bound", "pending"])
def test_a_single_row_without_its_group_is_refused_with_advice(kind, posterior):
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., q, d\).*unsqueeze\(0\)"):
        KINDS[kind](posterior)(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_law_scores_and_gradients_are_finite_at_data_optima_and_pending_points(kind, noise):
    X = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(-1)
    posterior = ExactGP(Matern52(1, lengthscale=0.3), noise=1e-8).condition(X, X.squeeze(-1))
    near = X + 1e-9
    points = torch.cat([X, near, X + 1e-4, tensor(0.33)[None]])
    maxima = torch.linspace(-5, 9, 8, dtype=torch.float64)
    acquisition = {
        "mes": MaxValueEntropySearch(posterior, maxima),
        "bound": LowerBoundMaxValueEntropySearch(posterior, maxima, noise),
        "pending": LowerBoundMaxValueEntropySearch(posterior, maxima, noise, near),
        "joint": JointEntropySearch(posterior, near, maxima, noise),
    }[kind]
    value, gradient = acquisition.value_and_gradient(points)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_max_value_search_is_the_log_of_the_mean_information(posterior, candidates):
    mean, std = posterior.marginals(candidates)
    u = (MAXIMA[:, None] - mean) / std
    log_mass = torch.special.log_ndtr(u)
    r = (-0.5 * u.square() - 0.5 * math.log(2 * math.pi) - log_mass).exp()
    expected = (0.5 * u * r - log_mass).mean(0).log()
    received = MaxValueEntropySearch(posterior, MAXIMA)(candidates.unsqueeze(-2))
    torch.testing.assert_close(received, expected, rtol=1e-10, atol=1e-10)


def test_a_group_scores_the_sum_of_its_members_and_half_the_log_determinant(posterior, candidates):
    acquisition = KINDS["bound"](posterior)
    alone = acquisition(candidates.unsqueeze(-2)).sum()
    _, covariance = posterior.joint(candidates)
    covariance = covariance + NOISE * torch.eye(6, dtype=torch.float64)
    scale = covariance.diagonal().sqrt()
    expected = alone + 0.5 * torch.logdet(covariance / scale / scale[:, None])
    torch.testing.assert_close(acquisition(candidates), expected, rtol=1e-8, atol=1e-8)


def test_pending_points_count_as_members_of_every_group(posterior, candidates):
    joined = torch.cat([candidates.unsqueeze(-2), pending().expand(6, 2, 3)], -2)
    expected = KINDS["bound"](posterior)(joined)
    received = KINDS["pending"](posterior)(candidates.unsqueeze(-2))
    torch.testing.assert_close(received, expected, rtol=1e-8, atol=1e-8)
    groups = candidates.reshape(3, 2, 3)
    joined = torch.cat([groups, pending().expand(3, 2, 3)], -2)
    received = KINDS["pending"](posterior)(groups)
    torch.testing.assert_close(received, KINDS["bound"](posterior)(joined), rtol=1e-8, atol=1e-8)


def test_what_is_observed_twice_says_less_than_two_points_apart(posterior):
    apart = torch.tensor([[[0.9, 0.1, 0.2], [0.1, 0.9, 0.7]]], dtype=torch.float64)
    twice = apart[:, [0, 0]]
    acquisition = LowerBoundMaxValueEntropySearch(posterior, MAXIMA, 0.0)
    together, once = acquisition(twice), acquisition(apart[:, :1])
    assert together.isfinite().all() and (together < once).all()
    assert (acquisition(apart) > acquisition(apart[:, :1])).all()


def test_joint_search_takes_covariances_at_the_samples_of_the_optimum(posterior, candidates):
    acquisition = KINDS["joint"](posterior)
    expected = []
    for x in candidates:
        mean, covariance = posterior.joint(torch.cat([x[None], optima()]))
        std = covariance.diagonal().sqrt()
        terms = (mean[0], std[0], covariance[0, 1:], MAXIMA, mean[1:], std[1:], NOISE)
        expected.append(joint_information(*terms).log())
    received = acquisition(candidates.unsqueeze(-2))
    torch.testing.assert_close(received, torch.stack(expected), rtol=1e-8, atol=1e-8)


def test_joint_search_likes_nothing_better_than_a_sample_of_the_optimum(posterior, candidates):
    x = torch.tensor([[0.95, 0.05, 0.9]], dtype=torch.float64)
    mean, std = posterior.marginals(x)
    acquisition = JointEntropySearch(posterior, x, mean + 2 * std, 1e-4)
    assert (acquisition(x[None]) > acquisition(candidates.unsqueeze(-2))).all()


# --------------------------------------------------------------------------------------
# Samples of the maximum
# --------------------------------------------------------------------------------------

TOPS = torch.tensor([[0.21, 0.77], [0.5, 0.5], [0.9, 0.13], [1.4, 0.3]], dtype=torch.float64)


def hills(X: torch.Tensor) -> torch.Tensor:
    """Four functions, each highest at its top; steeper along the second column."""
    X = X.expand(4, *X.shape[-2:])
    away = (X - TOPS.unsqueeze(1)) * torch.tensor([1.0, 3.0], dtype=torch.float64)
    return 3.0 - away.square().sum(-1)


def corners() -> torch.Tensor:
    return torch.cartesian_prod(*[torch.linspace(0, 1, 5, dtype=torch.float64)] * 2)


def test_each_function_is_climbed_to_its_top_inside_the_cube():
    X, f = sample_maxima(hills, corners(), steps=60)
    torch.testing.assert_close(X, TOPS.clamp(0, 1), rtol=0, atol=2e-3)
    torch.testing.assert_close(f, hills(X.unsqueeze(-2)).squeeze(-1))


def test_more_starts_find_a_higher_hill_behind_a_lower_candidate():
    def two(X):  # the candidates are 1.0 and 0.9; the top near the second is 2
        x = X[..., 0].expand(1, -1) if X.ndim == 2 else X[..., 0]
        return torch.maximum(1 - (x - 0.2).square(), 2 - 110 * (x - 0.9).square())

    X = tensor(0.2, 0.8)[:, None]
    assert float(sample_maxima(two, X, starts=1)[1]) == pytest.approx(1.0)
    x, f = sample_maxima(two, X, starts=2)
    assert float(f) == pytest.approx(2.0, abs=1e-3) and float(x) == pytest.approx(0.9, abs=1e-2)


def test_columns_that_are_not_free_keep_their_candidates_values():
    X, f = sample_maxima(hills, corners(), free=torch.tensor([True, False]), steps=60)
    nearest = torch.tensor([0.75, 0.5, 0.25, 0.25], dtype=torch.float64)
    torch.testing.assert_close(X[:, 1], nearest, rtol=0, atol=0)
    torch.testing.assert_close(X[:, 0], TOPS[:, 0].clamp(0, 1), rtol=0, atol=2e-3)
    assert (f <= 3).all()


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"free": torch.zeros(2, dtype=torch.bool)}])
def test_without_steps_or_free_columns_the_best_candidates_are_returned(arguments):
    X, f = sample_maxima(hills, corners(), **arguments)
    values = hills(corners())
    assert torch.equal(f, values.amax(-1)) and torch.equal(X, corners()[values.argmax(-1)])


def test_maxima_of_sampled_paths_are_no_lower_than_at_the_candidates(posterior, candidates):
    paths = posterior.sample_paths(7, torch.Generator().manual_seed(0), features=256)
    X, f = sample_maxima(paths, candidates)
    assert X.shape == (7, 3) and f.shape == (7,)
    assert ((X >= 0) & (X <= 1)).all() and not X.requires_grad and not f.requires_grad
    assert (f >= paths(candidates).amax(-1)).all()
    torch.testing.assert_close(f, paths(X.unsqueeze(-2)).squeeze(-1), rtol=1e-12, atol=1e-12)
    again = sample_maxima(paths, candidates)
    assert torch.equal(again[0], X) and torch.equal(again[1], f)
