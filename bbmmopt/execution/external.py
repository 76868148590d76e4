"""Executors of others: concurrent.futures, loky, Dask, submitit, mpi4py, or one of your own."""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any

from bbmmopt.execution.workers import (
    Catch,
    Evaluation,
    ExecutorBroken,
    Objective,
    Running,
    WorkerDied,
    evaluate,
)

# Packages whose executors run things in other processes. What else has a `submit` may not.
_REMOTE = ("loky", "distributed", "submitit", "mpi4py", "joblib")


def is_remote(executor: Any) -> bool:
    """Whether an executor is known to run things in other processes."""
    package = type(executor).__module__.partition(".")[0]
    return isinstance(executor, ProcessPoolExecutor) or package in _REMOTE


class External:
    """Evaluates on an executor that the caller made, and will shut down.

    Of a pool of processes one of which died, all trials under way are lost, and nobody can tell
    which of them did it. loky's reusable executor is made anew then, and each of them counts as one
    whose worker died. Other pools cannot be made anew by us, nor one that sets its workers up in a
    way that loky does not repeat.
    """

    def __init__(self, executor: Any, objective: Objective, catch: Catch) -> None:
        self._executor, self._objective, self._catch = executor, objective, catch

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Nothing to do: it is running."""

    def submit(self, arguments: Mapping[str, Any]) -> Running:
        """Submit a point.

        Raises:
            ExecutorBroken: If it is a pool that broke, and cannot be made anew.
        """
        # A plain dict by position: some executors take keywords for themselves.
        call = evaluate, self._objective, dict(arguments), self._catch
        try:
            return _Job(self, self._executor.submit(*call))
        except BrokenExecutor as error:
            self.rebuild(error)
            return _Job(self, self._executor.submit(*call))

    def rebuild(self, error: BrokenExecutor) -> None:
        """Make a pool that broke anew.

        Raises:
            ExecutorBroken: If that cannot be done.
        """
        if not _can_be_rebuilt(self._executor):
            raise ExecutorBroken(
                f"the executor broke ({type(error).__name__}: {error}): one of its worker "
                f"processes died, and all trials under way are lost with it. They are left "
                f"running, and the next run begins with them; give it a new executor, or "
                f'executor="processes", which loses nothing but the trial whose worker died.'
            ) from error
        loky: Any = sys.modules["loky"]  # not imported by us: the executor is from there
        self._executor = loky.get_reusable_executor(reuse=True)  # with as many workers

    def wait(self, seconds: float) -> None:
        """Wait so long."""
        time.sleep(seconds)

    def close(self, *, abandon: bool) -> None:
        """Leave it as it is."""


def _can_be_rebuilt(executor: Any) -> bool:
    reusable = type(executor).__module__ == "loky.reusable_executor"
    return reusable and not any(getattr(executor, a, None) for a in ("_initializer", "_env"))


class _Job:
    """One evaluation on an executor."""

    def __init__(self, runner: External, job: Any) -> None:
        self._runner, self._job = runner, job

    def done(self) -> bool:
        return self._job.done()

    def result(self) -> Evaluation:
        try:
            return self._job.result()
        except BrokenExecutor as error:
            self._runner.rebuild(error)
            raise WorkerDied(
                f"a worker process of the executor died; of the trials under way it may have "
                f"been this one ({type(error).__name__}: {error})"
            ) from error
