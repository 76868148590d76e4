"""What is particular to kernels of waves, circles, compact support and inner products."""

import math

import numpy as np
import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import Tensor

from surrogate import (
    RBF,
    ExactGP,
    Kernel,
    Linear,
    Periodic,
    PiecewisePolynomial,
    Polynomial,
    RationalQuadratic,
    SpectralMixture,
    prior_set,
)
from surrogate.models.priors import PRIOR_SETS

# Each with the names of its parameters, in the order of its arguments.
BUILD = {
    "rational quadratic": (RationalQuadratic, ["lengthscale", "variance", "alpha"]),
    "compact": (lambda dims, *given, **named: PiecewisePolynomial(dims, 2, *given, **named),
                ["lengthscale", "variance"]),
    "periodic": (Periodic, ["period", "lengthscale", "variance"]),
    "linear": (Linear, ["variance"]),
    "polynomial": (lambda dims, *given, **named: Polynomial(dims, 2, *given, **named),
                   ["offset", "variance"]),
    "waves": (lambda dims, **named: SpectralMixture(dims, 2, **named),
              ["weights", "frequencies", "bandwidths"]),
}  # fmt: skip
ROLES = [
    *("shape", "support", "period", "periodic_lengthscale", "offset"),
    *("component_weight", "frequency", "bandwidth"),
]


def matrix(kernel: Kernel, X: Tensor) -> Tensor:
    with torch.no_grad():
        return kernel(X, X)


# --------------------------------------------------------------------------------------
# Arguments, roles and priors of them all.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "names"), BUILD.values(), ids=BUILD)
def test_arguments_that_do_not_fit_together_are_named(make, names):
    with pytest.raises(ValueError, match="dims must be at least 1; got 0"):
        make(0)
    with pytest.raises(ValueError, match=r"columns must name 2 column\(s\).*got \[1\]"):
        make(2, columns=[1])
    for name in names:
        for bad in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be positive and finite; got"):
                make(2, **{name: bad})
        with pytest.raises(ValueError, match=rf"{name} must be one number.*got shape \(3,\)"):
            make(2, **{name: [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(("make", "names"), BUILD.values(), ids=BUILD)
def test_arguments_read_in_their_own_units_and_those_left_out_are_for_a_model_to_set(make, names):
    assert make(2).unset == {f"log_{name}" for name in names}
    for name in names:
        kernel = make(2, **{name: 0.7})
        assert f"log_{name}" not in kernel.unset and len(kernel.unset) == len(names) - 1
        value = getattr(kernel, name).detach()
        torch.testing.assert_close(value, torch.full_like(value, 0.7))


def test_a_degree_a_smoothness_or_a_number_of_components_that_there_is_not_is_refused():
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"degree must be a whole number.*got {bad}"):
            Polynomial(2, bad)
    for bad in (-1, 4, 0.5):
        with pytest.raises(ValueError, match=f"smoothness must be 0, 1, 2 or 3; got {bad}"):
            PiecewisePolynomial(2, bad)
    with pytest.raises(ValueError, match="components must be at least 1; got 0"):
        SpectralMixture(2, 0)


def test_repr_tells_what_a_kernel_is():
    assert repr(PiecewisePolynomial(2, 1)) == "PiecewisePolynomial(dims=2, smoothness=1)"
    assert repr(Polynomial(1, 3, columns=[4])) == "Polynomial(dims=1, columns=(4,), degree=3)"
    assert repr(SpectralMixture(3, 2)) == "SpectralMixture(dims=3, components=2)"
    assert repr(Periodic(1)) == "Periodic(dims=1)"


@pytest.mark.parametrize("name", PRIOR_SETS)
@pytest.mark.parametrize("dims", [1, 6, 200])
def test_every_set_starts_the_new_roles_inside_their_bounds_or_where_they_stand(name, dims):
    for role in ROLES:
        prior = prior_set(name).prior(role, dims)
        assert 0 < prior.low < prior.high < math.inf
        assert math.isnan(prior.start) or prior.low < prior.start < prior.high
        assert (prior.density is None) == (name == "flat-1")


@pytest.mark.parametrize(("make", "names"), BUILD.values(), ids=BUILD)
def test_every_set_knows_the_roles_of_every_kernel(make, names):
    for name in PRIOR_SETS:
        assert {role for role, _ in make(2).roles_of_parameters()} <= set(prior_set(name).by_role)


# What was released is never edited.
@pytest.mark.parametrize("name", ["dimension-scaled-1", "exact-objective-1"])
def test_the_priors_keep_their_numbers(name):
    numbers = {
        "shape": (1.0, 1.0, 1.0, 1e-2, 1e3),
        "support": (3.5730, 1.7321, 1.7737, 2.5e-2, 5e3),
        "period": (0.5, 0.7071, 1.0, 1e-2, 1e2),
        "periodic_lengthscale": (3.8014, 1.7321, 2.2289, 3.1416e-2, 6.2832e3),
        "offset": (1.0, 1.0, 1.0, 1e-3, 1e3),
        "component_weight": (0.0, 1.0, math.nan, 1e-4, 1e2),
        "frequency": (-0.5493, 1.7321, math.nan, 1e-4, 1e2),
        "bandwidth": (-3.8014, 1.7321, math.nan, 1e-4, 1e2),
    }
    assert set(numbers) == set(ROLES)
    for role, expected in numbers.items():
        prior = prior_set(name).prior(role, 3)
        assert prior.density is not None
        received = [prior.density.location, prior.density.scale, prior.start, prior.low, prior.high]
        np.testing.assert_allclose(received, expected, rtol=1e-3)


def test_a_model_moves_what_was_left_out_to_its_priors_but_keeps_waves_apart():
    compact = ExactGP(PiecewisePolynomial(4, variance=3.0)).kernel
    start = prior_set("dimension-scaled-1").prior("support", 4).start
    torch.testing.assert_close(compact.lengthscale, torch.full((4,), start).double())
    assert compact.variance.item() == pytest.approx(3.0)
    waves = SpectralMixture(2, 3)
    for priors in PRIOR_SETS:
        kept = ExactGP(waves, priors=priors).kernel
        assert all(map(torch.equal, kept.parameters(), waves.parameters()))


# --------------------------------------------------------------------------------------
# Mixtures.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.2, 1.0, 7.0, 1e6])
def test_the_frequencies_of_a_rational_quadratic_are_those_of_its_spectral_density(alpha, rng):
    x = normal(rng, 6, 3)
    omega = RationalQuadratic(3, alpha=alpha).frequencies(20_000, rng)
    expected = (-alpha * torch.log1p(x.square().sum(1) / (2 * alpha))).exp()
    assert_mean_within(torch.cos(x @ omega).T, expected)


def test_one_wave_of_hardly_any_frequency_is_a_squared_exponential(rng):
    X, ell = uniform(rng, 8, 2), [0.3, 0.8]
    bandwidth = [[1 / (2 * math.pi * e) for e in ell]]
    wave = SpectralMixture(2, 1, weights=1.7, frequencies=1e-9, bandwidths=bandwidth)
    torch.testing.assert_close(matrix(wave, X), matrix(RBF(2, ell, 1.7), X))


def test_waves_left_to_themselves_differ_and_are_the_same_each_time(rng):
    state = torch.get_rng_state()
    first, again = SpectralMixture(2, 5), SpectralMixture(2, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.frequencies, again.frequencies)
    assert len(first.frequencies.detach().unique(dim=0)) == 5
    drawn, other = SpectralMixture(2, 5, generator=rng), SpectralMixture(2, 5, generator=rng)
    assert not torch.equal(drawn.frequencies, other.frequencies)
    assert first.weights.sum().item() == pytest.approx(1.0)
    for kernel in (first, drawn):
        assert kernel.frequencies.shape == kernel.bandwidths.shape == (5, 2)
        assert kernel.frequencies.min() > 1e-3 and kernel.frequencies.max() < 10
        torch.testing.assert_close(kernel.diagonal(uniform(rng, 3, 2)), torch.ones(3).double())


def test_frequencies_are_one_for_each_component_or_for_each_of_its_inputs_too():
    kernel = SpectralMixture(3, 2, frequencies=[1.0, 2.0], bandwidths=0.5)
    torch.testing.assert_close(kernel.frequencies[1], torch.full((3,), 2.0).double())
    assert kernel.bandwidths.shape == (2, 3)
    with pytest.raises(ValueError, match=r"shape \(2,\) or \(2, 3\); got shape \(3, 2\)"):
        SpectralMixture(3, 2, bandwidths=torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"weights must be one number, or of shape \(2,\); got"):
        SpectralMixture(3, 2, weights=torch.ones(2, 3))


def test_waves_continue_a_pattern_that_they_were_told_of(rng):
    X = uniform(rng, 25, 1)
    kernel = SpectralMixture(1, 2, frequencies=[3.0, 0.7], bandwidths=1e-3)
    new = torch.linspace(1.5, 2.0, 9, dtype=torch.float64).unsqueeze(1)

    def pattern(x: Tensor) -> Tensor:
        return torch.sin(6 * math.pi * x[:, 0]) + torch.cos(1.4 * math.pi * x[:, 0])

    posterior = ExactGP(kernel, noise=1e-4).condition(X, pattern(X))
    torch.testing.assert_close(posterior.marginals(new)[0], pattern(new), rtol=0, atol=0.05)


# --------------------------------------------------------------------------------------
# Circles.
# --------------------------------------------------------------------------------------


def test_a_periodic_kernel_repeats_and_so_do_its_coordinates_and_its_features(rng):
    period = torch.tensor([0.3, 2.0]).double()
    kernel, X = Periodic(2, period, 0.9), uniform(rng, 6, 2)
    later = X + period * torch.tensor([4.0, -3.0]).double()
    torch.testing.assert_close(kernel(X, later), kernel(X, X))
    torch.testing.assert_close(kernel.coordinates(later), kernel.coordinates(X))
    phi = kernel.features(20, rng)
    torch.testing.assert_close(phi(later), phi(X))


def test_coordinates_on_circles_are_the_closer_the_more_correlated(rng):
    kernel, X = Periodic(2, [0.3, 2.0], [0.9, 0.5]), 5 * uniform(rng, 20, 2)
    C = kernel.coordinates(X)
    expected = torch.exp(-(C.unsqueeze(1) - C).square().sum(-1) / 2)
    torch.testing.assert_close(matrix(kernel, X), expected)


def test_within_little_of_a_period_a_periodic_kernel_is_a_squared_exponential(rng):
    X = 1e-4 * uniform(rng, 8, 1)
    near = RBF(1, 3e-5)
    circle = Periodic(1, 0.5, 3e-5 * 2 * math.pi / 0.5)
    torch.testing.assert_close(matrix(circle, X), matrix(near, X), rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------
# Compact support.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0, 1, 2, 3])
@pytest.mark.parametrize("dims", [1, 2, 3, 6])
def test_a_compact_kernel_is_zero_beyond_its_lengthscale_and_positive_definite(dims, q, rng):
    kernel = PiecewisePolynomial(dims, q, 0.7)
    X = uniform(rng, 60, dims)
    K, r = kernel.linearise(X, X).K, torch.cdist(X, X) / 0.7
    assert torch.equal(K == 0, r >= 1)
    assert (r >= 1).any() and (r < 1).sum() > 60
    assert torch.linalg.eigvalsh(K).min() > -1e-12


@pytest.mark.parametrize("far", [0.11, 3.0, 1e25])
@pytest.mark.parametrize("q", [0, 1, 2, 3])
def test_points_out_of_reach_are_not_pulled_nor_pull_however_far(q, far):
    kernel = PiecewisePolynomial(1, q, 0.1)
    X1, X2, G = (torch.full((1, 1), value).double() for value in (0.0, far, 1.0))
    linearised = kernel.linearise(X1, X2)
    assert not linearised.K.any() and not linearised.inputs(G).any()
    assert not any(g.any() for g in linearised.parameters(G))
    for dtype in (torch.float64, torch.float32):
        assert not kernel.evaluate(X1, X2, torch.empty(1, 1, dtype=dtype)).any()


@pytest.mark.parametrize("q", [1, 2, 3])
def test_a_smooth_compact_kernel_has_the_curvature_of_its_polynomial_where_points_meet(q):
    # ρ(r) = 1 - c r²/2 + …: by a difference, against the slope that gradients take.
    kernel, h = PiecewisePolynomial(3, q, 1.0), 1e-3
    X1, X2 = torch.zeros(1, 3).double(), torch.tensor([[h, 0.0, 0.0]]).double()
    linearised = kernel.linearise(X1, X2)
    curvature = 2 * (1 - linearised.K.item()) / h**2
    pull = linearised.inputs(torch.ones(1, 1).double())[0, 0].item()
    assert pull / h == pytest.approx(curvature, rel=2e-2)


def test_a_compact_kernel_says_that_it_has_no_random_features(rng):
    with pytest.raises(TypeError, match=r"PiecewisePolynomial has no random features.*sample"):
        PiecewisePolynomial(2).features(8, rng)


# --------------------------------------------------------------------------------------
# Inner products.
# --------------------------------------------------------------------------------------


def test_as_many_features_as_inputs_give_a_linear_kernel_exactly(rng):
    kernel, X = Linear(3, [0.5, 2.0, 1.0]), normal(rng, 6, 3)
    for count in (3, 8):
        phi = kernel.features(count, rng)(X)
        assert phi.shape == (6, count)
        torch.testing.assert_close(phi @ phi.T, matrix(kernel, X))


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_each_feature_of_an_inner_product_has_its_share_of_the_mean(count, rng):
    # What products of kernels rely on; the others of a kernel may be as they like.
    X = normal(rng, 4, 3)
    for kernel in (Linear(3, [0.5, 2.0, 1.0]), Polynomial(3, 2, 0.7)):
        phi = torch.stack([kernel.features(count, rng)(X) for _ in range(2000)])
        expected = matrix(kernel, X) / count
        for i in {0, count // 2, count - 1}:
            assert_mean_within(phi[:, :, i, None] * phi[:, None, :, i], expected)


def test_a_linear_model_finds_the_line_of_least_squares(rng):
    X = normal(rng, 12, 2)
    y = X @ torch.tensor([1.5, -0.7]).double() + 0.1 * normal(rng, 12)
    posterior = ExactGP(Linear(2, 1e3), noise=1e-2).condition(X, y)
    new = normal(rng, 5, 2)
    expected = new @ torch.linalg.lstsq(X, y.unsqueeze(1)).solution[:, 0]
    torch.testing.assert_close(posterior.marginals(new)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_variance_of_a_polynomial_has_a_gradient_in_the_point(rng):
    X = normal(rng, 5, 2).requires_grad_()
    kernel = Polynomial(2, 3, 0.7, 1.3)
    kernel.diagonal(X).sum().backward()
    with torch.no_grad():
        expected = 1.3 * 3 * (X.square().sum(1, keepdim=True) + 0.7) ** 2 * 2 * X
    torch.testing.assert_close(X.grad, expected)
