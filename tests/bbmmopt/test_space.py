"""Facts about parameters and Space: round trips, the lattice, conditions, messages."""

import copy
import itertools
import json
import math
import pickle
import re
from enum import IntEnum, StrEnum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def svm() -> Space:
    return Space(
        {
            "C": Real(1e-3, 1e3, log=True),
            "kernel": Categorical(["rbf", "poly", "sigmoid"]),
            "degree": Integer(2, 5, when={"kernel": "poly"}),
            "coef0": Real(-1, 1, when={"kernel": ["poly", "sigmoid"]}),
        }
    )


EVERYTHING = Space(
    {
        "real": Real(-2, 3),
        "log": Real(1e-5, 1e2, log=True),
        "narrow": Real(1e9, 1e9 + 1, log=True),
        "fixed": Real(7, 7),
        "int": Integer(-3, 12, step=5),
        "log int": Integer(1, 1000, log=True),
        "large log int": Integer(1, 10**6, log=True),
        "huge": Integer(0, 2**52 - 1),
        "huger": Integer(-(2**50), 2**60),
        "one int": Integer(4, 4),
        "flag": Categorical([True, False]),
        "mixed": Categorical(["a", 2, 0.5]),
        "one choice": Categorical(["only"]),
        "object": Categorical({"list": [1], "none": None}),
        "size": Ordinal([8, 16, 64]),
        "child": Integer(1, 4, when={"mixed": ["a", 0.5], "flag": True}),
        "grandchild": Real(0, 1, when={"child": [1, 3]}),
        "other": Ordinal(["s", "m", "l"], when={"size": 64, "log int": range(10, 1000)}),
    }
)


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


# --------------------------------------------------------------------------------------
# Columns, conditions, counting
# --------------------------------------------------------------------------------------


def test_columns_tell_the_kind_and_number_of_levels():
    kinds = {c.name: (c.kind, c.levels) for c in EVERYTHING.columns}
    assert kinds["real"] == ("continuous", None)
    assert kinds["fixed"] == kinds["one int"] == kinds["one choice"] == ("fixed", 1)
    assert kinds["int"] == ("ordered", 4)
    assert kinds["huge"] == ("ordered", 2**52)
    assert kinds["flag"] == ("categorical", 2)
    assert kinds["size"] == ("ordered", 3)


def test_positions_are_the_encoded_levels():
    space = Space(
        {
            "n": Integer(1, 9, log=True),
            "s": Integer(0, 6, step=3),
            "c": Categorical(["a", "b"]),
            "f": Real(1, 1),
            "x": Real(0, 1),
            "many": Integer(1, 10_001),
        }
    )
    base = {"n": 1, "s": 0, "c": "a", "f": 1.0, "x": 0.0, "many": 1}
    for j, values in enumerate([range(1, 10), (0, 3, 6), ("a", "b"), (1.0,)]):
        rows = space.encode_many([base | {space.names[j]: value} for value in values])
        assert np.array_equal(space.positions(j), rows[:, j])
    for j, count in ((4, "infinitely many"), (5, "10001")):
        with pytest.raises(ValueError, match=count):
            space.positions(j)


def test_a_parameter_is_active_only_where_its_parents_are():
    space = Space(
        {
            "leaf": Integer(1, 2, when={"middle": 2}),  # declared before its parent
            "root": Categorical(["a", "b"]),
            "middle": Integer(1, 2, when={"root": "a"}),
        }
    )
    points = [space.decode(row) for row in space.enumerate()]
    expected = [
        {"root": "b"},
        {"root": "a", "middle": 1},
        {"leaf": 1, "root": "a", "middle": 2},
        {"leaf": 2, "root": "a", "middle": 2},
    ]
    assert len(points) == len(expected)
    assert all(point in points for point in expected)


FINITE = [
    Space({"a": Integer(1, 3), "b": Ordinal(["x", "y"]), "c": Real(1, 1)}),
    Space(
        {
            "k": Categorical(["a", "b"]),
            "d": Integer(1, 3, when={"k": "a"}),
            "e": Integer(1, 4, when={"d": [1, 2], "k": "a"}),
            "f": Ordinal([1, 2]),
            "g": Integer(1, 5, when={"f": 2}),
        }
    ),
]


@pytest.mark.parametrize("space", FINITE, ids=["plain", "conditional"])
def test_a_finite_space_lists_each_point_once(space):
    # The oracle: all combinations, with what is not active dropped, counted as a set.
    grids = [space.positions(j) for j in range(len(space))]
    expected = {tuple(space.decode(np.array(row)).items()) for row in itertools.product(*grids)}
    rows = space.enumerate()
    assert len(rows) == len(expected) == space.size
    assert {tuple(space.decode(row).items()) for row in rows} == expected
    assert np.array_equal(space.snap(rows), rows)


def test_size_counts_without_listing():
    assert svm().size is None
    assert Space({"n": Integer(1, 2**60), "m": Integer(1, 2**60)}).size == 2**120
    conditional = Space(
        {"k": Categorical(["a", "b"]), "n": Integer(1, 2**60, when={"k": "a"}), "m": Integer(1, 3)}
    )
    assert conditional.size == 3 * 2**60 + 3
    with pytest.raises(ValueError, match="'n' makes this one larger"):
        conditional.enumerate()
    # Too many combinations of parents to look at: an upper bound.
    bound = Space({"n": Integer(1, 10**6), "m": Integer(1, 2, when={"n": 1})})
    assert bound.size == 2 * 10**6


def test_an_integer_parent_is_not_enumerated():
    space = Space({"n": Integer(0, 2**60), "m": Integer(1, 2, when={"n": 2**60})})
    assert space.active(np.array([[1.0, 0.5], [0.5, 0.5]])).tolist() == [
        [True, True],
        [True, False],
    ]


# --------------------------------------------------------------------------------------
# Bad descriptions
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "error", "message"),
    [
        (Real(3, 1), ValueError, "low must not exceed high; got low=3.0, high=1.0. Swap them"),
        (Real(math.nan, 1), ValueError, "low must be finite; got nan"),
        (Real(0, math.inf), ValueError, "high must be finite; got inf"),
        (Real(0, 10**400), ValueError, "high must be finite"),
        (Real(-1.7e308, 1.7e308), ValueError, "must not overflow"),
        (Real(0, 1, log=True), ValueError, "log=True needs low > 0; got low=0.0"),
        (Real("0", 1), TypeError, r"low must be a number; got '0' \(str\)"),
        (Real(True, 2), TypeError, "low must be a number; got True"),
        (Real(1, 2, log="yes"), TypeError, "log must be True or False"),
        (Integer(5, 1), ValueError, "low must not exceed high"),
        (Integer(0.5, 2), ValueError, "low must be an integer; got 0.5. Use Real"),
        (Integer(0, math.inf), ValueError, "high must be an integer"),
        (Integer(0, "9"), TypeError, "high must be an integer; got '9'"),
        (Integer(0, 9, log=True), ValueError, "log=True needs low >= 1; got low=0"),
        (Integer(1, 10, step=4), ValueError, "Use high=9 or high=13"),
        (Integer(1, 10, step=0), ValueError, "step must be at least 1"),
        (Integer(1, 9, log=True, step=2), ValueError, "step=1 only"),
        (Integer(0, 2**62), ValueError, r"at most 2\*\*62 values"),
        (Categorical([]), ValueError, "choices must not be empty"),
        (Categorical(["a", "b", "a"]), ValueError, "'a' and 'a' are equal"),
        (Categorical([1, True]), ValueError, "1 and True are equal"),
        (Categorical("abc"), TypeError, "choices must be a list; got 'abc'"),
        (Categorical({"a", "b"}), TypeError, "choices must be a list"),
        (
            Categorical(["sqrt", None]),
            TypeError,
            r"got None \(NoneType\).*Categorical\({'label': obj",
        ),
        (Categorical([0.1, math.inf]), ValueError, "choices must be finite; got inf"),
        (Categorical({}), ValueError, "choices must not be empty"),
        (Categorical({1: "x"}), TypeError, "labels of choices must be non-empty strings; got 1"),
        (Ordinal([]), ValueError, "choices must not be empty"),
        (Ordinal([1, 1.0]), ValueError, "1 and 1.0 are equal"),
        (Ordinal([True, False]), TypeError, "must be numbers or strings; got True"),
        (Real(0, 1, when="k"), TypeError, "when must be {parent: value or list of values}"),
        (Real(0, 1, when={"k": []}), ValueError, r"when\['k'\]: choices must not be empty"),
        (
            Real(0, 1, when={"k": "c"}),
            ValueError,
            r"when\['k'\]: expected one of 'a', 'b'; got 'c'",
        ),
        (Real(0, 1, when={"kk": "a"}), ValueError, "'kk', which is not in the space.*mean 'k'?"),
        (Real(0, 1, when={"r": 0.5}), ValueError, "'r', which is Real"),
        (Integer(0, 1, when={"p": 1}), ValueError, "'p' go round in a circle"),
        (0.5, TypeError, "expected Real, Integer, Categorical or Ordinal; got 0.5"),
    ],
    ids=str,
)
def test_a_senseless_parameter_is_refused_by_name(parameter, error, message):
    with pytest.raises(error, match=f"^parameter 'p': .*{message}"):
        Space({"k": Categorical(["a", "b"]), "r": Real(0, 1), "p": parameter})


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({}, ValueError, "at least one parameter"),
        ({"": Real(0, 1)}, ValueError, "names must be non-empty strings; got ''"),
        ({3: Real(0, 1)}, ValueError, "names must be non-empty strings; got 3"),
        ([Real(0, 1)], TypeError, "Space needs {name: parameter}"),
    ],
)
def test_a_senseless_space_is_refused(parameters, error, message):
    with pytest.raises(error, match=message):
        Space(parameters)


def test_a_circle_of_conditions_is_named():
    with pytest.raises(ValueError, match="the conditions of 'a', 'b' go round in a circle"):
        Space({"a": Integer(0, 1, when={"b": 1}), "b": Integer(0, 1, when={"a": 1})})


# --------------------------------------------------------------------------------------
# Checking points
# --------------------------------------------------------------------------------------


def full(**changes) -> dict:
    return {"C": 1.0, "kernel": "poly", "degree": 3, "coef0": 0.0} | changes


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (full(kernl="poly"), ValueError, "unknown parameter 'kernl'. Did you mean 'kernel'?"),
        (full(zzz=1), ValueError, "unknown parameter 'zzz'. The space has 'C', 'kernel'"),
        (full(C=5000), ValueError, "parameter 'C': 5000 is outside [0.001, 1000.0]"),
        (full(C=math.nan), ValueError, "expected a number in [0.001, 1000.0]; got nan"),
        (full(C="1"), TypeError, "expected a number in [0.001, 1000.0]; got '1' (str)"),
        (full(C=True), TypeError, "got True (bool)"),
        (full(C=None), TypeError, "got None (NoneType)"),
        (full(degree=6), ValueError, "parameter 'degree': 6 is outside [2, 5]"),
        (full(degree=2.5), ValueError, "expected an integer in [2, 5]; got 2.5"),
        (full(degree=True), TypeError, "got True (bool)"),
        (full(kernel="RBF"), ValueError, "expected one of 'rbf', 'poly', 'sigmoid'; got 'RBF'"),
        (full(kernel="pol"), ValueError, "Did you mean 'poly'?"),
        (full(kernel=["poly"]), TypeError, "got ['poly'] (list)"),
        (
            {"C": 1.0, "kernel": "poly", "coef0": 0},
            ValueError,
            "'degree' is missing: give it an int",
        ),
        (
            {"C": 1.0, "kernel": "rbf", "degree": 3},
            ValueError,
            "'degree' = 3 is not active: it needs 'kernel' to be 'poly', not 'rbf'. Leave it out.",
        ),
        ([1.0], TypeError, "expected {parameter: value}; got [1.0] (list)"),
    ],
    ids=str,
)
def test_a_wrong_point_is_refused_with_trial_parameter_value_and_range(params, error, message):
    with pytest.raises(error, match=r"^trial 3: .*" + re.escape(message)):
        svm().validate(params, where="trial 3")


def test_choices_of_another_type_are_not_confused():
    space = Space({"n": Categorical([1, "2", 0.5]), "b": Categorical([True, "x"])})
    assert space.validate({"n": 1.0, "b": True}) == {"n": 1, "b": True}
    assert type(space.validate({"n": 1.0, "b": True})["n"]) is int
    with pytest.raises(ValueError, match="got True"):
        space.validate({"n": True, "b": True})
    with pytest.raises(ValueError, match="got 1"):
        space.validate({"n": 1, "b": 1})
    with pytest.raises(ValueError, match=r"got 2\. The choice is '2', a str"):
        space.validate({"n": 2, "b": True})


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    TWO = 2


def test_numpy_and_enum_values_become_native_ones():
    space = Space(
        {
            "x": Real(np.float32(0), np.int64(4)),
            "n": Integer(np.int8(0), 10.0),
            "c": Categorical(np.array(["red", "blue"])),
            "b": Categorical([np.bool_(True), np.bool_(False)]),
            "o": Ordinal(np.array([1, 2, 4])),
        }
    )
    given = {
        "o": Level.TWO,
        "b": np.bool_(False),
        "c": Colour.RED,
        "n": np.float64(3.0),
        "x": np.array(2),
    }
    params = space.validate(given)
    assert params == {"x": 2.0, "n": 3, "c": "red", "b": False, "o": 2}
    assert [type(v) for v in params.values()] == [float, int, str, bool, int]
    assert json.dumps(space.to_json(), allow_nan=False)


def test_a_partial_point_is_checked_as_far_as_it_goes():
    space = svm()
    assert space.validate_partial({}) == {}
    assert space.validate_partial({"degree": np.int64(3), "C": 1}) == {"C": 1.0, "degree": 3}
    with pytest.raises(ValueError, match="not active"):
        space.validate_partial({"degree": 3, "kernel": "rbf"})
    with pytest.raises(ValueError, match="outside"):
        space.validate_partial({"degree": 9})


def test_what_depends_on_an_inactive_parameter_is_refused_even_in_a_partial_point():
    space = Space(
        {
            "a": Categorical(["x", "y"]),
            "b": Integer(0, 1, when={"a": "x"}),
            "c": Integer(0, 1, when={"b": 1}),
        }
    )
    with pytest.raises(
        ValueError, match=r"'c' = 1 is not active.*'b' to be 1, which is not active"
    ):
        space.validate_partial({"a": "y", "c": 1})


def test_data_from_outside_the_bounds_is_kept_when_asked_for():
    space = Space(
        {
            "x": Real(0, 10),
            "y": Real(1, 10, log=True),
            "n": Integer(0, 9, step=3),
            "m": Integer(1, 8, log=True),
            "f": Real(2, 2),
        }
    )
    inside = {"x": 5.0, "y": 2.0, "n": 3, "m": 2, "f": 2.0}
    params = space.validate({"x": -5, "y": 100, "n": 12, "m": 20, "f": 2}, outside=True)
    assert params == {"x": -5.0, "y": 100.0, "n": 12, "m": 20, "f": 2.0}
    row = space.encode(params)
    assert row[:3] == pytest.approx([-0.5, 2.0, 4.5 / 4])
    assert row[3] > 1
    for wrong in ({"y": -1.0}, {"m": 0}, {"n": 13}, {"f": 3.0}, {"x": math.inf}):
        with pytest.raises(ValueError, match=f"parameter '{next(iter(wrong))}'"):
            space.validate(inside | wrong, outside=True)


def test_labels_are_handed_to_the_objective_as_their_objects():
    objects = {"small": (8, 8), "large": [64], "none": None}
    space = Space({"net": Categorical(objects), "x": Real(0, 1)})
    assert space.validate({"net": "large", "x": 0}) == {"net": "large", "x": 0.0}
    assert space.arguments({"net": "large", "x": 0.0})["net"] is objects["large"]
    assert space.arguments({"net": "none", "x": 0.5}) == {"net": None, "x": 0.5}


# --------------------------------------------------------------------------------------
# Written down, compared
# --------------------------------------------------------------------------------------


def test_a_space_survives_json():
    text = json.dumps(EVERYTHING.to_json(), allow_nan=False)
    again = Space.from_json(json.loads(text))
    assert again == EVERYTHING
    assert hash(again) == hash(EVERYTHING)
    assert again.difference(EVERYTHING) == []
    assert again.to_json() == EVERYTHING.to_json()


def test_objects_are_not_written_but_can_be_given_back():
    space = Space({"net": Categorical({"a": [1], "b": None})})
    data = json.loads(json.dumps(space.to_json()))
    assert Space.from_json(data).arguments({"net": "a"}) == {"net": "a"}
    again = Space.from_json(data, objects={"net": {"b": 2, "a": 1}})
    assert again == space
    assert again.arguments({"net": "a"}) == {"net": 1}
    with pytest.raises(ValueError, match="parameter 'net': objects must have the labels"):
        Space.from_json(data, objects={"net": {"c": 1}})


def test_a_json_of_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match="parameter 'x': unknown type 'complex'"):
        Space.from_json({"parameters": [{"name": "x", "type": "complex"}]})


def test_a_space_can_be_copied_and_pickled():
    assert copy.deepcopy(EVERYTHING) == EVERYTHING
    assert pickle.loads(pickle.dumps(EVERYTHING)) == EVERYTHING


def test_the_repr_reads_like_the_source():
    assert repr(svm()) == (
        "Space({\n"
        "    'C': Real(0.001, 1000.0, log=True),\n"
        "    'kernel': Categorical(['rbf', 'poly', 'sigmoid']),\n"
        "    'degree': Integer(2, 5, when={'kernel': ('poly',)}),\n"
        "    'coef0': Real(-1.0, 1.0, when={'kernel': ('poly', 'sigmoid')}),\n"
        "})"
    )
    assert repr(Integer(0, 6, step=2)) == "Integer(0, 6, step=2)"
    names = {"Space": Space, "Real": Real, "Categorical": Categorical, "Integer": Integer}
    assert eval(repr(svm()), names) == svm()


def test_the_difference_of_two_spaces_is_told_in_sentences():
    old = Space({"a": Real(0, 1), "b": Integer(1, 5), "c": Categorical(["x", "y"])})
    new = Space({"a": Real(0, 2), "c": Categorical(["x", "z"]), "d": Ordinal([1, 2])})
    assert old.difference(new) == [
        "parameter 'a': high was 1.0 and is now 2.0.",
        "parameter 'b' was removed.",
        'parameter \'c\': choices was ["x", "y"] and is now ["x", "z"].',
        "parameter 'd' was added.",
    ]
    turned = Space({"c": Categorical(["x", "y"]), "a": Real(0, 1), "b": Integer(1, 5)})
    assert old.difference(turned) == ["the order was 'a', 'b', 'c' and is now 'c', 'a', 'b'."]
    assert old != turned


def test_spaces_with_choices_of_another_type_differ():
    assert Space({"x": Categorical([1, 2])}) != Space({"x": Categorical([1.0, 2.0])})
    assert Space({"x": Real(1, 2)}) == Space({"x": Real(1.0, 2.0)})
