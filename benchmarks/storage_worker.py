"""One library's storage in one process: a JSON request per line in, a JSON answer per line out.

Started by storage.py with the interpreter that has the library. Clocks run here.
"""

import cProfile
import json
import os
import pstats
import random
import resource
import sys
import time
import traceback
from typing import Any

NAMES = [f"x{i}" for i in range(10)]


class Storage:
    """Ours alone: `add` and `finish` of an SQLStorage, parameters and all."""

    def open(self, path: str) -> None:
        from bbmmopt.storage import StudyRecord, open_storage

        self.storage = open_storage(path)
        self.storage.create_study(StudyRecord("speed", {}, seed=0))
        self.random, self.number = random.Random(0), 0

    def turn(self) -> None:
        """Everything that is written in the life of a trial."""
        from bbmmopt.trial import Trial

        params = {name: self.random.random() for name in NAMES}
        trial = Trial(self.number, params, created=time.time(), started=time.time())
        self.storage.add("speed", trial)
        self.storage.finish(
            "speed", self.number, state="complete", values={"y": 1.0}, finished=time.time()
        )
        self.number += 1


class Loop:
    """Ours as it is used: `Optimizer.ask`, with points of the start, and `tell`."""

    def open(self, path: str) -> None:
        from bbmmopt import Optimizer, Real

        space = {name: Real(0, 1) for name in NAMES}
        self.optimizer = Optimizer(space, minimize="y", storage=path, seed=0, n_start=10**7)

    def turn(self) -> None:
        self.optimizer.tell(self.optimizer.ask(), 1.0)


class Optuna:
    """Optuna with its default SQLite storage: ask, ten times suggest, tell."""

    def open(self, path: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name="speed",
            sampler=optuna.samplers.RandomSampler(seed=0),
            load_if_exists=True,
        )

    def turn(self) -> None:
        trial = self.study.ask()
        for name in NAMES:
            trial.suggest_float(name, 0, 1)
        self.study.tell(trial, 1.0)


class Worker:
    """Answers requests; each method that a request may name takes the request's other fields."""

    def __init__(self, name: str) -> None:
        self.run: Any = {"storage": Storage, "loop": Loop, "optuna": Optuna}[name]()

    def open(self, path: str) -> dict:
        before = _memory()
        _import(self.run)
        imported = _memory()
        began = time.perf_counter()
        self.run.open(path)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "megabytes": _memory() - imported, "base": before}

    def turns(self, n: int) -> dict:
        began = time.perf_counter()
        for _ in range(n):
            self.run.turn()
        return {"seconds": time.perf_counter() - began}

    def fill(self, path: str, n: int) -> dict:
        """Write n complete trials of ours at once, as no run would."""
        from bbmmopt.trial import Trial

        self.run.open(path)
        draw = random.Random(1)
        optimizer = self.run.optimizer
        with optimizer.storage._session(optimizer.study, write=True) as session:
            for number in range(n):
                params = {name: draw.random() for name in NAMES}
                now = 1.7e9 + number
                trial = Trial(
                    number,
                    params,
                    "complete",  # pyright: ignore[reportArgumentType]
                    values={"y": sum(params.values())},
                    created=now,
                    started=now,
                    finished=now + 0.5,
                    origin={"phase": "start"},
                )
                session.insert(trial, "added")
        optimizer.close()
        return {}

    def asks(self, n: int) -> dict:
        """Seconds of each ask, with a tell after it, and where the time of all of them goes."""
        seconds, profile = [], cProfile.Profile()
        for turn in range(2 * n):
            began = time.perf_counter()
            if turn >= n:
                profile.enable()
            trial = self.run.optimizer.ask()
            profile.disable()
            if turn < n:
                seconds.append(time.perf_counter() - began)
            self.run.optimizer.tell(trial, 1.0)
        return {"seconds": seconds, "where": _top(profile, n)}

    def requests(self, n: int) -> dict:
        """Seconds to put all trials into the arrays that a model is fitted to."""
        seconds = []
        optimizer = self.run.optimizer
        for _ in range(n):
            began = time.perf_counter()
            optimizer._request(optimizer._ledger.next_number, {}).known  # noqa: B018
            seconds.append(time.perf_counter() - began)
            optimizer.tell(optimizer.ask(), 1.0)
        return {"seconds": seconds}


def _import(run: object) -> None:
    """So that opening is timed without."""
    if isinstance(run, Optuna):
        from optuna.storages import RDBStorage  # noqa: F401
    else:
        from bbmmopt import Optimizer, Real

        optimizer = Optimizer({"x": Real(0, 1)}, minimize="y", seed=0)
        optimizer.tell(optimizer.ask(), 0.0)


def _memory() -> float:
    """Most memory so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _top(profile: cProfile.Profile, n: int) -> list[list[Any]]:
    """Functions by cumulative time: file and line, milliseconds within and in all, per ask."""
    stats: dict = pstats.Stats(profile).stats  # pyright: ignore[reportAttributeAccessIssue]
    rows = [
        [f"{file.rsplit('/', 1)[-1]}:{line} {name}", own / n * 1e3, total / n * 1e3]
        for (file, line, name), (_, _, own, total, _) in stats.items()
    ]
    rows.sort(key=lambda row: -row[2])
    return [[name, round(own, 3), round(total, 3)] for name, own, total in rows[:40]]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to stderr
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # told to the parent, which counts or raises it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
