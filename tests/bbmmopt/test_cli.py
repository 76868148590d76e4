"""Facts about `bbmmopt …`: what it prints, which exit code it gives, and what it leaves alone."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bbmmopt import Categorical, Integer, Optimizer, Ordinal, Problem, Real, Simplex, Space
from bbmmopt.cli import main
from bbmmopt.storage import open_storage

ROOT = Path(__file__).resolve().parents[2]

SVM = {
    "C": {"real": [0.001, 1000], "log": True},
    "kernel": {"categorical": ["rbf", "poly"]},
    "degree": {"integer": [2, 5], "when": {"kernel": "poly"}},
}
LINE = {"x": {"real": [-5, 5]}}


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BBMMOPT_DEBUG", raising=False)


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)


def ok(*arguments: object, stdin: str | None = None) -> str:
    """What a command printed that must do."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def lines(*arguments: object, stdin: str | None = None) -> list[dict]:
    return [json.loads(line) for line in ok(*arguments, stdin=stdin).splitlines()]


def line(*arguments: object, stdin: str | None = None) -> dict:
    (only,) = lines(*arguments, stdin=stdin)
    return only


def refused(code: int, *arguments: object, stdin: str | None = None) -> str:
    """The one line that a command says which must not do."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == code, (result.exit_code, result.output)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def create(space: dict | None = None, *options: object, where: str = "study.db") -> dict:
    options = options or ("--minimize", "loss")
    return line("create", where, "--space", json.dumps(space or LINE), "--seed", 0, *options)


def state_of(number: int) -> dict:
    return line("show", "study.db", number, "--json")


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
        ([0, 1, "--failed", "no"], "not both"),
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


# --------------------------------------------------------------------------------------
# Creating
# --------------------------------------------------------------------------------------

EVERYTHING = Space(
    {
        "C": Real(1e-3, 1e3, log=True),
        "kernel": Categorical(["rbf", "poly", 3, True]),
        "degree": Integer(2, 8, step=2, when={"kernel": ["poly", 3]}),
        "batch": Ordinal([16, 32, 64]),
    }
)
EVERYTHING_IN_SHORT = {
    "C": {"real": [1e-3, 1e3], "log": True},
    "kernel": {"categorical": ["rbf", "poly", 3, True]},
    "degree": {"integer": [2, 8], "step": 2, "when": {"kernel": ["poly", 3]}},
    "batch": {"type": "ordinal", "choices": [16, 32, 64]},
}


@pytest.mark.parametrize("form", ["long", "short"])
@pytest.mark.parametrize("source", ["file", "stdin", "inline"])
def test_a_space_is_read_in_both_forms_from_anywhere(form, source):
    text = json.dumps(EVERYTHING.to_json() if form == "long" else EVERYTHING_IN_SHORT)
    Path("space.json").write_text(text)
    given = {"file": "space.json", "stdin": "-", "inline": text}[source]
    line("create", "study.db", "--space", given, "--maximize", "gain", stdin=text)
    with open_storage("study.db") as storage:
        record = storage.study("default")
    assert record is not None
    assert Problem.from_json(record.problem) == Problem.make(EVERYTHING, maximize="gain")


def test_a_mixture_is_created_and_asked_for():
    parts = [{"name": name, "type": "real", "low": 0, "high": 1} for name in "abc"]
    space = {"parameters": parts, "constraints": [Simplex(["a", "b", "c"]).to_json()]}
    create(space)
    for trial in lines("ask", "study.db", "-n", 3):
        assert sum(trial["params"].values()) == pytest.approx(1.0, abs=1e-9)
    assert "no point" in refused(4, "ask", "study.db", "--fixed", "a=0.9", "--fixed", "b=0.9")


def test_a_parameter_may_be_called_parameters():
    create({"parameters": {"real": [0, 1]}})
    assert list(line("ask", "study.db")["params"]) == ["parameters"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{", "the space is not JSON"),
        ("{}", "at least one parameter"),
        ('{"x": {"real": [0, 1]}, "x": {"real": [0, 2]}}', "'x' came twice"),
        ('{"x": [0, 1]}', "parameter 'x': write {\"real\": [low, high]}"),
        ('{"x": {"real": [0]}}', "parameter 'x': write {\"real\": [low, high]}"),
        ('{"x": {"real": [0, 1], "integer": [0, 1]}}', "parameter 'x': write"),
        ('{"x": {"real": [1, 0]}}', "parameter 'x': low"),
        ('{"x": {"real": [0, NaN]}}', "parameter 'x': high must be finite"),
        ('{"x": {"real": [0, 1], "lgo": true}}', "unknown field 'lgo'"),
        ('{"x": {"real": [0, 1], "step": 1}}', "unknown field 'step'"),
        ('{"x": {"type": "reel", "low": 0, "high": 1}}', "Did you mean 'real'?"),
        ('{"x": {"type": "real", "low": 0}}', "parameter 'x': 'high' is missing"),
        ('{"x": {"categorical": []}}', "parameter 'x': choices must not be empty"),
        ('{"x": {"categorical": {"a": 1}, "when": {"y": 1}}}', "parameter 'x'"),
        ('{"parameters": [3]}', "each parameter must be"),
        ('{"parameters": [{"type": "real"}]}', "each parameter must be"),
        (json.dumps({"parameters": [EVERYTHING.to_json()["parameters"][0]] * 2}), "'C' twice"),
        ('{"parameters": [], "constraints": {}}', "constraints must be a list of JSON objects"),
        ("[]", "[] cannot be read"),
        ("nothing.json", "nothing.json cannot be read"),
        ("{" * 100_000, "the space is not JSON"),
    ],
)
def test_a_wrong_space_is_refused_and_no_file_is_made(space, message):
    assert message in refused(2, "create", "study.db", "--space", space, "--minimize", "loss")
    assert not Path("study.db").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Name it with its direction"),
        (["--minimize", "a", "--maximize", "a"], "'a' came twice"),
        (["--minimize", "a", "--noise", "loud"], "'loud' is not one of"),
        (["--minimize", "a", "--n-start", "0"], "0 is not in the range"),
        (["--minimize", "a", "--seed", "x"], "'x' is not a valid integer"),
        (["--minimize", "a", "--acquisition", "ei"], "'ei' is not one of"),
        (["--minimize", "a", "--study", "a\nb"], "a study needs a name"),
    ],
)
def test_wrong_options_are_refused_and_no_file_is_made(options, message):
    said = refused(2, "create", "study.db", "--space", json.dumps(LINE), *options)
    assert message in said
    assert not Path("study.db").exists()


def test_a_study_is_created_once():
    create()
    assert create()["created"] is False
    said = refused(2, "create", "study.db", "--space", json.dumps(SVM), "--minimize", "loss")
    assert "parameter 'x' was removed" in said


def test_a_seed_is_drawn_and_shown():
    made = line("create", "study.db", "--space", json.dumps(LINE), "--minimize", "loss")
    with Optimizer.open("study.db") as optimizer:
        assert optimizer.seed == made["seed"]


# --------------------------------------------------------------------------------------
# Looking
# --------------------------------------------------------------------------------------


@pytest.fixture
def a_run() -> str:
    """Two complete trials, one failed, one running."""
    create(SVM)
    lines("ask", "study.db", "-n", 4)
    line("tell", "study.db", 0, 0.5)
    line("tell", "study.db", 1, 0.25, "--se", 0.125)
    line("tell", "study.db", 2, "--failed", "Traceback\n  in f\nZeroDivisionError: [red]")
    return "study.db"


def test_trials_are_a_table_for_people(a_run):
    head, *rows = ok("trials", a_run).splitlines()
    assert head.split() == [
        *("trial", "state", "C", "kernel", "degree", "loss", "(minimize)", "seconds", "reason")
    ]
    assert [row.split()[:2] for row in rows] == [
        *(["0", "complete"], ["1", "complete,"], ["2", "failed"], ["3", "running"])
    ]
    assert "complete, best" in rows[1]
    assert "0.25 ± 0.125" in rows[1]
    assert rows[2].endswith("ZeroDivisionError: [red]")


def test_a_long_table_is_not_cut_where_no_terminal_is():
    names = [f"a parameter with a long name {i}" for i in range(30)]
    create({name: {"real": [0, 1]} for name in names})
    line("ask", "study.db")
    head, row = ok("trials", "study.db").splitlines()
    assert all(name in head for name in names)
    assert row.split().count("0.5") == 30


def test_trials_are_json_lines_for_scripts(a_run):
    found = lines("trials", a_run, "--json")
    assert [trial["state"] for trial in found] == ["complete", "complete", "failed", "running"]
    assert found[1] == {key: state_of(1)[key] for key in found[1]}
    assert list(found[0])[:4] == ["number", "params", "state", "values"]


def test_trials_are_chosen_by_state(a_run):
    def numbers(*options: str) -> list[int]:
        return [trial["number"] for trial in lines("trials", a_run, "--json", *options)]

    assert numbers("--state", "complete") == [0, 1]
    assert numbers("--state", "failed", "--state", "running") == [2, 3]
    assert numbers("--state", "waiting") == []
    assert "complete, best" in ok("trials", a_run, "--state", "complete")
    refused(2, "trials", a_run, "--state", "done")


def test_a_study_without_trials_says_so_on_stderr():
    create()
    result = run("trials", "study.db")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Study 'default' has no trials.\n"


def test_show_tells_everything_about_a_trial(a_run):
    text = ok("show", a_run, 2)
    assert "failed" in text
    assert "It failed: Traceback\n  in f\nZeroDivisionError: [red]" in text
    assert "belongs to the start" in text
    text = ok("show", a_run, 1)
    assert "0.25 ± 0.125" in text
    assert "duration" in text


def test_show_explains_as_the_optimizer_does():
    create(LINE, "--minimize", "loss", "--n-start", 2)
    for number in range(4):
        line("ask", "study.db")
        line("tell", "study.db", number, number)
    with Optimizer.open("study.db") as optimizer:
        expected = optimizer.explain(3)
    assert "log expected improvement" in expected
    assert ok("show", "study.db", 3).endswith(f"\n{expected}\n")
    assert state_of(3)["explanation"] == expected


def test_best_is_one_trial_as_json(a_run):
    assert line("best", a_run)["number"] == 1


def test_of_several_objectives_none_is_best():
    create(LINE, "--minimize", "a", "--minimize", "b")
    assert "no trial is the best" in refused(2, "best", "study.db")


# --------------------------------------------------------------------------------------
# Names of all kinds
# --------------------------------------------------------------------------------------

UNICODE = {
    "größe ☃": {"real": [0, 1]},
    "$float": {"integer": [0, 3]},
    "色": {"ordinal": ["赤", "青"]},
}


def test_any_name_comes_back_as_it_was():
    create(UNICODE, "--minimize", "ошибка", "--study", "étude")
    trial = line("ask", "study.db", "--fixed", "色=青")
    assert trial["params"] == {"größe ☃": 0.5, "$float": trial["params"]["$float"], "色": "青"}
    line("tell", "study.db", 0, "ошибка=1")
    assert line("best", "study.db", "--study", "étude")["values"] == {"ошибка": 1}
    assert line("trials", "study.db", "--json")["params"] == trial["params"]
    assert "größe ☃" in ok("trials", "study.db")
    assert "青" in ok("show", "study.db", 0)


def test_json_is_ascii_and_strict():
    create(UNICODE)
    assert ok("ask", "study.db").isascii()
    with Optimizer.open("study.db") as optimizer:
        optimizer.storage.set_attrs("default", 0, {"spread": float("inf"), "$float": [1, "ü"]})
    printed = ok("show", "study.db", 0, "--json")
    attrs = json.loads(printed, parse_constant=pytest.fail)["attrs"]
    assert attrs == {"spread": "inf", "$float": [1, "ü"]}


def test_control_characters_do_not_reach_the_terminal():
    create({"a\x1b[2Jb": {"categorical": ["\x07", "[bold]x[/bold]"]}})
    line("ask", "study.db")
    line("tell", "study.db", 0, "--failed", "\x1b[31mred")
    for text in (ok("trials", "study.db"), ok("show", "study.db", 0)):
        assert text.isascii()
        assert not set(text) & {"\x1b", "\x07"}
        assert "a\\x1b[2Jb" in text
        assert "\\x1b[31mred" in text


# --------------------------------------------------------------------------------------
# Storages and studies
# --------------------------------------------------------------------------------------

OTHERS = {
    "ask": ["ask", "STORAGE"],
    "tell": ["tell", "STORAGE", "0", "1"],
    "add": ["add", "STORAGE", "1", "--param", "x=1"],
    "show": ["show", "STORAGE", "0"],
    "best": ["best", "STORAGE"],
    "trials": ["trials", "STORAGE"],
    "plot": ["plot", "history", "STORAGE", "-o", "a.png"],
}


def with_storage(command: str, where: str) -> list[str]:
    return [where if part == "STORAGE" else part for part in OTHERS[command]]


@pytest.mark.parametrize("command", OTHERS)
@pytest.mark.parametrize("where", ["nothing.db", "no/such/folder/a.db", "sqlite:///nothing.db"])
def test_only_create_makes_a_file(command, where):
    said = refused(3, *with_storage(command, where))
    assert f"no file {where}" in said
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", OTHERS)
def test_an_unknown_study_is_refused_by_name(command):
    create(LINE, "--minimize", "loss", "--study", "first")
    said = refused(3, *with_storage(command, "study.db"), "--study", "frist")
    assert "there is no study 'frist' in study.db; it holds: first" in said


@pytest.mark.parametrize("command", OTHERS)
def test_of_several_studies_one_must_be_chosen(command):
    create(LINE, "--minimize", "loss", "--study", "first")
    create(LINE, "--minimize", "loss", "--study", "second")
    said = refused(2, *with_storage(command, "study.db"))
    assert "choose by --study: first, second" in said


def test_the_only_study_needs_no_name_and_several_are_kept_apart():
    create(LINE, "--minimize", "loss", "--study", "first")
    line("add", "study.db", 1, "--param", "x=1")
    create(SVM, "--maximize", "gain", "--study", "second")
    assert lines("trials", "study.db", "--study", "second", "--json") == []
    assert line("best", "study.db", "--study", "first")["values"] == {"loss": 1}


def test_a_file_that_is_no_storage_is_refused():
    Path("notes.db").write_text("Dear diary, this is no database at all. " * 50)
    assert "not a database" in refused(3, "trials", "notes.db")
    assert "is a directory" in refused(3, "trials", ".")
    Path("empty.db").touch()
    assert "there is no study in empty.db; it holds none yet" in refused(3, "trials", "empty.db")
    said = refused(3, "create", "no/a.db", "--space", json.dumps(LINE), "--minimize", "loss")
    assert "does not exist" in said


def test_a_url_is_a_storage_too():
    create(where="sqlite:///study.db")
    assert line("ask", "sqlite:///study.db")["number"] == 0
    assert line("ask", "sqlite:///study.db?timeout=9")["number"] == 1
    assert line("ask", "study.db")["number"] == 2


def test_a_url_without_a_driver_is_refused():
    assert "nosuchdb" in refused(3, "trials", "nosuchdb://host/name")


# --------------------------------------------------------------------------------------
# Nothing to give
# --------------------------------------------------------------------------------------


def test_without_a_complete_trial_there_is_nothing_to_give():
    create()
    line("ask", "study.db")
    assert "no complete trial" in refused(4, "best", "study.db")
    assert "complete" in refused(4, "plot", "posterior", "study.db", "-o", "a.png")
    assert not Path("a.png").exists()


def test_when_every_point_was_tried_what_was_left_is_printed_first():
    create({"size": {"ordinal": [1, 2, 3]}})
    result = run("ask", "study.db", "-n", 5)
    assert result.exit_code == 4
    assert [json.loads(text)["number"] for text in result.stdout.splitlines()] == [0, 1, 2]
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


# --------------------------------------------------------------------------------------
# Plots
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["history"],
        ["acquisition"],
        ["acquisition", "-x", "C", "-y", "degree", "--fixed", "kernel=poly"],
        ["acquisition", "-x", "C", "--acquisition", "ucb"],
        ["posterior", "-x", "C", "--fixed", "kernel=rbf"],
    ],
)
def test_a_plot_is_written_as_a_picture(a_run, arguments):
    kind, *options = arguments
    assert ok("plot", kind, a_run, "-o", "größe.png", *options) == ""
    assert Path("größe.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_ending_says_which_format(a_run):
    ok("plot", "history", a_run, "-o", "a.SVG")
    assert "<svg" in Path("a.SVG").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["history", "study.db", "-o", "a.png", "-x", "C"], "-x does not go with history"),
        (
            ["posterior", "study.db", "-o", "a.png", "--acquisition", "ucb"],
            "--acquisition does not go with posterior",
        ),
        (["history", "study.db", "-o", "a.xyz"], "a.xyz: the name must end in a format"),
        (["history", "study.db", "-o", "png"], "png: the name must end in a format"),
        (["history", "study.db", "-o", "no/a.png"], "no/a.png cannot be written"),
        (["history", "study.db", "-o", "."], "is a directory"),
        (["history", "study.db"], "Missing option '-o'"),
        (["acquisition", "study.db", "-o", "a.png", "-x", "c"], "'c'"),
        (["acquisition", "study.db", "-o", "a.png", "--fixed", "c=1"], "unknown parameter 'c'"),
        (["surface", "study.db", "-o", "a.png"], "'surface' is not one of"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_plot_is_refused(a_run, arguments, message):
    assert message in refused(2, "plot", *arguments)
    assert not Path("a.png").exists()


# --------------------------------------------------------------------------------------
# When something is wrong
# --------------------------------------------------------------------------------------


def test_help_documents_the_exit_codes_and_completion():
    text = ok("--help")
    for code in range(6):
        assert f"\n    {code}  " in text
    assert "_BBMMOPT_COMPLETE=bash_source" in text
    assert ok() == text
    assert '{"real": [0.001, 1000], "log": true}' in ok("create", "--help")


@pytest.mark.parametrize("command", main.commands)
def test_each_command_has_a_help_of_its_own(command):
    text = ok(command, "--help")
    assert text.startswith(f"Usage: main {command} ")
    assert "STORAGE" in text
    assert "--study" in text


@pytest.mark.parametrize("arguments", [["akk"], ["trials"], ["trials", "a", "--jsn"], ["--foo"]])
def test_wrong_usage_is_one_line_that_points_to_the_help(arguments):
    assert "--help'" in refused(2, *arguments)


@pytest.fixture
def broken(monkeypatch) -> None:
    """A bug in `show`."""

    def explain(*_: object) -> str:
        raise ValueError("two\nlines")

    monkeypatch.setattr("bbmmopt.cli.commands.explain", explain)
    create()
    line("ask", "study.db")


@pytest.mark.usefixtures("broken")
def test_a_bug_is_one_line_and_exit_code_1():
    assert "unexpected ValueError: two lines" in refused(1, "show", "study.db", 0)


@pytest.mark.usefixtures("broken")
def test_debug_shows_the_traceback(monkeypatch):
    for arguments in (["show", "study.db", 0, "--debug"], ["--debug", "show", "study.db", 0]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "Traceback (most recent call last)" in result.stderr
    monkeypatch.setenv("BBMMOPT_DEBUG", "1")
    assert "Traceback" in run("show", "study.db", 0).stderr
    assert "Traceback" in run("trials", "nothing.db").stderr


def test_ctrl_c_ends_without_a_traceback(monkeypatch):
    create()
    line("ask", "study.db")

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("bbmmopt.cli.commands.explain", interrupted)
    result = run("show", "study.db", 0)
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted."


def test_a_caller_may_keep_the_exceptions():
    with pytest.raises(Exception, match="there is no file"):
        main(["trials", "nothing.db"], standalone_mode=False)


def test_the_shell_completes_commands_and_options():
    def completed(words: str) -> str:
        cword = str(len(words.split(" ")) - 1)
        env = {"_MAIN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": cword}
        return CliRunner().invoke(main, [], env=env).stdout

    assert completed("main tri") == "plain,trials\n"
    assert completed("main plot pos") == "plain,posterior\n"
    assert completed("main trials a.db --state fa") == "plain,failed\n"
    assert completed("main trials ") == "file,\n"


# --------------------------------------------------------------------------------------
# As a program
# --------------------------------------------------------------------------------------


def program(
    *arguments: str, python: tuple[str, ...] = (), **options
) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [sys.executable, *python, "-m", "bbmmopt", *arguments],
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"} | options.pop("env", {}),
        encoding="utf-8",
        timeout=300,
        check=False,
        **options,
    )


def test_the_entry_point_is_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["bbmmopt"].split(":")
    assert getattr(import_module(module), name) is main


def test_as_a_program_it_asks_and_is_told():
    create()
    asked = program("ask", "study.db")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert json.loads(asked.stdout)["number"] == 0
    told = program("tell", "study.db", "0", "-2.5")
    assert (told.returncode, told.stderr) == (0, "")
    again = program("tell", "study.db", "0", "3")
    assert (again.returncode, again.stdout) == (5, "")
    assert again.stderr.startswith("Error: trial 0 was told already")
    missing = program("ask", "nothing.db")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert program("ask", "study.db", "--foo").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["trials", "study.db"],
        ["trials", "study.db", "--json"],
        ["show", "study.db", "0"],
        ["best", "study.db"],
    ],
)
@pytest.mark.usefixtures("a_run")
def test_reading_does_not_wait_for_torch(arguments):
    done = program(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {text.rpartition("|")[2].strip() for text in done.stderr.splitlines()}
    assert "bbmmopt.cli.commands" in imported
    assert not imported & {"torch", "scipy", "matplotlib"}


def test_a_reader_that_goes_away_leaves_no_traceback(a_run):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = program("trials", a_run, "--json", stdout=writer)
        table = program("trials", a_run, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert (table.returncode, table.stderr) == (1, "")


def test_a_terminal_that_knows_only_ascii_is_no_reason_to_fail():
    create(UNICODE)
    line("ask", "study.db")
    done = program("trials", "study.db", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "gr\\xf6\\xdfe \\u2603" in done.stdout
