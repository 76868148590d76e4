"""Processes: evaluate in worker processes of our own, so that each trial's worker is known.

A trial can be given a time limit: its worker is killed then, as no thread could be.

concurrent.futures.ProcessPoolExecutor breaks as a whole when one worker dies: every trial under
way is lost, and which of them did it cannot be told. Here each worker has a pipe: the trial of the
one that died fails, with the signal that killed it, and the others go on.

Workers are spawned, not forked: the threads of torch and BLAS do not survive a fork. As always
with spawn, a worker imports the script's main module.
"""

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
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
    """Evaluates in `workers` processes. One that dies is replaced when it is needed.

    Args:
        objective: What is called.
        catch: Exceptions of it that are caught.
        workers: How many processes.
        limit: Seconds after which a call is ended, with its process.
    """

    def __init__(
        self, objective: Objective, catch: Catch, workers: int, limit: float = math.inf
    ) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker imports the main module, and is running the main module's minimize() now.
            raise RuntimeError(
                "this script starts worker processes, and each of them imports it and so gets "
                'here too. Put the call under `if __name__ == "__main__":`.'
            )
        if getattr(sys.modules.get("__main__"), "__file__", None) == "<stdin>":
            raise RuntimeError(
                "this script came by stdin, and worker processes cannot import it from there. Run "
                'it as a file, `python script.py`, or use executor="threads".'
            )
        # Once, and as bytes: an objective that carries a data set is not pickled for every trial,
        # and one that cannot be loaded is reported by the worker instead of killing it.
        self._payload = bytes(ForkingPickler.dumps((objective, catch)))
        self._workers, self._limit = workers, limit
        self._children: list[_Child] = []

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Start the workers and wait until one has loaded the objective.

        Raises:
            TypeError: If it cannot be loaded there.
            WorkerDied: If none of the workers comes up.
        """
        for _ in range(self._workers):
            self._children.append(_Child(self._payload))
        while not interrupted() and not self._one_is_up():
            connection.wait([child.connection for child in self._children], timeout=0.1)

    def _one_is_up(self) -> bool:
        """Whether a worker has loaded the objective; those that died are let go of."""
        for child in list(self._children):
            try:
                if child.came_up():
                    return True
            except WorkerDied:
                if len(self._children) == 1:
                    raise
                self._children.remove(child)
                child.close()
        return False

    def submit(self, arguments: Mapping[str, Any]) -> Running:
        """Send a point to a free worker, or to a new one if a free one died."""
        message = bytes(ForkingPickler.dumps(dict(arguments)))
        for child in [child for child in self._children if child.free and child.gone]:
            self._children.remove(child)
            child.close()
        free = [child for child in self._children if child.free]
        if not free:
            free = [_Child(self._payload)]
            self._children += free
        # Rather one that is up than one that is still importing.
        child = max(free, key=lambda child: child.ready or child.connection.poll())
        return _Job(child, message, self._limit)

    def wait(self, seconds: float) -> None:
        """Wait until a busy worker has something to say, so long at most."""
        busy = [child.connection for child in self._children if not child.free]
        if busy:
            connection.wait(busy, timeout=seconds)
        else:
            time.sleep(seconds)

    def close(self, *, abandon: bool) -> None:
        """End the workers: idle ones by themselves; with abandon=True, all at once."""
        for child in self._children:
            child.connection.close()  # an idle worker takes that as a goodbye
            if abandon:
                child.process.terminate()
        until = time.monotonic() + _PATIENCE * (0.1 if abandon else 1.0)
        for child in self._children:
            child.close(until)
        self._children.clear()


class _Child:
    """A worker process, seen from here."""

    def __init__(self, payload: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, payload), name="bbmmopt worker")
        self.ready, self.free = False, True
        try:
            with _interrupts_held():
                self.process.start()
        except BaseException as error:
            self.connection.close()
            if isinstance(error, BrokenPipeError):
                died = "a worker process ended as soon as it was started."
                raise WorkerDied(died) from error
            raise
        finally:
            theirs.close()

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return not self.process.is_alive()

    def hear(self) -> Evaluation | None:
        """What it has to say, if anything; its first word, that it is ready, is kept in here.

        Raises:
            WorkerDied: If it has ended and will say nothing more.
        """
        gone = self.gone  # asked first: what it said before it ended must not be missed
        try:
            while self.connection.poll():
                said = _loaded(self.connection.recv_bytes())
                if said is not None:
                    return said
                self.ready = True
        except (EOFError, OSError):
            gone = True
        if gone:
            raise WorkerDied(f"the worker process {self._ending()}.")
        return None

    def came_up(self) -> bool:
        """Whether it has loaded the objective."""
        try:
            problem = self.hear()
        except WorkerDied as error:
            raise WorkerDied(
                f"{error} It was starting, and had not got to the objective: what it printed "
                f"above says why."
            ) from None
        if problem is not None:
            raise TypeError(
                f"a worker process cannot load the objective ({_first_line(problem)}). Put it in "
                f"a module, a .py file, and import it from there: workers do not know what was "
                f'typed at a prompt or in a notebook. Or use executor="threads".'
            )
        return self.ready

    def _ending(self) -> str:
        self.process.join(_PATIENCE)
        code = self.process.exitcode
        if code is None:
            self.process.kill()  # of no use any more
            self.process.join()
            return "closed its pipe to us"
        if code >= 0:
            return f"ended with exit code {code} before the objective returned"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", as happens when memory runs out" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"

    def close(self, until: float = 0.0) -> None:
        """Wait until then for the process to end, then kill it, and let go of it."""
        self.connection.close()
        self.process.join(max(0.0, until - time.monotonic()))
        if not self.gone:
            self.process.kill()
            self.process.join()
        self.process.close()


class _Job:
    """One evaluation in a worker process, which is killed after `limit` seconds of it."""

    def __init__(self, child: _Child, message: bytes, limit: float) -> None:
        self._child, self._limit = child, limit
        self._began: float | None = None
        self._outcome: Evaluation | WorkerDied | None = None
        child.free = False
        try:
            child.connection.send_bytes(message)
        except OSError:
            self._outcome = WorkerDied("the worker process died before the trial could start.")
            child.free = True

    def done(self) -> bool:
        if self._outcome is None:
            try:
                self._outcome = self._child.hear() or self._overdue()
            except WorkerDied as error:
                self._outcome = error
            self._child.free = self._outcome is not None
        return self._outcome is not None

    def _overdue(self) -> Evaluation | None:
        """The end of an evaluation that takes too long."""
        if not self._child.ready:
            return None  # still importing
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if now - self._began < self._limit:
            return None
        self._child.process.kill()
        self._child.process.join()
        with suppress(WorkerDied):
            if (just_in_time := self._child.hear()) is not None:
                return just_in_time
        return Evaluation(
            failure=f"TrialTimeout: not done after trial_timeout={self._limit:g} s; its worker "
            f"process was killed.",
            seconds=now - self._began,
        )

    def result(self) -> Evaluation:
        while not self.done():
            connection.wait([self._child.connection, self._child.process.sentinel], timeout=0.1)
        if isinstance(self._outcome, WorkerDied):
            raise self._outcome
        return self._outcome or Evaluation()


def _first_line(problem: Evaluation) -> str:
    return (problem.failure or "").partition("\n")[0]


def _loaded(message: bytes) -> Evaluation | None:
    try:
        return pickle.loads(message)
    except Exception as error:
        return Evaluation(failure=f"what the objective returned cannot be read: {describe(error)}")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep SIGINT waiting, here and in a process started meanwhile.

    Ctrl-C goes to all processes of a terminal. A worker ignores it from its first line on; it
    would print a traceback and die if that came before. The signal mask is inherited.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started with the first process otherwise, and unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --------------------------------------------------------------------------------------
# In the worker process
# --------------------------------------------------------------------------------------


def serve(pipe: connection.Connection, payload: bytes) -> None:
    """Load the objective, then evaluate what comes until the pipe is closed."""
    # Ctrl-C is the parent's business: it waits for this trial, or ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    loaded, failure = None, None
    try:
        loaded = pickle.loads(payload)
    except BaseException as error:
        failure = Evaluation(failure=describe(error))
    try:
        pipe.send(failure)
    except OSError:
        return  # the run was interrupted while this worker started
    if loaded is None:
        return
    objective, catch = loaded
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            arguments = pickle.loads(message)
        except Exception as error:
            evaluation = Evaluation(failure=describe(error))
        else:
            evaluation = evaluate(objective, arguments, catch)
        try:
            pipe.send_bytes(_packed(evaluation))
        except OSError:
            return  # nobody is waiting any more


def _packed(evaluation: Evaluation) -> bytes:
    """The bytes of an evaluation, or of one that says why there are none."""
    try:
        message = bytes(ForkingPickler.dumps(evaluation))
        if evaluation.error is not None:
            pickle.loads(message)  # exceptions with arguments of their own often cannot be read
        return message
    except Exception as error:
        failure = evaluation.failure or f"what the objective returned: {describe(error)}"
        wrapped = RuntimeError(failure) if evaluation.error is not None else None
        return bytes(ForkingPickler.dumps(Evaluation(failure=failure, error=wrapped)))


def _end_with_parent() -> None:
    """End this process when its parent was killed: its result would be lost, its memory not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
