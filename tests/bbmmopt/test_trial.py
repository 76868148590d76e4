"""Facts about Trial and the strict JSON it is stored as."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbmmopt.trial import Trial, TrialState, dumps, from_json, loads, to_json

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("$ab\ud800é") | st.text(), inner),
    max_leaves=20,
)


def same(a: object, b: object) -> bool:
    """Equality that knows nan from 1, 1 from 1.0 and 1.0 from True."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return a == b


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@given(any_json)
@settings(deadline=None, derandomize=True, database=None)
def test_any_value_survives_strict_json(value):
    text = dumps(value)
    json.loads(text, parse_constant=refuse)
    assert text.isascii()
    assert same(loads(text), value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        2**200,
        "naïve 🎉 \ud800 \x00",
        {"$float": "nan"},
        {"$$": {"$float": 1}, "$": 2},
        {"a": [math.nan, {"b": math.inf}]},
    ],
    ids=repr,
)
def test_values_that_json_cannot_write_survive(value):
    again = loads(dumps(value))
    assert same(again, value)
    assert str(again) == str(value)  # tells -0.0 from 0.0


def test_numpy_scalars_and_tuples_become_plain():
    value = {"n": np.int64(3), "x": np.float64(0.5), "b": np.bool_(True), "t": (1, np.float32(2))}
    assert same(to_json(value), {"n": 3, "x": 0.5, "b": True, "t": [1, 2.0]})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b"}]}, r"notes\['a'\]\[1\] is {'b'} \(set\)"),
        ({"a": {3: 1}}, r"notes\['a'\] has the key 3"),
        (b"bytes", r"notes is b'bytes' \(bytes\)"),
        (np.zeros(2), r"notes is array"),
        (np.datetime64(0, "s"), "notes"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value, message):
    with pytest.raises(TypeError, match=message):
        to_json(value, "notes")


def test_json_shares_nothing_with_the_value():
    value = {"a": [1, {"b": 2}]}
    for copy in (to_json(value), from_json(value)):
        copy["a"][1]["b"] = 3
    assert value == {"a": [1, {"b": 2}]}


TRIAL = Trial(
    number=7,
    params={"x": 0.5, "n": 2**60, "kernel": "rbf", "flag": True},
    state=TrialState.COMPLETE,
    values={"error": 0.25},
    standard_errors={"error": None},
    constraints={"memory": -1.5},
    reason=None,
    created=100.0,
    started=101.5,
    finished=104.0,
    attrs={"note": "été", "best": math.inf},
    origin={"phase": "model", "acquisition": "LogEI", "value": -3.5},
    worker="w-1",
    lease_until=200.0,
)


def test_a_trial_survives_json():
    text = json.dumps(TRIAL.to_json(), allow_nan=False)
    assert Trial.from_json(json.loads(text)) == TRIAL


def test_a_trial_written_by_an_older_version_lacks_fields_and_can_be_read():
    trial = Trial.from_json({"number": 0, "params": {"x": 1}, "state": "waiting"})
    assert trial == Trial(0, {"x": 1}, TrialState.WAITING)


def test_states_equal_plain_strings_and_unknown_ones_are_refused():
    assert Trial(0, {}, "pruned").state is TrialState.PRUNED  # pyright: ignore[reportArgumentType]
    assert TrialState.RUNNING == "running"
    assert [state for state in TrialState if state.finished] == ["complete", "failed", "pruned"]
    with pytest.raises(ValueError, match="'done' is not a valid TrialState"):
        Trial(0, {}, "done")  # pyright: ignore[reportArgumentType]


def test_the_value_is_that_of_the_only_objective():
    assert TRIAL.value == 0.25
    assert Trial(0, {}).value is None
    with pytest.raises(ValueError, match=r"trial 7 has 2 values.*'a', 'b'"):
        _ = replace(TRIAL, values={"a": 1.0, "b": 2.0}).value


def test_the_duration_is_known_at_the_end():
    assert TRIAL.duration == 2.5
    assert replace(TRIAL, finished=None).duration is None


def test_arguments_are_the_params_unless_there_are_objects():
    assert Trial(0, {"x": 1}).arguments == {"x": 1}
    trial = Trial(0, {"net": "a"}, arguments={"net": [1, 2]})
    assert trial == Trial(0, {"net": "a"})
    assert trial.arguments == {"net": [1, 2]}
    assert "arguments" not in repr(trial)
    assert "arguments" not in trial.to_json()


def test_a_trial_does_not_change():
    with pytest.raises(FrozenInstanceError):
        TRIAL.number = 8  # pyright: ignore[reportAttributeAccessIssue]
