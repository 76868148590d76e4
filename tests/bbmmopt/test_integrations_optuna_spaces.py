"""What an Optuna study says of its space: values, ranges, and which parameters there are when."""

import math
import subprocess
import sys

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from bbmmopt.integrations.optuna.conditions import Levels, find_conditions, is_active
from bbmmopt.integrations.optuna.distributions import parameter_of, to_internal, to_ours
from bbmmopt.integrations.optuna.layout import layout_of
from bbmmopt.space import Space

KIND = Levels((0, 1, 2), ordered=False)
COUNT = Levels(range(1, 9), ordered=True)


# --------------------------------------------------------------------------------------
# Conditions
# --------------------------------------------------------------------------------------


def test_a_parameter_that_is_always_there_has_no_condition():
    found = find_conditions([{"x": 0, "y": 1}, {"x": 1, "y": 2}], {})
    assert found.when == {"x": {}, "y": {}}
    assert found.unexplained == set()


def test_a_choice_decides():
    points = [{"kind": 0, "a": 5}, {"kind": 1, "b": 5}, {"kind": 2, "b": 7}]
    found = find_conditions(points, {"kind": KIND})
    assert found.when == {"kind": {}, "a": {"kind": [0]}, "b": {"kind": [1, 2]}}


def test_a_choice_that_was_not_tried_is_one_without():
    found = find_conditions([{"kind": 0, "a": 5}, {"kind": 1}], {"kind": KIND})
    assert found.when["a"] == {"kind": [0]}


def test_an_integer_decides_up_to_halfway_between_those_that_were_tried():
    points = [{"count": 1}, {"count": 4, "a": 0}, {"count": 6, "a": 0}]
    found = find_conditions(points, {"count": COUNT})
    assert found.when["a"] == {"count": [3, 4, 5, 6, 7, 8]}


def test_an_integer_decides_by_an_interval_alone():
    points = [{"count": 1, "a": 0}, {"count": 4}, {"count": 6, "a": 0}]
    found = find_conditions(points, {"count": COUNT})
    assert found.unexplained == {"a"}


def test_conditions_are_nested():
    points = [
        {"kind": 0, "count": 1, "a": 0},
        {"kind": 0, "count": 5, "a": 0, "b": 0},
        {"kind": 1},
    ]
    found = find_conditions(points, {"kind": KIND, "count": COUNT})
    assert found.when["count"] == {"kind": [0]}
    assert found.when["b"] == {"count": [4, 5, 6, 7, 8]}  # and so only where there is a count
    assert is_active(found.when, "b", {"kind": 0, "count": 5})
    assert not is_active(found.when, "b", {"kind": 1, "count": 5})


def test_two_parents_may_be_needed():
    points = [
        {"kind": k, "count": c} | ({"a": 0} if k == 1 and c > 4 else {})
        for k in (0, 1)
        for c in (2, 6)
    ]
    found = find_conditions(points, {"kind": KIND, "count": COUNT})
    assert set(found.when["a"]) == {"kind", "count"}
    assert found.when["a"]["kind"] == [1]


def test_what_nothing_explains_is_said_and_what_depends_on_it_too():
    points = [{"x": 0}, {"x": 0, "kind": 0}, {"x": 0, "kind": 1, "a": 3}]
    found = find_conditions(points, {"kind": KIND})
    assert found.when == {"x": {}}
    assert found.unexplained == {"kind", "a"}


def test_parameters_that_come_together_do_not_depend_on_each_other():
    points = [{"x": 0}, {"p": 0, "q": 1}, {"p": 1, "q": 0}]
    found = find_conditions(points, {"p": KIND, "q": KIND})
    assert found.unexplained == {"x", "p", "q"}


def test_the_order_of_the_trials_does_not_matter():
    points = [
        {"kind": k, "count": c} | ({"a": 0} if c > 3 else {}) for k in (0, 1) for c in (2, 4, 6)
    ]
    parents = {"kind": KIND, "count": COUNT}
    assert find_conditions(points, parents) == find_conditions(points[::-1], parents)


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(-1, 2), [-1.0, 0.123, 2.0]),
        (FloatDistribution(1e-6, 1, log=True), [1e-6, 0.004, 1.0]),
        (FloatDistribution(-0.3, 0.5, step=0.1), [-0.3, 0.0, 0.1, 0.5]),
        (IntDistribution(-3, 9, step=3), [-3, 0, 9]),
        (IntDistribution(1, 2**60, log=True), [1, 2**31, 2**60]),
        (IntDistribution(-(2**60), 2**60 - 1), [-(2**60), 5, 2**60 - 128]),
        (CategoricalDistribution([None, "a", 1.5, False]), [None, "a", 1.5, False]),
    ],
    ids=str,
)
def test_values_go_through_the_space_and_back(distribution, values):
    space = Space({"x": parameter_of(distribution)})
    for value in values:
        ours = to_ours(distribution, distribution.to_internal_repr(value))
        assert space.validate({"x": ours}) == {"x": ours}
        there = distribution.to_external_repr(to_internal(distribution, ours))
        assert there == value
        assert type(there) is type(value)


@pytest.mark.parametrize("u", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(1, 2**60 - 1, log=True),
        IntDistribution(-(2**60) + 1, 2**60 - 1),
        FloatDistribution(-10.2, 10.2, step=0.1),
        FloatDistribution(1e-300, 1e300, log=True),
    ],
    ids=str,
)
def test_every_point_of_the_space_is_one_that_optuna_takes(distribution, u):
    parameter = parameter_of(distribution).checked()
    internal = to_internal(distribution, parameter.from_unit(u))
    assert distribution._contains(internal)
    assert distribution._contains(
        distribution.to_internal_repr(distribution.to_external_repr(internal))
    )


# --------------------------------------------------------------------------------------
# Layouts
# --------------------------------------------------------------------------------------


def trials_with(*pairs):
    study = optuna.create_study()
    for params, distributions in pairs:
        study.add_trial(create_trial(params=params, distributions=distributions, value=0.0))
    return study.trials


def test_a_layout_leaves_out_single_values_and_takes_the_last_range():
    one = {"x": FloatDistribution(0, 1), "one": IntDistribution(3, 3)}
    two = {"x": FloatDistribution(0, 9), "one": IntDistribution(3, 3)}
    layout = layout_of(trials_with(({"x": 0.5, "one": 3}, one), ({"x": 0.7, "one": 3}, two)))
    assert layout.distributions == {"x": FloatDistribution(0, 9)}


def test_a_point_beyond_the_range_has_a_place_and_one_without_a_value_has_none():
    layout = layout_of(trials_with(({"x": 0.5}, {"x": FloatDistribution(0, 1)})))
    assert layout.point({"x": 3.0, "y": 1}) == {"x": 3.0}
    assert layout.point({"y": 1}) is None
    assert layout.point({"x": "many"}) is None


def test_a_condition_on_values_that_are_no_longer_to_be_had_leaves_the_parameter_out():
    before = {"n": IntDistribution(1, 9), "x": FloatDistribution(0, 1)}
    trials = trials_with(
        ({"n": 9, "x": 0.5}, before),
        ({"n": 2}, {"n": IntDistribution(1, 9)}),
        ({"n": 1}, {"n": IntDistribution(1, 3)}),
    )
    assert list(layout_of(trials).distributions) == ["n"]


def test_without_optuna_the_message_says_what_to_install():
    program = (
        "import sys; sys.modules['optuna'] = None\n"
        "import bbmmopt\n"
        "try:\n"
        "    import bbmmopt.integrations.optuna\n"
        "except ImportError as error:\n"
        "    assert \"pip install 'bbmmopt[optuna]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_of_a_layout_is_not_a_number():
    layout = layout_of(
        trials_with(({"c": math.nan}, {"c": CategoricalDistribution([math.nan, 1])}))
    )
    assert layout.point({"c": math.nan}) == {"c": 0}
