"""Facts about Problem: directions and signs, the door for told values, what is written down."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from bbmmopt.problem import Constraint, Objective, Outcome, Problem
from bbmmopt.space import Categorical, Real, Space
from bbmmopt.trial import Trial, TrialState

SPACE = Space({"x": Real(0, 1)})
ONE = Problem.make(SPACE, minimize="error")
TWO = Problem.make(SPACE, minimize="error", maximize="speed")
SAFE = Problem.make(SPACE, maximize="gain", constraints=["memory", "time"])


class Tensor:
    """As much of a torch tensor as matters: `item` works for one element, with or without grad."""

    def __init__(self, *elements: float) -> None:
        self.elements = elements
        self.shape = (len(elements),)

    def item(self) -> float:
        if len(self.elements) != 1:
            raise RuntimeError("a Tensor with several elements cannot be converted to Scalar")
        return self.elements[0]

    def __repr__(self) -> str:
        return f"Tensor{self.elements}"


# --------------------------------------------------------------------------------------
# Construction
# --------------------------------------------------------------------------------------


def test_directions_are_given_by_name():
    problem = Problem.make({"x": Real(0, 1)}, minimize=["a", "b"], maximize="c")
    assert problem.space == SPACE
    assert [(o.name, o.direction) for o in problem.objectives] == [
        ("a", "minimize"),
        ("b", "minimize"),
        ("c", "maximize"),
    ]
    assert problem.names == ("a", "b", "c")


def test_noise_is_given_for_all_objectives_or_by_name():
    both = Problem.make(SPACE, minimize="a", maximize="b", noise="none")
    assert [o.noise for o in both.objectives] == ["none", "none"]
    one = Problem.make(SPACE, minimize="a", maximize="b", noise={"b": "noisy"})
    assert [o.noise for o in one.objectives] == ["unknown", "noisy"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, 'needs an objective.*minimize="error"'),
        ({"minimize": []}, ValueError, "needs an objective"),
        ({"minimize": "a", "maximize": "a"}, ValueError, "different names; 'a' came twice"),
        ({"minimize": "a", "constraints": ["a"]}, ValueError, "'a' came twice"),
        ({"minimize": True}, TypeError, "minimize must be a name or a list of names; got True"),
        ({"minimize": [""]}, ValueError, "non-empty string; got ''"),
        (
            {"minimize": "a", "noise": "low"},
            ValueError,
            "'unknown' or 'none' or 'noisy'; got 'low'",
        ),
        ({"minimize": "a", "noise": {"b": "none"}}, ValueError, "noise names 'b'.* are 'a'"),
        ({"minimize": "a", "reference_point": {"b": 1}}, ValueError, "a value for 'a'; got 'b'"),
        ({"minimize": "a", "reference_point": {"a": math.nan}}, ValueError, "must be finite"),
    ],
)
def test_a_senseless_problem_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Problem.make(SPACE, **arguments)


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="direction of objective 'a' must be 'minimize' or 'max"):
        Objective("a", "up")  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------------------
# Signs
# --------------------------------------------------------------------------------------


def test_models_see_larger_values_as_better():
    assert TWO.to_model({"speed": 3.0, "error": 2.0}) == [-2.0, 3.0]
    assert TWO.from_model([-2.0, 3.0]) == {"error": 2.0, "speed": 3.0}
    arrays = TWO.from_model([np.array([1.0, -2.0]), np.array([3.0, 4.0])])
    assert arrays["error"].tolist() == [-1.0, 2.0]


def complete(number: int, value: float, **constraints: float) -> Trial:
    name = "gain" if constraints else "error"
    return Trial(number, {}, TrialState.COMPLETE, {name: value}, constraints=constraints)


def test_the_best_trial_is_the_first_of_the_equally_good():
    trials = [complete(3, 0.5), complete(1, 0.5), complete(2, 0.7), Trial(0, {})]
    best = ONE.best_of(trials)
    assert best is trials[1]
    assert ONE.best_of([]) is None
    assert ONE.best_of([Trial(0, {}, TrialState.FAILED)]) is None


def test_only_feasible_trials_can_be_best():
    trials = [
        complete(0, 9.0, memory=0.1, time=-1.0),
        complete(1, 2.0, memory=0.0, time=-1.0),
        complete(2, 1.0, memory=-1.0, time=-1.0),
    ]
    assert SAFE.best_of(trials) is trials[1]
    assert SAFE.best_of(trials[:1]) is None


def test_no_trial_is_best_for_several_objectives():
    with pytest.raises(ValueError, match="'error', 'speed'"):
        TWO.best_of([])


# --------------------------------------------------------------------------------------
# The door for told values
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        2,
        2.0,
        np.float32(2),
        np.int64(2),
        np.array(2.0),
        np.array([[2.0]]),
        Tensor(2.0),
        Fraction(2),
        {"error": 2},
        {"error": Tensor(2.0)},
    ],
    ids=repr,
)
def test_any_single_number_is_a_value(told):
    outcome = ONE.check_values(told)
    assert outcome == Outcome({"error": 2.0}, {"error": None})
    assert type(outcome.values["error"]) is float


def test_a_boolean_counts_as_zero_or_one():
    assert ONE.check_values(True).values == {"error": 1.0}
    assert ONE.check_values(np.bool_(False)).values == {"error": 0.0}


@pytest.mark.parametrize("told", [(2, 0.5), {"error": (np.float64(2), Tensor(0.5))}])
def test_a_pair_is_a_mean_and_its_standard_error(told):
    assert ONE.check_values(told) == Outcome({"error": 2.0}, {"error": 0.5})


def test_several_objectives_and_constraints_are_told_by_name():
    assert TWO.check_values({"speed": 1, "error": (2, 0.1)}) == Outcome(
        {"error": 2.0, "speed": 1.0}, {"error": 0.1, "speed": None}
    )
    expected = Outcome({"gain": 1.0}, {"gain": None}, {"memory": -1.0, "time": 3.0})
    assert SAFE.check_values({"gain": 1, "memory": -1, "time": 3}) == expected
    assert SAFE.check_values(1, constraints={"time": 3, "memory": -1}) == expected
    assert SAFE.check_values({"gain": 1, "time": 3}, constraints={"memory": -1}) == expected


@pytest.mark.parametrize(
    ("problem", "told", "reason"),
    [
        (ONE, math.nan, "objective 'error' is nan"),
        (ONE, math.inf, "objective 'error' is inf"),
        (ONE, Tensor(math.nan), "objective 'error' is nan"),
        (TWO, {"error": 1, "speed": -math.inf}, "objective 'speed' is -inf"),
        (SAFE, {"gain": 1, "memory": math.inf, "time": 0}, "constraint 'memory' is inf"),
    ],
)
def test_nan_and_the_bad_infinity_are_a_failure_that_keeps_what_was_told(problem, told, reason):
    outcome = problem.check_values(told)
    assert outcome.failure is not None
    assert outcome.failure.startswith(reason)
    assert "told {" in outcome.failure
    assert outcome.values == {}


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (ONE, -math.inf),
        (TWO, {"error": 1, "speed": math.inf}),
        (SAFE, {"gain": 1, "memory": -math.inf, "time": 0}),
    ],
)
def test_the_infinity_that_cannot_be_is_refused(problem, told):
    with pytest.raises(ValueError, match=r"trial 4: .* better than anything can be"):
        problem.check_values(told, trial_number=4)


@pytest.mark.parametrize(
    ("problem", "told", "error", "message"),
    [
        (ONE, None, TypeError, r"'error' must be a number; got None \(NoneType\)"),
        (ONE, "0.5", TypeError, r"got '0.5' \(str\)"),
        (ONE, 1j, TypeError, r"got 1j \(complex\)"),
        (ONE, np.array(["a"]), TypeError, "must be a number"),
        (ONE, np.complex128(1), TypeError, "must be a number"),
        (ONE, {"error": [1]}, TypeError, "must be a number"),
        (ONE, {"error": (1, 2, 3)}, TypeError, "must be a number"),
        (ONE, np.zeros(2), ValueError, r"must be one number; got an array of shape \(2,\)"),
        (ONE, Tensor(1, 2), ValueError, r"array of shape \(2,\)"),
        (ONE, [1, 2], ValueError, "'error': ….*must be a tuple"),
        (ONE, (1, 2, 3), ValueError, "expected {'error': …}"),
        (ONE, 10**400, ValueError, "too large for a float"),
        (ONE, {"eror": 1}, ValueError, "Missing: 'error'. Unknown: 'eror'"),
        (ONE, {}, ValueError, "values named 'error'; got none"),
        (ONE, (1, -0.1), ValueError, "standard error of 'error' must be finite and at least 0"),
        (ONE, (1, math.nan), ValueError, "standard error of 'error'.*got nan"),
        (ONE, (1, "a"), TypeError, "standard error of 'error' must be a number"),
        (TWO, 1.0, ValueError, "expected {'error': …, 'speed': …}; got 1.0"),
        (TWO, (1, 2), ValueError, "expected {'error': …, 'speed': …}"),
        (TWO, None, TypeError, "expected {'error': …, 'speed': …}; got None"),
        (TWO, {"error": 1}, ValueError, "named 'error', 'speed'; got 'error'. Missing: 'speed'"),
        (SAFE, 1.0, ValueError, "Missing: 'memory', 'time'"),
        (SAFE, {"gain": 1, "memory": (1, 2), "time": 0}, TypeError, "Standard errors go with obj"),
    ],
    ids=str,
)
def test_anything_else_is_refused_by_trial_and_name(problem, told, error, message):
    with pytest.raises(error, match=f"^trial 4: .*{message}"):
        problem.check_values(told, trial_number=4)


def test_a_constraint_told_twice_is_refused():
    with pytest.raises(ValueError, match="constraint 'time' was told twice"):
        SAFE.check_values({"gain": 1, "memory": 0, "time": 0}, constraints={"time": 1})


# --------------------------------------------------------------------------------------
# Written down, compared
# --------------------------------------------------------------------------------------


def test_a_problem_survives_json():
    problem = Problem.make(
        {"net": Categorical({"a": [1]}), "x": Real(0, 1, when={"net": "a"})},
        minimize="error",
        maximize="speed",
        noise={"error": "none"},
        constraints="memory",
        reference_point={"speed": 0, "error": 10},
    )
    data = json.loads(json.dumps(problem.to_json(), allow_nan=False))
    assert Problem.from_json(data) == problem
    again = Problem.from_json(data, objects={"net": {"a": "object"}})
    assert again.space.arguments({"net": "a"}) == {"net": "object"}
    assert again.constraints == (Constraint("memory"),)


def test_the_difference_of_two_problems_is_told_in_sentences():
    other = Problem.make({"x": Real(0, 2)}, maximize="error", noise="none", constraints="memory")
    assert ONE.difference(other) == [
        "parameter 'x': high was 1.0 and is now 2.0.",
        "objective 'error': direction was minimize and is now maximize.",
        "objective 'error': noise was unknown and is now none.",
        "constraints: was [] and is now [{'name': 'memory'}].",
    ]
    assert ONE.difference(Problem.make(SPACE, minimize="loss")) == [
        "objective 'error' was removed.",
        "objective 'loss' was added.",
    ]
    turned = Problem(SPACE, TWO.objectives[::-1])
    assert TWO.difference(turned) == [
        "the order of the objectives was 'error', 'speed' and is now 'speed', 'error'."
    ]
    assert TWO.difference(TWO) == []
