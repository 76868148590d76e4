"""Facts about Optimizer: the ask/tell loop, resuming bit by bit, what it tells about itself."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from bbmmopt.optimizer import (
    NoCompleteTrial,
    Optimizer,
    SpaceExhausted,
    StudyDiffers,
)
from bbmmopt.problem import Objective, Problem
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from bbmmopt.storage import MemoryStorage, UnknownStudy, open_storage
from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState, UnknownTrial

PLANE = {"x": Real(-5, 10), "y": Real(0, 15)}
MIXED = {
    "C": Real(1e-3, 1e3, log=True),
    "kernel": Categorical(["rbf", "poly"]),
    "degree": Integer(2, 5, when={"kernel": "poly"}),
    "shrink": Categorical([True, False]),
}


def branin(x, y):
    a = y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def mixed(C, kernel, shrink, degree=0):
    return (math.log10(C) - 1) ** 2 + 0.3 * (kernel == "rbf") + 0.1 * abs(degree - 3) + 0.2 * shrink


def plane(storage=None, seed=0, **options) -> Optimizer:
    return Optimizer(PLANE, minimize="f", storage=storage, seed=seed, **options)


def step(optimizer, f=branin, **options) -> Trial:
    trial = optimizer.ask(**options)
    return optimizer.tell(trial, f(**trial.params))


def run(optimizer, n, f=branin) -> list[dict]:
    return [step(optimizer, f).params for _ in range(n)]


# --------------------------------------------------------------------------------------
# The loop
# --------------------------------------------------------------------------------------


def test_an_ask_tell_loop_finds_the_minimum_of_branin():
    optimizer = plane()
    run(optimizer, 30)
    assert optimizer.best.value <= 0.45  # the minimum is 0.398
    assert optimizer.best.value == min(t.value for t in optimizer.trials)
    assert [t.number for t in optimizer.trials] == list(range(30))


def test_maximising_is_minimising_the_negative():
    down, up = plane(), Optimizer(PLANE, maximize="f", seed=0)
    for _ in range(10):
        a, b = down.ask(), up.ask()
        assert a.params == b.params
        down.tell(a, branin(**a.params))
        up.tell(b, -branin(**b.params))
    assert up.best.value == -down.best.value
    assert up.recommend().value == pytest.approx(-down.recommend().value)


def test_a_trial_goes_from_running_to_complete_and_keeps_its_times():
    optimizer = plane()
    trial = optimizer.ask(worker="w1")
    assert (trial.number, trial.state, trial.worker) == (0, TrialState.RUNNING, "w1")
    assert trial.values is None and trial.params == {"x": 2.5, "y": 7.5}
    told = optimizer.tell(trial, 3.5)
    assert told.state == TrialState.COMPLETE and told.values == {"f": 3.5} and told.value == 3.5
    assert told.created <= told.started <= told.finished
    assert optimizer.trials == [told]


def test_the_parameters_of_a_trial_are_native_and_only_the_active_ones():
    space = MIXED | {"size": Ordinal([8, 16]), "n": Integer(0, 2**60), "fixed": Real(3, 3)}
    optimizer = Optimizer(space, minimize="f", seed=0)
    kinds = {"C": float, "kernel": str, "degree": int, "shrink": bool, "size": int, "n": int}
    kinds |= {"fixed": float}
    for _ in range(14):
        trial = optimizer.ask()
        assert type(trial.params) is dict
        assert all(type(value) is kinds[name] for name, value in trial.params.items())
        assert ("degree" in trial.params) == (trial.params["kernel"] == "poly")
        optimizer.tell(trial, trial.params["C"])


def test_objects_are_handed_out_and_their_labels_stored():
    space = {"f": Categorical({"double": lambda x: 2 * x, "square": lambda x: x * x})}
    optimizer = Optimizer(space, minimize="y", seed=0)
    trials = [optimizer.ask(), optimizer.ask()]
    assert sorted(t.arguments["f"](5) for t in trials) == [10, 25]
    assert sorted(t.params["f"] for t in trials) == ["double", "square"]


def test_different_seeds_give_different_runs_and_the_same_seed_the_same():
    runs = [run(plane(seed=seed), 9) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_a_new_study_without_a_seed_draws_one():
    assert plane(seed=None).seed != plane(seed=None).seed


@pytest.mark.parametrize("acquisition", ["log_ei", "log_pi", "ucb", "mean"])
def test_every_acquisition_can_run_the_loop(acquisition):
    optimizer = plane(acquisition=acquisition)
    run(optimizer, 9)
    assert optimizer.trials[-1].origin["acquisition"] == acquisition


def test_nothing_of_the_caller_is_touched_by_a_suggestion():
    optimizer = plane()
    run(optimizer, 6)
    threads, precision = torch.get_num_threads(), torch.get_default_dtype()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    optimizer.ask()
    optimizer.recommend()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == precision
    assert torch.is_grad_enabled()


# --------------------------------------------------------------------------------------
# Several trials at once
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "distance"), [("none", 0.005), ("unknown", 0.001)])
def test_trials_asked_for_together_stay_apart(noise, distance):
    optimizer = plane(noise=noise)
    run(optimizer, 8)
    batch = optimizer.ask(n=4)
    assert [t.number for t in batch] == [8, 9, 10, 11]
    rows = optimizer.space.encode_many([t.params for t in batch])
    distances = np.linalg.norm(rows[:, None] - rows, axis=-1)[np.triu_indices(4, 1)]
    assert distances.min() > distance
    one_by_one = plane(noise=noise)
    run(one_by_one, 8)
    assert [one_by_one.ask().params for _ in range(4)] == [t.params for t in batch]


def test_trials_asked_for_before_any_result_are_all_different():
    points = [tuple(t.params.values()) for t in plane().ask(n=12)]
    assert len(set(points)) == 12


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_the_order_in_which_a_batch_is_told_makes_no_difference(order):
    optimizer = plane()
    run(optimizer, 11)
    batch = optimizer.ask(n=4)
    for i in order:
        optimizer.tell(batch[i], branin(**batch[i].params))
        optimizer.belief()  # whatever is modelled in between must not matter either
    reference = plane()
    run(reference, 11)
    for trial in reference.ask(n=4):
        reference.tell(trial, branin(**trial.params))
    expected = reference.ask()
    # A storage lists trials by their last change: one that reopens it meets them in this order.
    for asker in (optimizer, plane(optimizer.storage)):
        preview = asker.preview()
        assert (preview.params, preview.origin) == (expected.params, expected.origin)


def test_threads_on_one_optimizer_share_out_the_trials():
    optimizer, problems = plane(), []

    def work():
        try:
            for _ in range(5):
                step(optimizer)
        except BaseException as error:
            problems.append(error)

    before = torch.get_num_threads()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [t.number for t in optimizer.trials] == list(range(15))
    assert all(t.value == branin(**t.params) for t in optimizer.trials)
    assert len({tuple(t.params.values()) for t in optimizer.trials}) == 15
    assert torch.get_num_threads() == before


def test_two_optimizers_on_one_storage_see_each_other():
    storage = MemoryStorage()
    first, second = plane(storage), plane(storage, seed=None)
    assert second.seed == first.seed
    a, b = first.ask(), second.ask()
    assert (a.number, b.number) == (0, 1) and a.params != b.params
    second.tell(a, 1.0)
    assert first.best.number == 0 and first.trials == second.trials


def test_optimizers_that_race_for_a_number_end_up_with_different_trials(tmp_path):
    racers = [plane(tmp_path / "s.db", n_start=4) for _ in range(3)]
    start, asked = threading.Barrier(3), []

    def race(optimizer):
        for _ in range(4):
            start.wait(timeout=60)  # all suggest under the same number; two come too late
            trial = optimizer.ask()
            asked.append((trial.number, tuple(trial.params.values())))
            optimizer.tell(trial, branin(**trial.params))

    threads = [threading.Thread(target=race, args=(racer,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in asked) == list(range(12))
    assert len({point for _, point in asked}) == 12
    assert all(len(racer.trials) == 12 for racer in racers)
    for racer in racers:
        racer.close()


def test_two_optimizers_in_turn_suggest_what_one_would():
    storage = MemoryStorage()
    pair = [plane(storage), plane(storage)]
    assert [step(pair[k % 2]).params for k in range(14)] == run(plane(), 14)


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
    path = tmp_path / "killed.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for moment, at in (("told", 5), ("asked", 9), ("told", 13)):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path), moment, str(at)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
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


# --------------------------------------------------------------------------------------
# Points of the user's own
# --------------------------------------------------------------------------------------


def test_enqueued_points_come_first_and_in_order():
    optimizer = plane()
    run(optimizer, 6)
    first = optimizer.enqueue({"x": 1, "y": 2.0})
    optimizer.enqueue({"x": 0.5, "y": 3})
    assert first.state == TrialState.WAITING and first.params == {"x": 1.0, "y": 2.0}
    trials = optimizer.ask(n=3)
    assert [t.params for t in trials[:2]] == [{"x": 1.0, "y": 2.0}, {"x": 0.5, "y": 3.0}]
    assert [t.number for t in trials] == [6, 7, 8]
    assert trials[0].state == TrialState.RUNNING and trials[0].origin == {"phase": "enqueued"}
    assert optimizer.tell(trials[0], 1.0).state == TrialState.COMPLETE


def test_fixed_values_are_kept_and_leave_enqueued_points_alone():
    optimizer = plane()
    optimizer.enqueue({"x": 1.0, "y": 1.0})
    for _ in range(9):
        trial = optimizer.ask(fixed={"x": 3})
        assert trial.params["x"] == 3.0
        optimizer.tell(trial, branin(**trial.params))
    assert len({t.params["y"] for t in optimizer.trials}) == 10
    assert optimizer.ask().params == {"x": 1.0, "y": 1.0}


def test_a_fixed_category_decides_which_parameters_there_are():
    optimizer = Optimizer(MIXED, minimize="f", seed=0)
    for _ in range(8):
        trial = optimizer.ask(fixed={"kernel": "poly", "degree": 4})
        assert trial.params["kernel"] == "poly" and trial.params["degree"] == 4
        optimizer.tell(trial, mixed(**trial.params))


def test_a_value_that_may_not_be_there_cannot_be_fixed_alone():
    optimizer = Optimizer(MIXED, minimize="f", seed=0)
    with pytest.raises(ValueError, match=r"ask\(fixed=…\): 'degree' is only .* 'kernel' to one"):
        optimizer.ask(fixed={"degree": 4})
    assert optimizer.trials == []


def test_results_from_elsewhere_are_learnt_from_and_count_for_the_start():
    optimizer = plane()
    rng = np.random.default_rng(0)
    for x, y in zip(rng.uniform(-5, 10, 12), rng.uniform(0, 15, 12), strict=True):
        optimizer.add_trial({"x": x, "y": y}, branin(x, y))
    assert optimizer.trials[3].origin == {"phase": "told"}
    trial = optimizer.ask()
    assert trial.number == 12 and trial.origin["phase"] == "model"
    assert trial.origin["model"]["trials"] == 12


def test_data_from_outside_the_bounds_teach_and_are_never_proposed():
    optimizer = plane()
    for x in np.linspace(-9, -5.5, 8):
        optimizer.add_trial({"x": x, "y": 20.0}, branin(x, 20.0) - 1000, outside=True)
    assert optimizer.best.params["x"] < -5
    for _ in range(4):
        trial = step(optimizer)
        assert -5 <= trial.params["x"] <= 10 and 0 <= trial.params["y"] <= 15
        assert trial.origin["model"]["trials"] >= 8
    recommended = optimizer.recommend().params
    assert -5 <= recommended["x"] <= 10 and 0 <= recommended["y"] <= 15


def test_a_measurement_that_failed_can_be_added():
    optimizer = plane()
    with pytest.warns(UserWarning, match=r"add_trial: objective 'f' is nan .* recorded"):
        trial = optimizer.add_trial({"x": 1, "y": 1}, math.nan)
    assert trial.state == TrialState.FAILED and trial.values is None
    with pytest.raises(NoCompleteTrial):
        _ = optimizer.best


# --------------------------------------------------------------------------------------
# Spaces that end, and spaces that are odd
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["none", "unknown"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_finite_space_is_used_up_once_and_then_says_so(noise, batch):
    space = {
        "n": Integer(1, 4),
        "k": Categorical(["a", "b"]),
        "child": Integer(1, 3, when={"k": "b"}),
    }
    optimizer = Optimizer(space, minimize="f", noise=noise, seed=0)
    points = []
    for _ in range(16 // batch):
        for trial in optimizer.ask(n=batch):
            points.append(tuple(trial.params.items()))
            optimizer.tell(trial, trial.params["n"] ** 2 + trial.params.get("child", 0))
    assert len(set(points)) == 16 == optimizer.space.size
    with pytest.raises(SpaceExhausted, match="all 16 points of the space have been tried"):
        optimizer.ask()
    assert len(optimizer.trials) == 16  # no trial was begun
    assert optimizer.best.params == {"n": 1, "k": "a"} == optimizer.recommend().params


def test_a_noisy_objective_may_be_measured_again_at_the_same_point():
    optimizer = Optimizer({"n": Integer(1, 3)}, minimize="f", noise="noisy", seed=0)
    rng = np.random.default_rng(0)
    for _ in range(15):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.params["n"] + 0.1 * rng.standard_normal())
    counts = [sum(t.params["n"] == n for t in optimizer.trials) for n in (1, 2, 3)]
    assert sum(counts) == 15 and counts[0] == max(counts)


@pytest.mark.parametrize("noise", ["none", "unknown"])
@pytest.mark.parametrize("seed", range(3))
def test_no_point_is_proposed_twice_even_when_the_best_one_is_a_corner(noise, seed):
    # Climbs end on the corner, or a rounding error away from it: that is the same point.
    space = {"x": Real(0, 1), "y": Real(-3, 0.7)}
    optimizer = Optimizer(space, maximize="f", noise=noise, seed=seed, n_start=4)
    points = [tuple(p.values()) for p in run(optimizer, 20, lambda x, y: x + y)]
    assert (1.0, 0.7) in points and len(set(points)) == 20


def test_one_parameter_is_enough():
    optimizer = Optimizer({"x": Real(-3, 3)}, minimize="f", seed=0)
    run(optimizer, 14, lambda x: (x - 1.2345) ** 2)
    assert optimizer.best.params["x"] == pytest.approx(1.2345, abs=0.02)
    assert optimizer.recommend().params["x"] == pytest.approx(1.2345, abs=0.02)


def test_thirty_parameters_are_not_too_many():
    optimizer = Optimizer({f"x{i}": Real(0, 1) for i in range(30)}, minimize="f", seed=0)
    f = lambda **p: sum((v - 0.3) ** 2 for v in p.values())  # noqa: E731
    run(optimizer, 26, f)
    start = min(t.value for t in optimizer.trials[:20])
    assert optimizer.best.value < 0.9 * start


def test_a_space_without_a_free_parameter_has_one_point():
    optimizer = Optimizer({"x": Real(2, 2), "k": Categorical(["a"])}, minimize="f", seed=0)
    assert step(optimizer, lambda x, k: x).params == {"x": 2.0, "k": "a"}
    with pytest.raises(SpaceExhausted, match="all 1 points"):
        optimizer.ask()


def test_the_start_is_as_long_as_asked_for():
    def start(n, space=PLANE, **options):
        return Optimizer(space, minimize="f", **options)._strategy.start

    many = {f"x{i}": Real(0, 1) for i in range(30)}
    assert start(0) == 5 and start(0, many) == 20 and start(0, many, budget=50) == 10
    assert start(0, many, budget=1000) == 60 and start(0, n_start=1) == 1
    assert start(0, {"x": Real(0, 1), **{f"c{i}": Real(1, 1) for i in range(9)}}) == 5


# --------------------------------------------------------------------------------------
# Several objectives, constraints
# --------------------------------------------------------------------------------------


def test_several_objectives_and_constraints_are_told_and_stored_by_name():
    optimizer = Optimizer(
        PLANE, minimize=["a", "b"], maximize="c", constraints=["limit"], storage=None, seed=0
    )
    for trial in optimizer.ask(9):
        optimizer.tell(trial, {"a": 1, "b": (2.0, 0.1), "c": 3}, constraints={"limit": -1})
    last = optimizer.trials[-1]
    assert last.values == {"a": 1.0, "b": 2.0, "c": 3.0} and last.constraints == {"limit": -1.0}
    assert last.standard_errors["b"] == 0.1
    for ask in (optimizer.recommend, optimizer.belief):
        with pytest.raises(ValueError, match=r"several objectives.*a, b, c"):
            ask()
    assert optimizer.belief("limit").data.y.tolist() == [1.0] * 9
    with pytest.raises(ValueError, match="no output 'd'; there are a, b, c, limit"):
        optimizer.belief("d")
    with pytest.raises(ValueError, match="no trial is the best"):
        _ = optimizer.best


def test_the_best_of_a_constrained_problem_is_feasible():
    optimizer = Optimizer(PLANE, minimize="f", constraints="limit", seed=0)
    for limit, f in ((-1, 5.0), (0, 4.0), (1, 1.0)):
        optimizer.tell(optimizer.ask(), {"f": f, "limit": limit})
    assert optimizer.best.value == 4.0


def test_a_whole_problem_can_be_passed_in_place_of_its_parts():
    problem = Problem(Space(PLANE), (Objective("f", "maximize", "none"),))
    optimizer = Optimizer(problem, seed=0)
    assert optimizer.problem is problem and optimizer.space is problem.space
    with pytest.raises(ValueError, match="pass either the Problem alone"):
        Optimizer(problem, minimize="f")


# --------------------------------------------------------------------------------------
# Looking
# --------------------------------------------------------------------------------------


def test_before_any_result_there_is_no_best_nothing_to_recommend_and_no_acquisition():
    optimizer = plane()
    optimizer.ask()
    with pytest.raises(NoCompleteTrial, match="tell a result first"):
        _ = optimizer.best
    for look in (optimizer.recommend, optimizer.acquisition):
        with pytest.raises(NoCompleteTrial, match="tell one first"):
            look()


def test_a_recommendation_is_where_the_model_expects_the_best_value():
    optimizer = plane(noise="none")
    run(optimizer, 25)
    recommendation = optimizer.recommend()
    grid = np.random.default_rng(0).random((4000, 2))
    mean, _ = optimizer.belief().predict(grid)
    assert -recommendation.value >= mean.max() - 1e-6
    assert recommendation.value == pytest.approx(branin(**recommendation.params), abs=0.3)
    assert recommendation.uncertainty >= 0 and recommendation.arguments == recommendation.params


def test_under_noise_the_recommendation_is_not_the_luckiest_trial():
    optimizer = Optimizer({"x": Real(0, 1)}, maximize="f", seed=0)
    for x in np.linspace(0.02, 0.98, 25):
        optimizer.add_trial({"x": x}, (-4 * (x - 0.5) ** 2, 0.02))
    optimizer.add_trial({"x": 0.95}, (3.0, 5.0))  # a lucky one, and it is known to be unsure
    assert optimizer.best.params == {"x": 0.95}
    assert optimizer.recommend().params["x"] == pytest.approx(0.5, abs=0.15)


def test_every_trial_can_be_explained():
    optimizer = plane()
    optimizer.enqueue({"x": 0, "y": 0})
    run(optimizer, 7)
    optimizer.add_trial({"x": 1, "y": 1}, 2.0)
    said = [optimizer.explain(k) for k in range(8)]
    assert said[0] == "Trial 0 was enqueued by the user."
    assert "next point of a scrambled Sobol sequence" in said[1]
    assert said[7] == "Trial 7 was told by the user, not suggested."
    assert "largest log expected improvement" in said[6] and "x " in said[6] and "±" in said[6]
    assert "6 complete, 0 pending and 0 failed" in said[6]
    centre = plane()
    centre.ask()
    assert "centre of the space" in centre.explain(0)
    assert optimizer.explain(optimizer.trials[6]) == said[6]
    with pytest.raises(UnknownTrial, match="no trial 99"):
        optimizer.explain(99)


def test_the_repr_says_what_is_optimised():
    optimizer = plane(study="mine")
    run(optimizer, 2)
    assert repr(optimizer) == "Optimizer(minimize f; 2 trials, study 'mine')"


# --------------------------------------------------------------------------------------
# Telling
# --------------------------------------------------------------------------------------


def test_a_trial_can_be_told_by_its_number_and_by_another_optimizer():
    storage = MemoryStorage()
    first, second = plane(storage), plane(storage)
    trial = first.ask()
    assert second.tell(trial.number, 2.0).params == trial.params
    assert first.best.value == 2.0


def test_telling_the_same_twice_is_no_matter_and_another_value_is_refused():
    optimizer = plane()
    trial = optimizer.ask()
    told = optimizer.tell(trial, 1.0)
    assert optimizer.tell(trial, 1.0) == told
    with pytest.raises(TrialAlreadyTold, match=r"f = 1\.0.*f = 2\.0.*first is kept"):
        optimizer.tell(trial, 2.0)
    with pytest.raises(TrialAlreadyTold, match=r"f = 1\.0.*failed \(burnt\)"):
        optimizer.tell(trial, failed="burnt")
    assert optimizer.best.value == 1.0


def test_failed_trials_are_kept_with_their_reason_and_avoided():
    optimizer = plane()
    run(optimizer, 8)
    trial = optimizer.ask()
    failed = optimizer.tell(trial, failed="diverged")
    assert failed.state == TrialState.FAILED and failed.reason == "diverged"
    assert optimizer.tell(trial, failed="diverged again").reason == "diverged"
    next_one = optimizer.ask()
    assert next_one.origin["model"]["failed"] == 1
    rows = optimizer.space.encode_many([trial.params, next_one.params])
    assert np.linalg.norm(rows[0] - rows[1]) > 0.01


def test_a_run_of_nothing_but_failures_goes_on_filling_the_space():
    optimizer = plane()
    points = set()
    for _ in range(30):
        trial = optimizer.ask()
        points.add(tuple(trial.params.values()))
        optimizer.tell(trial, failed="no licence")
    assert len(points) == 30


def test_a_trial_of_another_study_is_refused_and_nothing_recorded():
    mine, other = (Optimizer(PLANE, minimize="f", seed=seed) for seed in (0, 1))
    mine.ask(2), other.ask(2)
    with pytest.raises(ValueError, match=r"trial 1 of study 'default' has .*another study"):
        mine.tell(other.trials[1], 5.0)
    assert mine.trials[1].state == TrialState.RUNNING
    assert mine.tell(1, 5.0).value == 5.0  # by number it is what the user says


def test_params_changed_by_the_user_are_noticed_and_change_nothing():
    optimizer = Optimizer(PLANE, minimize="f", seed=0)
    trial = optimizer.ask()
    before = dict(trial.params)
    trial.params["x"] = 77.0
    assert optimizer.trials[0].params == before
    with pytest.raises(ValueError, match=r"its params were changed.*tell\(0, …\)"):
        optimizer.tell(trial, 1.0)


def test_where_all_trials_failed_the_best_says_so_and_why():
    optimizer = Optimizer(PLANE, minimize="f", seed=0)
    for reason in ("no gas", "Traceback …\nZeroDivisionError: division by zero"):
        optimizer.tell(optimizer.ask(), failed=reason)
    with pytest.raises(NoCompleteTrial, match="2 of 2 failed, the last with: ZeroDivisionError"):
        _ = optimizer.best


@pytest.mark.parametrize("f", [math.sin, lambda x: (x - 3) ** 2], ids=["sine", "parabola"])
def test_uncertainty_is_told_on_the_scale_of_the_data(f):
    optimizer = Optimizer({"x": Real(0, 10)}, minimize="f", seed=0)
    values = []
    for _ in range(14):
        trial = optimizer.ask()
        values.append(f(trial.params["x"]))
        optimizer.tell(trial, values[-1])
        if len(values) > 5:
            grid = np.linspace(0, 1, 50)[:, None]
            assert optimizer.belief().predict(grid)[1].max() < 5 * (max(values) - min(values))
