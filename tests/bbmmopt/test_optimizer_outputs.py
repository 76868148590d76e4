"""Facts about problems of several outputs: constraints, objectives and failures, end to end."""

import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bbmmopt import Constraint, Optimizer, Problem, Real, Study
from bbmmopt.cli.commands import main
from bbmmopt.pareto import hypervolume
from bbmmopt.space import Space
from bbmmopt.strategies import SpaceFilling
from bbmmopt.transforms import Standardise
from bbmmopt.trial import Trial, TrialState

PLANE = {"x": Real(0, 1), "y": Real(0, 1)}


def steps(optimizer: Optimizer, n: int, f) -> list[Trial]:
    told = []
    for _ in range(n):
        trial = optimizer.ask()
        told.append(optimizer.tell(trial, f(**trial.params)))
    return told


# --------------------------------------------------------------------------------------
# Constraints and their bounds
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("latency", [("latency", 0.0, "<=")]),
        ("latency <= 200", [("latency", 200.0, "<=")]),
        (["latency<=2e2", "accuracy ≥ .9"], [("latency", 200.0, "<="), ("accuracy", 0.9, ">=")]),
        (["two words >= -1", "c"], [("two words", -1.0, ">="), ("c", 0.0, "<=")]),
        ({"latency": 200}, [("latency", 200.0, "<=")]),
        ({"a <= b": 1, "c": (">=", 2)}, [("a <= b", 1.0, "<="), ("c", 2.0, ">=")]),
        (Constraint("c", 3.0, ">="), [("c", 3.0, ">=")]),
    ],
)
def test_constraints_are_read_as_texts_mappings_and_objects(given, expected):
    problem = Problem.make(PLANE, minimize="f", constraints=given)
    assert [(c.name, c.bound, c.sense) for c in problem.constraints] == expected
    again = Problem.from_json(problem.to_json())
    assert again.constraints == problem.constraints and not again.difference(problem)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("latency < 200", ValueError, "'latency < 200' cannot be read. Write"),
        ("latency <=", ValueError, "cannot be read"),
        ("<= 200", ValueError, "cannot be read"),
        ("latency <= fast", ValueError, "cannot be read"),
        ({"latency": "<= 200"}, TypeError, "'<= 200' is no bound"),
        ({"latency": (">", 2)}, ValueError, "must be '<=' or '>='; got '>'"),
        ({"latency": (1, 2, 3)}, ValueError, "expected \\(sense, bound\\)"),
        ({"latency": math.inf}, ValueError, "must be finite"),
        ({"latency": None}, TypeError, "must be a number; got None"),
        ({"": 2}, ValueError, "needs a name"),
        (7, TypeError, "must be texts or"),
        (["a", "a >= 2"], ValueError, "'a' came twice"),
    ],
)
def test_constraints_that_cannot_be_read_are_refused_with_advice(given, error, match):
    with pytest.raises(error, match=match):
        Problem.make(PLANE, minimize="f", constraints=given)


def test_what_was_stored_before_there_were_bounds_still_opens():
    problem = Problem.make(PLANE, minimize="f", constraints="memory")
    data = problem.to_json()
    assert data["constraints"] == [{"name": "memory"}]
    assert Problem.from_json(data).constraints == (Constraint("memory", 0.0, "<="),)


def test_a_trial_is_feasible_up_to_its_bounds_included():
    problem = Problem.make(PLANE, minimize="f", constraints=["a <= 2", "b >= 0.5"])

    def trial(a, b):
        return Trial(0, {}, TrialState.COMPLETE, {"f": 0.0}, constraints={"a": a, "b": b})

    assert problem.is_feasible(trial(2.0, 0.5)) and problem.is_feasible(trial(-9.0, 9.0))
    assert not problem.is_feasible(trial(math.nextafter(2, 3), 1.0))
    assert not problem.is_feasible(trial(0.0, math.nextafter(0.5, 0)))
    assert not problem.is_feasible(trial(math.nan, 1.0))
    assert [str(c) for c in problem.constraints] == ["a ≤ 2", "b ≥ 0.5"]


def test_an_infinite_constraint_is_a_failure_on_its_bad_side_and_an_error_on_the_other():
    problem = Problem.make(PLANE, minimize="f", constraints=["a <= 2", "b >= 0.5"])
    assert problem.check_values(1.0, constraints={"a": math.inf, "b": 1.0}).failure
    assert problem.check_values(1.0, constraints={"a": 1.0, "b": -math.inf}).failure
    with pytest.raises(ValueError, match="better than anything"):
        problem.check_values(1.0, constraints={"a": 1.0, "b": math.inf})


def test_another_bound_is_another_study(tmp_path):
    options = {"minimize": "f", "storage": tmp_path / "s.db", "seed": 0}
    Study(PLANE, constraints="a <= 2", **options).close()
    Study(PLANE, constraints={"a": 2}, **options).close()
    with pytest.raises(ValueError, match=r"constraints: was .*2\.0.* and is now .*3\.0"):
        Study(PLANE, constraints="a <= 3", **options)


def constrained(x, y):
    return {"f": x + y, "c": x * y, "d": 1 - x}


@pytest.mark.parametrize("turned", [False, True])
def test_the_constrained_optimum_is_found(turned):
    # min x + y, given x y ≥ 0.25: at x = y = ½, the value is 1.
    bounds = {"c": (">=", 0.25), "d": (">=", -1)} if not turned else ["c <= -0.25", "d <= 1"]

    def f(x, y):
        told = constrained(x, y)
        return told | {"c": -told["c"], "d": -told["d"]} if turned else told

    optimizer = Optimizer(PLANE, minimize="f", constraints=bounds, seed=1, noise="none")
    steps(optimizer, 30, f)
    best = optimizer.best
    assert best.params["x"] * best.params["y"] >= 0.25
    assert best.value == pytest.approx(1.0, rel=0.02)
    point = optimizer.recommend().params
    assert point["x"] * point["y"] >= 0.24 and optimizer.recommend().value < 1.02
    sentence = optimizer.explain(29)
    assert ("c ≥ 0.25 with probability" in sentence) != turned
    assert optimizer.belief("c").data.bound == 0.0


# --------------------------------------------------------------------------------------
# Several objectives
# --------------------------------------------------------------------------------------


def two(x, y):
    return {"near": (x - 0.2) ** 2 + (y - 0.3) ** 2, "far": (x - 0.8) ** 2 + (y - 0.7) ** 2}


def volume(points: np.ndarray) -> float:
    return hypervolume(-points, np.array([-0.7, -0.7]))


def test_two_objectives_gain_more_than_space_filling():
    optimizer = Optimizer(PLANE, minimize=["near", "far"], seed=0)
    front = np.array([list((t.values or {}).values()) for t in steps(optimizer, 30, two)])
    space = Space(PLANE)
    filled = []
    for number in range(30):
        request = optimizer._request(number, {})
        x = space.decode(SpaceFilling(space).propose(request).x)
        filled.append(list(two(**x).values()))
    s = np.linspace(0, 1, 400)
    exact = np.stack([0.52 * s**2, 0.52 * (1 - s) ** 2], 1)
    missed, missed_filled = (volume(exact) - volume(Y) for Y in (front, np.array(filled)))
    assert missed < 0.25 * missed_filled and missed < 0.03 * volume(exact)
    assert len(optimizer.pareto_front) > 10


def five(x, y):
    tops = [(0.1, 0.1), (0.9, 0.1), (0.5, 0.9), (0.2, 0.5), (0.9, 0.9)]
    return {f"o{i}": (x - a) ** 2 + (y - b) ** 2 for i, (a, b) in enumerate(tops)}


def test_five_objectives_are_spread_over_by_directions():
    names = list(five(0, 0))
    optimizer = Optimizer(PLANE, minimize=names, seed=0, n_start=8, constraints="sum <= 1.9")
    f = lambda x, y: five(x, y) | {"sum": x + y}  # noqa: E731
    late = steps(optimizer, 20, f)[8:]
    assert {t.origin["acquisition"] for t in late} == {"scalarised"}
    X = np.array([list(t.params.values()) for t in late])
    assert min(np.linalg.norm(a - b) for i, a in enumerate(X) for b in X[:i]) > 1e-3
    assert X.std(0).min() > 0.1
    assert "random direction" in optimizer.explain(late[-1])


# --------------------------------------------------------------------------------------
# Failures
# --------------------------------------------------------------------------------------


def test_the_half_where_trials_fail_is_learnt():
    optimizer = Optimizer(PLANE, minimize="f", seed=0)
    failed = []
    for _ in range(30):
        trial = optimizer.ask()
        x, y = trial.params["x"], trial.params["y"]
        if x > 0.6:  # where the objective would be the best
            optimizer.tell(trial, failed="crashed")
        else:
            optimizer.tell(trial, (x - 0.9) ** 2 + (y - 0.4) ** 2)
        failed.append(x > 0.6)
    assert sum(failed[:10]) >= 2 and sum(failed[15:]) <= 7
    assert optimizer.best.value < 0.1 and "to succeed with probability" in optimizer.explain(29)


# --------------------------------------------------------------------------------------
# Batches, and going on
# --------------------------------------------------------------------------------------


def noisy(x, y):
    wiggle = math.sin(1e4 * x + 3e4 * y)
    return {"f": (x - 0.3) ** 2 + (y - 0.6) ** 2 + 0.05 * wiggle, "c": 0.2 - x + 0.02 * wiggle}


CASES = {
    "noisy": {"minimize": "f", "noise": "noisy"},
    "constrained": {"minimize": "f", "constraints": "c <= 0.1"},
    "two": {"minimize": ["f", "c"]},
    "many": {"minimize": list("abcd")},
    "information": {"minimize": "f", "acquisition": "max_value_entropy"},
    "knowledge": {"minimize": "f", "acquisition": "knowledge_gradient"},
    "variance": {"minimize": "f", "acquisition": "integrated_variance"},
}


def outputs(case, x, y):
    told = noisy(x, y)
    if case == "many":
        return {name: told["f"] + i * told["c"] * (-1) ** i for i, name in enumerate("abcd")}
    return told if case in ("constrained", "two") else told["f"]


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_four_is_four_points_and_a_resumed_study_proposes_the_same(case, tmp_path):
    options = CASES[case] | {"storage": tmp_path / "s.db", "seed": 5, "n_start": 8}
    first = Optimizer(PLANE, **options)
    steps(first, 10, lambda x, y: outputs(case, x, y))
    asked = first.ask(2)
    with Optimizer(PLANE, **options) as second:
        torch.manual_seed(3)  # which nothing depends on
        there = second.preview().params
    asked += first.ask(2)
    assert asked[2].params == there
    X = np.array([list(t.params.values()) for t in asked])
    assert min(np.linalg.norm(a - b) for i, a in enumerate(X) for b in X[:i]) > 1e-3
    assert np.ptp(X, axis=0).max() > 0.02
    for trial in asked:
        first.tell(trial, outputs(case, **trial.params))
    with Optimizer(PLANE, **options) as third:
        assert third.preview().params == first.ask().params
    first.close()


def test_the_command_line_takes_bounds_and_shows_them(tmp_path):
    storage = str(tmp_path / "s.db")

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == 0, done.output
        return done.output

    space = '{"x": {"real": [0, 1]}}'
    bounds = ("--constraint", "latency <= 200", "--constraint", "accuracy >= 0.9")
    call("create", storage, "--space", space, "--minimize", "loss", *bounds, "--seed", "0")
    call("ask", storage)
    call("tell", storage, "0", "loss=1", "latency=201", "accuracy=0.95")
    table = call("trials", storage)
    assert "latency (≤ 200)" in table and "accuracy (≥ 0.9)" in table and "best" not in table


# --------------------------------------------------------------------------------------
# Bad values of one objective may be the price of good ones of another
# --------------------------------------------------------------------------------------


def test_what_is_better_than_the_reference_point_is_not_cut_off():
    reference = {"f": 2.0, "g": 300.0}
    problem = Problem.make(Space(PLANE), minimize=["f", "g"], reference_point=reference)
    optimizer = Optimizer(problem, seed=0, n_start=31)
    steps(optimizer, 30, lambda x, y: {"f": 1 - x, "g": y + 100 * (x > 0.9)})
    told = np.array([-t.values["g"] for t in optimizer.trials])
    assert 0 < sum(told < -90) < 6  # a price that is paid in one corner
    # Larger is better inside: -300 is worth nothing, -200 lies between.
    price, between, worthless = optimizer.belief("g").transform.forward(
        np.array([-100.0, -200.0, -300.0])
    )
    assert price > between > worthless
    cut = Standardise.of(told).forward(np.array([-100.0, -200.0]))  # as a single objective is
    assert cut[0] == cut[1]


def test_without_a_reference_point_only_what_is_out_of_all_proportion_is_cut_off():
    rng = np.random.default_rng(0)
    optimizer = Optimizer(Problem.make(Space(PLANE), minimize=["f", "g"]), seed=0)
    for i, (x, y) in enumerate(rng.random((20, 2))):
        g = {18: 5.0, 19: 1e6}.get(i, y)  # quartiles of y are half a unit apart
        optimizer.add_trial({"x": x, "y": y}, {"f": x, "g": g})
    forward = optimizer.belief("g").transform.forward
    assert forward(np.array([-4.0])) > forward(np.array([-5.0]))
    assert forward(np.array([-1e6])) == forward(np.array([-1e5]))


def test_a_front_of_which_one_end_is_expensive_is_found_whole():
    """Vehicle safety: mass, acceleration, intrusion; Tanabe & Ishibuchi (2020), RE3-5-4."""

    def crash(**p: float) -> dict[str, float]:
        a, b, c, d, e = p.values()
        return {
            "mass": 1640.2823
            + 2.3573285 * a
            + 2.3220035 * b
            + 4.5688768 * c
            + 7.7213633 * d
            + 4.4559504 * e,
            "acceleration": 6.5856
            + 1.15 * a
            - 1.0427 * b
            + 0.9738 * c
            + 0.8364 * d
            - 0.3695 * a * d
            + 0.0861 * a * e
            + 0.3628 * b * d
            - 0.1106 * a**2
            - 0.3437 * c**2
            + 0.1764 * d**2,
            "intrusion": -0.0551
            + 0.0181 * a
            + 0.1024 * b
            + 0.0421 * c
            - 0.0073 * a * b
            + 0.024 * b * c
            - 0.0118 * b * d
            - 0.0204 * c * d
            - 0.008 * c * e
            - 0.0241 * b**2
            + 0.0109 * d**2,
        }

    worst = {"mass": 1864.72022, "acceleration": 11.81993945, "intrusion": 0.2903999384}
    problem = Problem.make(
        Space({name: Real(1, 3) for name in "abcde"}),
        minimize=list(worst),
        noise="none",
        reference_point=worst,
    )
    optimizer = Optimizer(problem, seed=0, budget=25)
    steps(optimizer, 25, crash)
    values = np.array([[-t.values[name] for name in worst] for t in optimizer.trials])
    # 246.8 is the largest there is; 226 were reached while intrusion was cut off.
    assert hypervolume(values, -np.array(list(worst.values()))) > 233
