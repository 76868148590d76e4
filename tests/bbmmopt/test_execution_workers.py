"""Where objectives run: threads, processes that die, executors of others.

Nothing depends on how fast anything is: barriers and files force the order.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest
from objectives import (
    SPACE,
    apply_one,
    bowl,
    dies_first,
    dies_once,
    exits,
    params,
    pid_of_two,
    quiet,
    raises_unreadable,
    returns_unpicklable,
    states,
)

from bbmmopt import Categorical, ExecutorBroken, Optimizer, Space, TrialState
from bbmmopt.execution import minimize, processes, run
from bbmmopt.execution.workers import WorkerDied

pytestmark = pytest.mark.alone


class Job:
    """What a foreign executor hands out: done() and result(), and nothing else."""

    def __init__(self, polls: int, call: Callable[[], Any]) -> None:
        self.polls, self.call = polls, call

    def done(self) -> bool:
        self.polls -= 1
        return self.polls < 0

    def result(self) -> Any:
        assert self.polls < 0, "asked for a result that is not there"
        return self.call()


class Foreign:
    """An executor with submit and nothing else. Later trials come back sooner."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.on_submit: Callable[[], None] = lambda: None

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Job:
        self.on_submit()
        self.jobs.append(Job((7 * len(self.jobs)) % 5, lambda: function(*args)))
        return self.jobs[-1]


def test_any_object_with_submit_done_and_result_will_do() -> None:
    result = quiet(executor=Foreign(), workers=3, n_trials=10)
    assert [t.value for t in result.trials] == [bowl(**t.params) for t in result.trials]
    assert [t.number for t in result.trials] == list(range(10))


class OneLater(Foreign):
    """Each job is done as soon as the next one is submitted; the last ones at once."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Job:
        job = super().submit(function, *args)
        job.polls = 0 if len(self.jobs) == self.total else 10**9
        for earlier in self.jobs[:-1]:
            earlier.polls = min(earlier.polls, 0)
        return job


def test_a_trial_is_asked_for_only_when_a_worker_is_free_and_all_results_are_told() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=0)
    executor, told, most, known = OneLater(12), [], [], []

    def look() -> None:
        under_way = [t.number for t in optimizer.trials if t.state == TrialState.RUNNING]
        most.append(len(under_way))  # this one included
        finished = [k for k, job in enumerate(executor.jobs) if job.polls <= 0]
        known.append(finished == told)

    executor.on_submit = look
    result = run(
        optimizer,
        bowl,
        n_trials=12,
        workers=3,
        executor=executor,
        progress=False,
        callbacks=[lambda _, trial: told.append(trial.number)],
    )
    assert states(result) == ["complete"] * 12
    assert all(known)
    assert max(most) == 2  # a third one would have been asked for without knowing the first


def test_executors_of_concurrent_futures_are_used_and_left_open() -> None:
    with ThreadPoolExecutor(2) as executor:
        assert quiet(executor=executor, workers=2).n_complete == 6
        assert executor.submit(int, "7").result() == 7
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert quiet(executor=executor, n_trials=2).n_complete == 2
        with pytest.raises(TypeError, match="importable"):
            quiet(objective=lambda x, y: x, executor=executor)
        optimizer = Optimizer(SPACE, minimize="value", seed=0)
        for objective in (exits, bowl):  # not ours to build anew
            with pytest.raises(ExecutorBroken, match="BrokenProcessPool"):
                run(optimizer, objective, n_trials=3, executor=executor, progress=False)
            assert [t.state for t in optimizer.trials] == ["running"]
    # Nothing was wrong with that trial: the next run begins with it.
    assert params(run(optimizer, bowl, n_trials=1, progress=False)) == [optimizer.trials[0].params]


def test_processes_run_in_parallel_and_are_gone_afterwards(tmp_path: Path) -> None:
    objective = partial(pid_of_two, folder=str(tmp_path))
    result = quiet(objective=objective, executor="processes", workers=2)
    pids = {int(t.value) for t in result.trials}
    assert {path.name for path in tmp_path.iterdir()} == {str(pid) for pid in pids}
    assert os.getpid() not in pids
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_processes_and_the_calling_thread_give_the_same_run() -> None:
    here, there = quiet(n_trials=8), quiet(n_trials=8, executor="processes")
    assert params(there) == params(here)
    assert [t.values for t in there.trials] == [t.values for t in here.trials]


@pytest.mark.parametrize(("how", "says"), [("signal", "SIGKILL"), ("exit", "exit code 7")])
def test_a_worker_that_dies_costs_its_own_trial_only(tmp_path: Path, how: str, says: str) -> None:
    objective = partial(dies_once, folder=str(tmp_path), how=how)
    result = quiet(objective=objective, executor="processes", workers=2, n_trials=5)
    assert sorted(states(result)) == ["complete"] * 4 + ["failed"]
    (failed,) = (t for t in result.trials if t.state == TrialState.FAILED)
    assert failed.reason is not None
    assert says in failed.reason


def test_a_worker_that_died_is_replaced(tmp_path: Path) -> None:
    objective = partial(dies_first, folder=str(tmp_path))
    result = quiet(objective=objective, executor="processes", n_trials=3)
    assert states(result) == ["failed", "complete", "complete"]


def test_a_worker_that_always_dies_does_not_end_the_run() -> None:
    result = quiet(objective=exits, executor="processes", n_trials=3)
    assert states(result) == ["failed"] * 3


@pytest.mark.parametrize("how_many", [1, 2])
def test_a_worker_that_dies_while_it_starts_ends_the_run_only_if_all_do(
    monkeypatch: pytest.MonkeyPatch, how_many: int
) -> None:
    started: list[Any] = []

    class Mortal(processes._Child):
        def __init__(self, payload: bytes) -> None:
            super().__init__(payload)
            started.append(self.process.pid)
            if len(started) <= how_many:
                self.process.kill()
                connection.wait([self.process.sentinel])

    monkeypatch.setattr(processes, "_Child", Mortal)
    if how_many == 2:
        with pytest.raises(WorkerDied, match=r"SIGKILL.*It was starting"):
            quiet(executor="processes", workers=2)
    else:
        assert states(quiet(executor="processes", workers=2, n_trials=4)) == ["complete"] * 4
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("kind", ["lambda", "closure", "object"])
def test_what_cannot_be_sent_to_a_process_is_refused_before_anything_is_stored(
    tmp_path: Path, kind: str
) -> None:
    def closure(x: float, y: float) -> float:
        return x

    space, objective = SPACE, {"closure": closure}.get(kind, lambda x, y: x)
    if kind == "object":
        space, objective = Space({"f": Categorical({"a": closure, "b": abs})}), apply_one
    path = tmp_path / "study.db"
    with pytest.raises(TypeError, match=r'importable.*executor="threads"'):
        minimize(objective, space, n_trials=2, executor="processes", storage=str(path))
    assert not path.exists()


def test_what_cannot_come_back_from_a_process_is_a_failed_trial() -> None:
    result = quiet(objective=raises_unreadable, executor="processes", n_trials=2)
    assert states(result) == ["failed"] * 2
    assert "deep trouble" in (result.trials[0].reason or "")
    with pytest.raises(RuntimeError, match="deep trouble"):
        quiet(objective=raises_unreadable, executor="processes", n_trials=2, catch=())
    result = quiet(objective=returns_unpicklable, executor="processes", n_trials=2)
    assert states(result) == ["failed"] * 2
    assert "pickle" in (result.trials[0].reason or "")
