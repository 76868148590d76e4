"""Facts about `bbmmopt create`: what guides a search is described by options as it is in Python."""

import json
from pathlib import Path

import pytest

from bbmmopt import Near, Optimizer, Study, SuccessiveHalving
from tests.bbmmopt.shell import LINE, create, line, lines, ok, refused

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")

MIXED = {
    "rate": {"real": [1e-5, 1e-1], "log": True},
    "width": {"real": [-2, 8]},
    "depth": {"integer": [1, 10]},
    "grade": {"ordinal": ["low", "medium", "high"]},
    "kernel": {"categorical": ["rbf", "poly", 3, True, "3"]},
    "a=b": {"real": [0, 1]},
}
PRIOR = {
    "rate": {"near": 0.001, "factor": 10},
    "depth": {"near": 6, "spread": 2},
    "grade": {"near": "high", "spread": 1},
    "kernel": {"weights": {"poly": 4, "true": 2, "3": 0.5, '"3"': 7}},
}
IN_PYTHON = {
    "rate": Near(0.001, factor=10),
    "depth": Near(6, spread=2),
    "grade": Near("high", spread=1),
    "kernel": {"poly": 4, True: 2, 3: 0.5, "3": 7},
}


def settings() -> dict:
    with Study.open("study.db") as study:
        return study.settings


def as_in_python(space: dict, **options) -> dict:
    """The settings of the same study, made by the library."""
    create(space, "--minimize", "loss", where="plain.db")
    with Study.open("plain.db") as study:
        return Study(study.space, minimize="loss", **options).settings


# --------------------------------------------------------------------------------------
# What is described
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["file", "stdin", "inline"])
def test_a_prior_is_read_from_anywhere(source):
    text = json.dumps(PRIOR)
    Path("prior.json").write_text(text)
    given = {"file": "prior.json", "stdin": "-", "inline": text}[source]
    space = json.dumps(MIXED)
    options = ("--space", space, "--minimize", "loss", "--prior", given)
    line("create", "study.db", *options, stdin=text)
    assert settings() == as_in_python(MIXED, prior=IN_PYTHON)
    assert settings()["prior"]["kernel"] == {"weights": [1.0, 4.0, 0.5, 2.0, 7.0]}


def test_every_option_reaches_the_study():
    create(
        *(MIXED, "--minimize", "loss", "--budget", 30, "--cost", "seconds", "--risk", 0.8),
        *("--perturbation", "a=b=0.1", "--perturbation", "width=2", "--acquisition", "robust"),
        *("--strategy", "global", "--n-start", 4),
    )
    options = {"budget": 30, "cost": "seconds", "risk": 0.8, "acquisition": "robust"}
    options |= {"perturbation": {"width": 2, "a=b": 0.1}, "strategy": "global", "n_start": 4}
    assert settings() == as_in_python(MIXED, **options)
    assert options.items() <= settings().items()


def test_risk_may_be_the_mean():
    create(LINE, "--minimize", "loss", "--perturbation", "x=0.5", "--risk", "mean")
    assert settings()["risk"] == "mean"


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("median", {"rule": "median", "start_trials": 5, "warmup_steps": 0, "interval": 1}),
        ('{"rule": "halving", "min_steps": 3}', SuccessiveHalving(3).to_json()),
    ],
)
def test_a_stopping_rule_is_given_by_its_name_or_in_json(given, rule):
    create(LINE, "--minimize", "loss", "--early-stopping", given)
    assert settings()["early_stopping"] == rule


def test_a_reference_point_is_given_by_name():
    objectives = ("--minimize", "loss", "--maximize", "a=b", "--constraint", "weight <= 2")
    create(LINE, *objectives, "--reference-point", "a=b=-1", "--reference-point", "loss=2e3")
    with Study.open("study.db") as study:
        assert study.problem.reference_point == {"loss": 2000.0, "a=b": -1.0}
        assert [str(c) for c in study.problem.constraints] == ["weight ≤ 2"]


def test_what_is_not_given_is_not_stored():
    create()
    assert not settings().keys() & {"prior", "cost", "perturbation", "risk", "early_stopping"}


# --------------------------------------------------------------------------------------
# What they do
# --------------------------------------------------------------------------------------


def test_the_start_comes_from_the_prior_and_the_shell_says_so():
    prior = {"x": {"near": 3, "spread": 0.1}}
    create(LINE, "--minimize", "loss", "--prior", json.dumps(prior))
    asked = lines("ask", "study.db", "-n", 4)
    assert abs(asked[1]["params"]["x"] - 3) < 0.5
    assert abs(asked[3]["params"]["x"] - 3) < 0.5
    with Optimizer(
        {"x": Optimizer.open("study.db").space.parameters["x"]},
        minimize="loss",
        prior={"x": Near(3, spread=0.1)},
        seed=0,
    ) as optimizer:
        assert [trial.params for trial in optimizer.ask(4)] == [t["params"] for t in asked]
    assert "drawn from what you believe" in ok("show", "study.db", 1)


def test_creating_it_again_with_another_prior_is_refused():
    prior = {"x": {"near": 3, "spread": 0.1}}
    options = (LINE, "--minimize", "loss", "--prior")
    assert create(*options, json.dumps(prior))["created"] is True
    assert create(*options, json.dumps(prior))["created"] is False
    assert create()["created"] is False  # what is left out is as it was
    prior["x"]["near"] = 4
    space = json.dumps(LINE)
    command = ("create", "study.db", "--space", space, "--minimize", "loss", "--prior")
    assert "prior: was" in refused(2, *command, json.dumps(prior))


# --------------------------------------------------------------------------------------
# The door
# --------------------------------------------------------------------------------------


def test_help_says_how_a_prior_is_written():
    text = ok("create", "--help")
    assert '"kernel": {"weights": {"rbf": 2}}' in text
    for option in ("--prior", "--cost", "--perturbation", "--risk", "--reference-point"):
        assert option in text


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("{", "the prior is not JSON"),
        ("nothing.json", "nothing.json cannot be read"),
        ('{"x": {"near": 1, "spread": 1}}', "prior: unknown parameter 'x'"),
        ('{"widht": {"near": 1, "spread": 1}}', "Did you mean 'width'?"),
        ('{"x": {"weights": {"a": 1}}}', "prior: unknown parameter 'x'"),
        ('{"width": 3}', "prior: parameter 'width': write {\"near\": value"),
        ('{"width": {"near": 1, "std": 1}}', "prior: parameter 'width': write"),
        ('{"width": {"spread": 1}}', "prior: parameter 'width': write"),
        ('{"kernel": {"rbf": 2}}', "prior: parameter 'kernel': write"),
        ('{"kernel": {"weights": [1, 2]}}', "prior: parameter 'kernel': write"),
        ('{"width": {"near": 1, "factor": 2}}', "Near needs spread= here"),
        ('{"width": {"near": 9, "spread": 2}}', "is outside [-2.0, 8.0]"),
        ('{"width": {"near": 1, "spread": "2"}}', "must be a number"),
        ('{"kernel": {"weights": {"sigmoid": 1}}}', "expected one of"),
        ('{"kernel": {"weights": {"true": 1, "True": 2}}}', "choice True came twice"),
        ('{"kernel": {"weights": {}}}', "says nothing"),
        ('{"kernel": {"weights": {"rbf": 1}}, "kernel": {}}', "'kernel' came twice"),
    ],
)
def test_a_wrong_prior_is_refused_and_no_file_is_made(prior, message):
    options = ("--space", json.dumps(MIXED), "--minimize", "loss", "--prior", prior)
    assert message in refused(2, "create", "study.db", *options)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--perturbation", "width"], "--perturbation takes name=number; got 'width'"),
        (["--perturbation", "width=x"], "--perturbation takes name=number; got 'width=x'"),
        (["--perturbation", "width=1", "--perturbation", "width=2"], "was given twice"),
        (["--perturbation", "depth=1"], "only a Real can vary"),
        (["--perturbation", "width=0"], "must be positive"),
        (["--perturbation", "widht=1"], "Did you mean 'width'?"),
        (["--perturbation", "width=1", "--risk", "much"], "risk must be"),
        (["--perturbation", "width=1", "--risk", "1"], "risk must be"),
        (["--perturbation", "width=1", "--constraint", "c"], "no constraints on outcomes"),
        (["--risk", "0.9"], "give perturbation="),
        (["--cost", "money"], "'money' is not"),
        (["--cost", "seconds", "--acquisition", "ucb"], "cannot take cost into account"),
        (["--early-stopping", "medain"], "one of median, percentile, halving, hyperband"),
        (["--early-stopping", "hyperband"], "Missing: min_steps, max_steps"),
        (["--early-stopping", "{"], "the stopping rule is not JSON"),
        (
            ["--early-stopping", "median", "--maximize", "gain"],
            "early_stopping is for one objective",
        ),
        (["--reference-point", "loss"], "--reference-point takes name=number"),
        (["--reference-point", "gain=1"], "reference_point must have a value for 'loss'"),
        (["--reference-point", "loss=inf"], "reference_point must be finite"),
    ],
)
def test_wrong_options_are_refused_and_no_file_is_made(options, message):
    command = ("create", "study.db", "--space", json.dumps(MIXED), "--minimize", "loss")
    assert message in refused(2, *command, *options)
    assert list(Path().iterdir()) == []


def test_stdin_is_read_once():
    options = ("--space", "-", "--prior", "-", "--minimize", "loss")
    assert "both be read from stdin" in refused(2, "create", "study.db", *options, stdin="{}")
