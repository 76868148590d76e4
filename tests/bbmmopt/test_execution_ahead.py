"""Suggestions that are looked for while all workers are busy, and how idle workers are.

Nothing depends on how fast anything is: jobs end when they are told to.
"""

import math
import signal
from collections.abc import Callable
from typing import Any

import pytest
from objectives import SPACE, Nth, bowl, params, quiet, states

from bbmmopt import Optimizer, Target, Trial, TrialState
from bbmmopt.execution import results, run, supply
from bbmmopt.execution.results import Usage


class Job:
    def __init__(self, call: Callable[[], Any]) -> None:
        self.ended, self.call = False, call

    def done(self) -> bool:
        return self.ended

    def result(self) -> Any:
        return self.call()


class Full:
    """An executor whose oldest job ends when all workers are busy and have been looked at twice."""

    def __init__(self, workers: int, total: int) -> None:
        self.workers, self.total, self.submitted = workers, total, 0
        self.flying: list[Job] = []
        self.looks = 0

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Job:
        job = Job(lambda: function(*args))
        job.done = lambda: self.look(job)
        self.flying.append(job)
        self.submitted += 1
        return job

    def look(self, job: Job) -> bool:
        self.looks += 1
        full = len(self.flying) == self.workers or self.submitted == self.total
        if full and job is self.flying[0] and self.looks > 2 * self.workers:
            self.looks = 0
            self.flying.pop(0)
            return True
        return False


class Watched(Optimizer):
    """Notes how many trials were running and known at each suggestion."""

    seen: list[tuple[int, int]]

    def preview(self, **options: Any) -> Trial:
        trials = self.trials
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        self.seen.append((running, len(trials) - running))
        return super().preview(**options)


def watched(**options: Any) -> Watched:
    optimizer = Watched(SPACE, minimize="value", seed=1, n_start=4, **options)
    optimizer.seen = []
    return optimizer


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every suggestion is slow, compared with a trial."""
    monkeypatch.setattr(supply, "_QUICK", 0.0)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every suggestion is quick, compared with a trial."""
    monkeypatch.setattr(supply, "_QUICK", math.inf)


@pytest.mark.usefixtures("always")
def test_where_suggestions_are_slow_the_next_is_looked_for_while_all_are_busy() -> None:
    optimizer = watched()
    executor = Full(3, 12)
    result = run(optimizer, bowl, n_trials=12, workers=3, executor=executor, progress=False)
    assert states(result) == ["complete"] * 12
    assert [t.number for t in optimizer.trials] == list(range(12))
    # The first ones have free workers to wait for them; the first looked for ahead comes when a
    # trial has told how long trials take. All know one result less than there will be, no more.
    assert optimizer.seen[:4] == [(0, 0), (1, 0), (2, 0), (2, 1)]
    assert optimizer.seen[4:] == [(3, k) for k in range(1, 9)]


@pytest.mark.usefixtures("never")
def test_where_they_are_quick_they_know_all_results() -> None:
    optimizer = watched()
    executor = Full(3, 12)
    run(optimizer, bowl, n_trials=12, workers=3, executor=executor, progress=False)
    assert optimizer.seen == [(0, 0), (1, 0), *((2, k) for k in range(10))]


@pytest.mark.usefixtures("always")
def test_one_worker_never_asks_ahead() -> None:
    optimizer = watched(budget=9)
    result = run(optimizer, bowl, n_trials=9, executor=Full(1, 9), progress=False)
    assert optimizer.seen == [(0, k) for k in range(9)]
    assert params(result) == params(quiet(n_trials=9, n_start=4))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("how", ["stop", "ctrl-c", "error"])
def test_what_was_looked_for_and_not_started_is_forgotten(how: str) -> None:
    def end(*_: Any) -> float:
        if how == "ctrl-c":
            signal.raise_signal(signal.SIGINT)
        if how == "error":
            raise LookupError
        return -1e9

    optimizer = watched()
    options = {"executor": Full(3, 20), "workers": 3, "progress": False, "catch": ()}
    options["executor"].total = 8  # those under way then are let go
    objective = Nth(5, end)
    if how == "error":
        with pytest.raises(LookupError):
            run(optimizer, objective, n_trials=20, **options)
    else:
        run(optimizer, objective, n_trials=20, stop=Target(-1.0), **options)
    assert [t.number for t in optimizer.trials] == list(range(8))
    assert TrialState.RUNNING not in {t.state for t in optimizer.trials}
    assert len(optimizer.seen) == 9  # one more than there are trials


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("who", ["another process", "a person"])
def test_somebody_elses_trial_comes_between(who: str) -> None:
    optimizer = watched()
    other = Optimizer(SPACE, minimize="value", storage=optimizer.storage)
    point = {"x": 0.125, "y": 0.25}
    seen_before: list[int] = []

    def come_between(_: Optimizer, trial: Trial) -> None:
        if trial.number == 4:  # a suggestion for number 8 is there by now, or will be made anew
            seen_before.append(len(optimizer.seen))
            if who == "a person":
                other.enqueue(point)
            else:
                other.add_trial(point, 1.0)

    result = run(
        optimizer,
        bowl,
        n_trials=12,
        workers=3,
        executor=Full(3, 12),
        callbacks=[come_between],
        progress=False,
    )
    assert states(result) == ["complete"] * 12
    (theirs,) = (t for t in optimizer.trials if t.params == point)
    assert (theirs.number in {t.number for t in result.trials}) is (who == "a person")
    numbers = [t.number for t in optimizer.trials]
    assert numbers == list(range(12 if who == "a person" else 13))
    assert len({tuple(t.params.values()) for t in optimizer.trials}) == len(numbers)


# --------------------------------------------------------------------------------------
# Idle workers
# --------------------------------------------------------------------------------------


def test_idle_is_the_share_of_the_workers_time_that_the_objective_did_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(results.time, "monotonic", lambda: now[0])
    usage = Usage(2)
    assert usage.idle == 0.0
    assert usage.starts() == 100.0
    now[0] = 101.0
    usage.starts()
    now[0] = 110.0
    usage.ended(9.0)
    usage.ended(8.0)
    assert usage.idle == pytest.approx(1 - 17 / 20)


def test_a_run_says_how_idle_its_workers_were() -> None:
    result = quiet(workers=2)
    assert 0.0 < result.idle < 1.0
