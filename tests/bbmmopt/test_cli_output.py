"""Facts about `bbmmopt …`: what it shows, and what it says when there is nothing."""

import json
from pathlib import Path

import pytest

from bbmmopt import Optimizer
from tests.bbmmopt.shell import LINE, UNICODE, create, line, lines, ok, refused, run, state_of

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")


# --------------------------------------------------------------------------------------
# Looking
# --------------------------------------------------------------------------------------


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
