"""Facts about acquisition functions of several objectives: mpmath, quadrature, Monte Carlo."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from oracles import assert_mean_within, normal, uniform

from bbmmopt.acquisition import Acquisition, log_expected_improvement
from bbmmopt.acquisition import multi_objective as module
from bbmmopt.acquisition.multi_objective import (
    LogExpectedHypervolumeImprovement,
    log_expected_hypervolume_improvement,
)
from bbmmopt.acquisition.normal import mills
from bbmmopt.acquisition.scalarised import hypervolume_scalarisation, random_directions
from bbmmopt.pareto import boxes_of_each, hypervolume

mp = mpmath.mp.clone()
mp.dps = 80

INF = math.inf


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def cut_up(fronts, reference):
    """Boxes as tensors, (S, b, k) each."""
    return tuple(torch.from_numpy(corner) for corner in boxes_of_each(fronts, reference))


def random_fronts(seed, S, n, k):
    rng = np.random.default_rng(seed)
    Y = np.abs(rng.standard_normal((S, n, k)))
    return Y / np.linalg.norm(Y, axis=-1, keepdims=True)


def problem(seed, k, S, n, m):
    """Boxes of S fronts, and beliefs at m candidates about as good as the fronts."""
    rng = torch.Generator().manual_seed(seed)
    lower, upper = cut_up(random_fronts(seed, S, n, k), np.zeros(k))
    means = uniform(rng, k, 1, m) + 0.1 * normal(rng, k, S, m)
    return means, 0.05 + 0.3 * uniform(rng, k, m), lower, upper


# --------------------------------------------------------------------------------------
# One box of one objective: log E[(min(f, u) - l)+] against mpmath
# --------------------------------------------------------------------------------------


def exact_h(u):
    return mp.npdf(u) + u * mp.ncdf(u)


def exact_gain(mean, std, low, high):
    """E[(min(f, u) - l)+] for f ~ N(mean, std²)."""
    mean, std, low = mp.mpf(mean), mp.mpf(std), mp.mpf(low)
    rest = 0 if high == INF else exact_h((mean - mp.mpf(high)) / std)
    return std * (exact_h((mean - low) / std) - rest)


def exact_slopes(mean, std, low, high):
    """d/dmean and d/dstd of the log of it, and the size of the terms of the second."""
    mean, std, low = mp.mpf(mean), mp.mpf(std), mp.mpf(low)
    a, c = (low - mean) / std, mp.inf if high == INF else (mp.mpf(high) - mean) / std
    gain = exact_gain(mean, std, low, high)
    phi_c, above_c = (0, 0) if high == INF else (mp.npdf(c), mp.ncdf(-c))
    terms = (mp.npdf(a) + phi_c) / gain
    return (mp.ncdf(-a) - above_c) / gain, (mp.npdf(a) - phi_c) / gain, terms


STANDARDISED = sorted(
    {
        *(sign * 10.0**e for e in (-3, -1, 0, 1, 2, 3, 6) for sign in (-1, 1)),
        *(float(x) for x in np.linspace(-12, 30, 43)),
    }
)
WIDTHS = [1e-12, 1e-6, 1e-3, 0.01, 0.03, 0.032, 0.1, 0.5, 1.0, 3.0, 50.0, 1e4, 1e7, INF]


# Powers of 2, and a mean of 0: no rounding between the arguments and standardised edges.
@pytest.mark.parametrize("std", [1.0, 2.0**-5])
@pytest.mark.parametrize("width", WIDTHS)
def test_law_one_box_agrees_with_mpmath_and_so_do_its_derivatives(width, std):
    means = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    stds = torch.full((1, 1), std, dtype=torch.float64, requires_grad=True)
    seen = 0
    for l in (std * a for a in STANDARDISED):
        u = l + std * width
        if not l < u:
            continue  # narrower than the spacing of doubles there
        seen += 1
        value = log_expected_hypervolume_improvement(means, stds, tensor([[[l]]]), tensor([[[u]]]))
        by_mean, by_std = torch.autograd.grad(value.sum(), (means, stds))
        exact = float(mp.log(exact_gain(0, std, l, u)))
        assert value.item() == pytest.approx(exact, rel=1e-13, abs=1e-13)
        exact_by_mean, exact_by_std, terms = exact_slopes(0, std, l, u)
        assert by_mean.item() == pytest.approx(float(exact_by_mean), rel=1e-11, abs=1e-200)
        slack = 1e-11 * abs(exact_by_std) + 1e-13 * terms + 1e-200
        assert abs(by_std.item() - exact_by_std) <= slack
    assert seen > 40


def test_one_box_without_end_is_expected_improvement():
    mean, std = tensor(STANDARDISED), torch.full((len(STANDARDISED),), 0.3, dtype=torch.float64)
    means, stds = mean.reshape(1, 1, -1).requires_grad_(), std.reshape(1, -1).requires_grad_()
    value = log_expected_hypervolume_improvement(
        means, stds, *cut_up([np.array([[0.2], [0.7]])], [-1.0])
    )
    slopes = torch.autograd.grad(value.sum(), (means, stds))
    expected = log_expected_improvement(mean, std, 0.7)
    for received, exact in zip((value, *slopes), expected, strict=True):
        torch.testing.assert_close(received.detach().flatten(), exact, rtol=1e-11, atol=1e-13)


def test_the_mills_ratio_keeps_thirteen_digits_from_0_to_1e8():
    t = torch.cat([torch.linspace(0, 12, 300), torch.logspace(-3, 8, 100)]).double()
    for x, R, H in zip(t.tolist(), *(part.tolist() for part in mills(t)), strict=True):
        x = mp.mpf(x)
        phi = mp.npdf(x)
        assert abs(R / (mp.ncdf(-x) / phi) - 1) < 1e-13
        assert abs(H / (exact_h(-x) / phi) - 1) < 1e-13
    R, H = mills(tensor([0.0, INF]))
    assert R.tolist() == [pytest.approx(math.sqrt(math.pi / 2), rel=1e-15), 0.0]
    assert H.tolist() == [pytest.approx(1.0, rel=1e-15), 0.0]


# --------------------------------------------------------------------------------------
# Expected hypervolume improvement
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [0.0, 3.0, 30.0, 1e3])
@pytest.mark.parametrize("k", [2, 3])
def test_law_the_value_keeps_ten_digits_far_below_the_front(k, below):
    lower, upper = cut_up(random_fronts(0, 1, 6, k), np.zeros(k))
    stds = tensor([0.3, 0.05, 1.1])[:k, None]
    for j in range(k + 1):  # one objective is as far below as that, or all are
        means = torch.full((k, 1, 1), 0.4, dtype=torch.float64)
        chosen = slice(None) if j == k else slice(j, j + 1)
        means[chosen, 0] -= below * stds[chosen]
        total = mp.mpf(0)
        for low, high in zip(lower[0].tolist(), upper[0].tolist(), strict=True):
            beliefs = zip(means.flatten().tolist(), stds.flatten().tolist(), strict=True)
            total += mp.fprod(
                exact_gain(mean, std, l, u)
                for (mean, std), l, u in zip(beliefs, low, high, strict=True)
            )
        received = log_expected_hypervolume_improvement(means, stds, lower, upper)
        assert float(received) == pytest.approx(float(mp.log(total)), rel=1e-10, abs=1e-12)


def improvement(f, front, reference):
    """Of points f (..., k) over a small front, by inclusion and exclusion."""
    f, front = np.maximum(f - reference, 0.0), np.maximum(front - reference, 0.0)
    taken = sum(
        (-1) ** (size + 1) * np.minimum(f, front[list(chosen)].min(0)).prod(-1)
        for size in range(1, len(front) + 1)
        for chosen in itertools.combinations(range(len(front)), size)
    )
    return f.prod(-1) - taken


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_the_value_is_the_log_of_a_monte_carlo_mean(k):
    means, stds, lower, upper = problem(1, k, 3, 6, 5)
    means += 0.2  # so that improvements are not too rare to be seen
    fronts = random_fronts(1, 3, 6, k)
    value = log_expected_hypervolume_improvement(means, stds, lower, upper)
    rng = torch.Generator().manual_seed(0)
    for i in range(5):
        z = normal(rng, 40_000, k)
        gains = [
            improvement((means[:, s, i] + stds[:, i] * z).numpy(), fronts[s], np.zeros(k))
            for s in range(3)
        ]
        assert_mean_within(torch.from_numpy(np.mean(gains, axis=0)), float(value[i].exp()))


def test_the_value_for_two_objectives_is_that_of_quadrature():
    front, reference = np.array([[0.1, 0.9], [0.5, 0.6], [0.8, 0.2]]), np.array([-0.1, 0.05])
    nodes, weights = np.polynomial.legendre.leggauss(24)
    for mean, std in (((0.4, 0.5), (0.3, 0.2)), ((0.9, 0.1), (0.1, 0.6)), ((-1.0, 2.0), (0.5, 1))):
        axes = []
        for j in range(2):
            # The integrand is smooth between the coordinates of the front.
            far = np.linspace(max(1.0, mean[j]), max(1.0, mean[j]) + 9 * std[j], 5)
            edges = np.unique([reference[j], *front[:, j], *far])
            half = np.diff(edges)[:, None] / 2
            x = (edges[:-1, None] + half + half * nodes).ravel()
            density = np.exp(-0.5 * ((x - mean[j]) / std[j]) ** 2) / (std[j] * (2 * np.pi) ** 0.5)
            axes.append((x, (half * weights).ravel() * density))
        (x0, w0), (x1, w1) = axes
        grid = np.stack(np.meshgrid(x0, x1, indexing="ij"), axis=-1)
        expected = math.log(w0 @ improvement(grid, front, reference) @ w1)
        received = log_expected_hypervolume_improvement(
            tensor(mean).reshape(2, 1, 1), tensor(std)[:, None], *cut_up([front], reference)
        )
        assert float(received) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_without_uncertainty_it_is_the_improvement_itself(k):
    front, f = random_fronts(0, 1, 8, k), np.array([[0.9, 0.7, 0.8][:k]]) * 1.5
    received = log_expected_hypervolume_improvement(
        torch.from_numpy(f.T[:, None].copy()),
        torch.full((k, 1), 1e-9, dtype=torch.float64),
        *cut_up(front, np.zeros(k)),
    )
    gain = hypervolume(np.vstack([front[0], f]), np.zeros(k)) - hypervolume(front[0], np.zeros(k))
    assert float(received.exp()) == pytest.approx(gain, rel=1e-8)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_many_fantasies_are_the_mean_over_single_ones(k):
    means, stds, lower, upper = problem(2, k, 7, 5, 4)
    together = log_expected_hypervolume_improvement(means, stds, lower, upper)
    alone = [
        log_expected_hypervolume_improvement(
            means[:, s : s + 1], stds, lower[s : s + 1], upper[s : s + 1]
        )
        for s in range(7)
    ]
    expected = torch.stack(alone).exp().mean(0).log()
    torch.testing.assert_close(together, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("chunk", [1, 30, 200])
def test_law_chunks_change_nothing(chunk, monkeypatch):
    means, stds, lower, upper = problem(3, 3, 6, 8, 11)
    results = []
    for _ in range(2):
        means.requires_grad_(), stds.requires_grad_()
        value = log_expected_hypervolume_improvement(means, stds, lower, upper)
        results.append((value, *torch.autograd.grad(value.sum(), (means, stds))))
        monkeypatch.setattr(module, "_CHUNK", chunk)
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14)


# --------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, -2.0, 1.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_the_gradients_are_those_of_finite_differences(k, shift):
    means, stds, lower, upper = problem(4, k, 3, 6, 4)
    inputs = ((means + shift).requires_grad_(), stds.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda *x: log_expected_hypervolume_improvement(*x, lower, upper), inputs, eps=1e-7
    )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_empty_boxes_change_neither_value_nor_gradients(k):
    means, stds, lower, upper = problem(5, k, 3, 6, 4)
    low, high = (torch.cat([corner, lower[:, :3] - 1], dim=1) for corner in (lower, upper))
    means.requires_grad_(), stds.requires_grad_()
    results = []
    for corners in ((lower, upper), (low, high)):
        for far in (0.0, -1e3):
            value = log_expected_hypervolume_improvement(means + far, stds, *corners)
            results.append((value, *torch.autograd.grad(value.sum(), (means, stds))))
    torch.testing.assert_close(results[:2], results[2:], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_nothing_but_empty_boxes_is_minus_infinity_with_gradients_of_zero(k):
    corner = torch.full((2, 3, k), 0.5, dtype=torch.float64)
    means, stds, lower, upper = problem(6, k, 2, 4, 3)
    means.requires_grad_(), stds.requires_grad_()
    for corners in ((corner, corner), (corner[:, :0], corner[:, :0])):
        value = log_expected_hypervolume_improvement(means, stds, *corners)
        assert (value == -INF).all()
        for slope in torch.autograd.grad(value.sum(), (means, stds)):
            assert (slope == 0).all()
    # One fantasy without room among others: the mean over all, as ever.
    lower[0], upper[0] = 0.5, 0.5
    value = log_expected_hypervolume_improvement(means, stds, lower, upper)
    alone = log_expected_hypervolume_improvement(means[:, 1:], stds, lower[1:], upper[1:])
    torch.testing.assert_close(value, alone - math.log(2), rtol=1e-13, atol=1e-13)
    slopes = torch.autograd.grad(value.sum(), (means, stds))
    assert all(slope.isfinite().all() for slope in slopes) and (slopes[0][:, 0] == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_values_and_gradients_are_finite_at_a_million_standard_deviations(k):
    lower, upper = cut_up(random_fronts(0, 2, 6, k), np.zeros(k))
    lower, upper = (torch.cat([corner, lower[:, :2]], dim=1) for corner in (lower, upper))
    for far in itertools.product((-1e6, -40.0, 0.0, 40.0, 1e6), repeat=k):
        means = (0.1 * tensor(far))[:, None, None].expand(k, 2, 1).clone().requires_grad_()
        stds = torch.full((k, 1), 0.1, dtype=torch.float64, requires_grad=True)
        value = log_expected_hypervolume_improvement(means, stds, lower, upper)
        slopes = torch.autograd.grad(value.sum(), (means, stds))
        assert value.isfinite().all() and all(slope.isfinite().all() for slope in slopes)
        assert (slopes[0] >= 0).all()
        if min(far) < -1e3:  # where nothing is likely to be gained, every way up is clear
            assert slopes[0][far.index(min(far))].sum() > 0


# --------------------------------------------------------------------------------------
# On beliefs
# --------------------------------------------------------------------------------------


class Line:
    """Means w_s · x + b_s and a standard deviation of 0.1 + |x|²."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def marginals(self, X):
        return self.w @ X.mT + self.b[:, None], 0.1 + X.square().sum(-1)

    def linearise(self, X):
        return *self.marginals(
            X
        ), lambda by_mean, by_std: by_mean.mT @ self.w + 2 * by_std[:, None] * X


@pytest.fixture(params=[1, 2, 3])
def acquisition(request):
    k, S = request.param, 4
    rng = torch.Generator().manual_seed(k)
    beliefs = [Line(normal(rng, S, 2), normal(rng, S)) for _ in range(k)]
    return LogExpectedHypervolumeImprovement(beliefs, *cut_up(random_fronts(k, S, 5, k), [0.0] * k))


def test_law_value_and_gradient_agree_with_autograd_through_the_call(acquisition):
    X = normal(torch.Generator().manual_seed(0), 6, 2)
    value, gradient = acquisition.value_and_gradient(X)
    expected, expected_gradient = Acquisition.value_and_gradient(acquisition, X)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(acquisition(X.unsqueeze(-2)), value, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(acquisition, X.unsqueeze(-2).requires_grad_())


def test_law_every_leading_shape_is_scored_alike(acquisition):
    X = normal(torch.Generator().manual_seed(0), 6, 2)
    flat = acquisition(X.unsqueeze(-2))
    torch.testing.assert_close(acquisition(X.reshape(2, 3, 1, 2)), flat.reshape(2, 3))
    assert acquisition(X[:1]).shape == ()
    with pytest.raises(ValueError, match=r"scores single candidates"):
        acquisition(X)


def test_shapes_that_do_not_fit_together_are_refused():
    means, stds, lower, upper = problem(0, 2, 3, 4, 5)
    for wrong in (
        (means, stds[:, :4], lower, upper),
        (means, stds, lower[:1], upper[:1]),
        (means, stds, lower, upper[:, :2]),
        (means[:1], stds[:1], lower, upper),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            log_expected_hypervolume_improvement(*wrong)


# --------------------------------------------------------------------------------------
# Scalarisations
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_law_the_mean_of_the_best_scalarised_value_is_the_hypervolume(k):
    Y = 0.2 + random_fronts(0, 1, 12, k)[0]
    Y = np.vstack([Y, Y[:2] - 0.1, np.full(k, -1.0)])
    reference = np.full(k, 0.1)
    weights = random_directions(k, 40_000, torch.Generator().manual_seed(0))
    scores = hypervolume_scalarisation(
        torch.from_numpy(Y), torch.from_numpy(reference), weights[:, None]
    )
    assert scores.shape == (40_000, len(Y))
    ball = math.pi ** (k / 2) / (2**k * math.gamma(k / 2 + 1))
    assert_mean_within(ball * scores.amax(-1), hypervolume(Y, reference))


def test_the_scalarisation_of_a_few_values():
    values = tensor([[2.0, 3.0], [1.0, 9.0], [0.5, 5.0], [9.0, 1.0]])
    received = hypervolume_scalarisation(values, tensor([1.0, 1.0]), tensor([0.5, 1.0]))
    assert received.tolist() == [4.0, 0.0, 0.0, 0.0]
    assert float(hypervolume_scalarisation(values[0], tensor([0.0, 0.0]), tensor([1.0, 1.0]))) == 4


def test_the_scalarisation_is_differentiable():
    rng = torch.Generator().manual_seed(0)
    values, weights = normal(rng, 6, 4).abs() + 0.1, random_directions(4, 6, rng)
    assert torch.autograd.gradcheck(
        lambda y: hypervolume_scalarisation(y, torch.zeros(4, dtype=torch.float64), weights),
        values.requires_grad_(),
    )


def test_directions_are_positive_of_unit_length_and_no_axis_is_preferred():
    draws = random_directions(3, 20_000, torch.Generator().manual_seed(0))
    assert draws.shape == (20_000, 3) and (draws > 0).all()
    torch.testing.assert_close(draws.norm(dim=-1), torch.ones(20_000, dtype=torch.float64))
    # On the sphere in three dimensions each coordinate is uniform: Archimedes.
    assert_mean_within(draws, 0.5)
    assert_mean_within(draws.square(), 1 / 3)
    again = random_directions(3, 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
