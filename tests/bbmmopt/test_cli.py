"""Facts about `bbmmopt …`: asking, and telling what came out."""

import json
from pathlib import Path

import pytest

from bbmmopt import Optimizer, Problem
from bbmmopt.storage import open_storage
from tests.bbmmopt.shell import LINE, SVM, create, line, lines, refused, run, state_of

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")


# --------------------------------------------------------------------------------------
# The loop
# --------------------------------------------------------------------------------------


def test_a_study_is_run_from_the_shell():
    assert create() == {"study": "default", "seed": 0, "created": True}
    for number in range(6):
        trial = line("ask", "study.db")
        assert list(trial) == ["number", "params"]
        assert trial["number"] == number
        loss = (trial["params"]["x"] - 1) ** 2
        told = line("tell", "study.db", number, loss)
        assert told["state"] == "complete"
        assert told["values"] == {"loss": loss}
    best = line("best", "study.db")
    assert best["values"]["loss"] == min(
        trial["values"]["loss"] for trial in lines("trials", "study.db", "--json")
    )


def test_the_shell_is_given_the_points_that_the_python_api_is_given():
    def loss(params: dict) -> float:
        return params["C"] ** 0.3 + (params["kernel"] == "poly") * params.get("degree", 0)

    create(SVM, "--minimize", "loss", "--n-start", 3)
    problem = Problem.from_json(open_storage("study.db").study("default").problem)  # type: ignore
    optimizer = Optimizer(problem, seed=0, n_start=3)
    for _ in range(6):
        trial = optimizer.ask()
        asked = line("ask", "study.db")
        assert asked == {"number": trial.number, "params": trial.params}
        optimizer.tell(trial, loss(trial.params))
        line("tell", "study.db", trial.number, repr(loss(asked["params"])))
    assert trial.origin["phase"] == "model"


def test_several_trials_are_asked_for_at_once():
    create()
    asked = lines("ask", "study.db", "-n", 3)
    assert [trial["number"] for trial in asked] == [0, 1, 2]
    assert len({trial["params"]["x"] for trial in asked}) == 3


def test_parameters_that_do_not_matter_are_left_out():
    create(SVM)
    assert "degree" not in line("ask", "study.db", "--fixed", "kernel=rbf")["params"]
    assert "degree" in line("ask", "study.db", "--fixed", "kernel=poly")["params"]


def test_a_worker_that_never_told_is_given_its_trial_again():
    create()
    first = line("ask", "study.db", "--worker", "ann")
    assert line("ask", "study.db", "--worker", "ann") == first
    assert line("ask", "study.db", "--worker", "bob")["number"] == 1
    line("tell", "study.db", 0, 1)
    assert line("ask", "study.db", "--worker", "ann")["number"] == 2
    assert state_of(1)["worker"] == "bob"


# --------------------------------------------------------------------------------------
# Text from the shell
# --------------------------------------------------------------------------------------

ODD = {
    "x": {"real": [-5, 5]},
    "n": {"integer": [1, 2000]},
    "size": {"ordinal": [16, 32.5, "all"]},
    "kind": {"categorical": ["1", 1, "true", "a=b", "größe"]},
    "flag": {"categorical": [True, False]},
    "a=b": {"integer": [0, 9]},
    "größe": {"real": [0, 1]},
    "$": {"real": [0, 1]},
}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("x=2", "x", 2.0),
        ("x=-1e-3", "x", -0.001),
        ("n=7", "n", 7),
        ("n=1e3", "n", 1000),
        ("n=7.0", "n", 7),
        ("size=16", "size", 16),
        ("size=16.0", "size", 16),
        ("size=32.5", "size", 32.5),
        ("size=all", "size", "all"),
        ('size="all"', "size", "all"),
        ("kind=1", "kind", 1),
        ('kind="1"', "kind", "1"),
        ("kind=true", "kind", "true"),
        ("kind=a=b", "kind", "a=b"),
        ("kind=größe", "kind", "größe"),
        ("flag=true", "flag", True),
        ("flag=False", "flag", False),
        ("a=b=3", "a=b", 3),
        ("größe=0.5", "größe", 0.5),
        ("$=1", "$", 1.0),
    ],
)
def test_text_becomes_the_value_that_the_parameter_has(text, name, value):
    create(ODD)
    given = line("ask", "study.db", "--fixed", text)["params"][name]
    assert given == value
    assert type(given) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=6", "'x': 6.0 is outside [-5.0, 5.0]"),
        ("x=nan", "'x': expected a number in [-5.0, 5.0]; got nan"),
        ("x=high", "'x': expected a number in [-5.0, 5.0]; got 'high'"),
        ("x=", "'x': expected a number in [-5.0, 5.0]; got ''"),
        ("n=2.5", "'n': expected an integer in [1, 2000]; got 2.5"),
        ("n=1e999", "'n': expected an integer"),
        ("size=17", "'size': expected one of 16, 32.5, 'all'; got '17'"),
        ("flag=1", "'flag': expected one of True, False; got '1'"),
        ("gröse=1", "unknown parameter 'gröse'. Did you mean 'größe'?"),
        ("x", "--fixed takes name=value; got 'x'"),
    ],
)
def test_text_that_is_no_value_of_the_parameter_is_refused(text, message):
    create(ODD)
    assert message in refused(2, "ask", "study.db", "--fixed", text)
    assert lines("trials", "study.db", "--json") == []


def test_of_two_names_that_fit_the_longer_one_is_meant():
    create({"a": {"categorical": ["b", "b=1"]}, "a=b": {"integer": [0, 9]}})
    params = line("ask", "study.db", "--fixed", "a=b=1", "--fixed", "a=b")["params"]
    assert params == {"a": "b", "a=b": 1}


def test_a_parameter_fixed_twice_is_refused():
    create()
    said = refused(2, "ask", "study.db", "--fixed", "x=1", "--fixed", "x=2")
    assert "'x' was given twice" in said


# --------------------------------------------------------------------------------------
# Telling
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("-0.5", -0.5), ("-1e-5", -1e-5), ("-7", -7), ("+3", 3), (".5", 0.5), ("loss=-2", -2)],
)
def test_a_negative_number_is_a_value_and_not_an_option(text, value):
    create()
    line("ask", "study.db")
    assert line("tell", "study.db", 0, text)["values"] == {"loss": value}
    assert line("add", "study.db", text, "--param", "x=1")["values"] == {"loss": value}


def test_a_value_may_have_a_standard_error():
    create()
    lines("ask", "study.db", "-n", 2)
    assert line("tell", "study.db", 0, 3, "--se", 0.25)["standard_errors"] == {"loss": 0.25}
    assert line("tell", "study.db", 1, "loss=3", "--se", "loss=.5")["standard_errors"] == {
        "loss": 0.5
    }


def test_several_objectives_and_constraints_are_told_by_name():
    create(LINE, "--minimize", "loss", "--maximize", "a=b", "--constraint", "weight")
    line("ask", "study.db")
    said = refused(2, "tell", "study.db", 0, 1)
    assert "loss=… a=b=…" in said
    said = refused(2, "tell", "study.db", 0, "loss=1", "a=b=2")
    assert "Missing: 'weight'" in said
    told = line("tell", "study.db", 0, "loss=1", "a=b=-2", "weight=-3", "--se", "a=b=0.1")
    assert told["values"] == {"loss": 1, "a=b": -2}
    assert told["standard_errors"] == {"loss": None, "a=b": 0.1}
    assert told["constraints"] == {"weight": -3}


def test_the_only_objective_needs_no_name_beside_a_constraint():
    create(LINE, "--maximize", "gain", "--constraint", "weight")
    line("ask", "study.db")
    told = line("tell", "study.db", 0, "0.5", "weight=-1")
    assert (told["values"], told["constraints"]) == ({"gain": 0.5}, {"weight": -1})


def test_a_trial_can_fail():
    create()
    line("ask", "study.db")
    told = line("tell", "study.db", 0, "--failed", "the pump stopped")
    assert (told["state"], told["reason"]) == ("failed", "the pump stopped")
    assert told["values"] is None


def test_nan_is_a_failure_and_says_so():
    create()
    line("ask", "study.db")
    result = run("tell", "study.db", 0, "nan")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: trial 0: objective 'loss' is nan")
    assert result.stderr.count("\n") == 1
    assert json.loads(result.stdout)["state"] == "failed"


def test_telling_the_same_again_changes_nothing_and_another_value_has_its_own_exit_code():
    create()
    line("ask", "study.db")
    first = line("tell", "study.db", 0, 1)
    assert line("tell", "study.db", 0, "1.0") == first
    said = refused(5, "tell", "study.db", 0, 2)
    assert "loss = 1.0" in said
    assert "loss = 2.0" in said
    refused(5, "tell", "study.db", 0, "--failed", "no")
    assert state_of(0)["values"] == {"loss": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([0, "abc"], "VALUE must be a number or name=number; got 'abc'"),
        ([0, "0,5"], "VALUE must be a number or name=number; got '0,5'"),
        ([0, "--faild", "x"], "VALUE must be a number or name=number; got '--faild'"),
        ([0], "give a VALUE, or --failed"),
        ([0, 1, 2], "'loss' was given twice"),
        ([0, "lost=1"], "Unknown: 'lost'"),
        ([0, 1, "--se", -1], "must be finite and at least 0"),
        ([0, 1, "--se", "x"], "--se must be a number"),
        ([0, "--se", 1], "'loss' has a standard error but no value"),
        ([0, 1, "--failed", "no"], "not two of them"),
        ([0, "--failed", ""], "failed= takes the reason"),
        ([0, "-inf"], "better than anything can be"),
        ([7, 1], "no trial 7"),
        ([10**30, 1], f"no trial {10**30}"),
        ([-1, 1], "-1 is not in the range"),
        (["x", 1], "'x' is not a valid integer"),
        ([], "Missing argument 'NUMBER'"),
    ],
)
def test_a_wrong_tell_leaves_the_trial_running(arguments, message):
    create()
    line("ask", "study.db")
    assert message in refused(2, "tell", "study.db", *arguments)
    assert state_of(0)["state"] == "running"


# --------------------------------------------------------------------------------------
# Data from elsewhere
# --------------------------------------------------------------------------------------


def test_outside_data_is_added_by_assignments_or_json():
    create(SVM)
    expected = {"C": 10.0, "kernel": "poly", "degree": 3}
    texts = ["--param", "C=10", "--param", "kernel=poly", "--param", "degree=3"]
    as_json = json.dumps(expected)
    Path("point.json").write_text(as_json)
    assert line("add", "study.db", 0.5, *texts)["params"] == expected
    assert line("add", "study.db", 0.5, "--params", as_json)["params"] == expected
    assert line("add", "study.db", 0.5, "--params", "point.json")["params"] == expected
    assert line("add", "study.db", 0.5, "--params", "-", stdin=as_json)["params"] == expected
    assert line("add", "study.db", 0.5, *texts[:2], "--params", '{"kernel": "rbf"}')["params"] == {
        "C": 10.0,
        "kernel": "rbf",
    }
    assert "told by the user" in state_of(4)["explanation"]


def test_numbers_beyond_the_bounds_are_added_when_asked_for():
    create()
    said = refused(2, "add", "study.db", 1, "--param", "x=6")
    assert "6.0 is outside" in said
    assert line("add", "study.db", 1, "--param", "x=6", "--outside")["params"] == {"x": 6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([1], "parameter 'C' is missing"),
        ([1, "--param", "C=1", "--param", "kernel=rbf", "--param", "degree=2"], "not active"),
        ([1, "--param", "C=1", "--params", '{"C": 2}'], "'C' is in --params and in --param"),
        ([1, "--params", "{"], "--params is not JSON"),
        ([1, "--params", '{"C": 1, "C": 2}'], "'C' came twice"),
        ([1, "--params", '{"c": 1}'], "unknown parameter 'c'"),
        ([1, "--params", "nothing.json"], "nothing.json cannot be read"),
        (["--param", "C=1"], "Missing argument 'VALUE...'"),
    ],
)
def test_wrong_outside_data_is_refused_and_nothing_is_recorded(arguments, message):
    create(SVM)
    assert message in refused(2, "add", "study.db", *arguments)
    assert lines("trials", "study.db", "--json") == []
