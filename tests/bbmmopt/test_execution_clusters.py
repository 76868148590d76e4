"""Executors of others, for real: loky, Dask on a cluster of separate processes, submitit.

Objectives are imported by the workers. Nothing depends on how fast anything is.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import loky
import objectives
import pytest
import submitit
from objectives import SPACE, bowl, notes_and_dies, quiet, raises_above_zero, states

from bbmmopt import ExecutorBroken, Optimizer, TrialState
from bbmmopt.execution import run

pytestmark = pytest.mark.alone


def calls(folder: Path) -> Counter[int]:
    return Counter(int(path.name.split(".")[0]) for path in folder.glob("*.call"))


def check(result: Any, total: int) -> None:
    """Every trial ended once, complete, with the value of its own point."""
    trials = result.optimizer.trials
    assert [(t.number, t.state) for t in trials] == [(k, "complete") for k in range(total)]
    assert [t.value for t in trials] == [bowl(**t.params) for t in trials]
    told = [e.number for e in result.optimizer.events() if e.kind == "told"]
    assert sorted(told) == list(range(total))


# --------------------------------------------------------------------------------------
# loky
# --------------------------------------------------------------------------------------


@contextmanager
def loky_executor(workers: int, **options: Any) -> Iterator[Any]:
    executor = loky.get_reusable_executor(max_workers=workers, timeout=60, **options)
    try:
        yield executor
    finally:
        loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)


# What loky says of the worker that is killed here on purpose.
says_loky = pytest.mark.filterwarnings("ignore:A worker stopped while:UserWarning")


def test_loky_runs_trials_and_is_left_open() -> None:
    with loky_executor(2) as executor:
        result = quiet(objective=raises_above_zero, executor=executor, workers=2, n_trials=8)
        assert result.n_failed == sum(t.params["x"] > 0 for t in result.trials) > 0
        assert result.n_complete == 8 - result.n_failed
        assert executor.submit(int, "7").result() == 7


@says_loky
@pytest.mark.parametrize("retries", [0, 2])
def test_loky_is_made_anew_when_a_worker_died(tmp_path: Path, retries: int) -> None:
    storage = str(tmp_path / "study.db")
    objective = partial(notes_and_dies, folder=str(tmp_path), lethal=1)
    with loky_executor(1) as executor:
        result = quiet(
            objective=objective, executor=executor, n_trials=4, retries=retries, storage=storage
        )
        if retries:
            check(result, 4)
            assert calls(tmp_path) == Counter([0, 1, 1, 2, 3])
        else:
            assert states(result) == ["complete", "failed", "complete", "complete"]
            assert "a worker process of the executor died" in (result.trials[1].reason or "")
        result.optimizer.close()


def do_nothing() -> None:
    """What a worker is set up with."""


@says_loky
def test_loky_workers_that_were_set_up_are_not_made_anew_without(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    objective = partial(notes_and_dies, folder=str(tmp_path), lethal=0)
    with (
        loky_executor(1, initializer=do_nothing) as executor,
        pytest.raises(ExecutorBroken, match="TerminatedWorkerError"),
    ):
        quiet(objective=objective, executor=executor, storage=storage)
    with Optimizer.open(storage) as optimizer:
        assert [t.state for t in optimizer.trials] == ["running"]


# --------------------------------------------------------------------------------------
# Dask
# --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Any]:
    """A client of a cluster of two worker processes on loopback."""
    with warnings.catch_warnings():
        # Of the libraries it is made of, while they are imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_dask_workers_run_trials_that_report_to_the_storage(
    dask_client: Any, tmp_path: Path
) -> None:
    storage = str(tmp_path / "study.db")
    objective = partial(notes_and_dies, folder=str(tmp_path), lethal=-1)
    executor = dask_client.get_executor(pure=False)
    result = quiet(objective=objective, executor=executor, workers=2, n_trials=10, storage=storage)
    check(result, 10)
    assert calls(tmp_path) == Counter(range(10))
    pids = {int(path.stem) for path in tmp_path.glob("*.pid")}
    assert os.getpid() not in pids
    result.optimizer.close()


def test_a_killed_dask_worker_costs_no_trial(dask_client: Any, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    objective = partial(notes_and_dies, folder=str(tmp_path), lethal=3)
    executor = dask_client.get_executor(pure=False)
    result = quiet(objective=objective, executor=executor, workers=2, n_trials=10, storage=storage)
    check(result, 10)
    # The one that was under way is run again; so may be what its worker had just finished.
    counts = calls(tmp_path)
    assert sorted(counts) == list(range(10))
    assert counts[3] == 2
    assert sum(counts.values()) <= 12
    result.optimizer.close()


# --------------------------------------------------------------------------------------
# submitit
# --------------------------------------------------------------------------------------


# submitit leaves a finished job's process to the garbage collector.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_submitit_runs_each_trial_as_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(objectives.__file__).parent))
    # Seconds it waits for the result file of a job that died, for slow network file systems.
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    storage, folder = str(tmp_path / "study.db"), tmp_path / "calls"
    folder.mkdir()
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=1)
    objective = partial(notes_and_dies, folder=str(folder), lethal=1)
    result = quiet(
        objective=objective,
        executor=executor,
        workers=2,
        n_trials=2,
        retries=1,
        storage=storage,
    )
    check(result, 2)
    assert calls(folder) == Counter([0, 1, 1])
    assert len(list(folder.glob("*.pid"))) == 3  # a process each
    result.optimizer.close()


# --------------------------------------------------------------------------------------
# Without a storage
# --------------------------------------------------------------------------------------


def test_reports_to_the_memory_of_another_process_are_refused() -> None:
    objective = partial(notes_and_dies, folder=".", lethal=-1)
    optimizer = Optimizer(SPACE, minimize="value")
    with loky_executor(1) as executor, pytest.raises(ValueError, match="give storage="):
        run(optimizer, objective, n_trials=1, executor=executor)
    assert optimizer.trials == []
    assert TrialState.RUNNING not in {t.state for t in optimizer.trials}
