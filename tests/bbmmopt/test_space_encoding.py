"""Facts about parameters and Space: round trips and the lattice."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from tests.bbmmopt.spaces import EVERYTHING, svm

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --------------------------------------------------------------------------------------
# Encoding and decoding
# --------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
unit = st.floats(0, 1)
positive = st.floats(min_value=5e-324, allow_infinity=False)


@st.composite
def real_ranges(draw) -> Real:
    """Ranges that break naive arithmetic: tiny, huge, far from zero, close together."""
    if draw(st.booleans()):
        low, high = sorted([draw(positive), draw(positive)])
        log = draw(st.booleans())
    else:
        low, high = sorted([draw(finite), draw(finite)])
        log = False
    if draw(st.booleans()):  # bounds that are neighbours, or nearly
        high = low
        for _ in range(draw(st.integers(1, 50))):
            high = math.nextafter(high, math.inf)
    assume(low < high and math.isfinite(high - low))
    return Real(low, high, log=log)


@given(real_ranges(), unit)
@settings(max_examples=500)
def test_a_real_survives_the_round_trip_on_any_range(parameter, u):
    space = Space({"x": parameter})
    params = space.decode(np.array([u]))
    assert parameter.low <= params["x"] <= parameter.high
    row = space.encode(params)
    assert 0 <= row[0] <= 1
    assert space.decode(row) == params
    assert space.validate(params) == params
    assert np.array_equal(space.encode(space.decode(row)), row)


@pytest.mark.parametrize(
    "parameter",
    [
        Real(1e9, 1e9 + 1),
        Real(1e9, 1e9 + 1, log=True),
        Real(1e-300, 1e300, log=True),
        Real(5e-324, 1.7e308, log=True),
        Real(-8e307, 8e307),
        Real(-1e-300, 1e-300),
        Real(0, 5e-324),
        Real(1.6976931348623217e308, 1.7976931348623151e308),
        Real(-1, 1e-17),
        Real(0.1234567890123456, 0.9876543210987654),
        Real(1, 2.0000001, log=True),
        Real(9.99999e9, 1.0000001e20, log=True),
    ],
    ids=repr,
)
def test_a_real_survives_the_round_trip_on_nasty_ranges(parameter, rng):
    space = Space({"x": parameter})
    for u in [0.0, 1.0, 5e-324, 1 - 2**-53, 0.5, *rng.random(2000)]:
        params = space.decode(np.array([u]))
        assert space.decode(space.encode(params)) == params
    for bound, u in ((parameter.low, 0.0), (parameter.high, 1.0)):
        assert space.encode({"x": bound}) == u
        assert space.decode(np.array([u])) == {"x": bound}


def test_short_decimals_of_the_user_survive_the_round_trip():
    space = Space({"x": Real(-100, 100), "y": Real(1e-6, 1e6, log=True)})
    for x, y in [(0.1, 3e-4), (-33.333333333, 123456.789), (99.9999999999, 0.1), (0.0, 1.0)]:
        assert space.decode(space.encode({"x": x, "y": y})) == {"x": x, "y": y}


def test_a_linear_position_is_the_fraction_of_the_range(rng):
    space = Space({"x": Real(-3, 11)})
    for x in rng.uniform(-3, 11, 50):
        exact = (Fraction(x) + 3) / 14
        assert space.encode({"x": x})[0] == pytest.approx(float(exact), rel=1e-15)


def test_a_log_position_is_the_fraction_of_decades():
    space = Space({"x": Real(1e-3, 1e5, log=True)})
    for decade in range(-3, 6):
        assert space.encode({"x": 10.0**decade})[0] == pytest.approx((decade + 3) / 8, abs=1e-15)


def test_no_value_handed_out_is_a_negative_zero():
    space = Space({"x": Real(-1, 1)})
    x = space.decode(np.array([0.5 - 1e-16]))["x"]
    assert math.copysign(1.0, float(x)) == 1.0


@st.composite
def integer_ranges(draw) -> tuple[Integer, int]:
    low = draw(st.integers(-(2**60), 2**60))
    step = draw(st.integers(1, 1000))
    levels = draw(st.one_of(st.integers(1, 50), st.integers(1, 2**52)))
    i = draw(st.integers(0, levels - 1))
    return Integer(low, low + step * (levels - 1), step=step), low + step * i


@given(integer_ranges())
@settings(max_examples=500)
def test_an_integer_survives_the_round_trip(case):
    parameter, value = case
    space = Space({"n": parameter})
    row = space.encode({"n": value})
    assert space.decode(row) == {"n": value}
    assert np.array_equal(space.snap(row), row)


@given(st.integers(1, 2**40), st.integers(0, 2**40), st.floats(0, 1))
@settings(max_examples=500)
def test_a_log_integer_survives_the_round_trip(low, more, fraction):
    high = min(low + more, 2**40)
    space = Space({"n": Integer(low, high, log=True)})
    value = low + round(fraction * (high - low))
    assert space.decode(space.encode({"n": value})) == {"n": value}


def test_a_log_integer_far_from_zero_keeps_neighbours_apart():
    low = 2**60
    space = Space({"n": Integer(low, low + 20_000, log=True)})
    for value in (low, low + 1, low + 9_999, low + 20_000):
        assert space.decode(space.encode({"n": value})) == {"n": value}


def test_integers_of_sixty_bits_are_exact_where_doubles_have_a_place_for_them():
    space = Space({"n": Integer(0, 2**60)})
    assert space.decode(np.array([1.0])) == {"n": 2**60}
    assert space.decode(np.array([0.0])) == {"n": 0}
    params = space.decode(np.array([0.3]))
    assert isinstance(params["n"], int)
    row = space.snap(np.array([0.3]))
    assert np.array_equal(space.encode(space.decode(row)), row)
    assert space.validate({"n": 2**60 - 1}) == {"n": 2**60 - 1}


@pytest.mark.parametrize(
    "parameter",
    [Integer(0, 6), Integer(-3, 12, step=5), Ordinal([1, 2, 9]), Categorical(["a", "b"])],
)
def test_a_uniform_position_meets_every_level_alike(parameter):
    space = Space({"p": parameter})
    U = (np.arange(4200) + 0.5) / 4200
    counts: dict = {}
    for u in U:
        value = space.decode(np.array([u]))["p"]
        counts[value] = counts.get(value, 0) + 1
    k = space.columns[0].levels
    assert k is not None
    assert set(counts.values()) == {4200 // k}
    assert len(counts) == k


def test_a_log_integer_owns_the_positions_between_its_halves():
    space = Space({"n": Integer(1, 9, log=True)})
    for value in range(1, 10):
        span = math.log(9.5) - math.log(0.5)
        left, right = ((math.log(value + h) - math.log(0.5)) / span for h in (-0.5, 0.5))
        assert space.decode(np.array([left + 1e-9])) == {"n": value}
        assert space.decode(np.array([right - 1e-9])) == {"n": value}


@pytest.mark.parametrize("high", [9_000, 90_000], ids=["table", "no table"])
def test_a_log_integer_is_the_rounded_exponential(high, rng):
    space = Space({"n": Integer(5, high, log=True)})
    start, span = math.log(4.5), math.log(high + 0.5) - math.log(4.5)
    U = rng.random(500)
    expected = [math.floor(math.exp(start + u * span) + 0.5) for u in U.tolist()]
    assert [space.decode(np.array([u]))["n"] for u in U] == expected
    snapped = space.snap(U[:, None])
    assert np.array_equal(snapped, space.encode_many([{"n": n} for n in expected]))


@given(st.lists(unit, min_size=len(EVERYTHING), max_size=len(EVERYTHING)))
@settings(max_examples=500)
def test_law_everything_a_space_hands_out_survives_every_road(row):
    space, X = EVERYTHING, np.array(row)
    params = space.decode(X)
    assert space.validate(params) == params
    assert list(params) == [name for name in space.names if name in params]
    assert {type(value) for value in params.values()} <= {int, float, str, bool}
    assert json.loads(json.dumps(params)) == params
    encoded = space.encode(params)
    assert space.decode(encoded) == params
    snapped = space.snap(X)
    assert space.decode(snapped) == params
    assert np.array_equal(space.snap(snapped), snapped)
    discrete = np.array([column.kind != "continuous" for column in space.columns])
    assert np.array_equal(snapped[discrete], encoded[discrete])
    active = space.active(X)
    assert [n for n, on in zip(space.names, active, strict=True) if on] == list(params)
    assert (snapped[~active] == 0.5).all()
    assert (encoded[~active] == 0.5).all()


def test_snap_and_active_treat_every_leading_shape_alike(rng):
    X = rng.random((3, 4, len(EVERYTHING)))
    before = X.copy()
    snapped, active = EVERYTHING.snap(X), EVERYTHING.active(X)
    assert np.array_equal(X, before)
    for i, j in itertools.product(range(3), range(4)):
        assert np.array_equal(snapped[i, j], EVERYTHING.snap(X[i, j]))
        assert np.array_equal(active[i, j], EVERYTHING.active(X[i, j]))
    assert EVERYTHING.snap(X[:0]).shape == (0, 4, len(EVERYTHING))


def test_snap_clips_what_lies_outside_the_cube():
    space = Space({"x": Real(0, 1), "n": Integer(0, 3), "m": Integer(1, 9, log=True)})
    assert space.snap(np.array([-1.0, -1.0, -1.0]))[0] == 0
    assert space.decode(space.snap(np.array([-1.0, -1.0, -1.0]))) == {"x": 0.0, "n": 0, "m": 1}
    assert space.decode(space.snap(np.array([2.0, 1.0, 2.0]))) == {"x": 1.0, "n": 3, "m": 9}


def test_encode_many_stacks_rows_and_takes_none():
    points = [EVERYTHING.decode(np.full(len(EVERYTHING), u)) for u in (0.1, 0.9)]
    expected = np.stack([EVERYTHING.encode(params) for params in points])
    assert np.array_equal(EVERYTHING.encode_many(points), expected)
    assert EVERYTHING.encode_many([]).shape == (0, len(EVERYTHING))


@pytest.mark.parametrize("row", [[0.5], [0.5, math.nan, 0.5, 0.5], [[0.5] * 4]])
def test_decode_refuses_rows_it_cannot_read(row):
    with pytest.raises(ValueError, match=r"a row must have shape \(4,\) and be finite"):
        svm().decode(np.array(row))


def test_encode_says_which_parameter_is_missing():
    with pytest.raises(ValueError, match="'C' is missing"):
        svm().encode({"kernel": "rbf"})
