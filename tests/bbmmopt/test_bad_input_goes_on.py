"""After bad input an optimizer goes on as before; what is far outside or damaged harms nobody."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bbmmopt.optimizer import Optimizer
from bbmmopt.prior import Near
from bbmmopt.space import Categorical, Integer, Linear, Real, Simplex, Space
from bbmmopt.storage import MemoryStorage
from bbmmopt.study import Study
from bbmmopt.trial import TrialState
from tests.bbmmopt.fuzz import attempt

SPACE = {
    "x": Real(0, 1),
    "n": Integer(0, 2**60),
    "net": Categorical({"small": [1], "none": None}),
}
POINT = {"x": 0.5, "n": 7, "net": "small"}


def after(n: int, **options) -> Optimizer:
    """An optimizer whose model has taken over, once a few trials were told."""
    optimizer = Optimizer(SPACE, minimize="f", seed=0, n_start=4, **options)
    for _ in range(n):
        trial = optimizer.ask()
        optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2 + (trial.params["net"] == "none"))
    return optimizer


REFUSED = {
    "no number": lambda o, t: o.tell(t, "0.5"),
    "nothing": lambda o, t: o.tell(t),
    "the impossible infinity": lambda o, t: o.tell(t, -math.inf),
    "too large": lambda o, t: o.tell(t, 10**5000),
    "a time span": lambda o, t: o.tell(t, np.timedelta64(5, "ns")),
    "a masked value": lambda o, t: o.tell(t, np.ma.masked_array([1.0], mask=[True])),
    "another name": lambda o, t: o.tell(t, {"g": 1.0}),
    "a negative error": lambda o, t: o.tell(t, (1.0, -1.0)),
    "a constraint there is not": lambda o, t: o.tell(t, 1.0, constraints={"c": 1.0}),
    "constraints without names": lambda o, t: o.tell(t, 1.0, constraints=[1.0]),
    "two outcomes": lambda o, t: o.tell(t, 1.0, failed="no"),
    "no reason": lambda o, t: o.tell(t, failed=np.array(["a", "b"])),
    "an unknown trial": lambda o, t: o.tell(99, 1.0),
    "a time span for a number": lambda o, t: o.tell(np.timedelta64(5, "ns"), 1.0),
    "another outcome of a trial told": lambda o, t: o.tell(0, 77.0),
    "other params": lambda o, t: o.tell(replace(t, params=POINT), 1.0),
    "a typo": lambda o, t: o.enqueue({"X": 0.5, "n": 7, "net": "small"}),
    "out of bounds": lambda o, t: o.enqueue(POINT | {"x": 1.5}),
    "an object for its label": lambda o, t: o.enqueue(POINT | {"net": [1]}),
    "a bad result": lambda o, t: o.add_trial(POINT, None),
    "a point in no space": lambda o, t: o.ask(fixed={"n": -1}),
    "an empty list": lambda o, t: o.ask(fixed=[]),
    "no trials": lambda o, t: o.ask(0),
    "no worker": lambda o, t: o.ask(worker=""),
    "a worker that cannot be stored": lambda o, t: o.ask(worker="\ud800"),
    "no step": lambda o, t: o.report(t, np.timedelta64(5, "ns"), 1.0),
    "a note that is no JSON": lambda o, t: o.set_attrs(t, {"a": {1}}),
    "an endless integer": lambda o, t: o.set_attrs(t, {"a": 10**5000}),
}


def test_refused_input_changes_no_suggestion_and_the_trial_can_still_be_told():
    optimizer, twin = after(6), after(6)
    trial, same = optimizer.ask(), twin.ask()
    before = repr(optimizer.storage.changes("default")[0])
    for what, action in REFUSED.items():
        _, refused = attempt(lambda action=action: action(optimizer, trial))
        assert refused, what
        assert optimizer.trials[6].state == TrialState.RUNNING, what
        assert repr(optimizer.storage.changes("default")[0]) == before, what
    assert optimizer.tell(trial, 0.5).value == twin.tell(same, 0.5).value
    for _ in range(2):
        trial, same = optimizer.ask(), twin.ask()
        assert trial.params == same.params and trial.origin == same.origin
        optimizer.tell(trial, 0.25), twin.tell(same, 0.25)


# --------------------------------------------------------------------------------------
# Data from far outside
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [31.0, 1e10, -1e200, 1.7e308])
def test_a_point_told_from_far_outside_is_kept_and_the_search_goes_on(x):
    optimizer = Optimizer({"x": Real(0, 1), "y": Real(0, 1)}, minimize="f", seed=0, n_start=3)
    optimizer.add_trial({"x": x, "y": 0.5}, 1.0, outside=True)
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2 + (trial.params["y"] - 0.6) ** 2)
    assert optimizer.trials[0].params["x"] == x
    assert len({tuple(t.params.values()) for t in optimizer.trials}) == 7
    assert math.isfinite(optimizer.recommend().value)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Integer(0, 5), 10**400),
        (Integer(0, 5), -(10**400)),
        (Integer(1, 5, log=True), 10**400),
        (Real(0, 1e-300), 1e308),
        (Real(1, 1 + 1e-10, log=True), 1e308),
    ],
    ids=str,
)
def test_what_has_no_finite_place_is_kept_and_the_search_goes_on(parameter, value):
    optimizer = Optimizer({"p": parameter, "y": Real(0, 1)}, minimize="f", seed=0, n_start=2)
    assert optimizer.add_trial({"p": value, "y": 0.5}, 1.0, outside=True).params["p"] == value
    for k in range(4):
        trial = optimizer.ask()
        parameter.checked().check(trial.params["p"])
        optimizer.tell(trial, float(k))
    assert optimizer.trials[0].params["p"] == value


# --------------------------------------------------------------------------------------
# Spaces
# --------------------------------------------------------------------------------------

WIDE = {"a": Real(0, 1e308), "b": Real(0, 1e308)}


@pytest.mark.parametrize(
    ("parameters", "constraints", "words"),
    [
        (WIDE, [Linear({"a": 1, "b": 1}, at_most=3)], "constraint.*terms must not overflow"),
        (WIDE, [Linear({"a": 1e308}, at_least=3)], "constraint.*terms must not overflow"),
        (WIDE, [Simplex(1.0)], "constraint Simplex.*names must be a list"),
        ({"n": Integer(10**400, 10**400 + 5)}, [], "'n': low must be below 1.8e308"),
        ({"n": Integer(0, 10**5000)}, [], "'n': high must be below 1.8e308.*got <int>"),
    ],
    ids=["sum", "product", "names", "low", "high"],
)
def test_numbers_beyond_all_doubles_are_refused_by_their_place(parameters, constraints, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Space(parameters, constraints)


def test_conditions_on_conditions_take_no_time():
    space = {"a0": Integer(0, 1), "b0": Integer(0, 1)}
    for i in range(1, 200):
        when = {f"a{i - 1}": [0, 1], f"b{i - 1}": [0, 1]}
        space |= {f"{c}{i}": Integer(0, 1, when=when) for c in "ab"}
    # A walk along every path would not end.
    assert Space(space, [Linear({"a199": 1.0}, at_most=0)]).satisfies(dict.fromkeys(space, 0))


# --------------------------------------------------------------------------------------
# Damaged records
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"n_start": "a"}, "n_start must be an integer"),
        ({"n_start": None}, "n_start is missing"),
        ({"budget": 10**400}, "budget must be at most"),
        ({"strategy": "junk"}, "strategy must be one of"),
        ({"acquisition": ["log_ei"]}, "acquisition must be one of"),
        ({"prior": {"x": {"near": 9, "spread": 1}}}, "parameter 'x': 9 is outside"),
        ({"prior": {"net": {"weights": [1.0]}}}, "parameter 'net'.*cannot be read"),
        ({"prior": [1]}, "prior must be a JSON object"),
        ({"perturbation": {"y": 1.0}}, "unknown parameter 'y'"),
        ({"risk": 2}, "risk must be"),
    ],
    ids=str,
)
def test_a_study_with_damaged_settings_is_refused_by_the_setting(damage, words):
    storage = MemoryStorage()
    record = Study(SPACE, minimize="f", seed=0, storage=MemoryStorage()).storage.study("default")
    storage.create_study(replace(record, settings=record.settings | damage))
    with pytest.raises(ValueError, match=f"stored of study 'default' is damaged: .*{words}"):
        Study.open(storage)


def test_settings_with_a_prior_open_again():
    prior = {"x": Near(0.5, spread=0.1), "net": {"small": 2.0}}
    storage = MemoryStorage()
    settings = Study(SPACE, minimize="f", seed=0, prior=prior, storage=storage).settings
    assert Study.open(storage).settings == settings
