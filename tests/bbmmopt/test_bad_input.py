"""What bad input gets: a clear error, nothing lost, and an optimizer that goes on as before.

The rows of the table in product.md, section 5, but for those on spaces (test_space.py), values
alone (test_problem.py), storages (test_storage.py) and running (test_execution.py).
"""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from bbmmopt.optimizer import FailedTrialWarning, Optimizer, SpaceExhausted
from bbmmopt.space import Categorical, Integer, Real
from bbmmopt.trial import TrialState, UnknownTrial

SPACE = {"x": Real(0, 1), "y": Real(0, 1), "kernel": Categorical(["rbf", "poly"])}


def objective(x, y, kernel):
    return (x - 0.3) ** 2 + (y - 0.7) ** 2 + 0.1 * (kernel == "rbf")


def optimizer_after(n, **options) -> Optimizer:
    optimizer = Optimizer(SPACE, minimize="f", seed=0, n_start=4, **options)
    for _ in range(n):
        trial = optimizer.ask()
        optimizer.tell(trial, objective(**trial.params))
    return optimizer


def following(optimizer) -> dict:
    return optimizer.preview().params


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan"), (math.nan, 0.1)])
def test_nan_and_the_bad_infinity_are_a_failed_trial_with_a_warning(value):
    optimizer, twin = optimizer_after(6), optimizer_after(6)
    trial = optimizer.ask()
    with pytest.warns(FailedTrialWarning, match=r"trial 6: objective 'f' is (nan|inf)"):
        told = optimizer.tell(trial, value)
    assert told.state == TrialState.FAILED and told.values is None
    assert "objective 'f' is" in told.reason
    # To the model it is like any other failure: the fit has never seen it.
    twin.tell(twin.ask(), failed="why ever")
    assert following(optimizer) == following(twin)
    assert np.isfinite(optimizer.belief().data.y).all()


def test_the_impossible_infinity_is_refused_and_the_trial_can_be_told_again():
    optimizer = optimizer_after(5)
    trial = optimizer.ask()
    with pytest.raises(ValueError, match=r"trial 5: 'f' is -inf, better than anything can be"):
        optimizer.tell(trial, -math.inf)
    assert optimizer.trials[5].state == TrialState.RUNNING
    assert optimizer.tell(trial, 0.5).value == 0.5


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (None, TypeError, "'f' must be a number; got None"),
        ("0.5", TypeError, "'f' must be a number; got '0.5'"),
        (1 + 2j, TypeError, "'f' must be a number"),
        pytest.param(object(), TypeError, "'f' must be a number", id="an object"),
        ([0.5], ValueError, r"expected \{'f': …\}; got \[0.5\]"),
        ((1.0, 2.0, 3.0), ValueError, "expected"),
        (np.array([1.0, 2.0]), ValueError, r"one number; got an array of shape \(2,\)"),
        (torch.zeros(2, 2), ValueError, r"one number; got an array of shape \(2, 2\)"),
        ((1.0, -0.1), ValueError, "standard error of 'f' must be finite and at least 0"),
        ((1.0, math.nan), ValueError, "standard error of 'f' must be finite"),
        ((1.0, "small"), TypeError, "standard error of 'f' must be a number"),
        ({"g": 1.0}, ValueError, "expected values named 'f'; got 'g'. Missing: 'f'. Unknown: 'g'"),
        ({"f": 1.0, "g": 2.0}, ValueError, "Unknown: 'g'"),
        ({}, ValueError, "Missing: 'f'"),
        (10**400, ValueError, "too large"),
    ],
    ids=repr,
)
def test_what_is_not_a_value_is_refused_and_the_trial_can_be_told_again(value, error, words):
    optimizer = optimizer_after(1)
    trial = optimizer.ask()
    with pytest.raises(error, match=f"trial 1: .*{words}"):
        optimizer.tell(trial, value)
    assert optimizer.trials[1] == trial
    assert optimizer.tell(trial, 0.5).value == 0.5


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.5),
        np.array(0.5),
        np.array([[0.5]]),
        torch.tensor([0.5], requires_grad=True),
        Fraction(1, 2),
        (0.5, 0.1),
        {"f": np.float64(0.5)},
    ],
    ids=repr,
)
def test_any_single_number_is_accepted_and_becomes_a_float(value):
    optimizer = optimizer_after(1)
    told = optimizer.tell(optimizer.ask(), value)
    assert told.value == 0.5 and type(told.value) is float


def test_booleans_are_numbers_here():
    optimizer = optimizer_after(1)
    assert optimizer.tell(optimizer.ask(), True).value == 1.0
    assert optimizer.tell(optimizer.ask(), np.False_).value == 0.0


def test_a_decimal_is_refused_like_everything_that_is_no_real_number():
    optimizer = optimizer_after(1)
    with pytest.raises(TypeError, match="must be a number"):
        optimizer.tell(optimizer.ask(), Decimal("0.5"))


def test_of_several_objectives_each_must_be_named():
    optimizer = Optimizer(SPACE, minimize=["a", "b"], constraints="c", seed=0)
    trial = optimizer.ask()
    for value, words in (
        (1.0, "expected {'a': …, 'b': …}"),
        ([1.0, 2.0], "expected {'a': …, 'b': …}"),
        ({"a": 1.0, "c": 0.0}, "Missing: 'b'"),
        ({"a": 1.0, "b": 1.0}, "Missing: 'c'"),
        ({"a": 1.0, "b": 1.0, "c": 0.0, "B": 1.0}, "Unknown: 'B'"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            optimizer.tell(trial, value)
        assert optimizer.trials[0].state == TrialState.RUNNING
    optimizer.tell(trial, {"a": 1.0, "b": 2.0}, constraints={"c": 0.0})
    assert optimizer.trials[0].values == {"a": 1.0, "b": 2.0}


# --------------------------------------------------------------------------------------
# Trials
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [7, -1, 2**70])
def test_an_unknown_trial_is_refused_by_number(number):
    optimizer = optimizer_after(2)
    with pytest.raises(UnknownTrial, match=f"no trial {number}"):
        optimizer.tell(number, 1.0)
    assert len(optimizer.trials) == 2


@pytest.mark.parametrize("trial", [None, "0", 1.0, True, {"x": 1}])
def test_what_is_no_trial_is_refused(trial):
    with pytest.raises(TypeError, match="expected a Trial or its number"):
        optimizer_after(1).tell(trial, 1.0)


def test_a_trial_is_told_a_value_or_a_failure():
    optimizer = optimizer_after(1)
    trial = optimizer.ask()
    with pytest.raises(ValueError, match=r"give a value .*failed=… or pruned=…, not two"):
        optimizer.tell(trial, 1.0, failed="no")
    for reason in (True, "", 3):
        with pytest.raises(TypeError, match="failed= takes the reason"):
            optimizer.tell(trial, failed=reason)
    assert optimizer.trials[1].state == TrialState.RUNNING


# --------------------------------------------------------------------------------------
# Points
# --------------------------------------------------------------------------------------

POINTS = [
    ({"x": 0.1, "y": 0.1, "kernle": "rbf"}, ValueError, "'kernle'.*Did you mean 'kernel'"),
    ({"x": 0.1, "kernel": "rbf"}, ValueError, "parameter 'y' is missing"),
    ({"x": 1.5, "y": 0.1, "kernel": "rbf"}, ValueError, r"'x': 1.5 is outside \[0.0, 1.0\]"),
    ({"x": math.nan, "y": 0.1, "kernel": "rbf"}, ValueError, "'x'.*got nan"),
    ({"x": "0.1", "y": 0.1, "kernel": "rbf"}, TypeError, "'x'.*got '0.1'"),
    ({"x": 0.1, "y": 0.1, "kernel": "rfb"}, ValueError, "'kernel'.*one of 'rbf', 'poly'"),
    ([0.1, 0.1, "rbf"], TypeError, r"expected \{parameter: value\}"),
]


@pytest.mark.parametrize(("params", "error", "words"), POINTS, ids=lambda v: str(v)[:40])
def test_a_wrong_point_is_refused_at_every_door_and_nothing_is_recorded(params, error, words):
    optimizer = optimizer_after(1)
    with pytest.raises(error, match=f"enqueue: .*{words}"):
        optimizer.enqueue(params)
    with pytest.raises(error, match=f"add_trial: .*{words}"):
        optimizer.add_trial(params, 1.0)
    if "missing" not in words:
        with pytest.raises(error, match=rf"ask\(fixed=…\): .*{words}"):
            optimizer.ask(fixed=params)
    assert len(optimizer.trials) == 1


def test_a_wrong_value_of_an_added_trial_is_refused_and_nothing_is_recorded():
    optimizer = optimizer_after(1)
    point = {"x": 0.1, "y": 0.1, "kernel": "rbf"}
    for value, error in ((None, TypeError), ("1", TypeError), (-math.inf, ValueError)):
        with pytest.raises(error):
            optimizer.add_trial(point, value)
    assert len(optimizer.trials) == 1


def test_numbers_outside_the_bounds_are_kept_when_asked_for_but_nonsense_is_not():
    optimizer = optimizer_after(1)
    point = {"x": 1.5, "y": -2.0, "kernel": "rbf"}
    assert optimizer.add_trial(point, 1.0, outside=True).params == point
    with pytest.raises(ValueError, match="'kernel'"):
        optimizer.add_trial(point | {"kernel": "no"}, 1.0, outside=True)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_a_number_of_trials_is_a_positive_integer(n):
    optimizer = optimizer_after(0)
    with pytest.raises(ValueError, match="n must be a positive integer"):
        optimizer.ask(n=n)
    assert optimizer.trials == []


# --------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, 'minimize="error" or maximize='),
        ({"minimize": ""}, ValueError, "non-empty string"),
        ({"minimize": ["a", "a"]}, ValueError, "'a' came twice"),
        ({"minimize": "a", "maximize": "a"}, ValueError, "'a' came twice"),
        ({"minimize": 3}, TypeError, "minimize must be a name"),
        ({"minimize": "f", "noise": "some"}, ValueError, "noise of objective 'f' must be"),
        ({"minimize": "f", "noise": {"g": "none"}}, ValueError, "noise names 'g'"),
        ({"minimize": "f", "seed": 1.5}, TypeError, "seed must be an integer"),
        ({"minimize": "f", "seed": "1"}, TypeError, "seed must be an integer"),
        ({"minimize": "f", "n_start": 0}, ValueError, "n_start must be at least 1"),
        ({"minimize": "f", "n_start": 2.5}, TypeError, "n_start must be an integer"),
        ({"minimize": "f", "acquisition": "ei"}, ValueError, "log_ei, log_pi, ucb, mean"),
        ({"minimize": "f", "storage": 7}, TypeError, "storage must be None, a path"),
        ({"minimize": "f", "study": ""}, ValueError, "a study needs a name"),
    ],
    ids=str,
)
def test_a_senseless_setting_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        Optimizer(SPACE, **options)


@pytest.mark.parametrize("seed", [0, -7, 2**80, np.int64(3)])
def test_any_integer_is_a_seed(seed, tmp_path):
    for _ in range(2):
        with Optimizer(SPACE, minimize="f", seed=seed, storage=tmp_path / "s.db") as optimizer:
            assert optimizer.seed == int(seed)
            optimizer.ask()


def test_an_unknown_acquisition_is_refused_wherever_it_is_named():
    optimizer = optimizer_after(5)
    for look in (optimizer.acquisition, lambda name: optimizer.preview(acquisition=name)):
        with pytest.raises(ValueError, match="log_ei, log_pi, ucb, mean"):
            look("ei")


# --------------------------------------------------------------------------------------
# Objectives and spaces that are hard on numbers
# --------------------------------------------------------------------------------------

LARGEST = float(np.finfo(float).max)


@pytest.mark.parametrize(
    "f",
    [
        pytest.param(lambda x, k: 3.0, id="constant"),
        pytest.param(lambda x, k: 0.0, id="zero"),
        pytest.param(lambda x, k: float(k % 2), id="two values"),
        pytest.param(lambda x, k: 1e300 * (x - 0.3), id="1e300"),
        pytest.param(lambda x, k: -1e300 * x**2, id="-1e300"),
        pytest.param(lambda x, k: LARGEST * (-1) ** k, id="largest doubles"),
        pytest.param(lambda x, k: 1e-320 * x, id="smallest doubles"),
        pytest.param(lambda x, k: 10.0 ** (600 * x - 300), id="mixed scales"),
        pytest.param(lambda x, k: (-1) ** k * 10.0 ** (600 * x - 300), id="mixed signs"),
        pytest.param(lambda x, k: 1e16 + x, id="large offset"),
        pytest.param(lambda x, k: (x, 0.0), id="no error"),
        pytest.param(lambda x, k: (x, 1e200), id="huge errors"),
        pytest.param(lambda x, k: (1e300 * x, 1e299), id="errors as large as the values"),
        pytest.param(lambda x, k: (x, 0.1) if k % 2 else x, id="some errors"),
    ],
)
@pytest.mark.parametrize("noise", ["unknown", "none"])
def test_hard_numbers_are_explored_without_a_warning_or_a_repeat(f, noise):
    optimizer = Optimizer(
        {"x": Real(0, 1), "y": Real(0, 1)}, minimize="f", seed=1, n_start=5, noise=noise
    )
    for k in range(14):  # past the first checkpoint of the model
        trial = optimizer.ask()
        optimizer.tell(trial, f(trial.params["x"], k))
    rows = {tuple(t.params.values()) for t in optimizer.trials}
    assert len(rows) == 14
    recommended = optimizer.recommend()
    assert math.isfinite(recommended.value) and math.isfinite(recommended.uncertainty)
    assert optimizer.explain(13)


def test_a_constant_objective_is_explored_widely():
    optimizer = Optimizer({"x": Real(0, 1), "y": Real(0, 1)}, minimize="f", seed=0, n_start=4)
    for _ in range(16):
        optimizer.tell(optimizer.ask(), 1.0)
    rows = optimizer.space.encode_many([t.params for t in optimizer.trials])
    counts, *_ = np.histogram2d(*rows.T, bins=2, range=[[0, 1], [0, 1]])
    assert counts.min() >= 1
    distances = np.linalg.norm(rows[:, None] - rows, axis=-1)[np.triu_indices(16, 1)]
    assert distances.min() > 0.05


def test_integers_of_sixty_bits_are_searched_without_being_enumerated():
    optimizer = Optimizer({"n": Integer(0, 2**60)}, minimize="f", noise="none", seed=0)
    for _ in range(14):
        trial = optimizer.ask()
        assert type(trial.params["n"]) is int and 0 <= trial.params["n"] <= 2**60
        optimizer.tell(trial, abs(trial.params["n"] / 2**60 - 0.3))
    assert len({t.params["n"] for t in optimizer.trials}) == 14
    assert abs(optimizer.best.params["n"] / 2**60 - 0.3) < 0.05


def test_a_parameter_with_equal_bounds_is_fixed_and_the_others_are_searched():
    space = {"x": Real(0, 1), "fixed": Real(7, 7), "one": Categorical(["a"]), "n": Integer(3, 3)}
    optimizer = Optimizer(space, minimize="f", seed=0)
    for _ in range(10):
        trial = optimizer.ask()
        assert {**trial.params, "x": 0} == {"x": 0, "fixed": 7.0, "one": "a", "n": 3}
        optimizer.tell(trial, (trial.params["x"] - 0.2) ** 2)
    assert optimizer.best.params["x"] == pytest.approx(0.2, abs=0.05)


def test_a_range_of_three_doubles_is_used_up_like_any_finite_one():
    optimizer = Optimizer({"x": Real(1, 1 + 4e-16)}, minimize="f", seed=0)
    seen = []
    for _ in range(3):
        try:
            trial = optimizer.ask()
        except SpaceExhausted:
            break
        seen.append(trial.params["x"])
        optimizer.tell(trial, 1.0)
    assert 1 < len(set(seen)) == len(seen)
    with pytest.raises(SpaceExhausted, match="seems to be used up"):
        optimizer.ask()
