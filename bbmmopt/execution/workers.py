"""Where the objective runs: what each place has to offer, the calling thread, and threads.

Imports nothing heavy: a worker process that loads this must not wait for torch.
"""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Protocol

from bbmmopt.trial import TrialPruned

Objective = Callable[..., Any]
Catch = tuple[type[BaseException], ...]


class WorkerDied(RuntimeError):
    """A worker process ended before its objective did; the message says how."""


class ExecutorBroken(RuntimeError):
    """An executor broke as a whole, and the trials on it are lost; the message says what to do."""


@dataclass(frozen=True)
class Evaluation:
    """What came out of one call of the objective.

    Attributes:
        value: What it returned.
        failure: What it raised, in words, with the traceback; None if it returned.
        error: The exception itself, if it is not one that the caller catches.
        pruned: Why it gave the trial up; None if it did not.
        seconds: How long it took.
    """

    value: Any = None
    failure: str | None = None
    error: BaseException | None = None
    pruned: str | None = None
    seconds: float = 0.0


def evaluate(objective: Objective, arguments: Mapping[str, Any], catch: Catch) -> Evaluation:
    """Call the objective, wherever this runs. Raises nothing but KeyboardInterrupt."""
    began = time.perf_counter()
    evaluation = _outcome(objective, arguments, catch)
    return replace(evaluation, seconds=time.perf_counter() - began)


def _outcome(objective: Objective, arguments: Mapping[str, Any], catch: Catch) -> Evaluation:
    try:
        return Evaluation(objective(**arguments))
    except TrialPruned as error:
        return Evaluation(pruned=str(error) or "the objective gave it up")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Evaluation(
            failure=describe(error), error=None if isinstance(error, catch) else error
        )


def describe(error: BaseException) -> str:
    """A line that says what was raised, and the traceback below, without the caller's frame."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be printed)"
    summary = type(error).__name__ + (f": {message}" if message else "")
    frames = error.__traceback__ and error.__traceback__.tb_next
    if frames is None:
        return summary
    return f"{summary}\n\n{''.join(traceback.format_exception(type(error), error, frames))}".strip()


class Running(Protocol):
    """An evaluation under way."""

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        ...

    def result(self) -> Evaluation:
        """What came out. Raises only when the worker was lost, not for the objective."""
        ...


class Runner(Protocol):
    """Evaluates points. Used by one thread."""

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Get ready. Raises if no worker can run the objective; returns early if interrupted."""
        ...

    def submit(self, arguments: Mapping[str, Any]) -> Running:
        """Begin to evaluate a point."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait so long at most; less, where it is known that an evaluation has ended."""
        ...

    def close(self, *, abandon: bool) -> None:
        """Let the workers go. With abandon=True some may be busy, and are not waited for."""
        ...


class Inline:
    """Evaluates in the calling thread: `submit` returns when it is done."""

    def __init__(self, objective: Objective, catch: Catch) -> None:
        self._objective, self._catch = objective, catch

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Nothing to do."""

    def submit(self, arguments: Mapping[str, Any]) -> Running:
        """Evaluate a point, now."""
        future: Future[Evaluation] = Future()
        future.set_result(evaluate(self._objective, arguments, self._catch))
        return future

    def wait(self, seconds: float) -> None:
        """Wait so long."""
        time.sleep(seconds)

    def close(self, *, abandon: bool) -> None:
        """Nothing to do."""


class Threads:
    """Evaluates in threads of this process.

    Not a ThreadPoolExecutor: the interpreter waits for the threads of one when it exits, so that
    whoever gave up waiting with a second Ctrl-C would go on waiting. These are daemons.
    """

    def __init__(self, objective: Objective, catch: Catch, workers: int) -> None:
        self._objective, self._catch, self._workers = objective, catch, workers
        self._tasks: SimpleQueue[tuple[Future[Evaluation], Mapping[str, Any]] | None]
        self._tasks = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Start the threads."""
        for i in range(self._workers):
            thread = threading.Thread(target=self._serve, name=f"bbmmopt worker {i}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, arguments: Mapping[str, Any]) -> Running:
        """Give a point to the next free thread."""
        future: Future[Evaluation] = Future()
        self._tasks.put((future, arguments))
        return future

    def wait(self, seconds: float) -> None:
        """Wait so long."""
        time.sleep(seconds)

    def close(self, *, abandon: bool) -> None:
        """Tell the threads to end, each after what it is doing."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads if not abandon else ():
            thread.join()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, arguments = task
            try:
                future.set_result(evaluate(self._objective, arguments, self._catch))
            except BaseException as error:  # KeyboardInterrupt: raised again where it is read
                future.set_exception(error)
