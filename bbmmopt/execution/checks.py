"""The door of a run: everything is checked here, before a storage is opened or a trial asked."""

import inspect
import math
import numbers
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

from bbmmopt.execution.processes import Processes
from bbmmopt.execution.workers import Catch, External, Inline, Objective, Runner, Threads
from bbmmopt.space import Space

Callback = Callable[..., object]


@dataclass(frozen=True)
class Plan:
    """A run that can begin."""

    runner: Runner
    n_trials: int
    workers: int
    timeout: float  # infinity for none
    progress: bool | None
    callbacks: tuple[Callback, ...]


def make_plan(
    objective: Objective,
    space: Space,
    *,
    n_trials: int,
    workers: int,
    executor: Any,
    timeout: float | None,
    catch: type[BaseException] | Iterable[type[BaseException]],
    progress: bool | None,
    callbacks: Iterable[Callback],
) -> Plan:
    """Check the arguments of `run`.

    Raises:
        TypeError, ValueError: What was expected, what came, what to do.
    """
    _check_count("n_trials", n_trials, "how many trials to run now")
    _check_count("workers", workers, "how many trials to run at a time")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout must be a number of seconds or None; got {timeout!r}.")
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds; got {timeout!r}.")
    if progress not in (None, True, False):
        raise TypeError(f"progress must be True, False or None; got {progress!r}.")
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise TypeError("callbacks takes several: callbacks=[…].")
    if not all(map(callable, callbacks := tuple(callbacks))):
        raise TypeError("each callback must be callable, as callback(optimizer, trial).")
    _check_objective(objective, space)
    n_trials, workers = int(n_trials), min(int(workers), int(n_trials))
    return Plan(
        runner=_make_runner(objective, space, executor, workers, _checked_catch(catch)),
        n_trials=n_trials,
        workers=workers,
        timeout=math.inf if timeout is None else float(timeout),
        progress=progress,
        callbacks=callbacks,
    )


def _check_count(name: str, count: Any, meaning: str) -> None:
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise TypeError(f"{name} must be an integer, {meaning}; got {count!r}.")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, {meaning}; got {count}.")


def _checked_catch(catch: type[BaseException] | Iterable[type[BaseException]]) -> Catch:
    if not isinstance(catch, type | tuple | list | set | frozenset):
        raise TypeError(f"catch takes exception classes; got {catch!r}.")
    classes = (catch,) if isinstance(catch, type) else tuple(catch)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise TypeError(f"catch takes exception classes; got {cls!r}.")
    return classes


def _check_objective(objective: Any, space: Space) -> None:
    """Whether the objective can be called with what a trial has, as far as its signature tells."""
    if not callable(objective):
        raise TypeError(f"the objective must be callable; got {objective!r}.")
    try:
        # What is called is the wrapper: it may well add the arguments of what it wraps.
        signature = inspect.signature(objective, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # builtins and the like do not say
    takes, needs, anything = set(), set(), False
    for p in signature.parameters.values():
        anything |= p.kind is p.VAR_KEYWORD
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            takes.add(p.name)
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            needs.add(p.name)
    given = f"the objective is called with the parameters as keywords ({', '.join(space.names)})"
    form = f"{getattr(objective, '__name__', type(objective).__name__)}{signature}"
    unknown = [name for name in space.names if name not in takes]
    if unknown and not anything:
        raise TypeError(f"{given}, but {form} does not take {', '.join(unknown)}.")
    if missing := sorted(needs - set(space.names)):
        raise TypeError(f"{given}, but {form} also needs {', '.join(missing)}.")
    sometimes = [n for n, p in space.parameters.items() if p.when is not None and n in needs]
    if sometimes:
        raise TypeError(
            f"{', '.join(sometimes)} is passed only where its condition holds: give it a default "
            f"in {form}."
        )


def _make_runner(
    objective: Objective, space: Space, executor: Any, workers: int, catch: Catch
) -> Runner:
    if executor == "threads":
        # One at a time is best run right here: some things only work in the main thread, such as
        # signal handlers and windows.
        return Inline(objective, catch) if workers == 1 else Threads(objective, catch, workers)
    if executor == "processes":
        _check_picklable(objective, space, catch)
        return Processes(objective, catch, workers)
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f'executor must be "threads", "processes", or an object with submit(function, …) '
            f"whose results have done() and result(); got {executor!r}."
        )
    if isinstance(executor, ProcessPoolExecutor):
        _check_picklable(objective, space, catch)
    return External(executor, objective, catch)


def _check_picklable(objective: Objective, space: Space, catch: Catch) -> None:
    try:
        ForkingPickler.dumps((objective, catch))
    except Exception as error:
        raise TypeError(
            f"{objective!r} cannot be sent to another process ({error}). Make it importable: "
            f"write it with `def` at the top level of a module, not as a lambda or within another "
            f'function. Or use executor="threads".'
        ) from error
    for name, parameter in space.parameters.items():
        try:
            ForkingPickler.dumps(getattr(parameter, "objects", None))
        except Exception as error:
            raise TypeError(
                f"parameter {name!r}: the objects it stands for cannot be sent to another process "
                f'({error}). Make them importable, or use executor="threads".'
            ) from error
