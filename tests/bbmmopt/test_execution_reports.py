"""Objectives that take the running trial: reports on the way, and giving up."""

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from objectives import (
    LONG,
    SPACE,
    bowl,
    gives_up_above_zero,
    quiet,
    reports,
    states,
    wait_for,
    waits_for_the_other,
)

from bbmmopt import Categorical, Optimizer, Space, Trial, TrialPruned
from bbmmopt.execution import minimize


def expected_curves(result: Any) -> dict[int, dict[int, float]]:
    return {
        t.number: {step: bowl(**t.params) + 1.0 / (step + 1) for step in range(3)}
        for t in result.trials
    }


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_what_an_objective_reports_is_in_the_storage(
    tmp_path: Path, executor: str, workers: int
) -> None:
    storage = str(tmp_path / "study.db")
    with quiet(
        objective=reports, executor=executor, workers=workers, storage=storage, n_trials=4
    ).optimizer as optimizer:
        assert states(optimizer) == ["complete"] * 4
        assert optimizer.curves == expected_curves(optimizer)


def test_threads_report_to_a_study_in_memory() -> None:
    result = quiet(objective=reports, workers=2)
    assert result.optimizer.curves == expected_curves(result)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_trial_that_is_given_up_is_pruned_and_neither_failed_nor_run_again(
    tmp_path: Path, executor: str
) -> None:
    storage = str(tmp_path / "study.db")
    result = quiet(
        objective=gives_up_above_zero,
        executor=executor,
        storage=storage,
        n_trials=8,
        retries=3,
        catch=(),
    )
    given_up = [t for t in result.trials if t.params["x"] > 0]
    assert [t.reason for t in given_up] == [f"x is {t.params['x']}" for t in given_up]
    assert {t.state for t in given_up} == {"pruned"}
    assert (result.n_pruned, result.n_failed) == (len(given_up), 0)
    assert result.n_complete == 8 - len(given_up)
    assert 0 < len(given_up) < 8
    assert result.stopped == f"all 8 trials done, {len(given_up)} of them pruned"
    assert all(event.kind != "retried" for event in result.optimizer.events())
    result.optimizer.close()


def test_pruned_trials_are_counted_in_the_progress(capfd: pytest.CaptureFixture[str]) -> None:
    result = quiet(objective=gives_up_above_zero, n_trials=10, progress=True)
    last = capfd.readouterr().err.splitlines()[-1]
    assert f"{result.n_pruned} pruned" in last


def raises_nothing_but_pruned(x: float, y: float) -> float:
    raise TrialPruned


def test_giving_up_needs_neither_the_trial_nor_words() -> None:
    result = quiet(objective=raises_nothing_but_pruned, n_trials=1)
    assert [t.reason for t in result.trials] == ["the objective gave it up"]


def test_a_parameter_of_the_space_called_trial_is_that_parameter() -> None:
    space = Space({"trial": Categorical(["a", "b"])})
    result = minimize(lambda trial: float(trial == "a"), space, n_trials=2, progress=False)
    assert {t.params["trial"] for t in result.trials} == {"a", "b"}


def test_the_trial_may_have_a_default_and_is_not_pushed_on_keywords() -> None:
    seen: list[Any] = []

    def with_default(x: float, y: float, trial: Trial | None = None) -> float:
        seen.append(trial)
        return x

    def keywords(**point: Any) -> float:
        seen.append(point.get("trial"))
        return 0.0

    quiet(objective=with_default, n_trials=1)
    quiet(objective=keywords, n_trials=1)
    assert [type(trial) for trial in seen] == [Trial, type(None)]


@pytest.mark.parametrize("kind", ["processes", "pool"])
def test_reports_from_processes_need_a_storage_that_they_can_reach(kind: str) -> None:
    optimizer = Optimizer(SPACE, minimize="value")
    with ProcessPoolExecutor(1) as pool:
        executor = pool if kind == "pool" else kind
        with pytest.raises(ValueError, match=r'give storage="study.db"'):
            quiet(objective=reports, executor=executor)
        assert optimizer.trials == []


def test_a_running_trial_sees_in_its_process_what_happened_to_it_elsewhere(tmp_path: Path) -> None:
    path = str(tmp_path / "study.db")

    def tell_the_first() -> None:
        wait_for(tmp_path / "0.here")
        with Optimizer.open(path) as other:
            other.tell(0, pruned="not worth it")
        (tmp_path / "told").touch()

    thread = threading.Thread(target=tell_the_first)
    thread.start()
    objective = partial(waits_for_the_other, folder=str(tmp_path))
    result = quiet(objective=objective, executor="processes", storage=path, n_trials=2)
    thread.join(LONG)
    assert states(result) == ["pruned", "complete"]
    assert result.trials[0].reason == "not worth it"
    result.optimizer.close()
    assert os.path.exists(path)
