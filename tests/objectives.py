"""Objectives to run, and short runs of them.

Worker processes import this file, so it imports nothing that takes long.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbmmopt import Real, Space, Trial, TrialPruned
from bbmmopt.execution import minimize

LONG = 60.0  # seconds after which what waits for something gives up

SPACE = Space({"x": Real(-2.0, 3.0), "y": Real(0.0, 1.0)})


def bowl(x: float, y: float) -> float:
    return (x - 0.5) ** 2 + (y - 0.25) ** 2


def raises_above_zero(x: float, y: float) -> float:
    if x > 0:
        raise ArithmeticError(f"diverged at {x}")
    return x


def apply(f: Callable[[float], float], x: float) -> float:
    return f(x)


def apply_one(f: Callable[[float], float]) -> float:
    return f(1.0)


def exits(x: float, y: float) -> float:
    os._exit(3)


def wait_for(path: Path) -> None:
    give_up = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < give_up, f"{path} never came"
        time.sleep(0.01)


def pid_of_two(x: float, y: float, folder: str) -> float:
    """Returns when two processes are here."""
    (Path(folder) / str(os.getpid())).touch()
    give_up = time.monotonic() + LONG
    while len(list(Path(folder).iterdir())) < 2:
        assert time.monotonic() < give_up, "the other one never came"
        time.sleep(0.01)
    return float(os.getpid())


def dies_once(x: float, y: float, folder: str, how: str) -> float:
    """The first call, of all processes, kills its process while another one is under way."""
    mine, other = Path(folder) / "first", Path(folder) / "second"
    try:
        mine.touch(exist_ok=False)
    except FileExistsError:
        other.touch()
        wait_for(Path(folder) / "dying")
        return bowl(x, y)
    wait_for(other)
    (Path(folder) / "dying").touch()
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(7)


def dies_first(x: float, y: float, folder: str) -> float:
    """The first call, of all processes, kills its process."""
    try:
        (Path(folder) / "first").touch(exist_ok=False)
    except FileExistsError:
        return bowl(x, y)
    os._exit(3)


def notes_and_dies(x: float, y: float, trial: Trial, folder: str, lethal: int) -> float:
    """Notes each call; the first one for trial `lethal` kills its process."""
    calls = len(list(Path(folder).glob(f"{trial.number}.*.call")))
    (Path(folder) / f"{trial.number}.{calls}.call").touch()
    (Path(folder) / f"{os.getpid()}.pid").touch()
    if trial.number == lethal and calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return bowl(x, y)


def reports(x: float, y: float, *, trial: Trial) -> float:
    for step in range(3):
        trial.report(step, bowl(x, y) + 1.0 / (step + 1))
    return bowl(x, y)


def report_from_a_process(trial: Trial) -> tuple[bool, str]:
    """What a worker process does with a trial that it was sent."""
    trial.report(0, 0.5)
    trial.report(1, 0.25)
    return trial.should_stop(), type(trial.reporter).__name__


def gives_up_above_zero(x: float, y: float, trial: Trial) -> float:
    trial.report(0, x)
    if x > 0:
        raise TrialPruned(f"x is {x}")
    return x


def waits_for_the_other(x: float, y: float, trial: Trial, folder: str) -> float:
    """Two at a time: the first one ends when told to stop, which the second one's telling does."""
    (Path(folder) / f"{trial.number}.here").touch()
    if trial.number == 0:
        wait_for(Path(folder) / "told")
        assert trial.should_stop()
        raise TrialPruned("told by somebody else")
    return bowl(x, y)


def hangs_first(x: float, y: float, folder: str) -> float:
    """The first call, of all processes, never returns."""
    try:
        (Path(folder) / "first").touch(exist_ok=False)
    except FileExistsError:
        return bowl(x, y)
    (Path(folder) / str(os.getpid())).touch()
    while True:
        time.sleep(1.0)


def press_and_hang(x: float, y: float) -> float:
    os.kill(os.getppid(), signal.SIGINT)
    while True:
        time.sleep(1.0)


class Unreadable(Exception):
    """Pickles, and then cannot be read: a common mistake."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def raises_unreadable(x: float, y: float) -> float:
    raise Unreadable(3, "deep trouble")


def returns_unpicklable(x: float, y: float) -> Any:
    return lambda: x


class Nth:
    """An objective that does something else in its n-th call, counted from 0."""

    def __init__(self, n: int, special: Callable[[], Any]) -> None:
        self.n, self.special, self.calls = n, special, 0

    def __call__(self, x: float, y: float) -> Any:
        self.calls += 1
        return self.special() if self.calls == self.n + 1 else bowl(x, y)


def quiet(direction: Callable[..., Any] = minimize, objective: Any = bowl, **options: Any) -> Any:
    """A short run without output."""
    return direction(objective, SPACE, **({"n_trials": 6, "seed": 1, "progress": False} | options))


def params(result: Any) -> list[dict[str, Any]]:
    return [trial.params for trial in result.trials]


def states(result: Any) -> list[str]:
    return [str(trial.state) for trial in result.trials]
