"""The JSON door, fuzzed: what was stored comes back, and what is damaged is refused by place."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbmmopt.problem import Constraint, Objective, Problem
from bbmmopt.space import Categorical, Integer, Linear, Nonlinear, Ordinal, Real, Simplex, Space
from bbmmopt.storage import MemoryStorage, StudyRecord
from bbmmopt.study import Study
from bbmmopt.trial import Trial, TrialState, dumps, from_json, loads, to_json
from tests.bbmmopt.fuzz import any_json, attempt, damaged, examples, nasty
from tests.bbmmopt.test_trial import TRIAL, same

SPACE = Space(
    {
        "x": Real(0, 1),
        "y": Real(0, 1),
        "C": Real(1e-3, 1e3, log=True),
        "n": Integer(1, 9, step=2),
        "m": Integer(1, 100, log=True),
        "kernel": Categorical(["rbf", "poly", 3]),
        "size": Ordinal([8, 16, 64], when={"kernel": ["rbf", 3]}),
        "deep": Real(0, 1, when={"size": 8}),
    },
    [
        Linear({"x": 1.0, "n": -0.5}, at_most=0.0),
        Simplex(["x", "y"], total=1.0),
        Nonlinear("disc", lambda params: 1.0),
    ],
)
PROBLEM = Problem(
    SPACE,
    (Objective("f", "minimize"), Objective("g", "maximize", "none")),
    (Constraint("c", 200.0), Constraint("d", 0.5, ">=")),
    {"f": 1.0, "g": 0.0},
)
RECORD = StudyRecord(
    "default",
    PROBLEM.to_json(),
    7,
    {"n_start": 5, "acquisition": "auto", "strategy": "auto", "batches": "greedy", "budget": 9},
)


@given(any_json)
@examples(200)
def test_notes_of_a_trial_survive_its_json_and_a_storage(value):
    trial = replace(TRIAL, attrs={"note": value}, origin={"$": value})
    again = Trial.from_json(json.loads(json.dumps(trial.to_json(), allow_nan=False)))
    assert same(again.attrs["note"], value) and same(again.origin["$"], value)
    storage = MemoryStorage()
    storage.create_study(StudyRecord("s", {"p": value}, 0))
    assert same(storage.study("s").problem["p"], value)
    assert same(storage.add_next("s", trial).attrs["note"], value)


@given(nasty, st.integers(0, 200))
@examples(150)
def test_what_is_nested_comes_back_or_is_refused_by_place(value, levels):
    for k in range(levels):
        value = [value] if k % 2 else {"$a": value}
    text, refused = attempt(lambda: dumps(value, "notes"), ValueError)
    if refused is None:
        assert same(loads(text), value)
        assert levels <= 100
    else:
        assert refused.startswith("notes")
        assert levels > 90


@given(st.text('{}[]",:$float.naif0123456789eE+- \\ud', max_size=40) | st.text(max_size=30))
@examples(300)
def test_any_text_is_read_or_a_value_error(text):
    value, refused = attempt(lambda: loads(text), ValueError)
    assert refused or same(loads(dumps(value)), value)


def test_json_that_nests_for_ever_is_refused_by_place_and_not_by_the_stack():
    endless: list = []
    endless.append({"again": endless})
    for write in (to_json, dumps):
        with pytest.raises(
            ValueError, match=r"^notes\[0\]\['again'\].* too deeply, or holds itself"
        ):
            write(endless, "notes")
    with pytest.raises(ValueError, match="nested too deeply"):
        loads("[" * 100_000)


@pytest.mark.parametrize("number", ["junk", [1], 10**400, None, "1.5", {}])
def test_a_float_that_no_trial_was_stored_with_is_refused(number):
    with pytest.raises(ValueError, match='must hold "nan", "inf" or "-inf"'):
        from_json({"$float": number})


# --------------------------------------------------------------------------------------
# Damaged documents
# --------------------------------------------------------------------------------------


@given(damaged(TRIAL.to_json()))
@examples(400)
def test_a_damaged_trial_is_read_or_refused_by_its_field(data):
    trial, refused = attempt(lambda: Trial.from_json(data), ValueError)
    if refused is not None:
        assert "trial" in refused
        return
    assert type(trial.number) is int and isinstance(trial.state, TrialState)
    assert repr(Trial.from_json(trial.to_json())) == repr(trial)
    _ = trial.duration, trial.state.finished


@given(damaged(SPACE.to_json()), st.lists(st.floats(0, 1), min_size=8, max_size=8))
@examples(600)
def test_a_damaged_space_works_or_is_refused_by_its_place(data, row):
    space, refused = attempt(lambda: Space.from_json(data), ValueError)
    if refused is None:
        works(space, row)
    else:
        assert any(word in refused for word in ("parameter", "constraint", "space"))


def works(space: Space, row: list[float]) -> None:
    """Whatever a space is for."""
    again = Space.from_json(json.loads(dumps(space.to_json())))
    assert again == space and not again.difference(space) and repr(again) == repr(space)
    U = space.snap(np.resize(row, len(space)))
    params = space.decode(U)
    linear = Space(space.parameters, [c for c in space.constraints if not isinstance(c, Nonlinear)])
    assert linear.validate(params, outside=True) == params
    assert linear.satisfies(params) == linear.feasible(U[None])[0]
    assert np.isfinite(space.encode(params)).all()
    assert space.arguments(params) == params
    assert space.size is None or space.size >= 1


@given(damaged(PROBLEM.to_json()))
@examples(400)
def test_a_damaged_problem_works_or_is_refused_by_its_place(data):
    problem, refused = attempt(lambda: Problem.from_json(data), ValueError)
    if refused is not None:
        words = ("parameter", "constraint", "space", "objective", "reference_point", "problem")
        assert any(word in refused for word in words)
        return
    again = Problem.from_json(json.loads(dumps(problem.to_json())))
    assert not again.difference(problem)
    told = {part.name: 1 for part in (*problem.objectives, *problem.constraints)}
    outcome = problem.check_values(told)
    trial = Trial(0, {}, TrialState.COMPLETE, outcome.values, {}, outcome.constraints)
    assert problem.is_feasible(trial) in (True, False)
    assert len(problem.pareto_front_of([trial])) <= 1
    assert problem.from_model(problem.to_model(outcome.values)) == outcome.values


@given(damaged(RECORD.problem | {"settings": RECORD.settings}))
@examples(200)
def test_a_study_with_a_damaged_record_opens_or_is_refused(data):
    settings = data.pop("settings", {}) if isinstance(data, dict) else {}
    storage = MemoryStorage()
    record = replace(RECORD, problem=data, settings=settings)
    _, refused = attempt(lambda: storage.create_study(record), ValueError)
    if refused is None:
        study, refused = attempt(lambda: Study.open(storage), ValueError)
        assert refused or (study.trials == [] and repr(study))
