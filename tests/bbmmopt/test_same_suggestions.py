"""The same seed and the same told data give the same suggestions: over kills, orders, processes."""

import os
import random
import subprocess
import sys

import pytest

from bbmmopt.optimizer import Optimizer
from tests.bbmmopt.loops import MIXED, PLANE, branin, mixed

# Killed again and again, each time a little later than at random, until all is done.
SCRIPT = """
import os, random, signal, sys, time
from bbmmopt import Real, TotalTrials, minimize

def f(x, y):
    return (x - 1) ** 2 + (y - 2) ** 2 + x * y

def go(path):
    minimize(
        f, {"x": Real(-5, 10), "y": Real(0, 15)}, stop=TotalTrials(50), budget=50, n_trials=None,
        storage=path, seed=5, progress=False,
    )

draws, kills = random.Random(0), 0
while True:
    child = os.fork()
    if child == 0:
        go(sys.argv[1])
        os._exit(0)
    time.sleep(draws.uniform(0.05, 0.4 + 0.1 * kills))
    if kills < 6:
        os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break
    kills += 1
print(kills)
go(sys.argv[2])
"""


def everything(path) -> list[tuple]:
    with Optimizer.open(path) as optimizer:
        return [(t.number, t.params, t.values, t.state, t.origin) for t in optimizer.trials]


@pytest.mark.alone
def test_a_run_of_fifty_trials_killed_at_random_is_the_run_that_was_not(tmp_path):
    killed, whole = tmp_path / "killed.db", tmp_path / "whole.db"
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(killed), str(whole)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) >= 3, "hardly ever killed: no evidence"
    assert len(everything(whole)) == 50
    assert everything(killed) == everything(whole)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
@pytest.mark.parametrize(("space", "f"), [(PLANE, branin), (MIXED, mixed)], ids=["plane", "mixed"])
def test_of_four_workers_the_order_of_their_results_changes_nothing(
    space, f, kind, tmp_path, request
):
    """One optimizer is told in order; another in any order, asked in between; and a third one is
    opened anew for each round, so that it has nothing but the stored trials."""
    where = {"memory": None, "sqlite": tmp_path / "study.db"}
    other = request.getfixturevalue("postgres_url") if kind == "postgres" else where[kind]
    options = {"minimize": "f", "seed": 3, "n_start": 6}
    plain = Optimizer(space, **options)
    shuffled = Optimizer(space, storage=other, **options)
    reopened = tmp_path / "reopened.db"
    draws = random.Random(1)
    for _ in range(5 if kind == "memory" else 3):
        asked = [plain.ask() for _ in range(4)]
        assert [(t.params, t.origin) for t in asked] == [
            (t.params, t.origin) for t in (shuffled.ask() for _ in range(4))
        ]
        with Optimizer(space, storage=reopened, **options) as anew:
            assert [t.params for t in asked] == [anew.ask().params for _ in range(4)]
            for trial in draws.sample(asked, 4):
                anew.tell(trial.number, f(**trial.params))
        for trial in asked:
            plain.tell(trial.number, f(**trial.params))
        for trial in draws.sample(asked, 4):
            shuffled.preview()
            shuffled.tell(trial.number, f(**trial.params))
    shuffled.close()
