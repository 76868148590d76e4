"""Several independent processes on one storage, without a coordinator.

Nothing depends on how fast anything is: files and signals force the order; counts are exact.
"""

import os
import signal
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from objectives import LONG, SPACE, bowl, quiet, states, wait_for

from bbmmopt import Optimizer, TotalTrials
from bbmmopt.execution import run
from bbmmopt.execution.leases import Leases
from bbmmopt.execution.owners import is_here, own_name
from bbmmopt.storage import MemoryStorage
from tests.bbmmopt.programs import Forked, forked

pytestmark = pytest.mark.alone

SCRIPT = """
    import os, signal, socket, sys, time
    from pathlib import Path
    from bbmmopt import Real, Space, TotalTrials, minimize

    FOLDER, NAME = Path({folder!r}), sys.argv[1]
    calls = 0

    def wait_for(name, count=1):
        give_up = time.monotonic() + 60
        while len(list(FOLDER.glob(name))) < count:
            if time.monotonic() > give_up:
                os._exit(99)
            time.sleep(0.005)

    def wait_unless(mine, name):
        if NAME != mine:
            wait_for(name)

    def objective(x, y, trial):
        global calls
        calls += 1
        (FOLDER / f"{{trial.number}}.{{NAME}}.call").touch(exist_ok=False)
        {body}
        return (x - 0.5) ** 2 + (y - 0.25) ** 2

    if __name__ == "__main__":
        if {elsewhere!r} in NAME:
            socket.gethostname = lambda: NAME  # as on another machine
        space = Space({{"x": Real(-2.0, 3.0), "y": Real(0.0, 1.0)}})
        (FOLDER / f"{{NAME}}.ready").touch()
        wait_for("go")
        result = minimize(
            objective, space, seed=1, n_start=30, storage=str(FOLDER / "study.db"),
            stop=TotalTrials({total}), timeout=60.0, progress=False, **{options!r}
        )
        print(len(result.trials), result.stopped)
        result.optimizer.close()
"""


@contextmanager
def together(
    folder: Path, *names: str, body: str = "", total: int = 20, elsewhere: str = "-", **options: Any
) -> Iterator[list[Forked]]:
    """Processes of these names that begin at the same time."""
    path = folder / "script.py"
    text = textwrap.dedent(SCRIPT)
    path.write_text(
        text.format(
            folder=str(folder), body=body, total=total, options=options, elsewhere=elsewhere
        )
    )
    with ExitStack() as stack:
        processes = [stack.enter_context(forked(path, name)) for name in names]
        for name in names:
            wait_for(folder / f"{name}.ready")
        (folder / "go").touch()
        yield processes


def ends(name: str, how: str) -> str:
    """The second call of one process sends it a signal, and the others' first calls wait for it."""
    there = '(FOLDER / "there").touch()'
    sends = f"{there}, os.kill(os.getpid(), signal.{how})"
    return f'NAME == "{name}" and calls == 2 and ({sends}) or wait_unless("{name}", "there")'


def ended(process: Forked) -> int:
    """How many trials a process says it ran."""
    output, errors = process.communicate(timeout=LONG)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "trials of the study done" in output
    return int(output.split()[0])


def calls(folder: Path) -> Counter[int]:
    """How often the objective was called for each trial."""
    return Counter(int(path.name.split(".")[0]) for path in folder.glob("*.call"))


def check(folder: Path, total: int = 20) -> None:
    """Every trial is complete with the value of its own point."""
    with Optimizer.open(folder / "study.db") as optimizer:
        trials = optimizer.trials
        assert [(t.number, t.state) for t in trials] == [(k, "complete") for k in range(total)]
        assert [t.value for t in trials] == [bowl(**t.params) for t in trials]
        assert optimizer.storage.check() == []


def test_processes_do_their_trials_together_and_each_of_them_once(tmp_path: Path) -> None:
    body = 'calls == 1 and ((FOLDER / f"{NAME}.here").touch(), wait_for("*.here", 4))'
    with together(tmp_path, "a", "b", "c", "d", body=body, total=40) as processes:
        counts = [ended(process) for process in processes]
    assert sum(counts) == 40
    assert calls(tmp_path) == Counter(range(40))
    check(tmp_path, 40)


def test_the_trial_of_a_killed_process_is_taken_over_by_another_at_once(tmp_path: Path) -> None:
    kill = ends("b", "SIGKILL")
    with together(tmp_path, "a", "b", "c", body=kill) as (a, b, c):
        b.communicate(timeout=LONG)
        assert b.returncode == -signal.SIGKILL
        assert ended(a) + ended(c) == 20 - 1
    (lost,) = (k for k, count in calls(tmp_path).items() if count > 1)
    assert (tmp_path / f"{lost}.b.call").exists()
    assert calls(tmp_path) == Counter([*range(20), lost])
    check(tmp_path)


def test_the_trial_of_a_machine_that_died_is_taken_over_when_its_lease_ran_out(
    tmp_path: Path,
) -> None:
    kill = ends("far", "SIGKILL")
    options = {"body": kill, "elsewhere": "far", "lease": 1.5}
    with together(tmp_path, "near", "far", **options) as (near, far):
        far.communicate(timeout=LONG)
        assert ended(near) >= 20 - 1
    # What it did not end, somebody else has; a slow machine may have lost another lease.
    twice = [number for number, count in calls(tmp_path).items() if count == 2]
    assert twice
    assert all((tmp_path / f"{number}.far.call").exists() for number in twice)
    assert sorted(calls(tmp_path)) == list(range(20))
    check(tmp_path)


def test_a_process_that_was_stopped_beyond_its_lease_goes_on_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    stop = ends("far", "SIGSTOP")
    options = {"body": stop, "elsewhere": "far", "lease": 1.5}
    with together(tmp_path, "near", "far", **options) as (near, far):
        alone = ended(near)
        check(tmp_path)  # all is done although the other one stands still
        os.kill(far.pid, signal.SIGCONT)
        assert ended(far) == 2  # what it ran, the second of them after somebody else
    assert alone >= 20 - 1
    check(tmp_path)


def test_leases_are_renewed_while_trials_are_under_way(tmp_path: Path) -> None:
    body = 'calls == 1 and ((FOLDER / f"{NAME}.there").touch(), wait_for("taken"))'
    options = {"body": body, "elsewhere": "far", "lease": 1.0, "total": 2}
    with together(tmp_path, "far", **options) as (far,):
        wait_for(tmp_path / "far.there")
        with Optimizer.open(tmp_path / "study.db") as optimizer:
            give_up = optimizer.storage.clock() + 1.5
            while optimizer.storage.clock() < give_up:
                assert optimizer.claim(worker="thief") is None
        (tmp_path / "taken").touch()
        assert ended(far) == 2
    assert calls(tmp_path) == Counter(range(2))
    check(tmp_path, 2)


def test_leases_are_renewed_when_a_third_of_them_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now, renewed = [0.0], []
    monkeypatch.setattr("bbmmopt.execution.leases.time.monotonic", lambda: now[0])

    class Fake:
        def renew(self, trial: Any) -> bool:
            renewed.append((now[0], trial))
            return False

    leases = Leases(Fake(), 30.0)  # pyright: ignore[reportArgumentType]
    for now[0] in (0.0, 9.9, 10.1, 15.0, 20.0, 20.2, 60.0):
        leases.renew(["a", "b"])  # pyright: ignore[reportArgumentType]
    assert renewed == [(t, trial) for t in (10.1, 20.2, 60.0) for trial in ("a", "b")]
    never = Leases(Fake(), None)  # pyright: ignore[reportArgumentType]
    now[0] = 1e9
    never.renew(["a"])  # pyright: ignore[reportArgumentType]
    assert len(renewed) == 6


def test_a_late_result_counts_unless_another_was_first() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1)

    def loses_its_trial(x: float, y: float) -> float:
        (running,) = optimizer.running
        taken = optimizer.take_over(running, worker="somebody else")
        if taken is not None and taken.number == 1:
            optimizer.tell(taken, 42.0)
        return bowl(x, y)

    result = run(optimizer, loses_its_trial, n_trials=2, lease=100.0, progress=False)
    assert result.trials[0].value == bowl(**result.trials[0].params)
    assert result.trials[1].value == 42.0


def test_a_run_takes_the_lease_to_its_trials() -> None:
    seen: list[float | None] = []

    def look(x: float, y: float) -> float:
        seen.extend(trial.lease for trial in optimizer.running)
        return x

    optimizer = Optimizer(SPACE, minimize="value", seed=1)
    optimizer.enqueue({"x": 0.0, "y": 0.0})
    lost = Optimizer(SPACE, minimize="value", storage=optimizer.storage).ask(worker=_gone())
    run(optimizer, look, n_trials=3, lease=50.0, progress=False)
    assert seen == [50.0] * 3
    assert optimizer.trials[lost.number].state == "complete"


def _gone() -> str:
    with own_name() as name:
        assert is_here(name)
        assert not is_here(name.replace(name.split(":")[0], "elsewhere"))
        assert not is_here("alice")
        return name


def test_a_total_does_not_wait_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    storage = MemoryStorage()
    with Optimizer(SPACE, minimize="value", storage=storage, seed=1, budget=5) as person:
        person.ask(worker="alice")
        result = quiet(n_trials=None, stop=TotalTrials(5), timeout=LONG, storage=storage)
        assert states(result) == ["complete"] * 4
        assert [t.state for t in person.trials] == ["running"] + ["complete"] * 4
        assert result.stopped == "all trials of the study are begun, 1 by others, after 4 trials"
