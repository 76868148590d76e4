"""A worker of a Dask cluster is killed, for faults.py. Ours only."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.faults_cases import Stores
from benchmarks.faults_children import call
from benchmarks.faults_places import Place
from benchmarks.faults_stores import NAMES


def dask_worker(
    stores: Stores, place: Place, folder: str, trials: int, kills: int
) -> dict[str, Any]:
    """`minimize` on a local cluster of processes, some of which kill themselves in a trial.

    Args:
        stores: Ours.
        place: Where to put the database.
        folder: For the objective's own log.
        trials: How many.
        kills: In how many of them, the first time, the worker is killed.
    """
    url, log = place.fresh(), Path(folder)
    log.mkdir(parents=True, exist_ok=True)
    call(lambda: _run(url, log, trials, kills), 300)
    found, wrong = call(lambda: _found(url))
    ran = Counter(path.name.split("-")[1] for path in log.glob("ended-*"))
    deaths = len(list(log.glob("died-*")))
    damage = place.damage(url) + wrong
    place.drop(url)
    return {
        "trials": len(found),
        "kills": deaths,
        "complete": sum(state == "complete" for state, _ in found),
        "ended_more_than_once": sum(count > 1 for count in ran.values()),
        "lost": sum(value is None for _, value in found),
        "stuck": sum(state in ("running", "waiting") for state, _ in found),
        "damage": damage,
    }


def _found(url: str) -> tuple[list[tuple[str, float | None]], list[str]]:
    """States and values of the trials, and what is wrong with the storage."""
    from bbmmopt.study import Study

    with Study.open(url) as study:
        return [(trial.state, trial.value) for trial in study.trials], study.storage.check()


def _run(url: str, log: Path, trials: int, kills: int) -> None:
    from distributed import Client, LocalCluster

    from bbmmopt import Real, minimize

    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        minimize(
            Objective(str(log), kills),
            {name: Real(0, 1) for name in NAMES},
            n_trials=trials,
            executor=client.get_executor(pure=False),
            storage=url,
            seed=0,
            n_start=10**6,
            progress=False,
        )


class Objective:
    """Notes that it ended, and kills its worker the first times.

    Args:
        log: Folder for its notes.
        kills: How many workers it kills.
    """

    def __init__(self, log: str, kills: int) -> None:
        self.log, self.kills = log, kills

    def __call__(self, **params: float) -> float:
        name = f"{params['x0']:.17g}"
        time.sleep(0.05)
        if self._first_of(name):
            os.kill(os.getpid(), signal.SIGKILL)
        Path(self.log, f"ended-{name}-{time.monotonic_ns()}").touch()
        return params["x0"]

    def _first_of(self, name: str) -> bool:
        """Whether this is one of the first trials, and it runs for the first time."""
        if name in {path.name.split("-")[1] for path in Path(self.log).glob("died-*")}:
            return False
        for turn in range(self.kills):
            try:
                Path(self.log, f"turn-{turn}").touch(exist_ok=False)
            except FileExistsError:
                continue
            Path(self.log, f"died-{name}").touch()
            return True
        return False
