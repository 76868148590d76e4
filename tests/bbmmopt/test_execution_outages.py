"""Storages that go away in the middle of a run, and come back or do not."""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from objectives import SPACE, Nth, bowl, params, quiet, states

from bbmmopt import Optimizer
from bbmmopt.execution import outages, run
from bbmmopt.execution.outages import Outages
from bbmmopt.storage import MemoryStorage, StorageError, StudyRevised

pytestmark = pytest.mark.alone


_really_sleep = time.sleep


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds < outages._AGAIN:  # a look at workers, who take real time to end
            _really_sleep(seconds)
        else:
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    monkeypatch.setattr("bbmmopt.execution.loop.time.sleep", clock.sleep)
    return clock


class Away(MemoryStorage):
    """Refuses so many calls of one kind, from one on; one of these was done all the same."""

    busy_timeout = 60.0

    def __init__(self, kind: str, first: int, times: int, done: int = -1) -> None:
        super().__init__()
        self.kind, self.calls = kind, iter(range(10**6))
        self.refused, self.done = range(first, first + times), done

    def does(self, kind: str, act: Callable[[], Any]) -> Any:
        if kind != self.kind or (call := next(self.calls)) not in self.refused:
            return act()
        if call == self.done:
            act()
        raise StorageError("the server is away.")

    def finish(self, *a: Any, **k: Any) -> Any:
        return self.does("finish", lambda: MemoryStorage.finish(self, *a, **k))

    def add(self, *a: Any, **k: Any) -> Any:
        return self.does("add", lambda: MemoryStorage.add(self, *a, **k))

    def changes(self, *a: Any, **k: Any) -> Any:
        return self.does("changes", lambda: MemoryStorage.changes(self, *a, **k))

    def renew(self, *a: Any, **k: Any) -> Any:
        return self.does("renew", lambda: MemoryStorage.renew(self, *a, **k))

    def log_retry(self, *a: Any, **k: Any) -> Any:
        return self.does("log_retry", lambda: MemoryStorage.log_retry(self, *a, **k))


@pytest.mark.parametrize("kind", ["finish", "add", "changes"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_goes_on_when_its_storage_is_back(clock: Clock, kind: str, workers: int) -> None:
    storage = Away(kind, first=4 if kind == "changes" else 2, times=50)
    # With leases, whatever the number of workers, a thread works on trials while this one waits.
    result = quiet(storage=storage, workers=workers, lease=1e6)
    assert states(result) == ["complete"] * 6
    assert [t.number for t in result.optimizer.trials] == list(range(6))
    assert clock.now >= 50 * 0.25
    if workers == 1:
        assert params(result) == params(quiet())  # the same suggestions


def test_an_attempt_that_failed_is_logged_and_repeated_after_an_outage(clock: Clock) -> None:
    storage = Away("log_retry", first=0, times=20)
    result = quiet(objective=Nth(2, lambda: 1 / 0), storage=storage, retries=1)
    assert states(result) == ["complete"] * 6
    assert [e.number for e in result.optimizer.events() if e.kind == "retried"] == [2]


def test_leases_are_renewed_after_an_outage(clock: Clock) -> None:
    class Counts(Away):
        renewed = 0

        def renew(self, *a: Any, **k: Any) -> Any:
            done = super().renew(*a, **k)
            self.renewed += 1
            return done

    storage = Counts("renew", first=0, times=5)
    quiet(storage=storage, lease=0.01, n_trials=1, objective=Nth(0, lambda: renewed(storage)))
    assert storage.renewed >= 2


def renewed(storage: Any) -> float:
    import time

    while storage.renewed < 2:
        time.sleep(0.001)
    return 1.0


@pytest.mark.parametrize("done", [2, 30])  # it was written, and nobody could say so
def test_a_trial_that_was_begun_without_an_answer_is_run_all_the_same(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    monkeypatch.setattr("bbmmopt.execution.supply._LOOK_EVERY", -1.0)
    result = quiet(storage=Away("add", first=2, times=50, done=done))
    assert [(t.number, t.state) for t in result.optimizer.trials] == [
        (k, "complete") for k in range(6)
    ]
    assert params(result) == params(quiet())


def test_an_outcome_that_was_written_without_an_answer_is_written_once(clock: Clock) -> None:
    result = quiet(storage=Away("finish", first=2, times=50, done=2))
    assert states(result) == ["complete"] * 6
    assert [e.kind for e in result.optimizer.events()].count("told") == 6


@pytest.mark.parametrize("workers", [1, 3])
def test_what_a_storage_does_not_take_in_the_end_is_named_in_the_error(
    clock: Clock, workers: int
) -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1, storage=Away("finish", 2, 10**6))
    results: dict[int, float] = {}

    def objective(x: float, y: float, trial: Any) -> float:
        results[trial.number] = bowl(x, y)
        return results[trial.number]

    with pytest.raises(StorageError, match="the server is away") as caught:
        run(optimizer, objective, n_trials=9, workers=workers, progress=False)
    lost = [t.number for t in optimizer.trials if t.state == "running"]
    assert lost
    assert sorted(caught.value.__notes__) == [
        f"trial {k} is not recorded, and still running. Record it: tell({k}, {results[k]!r})"
        for k in lost
    ]
    assert 60 <= clock.now < 61  # in all, not for each of them


def test_a_storage_that_never_took_anything_is_not_waited_for(clock: Clock) -> None:
    with pytest.raises(StorageError, match="the server is away"):
        quiet(storage=Away("add", 0, 10**6))
    assert clock.now == 0


def test_a_second_ctrl_c_ends_the_waiting_and_names_the_outcome(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(seconds: float) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("bbmmopt.execution.loop.time.sleep", press)
    with pytest.raises(KeyboardInterrupt) as caught:
        quiet(objective=Nth(2, lambda: 0.125), storage=Away("finish", 2, 10**6))
    assert "tell(2, 0.125)" in caught.value.__notes__[0]


def test_the_display_does_not_end_a_run_whose_storage_is_away(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    result = quiet(storage=Away("changes", first=7, times=9), progress=True, n_trials=3)
    assert states(result) == ["complete"] * 3
    assert "the server is away. Trying again for 60 s.\n" in capfd.readouterr().err


def failing(times: int, error: Exception) -> Iterator[Any]:
    for _ in range(times):
        yield error
    while True:
        yield "done"


def outage(clock: Clock, errors: Iterator[Any], said: list[str]) -> tuple[Outages, Any]:
    found = Outages(10.0, clock.sleep, said.append)
    found.written = True

    def act() -> str:
        result = next(errors)
        if isinstance(result, Exception):
            raise result
        return result

    return found, act


def test_patience_begins_anew_when_the_storage_was_back(clock: Clock) -> None:
    said: list[str] = []
    error = StorageError("gone.")
    waits, act = outage(clock, failing(30, error), said)
    assert waits.insist(act) == "done"
    assert clock.now == 30 * 0.25
    _, again = outage(clock, failing(30, error), said)
    assert waits.insist(again) == "done"
    _, never = outage(clock, failing(10**6, error), said)
    before = clock.now
    for _ in range(2):
        with pytest.raises(StorageError, match="gone"):
            waits.insist(never)
    assert clock.now == before + 10
    assert said == ["gone. Trying again for 10 s."] * 3


def test_a_study_that_was_revised_is_not_waited_for(clock: Clock) -> None:
    waits, act = outage(clock, failing(1, StudyRevised("changed")), [])
    with pytest.raises(StudyRevised):
        waits.insist(act)
    assert clock.now == 0


def test_an_executor_that_cannot_say_costs_a_trial_and_not_the_run() -> None:
    class Lost:
        def done(self) -> bool:
            raise OSError("the scheduler is gone")

        def result(self) -> Any:
            raise OSError("the scheduler is gone")

    class Executor:
        def submit(self, function: Any, *arguments: Any) -> Any:
            return Lost()

    result = quiet(executor=Executor(), n_trials=2)
    assert states(result) == ["failed"] * 2
    assert all("the scheduler is gone" in (t.reason or "") for t in result.trials)
