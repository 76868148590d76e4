"""Facts about `bbmmopt …`: which studies there are, and how they begin."""

import json
from pathlib import Path

import pytest

from bbmmopt import Categorical, Integer, Optimizer, Ordinal, Problem, Real, Simplex, Space
from bbmmopt.storage import open_storage
from tests.bbmmopt.shell import LINE, SVM, create, line, lines, refused

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")


# --------------------------------------------------------------------------------------
# Creating
# --------------------------------------------------------------------------------------


def test_a_study_that_is_there_with_another_space_says_what_a_shell_can_do():
    create()
    said = refused(
        2, "create", "study.db", "--minimize", "loss", "--space", '{"x": {"real": [-5, 6]}}'
    )
    assert "parameter 'x': high was 5.0 and is now 6.0." in said
    assert "In a shell: bbmmopt extend, --study NAME, --warm-start." in said


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
# Storages and studies
# --------------------------------------------------------------------------------------

OTHERS = {
    "ask": ["ask", "STORAGE"],
    "report": ["report", "STORAGE", "0", "1", "0.5"],
    "tell": ["tell", "STORAGE", "0", "1"],
    "add": ["add", "STORAGE", "1", "--param", "x=1"],
    "enqueue": ["enqueue", "STORAGE", "--param", "x=1"],
    "renew": ["renew", "STORAGE", "0"],
    "note": ["note", "STORAGE", "0", "by=ann"],
    "stop": ["stop", "STORAGE"],
    "show": ["show", "STORAGE", "0"],
    "explain": ["explain", "STORAGE", "0"],
    "best": ["best", "STORAGE"],
    "events": ["events", "STORAGE"],
    "export": ["export", "STORAGE"],
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
    assert line("ask", "sqlite:///study.db?journal=wal")["number"] == 1
    assert line("ask", "study.db")["number"] == 2


def test_a_url_without_a_driver_is_refused():
    assert "nosuchdb" in refused(3, "trials", "nosuchdb://host/name")
