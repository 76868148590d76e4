"""Facts about TAB: bash, zsh and fish are offered commands, studies, parameters, trials."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bbmmopt.cli import main
from tests.bbmmopt.shell import LINE, SVM, create, line, lines

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")

SHELLS = ["bash", "zsh", "fish"]


def completed(words: str, shell: str = "bash", **variables: str) -> list[str]:
    """What is offered for the last of these words: their values, without kinds and helps."""
    *before, last = words.split(" ")
    cword = last if shell == "fish" else str(len(before))
    line = " ".join(before) if shell == "fish" else words
    env = {"_MAIN_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": cword}
    result = CliRunner().invoke(main, [], env=env | variables)
    assert (result.exit_code, result.stderr) == (0, "")
    found = result.stdout.splitlines()
    if shell == "zsh":
        return found[1::3]
    found = [text for text in found if text]
    return [text.partition(",")[2].partition("\t")[0] for text in found]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_study_holds_is_offered(shell, a_run):
    def offered(words: str) -> list[str]:
        return completed(f"bbmmopt {words}", shell)

    assert "doctor" in offered("")
    assert offered("exp") == ["explain", "export"]
    assert offered("plot pos") == ["posterior"]
    assert offered(f"trials {a_run} --state fa") == ["failed"]
    assert offered(f"tell {a_run} ") == ["3"]
    assert offered(f"show {a_run} ") == ["0", "1", "2", "3"]
    assert offered(f"ask {a_run} --fixed ") == ["C=", "kernel=", "degree="]
    assert offered(f"ask {a_run} --fixed ke") == ["kernel="]
    assert offered(f"add {a_run} 1 --param kernel=") == ["kernel=rbf", "kernel=poly"]
    assert offered(f"add {a_run} 1 --param kernel=p") == ["kernel=poly"]


@pytest.mark.parametrize("shell", SHELLS)
def test_studies_are_offered_and_then_go_by(shell):
    create(LINE, "--minimize", "loss", "--study", "first")
    create(SVM, "--maximize", "gain", "--study", "second")
    assert completed("bbmmopt trials study.db --study ", shell) == ["first", "second"]
    assert completed("bbmmopt ask study.db --fixed ", shell) == []
    assert completed("bbmmopt ask study.db --study first --fixed ", shell) == ["x="]


def test_the_variable_stands_for_the_storage(a_run):
    where = {"BBMMOPT_STORAGE": a_run}
    assert completed("bbmmopt tell ", **where) == ["3"]
    assert completed("bbmmopt show ", **where) == ["0", "1", "2", "3"]
    assert completed("bbmmopt ask --fixed k", **where) == ["kernel="]
    assert completed("bbmmopt add 1 --param k", **where) == ["kernel="]
    assert completed("bbmmopt trials ", **where) == [""]  # any file


@pytest.mark.parametrize("where", ["nothing.db", "junk.db", "empty.db", "x://y", ".", "''"])
def test_where_nothing_can_be_read_nothing_is_offered_or_made(where):
    Path("junk.db").write_text("no database " * 100)
    Path("empty.db").touch()
    before = sorted(os.listdir())
    for words in ("ask {} --study ", "ask {} --fixed ", "show {} "):
        assert completed(f"bbmmopt {words.format(where)}") == []
    assert sorted(os.listdir()) == before


def test_looking_for_completions_leaves_a_storage_as_it_is(a_run):
    before = Path(a_run).read_bytes()
    completed(f"bbmmopt show {a_run} ")
    assert Path(a_run).read_bytes() == before
    assert os.listdir() == [a_run]


def test_no_more_numbers_are_offered_than_anybody_reads():
    create()
    for k in range(101):
        line("add", "study.db", k, "--param", f"x={k / 100}")
    assert len(completed("bbmmopt show study.db ")) == 100
    assert completed("bbmmopt show study.db 100") == ["100"]
    assert len(lines("trials", "study.db", "--json")) == 101


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_given_a_script(shell):
    env = {"_MAIN_COMPLETE": f"{shell}_source"}
    result = CliRunner().invoke(main, [], env=env)
    assert result.exit_code == 0
    assert f"_MAIN_COMPLETE={shell}_complete" in result.stdout


def test_bash_completes_as_the_help_says(a_run):
    program = Path("bin/bbmmopt")
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bbmmopt "$@"\n')
    program.chmod(0o755)
    script = """
        PATH=$PWD/bin:$PATH
        eval "$(_BBMMOPT_COMPLETE=bash_source bbmmopt)"
        COMP_WORDS=(bbmmopt tell study.db "") COMP_CWORD=3
        _bbmmopt_completion bbmmopt
        echo "${COMPREPLY[@]}"
        complete -p bbmmopt
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "3", done.stderr
    assert "-F _bbmmopt_completion bbmmopt" in done.stdout
