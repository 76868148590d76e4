"""Facts about the transforms of targets: order, round trips, hard numbers."""

import numpy as np
import pytest
import scipy.stats

from bbmmopt.transforms import Standardise, YeoJohnson

EVERY = [Standardise.of, YeoJohnson.of]
LARGEST = float(np.finfo(float).max)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


HARD = {
    "one": [3.0],
    "two": [1.0, -4.0],
    "two alike": [2.0, 2.0],
    "constant": [7.5] * 9,
    "zeros": [0.0] * 9,
    "ties": [1.0] * 8 + [2.0, 5.0],
    "ties in the middle": [0.0, *[1.0] * 8, 2.0],
    "1e300": [1e300, -3e300, 2e300, 7e300, 0.0, 1e299],
    "the largest doubles": [LARGEST, -LARGEST, 0.5 * LARGEST, 0.0, LARGEST, -LARGEST],
    "the smallest doubles": [5e-324, 0.0, 1e-323, 2e-320, 1e-310],
    "one smallest double": [0.0, 0.0, 0.0, 0.0, 5e-324],
    "mixed scales": [10.0**e for e in range(-300, 301, 40)],
    "mixed scales and signs": [(-1) ** e * 10.0**e for e in range(-300, 301, 37)],
    "a far outlier": [0.1, 0.2, 0.3, 0.4, 0.5, -1e300],
    "large and close": [1e16 + 2 * i for i in range(8)],
    "a large offset": [1e9 + i for i in range(8)],
}


@pytest.mark.parametrize("of", EVERY, ids=["standardise", "yeo-johnson"])
@pytest.mark.parametrize("y", HARD.values(), ids=HARD)
def test_law_hard_numbers_become_moderate_ones_in_the_same_order(of, y):
    y = np.array(y)
    transform = of(y)
    z = transform.forward(y)
    assert np.isfinite(z).all() and np.abs(z).max(initial=0.0) < 50
    assert np.isfinite(transform.log_slope(y)).all()
    assert (np.diff(z[np.argsort(y, kind="stable")]) >= 0).all()
    back = transform.inverse(np.array([-8.0, -1.0, 0.0, 1.0, 8.0]))
    assert np.isfinite(back).all() and (np.diff(back) >= 0).all()


@pytest.mark.parametrize("of", EVERY, ids=["standardise", "yeo-johnson"])
def test_law_the_inverse_undoes_forward(of, rng):
    y = rng.gamma(1.0, 3.0, 40) - 2
    transform = of(y)
    np.testing.assert_allclose(transform.inverse(transform.forward(y)), y, rtol=1e-9, atol=1e-9)
    z = np.linspace(-1.5, 1.5, 9).reshape(3, 3)
    np.testing.assert_allclose(transform.forward(transform.inverse(z)), z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("power", [-2.0, -0.5, 0.0, 1e-10, 1.0, 1.7, 2.0, 2 - 1e-10, 4.0])
def test_a_power_transform_is_undone_by_its_inverse(power):
    transform = YeoJohnson(power, median=1.0, spread=2.0, centre=0.3, scale=1.5)
    y = np.linspace(-5, 9, 29)
    np.testing.assert_allclose(transform.inverse(transform.forward(y)), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("of", EVERY, ids=["standardise", "yeo-johnson"])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e300])
def test_law_the_slope_is_that_of_central_differences(of, scale, rng):
    y = scale * rng.standard_normal(30)
    transform = of(y)
    inner = y[y > getattr(transform, "low", -np.inf)]
    step = 1e-6 * scale
    difference = transform.forward(inner + step) - transform.forward(inner - step)
    expected = np.log(difference) - np.log(2 * step)
    np.testing.assert_allclose(transform.log_slope(inner), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("of", EVERY, ids=["standardise", "yeo-johnson"])
def test_law_model_units_have_mean_0_and_variance_1(of, rng):
    z_of = of(y := rng.exponential(1.0, 200)).forward(y)
    assert z_of.mean() == pytest.approx(0, abs=1e-12) and z_of.std() == pytest.approx(1)


@pytest.mark.parametrize("y", [[], [4.0], [4.0] * 9], ids=["none", "one", "constant"])
def test_values_that_do_not_differ_are_all_zero(y):
    assert (Standardise.of(np.array(y)).forward(np.array(y)) == 0).all()


def test_the_bad_side_is_cut_at_the_fence_of_tukey_and_the_good_side_is_not(rng):
    y = np.concatenate([rng.standard_normal(40), [-1000.0, 1000.0]])
    transform = Standardise.of(y)
    lower, upper = np.quantile(y, [0.25, 0.75])
    assert transform.low == pytest.approx(lower - 1.5 * (upper - lower))
    cut = transform.inverse(transform.forward(y))
    assert cut[40] == pytest.approx(transform.low) and cut[41] == pytest.approx(1000.0)
    np.testing.assert_allclose(cut[:40], np.maximum(y[:40], transform.low), rtol=1e-9)


def test_nothing_is_cut_when_asked_not_to_or_when_most_values_are_ties():
    y = np.array([0.0, 1.0, 1.1, 1.2, 1.3, -50.0])
    assert Standardise.of(y, winsorise=False).low == -np.inf
    ties = np.array([1.0] * 8 + [0.0])
    assert Standardise.of(ties).low == -np.inf
    assert Standardise.of(ties).forward(ties)[-1] < 0


@pytest.mark.parametrize("draw", ["normal", "lognormal", "gumbel", "left"])
def test_the_power_is_that_of_scipy_on_well_behaved_data(draw, rng):
    y = {
        "normal": rng.standard_normal(300),
        "lognormal": np.exp(0.5 * rng.standard_normal(300)),
        "gumbel": rng.gumbel(size=300),
        "left": -rng.gamma(2.0, 1.0, 300),
    }[draw]
    transform = YeoJohnson.of(y)
    u = (y - np.median(y)) / (np.subtract(*np.quantile(y, [0.75, 0.25])) / 1.349)
    w, power = scipy.stats.yeojohnson(u)
    assert transform.power == pytest.approx(power, abs=0.01)
    expected = (w - w.mean()) / w.std()
    np.testing.assert_allclose(transform.forward(y), expected, atol=0.02)


def test_skewed_values_look_more_normal_afterwards(rng):
    y = rng.exponential(1.0, 300)
    assert abs(scipy.stats.skew(YeoJohnson.of(y).forward(y))) < 0.3 < scipy.stats.skew(y)


def test_half_of_the_values_alike_leave_a_scale_to_the_others():
    y = np.array([1.0] * 9 + [2.0, 3.0, 4.0])
    z = YeoJohnson.of(y).forward(y)
    assert z[9] < z[10] < z[11] and z[0] < z[9]
