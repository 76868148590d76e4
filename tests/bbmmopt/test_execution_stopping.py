"""Rules that say when a run should stop."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from objectives import SPACE, bowl, quiet, raises_above_zero, states

from bbmmopt import (
    Optimizer,
    Patience,
    RemainingImprovement,
    Target,
    TotalTrials,
    Trial,
    TrialState,
)
from bbmmopt.execution import maximize, run
from bbmmopt.problem import Problem
from bbmmopt.storage import MemoryStorage
from bbmmopt.study.tally import Tally

LIMIT = 30.0  # seconds after which a run that no rule has stopped ends all the same
OPEN: dict[str, Any] = {"n_trials": None, "timeout": LIMIT}


def study(values: list[float | None], direction: str = "minimize") -> tuple[Any, list[Trial]]:
    """A study of trials with these values; None is a failed one."""
    kind: dict[str, Any] = {direction: "value"}
    problem = Problem.make(SPACE, **kind)
    trials = [
        Trial(k, {"x": 0.0, "y": 0.0}, TrialState.FAILED)
        if value is None
        else Trial(k, {"x": 0.0, "y": 0.0}, TrialState.COMPLETE, values={"value": value})
        for k, value in enumerate(values)
    ]
    return SimpleNamespace(problem=problem, settings={"n_start": 3}), trials


def tally(optimizer: Any, trials: list[Trial]) -> Tally:
    """How far a study of these trials has come."""
    found = Tally(optimizer.problem)
    for trial in trials:
        found.take(None, trial)
    return found


# --------------------------------------------------------------------------------------
# What each goes by
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "target", "values", "reached"),
    [
        ("minimize", 0.5, [2.0, 0.7], False),
        ("minimize", 0.5, [2.0, 0.5, 3.0], True),
        ("maximize", 0.5, [-2.0, 0.4], False),
        ("maximize", 0.5, [0.5], True),
        ("minimize", 0.5, [], False),
        ("minimize", 0.5, [None], False),
    ],
)
def test_a_target_is_reached_by_the_best(
    direction: str, target: float, values: list[float | None], reached: bool
) -> None:
    optimizer, trials = study(values, direction)
    reason = Target(target).reason(optimizer, tally(optimizer, trials))
    assert (reason is not None) is reached


def test_a_target_must_be_reached_where_the_constraints_hold() -> None:
    problem = Problem.make(SPACE, minimize="value", constraints="c")
    optimizer: Any = SimpleNamespace(problem=problem)
    point = {"x": 0.0, "y": 0.0}
    broken = Trial(0, point, TrialState.COMPLETE, values={"value": 0.1}, constraints={"c": 1.0})
    kept = Trial(1, point, TrialState.COMPLETE, values={"value": 0.2}, constraints={"c": -1.0})
    assert Target(0.3).reason(optimizer, tally(optimizer, [broken])) is None
    reason = Target(0.3).reason(optimizer, tally(optimizer, [broken, kept]))
    assert reason == "target 0.3 reached: value 0.2 (trial 1)"


def patient(values: list[float | None], trials: int, least: float, sign: float) -> bool:
    """Whether Patience says stop, by the definition: slowly."""
    best = [math.inf]  # after each trial, as of the last improvement that counted
    last = 0
    for k, value in enumerate(values, 1):
        v = math.inf if value is None else sign * value
        if best[-1] - v > least or (math.isinf(best[-1]) and math.isfinite(v)):
            best.append(v)
            last = k
    return len(values) - last >= trials


@pytest.mark.parametrize("least", [0.0, 0.3])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [None, None, None],
        [3.0, 3.0, 3.0],
        [3.0, 2.9, 2.8, 2.7, 2.6, 2.5],
        [3.0, 1.0, 2.0, None],
        [3.0, 1.0, 2.0, None, 1.0],
        [1.0, 2.0, 3.0, 4.0],
        [None, None, 1.0, 2.0],
    ],
)
def test_patience_counts_trials_since_the_last_improvement(
    values: list[float | None], direction: str, least: float
) -> None:
    optimizer, trials = study(values, direction)
    waiting = [Trial(99, {"x": 0.0, "y": 0.0})] * 9  # these do not count
    reason = Patience(3, least).reason(optimizer, tally(optimizer, trials + waiting))
    sign = 1.0 if direction == "minimize" else -1.0
    assert (reason is not None) is patient(values, 3, least, sign)


def test_the_total_counts_what_has_ended() -> None:
    optimizer, trials = study([1.0, None, 2.0])
    trials.append(Trial(3, {"x": 0.0, "y": 0.0}))
    assert TotalTrials(4).reason(optimizer, tally(optimizer, trials)) is None
    assert (
        TotalTrials(3).reason(optimizer, tally(optimizer, trials))
        == "all 3 trials of the study done"
    )


def test_the_model_is_asked_after_the_start_only() -> None:
    optimizer, trials = study([1.0] * 12)
    so_far = tally(optimizer, trials)
    optimizer.remaining_improvement = lambda: pytest.fail("too early")
    assert RemainingImprovement(0.1).reason(optimizer, so_far) is None  # 13 are needed
    assert RemainingImprovement(0.1, after=13).reason(optimizer, so_far) is None
    optimizer.remaining_improvement = lambda: 0.1
    assert RemainingImprovement(0.1, after=12).reason(optimizer, so_far) is None
    optimizer.remaining_improvement = lambda: 0.0999
    assert "0.0999 is expected" in (RemainingImprovement(0.1, 12).reason(optimizer, so_far) or "")


# --------------------------------------------------------------------------------------
# In a run
# --------------------------------------------------------------------------------------


def test_a_run_ends_at_its_target_and_says_which_trial_reached_it() -> None:
    result = quiet(**OPEN, stop=Target(0.3))
    values = [t.value for t in result.trials]
    assert [v <= 0.3 for v in values] == [False] * (len(values) - 1) + [True]
    last = result.trials[-1]
    assert result.stopped == (
        f"target 0.3 reached: value {last.value:.6g} (trial {last.number}), "
        f"after {len(values)} trials"
    )
    high = quiet(maximize, lambda x, y: -bowl(x, y), n_trials=40, stop=[Target(-0.3)])
    assert [t.params for t in high.trials] == [t.params for t in result.trials]
    assert f"after {len(values)} of 40 trials" in high.stopped


def test_a_target_that_was_reached_starts_nothing() -> None:
    storage = MemoryStorage()
    quiet(**OPEN, stop=Target(0.3), storage=storage)
    again = quiet(**OPEN, stop=Target(0.3), storage=storage)
    assert again.trials == ()
    assert again.stopped.startswith("target 0.3 reached: ")


def test_the_first_rule_to_say_stop_counts() -> None:
    result = quiet(**OPEN, stop=[Target(-1.0), TotalTrials(9), TotalTrials(5)])
    assert states(result) == ["complete"] * 5
    assert result.stopped == "all 5 trials of the study done, after 5 trials"
    assert result.optimizer.settings["budget"] == 5


def test_a_run_goes_on_to_the_total_of_the_study() -> None:
    storage = MemoryStorage()
    quiet(n_trials=3, storage=storage)
    assert quiet(**OPEN, stop=TotalTrials(5), storage=storage).n_complete == 2
    assert quiet(**OPEN, stop=TotalTrials(5), storage=storage).trials == ()
    assert len(Optimizer.open(storage).trials) == 5


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_in_line_counts_towards_the_total_and_is_run(workers: int) -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=0)
    for x in (0.1, 0.2):
        optimizer.enqueue({"x": x, "y": 0.5})
    result = run(
        optimizer, bowl, stop=TotalTrials(5), workers=workers, progress=False, timeout=LIMIT
    )
    assert states(result) == ["complete"] * 5
    assert [t.params["x"] for t in result.trials[:2]] == [0.1, 0.2]
    assert len(optimizer.trials) == 5


class Overtaken(Optimizer):
    """Somebody else makes a trial just before the second suggestion is looked for."""

    def preview(self, **options: Any) -> Trial:
        if len(self.trials) == 1:
            self.add_trial({"x": 0.5, "y": 0.5}, 1.0)
        return super().preview(**options)


def test_the_last_trial_of_a_total_is_not_made_twice() -> None:
    optimizer = Overtaken(SPACE, minimize="value", seed=0)
    result = run(optimizer, bowl, stop=TotalTrials(2), progress=False, timeout=LIMIT)
    assert [t.number for t in result.trials] == [0]
    assert len(optimizer.trials) == 2
    assert result.stopped == "all 2 trials of the study done, after 1 trials"


def test_patience_ends_a_run_of_failures() -> None:
    result = quiet(objective=lambda x, y: 1 / 0, **OPEN, stop=Patience(4))
    assert states(result) == ["failed"] * 4
    assert "none of them complete" in result.stopped


def test_a_timeout_alone_is_a_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("bbmmopt.execution.loop.time", clock)

    def takes_ten(x: float, y: float) -> float:
        clock.now += 10.0
        return raises_above_zero(x, y)

    result = quiet(objective=takes_ten, n_trials=None, timeout=35.0)
    assert len(result.trials) == 4
    assert result.stopped == "timeout of 35 s reached after 4 trials"


def test_little_left_to_gain_ends_a_run_near_the_optimum() -> None:
    options = {"stop": RemainingImprovement(1e-3), "n_start": 5, "noise": "none"}
    result = quiet(n_trials=60, **options)
    assert 15 <= len(result.trials) < 60
    assert result.best.value < 1e-3
    assert result.stopped.startswith("little left to gain: an improvement of ")


# --------------------------------------------------------------------------------------
# The door
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Target(math.nan), ValueError, "value must be finite"),
        (lambda: Target("0.1"), TypeError, "value must be a number"),  # pyright: ignore
        (lambda: Patience(0), ValueError, "trials must be at least 1"),
        (lambda: Patience(2.5), TypeError, "trials must be an integer"),  # pyright: ignore
        (lambda: Patience(3, -0.1), ValueError, "min_improvement must be at least 0"),
        (lambda: TotalTrials(True), TypeError, "n must be an integer"),
        (lambda: RemainingImprovement(0.0), ValueError, "below must be positive"),
        (lambda: RemainingImprovement(0.1, after=0), ValueError, "after must be at least 1"),
    ],
)
def test_bad_rules_are_refused_when_they_are_made(make: Any, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_trials": None}, ValueError, "would not end: give n_trials"),
        ({"n_trials": None, "stop": []}, ValueError, "would not end: give n_trials"),
        ({"stop": 0.1}, TypeError, r"stop takes rules such as Target\(0.1\)"),
        ({"stop": "target"}, TypeError, "stop takes rules"),
        ({"stop": [Target(1.0), Target]}, TypeError, "stop takes rules"),
        ({"stop": Target(1.0), "name": ["a", "b"]}, ValueError, "Target is for one objective"),
        ({"stop": Patience(1), "name": ["a", "b"]}, ValueError, "Patience is for one objective"),
        (
            {"stop": RemainingImprovement(0.1), "perturbation": {"x": 0.1}},
            ValueError,
            "perturbation looks for",
        ),
        ({"lease": 0}, ValueError, "lease must be a positive"),
        ({"lease": math.inf}, ValueError, "lease must be a positive"),
        ({"trial_timeout": "1", "executor": "processes"}, TypeError, "trial_timeout must be a"),
    ],
)
def test_rules_that_do_not_suit_are_refused_before_anything_is_stored(
    tmp_path: Path, options: dict[str, Any], error: type, says: str
) -> None:
    path = tmp_path / "study.db"
    with pytest.raises(error, match=says):
        quiet(**{"storage": str(path)}, **options)
    assert not path.exists()


def test_a_rule_that_suits_several_objectives_is_taken() -> None:
    options = {"name": ["a", "b"], "stop": TotalTrials(3)} | OPEN
    assert quiet(objective=lambda x, y: {"a": x, "b": y}, **options).n_complete == 3
