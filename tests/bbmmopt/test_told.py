"""What trials say, kept up trial by trial, is what putting it together at once would give."""

import math
import random

import numpy as np
import pytest

from bbmmopt.former import Former
from bbmmopt.problem import Problem
from bbmmopt.space import Real, Space
from bbmmopt.strategies import Past, Told
from bbmmopt.trial import Trial, TrialState

SPACE = Space({"x": Real(0, 1), "y": Real(-1, 1)})
PROBLEM = Problem.make(SPACE, minimize="f", maximize="g", constraints=["c <= 2"])


def a_trial(number: int, draws: random.Random) -> Trial:
    """A trial in any state."""
    state = draws.choice(list(TrialState))
    told = {}
    if state == TrialState.COMPLETE:
        told = {
            "values": {"f": draws.random(), "g": draws.random()},
            "standard_errors": {"f": draws.choice([None, 0.5])},
            "constraints": {"c": 4 * draws.random()} if draws.random() < 0.8 else {},
        }
    params = {"x": draws.random(), "y": draws.uniform(-1, 1)}
    times = {"started": 5.0, "finished": 5.0 + draws.choice([0, 2])} if state.finished else {}
    return Trial(number, params, state, origin={"n": number}, **times, **told)


@pytest.mark.parametrize("seed", range(5))
def test_in_whatever_order_and_however_often_trials_come(seed):
    draws = random.Random(seed)
    told, trials = Told(PROBLEM), {}
    for _ in range(80):
        number = draws.randrange(40)
        params = trials[number].params if number in trials else None
        trial = a_trial(number, draws)
        if params is not None:
            before = trials[number]
            if before.state.finished:
                continue
            trial = Trial(**{**vars(trial), "params": params, "arguments": {}})
        trials[number] = trial
        told.learn(trial, SPACE.encode(trial.params))
    numbers = sorted(trials)
    assert told.numbers[told.order].tolist() == numbers
    for state in TrialState:
        slots = told.of(state)
        mine = [trials[k] for k in numbers if trials[k].state == state]
        assert told.numbers[slots].tolist() == [trial.number for trial in mine]
        rows = [SPACE.encode(trial.params) for trial in mine]
        assert told.rows[slots].tolist() == [row.tolist() for row in rows]
    complete = [trials[k] for k in numbers if trials[k].state == TrialState.COMPLETE]
    slots = told.of(TrialState.COMPLETE)
    assert told.values[slots].tolist() == [[-t.values["f"], t.values["g"]] for t in complete]
    expected = [[t.standard_errors["f"] or math.nan, math.nan] for t in complete]
    np.testing.assert_array_equal(told.errors[slots], expected)
    expected = [[2 - t.constraints["c"] if t.constraints else math.nan] for t in complete]
    np.testing.assert_array_equal(told.margins[slots], expected)
    assert told.seconds[slots].tolist() == [t.finished - t.started for t in complete]
    every = {SPACE.encode(trial.params).tobytes() for trial in trials.values()}
    failed = [t for t in trials.values() if t.state == TrialState.FAILED]
    assert told.seen(repeats=False) == every
    assert told.seen(repeats=True) == {SPACE.encode(t.params).tobytes() for t in failed}


def test_the_past_says_of_each_trial_how_it_came_about_and_ended():
    told = Told(PROBLEM)
    states = {3: "running", 1: "complete", 2: "failed", 0: "waiting"}
    for number, state in states.items():
        values = {"f": 1.0, "g": 2.0} if state == "complete" else None
        trial = Trial(
            number, {"x": number / 4, "y": 0.0}, state, values=values, origin={"n": number}
        )
        told.learn(trial, SPACE.encode(trial.params))
    past = told.past(told.of(TrialState.COMPLETE), told.of(TrialState.FAILED))
    outcomes = ["pending", "complete", "failed", "pending"]
    expected = [Past(outcome, {"n": n}) for n, outcome in enumerate(outcomes)]
    assert list(past) == [*past] == past[:] == expected
    assert (past[-1], past[1:3], len(past)) == (expected[-1], expected[1:3], 4)
    with pytest.raises(IndexError):
        past[4]


def test_rows_from_far_outside_are_moved_in_but_not_mistaken_for_others():
    told = Told(PROBLEM)
    far = np.array([1e9, 0.5])
    told.learn(Trial(0, {"x": 1e9, "y": 0.0}), far)
    assert told.rows[told.order].tolist() == [[21.0, 0.5]]
    assert told.seen(repeats=False) == {far.tobytes()}
    assert told.outside(told.order) is None
    extended = Told(PROBLEM, Former(SPACE, extended=True))
    for number, x in enumerate([0.5, 1.5]):
        extended.learn(Trial(number, {"x": x, "y": 0.0}), np.array([x, 0.5]))
    assert extended.outside(extended.order).tolist() == [False, True]
