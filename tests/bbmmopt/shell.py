"""`bbmmopt …` in the process of the tests, for the test files of the command line."""

import json

from click.testing import CliRunner, Result

from bbmmopt.cli import main

SVM = {
    "C": {"real": [0.001, 1000], "log": True},
    "kernel": {"categorical": ["rbf", "poly"]},
    "degree": {"integer": [2, 5], "when": {"kernel": "poly"}},
}
LINE = {"x": {"real": [-5, 5]}}
UNICODE = {
    "größe ☃": {"real": [0, 1]},
    "$float": {"integer": [0, 3]},
    "色": {"ordinal": ["赤", "青"]},
}


def run(*arguments: object, stdin: str | None = None) -> Result:
    """A command, whatever comes of it."""
    return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)


def ok(*arguments: object, stdin: str | None = None) -> str:
    """What a command printed that must do."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def lines(*arguments: object, stdin: str | None = None) -> list[dict]:
    """The JSON objects that it printed."""
    return [json.loads(line) for line in ok(*arguments, stdin=stdin).splitlines()]


def line(*arguments: object, stdin: str | None = None) -> dict:
    """The only one."""
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
    """A study of one objective, unless options say otherwise."""
    options = options or ("--minimize", "loss")
    return line("create", where, "--space", json.dumps(space or LINE), "--seed", 0, *options)


def state_of(number: int) -> dict:
    """All that is known of a trial."""
    return line("show", "study.db", number, "--json")
