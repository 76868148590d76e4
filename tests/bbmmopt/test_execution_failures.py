"""Objectives that fail, and results that cannot be recorded."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from objectives import (
    SPACE,
    Nth,
    quiet,
    raises_above_zero,
    states,
)

from bbmmopt import Optimizer, TrialState
from bbmmopt.execution import run
from bbmmopt.optimizer import NoCompleteTrial
from bbmmopt.storage import MemoryStorage


def raising(error: BaseException) -> Callable[[], Any]:
    def special() -> Any:
        raise error

    return special


@pytest.mark.parametrize(
    ("executor", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)]
)
def test_an_objective_that_raises_is_a_failed_trial_with_its_traceback(
    executor: str, workers: int
) -> None:
    result = quiet(objective=raises_above_zero, executor=executor, workers=workers, n_trials=10)
    assert len(result.trials) == 10
    for trial in result.trials:
        if trial.params["x"] > 0:
            assert trial.state == TrialState.FAILED
            first, *others = (trial.reason or "").splitlines()
            assert first == f"ArithmeticError: diverged at {trial.params['x']}"
            assert "Traceback (most recent call last):" in others
            assert "raises_above_zero" in trial.reason
            assert "bbmmopt/execution" not in trial.reason  # the user's frames only
        else:
            assert trial.value == trial.params["x"]
    assert result.n_failed == sum(t.params["x"] > 0 for t in result.trials) > 0
    assert result.n_complete == 10 - result.n_failed


def test_a_run_of_failures_returns_and_has_no_best() -> None:
    result = quiet(objective=lambda x, y: 1 / 0)
    assert (result.n_complete, result.n_failed) == (0, 6)
    with pytest.raises(NoCompleteTrial):
        _ = result.best


@pytest.mark.parametrize(
    ("executor", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)]
)
def test_what_is_not_caught_is_recorded_and_then_raised(executor: str, workers: int) -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1)
    with pytest.raises(ArithmeticError, match="diverged"):
        run(
            optimizer,
            raises_above_zero,
            n_trials=30,
            executor=executor,
            workers=workers,
            catch=KeyError,
            progress=False,
        )
    ends = [t.state for t in optimizer.trials]
    assert TrialState.RUNNING not in ends
    assert 1 <= ends.count(TrialState.FAILED) <= workers
    assert len(ends) < 30
    failed = next(t for t in optimizer.trials if t.state == TrialState.FAILED)
    assert "Traceback" in (failed.reason or "")


def test_an_exception_from_a_process_carries_its_traceback() -> None:
    with pytest.raises(ArithmeticError) as caught:
        quiet(objective=raises_above_zero, executor="processes", catch=(), n_trials=9)
    assert "raises_above_zero" in "".join(caught.value.__notes__)


def test_sys_exit_in_an_objective_is_recorded_and_raised_unless_it_is_caught() -> None:
    storage = MemoryStorage()
    with pytest.raises(SystemExit):
        quiet(objective=Nth(2, raising(SystemExit(4))), storage=storage)
    trials = Optimizer.open(storage).trials
    assert [t.state for t in trials] == ["complete", "complete", "failed"]
    result = quiet(objective=Nth(2, raising(SystemExit(4))), catch=(Exception, SystemExit))
    assert states(result) == ["complete", "complete", "failed", *["complete"] * 3]


@pytest.mark.parametrize("value", [None, "0.5", 1j, [1.0], {"other": 1.0}, math.nan, -math.inf])
def test_a_result_that_is_none_after_good_ones_is_a_failed_trial(value: Any) -> None:
    result = quiet(objective=Nth(3, lambda: value))
    assert states(result) == [*["complete"] * 3, "failed", *["complete"] * 2]
    assert repr(value) in (result.trials[3].reason or "")


@pytest.mark.parametrize("value", [None, "0.5", 1j, {"other": 1.0}])
def test_a_first_result_that_is_none_is_recorded_and_raised(value: Any) -> None:
    storage = MemoryStorage()
    with pytest.raises((TypeError, ValueError), match="trial 0"):
        quiet(objective=lambda x, y: value, storage=storage)
    (trial,) = Optimizer.open(storage).trials
    assert trial.state == TrialState.FAILED
    assert repr(value) in (trial.reason or "")


def test_nan_is_a_failed_trial_without_a_warning() -> None:
    result = quiet(objective=lambda x, y: math.nan)
    assert states(result) == ["failed"] * 6


def test_an_outcome_told_by_somebody_else_meanwhile_is_kept() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=0)
    told = Nth(1, lambda: optimizer.tell(1, 42.0) and 7.0)
    result = run(optimizer, told, n_trials=3, progress=False)
    assert result.trials[1].value == 42.0
    assert result.n_complete == 3


class Full(MemoryStorage):
    """A storage that refuses one write."""

    refuse = False

    def finish(self, *args: Any, **options: Any) -> Any:
        if self.refuse:
            self.refuse = False
            raise OSError("no space left on device")
        return super().finish(*args, **options)


def test_a_storage_that_fails_ends_the_run_and_names_the_outcome() -> None:
    storage = Full()
    objective = Nth(2, lambda: setattr(storage, "refuse", True) or 12.25)
    with pytest.raises(OSError, match="no space") as caught:
        quiet(objective=objective, storage=storage)
    assert "trial 2" in caught.value.__notes__[0]
    assert "12.25" in caught.value.__notes__[0]
    assert [t.state for t in Optimizer.open(storage).trials] == ["complete"] * 2 + ["running"]
