"""Facts about an Optimizer that is opened again: it goes on bit by bit, or says why it does not."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from bbmmopt.optimizer import Optimizer, StudyDiffers
from bbmmopt.space import Real
from bbmmopt.storage import MemoryStorage, UnknownStudy, open_storage
from bbmmopt.trial import TrialState
from tests.bbmmopt.loops import MIXED, PLANE, branin, mixed, plane, run, step
from tests.bbmmopt.programs import forked

# --------------------------------------------------------------------------------------
# Resuming
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "f", "noise"),
    [(PLANE, branin, "unknown"), (PLANE, branin, "none"), (MIXED, mixed, "unknown")],
    ids=["plane", "plane-exact", "mixed"],
)
def test_a_run_reopened_after_any_trial_goes_on_bit_by_bit(space, f, noise, tmp_path):
    path, n = tmp_path / "study.db", 15  # two checkpoints of the model are passed on the way

    def opened(where):
        return Optimizer(space, minimize="f", noise=noise, storage=where, seed=7, n_start=5)

    with opened(path) as optimizer:
        whole = []
        for k in range(n):
            trial = step(optimizer, f)
            whole.append((trial.params, trial.origin))
            shutil.copy(path, tmp_path / f"{k}.db")
            wal = Path(f"{path}-wal")
            if wal.exists():
                shutil.copy(wal, tmp_path / f"{k}.db-wal")
    for k in range(n - 1):
        with opened(tmp_path / f"{k}.db") as optimizer:
            assert len(optimizer.trials) == k + 1
            # Numbers of the fit come along in `origin`: they too must be the same to the last bit.
            rest = [(t.params, t.origin) for t in (step(optimizer, f) for _ in range(n - 1 - k))]
        assert rest == whole[k + 1 :], f"reopened after trial {k}"


def test_looking_at_the_model_in_between_changes_no_suggestion():
    watched, plain = plane(), plane()
    for _ in range(16):
        assert step(watched).params == step(plain).params
        watched.recommend()
        watched.preview(acquisition="ucb")
        watched.acquisition("log_pi")
        watched.belief().predict(np.random.default_rng(0).random((5, 2)))


def test_a_preview_is_what_ask_then_suggests_and_stores_nothing():
    optimizer = plane()
    for _ in range(8):
        preview = optimizer.preview()
        assert preview.state == TrialState.WAITING
        assert len(optimizer.trials) == preview.number
        trial = step(optimizer)
        assert (preview.number, preview.params) == (trial.number, trial.params)


SCRIPT = """
import os, signal, sys
from bbmmopt import Optimizer, Real

path, moment, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
space = {"x": Real(-5, 10), "y": Real(0, 15)}
optimizer = Optimizer(space, minimize="f", storage=path, seed=5, n_start=5)
while True:
    trial = optimizer.ask(worker="w")
    if moment == "asked" and trial.number == at:
        os.kill(os.getpid(), signal.SIGKILL)
    x, y = trial.params["x"], trial.params["y"]
    optimizer.tell(trial, (x - 1) ** 2 + (y - 2) ** 2 + x * y)
    if moment == "told" and trial.number == at:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_after_a_tell_or_between_ask_and_tell_is_resumed(tmp_path):
    path, script = tmp_path / "killed.db", tmp_path / "script.py"
    script.write_text(SCRIPT)
    for moment, at in (("told", 5), ("asked", 9), ("told", 13)):
        with forked(script, path, moment, at) as process:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == -signal.SIGKILL, errors
    with Optimizer.open(path) as optimizer:
        received = [(t.number, t.params, t.state) for t in optimizer.trials]
        assert optimizer.seed == 5
    whole = plane(seed=5, n_start=5)
    run(whole, 14, lambda x, y: (x - 1) ** 2 + (y - 2) ** 2 + x * y)
    assert received == [(t.number, t.params, t.state) for t in whole.trials]


def test_a_worker_gets_its_own_running_trials_back_in_another_process_only():
    storage = MemoryStorage()
    first = plane(storage)
    mine, theirs = first.ask(n=2, worker="w"), first.ask(worker="v")
    assert first.ask(worker="w").number == 3  # not one of those it has
    again = plane(storage)  # as after a restart
    assert [t.number for t in again.ask(n=4, worker="w")] == [mine[0].number, mine[1].number, 3, 4]
    assert again.ask(worker="v").number == theirs.number
    assert again.ask().number == 5


def test_a_trial_of_a_dead_worker_can_be_taken_over_once():
    storage = MemoryStorage()
    dead, alive = plane(storage), plane(storage)
    trial = dead.ask(worker="dead")
    taken = alive.take_over(trial, worker="alive")
    assert (taken.number, taken.worker) == (trial.number, "alive")
    assert alive.take_over(trial, worker="third") is None
    dead.tell(trial, 1.0)  # late, but precious
    assert alive.best.value == 1.0 and alive.take_over(taken) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": PLANE | {"z": Real(0, 1)}}, "parameter 'z' was added"),
        ({"space": {"x": Real(-5, 10)}}, "parameter 'y' was removed"),
        ({"space": PLANE | {"x": Real(-5, 11)}}, "'x'.*10.0.*11.0"),
        ({"minimize": None, "maximize": "f"}, "direction was minimize and is now maximize"),
        ({"minimize": "g"}, "objective 'f' was removed"),
        ({"noise": "none"}, "noise was unknown and is now none"),
        ({"constraints": "c"}, "constraints: was"),
        ({"seed": 1}, "seed: was 0 and is now 1"),
        ({"n_start": 9}, "n_start: was 5 and is now 9"),
        ({"acquisition": "ucb"}, "acquisition: was 'auto' and is now 'ucb'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_study_is_not_resumed_as_another_one(change, words, tmp_path):
    arguments = {"space": PLANE, "minimize": "f", "seed": 0, "storage": tmp_path / "s.db"}
    with Optimizer(**arguments) as optimizer:
        step(optimizer)
    with pytest.raises(StudyDiffers, match=f"(?s)study 'default'.*{words}.*study=…"):
        Optimizer(**arguments | change)
    with Optimizer(**arguments) as optimizer:
        assert len(optimizer.trials) == 1
    with Optimizer(**arguments | change, study="another") as optimizer:
        assert optimizer.trials == []


def test_what_is_left_out_when_resuming_stays_as_it_was(tmp_path):
    arguments = {"minimize": "f", "storage": tmp_path / "s.db"}
    with Optimizer(PLANE, **arguments, seed=3, n_start=7, acquisition="ucb"):
        pass
    with Optimizer(PLANE, **arguments, budget=1000) as optimizer:
        run(optimizer, 8)
        assert optimizer.seed == 3
        assert [t.origin["phase"] for t in optimizer.trials] == ["space-filling"] * 7 + ["model"]
        assert optimizer.trials[7].origin["acquisition"] == "ucb"


def test_a_stored_study_is_opened_by_its_name_alone(tmp_path):
    path = tmp_path / "s.db"
    with plane(path, study="mine") as optimizer:
        run(optimizer, 6)
        following = optimizer.preview().params
    with Optimizer.open(path, "mine") as optimizer:
        assert optimizer.space.names == ("x", "y") and optimizer.preview().params == following
    with pytest.raises(UnknownStudy, match=r"no study 'other'.*there are: 'mine'"):
        Optimizer.open(path, "other")
    with pytest.raises(UnknownStudy, match=r"no file .*none\.db"):
        Optimizer.open(tmp_path / "none.db")


def test_studies_in_one_storage_do_not_meet(tmp_path):
    storage = open_storage(tmp_path / "s.db")
    a, b = plane(storage, study="a"), plane(storage, study="b", seed=1)
    run(a, 3)
    assert len(a.trials) == 3 and b.trials == []
    a.close()
