"""Runs that are interrupted or killed, and go on.

Nothing depends on how fast anything is: files and signals force the order.
"""

import multiprocessing
import os
import pickle
import signal
import subprocess
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from objectives import (
    LONG,
    SPACE,
    Nth,
    bowl,
    params,
    quiet,
    states,
    wait_for,
)

from bbmmopt import Optimizer, TrialState
from bbmmopt.execution import processes, run
from bbmmopt.storage import MemoryStorage
from tests.bbmmopt.programs import forked, started

pytestmark = pytest.mark.alone

# --------------------------------------------------------------------------------------
# Signals
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM,) * 2])
def test_a_signal_ends_the_run_after_the_trial_under_way(number: signal.Signals, name: str) -> None:
    name = getattr(name, "name", name)
    objective = Nth(2, lambda: signal.raise_signal(number) or 0.125)
    result = quiet(objective=objective)
    assert states(result) == ["complete"] * 3
    assert result.trials[2].value == 0.125
    assert result.stopped == f"interrupted by {name} after 3 of 6 trials"


def test_a_second_ctrl_c_raises_at_once_and_the_trial_is_run_again_later() -> None:
    optimizer = Optimizer(SPACE, minimize="value", seed=1, budget=6)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on after the second one")

    with pytest.raises(KeyboardInterrupt):
        run(optimizer, Nth(2, twice), n_trials=6, progress=False)
    assert [t.state for t in optimizer.trials] == ["complete", "complete", "running"]
    rest = run(optimizer, bowl, n_trials=4, progress=False)
    assert [t.number for t in rest.trials] == [2, 3, 4, 5]
    assert [t.params for t in optimizer.trials] == params(quiet())


class PressedTwice(MemoryStorage):
    """Ctrl-C comes twice while the third outcome is being written."""

    def finish(self, study: str, number: int, **outcome: Any) -> Any:
        if number == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return super().finish(study, number, **outcome)


def test_a_second_ctrl_c_does_not_break_into_the_storage() -> None:
    result = quiet(storage=PressedTwice())
    assert states(result) == ["complete"] * 3
    optimizer = Optimizer(SPACE, minimize="value", storage=PressedTwice())
    with pytest.raises(KeyboardInterrupt):  # where the user's code would run next
        run(optimizer, bowl, n_trials=6, progress=False, callbacks=[lambda *_: None])
    assert [t.state for t in optimizer.trials] == ["complete"] * 3


def test_the_callers_signal_handlers_are_back_afterwards() -> None:
    def mine(*_: object) -> None: ...

    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        quiet()
        quiet(objective=Nth(1, lambda: signal.raise_signal(signal.SIGINT)))
        with pytest.raises(ZeroDivisionError):
            quiet(objective=lambda x, y: 1 / 0, catch=())
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is mine
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
        result = quiet(objective=Nth(1, lambda: signal.raise_signal(signal.SIGINT) or 1.0))
        assert result.n_complete == 6
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_in_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def look(x: float, y: float) -> float:
        seen.append(signal.getsignal(signal.SIGINT))
        return x

    thread = threading.Thread(target=lambda: quiet(objective=look))
    thread.start()
    thread.join(LONG)
    assert set(seen) == {before}
    assert len(seen) == 6


def say_and_sleep(pipe: Any) -> None:
    pipe.send("here")
    time.sleep(LONG)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_that_the_objective_forks_can_still_be_terminated() -> None:
    def forks() -> float:
        ours, theirs = multiprocessing.Pipe()
        target = partial(say_and_sleep, theirs)
        child = multiprocessing.get_context("fork").Process(target=target)
        child.start()
        ours.recv()  # Python forgets signals that come while it forks
        child.terminate()
        child.join(LONG)
        return float(child.exitcode or 0)

    result = quiet(objective=Nth(0, forks), n_trials=1)
    assert result.trials[0].value == -signal.SIGTERM


# --------------------------------------------------------------------------------------
# Scripts that are interrupted and killed
# --------------------------------------------------------------------------------------


SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    from bbmmopt import Real, Space, minimize

    FOLDER = Path({folder!r})

    def wait_for(name):
        give_up = time.monotonic() + 60
        while not (FOLDER / name).exists():
            if time.monotonic() > give_up:
                os._exit(99)
            time.sleep(0.01)

    def objective(x, y):
        (FOLDER / f"{{os.getpid()}}.pid").touch()
        number = len(list(FOLDER.glob("*.call")))
        (FOLDER / f"{{number}}.call").touch()
        {body}
        return (x - 0.5) ** 2 + (y - 0.25) ** 2

    if __name__ == "__main__":
        space = Space({{"x": Real(-2.0, 3.0), "y": Real(0.0, 1.0)}})
        result = minimize(
            objective, space, seed=1, n_start=4, storage=str(FOLDER / "study.db"), **{options!r}
        )
        print(result.stopped)
        result.optimizer.close()
"""


def script(folder: Path, body: str = "", **options: Any) -> Path:
    path = folder / "script.py"
    text = textwrap.dedent(SCRIPT).format(folder=str(folder), body=body, options=options)
    path.write_text(text)
    return path


def stored(folder: Path) -> list[Any]:
    with Optimizer.open(folder / "study.db") as optimizer:
        return optimizer.trials


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """To the whole group, as a terminal does; returns when it was taken note of."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    while "Ctrl-C again" not in (line := process.stderr.readline()):
        assert line, "ended without taking note"


BLOCK = 'number == 3 and (Path(FOLDER / "there").touch(), wait_for("go"))'


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_ctrl_c_waits_saves_and_says_how_to_resume(tmp_path: Path, executor: str) -> None:
    path = script(tmp_path, BLOCK, n_trials=8, executor=executor)
    with started(path) as process:
        wait_for(tmp_path / "there")
        press_ctrl_c(process)
        (tmp_path / "go").touch()
        output, errors = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert output == "interrupted by Ctrl-C after 4 of 8 trials\n"
    assert "4 of 8 trials are recorded" in errors
    assert "n_trials=4 completes" in errors
    assert "Traceback" not in errors
    assert [(t.number, t.state) for t in stored(tmp_path)] == [(k, "complete") for k in range(4)]


@pytest.mark.parametrize(
    ("executor", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)]
)
def test_a_second_ctrl_c_ends_the_process_whatever_is_under_way(
    tmp_path: Path, executor: str, workers: int
) -> None:
    path = script(tmp_path, BLOCK, n_trials=4, executor=executor, workers=workers)
    with started(path) as process:
        wait_for(tmp_path / "there")
        press_ctrl_c(process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=LONG)
    assert errors.count("\nKeyboardInterrupt\n") == 1  # ours; none of a worker
    assert "Process bbmmopt worker" not in errors
    assert process.returncode == -signal.SIGINT
    assert TrialState.RUNNING in [t.state for t in stored(tmp_path)]
    for file in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.stem), 0)


def test_a_trial_whose_worker_is_ended_with_the_run_is_not_failed(tmp_path: Path) -> None:
    with forked(script(tmp_path, BLOCK, n_trials=8, executor="processes")) as process:
        wait_for(tmp_path / "there")
        os.killpg(process.pid, signal.SIGTERM)  # as systemd and Slurm do: to all of them
        output, _ = process.communicate(timeout=LONG)
    assert output == "interrupted by SIGTERM after 3 of 8 trials\n"
    assert [t.state for t in stored(tmp_path)] == ["complete"] * 3 + ["running"]


def test_ctrl_c_while_a_worker_is_starting_ends_the_run_without_noise(tmp_path: Path) -> None:
    path = script(tmp_path, n_trials=4, executor="processes")
    # The worker imports the script under this name, and presses Ctrl-C itself.
    press = '\nif __name__ == "__mp_main__":\n    os.killpg(0, signal.SIGINT)\n'
    path.write_text(path.read_text() + press)
    with started(path) as process:
        output, errors = process.communicate(timeout=LONG)
    assert output == "interrupted by Ctrl-C after 0 of 4 trials\n"
    assert "Traceback" not in errors
    assert stored(tmp_path) == []


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("at", [2, 6])  # in the start, and when the model suggests
def test_a_run_that_was_killed_resumes_exactly_where_it_was(
    tmp_path: Path, executor: str, at: int
) -> None:
    kill = f"number == {at} and os.kill({{pid}}, signal.SIGKILL)"
    pid = "os.getpid()" if executor == "threads" else "os.getppid()"
    options = {"n_trials": 9, "executor": executor}
    with forked(script(tmp_path, kill.format(pid=pid), **options)) as process:
        process.communicate(timeout=LONG)
    assert process.returncode == -signal.SIGKILL
    assert [t.state for t in stored(tmp_path)] == ["complete"] * at + ["running"]
    with quiet(
        n_trials=9 - at, n_start=4, storage=str(tmp_path / "study.db"), executor=executor
    ).optimizer as optimizer:
        resumed = optimizer.trials
    whole = quiet(n_trials=9, n_start=4)
    assert [t.params for t in resumed] == params(whole)
    assert [t.values for t in resumed] == [t.values for t in whole.trials]
    assert all(t.state == TrialState.COMPLETE for t in resumed)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    path = script(tmp_path, BLOCK.replace("3", "0"), n_trials=4, executor="processes")
    with forked(path) as process:
        wait_for(tmp_path / "there")
        (pid,) = (int(file.stem) for file in tmp_path.glob("*.pid"))
        os.kill(pid, 0)
        os.kill(process.pid, signal.SIGKILL)
        give_up = time.monotonic() + LONG / 2  # before the objective gives up by itself
        while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
            assert time.monotonic() < give_up, "the worker is still there"
            time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_trials_of_a_living_run_and_of_people_are_left_alone(tmp_path: Path) -> None:
    path = script(tmp_path, BLOCK.replace("3", "1"), n_trials=3)
    with forked(path) as process:
        wait_for(tmp_path / "there")
        with Optimizer.open(tmp_path / "study.db") as person:
            person.ask()
            person.ask(worker="alice")
        with quiet(n_trials=2, n_start=4, storage=str(tmp_path / "study.db")).optimizer as o:
            assert [t.state for t in o.trials] == ["complete"] + ["running"] * 3 + ["complete"] * 2
        (tmp_path / "go").touch()
        output, errors = process.communicate(timeout=LONG)
    assert output == "all 3 trials done\n", errors
    ends = [t.state for t in stored(tmp_path)]
    assert ends == ["complete"] * 2 + ["running"] * 2 + ["complete"] * 3


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_that_processes_cannot_import_is_told_what_to_do(
    tmp_path: Path, guarded: bool
) -> None:
    path = script(tmp_path, n_trials=4, executor="processes")
    if guarded:  # but typed at a prompt
        begun = started("-c", path.read_text())
    else:
        path.write_text(path.read_text().replace('__name__ == "__main__"', "True"))
        begun = forked(path)
    with begun as process:
        _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert ("Put it in a module" if guarded else 'under `if __name__ == "__main__":`') in errors
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "payload",
    [pickle.dumps((print, ())), b"nothing that can be loaded"],
    ids=["an objective", "no objective"],
)
def test_a_worker_that_nobody_waits_for_any_more_ends_without_a_word(payload, monkeypatch) -> None:
    for name in ("signal", "pthread_sigmask"):
        monkeypatch.setattr(signal, name, lambda *_: None, raising=False)
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    with theirs:
        processes.serve(theirs, payload)
