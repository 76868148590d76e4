"""Processes: evaluate in worker processes of our own, so that each trial's worker is known.

concurrent.futures.ProcessPoolExecutor breaks as a whole when one worker dies: every trial under
way is lost, and which of them did it cannot be told. Here each worker has a pipe: the trial of the
one that died fails, with the signal that killed it, and the others go on.

Workers are spawned, not forked: torch and BLAS threads do not survive a fork. A worker imports
the script's main module, as always with spawn.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from bbmmopt.execution.workers import (
    Catch,
    Evaluation,
    Objective,
    Running,
    WorkerDied,
    describe,
    evaluate,
)

_PATIENCE = 10.0  # seconds that an idle worker may take to exit before it is made to


class Processes:
    """Evaluates in `workers` processes. One that dies is replaced when it is needed."""

    def __init__(self, objective: Objective, catch: Catch, workers: int) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker imports the main module, and the main module is here again.
            raise RuntimeError(
                "this script starts worker processes, and each of them imports it and so gets "
                'here too. Put the call under `if __name__ == "__main__":`.'
            )
        # Once, and as bytes: an objective that carries a data set is not pickled for every trial,
        # and one that cannot be loaded is reported by the worker instead of killing it.
        self._payload = bytes(ForkingPickler.dumps((objective, catch)))
        self._workers = workers
        self._idle: list[_Child] = []
        self._busy: list[_Job] = []

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Start the workers and wait until one has loaded the objective.

        Raises:
            TypeError: If the objective cannot be loaded there.
            WorkerDied: If the worker does not come up.
        """
        self._idle = [_Child(self._payload) for _ in range(self._workers)]
        while not interrupted():
            ready = connection.wait([child.connection for child in self._idle], timeout=0.1)
            for child in self._idle:
                if (child.connection in ready or child.gone) and child.check_ready():
                    return

    def submit(self, arguments: Mapping[str, Any]) -> Running:
        """Send a point to a free worker."""
        message = ForkingPickler.dumps(dict(arguments))
        self._busy, finished = [], [job for job in self._busy if job.done()] + [
            job for job in self._busy if not job.done()
        ]
        for job in finished:
            (self._idle if job.done() else self._busy).append(job.child)
        raise NotImplementedError(message)

    def close(self, *, abandon: bool) -> None:
        """End the workers."""
