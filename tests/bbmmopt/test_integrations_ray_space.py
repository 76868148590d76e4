"""Facts about Ray's search spaces as ours. The oracle is what Ray itself draws from a domain."""

import math

import numpy as np
import pytest
from ray import tune

from bbmmopt.integrations.ray.space import Layout
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space

DRAWS = 2000


def drawn(domain, n=DRAWS):
    """Values that Ray draws, as native numbers."""
    rng = np.random.default_rng(0)
    return [domain.sample(random_state=rng) for _ in range(n)]


def handed_out(domain):
    """Every value of a finite domain, as a trial of ours gets it."""
    layout = Layout.of({"x": domain})
    space = layout.space
    return [layout.config(space.arguments(space.decode(row)))["x"] for row in space.enumerate()]


FINITE = {
    "randint": tune.randint(-2, 5),
    "qrandint": tune.qrandint(3, 21, 4),
    "qrandint of 1": tune.qrandint(0, 5, 1),
    "lograndint": tune.lograndint(1, 20),
    "qlograndint": tune.qlograndint(2, 30, 2),
    "quniform": tune.quniform(0, 1, 0.1),
    "quniform of whole steps": tune.quniform(-10, 20, 5),
    "quniform counted in steps": tune.quniform(0, 1, 0.005),
    "qloguniform": tune.qloguniform(0.5, 4, 0.5),
    "qloguniform of 1": tune.qloguniform(1, 9, 1),
    "choice": tune.choice(["a", 2, 0.5, True]),
}


@pytest.mark.parametrize("name", FINITE)
def test_a_finite_domain_has_the_values_that_ray_draws_and_no_others(name):
    ours, rays = handed_out(FINITE[name]), drawn(FINITE[name])
    assert {type(value) for value in ours} == {type(value) for value in rays}
    if name == "choice":
        assert ours == ["a", 2, 0.5, True]
        return
    assert len(set(ours)) == len(ours)
    assert sorted(ours) == pytest.approx(sorted({round(value, 9) for value in rays}), rel=1e-9)


MANY = {
    "uniform": tune.uniform(-3, 4),
    "loguniform": tune.loguniform(1e-5, 1),
    "wide randint": tune.randint(0, 10**6),
    "wide lograndint": tune.lograndint(1, 10**6),
    "wide qlograndint": tune.qlograndint(10, 10**6, 10),
    "quniform of many steps": tune.quniform(0, 1, 0.02),
    "fine quniform": tune.quniform(0, 1, 1e-5),
    "fine qloguniform": tune.qloguniform(1e-3, 1, 1e-5),
}


@pytest.mark.parametrize("name", MANY)
def test_what_ray_draws_evenly_lies_evenly_in_the_unit_cube(name):
    layout = Layout.of({"x": MANY[name]})
    space = layout.space
    rows = [space.encode(space.validate(layout.params({"x": x}))) for x in drawn(MANY[name])]
    u = np.sort(np.array(rows)[:, 0])
    largest_share = np.unique(u, return_counts=True)[1].max() / DRAWS  # all at one position
    off = np.abs(u - (np.arange(DRAWS) + 0.5) / DRAWS).max()  # as Kolmogorov and Smirnov
    assert off < 0.03 + largest_share


@pytest.mark.parametrize("name", FINITE | MANY)
def test_a_configuration_is_what_ray_takes_as_valid_and_comes_back_as_the_same_params(name):
    domain = (FINITE | MANY)[name]
    layout = Layout.of({"x": domain})
    rng = np.random.default_rng(1)
    for row in layout.space.snap(rng.random((20, 1))):
        params = layout.space.decode(row)
        config = layout.config(params)
        assert domain.is_valid(config["x"])
        assert layout.params(config) == params


def test_a_grid_that_is_counted_in_steps_says_so_in_its_name():
    space = Layout.of({"lr": tune.qloguniform(1e-3, 1, 5e-4), "a": tune.quniform(0, 1, 0.25)}).space
    assert space.parameters == {
        "lr / 0.0005": Integer(2, 2000, log=True),
        "a": Ordinal([0.0, 0.25, 0.5, 0.75, 1.0]),
    }


def test_rounding_errors_are_on_the_grid_and_other_values_are_not():
    layout = Layout.of({"x": tune.quniform(0, 1, 0.1), "y": tune.qloguniform(0.1, 50, 0.1)})
    assert layout.params({"x": 0.1 + 0.2, "y": 3 * 0.1}) == {"x": 0.3, "y / 0.1": 3}
    for config in ({"x": 0.33, "y": 0.3}, {"x": 0.3, "y": 0.33}, {"x": "0.3", "y": 0.3}):
        with pytest.raises((ValueError, TypeError), match=r"parameter '[xy]"):
            layout.space.validate(layout.params(config))


def test_nested_configurations_lists_and_constants_are_kept():
    space = {
        "data": "digits",
        "optimizer": {"lr": tune.uniform(0, 1), "eps": 1e-8, "betas": (tune.uniform(0, 1), 0.99)},
        "widths": [tune.randint(1, 9), 4, tune.randint(1, 9)],
    }
    layout = Layout.of(space)
    assert set(layout.space.names) == {"optimizer/lr", "optimizer/betas/0", "widths/0", "widths/2"}
    params = {"optimizer/lr": 0.5, "optimizer/betas/0": 0.25, "widths/0": 3, "widths/2": 7}
    config = {
        "data": "digits",
        "optimizer": {"lr": 0.5, "eps": 1e-8, "betas": (0.25, 0.99)},
        "widths": [3, 4, 7],
    }
    assert layout.config(params) == config
    assert layout.params(config) == params
    assert layout.params(params) == params  # flattened, as results have it
    assert space["widths"][1:2] == [4]
    assert not isinstance(space["widths"][0], int)  # what the user gave is as it was


def test_choices_that_are_objects_are_handed_out_and_recognised():
    choices = [None, "None", (64, 64), [1, 2], math.sin, dict, 1, 1.0, True]
    layout = Layout.of({"c": tune.choice([*choices, (64, 64)])})
    parameter = layout.space.parameters["c"]
    assert isinstance(parameter, Categorical)
    assert list(parameter.labels) == [
        *("None", "None #2", "(64, 64)", "[1, 2]", "sin", "dict", "1", "1.0", "True")
    ]
    for label, choice in zip(parameter.labels, choices, strict=True):
        handed = layout.config(layout.space.arguments({"c": label}))["c"]
        assert handed == choice
        assert type(handed) is type(choice)
        assert layout.params({"c": choice}) == {"c": label}
    with pytest.raises(ValueError, match="parameter 'c': expected one of 'None'"):
        layout.space.validate(layout.params({"c": "other"}))


def test_objects_without_a_name_of_their_own_are_called_by_their_kind():
    labels = Layout.of({"c": tune.choice([object(), object()])}).space.parameters["c"].labels
    assert labels == ("<object object>", "<object object> #2")  # not by where they are in memory


def test_a_choice_that_is_listed_twice_is_there_once():
    assert Layout.of({"c": tune.choice(["a", "a", "b"])}).space.parameters["c"] == Categorical(
        ["a", "b"]
    )


def test_a_space_of_ours_keeps_its_conditions_and_is_nested_by_its_names():
    space = Space(
        {
            "optimizer/kind": Categorical(["sgd", "adam"]),
            "optimizer/momentum": Real(0, 1, when={"optimizer/kind": "sgd"}),
            "width": Ordinal([16, 32, 64]),
            "head": Categorical({"small": {"layers": 1}, "large": {"layers": 3}}),
        }
    )
    layout = Layout.of(space)
    assert layout.space is space
    params = {"optimizer/kind": "sgd", "optimizer/momentum": 0.5, "width": 32, "head": "large"}
    config = {
        "optimizer": {"kind": "sgd", "momentum": 0.5},
        "width": 32,
        "head": {"layers": 3},
    }
    assert layout.config(space.arguments(params)) == config
    assert layout.params(config) == params
    assert layout.config({"optimizer/kind": "adam", "width": 16}) == {
        "optimizer": {"kind": "adam"},
        "width": 16,
    }
    assert Layout.of({"x": Real(0, 1)}).space == Space({"x": Real(0, 1)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"x": tune.grid_search([1, 2])}, r"parameter 'x': a grid search .*tune\.choice"),
        ({"a": {"x": {"grid_search": [1]}}}, r"parameter 'a/x': a grid search"),
        ({"x": tune.randn(0, 1)}, r"parameter 'x': only tune\.uniform.* bounds"),
        ({"x": tune.qrandn(0, 1, 0.5)}, r"parameter 'x': only tune\.uniform"),
        ({"x": tune.sample_from(lambda config: 1)}, r"parameter 'x': only tune\.uniform"),
        (
            {"x": tune.choice([{"lr": tune.uniform(0, 1)}, None])},
            r"parameter 'x': a choice that has domains .* when=",
        ),
        ({"a": {"x": Real(0, 1)}, "y": tune.uniform(0, 1)}, r"parameter 'a/x' is nested"),
        ({"x": 3}, r"nothing to tune"),
        ({}, r"nothing to tune"),
        (
            {"a/b": tune.uniform(0, 1), "a": {"b": tune.uniform(0, 1)}},
            r"parameter 'a/b' is there twice",
        ),
        ({"x": tune.uniform(1, 0)}, r"parameter 'x': .*low"),
        ({"x": tune.randint(3, 3)}, r"parameter 'x': .*low"),
        ({"x": tune.choice([])}, r"parameter 'x': choices must not be empty"),
        ({"x": tune.qrandint(5, 7, 4)}, r"parameter 'x': there is no multiple of 4 from 5 to 7"),
    ],
)
def test_what_cannot_be_tuned_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        Layout.of(config)


def test_what_is_no_space_is_refused():
    with pytest.raises(TypeError, match="space must be a Space, or a configuration"):
        Layout.of([tune.uniform(0, 1)])
