"""minimize(), maximize(), run(): the calls that start a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from bbmmopt.early_stopping import StoppingRule
from bbmmopt.execution import checks
from bbmmopt.execution.checks import Callback, make_plan
from bbmmopt.execution.loop import execute
from bbmmopt.execution.results import RunResult
from bbmmopt.execution.stopping import StopRule
from bbmmopt.execution.workers import Objective
from bbmmopt.prior import Prior
from bbmmopt.problem import Constraints, Noise
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import did_you_mean
from bbmmopt.storage import Storage
from bbmmopt.study.warm_start import WarmStart

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    import torch

    from bbmmopt.optimizer import Optimizer

Catch = type[BaseException] | Iterable[type[BaseException]]
Stop = StopRule | Iterable[StopRule]


class StudyOptions(TypedDict, total=False):
    """What else of a study `minimize` and `maximize` take: each is what it is to `Optimizer`."""

    constraints: Constraints
    reference_point: Mapping[str, float] | None
    budget: int | None
    acquisition: str | None
    strategy: str | None
    prior: Prior | None
    cost: Literal["seconds"] | None
    perturbation: Mapping[str, float] | None
    risk: float | Literal["mean"] | None
    early_stopping: StoppingRule | str | Mapping[str, Any] | None
    mode: Literal["resume", "extend"]
    former: Mapping[str, Any] | None
    warm_start: WarmStart | None
    device: str | torch.device


def minimize(
    objective: Objective,
    space: Space | Mapping[str, Parameter],
    *,
    n_trials: int | None = None,
    name: str | Iterable[str] = "value",
    workers: int = 1,
    executor: Any = "threads",
    storage: str | PathLike[str] | Storage | None = None,
    study: str = "default",
    seed: int | None = None,
    noise: Noise | Mapping[str, Noise] = "unknown",
    n_start: int | None = None,
    timeout: float | None = None,
    stop: Stop | None = None,
    retries: int = 0,
    trial_timeout: float | None = None,
    lease: float | None = None,
    catch: Catch = (Exception,),
    progress: bool | None = None,
    callbacks: Iterable[Callback] = (),
    **options: Unpack[StudyOptions],
) -> RunResult:
    """Find parameters that make a function small.

        result = minimize(error, space, n_trials=40, workers=4, storage="study.db")
        print(result.best.params, result.best.values)

    Every outcome is stored before anything else happens. Call it again with the same storage and
    it goes on with `n_trials` more; a run that was killed is taken up where it was, the trials it
    left behind first.

    If this raises, what was stored stays stored; of storage=None nothing is left then. `run`, with
    an Optimizer of your own, leaves you that.

    Args:
        objective: Called as objective(**params), choices replaced by the objects they stand for;
            and with trial=, if it has a parameter of that name and the space has not: the running
            Trial, for `trial.report(step, value)` and `trial.should_stop()`. If it then raises
            TrialPruned, the trial ends as pruned: neither failed nor run again.
            Returns a number; (mean, standard error); or {name: either} of several objectives, and
            of constraints {name: number} among them.
        space: The parameters.
        n_trials: How many trials to run now; failed ones count. May be left out where there is a
            timeout or a stop rule.
        name: What the objective is called in the study; several names for several objectives.
        workers: How many trials to run at a time.
        executor: See `run`.
        storage: None for memory, a path, a database URL or a Storage; see `Optimizer`.
        study: Name of the study within the storage.
        seed: Repeats a run; see `Optimizer`.
        noise: "unknown", "none" or "noisy"; see `Optimizer`.
        n_start: How many trials are spread over the space before the model takes over.
        timeout, stop, retries, trial_timeout, lease: See `run`, as for those below.
        catch: Exceptions that make a failed trial and let the run go on.
        progress: Whether to show it.
        callbacks: Called after each trial.
        options: constraints, reference_point, acquisition, strategy, prior, cost, perturbation,
            risk, early_stopping, mode, former, warm_start, device: see `Optimizer`. So is budget;
            left out, `n_trials`, and with mode="extend" what it was.

    Raises:
        TypeError, ValueError: If an argument makes no sense; then nothing was stored. And as
            `run` does.
        StudyDiffers: If the storage holds this study with another problem, seed or setting.
    """
    return _optimise(
        {"minimize": _names(name)},
        objective,
        space,
        options,
        storage=storage,
        study={"study": study, "seed": seed, "noise": noise, "n_start": n_start},
        n_trials=n_trials,
        workers=workers,
        executor=executor,
        timeout=timeout,
        stop=stop,
        retries=retries,
        trial_timeout=trial_timeout,
        lease=lease,
        catch=catch,
        progress=progress,
        callbacks=callbacks,
    )


def maximize(
    objective: Objective,
    space: Space | Mapping[str, Parameter],
    *,
    n_trials: int | None = None,
    name: str | Iterable[str] = "value",
    workers: int = 1,
    executor: Any = "threads",
    storage: str | PathLike[str] | Storage | None = None,
    study: str = "default",
    seed: int | None = None,
    noise: Noise | Mapping[str, Noise] = "unknown",
    n_start: int | None = None,
    timeout: float | None = None,
    stop: Stop | None = None,
    retries: int = 0,
    trial_timeout: float | None = None,
    lease: float | None = None,
    catch: Catch = (Exception,),
    progress: bool | None = None,
    callbacks: Iterable[Callback] = (),
    **options: Unpack[StudyOptions],
) -> RunResult:
    """Find parameters that make a function large; in all else as `minimize`."""
    return _optimise(
        {"maximize": _names(name)},
        objective,
        space,
        options,
        storage=storage,
        study={"study": study, "seed": seed, "noise": noise, "n_start": n_start},
        n_trials=n_trials,
        workers=workers,
        executor=executor,
        timeout=timeout,
        stop=stop,
        retries=retries,
        trial_timeout=trial_timeout,
        lease=lease,
        catch=catch,
        progress=progress,
        callbacks=callbacks,
    )


def run(
    optimizer: Optimizer,
    objective: Objective,
    *,
    n_trials: int | None = None,
    workers: int = 1,
    executor: Any = "threads",
    timeout: float | None = None,
    stop: Stop | None = None,
    retries: int = 0,
    trial_timeout: float | None = None,
    lease: float | None = None,
    catch: Catch = (Exception,),
    progress: bool | None = None,
    callbacks: Iterable[Callback] = (),
) -> RunResult:
    """Run trials of an Optimizer: ask, evaluate, tell.

    A trial is asked for when a worker is free and not earlier, so that it knows all results. Only
    where there are several workers, and a suggestion takes more than a tenth of what a trial
    takes, the next one is looked for while all of them are busy. That gains at least a tenth of
    the workers' time, and costs knowledge: such a suggestion misses the results that come
    meanwhile, one at the least. With four workers and 60 trials on Hartmann-6 that was worth 2 to 4
    trials. Which suggestions are made so depends on how long things take, as does the order of
    results wherever there are several workers: each follows from the seed and what it knew.

    What goes wrong with one trial does not end the run. A trial is failed, with the traceback as
    its reason, if the objective raises one of `catch`; if its worker process dies; if it returns
    NaN or what is no result at all. But if no trial of this run gave a result yet, one that
    returns what is no result is taken for a mistake in the program. A mistake, or an exception
    that is not caught, is recorded too; then no more trials start, those under way are recorded,
    and the exception is raised.

    Ctrl-C and SIGTERM end the run in good order: the trials under way are waited for. A second
    one raises KeyboardInterrupt at once; what was under way is run again by the next run.

    If the storage goes away once the run has begun a trial, as when a server restarts or a disk is
    full, the run stands still and tries again, for as long as the busy timeout of the storage (60 s
    unless said otherwise) on top of what each attempt waits. A second Ctrl-C ends that. If it does
    not come back, the trials under way are still waited for, and the error that is raised has a
    note for each outcome that could not be recorded, with the `tell` that records it. Time limits
    of trials are not looked at meanwhile.

    Args:
        optimizer: Whose trials to run. Its storage may be shared with other runs.
        objective: See `minimize`.
        n_trials: How many trials to run now; failed ones, and those taken over from a run that
            was killed, count. May be left out where there is a timeout or a stop rule.
        workers: How many trials to run at a time.
        executor: "threads": in this process; with one worker, in the calling thread. "processes":
            in processes of their own, which import the objective; a script needs
            `if __name__ == "__main__":`. Neither changes how many threads numpy or torch use: with
            several workers, set OMP_NUM_THREADS so that they share the cores. Or an object with
            submit(function, …) whose results have done() and result(), such as a
            concurrent.futures executor, loky's, Dask's (`client.get_executor(pure=False)`),
            submitit's or mpi4py's (`mpiexec -n 5 python -m mpi4py.futures script.py`, with
            `MPIPoolExecutor`); it is not shut down. If a process of a concurrent.futures pool
            dies, the pool breaks and the run ends with an error; loky's reusable one is made anew;
            Dask moves the trial to another worker.
        timeout: Seconds after which no trial is started; those under way are waited for.
        stop: When to start no more trials, whatever n_trials: Target(0.1), Patience(20),
            TotalTrials(100), RemainingImprovement(0.01), or several of them in a list.
        retries: How often a trial is run again, with the same parameters, that raised one of
            `catch`, whose worker died or that ran out of time. Each failure is in the log of events
            of the study; the reason of a trial that failed in the end names all.
        trial_timeout: Seconds that a trial may take: its worker is killed then, and it is failed or
            run again. What the worker started itself, such as other programs, is not killed with
            it. For executor="processes" only.
        lease: Seconds without a sign of life after which other runs on the storage take over a
            trial of this run. Signs are given by themselves, except while a suggestion is looked
            for: give it a minute or more. For several machines; runs that die on this one are
            noticed at once, without. One worker runs in a thread of its own then.
        catch: Exceptions that make a failed trial and let the run go on; () for none.
        progress: True shows the trials done, the best value, failures and time left: a live bar
            on a terminal and in a notebook, lines elsewhere. None shows it on a terminal and in a
            notebook. False prints nothing, not even how to resume after Ctrl-C. All goes to stderr,
            but for the bar in a notebook, an output of the cell.
        callbacks: Called as callback(optimizer, trial) after each trial was recorded, in the
            calling thread. May raise StopRun.

    Raises:
        TypeError, ValueError: If an argument makes no sense; and as said above.
        StorageError: If the storage does not come back, or never took anything.
        ExecutorBroken: If an executor lost its workers. The trials under way stay running, and the
            next run begins with them.
        SpaceExhausted: If there is nothing to try in the space at all. One that is used up later
            ends the run without.
        KeyboardInterrupt: At the second Ctrl-C.
    """
    study = checks.Study(
        optimizer.space,
        objectives=len(optimizer.problem.objectives),
        perturbed=bool(optimizer.settings.get("perturbation")),
        in_memory=optimizer.storage.address is None,
    )
    plan = make_plan(
        objective,
        study,
        n_trials=n_trials,
        workers=workers,
        executor=executor,
        timeout=timeout,
        stop=stop,
        retries=retries,
        trial_timeout=trial_timeout,
        lease=lease,
        catch=catch,
        progress=progress,
        callbacks=callbacks,
    )
    return execute(optimizer, plan)


def _names(name: str | Iterable[str]) -> str | list[str]:
    return name if isinstance(name, str) else list(name)


def _check_known(call: str, options: StudyOptions) -> None:
    """Refuse options that are none, as Python does where it can."""
    known = list(StudyOptions.__annotations__)
    for name in options:
        if name not in known:
            own = list(inspect.signature(minimize).parameters)[:-1]  # but for **options
            hint = did_you_mean(name, [*known, *own])
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}.{hint}")


def _optimise(
    direction: Mapping[str, str | list[str]],
    objective: Objective,
    space: Space | Mapping[str, Parameter],
    options: StudyOptions,
    *,
    storage: str | PathLike[str] | Storage | None,
    study: Mapping[str, Any],
    **running: Any,
) -> RunResult:
    """Check everything, then open the study, then run."""
    _check_known(next(iter(direction)), options)
    space = space if isinstance(space, Space) else Space(space)
    (names,) = direction.values()
    described = checks.Study(
        space,
        objectives=1 if isinstance(names, str) else len(names),
        perturbed=bool(options.get("perturbation")),
        in_memory=storage is None or (isinstance(storage, Storage) and storage.address is None),
    )
    plan = make_plan(objective, described, **running)
    settings: dict[str, Any] = {**study, **options}
    planned = min(plan.n_trials, plan.total)
    if settings.get("budget") is None and planned < math.inf and settings.get("mode") != "extend":
        settings["budget"] = planned
    from bbmmopt.optimizer import Optimizer

    optimizer = Optimizer(space, **direction, storage=storage, **settings)
    try:
        return execute(optimizer, plan)
    except BaseException:
        # There is no result to hold it. A storage that was handed in stays open.
        if not isinstance(storage, Storage):
            optimizer.close()
        raise
