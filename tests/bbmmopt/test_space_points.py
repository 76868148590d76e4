"""Facts about points of a Space: how they are checked, and their objects."""

import json
import math
import re
from enum import IntEnum, StrEnum

import numpy as np
import pytest

from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from tests.bbmmopt.spaces import svm

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
