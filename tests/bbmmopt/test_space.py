"""Facts about Space: columns, conditions, what is refused, what is written down."""

import copy
import itertools
import json
import math
import pickle

import numpy as np
import pytest

from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from tests.bbmmopt.spaces import EVERYTHING, svm

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
        (Categorical({"a"}), TypeError, "choices must be a list"),
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
