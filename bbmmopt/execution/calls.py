"""minimize(), maximize(), run(): the calls that start a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from bbmmopt.execution.checks import Callback, make_plan
from bbmmopt.execution.loop import RunResult, execute
from bbmmopt.execution.workers import Objective
from bbmmopt.prior import Prior
from bbmmopt.problem import Constraints, Noise
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import did_you_mean
from bbmmopt.storage import Storage

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer

Catch = type[BaseException] | Iterable[type[BaseException]]


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


def minimize(
    objective: Objective,
    space: Space | Mapping[str, Parameter],
    *,
    n_trials: int,
    name: str | Iterable[str] = "value",
    workers: int = 1,
    executor: Any = "threads",
    storage: str | PathLike[str] | Storage | None = None,
    study: str = "default",
    seed: int | None = None,
    noise: Noise | Mapping[str, Noise] = "unknown",
    n_start: int | None = None,
    timeout: float | None = None,
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
        objective: Called as objective(**params), choices replaced by the objects they stand for.
            Returns a number; (mean, standard error); or {name: either} of several objectives, and
            of constraints {name: number} among them.
        space: The parameters.
        n_trials: How many trials to run now; failed ones count.
        name: What the objective is called in the study; several names for several objectives.
        workers: How many trials to run at a time.
        executor: See `run`.
        storage: None for memory, a path, a database URL or a Storage; see `Optimizer`.
        study: Name of the study within the storage.
        seed: Repeats a run; see `Optimizer`.
        noise: "unknown", "none" or "noisy"; see `Optimizer`.
        n_start: How many trials are spread over the space before the model takes over.
        timeout: See `run`, as for those below.
        catch: Exceptions that make a failed trial and let the run go on.
        progress: Whether to show it.
        callbacks: Called after each trial.
        options: constraints, reference_point, acquisition, strategy, prior, cost, perturbation,
            risk: see `Optimizer`. So is budget; left out, `n_trials`.

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
        catch=catch,
        progress=progress,
        callbacks=callbacks,
    )


def maximize(
    objective: Objective,
    space: Space | Mapping[str, Parameter],
    *,
    n_trials: int,
    name: str | Iterable[str] = "value",
    workers: int = 1,
    executor: Any = "threads",
    storage: str | PathLike[str] | Storage | None = None,
    study: str = "default",
    seed: int | None = None,
    noise: Noise | Mapping[str, Noise] = "unknown",
    n_start: int | None = None,
    timeout: float | None = None,
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
        catch=catch,
        progress=progress,
        callbacks=callbacks,
    )


def run(
    optimizer: Optimizer,
    objective: Objective,
    *,
    n_trials: int,
    workers: int = 1,
    executor: Any = "threads",
    timeout: float | None = None,
    catch: Catch = (Exception,),
    progress: bool | None = None,
    callbacks: Iterable[Callback] = (),
) -> RunResult:
    """Run trials of an Optimizer: ask, evaluate, tell.

    A trial is asked for when a worker is free and not earlier, so that it knows all results.

    What goes wrong with one trial does not end the run. A trial is failed, with the traceback as
    its reason, if the objective raises one of `catch`; if its worker process dies; if it returns
    NaN or what is no result at all. But if no trial of this run gave a result yet, one that
    returns what is no result is taken for a mistake in the program. A mistake, or an exception
    that is not caught, is recorded too; then no more trials start, those under way are recorded,
    and the exception is raised.

    Ctrl-C and SIGTERM end the run in good order: the trials under way are waited for. A second
    one raises KeyboardInterrupt at once; what was under way is run again by the next run.

    Args:
        optimizer: Whose trials to run. Its storage may be shared with other runs.
        objective: See `minimize`.
        n_trials: How many trials to run now; failed ones, and those taken over from a run that
            was killed, count.
        workers: How many trials to run at a time.
        executor: "threads": in this process; with one worker, in the calling thread. "processes":
            in processes of their own, which import the objective; a script needs
            `if __name__ == "__main__":`. Neither changes how many threads numpy or torch use: with
            several workers, set OMP_NUM_THREADS so that they share the cores. Or an object with
            submit(function, …) whose results have done() and result(), such as a
            concurrent.futures executor, Dask's or submitit's; it is not shut down.
        timeout: Seconds after which no trial is started; those under way are waited for.
        catch: Exceptions that make a failed trial and let the run go on; () for none.
        progress: True shows the trials done, the best value, failures and time left: a live bar
            on a terminal, lines elsewhere. None shows it on a terminal. False prints nothing,
            not even how to resume after Ctrl-C. All goes to stderr.
        callbacks: Called as callback(optimizer, trial) after each trial was recorded, in the
            calling thread. May raise StopRun.

    Raises:
        TypeError, ValueError: If an argument makes no sense; and as said above.
        SpaceExhausted: If there is nothing to try in the space at all. One that is used up later
            ends the run without.
        KeyboardInterrupt: At the second Ctrl-C.
    """
    plan = make_plan(
        objective,
        optimizer.space,
        n_trials=n_trials,
        workers=workers,
        executor=executor,
        timeout=timeout,
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
            hint = did_you_mean(name, known)
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
    plan = make_plan(objective, space, **running)
    settings: dict[str, Any] = {**study, **options}
    if settings.get("budget") is None:
        settings["budget"] = plan.n_trials
    from bbmmopt.optimizer import Optimizer

    optimizer = Optimizer(space, **direction, storage=storage, **settings)
    try:
        return execute(optimizer, plan)
    except BaseException:
        # There is no result to hold it. A storage that was handed in stays open.
        if not isinstance(storage, Storage):
            optimizer.close()
        raise
