"""Facts about `bbmmopt extend`, and about `bbmmopt create --warm-start`."""

import json

import pytest

from tests.bbmmopt.shell import create, line, lines, ok, refused, run

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")

SPACE = {"x": {"real": [0, 1]}, "k": {"categorical": ["a", "b"]}}
WIDER = {"x": {"real": [0, 2]}, "m": {"real": [0, 1]}}


@pytest.fixture
def three_trials(in_an_empty_directory: None) -> str:
    """Two with k = a, one with k = b."""
    create(SPACE)
    for x, k in ((0.25, "a"), (0.5, "b"), (0.75, "a")):
        line("add", "study.db", x, "--param", f"x={x}", "--param", f"k={k}")
    return "study.db"


def extend(*options: object) -> dict:
    return line("extend", "study.db", *options)


def test_it_says_what_differs_and_what_becomes_of_trials_before_it_does_it(three_trials):
    options = ("--space", json.dumps(WIDER), "--former", "m=0.9", "--former", "k=a")
    planned = extend(*options, "--dry-run")
    assert not planned["extended"]
    assert "parameter 'x': high was 1.0 and is now 2.0." in planned["differences"]
    assert (planned["trials"], planned["training"]) == (3, 2)
    assert "1 as 'k', which is no parameter any more, was not 'a'" in planned["concerns"][0]
    assert [e["kind"] for e in lines("events", "study.db", "--json")][-1] == "added"
    done = extend(*options)
    assert done == planned | {"extended": True, "generation": 1}
    assert extend(*options) == planned | {"generation": 1, "differences": []}
    assert "m" in line("ask", "study.db")["params"]
    assert len(lines("trials", "study.db", "--json")) == 4


def test_settings_noise_and_constraints_change_without_a_space(three_trials):
    done = extend("--budget", 40, "--noise", "none", "--constraint", "g <= 3")
    assert sorted(text.split(":")[0] for text in done["differences"]) == [
        "budget",
        "constraints",
        "objective 'loss'",
    ]
    assert "3 trials have no value of constraint 'g'" in done["concerns"][0]
    assert done["training"] == 3


def test_what_makes_no_sense_is_refused(three_trials):
    assert "Did you mean 'm'" in refused(
        2, "extend", "study.db", "--space", json.dumps(WIDER), "--former", "mm=1"
    )
    assert "'x' was given twice" in refused(
        2, "extend", "study.db", "--former", "x=1", "--former", "x=2"
    )
    refused(3, "extend", "other.db", "--budget", 3)
    assert extend("--dry-run")["generation"] == 0


def test_an_old_trial_is_explained_after_its_parameters_have_changed(three_trials):
    before = ok("explain", "study.db", 0)
    extend("--space", json.dumps(WIDER), "--former", "m=0.9", "--former", "k=a")
    assert ok("explain", "study.db", 0) == before


def test_a_new_study_begins_with_the_results_of_another(three_trials):
    options = ("--minimize", "loss", "--warm-start", "study.db#default", "--former", "k=a")
    result = run("create", "new.db", "--space", json.dumps({"x": {"real": [0, 2]}}), *options)
    assert result.exit_code == 0
    assert "1 of 3 results of study.db#default are left out" in result.stderr
    found = lines("trials", "new.db", "--json")
    assert [(t["params"], t["values"]) for t in found] == [
        ({"x": 0.25}, {"loss": 0.25}),
        ({"x": 0.75}, {"loss": 0.75}),
    ]
    assert "taken along from study.db#default" in ok("explain", "new.db", 1)


def test_a_warm_start_that_cannot_be_makes_no_file(three_trials, tmp_path):
    message = refused(
        *(3, "create", "new.db", "--space", json.dumps(SPACE), "--minimize", "loss"),
        *("--warm-start", "missing.db"),
    )
    assert "there is no file 'missing.db'" in message
    message = refused(
        *(2, "create", "new.db", "--space", json.dumps(SPACE), "--minimize", "loss"),
        *("--former", "k=a"),
    )
    assert "--former goes with --warm-start" in message
    assert not (tmp_path / "new.db").exists()
