"""Trials that are run again, that take too long, and executors that break.

Nothing depends on how fast anything is: files and counts force the order.
"""

import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from objectives import (
    SPACE,
    Nth,
    bowl,
    dies_first,
    hangs_first,
    params,
    press_and_hang,
    quiet,
    states,
)

from bbmmopt import ExecutorBroken, Optimizer, Target, TrialState
from bbmmopt.execution import processes, run
from bbmmopt.execution.workers import Evaluation
from bbmmopt.storage import MemoryStorage

pytestmark = pytest.mark.alone


class Fails:
    """Raises in its first calls at each point, each time something else."""

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, {}

    def __call__(self, x: float, y: float) -> float:
        count = self.calls[x, y] = self.calls.get((x, y), 0) + 1
        if count <= self.times:
            raise ArithmeticError(f"went wrong, time {count}")
        return bowl(x, y)


def retried(optimizer: Optimizer) -> list[tuple[int | None, str]]:
    """What the log of events says of attempts that were followed by others."""
    events = optimizer.events()
    return [(e.number, e.detail["reason"]) for e in events if e.kind == "retried"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_trial_that_raised_is_run_again_as_the_same_trial(workers: int) -> None:
    objective = Fails(2)
    result = quiet(objective=objective, retries=2, workers=workers)
    assert states(result) == ["complete"] * 6
    assert [t.number for t in result.trials] == list(range(6))
    assert [t.value for t in result.trials] == [bowl(**t.params) for t in result.trials]
    assert set(objective.calls.values()) == {3}
    assert len(objective.calls) == 6
    logged = retried(result.optimizer)
    assert sorted(number for number, _ in logged) == sorted([*range(6)] * 2)
    assert all("Traceback" in reason for _, reason in logged)
    if workers == 1:
        assert params(result) == params(quiet())  # and nothing else is different


def test_the_reason_is_the_last_attempts_and_names_the_earlier_ones() -> None:
    result = quiet(objective=Fails(99), retries=2, n_trials=1)
    (trial,) = result.trials
    assert trial.state == TrialState.FAILED
    first, *lines = (trial.reason or "").splitlines()
    assert first == "ArithmeticError: went wrong, time 3"
    assert lines[:3] == [
        "This was attempt 3; before it:",
        "attempt 1: ArithmeticError: went wrong, time 1",
        "attempt 2: ArithmeticError: went wrong, time 2",
    ]
    assert lines[-1] == first  # of the traceback
    assert len(retried(result.optimizer)) == 2
    assert result.stopped == "all 1 trials done, 1 of them failed"


@pytest.mark.parametrize(
    "special", [lambda: math.nan, lambda: -math.inf], ids=["nan", "impossible"]
)
def test_a_result_that_is_no_number_is_not_tried_again(special: Callable[[], Any]) -> None:
    objective = Nth(2, special)
    result = quiet(objective=objective, retries=3)
    assert states(result).count("failed") == 1
    assert objective.calls == 6
    assert retried(result.optimizer) == []


def test_what_is_not_caught_is_not_tried_again() -> None:
    objective = Fails(1)
    optimizer = Optimizer(SPACE, minimize="value", seed=1)
    with pytest.raises(ArithmeticError):
        run(optimizer, objective, n_trials=3, retries=3, catch=KeyError, progress=False)
    assert [t.state for t in optimizer.trials] == ["failed"]
    assert sum(objective.calls.values()) == 1


def test_a_trial_whose_worker_died_is_run_again_in_another(tmp_path: Path) -> None:
    objective = partial(dies_first, folder=str(tmp_path))
    result = quiet(objective=objective, executor="processes", n_trials=3, retries=1)
    assert states(result) == ["complete"] * 3
    ((number, reason),) = retried(result.optimizer)
    assert number == 0
    assert "exit code 3" in reason


def test_what_is_to_be_run_again_when_the_run_ends_has_failed() -> None:
    def stop_and_raise() -> float:
        optimizer.tell(optimizer.ask(), 0.0)
        raise ArithmeticError("went wrong")

    optimizer = Optimizer(SPACE, minimize="value", seed=1)
    result = run(
        optimizer,
        Nth(1, stop_and_raise),
        n_trials=6,
        retries=5,
        stop=Target(0.0),
        progress=False,
    )
    assert [(t.number, t.state) for t in result.trials] == [(0, "complete"), (1, "failed")]
    assert (result.trials[1].reason or "").startswith("ArithmeticError: went wrong")


def test_after_ctrl_c_what_is_to_be_run_again_is_left_to_the_next_run() -> None:
    def press_and_raise() -> float:
        signal.raise_signal(signal.SIGINT)
        raise ArithmeticError("went wrong")

    optimizer = Optimizer(SPACE, minimize="value", seed=1, budget=6)
    result = run(optimizer, Nth(2, press_and_raise), n_trials=6, retries=1, progress=False)
    assert states(result) == ["complete"] * 2
    assert [t.state for t in optimizer.trials] == ["complete", "complete", "running"]
    rest = run(optimizer, bowl, n_trials=4, progress=False)
    assert [t.number for t in rest.trials] == [2, 3, 4, 5]
    assert [t.params for t in optimizer.trials] == params(quiet())


# --------------------------------------------------------------------------------------
# Trials that take too long
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "retries"), [(1, 0), (1, 1), (2, 0)])
def test_a_trial_that_takes_too_long_is_ended_with_its_process(
    tmp_path: Path, workers: int, retries: int
) -> None:
    result = quiet(
        objective=partial(hangs_first, folder=str(tmp_path)),
        executor="processes",
        workers=workers,
        retries=retries,
        trial_timeout=0.5,
        n_trials=4,
    )
    says = "TrialTimeout: not done after trial_timeout=0.5 s"
    if retries:
        assert states(result) == ["complete"] * 4
        ((_, reason),) = retried(result.optimizer)
        assert reason.startswith(says)
    else:
        assert sorted(states(result)) == ["complete"] * 3 + ["failed"]
        (failed,) = (t for t in result.trials if t.state == TrialState.FAILED)
        assert (failed.reason or "").startswith(says)
    (pid,) = (int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_result_that_comes_while_its_worker_is_killed_counts() -> None:
    value = Evaluation(value=0.5)

    class Child:
        """Speaks when it is killed."""

        ready, free, says = True, True, None
        connection = process = property(lambda self: self)

        def send_bytes(self, message: bytes) -> None: ...

        def join(self) -> None: ...

        def kill(self) -> None:
            self.says = value

        def hear(self) -> Evaluation | None:
            return self.says

    job = processes._Job(Child(), b"", limit=0.0)  # pyright: ignore[reportArgumentType]
    assert job.done()
    assert job.result() is value


def test_a_trial_that_hangs_does_not_hold_up_the_end_after_ctrl_c() -> None:
    result = quiet(objective=press_and_hang, executor="processes", trial_timeout=0.5)
    assert states(result) == ["failed"]
    assert result.stopped == "interrupted by Ctrl-C after 1 of 6 trials"


@pytest.mark.parametrize("executor", ["threads", ProcessPoolExecutor(1)])
def test_only_processes_of_our_own_can_be_ended(executor: Any) -> None:
    storage = MemoryStorage()
    with pytest.raises(ValueError, match=r'executor="processes".*timeout_min'):
        quiet(executor=executor, trial_timeout=5.0, storage=storage)
    assert storage.studies() == []


# --------------------------------------------------------------------------------------
# Executors that break
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
def test_a_pool_that_breaks_ends_the_run_and_its_trials_are_left_to_the_next(
    tmp_path: Path, retries: int
) -> None:
    objective = partial(dies_first, folder=str(tmp_path))
    optimizer = Optimizer(SPACE, minimize="value", seed=1, budget=6)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        options = {"executor": executor, "workers": 2, "retries": retries, "progress": False}
        with pytest.raises(ExecutorBroken, match='executor="processes"'):
            run(optimizer, objective, n_trials=6, **options)
    running = [t.number for t in optimizer.trials if t.state == TrialState.RUNNING]
    assert running
    assert {t.state for t in optimizer.trials} <= {"running", "complete"}
    left = 6 - sum(t.state == TrialState.COMPLETE for t in optimizer.trials)
    result = run(optimizer, objective, n_trials=left, executor="processes", progress=False)
    assert set(running) <= {t.number for t in result.trials}
    assert [(t.number, t.state) for t in optimizer.trials] == [(k, "complete") for k in range(6)]


@pytest.mark.parametrize(
    ("retries", "error", "says"),
    [
        (-1, ValueError, "retries must be at least 0"),
        (1.0, TypeError, "retries must be an integer"),
        (True, TypeError, "retries must be an integer"),
    ],
)
def test_bad_numbers_of_retries_are_refused(retries: Any, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        quiet(retries=retries)
