"""The command line, fuzzed: an exit code that is documented, one line of error, nothing changed.

Goes over every command that there is, by what click knows of its options and arguments.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbmmopt.cli import main
from bbmmopt.cli.parsing import prior_from, space_from
from bbmmopt.problem import Problem
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from bbmmopt.storage import open_storage
from bbmmopt.study import Study
from tests.bbmmopt.fuzz import any_json, attempt, damaged, examples, nasty
from tests.bbmmopt.shell import SVM, run

CODES = {int(code) for code in re.findall(r"^ +(\d+)  \w", main.help or "", re.MULTILINE)} - {1}
SPACE = Space(
    {
        "C": Real(1e-3, 1e3, log=True),
        "kernel": Categorical(["rbf", "poly", True, 1.5]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
        "size": Ordinal([8, 16]),
    }
)
PRIOR = {"C": {"near": 1, "factor": 10}, "kernel": {"weights": {"rbf": 2}}}
POINT = {"C": 1.0, "kernel": "poly", "degree": 3, "size": 8}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A directory with a study of trials in every state, and with files that are none."""
    home = tmp_path_factory.mktemp("template")
    problem = Problem.make(SPACE, minimize="loss", constraints="size <= 3")
    with Study(problem, seed=0, n_start=10**6, storage=home / "study.db") as study:
        study.tell(study.enqueue(POINT), {"loss": 0.5, "size": 1})
        study.tell(study.enqueue({"C": 2.0, "kernel": "rbf", "size": 16}), failed="burnt\n[red]")
        study.enqueue(POINT | {"C": 3.0})
        study.enqueue(POINT | {"C": 4.0})
        study.storage.claim("default", worker="w")
    (home / "junk.db").write_bytes(b"no database" * 100)
    (home / "empty.db").touch()
    (home / "space.json").write_text(json.dumps(SVM))
    (home / "dir").mkdir()
    return home


@pytest.fixture
def here(template, tmp_path, monkeypatch) -> Path:
    """Where commands are run, a directory that each example fills anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BBMMOPT_DEBUG", raising=False)
    return tmp_path


def fresh(template: Path, here: Path) -> None:
    for path in here.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(template, here, dirs_exist_ok=True)


def stored() -> object:
    """All there is in the study."""
    with open_storage("study.db") as storage:
        trials, revision = storage.changes("default")
        return storage.studies(), revision, repr(trials), repr(storage.events("default"))


# --------------------------------------------------------------------------------------
# What somebody might write
# --------------------------------------------------------------------------------------

# What a shell can hand over: no NUL, and bytes that are no UTF-8 as lone surrogates.
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8
) | st.sampled_from(
    [
        "",
        " ",
        "-",
        "--",
        "-1",
        "=",
        "x=",
        "=1",
        "nan",
        "None",
        "{}",
        "[",
        "\udc80",
        "a\nb",
        "\r\x85",
    ]
)
paths = st.sampled_from(
    [
        *["study.db"] * 12,
        *(
            "new.db",
            "junk.db",
            "empty.db",
            "dir",
            ".",
            "/",
            "no/such/dir.db",
            "~nobody/x.db",
            "~no-such-user/x.db",
        ),
        *("space.json", "sqlite:///study.db", "sqlite://", "x://y", "://", "a" * 300, "study.db/x"),
    ]
)
numbers = st.sampled_from(
    [
        *("0.5", "-1e3", "nan", "inf", "-inf", "1e999", "1_0", "٣", "0x1", "loss=0.5", "loss=nan"),
        *("size=1", "size=inf", "loss=", "loss=x", "los=1", "=1", "loss=0.5=", "0.5 "),
    ]
)
assignments = st.sampled_from(
    [
        *("C=1", "C=0", "C=1e999", "C=nan", "c=1", "kernel=rbf", "kernel=rfb", "kernel=true"),
        *("kernel=1.50", "degree=3", "degree=2.5", "degree=" + "9" * 30, "size=8", "size=12"),
        *("size=", "=8", "kernle=rbf"),
    ]
)
documents = st.one_of(
    damaged(SPACE.to_json()).map(json.dumps),
    damaged(SVM).map(json.dumps),
    damaged(PRIOR).map(json.dumps),
    damaged(POINT).map(json.dumps),
    any_json.map(json.dumps),
    st.sampled_from([SVM, PRIOR, POINT]).map(json.dumps),
    st.sampled_from(["-", "space.json", "dir", "junk.db", "{" * 10**5, '{"a":' * 10**5, "{}"]),
)
# By the name of an option or argument; whatever is not here gets any text.
PLAUSIBLE: dict[str, st.SearchStrategy[str]] = {
    "where": paths,
    "storage": paths,
    "number": st.sampled_from(["0", "1", "2", "3", "4", "99999999999999999999999", "-1", "1.0"]),
    "step": st.sampled_from(["0", "1", "7", "99999999999999999999999", "-1", "1.0"]),
    "values": numbers,
    "value": numbers,
    "se": numbers,
    "n": st.sampled_from(["1", "2", "0", "-1", "1.5"]),  # a huge number would be worked off
    "fixed": assignments,
    "param": assignments,
    "perturbation": assignments,
    "reference_point": numbers,
    "params": documents,
    "space": documents,
    "prior": documents,
    "timeout": st.sampled_from(["1", "nan", "inf", "0", "-1", "1e999", "1e-300"]),
    "lease": st.sampled_from(["1", "nan", "inf", "0", "-1", "1e999", "1e-300"]),
    "n_start": st.sampled_from(["1", "0", "9" * 30]),
    "budget": st.sampled_from(["1", "0", "9" * 30]),
    "seed": st.sampled_from(["1", "-1", "9" * 30, "1.0", "9" * 5000]),
    "minimize": st.sampled_from(["loss", "loss", "a b", "C", ""]),
    "maximize": st.sampled_from(["loss", "gain", "", "="]),
    "constraint": st.sampled_from(
        ["size", "size <= 3", "<=", "a >= b", "loss", "x <= inf", ">= 1"]
    ),
    "study": st.sampled_from(["default", "defualt", "", "new"]),
    "output": st.sampled_from(["picture.txt", "dir", "no/such/dir.png", "", "study.db"]),
}


def written(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """A value of an option or argument: most often one that makes sense."""
    kind = parameter.type
    choices = list(kind.choices) if isinstance(kind, click.Choice) else []
    sensible = st.sampled_from(choices) if choices else PLAUSIBLE.get(parameter.name or "", texts)
    # Any text at all, but digits where numbers are asked for: those are worked off.
    wild = st.just("junk") if isinstance(kind, click.types.IntParamType) else texts
    return st.one_of(sensible, sensible, sensible, sensible, wild)


@st.composite
def command_lines(draw: Any) -> list[str]:
    """A command with its arguments and some of its options, seldom too few or too many."""
    name = draw(st.sampled_from(sorted(main.commands)))
    line: list[str] = []
    for parameter in main.commands[name].params:
        if "--debug" in parameter.opts:
            continue  # shows tracebacks
        most = 3 if parameter.multiple or parameter.nargs == -1 else 1
        is_argument = isinstance(parameter, click.Argument)
        least = int(parameter.required) if draw(st.integers(0, 9)) else 0
        for _ in range(draw(st.integers(least, max(most if is_argument else 1, least)))):
            line += [] if is_argument else [draw(st.sampled_from(parameter.opts))]
            if not getattr(parameter, "is_flag", False):
                line.append(draw(written(parameter)))
    if draw(st.integers(0, 9)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(texts))
    return [name, *line]


def check(line: list[str], stdin: str) -> None:
    """What every command line gets, in a directory with a study."""
    before = stored()
    result = run(*line, stdin=stdin)
    said = result.stderr.splitlines()
    if result.exit_code == 0:
        assert all(text.startswith(("Warning: ", "Study ")) for text in said)
    else:
        assert result.exit_code in CODES, (result.exit_code, result.output)
        assert [text.startswith("Error: ") for text in said if "Warning: " not in text] == [True]
    # A doctor tells what he saw on stdout, whatever he found.
    printed = [] if result.exit_code == 7 else result.stdout.splitlines()
    if result.exit_code or "--json" in line or (printed and printed[0].startswith("{")):
        assert all(isinstance(json.loads(text), dict) for text in printed)
    if result.exit_code in (2, 3):
        assert not printed
        assert stored() == before


@given(command_lines(), documents)
@examples(100)
def test_any_command_line_ends_as_documented(template, here, line, stdin):
    fresh(template, here)
    check(line, stdin)


@given(st.lists(texts | st.sampled_from(sorted(main.commands)) | paths, max_size=4))
@examples(40)
def test_any_words_end_as_documented(template, here, words):
    fresh(template, here)
    check([word for word in words if word not in ("--debug", "--help", "--version")] or ["x"], "")


# --------------------------------------------------------------------------------------
# JSON in options
# --------------------------------------------------------------------------------------


@given(damaged(SPACE.to_json()) | damaged(SVM) | nasty)
@examples(400)
def test_any_space_is_read_or_refused(data):
    space, refused = attempt(lambda: space_from(json.dumps(data)))
    assert refused or Space.from_json(space.to_json()) == space


@given(damaged(PRIOR) | nasty)
@examples(300)
def test_any_prior_is_read_or_refused(data):
    def study() -> Study:
        return Study(SPACE, minimize="f", prior=prior_from(SPACE, json.dumps(data)))

    opened, refused = attempt(study)
    assert refused or set(opened.settings.get("prior", {})) == set(data)


@given(st.sampled_from(["--space", "--prior"]), documents, documents)
@examples(40)
def test_a_study_is_created_or_no_file_is_made(template, here, option, text, stdin):
    fresh(template, here)
    other = {"--space": json.dumps(SPACE.to_json())} | {option: text}
    line = [word for pair in other.items() for word in pair]
    result = run("create", "new.db", "--minimize", "f", *line, stdin=stdin)
    assert result.exit_code in (0, 2), result.output
    assert Path("new.db").exists() == (result.exit_code == 0)
