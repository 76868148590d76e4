"""Facts about `bbmmopt …`: reports, leases, notes, points in line; what shell scripts read."""

import json
import os
import subprocess
import time

import pytest

from bbmmopt import Optimizer, Study
from tests.bbmmopt.shell import LINE, SVM, create, line, lines, ok, refused, run, state_of

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")


# --------------------------------------------------------------------------------------
# Reports
# --------------------------------------------------------------------------------------


def test_a_report_is_kept_and_answered():
    create()
    line("ask", "study.db")
    said = line("report", "study.db", 0, 3, -0.5)
    assert said == {"number": 0, "step": 3, "value": -0.5, "should_stop": False, "reason": None}
    assert line("report", "study.db", 0, 4, "nan")["value"] == "nan"
    line("report", "study.db", 0, 3, "1e-3")
    with Study.open("study.db") as study:
        assert repr(study.curves) == repr({0: {3: 0.001, 4: float("nan")}})


def test_a_trial_that_falls_behind_is_told_to_stop_and_why():
    create(LINE, "--minimize", "loss", "--early-stopping", "median")
    lines("ask", "study.db", "-n", 7)
    for number in range(6):
        for step in range(3):
            line("report", "study.db", number, step, number / 10)
    said = line("report", "study.db", 6, 2, 9)
    assert said["should_stop"] is True
    with Study.open("study.db") as study:
        assert said["reason"] == study.should_stop(6)
    told = line("tell", "study.db", 6, "--pruned", said["reason"])
    assert (told["state"], told["reason"], told["values"]) == ("pruned", said["reason"], None)
    assert line("report", "study.db", 0, 3, 0)["should_stop"] is False


def test_who_reports_on_an_ended_trial_is_told_to_stop():
    create()
    line("ask", "study.db")
    line("tell", "study.db", 0, 1)
    said = line("report", "study.db", 0, 1, 0.5)
    assert (said["should_stop"], "complete" in said["reason"]) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([0, 1, "x"], "VALUE must be a number; got 'x'"),
        ([0, -1, 1], "-1 is not in the range"),
        ([0, 1.5, 1], "'1.5' is not a valid integer"),
        ([0, 2**63, 1], "a step is an integer from 0 on"),
        ([7, 1, 1], "no trial 7"),
        ([0, 1], "Missing argument 'VALUE'"),
    ],
)
def test_a_wrong_report_is_refused_and_not_kept(arguments, message):
    create()
    line("ask", "study.db")
    assert message in refused(2, "report", "study.db", *arguments)
    with Study.open("study.db") as study:
        assert study.curves == {}


def test_one_way_to_end_a_trial_at_a_time():
    create()
    line("ask", "study.db")
    assert "not two" in refused(2, "tell", "study.db", 0, 1, "--pruned", "slow")
    assert "not two" in refused(2, "tell", "study.db", 0, "--failed", "x", "--pruned", "slow")
    assert "pruned= takes the reason" in refused(2, "tell", "study.db", 0, "--pruned", "")
    assert state_of(0)["state"] == "running"


# --------------------------------------------------------------------------------------
# Leases
# --------------------------------------------------------------------------------------


def test_a_trial_whose_lease_ran_out_goes_to_whoever_asks_next():
    create()
    first = line("ask", "study.db", "--worker", "ann", "--lease", 0.01)
    time.sleep(0.02)
    assert line("ask", "study.db", "--worker", "bob", "--lease", 1000) == first
    assert state_of(0)["worker"] == "bob"
    assert "run by worker 'bob'" in refused(6, "renew", "study.db", 0, "--worker", "ann")
    assert line("tell", "study.db", 0, 1)["state"] == "complete"
    assert "it is complete" in refused(6, "renew", "study.db", 0, "--worker", "bob")


def test_a_study_is_stopped_for_the_runs_that_go_on():
    create()
    with Study.open("study.db") as running:
        assert line("stop", "study.db", "--reason", "the reactor is down") == {
            "study": "default",
            "stopped": "the reactor is down",
        }
        assert running.stop_reason == "the reactor is down"
    assert line("ask", "study.db")["number"] == 0
    assert "reason to stop" in refused(2, "stop", "study.db", "--reason", " ")
    assert [event["kind"] for event in lines("events", "study.db", "--json")] == [
        "created",
        "stopped",
        "asked",
    ]


def test_a_lease_is_renewed_by_its_worker_and_by_reports():
    create()
    line("ask", "study.db", "--worker", "ann", "--lease", 1000)
    until = state_of(0)["lease_until"]
    said = line("renew", "study.db", 0, "--worker", "ann")
    assert said == {"number": 0, "worker": "ann", "lease": 1000.0}
    renewed = state_of(0)["lease_until"]
    line("report", "study.db", 0, 1, 1)
    assert until < renewed < state_of(0)["lease_until"]
    assert "no trial 5" in refused(2, "renew", "study.db", 5)


@pytest.mark.parametrize("lease", ["0", "-1", "nan", "inf", "x"])
def test_a_time_that_makes_no_sense_is_refused(lease):
    create()
    refused(2, "ask", "study.db", "--lease", lease)
    refused(2, "ask", "study.db", "--timeout", lease)
    assert lines("trials", "study.db", "--json") == []


# --------------------------------------------------------------------------------------
# Points in line, notes
# --------------------------------------------------------------------------------------


def test_an_enqueued_point_is_asked_first():
    create(SVM)
    expected = {"C": 10.0, "kernel": "poly", "degree": 3}
    options = ("--params", '{"C": 10, "kernel": "poly"}', "--param", "degree=3")
    assert line("enqueue", "study.db", *options) == {"number": 0, "params": expected}
    assert state_of(0)["state"] == "waiting"
    assert line("ask", "study.db") == {"number": 0, "params": expected}
    assert "parameter 'C' is missing" in refused(2, "enqueue", "study.db", "--param", "kernel=rbf")
    assert "parameter 'C' is missing" in refused(2, "enqueue", "study.db")


def test_notes_are_json_or_text():
    create()
    line("ask", "study.db")
    texts = ["by=ann", "batch=7", "ok=true", "at=[20.5, 21]", "a={}", "b=", "c=x=1", 'q="1"']
    expected = {"by": "ann", "batch": 7, "ok": True, "at": [20.5, 21], "a": {}, "b": "", "c": "x=1"}
    assert line("note", "study.db", 0, *texts)["attrs"] == expected | {"q": "1"}
    assert line("note", "study.db", 0, "by=bob")["attrs"]["by"] == "bob"
    assert state_of(0)["attrs"]["batch"] == 7


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (["by"], "a note is NAME=VALUE; got 'by'"),
        (["=1"], "a note is NAME=VALUE; got '=1'"),
        (["a={"], "note 'a' begins like JSON, but is none"),
        (['a={"b": 1, "b": 2}'], "note 'a': 'b' came twice"),
        (["a=1", "a=2"], "note 'a' was given twice"),
        (["a=" + "[" * 100_000], "note 'a' begins like JSON, but is none"),
        ([], "Missing argument 'NAME=VALUE...'"),
    ],
)
def test_a_wrong_note_is_refused(notes, message):
    create()
    line("ask", "study.db")
    assert message in refused(2, "note", "study.db", 0, "fine=1", *notes) if notes else True
    assert message in refused(2, "note", "study.db", 0, *notes)
    assert state_of(0)["attrs"] == {}


# --------------------------------------------------------------------------------------
# For shells
# --------------------------------------------------------------------------------------

NASTY = {
    "x": {"real": [-5, 5]},
    "lab name": {"categorical": ["a'b $(touch hacked) `touch hacked`", 'x"; touch hacked; "']},
    "mode": {"categorical": ["on", "off"]},
    "depth": {"integer": [1, 9], "when": {"mode": "on"}},
    "flag": {"categorical": [True]},
}


def evaluated(text: str, *names: str) -> list[str]:
    """The variables that bash has after it, stale ones from before included."""
    code = 'param_depth=stale; eval "$1"; shift; for n in "$@"; do echo "${!n-unset}"; done'
    done = subprocess.run(
        ["bash", "-euc", code, "bash", text, *names], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_what_a_shell_evaluates_is_the_point_and_nothing_else():
    create(NASTY)
    names = ("number", "param_x", "param_lab_name", "param_mode", "param_depth", "param_flag")
    for number, mode in enumerate(["on", "off"]):
        told = evaluated(ok("ask", "study.db", "--shell", "--fixed", f"mode={mode}"), *names)
        params = state_of(number)["params"]
        assert told[:2] == [str(number), json.dumps(params["x"])]
        assert told[2:4] == [params["lab name"], mode]
        assert told[4:] == [str(params.get("depth", "unset")), "true"]
    assert os.listdir() == ["study.db"]


def test_a_report_can_be_evaluated_too():
    create()
    line("ask", "study.db")
    text = ok("report", "study.db", 0, 1, 1, "--shell")
    assert evaluated(text, "should_stop", "reason") == ["false", ""]
    line("tell", "study.db", 0, "--failed", "it's over")
    text = ok("report", "study.db", 0, 2, 1, "--shell")
    assert evaluated(text, "should_stop", "reason")[0] == "true"


def test_names_that_a_shell_cannot_tell_apart_are_refused_before_asking():
    create({"a b": {"real": [0, 1]}, "a.b": {"real": [0, 1]}})
    said = refused(2, "ask", "study.db", "--shell")
    assert "two parameters would be called param_a_b" in said
    assert "--shell is for one trial" in refused(2, "ask", "study.db", "--shell", "-n", 2)
    assert lines("trials", "study.db", "--json") == []


# --------------------------------------------------------------------------------------
# Without naming the storage
# --------------------------------------------------------------------------------------


@pytest.fixture
def by_variable(in_an_empty_directory, monkeypatch) -> None:
    """A study that BBMMOPT_STORAGE stands for."""
    monkeypatch.setenv("BBMMOPT_STORAGE", "lab.db")
    line("create", "--space", json.dumps(LINE), "--minimize", "loss", "--seed", 0)


@pytest.mark.usefixtures("by_variable")
def test_a_variable_stands_for_the_storage():
    assert line("ask")["number"] == 0
    line("report", 0, 1, -0.5)
    line("renew", 0)
    line("note", 0, "by=ann")
    assert line("tell", 0, -1.5)["values"] == {"loss": -1.5}
    assert line("add", -0.5, "--param", "x=1")["number"] == 1
    assert line("add", "loss=-0.5", "--param", "x=2")["number"] == 2
    assert line("enqueue", "--param", "x=1.5")["number"] == 3
    assert line("show", 0, "--json")["attrs"] == {"by": "ann"}
    assert line("explain", 0, "--json")["number"] == 0
    assert line("best")["number"] == 0
    assert len(lines("trials", "--json")) == 4
    assert line("studies", "--json")["study"] == "default"
    assert len(lines("events", "--json")) == 7
    assert ok("export").count("\n") == 5
    assert ok("doctor")
    ok("plot", "history", "-o", "a.png")
    assert sorted(os.listdir()) == ["a.png", "lab.db"]


@pytest.mark.usefixtures("by_variable")
def test_a_storage_that_is_named_comes_before_the_variable():
    create(where="./3")
    assert create(where="3")["created"] is False
    assert "no file other.db" in refused(3, "tell", "other.db", 0, 1)
    assert "no trial 3" in refused(2, "tell", 3, 0)
    assert line("ask", "./3") == line("ask", "lab.db")
    assert line("tell", "--", "./3", 0, -1)["values"] == {"loss": -1}
    assert "Missing argument 'NUMBER'" in refused(2, "tell")


def test_without_the_variable_a_storage_must_be_named(monkeypatch):
    monkeypatch.delenv("BBMMOPT_STORAGE", raising=False)
    assert "Missing argument 'STORAGE'" in refused(2, "trials")
    assert "no file 0" in refused(3, "tell", 0, 1)


# --------------------------------------------------------------------------------------
# On a server
# --------------------------------------------------------------------------------------


def test_a_server_is_a_storage_like_any_other(postgres, postgres_url):
    def hidden(code: int, *arguments: object) -> str:
        said = refused(code, *arguments)
        assert postgres.password not in said
        return said

    assert "there is no study in postgresql+psycopg://" in hidden(3, "trials", postgres_url)
    create(where=postgres_url)
    asked = line("ask", postgres_url, "--worker", "ann", "--lease", 1000)
    assert line("report", postgres_url, 0, 0, 2)["should_stop"] is False
    assert line("renew", postgres_url, 0, "--worker", "ann")["lease"] == 1000
    assert line("tell", postgres_url, 0, 1)["params"] == asked["params"]
    assert "it holds: default" in hidden(3, "trials", postgres_url, "--study", "other")
    assert "no trial 9" in hidden(2, "show", postgres_url, 9)
    kinds = [event["kind"] for event in lines("events", postgres_url, "--json")]
    assert kinds == ["created", "asked", "told"]
    assert ok("export", postgres_url, "--curves") == "trial,step,value\n0,0,2.0\n"
    with Optimizer.open(postgres_url) as optimizer:
        assert optimizer.best.value == 1
    assert "there is no study" in refused(3, "trials", postgres_url, "--study", "default2")
    assert run("doctor", postgres_url).exit_code == 0
