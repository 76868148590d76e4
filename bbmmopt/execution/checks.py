"""The door of a run: everything is checked here, before a storage is opened or a trial asked."""

import inspect
import math
import numbers
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

from bbmmopt.execution.external import External, is_remote
from bbmmopt.execution.processes import Processes
from bbmmopt.execution.stopping import StopRule, TotalTrials, checked_rules
from bbmmopt.execution.workers import Catch, Inline, Objective, Runner, Threads
from bbmmopt.space import Space

Callback = Callable[..., object]


@dataclass(frozen=True)
class Study:
    """What a plan has to know of a study that may not be there yet.

    Attributes:
        space: Its space.
        objectives: How many it has.
        perturbed: Whether its parameters vary in use.
        in_memory: Whether it is kept in the memory of this process.
    """

    space: Space
    objectives: int
    perturbed: bool
    in_memory: bool


@dataclass(frozen=True)
class Plan:
    """A run that can begin.

    Attributes:
        runner: Where trials run.
        n_trials: How many to run; infinity for no limit.
        workers: How many to run at a time.
        timeout: Seconds; infinity for none.
        progress, callbacks, lease: As in `run`.
        retries: How many more attempts a trial has.
        rules: When to stop.
        passes_trial: Whether the objective is given the running trial.
    """

    runner: Runner
    n_trials: float
    workers: int
    timeout: float
    progress: bool | None
    callbacks: tuple[Callback, ...]
    retries: int
    rules: tuple[StopRule, ...]
    lease: float | None
    passes_trial: bool

    @property
    def total(self) -> float:
        """How many trials the study may have; infinity for no limit."""
        return min((r.n for r in self.rules if isinstance(r, TotalTrials)), default=math.inf)


def make_plan(
    objective: Objective,
    study: Study,
    *,
    n_trials: int | None,
    workers: int,
    executor: Any,
    timeout: float | None,
    stop: Any,
    retries: int,
    trial_timeout: float | None,
    lease: float | None,
    catch: type[BaseException] | Iterable[type[BaseException]],
    progress: bool | None,
    callbacks: Iterable[Callback],
) -> Plan:
    """Check the arguments of `run`.

    Raises:
        TypeError, ValueError: What was expected, what came, what to do.
    """
    _check_count("workers", workers, "how many trials to run at a time")
    _check_count("retries", retries, "how many more attempts a trial has", least=0)
    for name, seconds in (("timeout", timeout), ("trial_timeout", trial_timeout), ("lease", lease)):
        _check_seconds(name, seconds)
    rules = checked_rules(stop)
    for rule in rules:
        rule.check(study.objectives, study.perturbed)
    _check_ends(n_trials, timeout, rules)
    if progress not in (None, True, False):
        raise TypeError(f"progress must be True, False or None; got {progress!r}.")
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise TypeError("callbacks takes several: callbacks=[…].")
    if not all(map(callable, callbacks := tuple(callbacks))):
        raise TypeError("each callback must be callable, as callback(optimizer, trial).")
    passes_trial = _check_objective(objective, study.space)
    workers = int(workers if n_trials is None else min(workers, n_trials))
    place = _Place(executor, workers, trial_timeout, lease)
    place.check(passes_trial and study.in_memory)
    return Plan(
        runner=place.runner(objective, study.space, _checked_catch(catch)),
        n_trials=math.inf if n_trials is None else int(n_trials),
        workers=workers,
        timeout=math.inf if timeout is None else float(timeout),
        progress=progress,
        callbacks=callbacks,
        retries=int(retries),
        rules=rules,
        lease=None if lease is None else float(lease),
        passes_trial=passes_trial,
    )


def _check_seconds(name: str, seconds: Any) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} must be a number of seconds or None; got {seconds!r}.")
    if not seconds > 0 or (name == "lease" and math.isinf(seconds)):
        raise ValueError(f"{name} must be a positive number of seconds; got {seconds!r}.")


def _check_ends(n_trials: Any, timeout: float | None, rules: tuple[StopRule, ...]) -> None:
    if n_trials is not None:
        _check_count("n_trials", n_trials, "how many trials to run now")
    elif timeout is None and not rules:
        raise ValueError(
            "the run would not end: give n_trials, how many trials to run now; or timeout=, in "
            "seconds; or stop=, such as Target(0.1) or Patience(20)."
        )


def _check_count(name: str, count: Any, meaning: str, least: int = 1) -> None:
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise TypeError(f"{name} must be an integer, {meaning}; got {count!r}.")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, {meaning}; got {count}.")


def _checked_catch(catch: type[BaseException] | Iterable[type[BaseException]]) -> Catch:
    if not isinstance(catch, type | tuple | list | set | frozenset):
        raise TypeError(f"catch takes exception classes; got {catch!r}.")
    classes = (catch,) if isinstance(catch, type) else tuple(catch)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise TypeError(f"catch takes exception classes; got {cls!r}.")
    return classes


def _check_objective(objective: Any, space: Space) -> bool:
    """Check that the objective can be called with what a trial has, as far as its signature tells.

    Returns:
        Whether it is to be given the running trial too.
    """
    if not callable(objective):
        raise TypeError(f"the objective must be callable; got {objective!r}.")
    try:
        # What is called is the wrapper: it may well add the arguments of what it wraps.
        signature = inspect.signature(objective, follow_wrapped=False)
    except (TypeError, ValueError):
        return False  # builtins and the like do not say
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
    passes_trial = "trial" in takes and "trial" not in space.names
    if missing := sorted(needs - set(space.names) - ({"trial"} if passes_trial else set())):
        raise TypeError(f"{given}, but {form} also needs {', '.join(missing)}.")
    sometimes = [n for n, p in space.parameters.items() if p.when is not None and n in needs]
    if sometimes:
        raise TypeError(
            f"{', '.join(sometimes)} is passed only where its condition holds: give it a default "
            f"in {form}."
        )
    return passes_trial


@dataclass(frozen=True)
class _Place:
    """Where trials are to run, as `run` was told."""

    executor: Any
    workers: int
    trial_timeout: float | None
    lease: float | None

    @property
    def named(self) -> bool:
        """Whether it is one of ours."""
        return isinstance(self.executor, str) and self.executor in ("threads", "processes")

    def check(self, needs_storage: bool) -> None:
        """Refuse what is no executor, or one that cannot do what is asked of it.

        Args:
            needs_storage: Whether trials report, and there is no storage that workers could open.
        """
        executor = self.executor
        if not self.named and (
            isinstance(executor, type) or not callable(getattr(executor, "submit", None))
        ):
            raise TypeError(
                f'executor must be "threads", "processes", or an object with submit(function, …) '
                f"whose results have done() and result(); got {executor!r}."
            )
        if self.trial_timeout is not None and executor != "processes":
            whose = "a thread" if executor == "threads" else "what runs on somebody's executor"
            raise ValueError(
                f"trial_timeout kills a worker process of ours, and {whose} cannot be killed: use "
                f'executor="processes" with it. submitit has a limit of its own, '
                f"executor.update_parameters(timeout_min=…); Dask and concurrent.futures have none "
                f"for a task: let the objective end itself there."
            )
        if needs_storage and (executor == "processes" or (not self.named and is_remote(executor))):
            raise ValueError(
                "the objective takes the running trial, to report to, from another process, and "
                'the study is in the memory of this one: give storage="study.db", or use '
                'executor="threads".'
            )

    def runner(self, objective: Objective, space: Space, catch: Catch) -> Runner:
        """What evaluates there."""
        if self.executor == "processes":
            _check_picklable(objective, space, catch)
            limit = math.inf if self.trial_timeout is None else float(self.trial_timeout)
            return Processes(objective, catch, self.workers, limit)
        if self.executor == "threads":
            # One at a time is best run right here: some things only work in the main thread, such
            # as signal handlers and windows. But then nobody renews leases.
            if self.workers == 1 and self.lease is None:
                return Inline(objective, catch)
            return Threads(objective, catch, self.workers)
        if isinstance(self.executor, ProcessPoolExecutor):
            _check_picklable(objective, space, catch)
        return External(self.executor, objective, catch)


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
