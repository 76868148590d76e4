"""Facts about constraints of a space: what they mean, messages at the door, JSON."""

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bbmmopt
from bbmmopt.space import Categorical, Integer, Linear, Nonlinear, Ordinal, Real, Simplex, Space

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")

PARAMETERS = {
    "a": Real(0, 1),
    "b": Real(0, 2),
    "log": Real(1e-3, 10, log=True),
    "n": Integer(0, 9),
    "even": Integer(0, 20, step=2),
    "fixed": Real(3, 3),
    "k": Categorical(["x", "y"]),
    "size": Ordinal([1, 2, 4]),
    "child": Real(0, 1, when={"k": "x"}),
    "always": Real(0, 1, when={"k": ["x", "y"]}),
}


def space(*constraints, **more) -> Space:
    return Space(PARAMETERS | more, constraints)


def point(**changes) -> dict:
    start = {
        "a": 0.5, "b": 0.5, "log": 0.1, "n": 3, "even": 4, "fixed": 3.0, "k": "y", "size": 2,
        "always": 0.5,
    }  # fmt: skip
    return start | changes


# --------------------------------------------------------------------------------------
# What they mean
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "good", "bad", "sentence"),
    [
        (
            Linear({"a": 1, "b": 2}, at_most=3),
            {"b": 1.25},
            {"b": 1.5},
            "a + 2 b must be at most 3; it is 3.5 (a = 0.5, b = 1.5).",
        ),
        (
            Linear({"n": 1, "a": -0.5}, at_least=2),
            {"n": 3},
            {"n": 2},
            "-0.5 a + n must be at least 2; it is 1.75 (a = 0.5, n = 2).",
        ),
        (
            Linear({"a": 1, "n": 0.1}, at_least=0.5, at_most=1),
            {},
            {"a": 0.9},
            "a + 0.1 n must be between 0.5 and 1; it is 1.2 (a = 0.9, n = 3).",
        ),
        (
            Simplex(["a", "b"]),
            {"b": 0.5000005},
            {"b": 0.51},
            "a + b must be 1; it is 1.01 (a = 0.5, b = 0.51).",
        ),
        (
            Linear({"log": 1, "fixed": 1}, equals=3.1),
            {},
            {"log": 0.2},
            "log + fixed must be 3.1; it is 3.2 (log = 0.2, fixed = 3.0).",
        ),
        (
            Nonlinear("disc", lambda p: 1 - p["a"] ** 2 - p["b"] ** 2),
            {},
            {"b": 1.0},
            "constraint 'disc' must be at least 0; it is -0.25.",
        ),
        (
            Nonlinear("child", lambda p: p.get("child", 0.0) - 0.5 if p["k"] == "x" else 0),
            {"k": "x", "child": 0.6},
            {"k": "x", "child": 0.4},
            "constraint 'child' must be at least 0; it is -0.1.",
        ),
        (
            Nonlinear("nan", lambda p: np.float64("nan") if p["a"] > 0.7 else np.int64(0)),
            {},
            {"a": 0.8},
            "constraint 'nan' must be at least 0; it is nan.",
        ),
    ],
)
def test_a_point_that_breaks_a_constraint_is_refused_in_a_sentence(constraint, good, bad, sentence):
    s = space(constraint)
    good, bad = point(**good), point(**bad)
    assert s.satisfies(good) and s.violations(good) == [] and s.validate(good) == good
    assert not s.satisfies(bad) and s.violations(bad) == [sentence]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        s.validate(bad, where="trial 3")
    assert str(caught.value) == f"trial 3: {sentence}"
    assert s.validate(bad, outside=True) == bad  # data is data
    assert s.validate_partial(bad) == bad
    rows = s.encode_many([good, bad])
    assert s.feasible(rows).tolist() == [True, False]


def test_every_broken_constraint_is_told():
    s = space(Linear({"a": 1}, at_most=0.4), Simplex(["a", "b"], total=1.5))
    assert len(s.violations(point())) == 2
    with pytest.raises(ValueError, match=r"a must be at most 0\.4; .* a \+ b must be 1\.5"):
        s.validate(point())


def test_sums_far_from_zero_are_met_within_a_millionth_of_the_range_not_of_the_numbers():
    s = Space({"a": Real(1e9, 1e9 + 1), "b": Real(-1e9, 1 - 1e9)}, [Simplex(["a", "b"])])
    assert s.satisfies({"a": 1e9 + 0.5, "b": 0.5 - 1e9})
    assert not s.satisfies({"a": 1e9 + 0.5, "b": 0.501 - 1e9})


@st.composite
def sums(draw) -> Space:
    names = draw(st.lists(st.sampled_from(list(PARAMETERS)[:6]), min_size=1, unique=True))
    numbers = st.floats(-3, 3).filter(lambda c: abs(c) > 1e-3)
    coefficients = {name: draw(numbers) for name in names}
    at = Space(PARAMETERS).decode(
        np.array(draw(st.lists(st.floats(0, 1), min_size=10, max_size=10)))
    )
    limit = math.fsum(c * at[name] for name, c in coefficients.items())
    kind = draw(st.sampled_from(["at_most", "at_least", "equals"]))
    return space(Linear(coefficients, **{kind: limit})), at


@given(sums(), st.lists(st.floats(0, 1), min_size=10, max_size=10), st.floats(-12, 0))
@settings(max_examples=300)
def test_law_rows_and_points_agree_on_what_is_feasible_also_near_a_limit(case, row, digits):
    s, at = case
    there, random = s.encode(at), np.array(row)
    near = there + 10**digits * (random - there)  # from anywhere down to the last digits
    rows = np.vstack([there, random, near])
    expected = [s.satisfies(s.decode(row)) for row in rows]
    assert s.feasible(rows).tolist() == expected
    assert expected[0]
    assert [s.violations(s.decode(row)) == [] for row in rows] == expected


def test_functions_are_called_only_for_rows_that_the_sums_allow():
    calls = []
    function = Nonlinear("f", lambda p: calls.append(p["a"]) or 1.0)
    s = Space({"a": Real(0, 1)}, [Linear({"a": 1}, at_most=0.5), function])
    assert s.feasible(np.array([[0.2], [0.7], [0.9]])).tolist() == [True, False, False]
    assert calls == [0.2]
    assert s.feasible(np.empty((0, 1))).shape == (0,)


def test_an_error_in_a_function_says_which_and_where():
    s = space(Nonlinear("ratio", lambda p: 1 / (p["a"] - 0.5)))
    with pytest.raises(ZeroDivisionError) as caught:
        s.satisfies(point())
    assert "In the constraint 'ratio' of the space, at {'a': 0.5" in caught.value.__notes__[0]
    s = space(Nonlinear("text", lambda p: "yes"))
    with pytest.raises(TypeError, match=r"must return a number, at least 0 .* got 'yes'"):
        s.satisfies(point())


def test_positions_in_the_cube_and_values_have_the_same_sums():
    s = space(Linear({"a": 2, "b": -1, "n": 0.5, "even": 3, "fixed": 7, "always": 1}, at_most=40))
    A, lower, upper = s.limits.rows(s.limits.sums)
    for row in s.snap(np.random.default_rng(0).random((50, 10))):
        value = s.limits.sums[0].value(s.decode(row))
        assert A[0] @ row - upper[0] == pytest.approx(value - 40, abs=1e-9)
        assert lower[0] == -np.inf


# --------------------------------------------------------------------------------------
# The door
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "error", "message"),
    [
        (Linear({"alway": 1}, at_most=1), ValueError, r"'alway', which is not .* mean 'always'"),
        (Linear({"k": 1}, at_most=1), ValueError, "'k', which is Categorical; only Real and Int"),
        (Linear({"size": 1}, at_most=1), ValueError, "'size', which is Ordinal.*Use Nonlinear"),
        (Linear({"child": 1}, at_most=1), ValueError, r"'child', which is active only under a"),
        (Linear({"a": math.nan}, at_most=1), ValueError, "the coefficient of 'a' must be finite"),
        (Linear({"a": "1"}, at_most=1), TypeError, "the coefficient of 'a' must be a number"),
        (Linear({"a": 0}, at_most=1), ValueError, "the coefficient of 'a' is 0. Leave 'a' out"),
        (Linear({}, at_most=1), TypeError, "coefficients must be {parameter: coefficient}"),
        (Linear(["a"], at_most=1), TypeError, "coefficients must be {parameter: coefficient}"),
        (Linear({"a": 1}), ValueError, "give at_most=, at_least= or both, or else equals="),
        (Linear({"a": 1}, at_most=1, equals=1), ValueError, "or else equals= alone"),
        (Linear({"a": 1}, at_most=math.inf), ValueError, "at_most must be finite"),
        (Linear({"a": 1}, at_most=0, at_least=1), ValueError, "at_least must not exceed at_most"),
        (Linear({"a": 1, "b": 1}, at_least=3.1), ValueError, "no point .* between 0 and 3 within"),
        (Linear({"a": 1, "fixed": -1}, at_least=0), ValueError, "lies between -3 and -2"),
        (Simplex(["a", "b"], total=3.5), ValueError, r"a \+ b must be 3.5, and lies between 0 a"),
        (Simplex(["a", "b"], total=-1), ValueError, "no point meets it"),
        (Simplex(["a"]), ValueError, "a mixture has two or more parameters"),
        (Simplex("ab"), TypeError, "names must be a list of parameters; got 'ab'"),
        (Simplex(["a", "a"]), ValueError, "names must differ"),
        (Simplex(["a", "c"]), ValueError, "names 'c', which is not in the space"),
        (Simplex(["a", "b"], total="1"), TypeError, "total must be a number"),
        (Linear({"n": 2, "even": 1}, equals=7), ValueError, "moves in steps of 2, past that"),
        (Nonlinear("", abs), ValueError, "a name must be a non-empty string"),
        (Nonlinear("f", 3), TypeError, r"expected a function .* got 3. Write Nonlinear\(\"f\""),
    ],
)
def test_a_senseless_constraint_is_refused_by_its_source(constraint, error, message):
    with pytest.raises(error, match=message) as caught:
        space(constraint)
    assert str(caught.value).startswith(f"constraint {type(constraint).__name__}(")


def test_what_is_no_list_of_constraints_is_refused():
    with pytest.raises(TypeError, match="constraints must be a list"):
        Space(PARAMETERS, Simplex(["a", "b"]))
    with pytest.raises(TypeError, match="must be Linear, Simplex or Nonlinear; got 'a < b'"):
        space("a < b")
    with pytest.raises(ValueError, match="different names; 'f' came twice"):
        space(Nonlinear("f", abs), Nonlinear("f", max))


def test_a_parameter_whose_condition_always_holds_can_be_summed():
    assert space(Linear({"always": 1, "a": 1}, at_most=1)).satisfies(point())


# --------------------------------------------------------------------------------------
# Written down, compared
# --------------------------------------------------------------------------------------

GIVEN = [
    Linear({"a": 1, "n": 0.25}, at_most=2),
    Linear({"b": 1}, at_least=0.25, at_most=1),
    Simplex(["a", "b"]),
    Nonlinear("disc", lambda p: 1 - p["a"]),
]


def test_constraints_survive_json_but_for_functions():
    s = space(*GIVEN)
    text = json.dumps(s.to_json())
    again = Space.from_json(json.loads(text))
    assert again == s and hash(again) == hash(s) and again.to_json() == s.to_json()
    assert again.difference(s) == [] and repr(again) == repr(s)
    with pytest.raises(ValueError, match=r"'disc' is a function, and functions are not stored"):
        again.satisfies(point())
    with pytest.raises(ValueError, match="unknown type 'quadratic'; known: 'linear'"):
        Space.from_json(s.to_json() | {"constraints": [{"type": "quadratic"}]})


def test_without_constraints_a_space_is_written_as_it_was_before_there_were_any():
    data = Space(PARAMETERS).to_json()
    assert list(data) == ["parameters"]
    assert Space.from_json(data) == Space(PARAMETERS, []) == Space(PARAMETERS)
    assert Space(PARAMETERS) != space(GIVEN[0])
    assert "constraints" not in repr(Space(PARAMETERS))
    assert Space(PARAMETERS).feasible(np.zeros((3, 10))).all()


def test_the_difference_of_constraints_is_told_in_sentences():
    old, new = space(*GIVEN[:2]), space(GIVEN[0], GIVEN[2])
    assert old.difference(new) == [
        "constraint Linear({'b': 1.0}, at_most=1.0, at_least=0.25) was removed.",
        "constraint Simplex(['a', 'b'], total=1.0) was added.",
    ]
    turned = space(GIVEN[1], GIVEN[0])
    assert turned != old and "the constraints were [Linear(" in old.difference(turned)[0]
    # A function is known by its name.
    assert space(Nonlinear("f", abs)) == space(Nonlinear("f", max))
    assert space(Nonlinear("f", abs)).difference(space(Nonlinear("g", abs)))


def test_the_repr_reads_like_the_source():
    s = Space(
        {"a": Real(0, 1), "b": Real(0, 1)}, [Linear({"a": 1}, at_most=0.5), Simplex(["a", "b"])]
    )
    assert eval(repr(s), vars(bbmmopt) | {n: getattr(bbmmopt, n) for n in bbmmopt.__all__}) == s
    assert pickle.loads(pickle.dumps(s)) == s


# --------------------------------------------------------------------------------------
# A study
# --------------------------------------------------------------------------------------


def test_every_point_of_a_study_with_a_mixture_and_a_limit_is_feasible_and_resumes(tmp_path):
    s = Space(
        {"a": Real(0, 1), "b": Real(0, 1), "c": Real(0, 1), "heat": Integer(20, 100)},
        [Simplex(["a", "b", "c"]), Linear({"a": 100, "heat": 1}, at_most=120)],
    )

    def loss(a, b, c, heat):
        return (a - 0.5) ** 2 + (b - 0.2) ** 2 + ((heat - 80) / 50) ** 2

    def run(optimizer, n):
        for _ in range(n):
            trial = optimizer.ask()
            optimizer.tell(trial, loss(**trial.params))
        return optimizer

    whole = run(bbmmopt.Optimizer(s, minimize="loss", seed=0, n_start=6), 15)
    for trial in whole.trials:
        assert sum(trial.params[name] for name in "abc") == pytest.approx(1, abs=1e-11)
        assert 100 * trial.params["a"] + trial.params["heat"] <= 120 + 1e-9
        assert s.satisfies(trial.params)
    assert whole.trials[-1].origin["phase"] == "model"
    assert len({str(t.params) for t in whole.trials}) == 15
    # The best within the limit: 0.0135 at a = 0.42, heat = 78.
    assert whole.best.value < 0.03
    assert s.satisfies(whole.recommend().params)

    path = str(tmp_path / "study.db")
    with bbmmopt.Optimizer(s, minimize="loss", seed=0, n_start=6, storage=path) as first:
        run(first, 8)
    with bbmmopt.Optimizer(s, minimize="loss", storage=path) as second:
        run(second, 3)
        assert [t.params for t in second.trials] == [t.params for t in whole.trials[:11]]
    with pytest.raises(bbmmopt.StudyDiffers, match=r"Simplex.* was removed"):
        bbmmopt.Optimizer(Space(s.parameters, s.constraints[1:]), minimize="loss", storage=path)
    with bbmmopt.Optimizer.open(path) as third:
        assert third.space == s


def test_points_of_the_user_are_checked_and_fixed_ones_completed():
    s = Space({"a": Real(0, 1), "b": Real(0, 1), "c": Real(0, 1)}, [Simplex(["a", "b", "c"])])
    optimizer = bbmmopt.Optimizer(s, minimize="y", seed=0)
    with pytest.raises(ValueError, match=r"enqueue: a \+ b \+ c must be 1; it is 0\.9"):
        optimizer.enqueue({"a": 0.3, "b": 0.3, "c": 0.3})
    with pytest.raises(ValueError, match=r"add_trial: a \+ b \+ c must be 1"):
        optimizer.add_trial({"a": 0.3, "b": 0.3, "c": 0.3}, 1.0)
    optimizer.add_trial({"a": 0.3, "b": 0.3, "c": 0.3}, 1.0, outside=True)
    assert len(optimizer.trials) == 1
    for _ in range(8):
        trial = optimizer.ask(fixed={"a": 0.25})
        assert trial.params["a"] == 0.25 and s.satisfies(trial.params)
        optimizer.tell(trial, trial.params["b"])
    with pytest.raises(bbmmopt.NoFeasiblePoint, match="with 'a', 'b' fixed as asked meets its"):
        optimizer.ask(fixed={"a": 0.7, "b": 0.7})


def test_a_study_with_a_function_is_opened_again_with_it(tmp_path):
    path = str(tmp_path / "study.db")
    parameters = {"x": Real(0, 1), "y": Real(0, 1)}
    disc = Nonlinear("disc", lambda p: 0.04 - (p["x"] - 0.5) ** 2 - (p["y"] - 0.5) ** 2)
    s = Space(parameters, [disc])
    with bbmmopt.Optimizer(s, minimize="y", storage=path, seed=0, n_start=4) as optimizer:
        for _ in range(6):
            trial = optimizer.ask()
            assert s.satisfies(trial.params)
            optimizer.tell(trial, trial.params["x"] + trial.params["y"])
    with (
        bbmmopt.Optimizer.open(path) as optimizer,
        pytest.raises(ValueError, match="'disc' is a function, and functions are not stored"),
    ):
        optimizer.ask()
    with bbmmopt.Optimizer(s, minimize="y", storage=path) as optimizer:
        assert s.satisfies(optimizer.ask().params)
