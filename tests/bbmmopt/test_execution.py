"""Running objectives: what is stored and returned, whatever they do."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from objectives import (
    LONG,
    SPACE,
    apply,
    bowl,
    params,
    quiet,
    raises_above_zero,
    states,
)

from bbmmopt import Categorical, Integer, Optimizer, Real, Space, Study
from bbmmopt.execution import StopRun, maximize, minimize, run
from bbmmopt.storage import MemoryStorage

# --------------------------------------------------------------------------------------
# What a run does
# --------------------------------------------------------------------------------------


def test_a_run_is_the_ask_tell_loop() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1, budget=12)
    for _ in range(12):
        trial = optimizer.ask()
        optimizer.tell(trial, bowl(**trial.params))
    result = quiet(n_trials=12)
    assert params(result) == [trial.params for trial in optimizer.trials]
    assert [t.value for t in result.trials] == [t.value for t in optimizer.trials]
    assert result.best.number == optimizer.best.number
    assert result.stopped == "all 12 trials done"
    assert (result.n_complete, result.n_failed) == (12, 0)


def test_maximizing_a_function_is_minimizing_its_negative() -> None:
    low = quiet(minimize, lambda x, y: -bowl(x, y), n_trials=12)
    high = quiet(maximize, bowl, n_trials=12)
    assert params(high) == params(low)
    assert [t.value for t in high.trials] == [-t.value for t in low.trials]
    assert high.best.value == max(t.value for t in high.trials)


def test_an_optimizer_at_hand_can_be_run_and_run_again() -> None:
    optimizer = Optimizer(SPACE, maximize="score", seed=3)
    queued = optimizer.enqueue({"x": 1.0, "y": 0.5})
    first = run(optimizer, bowl, n_trials=3, progress=False)
    second = run(optimizer, bowl, n_trials=2, progress=False)
    assert [t.number for t in first.trials] == [0, 1, 2]
    assert first.trials[0].params == queued.params
    assert [t.number for t in second.trials] == [3, 4]
    assert second.best.value == max(bowl(**t.params) for t in optimizer.trials)


@pytest.mark.parametrize("memory", [True, False])
def test_a_second_call_on_the_same_storage_goes_on(tmp_path: Path, memory: bool) -> None:
    whole = quiet(n_trials=9, n_start=4)
    storage = MemoryStorage() if memory else str(tmp_path / "study.db")
    with quiet(n_trials=5, n_start=4, storage=storage).optimizer as optimizer:
        first = optimizer.trials
    with quiet(n_trials=4, n_start=4, storage=storage).optimizer as optimizer:
        assert [t.params for t in optimizer.trials] == params(whole)
        assert optimizer.trials[:5] == first


def test_one_worker_runs_in_the_calling_thread_and_several_do_not() -> None:
    seen = []

    def where(x: float, y: float) -> float:
        seen.append(threading.current_thread())
        return x

    quiet(objective=where)
    assert set(seen) == {threading.current_thread()}
    seen.clear()
    quiet(objective=where, workers=2)
    assert threading.current_thread() not in seen
    assert not any(thread.is_alive() for thread in seen)
    seen.clear()
    quiet(objective=where, workers=100, n_trials=1)  # no more workers than trials
    assert seen == [threading.current_thread()]


def test_threads_run_as_many_trials_at_a_time_as_there_are_workers() -> None:
    barrier, lock, now, most = threading.Barrier(3), threading.Lock(), [0], [0]

    def meet(x: float, y: float) -> float:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        barrier.wait(LONG)  # nobody passes unless three are here
        with lock:
            now[0] -= 1
        return bowl(x, y)

    result = quiet(objective=meet, workers=3, n_trials=9)
    assert states(result) == ["complete"] * 9
    assert most == [3]
    assert [t.value for t in result.trials] == [bowl(**t.params) for t in result.trials]


def test_an_objective_is_called_with_objects_where_choices_stand_for_them() -> None:
    space = Space({"f": Categorical({"root": math.sqrt, "log": math.log1p}), "x": Real(0, 1)})
    for executor in ("threads", "processes"):
        result = minimize(
            apply, space, n_trials=4, seed=0, executor=executor, workers=2, progress=False
        )
        for trial in result.trials:
            function = {"root": math.sqrt, "log": math.log1p}[trial.params["f"]]
            assert trial.value == function(trial.params["x"])


def test_an_objective_may_return_a_standard_error_or_several_values() -> None:
    result = quiet(objective=lambda x, y: (x, 0.5))
    assert [t.standard_errors for t in result.trials] == [{"value": 0.5}] * 6
    result = quiet(maximize, lambda x, y: {"b": y, "a": (x, 0.1)}, name=["a", "b"], progress=True)
    assert [t.values for t in result.trials] == [
        {"a": t.params["x"], "b": t.params["y"]} for t in result.trials
    ]
    assert result.trials[0].standard_errors == {"a": 0.1, "b": None}
    with pytest.raises(ValueError, match="several objectives"):
        _ = result.best


def test_a_run_ends_when_the_space_is_used_up() -> None:
    space = Space({"k": Integer(0, 3)})
    storage = MemoryStorage()
    options = {"n_trials": 10, "noise": "none", "storage": storage, "seed": 0, "progress": False}
    result = minimize(lambda k: k, space, **options)
    assert sorted(t.params["k"] for t in result.trials) == [0, 1, 2, 3]
    assert result.stopped.startswith("space exhausted after 4 of 10 trials: ")
    again = minimize(lambda k: k, space, **options)
    assert again.trials == ()
    assert again.best.params == {"k": 0}


# --------------------------------------------------------------------------------------
# Reasons to stop
# --------------------------------------------------------------------------------------


def test_no_trial_is_started_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr("bbmmopt.execution.loop.time", clock)

    def takes_ten(x: float, y: float) -> float:
        clock.now += 10.0
        return bowl(x, y)

    result = quiet(objective=takes_ten, timeout=25.0)
    assert states(result) == ["complete"] * 3  # begun at 0, 10 and 20
    assert result.stopped == "timeout of 25 s reached after 3 of 6 trials"
    assert result.seconds == 30.0


def test_trials_under_way_at_the_timeout_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr("bbmmopt.execution.loop.time", clock)
    barrier = threading.Barrier(2)

    def late(x: float, y: float) -> float:
        barrier.wait(LONG)
        clock.now = 100.0
        return bowl(x, y)

    result = quiet(objective=late, workers=2, timeout=50.0)
    assert states(result) == ["complete"] * 2


def test_callbacks_see_each_trial_as_it_is_stored_in_the_calling_thread() -> None:
    seen: list[Any] = []

    def look(optimizer: Optimizer, trial: Any) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert optimizer.storage.trial(optimizer.study, trial.number) == trial
        seen.append(trial)

    result = quiet(objective=raises_above_zero, workers=2, callbacks=[look, look])
    assert seen[::2] == seen[1::2]
    assert sorted(seen[::2], key=lambda t: t.number) == list(result.trials)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_callback_can_stop_the_run_and_what_is_under_way_is_recorded(workers: int) -> None:
    barrier = threading.Barrier(workers)

    def together(x: float, y: float) -> float:
        barrier.wait(LONG)
        return bowl(x, y)

    def stop(optimizer: Optimizer, trial: Any) -> None:
        raise StopRun("good enough")

    result = quiet(objective=together, workers=workers, n_trials=9, callbacks=[stop])
    assert states(result) == ["complete"] * workers
    assert result.stopped == f"stopped by a callback after {workers} of 9 trials: good enough"


@pytest.mark.parametrize("workers", [1, 3])
def test_whoever_stops_the_study_ends_its_runs_and_what_is_under_way_is_recorded(
    workers: int, tmp_path: Path
) -> None:
    barrier = threading.Barrier(workers)
    path = tmp_path / "study.db"

    def together(x: float, y: float) -> float:
        if barrier.wait(LONG) == 0:
            with Study.open(path) as other:
                other.stop("the reactor is down")
        barrier.wait(LONG)
        return bowl(x, y)

    with Study(SPACE, minimize="value", storage=path, seed=1) as before:
        before.stop("long before the run")
    result = quiet(objective=together, workers=workers, n_trials=9, storage=path)
    assert states(result) == ["complete"] * workers
    ended = f"stopped by request after {workers} of 9 trials: the reactor is down"
    assert result.stopped == ended
    assert quiet(workers=workers, n_trials=2, storage=path).stopped == "all 2 trials done"


def test_a_loop_of_ones_own_sees_that_it_should_stop() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1)
    while optimizer.stop_reason is None:
        trial = optimizer.ask()
        optimizer.tell(trial, bowl(**trial.params))
        if trial.number == 3:
            optimizer.stop("enough")
    assert optimizer.stop_reason == "enough"
    assert len(optimizer.trials) == 4
    for nothing in ("", " ", None, 3):
        with pytest.raises(TypeError, match="reason to stop is a sentence"):
            optimizer.stop(nothing)  # type: ignore[arg-type]


def test_a_callback_that_raises_ends_the_run_after_recording() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1)

    def bad(_: Optimizer, trial: Any) -> None:
        if trial.number == 2:
            raise LookupError("in the callback")

    with pytest.raises(LookupError, match="in the callback"):
        run(optimizer, bowl, n_trials=6, callbacks=[bad], progress=False)
    assert [t.state for t in optimizer.trials] == ["complete"] * 3


# --------------------------------------------------------------------------------------
# The door
# --------------------------------------------------------------------------------------


def takes_x(x: float) -> float:
    return x


def takes_dict(values: dict[str, float]) -> float:
    return values["x"]


def takes_more(data: object, x: float, y: float) -> float:
    return x


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_trials": 0}, ValueError, "n_trials must be at least 1"),
        ({"n_trials": True}, TypeError, "n_trials must be an integer"),
        ({"n_trials": 2.0}, TypeError, "n_trials must be an integer"),
        ({"workers": 0}, ValueError, "workers must be at least 1"),
        ({"workers": "2"}, TypeError, "workers must be an integer"),
        ({"timeout": 0}, ValueError, "timeout must be a positive"),
        ({"timeout": math.nan}, ValueError, "timeout must be a positive"),
        ({"timeout": "1h"}, TypeError, "timeout must be a number"),
        ({"executor": "fibres"}, TypeError, "executor must be"),
        ({"executor": ThreadPoolExecutor}, TypeError, "executor must be"),
        ({"catch": "ValueError"}, TypeError, "catch takes exception classes"),
        ({"catch": (ValueError, int)}, TypeError, "catch takes exception classes"),
        ({"progress": "yes"}, TypeError, "progress must be"),
        ({"callbacks": print}, TypeError, "callbacks takes several"),
        ({"callbacks": [3]}, TypeError, "must be callable"),
        ({"objective": 3.0}, TypeError, "must be callable"),
        ({"objective": takes_x}, TypeError, "does not take y"),
        ({"objective": takes_dict}, TypeError, "does not take x, y"),
        ({"objective": takes_more}, TypeError, "also needs data"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_stored(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    path = tmp_path / "study.db"
    with pytest.raises(error, match=says):
        quiet(**({"storage": str(path)} | options))
    assert not path.exists()
    options = {"n_trials": 2, "objective": bowl, "progress": False} | options
    optimizer = Optimizer(SPACE, minimize="value")
    with pytest.raises(error, match=says):
        run(optimizer, **options)
    assert optimizer.trials == []


def test_a_conditional_parameter_needs_a_default() -> None:
    space = Space({"k": Categorical(["a", "b"]), "x": Real(0, 1, when={"k": "a"})})
    with pytest.raises(TypeError, match="x is passed only where its condition holds"):
        minimize(lambda k, x: 1.0, space, n_trials=1)
    result = minimize(lambda k, x=-1.0: x, space, n_trials=6, seed=0, progress=False)
    assert {t.value for t in result.trials if t.params["k"] == "b"} == {-1.0}


def test_objectives_of_every_form_are_taken() -> None:
    @wraps(takes_more)
    def wrapper(**point: float) -> float:
        return takes_more(None, **point)

    def with_default(*, y: float, x: float, scale: float = 2.0) -> float:
        return scale * x

    class Method:
        def value(self, x: float, y: float) -> float:
            return x

    forms = [wrapper, with_default, Method().value, partial(takes_more, "data"), dict]
    for objective in forms[:-1]:
        assert quiet(objective=objective, n_trials=2).n_complete == 2
    # A builtin that does not say what it takes: only calling it tells.
    with pytest.raises((TypeError, ValueError), match="trial 0"):
        quiet(objective=forms[-1], n_trials=2)
