"""Facts about contours in spaces with sums: averages over the points that meet them."""

import math

import numpy as np
import pytest

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import contours_data
from bbmmopt.space import Linear, Real, Simplex, Space


def told(space: Space, count: int = 12) -> Optimizer:
    """An Optimizer that was told something smooth of each parameter."""
    optimizer = Optimizer(space, minimize="loss", noise="none", seed=0, n_start=count)
    for _ in range(count):
        trial = optimizer.ask()
        units = space.encode(trial.params)
        optimizer.tell(trial, float(((units - 0.3) ** 2 * np.arange(1, len(units) + 1)).sum()))
    return optimizer


def average_at(optimizer: Optimizer, place: dict[str, float]) -> float:
    """The average of the model over allowed points with some parameters at a place, by rejection.

    In model units, taken back to the user's; NaN where none of 20,000 points is allowed.
    """
    space, belief = optimizer.space, optimizer.belief()
    X = np.random.default_rng(5).random((20_000, len(space)))
    for name, value in place.items():
        X[:, space.names.index(name)] = space.parameters[name].to_unit(value)
    X = X[space.feasible(X)]
    if not len(X):
        return math.nan
    mean, _ = belief.marginals(X)
    return -float(belief.transform.inverse(np.array([mean.mean()]))[0])


@pytest.mark.parametrize(
    ("log", "constraint"),
    [
        (True, Linear({"a": 1.0, "b": 5.0}, at_most=60.0)),
        (False, Linear({"a": 1.0, "b": 5.0}, at_least=40.0, at_most=90.0)),
    ],
    ids=["log", "linear"],
)
def test_averages_are_over_points_within_the_limits(log, constraint):
    space = Space(
        {"a": Real(1, 100, log=log), "b": Real(0, 10), "c": Real(0, 1)},
        [constraint],
    )
    optimizer = told(space)
    table = contours_data(optimizer)
    spread = np.nanmax(table["value"]) - np.nanmin(table["value"])
    pairs = (table["x"] == "a") & (table["y"] == "b")
    total = table["x_value"][pairs] + 5 * np.array(table["y_value"][pairs], dtype=float)
    least = -math.inf if constraint.at_least is None else constraint.at_least
    inside = (total >= least - 1e-9) & (total <= constraint.at_most + 1e-9)
    np.testing.assert_array_equal(np.isfinite(table["value"][pairs]), inside)
    rows = np.random.default_rng(0).choice(np.flatnonzero(np.isfinite(table["value"])), 25)
    for row in rows:
        place = {table["x"][row]: table["x_value"][row]}
        if table["y"][row] is not None:
            place[table["y"][row]] = float(table["y_value"][row])
        wanted = average_at(optimizer, place)
        if math.isfinite(wanted):  # on the very edge one point alone is allowed
            assert table["value"][row] == pytest.approx(wanted, abs=0.08 * spread)


def test_places_that_few_points_meet_are_not_taken_for_forbidden():
    names = [f"x{i}" for i in range(6)]
    constraint = Linear(dict.fromkeys(names, 1.0), at_most=1.5)
    table = contours_data(told(Space({n: Real(0, 1) for n in names}, [constraint])), ["x0", "x1"])
    pairs = table["y"] == "x1"
    total = table["x_value"][pairs] + np.array(table["y_value"][pairs], dtype=float)
    np.testing.assert_array_equal(np.isnan(table["value"][pairs]), total > 1.5 + 1e-9)


def test_what_is_in_no_sum_makes_no_difference_to_what_is():
    mixture = {name: Real(0, 1) for name in ("a", "b", "c")}
    space = Space({**mixture, "heat": Real(20, 90)}, [Simplex(tuple(mixture))])
    optimizer = told(space)
    belief = optimizer.belief()
    table = contours_data(optimizer, ["a", "heat"])
    pairs = table["y"] == "heat"
    assert np.isfinite(table["value"]).all()
    spread = np.ptp(table["value"][pairs])
    rng = np.random.default_rng(1)
    for row in rng.choice(np.flatnonzero(pairs), 10):
        a, heat = table["x_value"][row], float(table["y_value"][row])
        share = rng.random(2000)
        points = [
            {"a": a, "b": (1 - a) * u, "c": (1 - a) * (1 - u), "heat": heat} for u in share.tolist()
        ]
        units = np.array([[space.parameters[n].to_unit(v) for n, v in p.items()] for p in points])
        wanted = -belief.transform.inverse(np.array([belief.marginals(units)[0].mean()]))[0]
        assert table["value"][row] == pytest.approx(wanted, abs=0.05 * spread)


def test_where_nothing_else_varies_a_surface_is_what_the_model_expects():
    optimizer = told(Space({"x": Real(0, 1), "y": Real(1, 100, log=True)}))
    belief, space = optimizer.belief(), optimizer.space
    table = contours_data(optimizer)
    pairs = table["y"] == "y"
    assert pairs.sum() == 51**2
    X = np.stack(
        [
            table["x_value"][pairs],
            [space.parameters["y"].to_unit(y) for y in table["y_value"][pairs].tolist()],
        ],
        axis=1,
    )
    wanted = -belief.transform.inverse(belief.marginals(X)[0])
    np.testing.assert_allclose(table["value"][pairs], wanted, rtol=1e-6, atol=1e-9)
