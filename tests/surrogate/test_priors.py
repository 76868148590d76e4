import math

import numpy as np
import pytest
from oracles import central_difference
from scipy import stats

from surrogate import LogNormal, Normal, Prior, PriorSet, prior_set
from surrogate.models.priors import PRIOR_SETS, LogPriors

ROLES = ["lengthscale", "variance", "noise", "category_lengthscale"]
ROLES += ["ordinal_step", "warp", "activity_gap", "task_variance"]
REAL_ROLES = ["task_factor", "weight"]


def flat(low: float = 1e-3, high: float = 1e3) -> Prior:
    return Prior(None, 1.0, low, high)


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (-4.0, 1.0), (1.4, 1.7)])
def test_the_mode_is_where_the_density_of_scipy_is_largest(location, scale):
    mode = LogNormal(location, scale).mode
    near = mode * np.linspace(0.5, 2.0, 1501)
    density = stats.lognorm(scale, scale=math.exp(location)).pdf(near)
    assert near[density.argmax()] == pytest.approx(mode, rel=2e-3)


def test_log_density_and_gradient_are_those_of_scipy():
    densities = [LogNormal(0.3, 0.8), LogNormal(-4.0, 1.0), LogNormal(1.5, 1.7)]
    priors = LogPriors.of([Prior(d, d.mode, 1e-9, 1e9) for d in densities])

    def expected(u: np.ndarray) -> float:
        return sum(
            stats.lognorm(d.scale, scale=math.exp(d.location)).logpdf(math.exp(x))
            for d, x in zip(densities, u, strict=True)
        )

    u, other = np.array([0.1, -3.0, 2.0]), np.array([-1.0, -5.0, 1.0])
    value, gradient = priors.log_density(u)
    difference = value - priors.log_density(other)[0]  # the constant drops out
    assert difference == pytest.approx(expected(u) - expected(other), rel=1e-10)
    np.testing.assert_allclose(gradient, central_difference(expected, u), rtol=1e-6)


def test_the_gradient_vanishes_at_the_mode():
    density = LogNormal(-4.0, 1.0)
    priors = LogPriors.of([Prior(density, 1.0, 1e-9, 1.0)])
    np.testing.assert_allclose(priors.log_density(np.log([density.mode]))[1], 0.0, atol=1e-14)


def test_a_flat_prior_adds_nothing():
    priors = LogPriors.of([flat(), flat()])
    value, gradient = priors.log_density(np.array([-2.0, 3.0]))
    assert value == 0.0
    assert not gradient.any()


def test_starts_and_bounds_are_collected_as_logarithms():
    priors = LogPriors.of([flat(1e-3, 10.0), Prior(None, 0.5, 0.1, 2.0)])
    np.testing.assert_allclose(priors.start, np.log([1.0, 0.5]))
    np.testing.assert_allclose(priors.low, np.log([1e-3, 0.1]))
    np.testing.assert_allclose(priors.high, np.log([10.0, 2.0]))


@pytest.mark.parametrize("name", PRIOR_SETS)
@pytest.mark.parametrize("dims", [1, 6, 200])
def test_every_set_starts_every_role_inside_its_bounds(name, dims):
    for role in ROLES:
        prior = prior_set(name).prior(role, dims)
        assert 0 < prior.low < prior.start < prior.high < math.inf


@pytest.mark.parametrize("name", PRIOR_SETS)
def test_every_set_lets_real_roles_have_either_sign_and_start_where_they_stand(name):
    for role in REAL_ROLES:
        prior = prior_set(name).prior(role, 3)
        assert prior.real and prior.low < 0 < prior.high and math.isnan(prior.start)


def test_a_real_parameter_is_taken_as_it_is_beside_one_taken_by_its_logarithm():
    normal, log_normal = Normal(-0.4, 1.3), LogNormal(0.3, 0.8)
    priors = LogPriors.of(
        [
            Prior(normal, -0.4, -5.0, 5.0, real=True),
            Prior(log_normal, 1.0, 1e-3, 1e3),
            Prior(None, math.nan, -2.0, 3.0, real=True),
        ]
    )
    np.testing.assert_array_equal(priors.start, [-0.4, 0.0, math.nan])
    np.testing.assert_allclose(priors.low, [-5.0, math.log(1e-3), -2.0])
    np.testing.assert_allclose(priors.high, [5.0, math.log(1e3), 3.0])

    def expected(u: np.ndarray) -> float:
        by_log = stats.lognorm(log_normal.scale, scale=math.exp(log_normal.location))
        return stats.norm(normal.mean, normal.scale).logpdf(u[0]) + by_log.logpdf(math.exp(u[1]))

    u, other = np.array([0.7, -0.2, 1.5]), np.array([-3.0, 0.4, -1.0])
    value, gradient = priors.log_density(u)
    difference = value - priors.log_density(other)[0]
    assert difference == pytest.approx(expected(u) - expected(other), rel=1e-10)
    np.testing.assert_allclose(gradient, central_difference(expected, u), rtol=1e-6, atol=1e-9)
    assert not priors.log_density(np.array([-0.4, log_normal.location, 0.0]))[1][0]


@pytest.mark.parametrize(("density", "real"), [(Normal(0.0, 1.0), False), (LogNormal(0, 1), True)])
def test_a_density_for_the_other_kind_of_parameter_is_refused(density, real):
    with pytest.raises(ValueError, match=r"real=True. takes a Normal prior.*got"):
        Prior(density, 1.0, 0.1, 10.0, real=real)


def test_dimension_scaled_lengthscales_grow_with_the_root_of_d_and_start_at_their_mode():
    one, many = (prior_set("dimension-scaled-1").prior("lengthscale", d) for d in (1, 25))
    assert one.density is not None
    assert one.start == pytest.approx(one.density.mode)
    assert one.start == pytest.approx(math.exp(math.sqrt(2) - 3))
    assert many.start == pytest.approx(5 * one.start)


# What was released is never edited: a study resumed next year is modelled as it was.
RELEASED = {
    "dimension-scaled-1": {
        "lengthscale": (1.9635, 1.7321, 0.3547, 5e-3, 1e3),
        "variance": (0.5, 0.7071, 1.0, 1e-2, 1e2),
        "noise": (-4.0, 1.0, 0.006738, 1e-4, 10.0),
        "category_lengthscale": (0.25, 1.0, 0.5, 5e-2, 50.0),
        "ordinal_step": (0.5625, 0.75, 1.0, 1e-2, 1e2),
        "warp": (0.5625, 0.75, 1.0, 5e-2, 20.0),
        "activity_gap": (1.0, 1.0, 1.0, 1e-2, 1e2),
        "task_factor": (0.0, 1.0, math.nan, -10.0, 10.0),
        "task_variance": (-0.2, 1.0, 0.3, 1e-4, 1e2),
        "weight": (0.0, 1.0, math.nan, -1e3, 1e3),
    },
    "exact-objective-1": {
        "lengthscale": (1.9635, 1.7321, 0.3547, 5e-3, 1e3),
        "variance": (0.5, 0.7071, 1.0, 1e-2, 1e2),
        "noise": (None, None, 1e-6, 1e-8, 1e-4),
        "category_lengthscale": (0.25, 1.0, 0.5, 5e-2, 50.0),
        "ordinal_step": (0.5625, 0.75, 1.0, 1e-2, 1e2),
        "warp": (0.5625, 0.75, 1.0, 5e-2, 20.0),
        "activity_gap": (1.0, 1.0, 1.0, 1e-2, 1e2),
        "task_factor": (0.0, 1.0, math.nan, -10.0, 10.0),
        "task_variance": (-0.2, 1.0, 0.3, 1e-4, 1e2),
        "weight": (0.0, 1.0, math.nan, -1e3, 1e3),
    },
    "flat-1": {
        "lengthscale": (None, None, 0.3464, 1e-6, 1e6),
        "variance": (None, None, 1.0, 1e-9, 1e9),
        "noise": (None, None, 1e-2, 1e-10, 1e9),
        "category_lengthscale": (None, None, 1.0, 1e-2, 1e3),
        "ordinal_step": (None, None, 1.0, 1e-3, 1e3),
        "warp": (None, None, 1.0, 1e-2, 1e2),
        "activity_gap": (None, None, 1.0, 1e-3, 1e3),
        "task_factor": (None, None, math.nan, -3e4, 3e4),
        "task_variance": (None, None, 0.3, 1e-9, 1e9),
        "weight": (None, None, math.nan, -1e3, 1e3),
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_set_keeps_its_numbers(name):
    for role, (location, scale, *rest) in RELEASED[name].items():
        prior = prior_set(name).prior(role, 3)
        density = prior.density or LogNormal(math.nan, math.nan)
        centre = density.mean if isinstance(density, Normal) else density.location
        received = [centre, density.scale, prior.start, prior.low, prior.high]
        expected = [math.nan if v is None else v for v in (location, scale)] + rest
        np.testing.assert_allclose(received, expected, rtol=1e-3)


def test_every_released_set_is_pinned_here():
    assert set(RELEASED) == set(PRIOR_SETS)


def test_an_unknown_role_has_a_flat_prior():
    assert prior_set("dimension-scaled-1").prior("log_period", 3).density is None


def test_a_set_of_ones_own_passes_through():
    mine = PriorSet("mine-1", {"noise": lambda dims: flat()})
    assert prior_set(mine) is mine


def test_an_unknown_set_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"no prior set 'flat'; there are .*flat-1"):
        prior_set("flat")
