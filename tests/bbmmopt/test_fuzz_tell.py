"""The doors of a study, fuzzed: what is no value or no point changes nothing."""

import datetime
import math
from collections import OrderedDict, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bbmmopt.optimizer import Optimizer
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from bbmmopt.study import Study
from bbmmopt.trial import Trial, TrialState
from tests.bbmmopt.fuzz import attempt, examples, nasty

SPACE = Space(
    {
        "x": Real(0, 1),
        "C": Real(1e-3, 1e3, log=True),
        "n": Integer(0, 10, step=2),
        "m": Integer(1, 2**60, log=True),
        "kernel": Categorical(["rbf", "poly", 3, True]),
        "net": Categorical({"small": [1], "none": None}),
        "size": Ordinal([8, 16, 64], when={"kernel": "rbf"}),
    }
)
POINT = {"x": 0.5, "C": 1.0, "n": 4, "m": 7, "kernel": "rbf", "net": "small", "size": 8}

Pair = namedtuple("Pair", "mean error")


class Word(Enum):
    A = 1


class Level(IntEnum):
    TWO = 2


class Strange:
    """Has an `item`, and is no number."""

    def item(self) -> object:
        return self


ODD: list[Any] = [
    *(10**400, -(10**400), 5e-324, -0.0, 1e308, math.nan, math.inf, -math.inf, True, False),
    *(Decimal("0.5"), Decimal("nan"), Fraction(1, 3), Fraction(10**400, 3), 1j, b"1", "0.5", ""),
    *("\ud800", None, Ellipsis, object(), float, len, Word.A, Level.TWO, Strange(), range(1)),
    *(datetime.timedelta(1), datetime.datetime(2020, 1, 1), iter([1.0]), {1.0}, frozenset()),
    *(np.timedelta64(5, "ns"), np.datetime64("2020-01-01", "ns"), np.ma.masked, np.bool_(True)),
    *(np.ma.masked_array([1.0], mask=[True]), np.ma.masked_array([1.0], mask=[False])),
    *(np.float16(2), np.longdouble(2), np.str_("a"), np.array(None), np.array(["1"]), np.array([])),
    *(np.zeros((1, 1, 1)), np.zeros((0, 3)), np.zeros((2, 1)), np.array([10**400], dtype=object)),
    *(torch.tensor(1.5), torch.ones(1, 1, requires_grad=True), torch.ones(2), torch.tensor(1j)),
    *(torch.tensor(1.0, device="meta"), torch.tensor([True]), torch.ones(1, dtype=torch.bfloat16)),
    *(pd.NaT, pd.NA, pd.Series([1.0]), pd.Series([1.0, 2.0]), pd.DataFrame([[1.0]])),
    *((), (1.0,), (1.0, 2.0), (1.0, -1.0), (1.0, math.nan), (1.0, None), (1, 2, 3), ((1, 2), 3)),
    *([], [1.0], [1.0, 2.0], Pair(1.0, 0.5), {}, {"f": 1.0}, {"f": (1.0, 0.1)}, {"f": {"f": 1.0}}),
    *({"g": 1.0}, {1: 2}, {"f": 1.0, "g": 1.0}, OrderedDict(f=2.0), {"f": [10**400]}, {None: 1}),
]
odd = (
    st.sampled_from(ODD)
    | nasty
    | st.floats()
    | st.integers()
    | st.fractions()
    | st.decimals()
    | st.complex_numbers()
    | st.binary(max_size=3)
    | hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, max_side=2))
    | st.tuples(st.floats() | st.sampled_from(ODD), st.floats() | st.sampled_from(ODD))
    | st.dictionaries(st.sampled_from(["f", "g", "F", "", 1]), st.floats() | st.sampled_from(ODD))
)


def number_in(value: Any) -> float | None:
    """The number that somebody would see in a value; None where there is none."""
    if isinstance(value, bool | int | float | Fraction):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        return None
    if isinstance(value, pd.DataFrame):
        return None  # a table
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex() or value.is_meta:
            return None
        return float(value.detach().double().reshape(()))
    if isinstance(value, np.ndarray | np.generic | pd.Series):
        flat = np.asarray(value).ravel()
        if flat.dtype == object and len(flat) == 1:
            return number_in(flat[0])
        return float(flat[0]) if len(flat) == 1 and flat.dtype.kind in "biuf" else None
    return None


def outcome_in(value: Any) -> tuple[float, float | None] | None:
    """Mean and standard error that somebody would see in what is told of one objective, "f"."""
    if isinstance(value, dict):
        return outcome_in(value["f"]) if set(value) == {"f"} and _is_flat(value["f"]) else None
    if isinstance(value, tuple):
        if len(value) != 2 or (mean := number_in(value[0])) is None:
            return None
        if value[1] is None:
            return mean, None
        error = number_in(value[1])
        return (mean, error) if error is not None and 0 <= error < math.inf else None
    number = number_in(value)
    return None if number is None else (number, None)


def _is_flat(value: Any) -> bool:
    return not isinstance(value, dict)


def a_study(**options: Any) -> Study:
    return Study(SPACE, seed=0, **({"minimize": "f"} | options))


def stored(study: Study) -> object:
    """All there is in the storage."""
    trials, revision = study.storage.changes(study.study)
    return revision, repr(trials), repr(study.events())


@given(odd)
@examples(600)
def test_what_is_told_of_one_objective_is_kept_or_nothing_changes(value):
    study = a_study()
    trial = study.enqueue(POINT)
    before, seen = stored(study), outcome_in(value)
    told, refused = attempt(lambda: study.tell(trial, value))
    if refused is not None:
        assert refused.startswith("trial 0: ") and len(refused) < 2000
        assert seen is None or seen[0] == -math.inf
        assert stored(study) == before
        assert study.tell(trial, 0.5).value == 0.5
        return
    assert seen is not None
    if math.isfinite(seen[0]):
        assert (told.value, told.standard_errors["f"]) == seen
        assert type(told.value) is float and math.copysign(1, told.value) == math.copysign(
            1, seen[0]
        )
    else:
        assert told.state == TrialState.FAILED and told.reason
    assert study.trials == [told]


parts = st.dictionaries(
    st.sampled_from(["f", "g", "c", "h", ""]),
    st.floats(-10, 10) | st.floats(-10, 10) | st.sampled_from(ODD),
)


@given(parts | odd, st.none() | parts | odd)
@examples(400)
def test_several_outcomes_are_told_by_their_names_or_nothing_changes(value, constraints):
    study = a_study(minimize=["f", "g"], constraints="c <= 1")
    trial = study.enqueue(POINT)
    before = stored(study)
    told, refused = attempt(lambda: study.tell(trial, value, constraints=constraints))
    if refused is not None:
        assert refused.startswith("trial 0: ")
        assert stored(study) == before
        assert study.tell(trial, {"f": 1.0, "g": 2.0}, constraints={"c": 0.0}).values
        return
    if told.state == TrialState.COMPLETE:
        given = {**value, **(constraints or {})}
        assert set(given) == {"f", "g", "c"}
        assert told.values == {name: outcome_in(given[name])[0] for name in ("f", "g")}
        assert told.constraints == {"c": number_in(given["c"])}


@given(st.sampled_from(["failed", "pruned"]), odd, st.none() | st.floats())
@examples(150)
def test_a_reason_is_a_text_and_comes_alone(how, reason, value):
    study = a_study()
    study.enqueue(POINT)
    before = stored(study)
    told, refused = attempt(lambda: study.tell(0, value, **{how: reason}))
    if reason is None:
        assert (told is None) == (value is None or value == -math.inf)
    elif isinstance(reason, str) and reason and value is None:
        assert told.state == how and told.reason == reason
    else:
        assert refused is not None and refused.startswith("trial 0: ")
        assert stored(study) == before


@given(odd | st.builds(Trial, odd, st.sampled_from([POINT, {}, {"x": np.zeros(2)}])))
@examples(200)
def test_what_is_no_trial_is_told_nothing(trial):
    study = a_study()
    study.enqueue(POINT)
    before = stored(study)
    number = trial.number if isinstance(trial, Trial) else trial
    is_known = type(number) is int and number == 0
    uses = (study.tell, lambda t, _: study.set_attrs(t, {}), lambda t, v: study.report(t, 0, v))
    for use in uses:
        _, refused = attempt(lambda use=use: use(trial, 1.0))
        assert is_known if refused is None else stored(study) == before
        if refused is None:
            break


@given(odd, odd)
@examples(150)
def test_what_is_no_report_or_note_changes_nothing(step, value):
    study = a_study()
    trial = study.enqueue(POINT)
    before = stored(study)
    _, refused = attempt(lambda: study.report(trial, step, value))
    if refused is None:
        ((kept,),) = [curve.items() for curve in study.curves.values()]
        assert kept[0] == step and repr(kept[1]) == repr(number_in(value))
    else:
        assert "trial 0" in refused
        assert stored(study) == before and study.curves == {}
    before = stored(study)
    _, refused = attempt(lambda: study.set_attrs(0, {"note": value}))
    if refused is not None:
        assert "note" in refused
        assert stored(study) == before


@given(odd)
@examples(60)
def test_another_value_than_the_first_is_refused_with_both_and_the_first_is_kept(value):
    study = a_study()
    first = study.tell(study.enqueue(POINT), 0.125)
    seen = outcome_in(value)
    again, refused = attempt(lambda: study.tell(0, value))
    if seen is None or seen[0] == -math.inf:
        assert refused is not None
    elif seen == (0.125, None):
        assert again == first
    else:
        assert refused is not None and "0.125" in refused
    assert study.trials == [first]


# --------------------------------------------------------------------------------------
# Points
# --------------------------------------------------------------------------------------

values = st.sampled_from(ODD) | st.sampled_from([*POINT.values(), 3, 2.0, 0, 64]) | nasty


@st.composite
def points(draw: Any) -> Any:
    """A point with one to three mistakes, most often."""
    point: dict[Any, Any] = dict(POINT)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([*POINT, *POINT, "kernle", "", 3]))
        if draw(st.booleans()):
            point[name] = draw(values)
        else:
            point.pop(name, None)
    return point


@given(points() | odd, st.booleans(), odd)
@examples(500)
def test_a_point_is_taken_as_it_is_or_nothing_is_recorded(point, outside, value):
    study, seen = a_study(), outcome_in(value)
    for door, add in {
        "enqueue": lambda: study.enqueue(point),
        "add_trial": lambda: study.add_trial(point, value, outside=outside),
    }.items():
        before = stored(study)
        trial, refused = attempt(add)
        if refused is not None:
            assert stored(study) == before
            # A wrong value of an added trial has no number to name yet.
            assert refused.startswith(f"{door}: ") or seen is None or seen[0] == -math.inf
            continue
        assert trial.params == {name: point[name] for name in trial.params}
        assert set(trial.params) == set(point)
        assert all(type(v) in (int, float, str, bool) for v in trial.params.values())
        assert np.isfinite(SPACE.encode(trial.params)).all() or outside
        inside = SPACE.validate_partial(trial.params, outside=outside)
        assert inside == trial.params
    assert [t.number for t in study.trials] == list(range(len(study.trials)))


@pytest.fixture(scope="module")
def asked() -> Optimizer:
    """An optimizer in its start, where suggestions take no time."""
    return Optimizer(SPACE, minimize="f", seed=0, n_start=10**6)


@given(points() | odd)
@examples(120)
def test_fixed_values_are_those_of_the_suggestion_or_nothing_is_recorded(asked, point):
    before, following = stored(asked), asked.preview()
    suggested, refused = attempt(lambda: asked.preview(fixed=point))
    if refused is None:
        assert {name: suggested.params[name] for name in point or {}} == dict(point or {})
    else:
        assert refused.startswith("preview(fixed=…): ")
        _, again = attempt(lambda: asked.ask(fixed=point))
        assert again == refused.replace("preview", "ask", 1)
        assert stored(asked) == before and asked.preview() == following
