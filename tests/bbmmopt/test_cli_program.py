"""Facts about `bbmmopt …` as a program: help, exit codes, interrupts, pipes."""

import json
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from bbmmopt.cli import main
from tests.bbmmopt.shell import UNICODE, create, line, ok, refused, run

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")

ROOT = Path(__file__).resolve().parents[2]


# --------------------------------------------------------------------------------------
# When something is wrong
# --------------------------------------------------------------------------------------


def test_help_documents_the_exit_codes_and_completion():
    text = ok("--help")
    for code in (*range(8), 130):
        assert f"\n  {code:>3}  " in text
    assert "_BBMMOPT_COMPLETE=bash_source" in text
    assert ok() == text
    assert '{"real": [0.001, 1000], "log": true}' in ok("create", "--help")


@pytest.mark.parametrize("command", main.commands)
def test_each_command_has_a_help_of_its_own(command):
    text = ok(command, "--help")
    assert text.startswith(f"Usage: main {command} ")
    assert "STORAGE" in text
    assert ("--study" in text) == (command not in ("studies", "doctor"))


@pytest.mark.parametrize("arguments", [["akk"], ["trials"], ["trials", "a", "--jsn"], ["--foo"]])
def test_wrong_usage_is_one_line_that_points_to_the_help(arguments):
    assert "--help'" in refused(2, *arguments)


@pytest.fixture
def broken(in_an_empty_directory, monkeypatch) -> None:
    """A bug in `show`."""

    def explain(*_: object) -> str:
        raise ValueError("two\nlines")

    monkeypatch.setattr("bbmmopt.cli.looking.explained", explain)
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

    monkeypatch.setattr("bbmmopt.cli.looking.explained", interrupted)
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


def program(*arguments: str, **options) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [sys.executable, "-m", "bbmmopt", *arguments],
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"} | options.pop("env", {}),
        encoding="utf-8",
        timeout=300,
        check=False,
        **options,
    )


def test_the_entry_point_is_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["bbmmopt"].split(":")
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import {name}; {name}()", "--version"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("bbmmopt, version ")


@pytest.mark.parametrize("module", ["bbmmopt.cli.commands", "numpy", "sqlalchemy"])
def test_ctrl_c_while_the_program_is_still_being_loaded_is_no_traceback_either(module):
    code = f"""
    import sys
    from bbmmopt.__main__ import main

    class Pressed:
        def find_spec(self, name, path=None, target=None):
            if name == {module!r}:
                raise KeyboardInterrupt

    sys.meta_path.insert(0, Pressed())
    sys.argv = ["bbmmopt", "studies", "study.db"]
    main()
    """
    create()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "Interrupted.")


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


# Runs commands one after the other as `python -m bbmmopt` would, and says after each how it ended
# and which libraries are there by then.
LOADING = """
import contextlib, io, json, sys
from bbmmopt.__main__ import main

for command in json.loads(sys.argv[1]):
    sys.argv = ["bbmmopt", *command.split()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as end:
        code = end.code
    libraries = {"torch", "scipy", "matplotlib", "rich", "numpy.ma", "bbmmopt.cli.commands"}
    print(json.dumps([command, code, sorted(libraries & set(sys.modules))]))
"""


def loaded_by(*commands: str) -> dict[str, set[str]]:
    """Of each command the libraries that were loaded when it was done."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING, json.dumps(commands)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {}
    for text in done.stdout.splitlines():
        command, code, libraries = json.loads(text)
        assert code == 0, f"{command} ended with {code}: {done.stderr}"
        assert "bbmmopt.cli.commands" in libraries
        loaded[command] = set(libraries)
    assert list(loaded) == list(commands)
    return loaded


@pytest.mark.usefixtures("a_run")
def test_nothing_but_asking_waits_for_torch_wait_for_torch():
    loaded = loaded_by(
        "--help",
        "trials study.db",
        "trials study.db --json",
        "show study.db 0",
        "best study.db",
        "explain study.db 0",
        "events study.db",
        "studies study.db",
        "export study.db",
        "doctor study.db",
        "report study.db 3 1 0.5",
        "renew study.db 3",
        "note study.db 3 by=ann",
        "enqueue study.db --param C=1 --param kernel=rbf",
        "tell study.db 3 0.5",
    )
    for command, libraries in loaded.items():
        assert not libraries & {"torch", "scipy", "matplotlib"}, f"loaded by {command}, or before"


@pytest.mark.usefixtures("a_run")
def test_what_a_script_calls_loads_neither_tables_nor_masked_arrays():
    loaded = loaded_by(
        "show study.db 0 --json",
        "report study.db 3 1 0.5",
        "enqueue study.db --param C=1 --param kernel=rbf",
        "tell study.db 3 0.5",
    )
    for command, libraries in loaded.items():
        assert not libraries & {"rich", "numpy.ma"}, f"loaded by {command}, or before"
    assert "rich" in loaded_by("show study.db 0")["show study.db 0"]  # it would be noticed


def test_a_reader_that_goes_away_leaves_no_traceback(a_run):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = program("trials", a_run, "--json", stdout=writer)
        table = program("trials", a_run, stdout=writer)
        export = program("export", a_run, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert (table.returncode, table.stderr) == (1, "")
    assert (export.returncode, export.stderr) == (1, "")


def test_a_terminal_that_knows_only_ascii_is_no_reason_to_fail():
    create(UNICODE)
    line("ask", "study.db")
    done = program("trials", "study.db", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "gr\\xf6\\xdfe \\u2603" in done.stdout
