"""Options of a study that minimize() and maximize() take: they do what they do to an Optimizer."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
from objectives import SPACE, bowl, params, quiet, states

from bbmmopt import Constraint, Near, Optimizer, StudyDiffers
from bbmmopt.execution import maximize, minimize
from bbmmopt.execution.calls import StudyOptions
from bbmmopt.storage import MemoryStorage

PRIOR = {"x": Near(0.5, spread=0.1), "y": Near(0.25, spread=0.05)}


def bowl_and_sum(x: float, y: float) -> dict[str, float]:
    return {"value": bowl(x, y), "sum": x + y}


def both(x: float, y: float) -> dict[str, float]:
    return {"a": x, "b": y}


def by_hand(objective: Any, n: int, **options: Any) -> list[dict[str, Any]]:
    """The points of the ask/tell loop."""
    optimizer = Optimizer(SPACE, seed=1, **options)
    for _ in range(n):
        trial = optimizer.ask()
        optimizer.tell(trial, objective(**trial.params))
    return [trial.params for trial in optimizer.trials]


# --------------------------------------------------------------------------------------
# The same as to Optimizer
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [minimize, maximize])
def test_together_they_take_all_that_an_optimizer_takes_for_one_trial_at_a_time(call: Any) -> None:
    taken = {*inspect.signature(call).parameters, *StudyOptions.__annotations__}
    # Not how batches are found: a run asks for one trial whenever a worker is free.
    elsewhere = {"minimize", "maximize", "batches"}
    wanted = {*inspect.signature(Optimizer).parameters} - elsewhere
    assert wanted <= taken
    text = inspect.getdoc(minimize) or ""
    assert all(name in text for name in wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"prior": PRIOR},
        {"perturbation": {"x": 0.2}},
        {"perturbation": {"x": 0.2}, "risk": 0.8},
        {"acquisition": "ucb"},
        {"strategy": "trust_region"},
        {"strategy": "sparse"},
        {"strategy": "ensemble"},
        {"budget": 40, "prior": PRIOR},
    ],
)
def test_an_option_is_stored_and_leads_where_it_leads_an_optimizer(options: dict) -> None:
    run: dict[str, Any] = {"n_trials": 7, "n_start": 4}
    result = quiet(**run, **options)
    settings = result.optimizer.settings
    for name in options.keys() - {"prior"}:
        assert settings[name] == options[name]
    expected = by_hand(bowl, 7, minimize="value", n_start=4, **{"budget": 7} | options)
    assert params(result) == expected
    assert params(quiet(**run)) != expected


def test_maximize_takes_them_too() -> None:
    options = {"acquisition": "ucb", "prior": None, "constraints": "sum <= 1"}
    with pytest.raises(ValueError, match="knows no constraints"):
        quiet(maximize, bowl_and_sum, n_start=3, **options)
    options["acquisition"] = "log_ei"
    result = quiet(maximize, bowl_and_sum, n_start=3, **options)
    expected = by_hand(bowl_and_sum, 6, maximize="value", n_start=3, budget=6, **options)
    assert params(result) == expected


# --------------------------------------------------------------------------------------
# What each does
# --------------------------------------------------------------------------------------


def test_the_number_of_trials_is_the_budget_unless_another_is_given() -> None:
    assert quiet(n_trials=2).optimizer.settings["budget"] == 2
    assert quiet(n_trials=2, budget=None).optimizer.settings["budget"] == 2
    optimizer = quiet(n_trials=2, budget=200).optimizer
    assert optimizer.settings["budget"] == 200
    assert quiet(n_trials=30).optimizer.settings["n_start"] == 5
    storage = MemoryStorage()
    quiet(n_trials=2, budget=50, storage=storage)
    assert quiet(n_trials=3, storage=storage).optimizer.settings["budget"] == 50  # the first counts


def test_every_second_trial_of_the_start_comes_from_the_prior() -> None:
    result = quiet(n_trials=12, n_start=12, prior=PRIOR)
    points = [trial.origin["point"] for trial in result.trials]
    assert points == ["centre", "prior", *["sobol", "prior"] * 5]
    drawn = [trial.params["x"] for trial in result.trials[1::2]]
    assert all(abs(x - 0.5) < 0.4 for x in drawn)  # within four standard deviations
    assert len(set(drawn)) == 6


def test_the_cost_in_seconds_is_modelled() -> None:
    result = quiet(n_start=4, cost="seconds")
    assert result.optimizer.settings["cost"] == "seconds"
    assert result.trials[-1].origin["seconds"] > 0
    assert "cost" not in quiet(n_start=4).optimizer.settings


def test_a_constraint_is_told_by_the_objective() -> None:
    result = quiet(objective=bowl_and_sum, n_trials=9, n_start=4, constraints=["sum >= 1.5"])
    assert result.optimizer.problem.constraints == (Constraint("sum", 1.5, ">="),)
    for trial in result.trials:
        assert trial.constraints == {"sum": trial.params["x"] + trial.params["y"]}
    assert {"constraints_hold"} <= result.trials[-1].origin.keys()
    kept = [trial for trial in result.trials if trial.constraints["sum"] >= 1.5]
    assert result.best == min(kept, key=lambda trial: trial.value)
    assert result.best.value > min(trial.value for trial in result.trials)


def test_an_objective_that_forgets_a_constraint_is_told_which() -> None:
    storage = MemoryStorage()
    with pytest.raises(ValueError, match="Missing: 'sum'"):
        quiet(constraints="sum", storage=storage)
    (trial,) = Optimizer.open(storage).trials
    assert trial.state == "failed"


def test_a_reference_point_is_that_of_the_problem() -> None:
    point = {"a": 2.0, "b": 0.5}
    result = quiet(objective=both, name=["a", "b"], reference_point=point, n_start=4)
    assert result.optimizer.problem.reference_point == point
    assert states(result) == ["complete"] * 6
    options = {"minimize": ["a", "b"], "n_start": 4, "budget": 6}
    assert params(result) == by_hand(both, 6, reference_point=point, **options)
    assert params(result) != by_hand(both, 6, **options)


# --------------------------------------------------------------------------------------
# The door
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"acquisition": "ei"}, ValueError, "acquisition must be one of"),
        ({"strategy": "local"}, ValueError, "strategy must be one of"),
        ({"prior": {"z": Near(0, spread=1)}}, ValueError, "unknown parameter 'z'"),
        ({"cost": "money"}, ValueError, 'cost must be "seconds"'),
        ({"perturbation": {"x": -1}}, ValueError, "must be positive"),
        ({"risk": 0.9}, ValueError, "give perturbation="),
        ({"constraints": "a < 1"}, ValueError, "cannot be read"),
        ({"reference_point": {"loss": 1}}, ValueError, "reference_point must have a value for"),
        ({"budget": 0}, ValueError, "budget must be at least 1"),
        ({"acquisition": "ucb", "prior": PRIOR}, ValueError, "cannot take prior into account"),
        ({"acquisition": "mean", "cost": "seconds"}, ValueError, "cannot take cost into account"),
        ({"perturbation": {"x": 0.1}, "constraints": "c"}, ValueError, "no constraints on"),
        ({"acquisitions": "ucb"}, TypeError, "'acquisitions'. Did you mean 'acquisition'?"),
    ],
)
@pytest.mark.parametrize("call", [minimize, maximize])
def test_what_an_optimizer_refuses_is_refused_before_anything_is_stored(
    tmp_path: Path, call: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    path = tmp_path / "study.db"
    with pytest.raises(error, match=says):
        quiet(call, storage=str(path), **options)
    assert not path.exists()


def test_an_unknown_option_is_named_with_the_call() -> None:
    with pytest.raises(TypeError, match=r"^maximize\(\) got an unexpected keyword argument 'foo'"):
        quiet(maximize, foo=1)
    with pytest.raises(TypeError, match=r"'n_trails'\. Did you mean 'n_trials'\?"):
        quiet(n_trails=1)


def test_going_on_with_another_option_is_refused() -> None:
    storage = MemoryStorage()
    quiet(prior=PRIOR, storage=storage)
    assert quiet(storage=storage).optimizer.settings["prior"]  # what is left out is as it was
    with pytest.raises(StudyDiffers, match="cost: was None"):
        quiet(storage=storage, cost="seconds")


def test_a_script_from_stdin_is_told_that_processes_cannot_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "<stdin>", raising=False)  # as `python < script.py`
    path = tmp_path / "study.db"
    with pytest.raises(RuntimeError, match="this script came by stdin"):
        quiet(executor="processes", storage=path)
    assert not path.exists()
