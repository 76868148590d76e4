"""Facts about Optimizer: the ask/tell loop, batches, points of the user's own, odd spaces."""

import math
import random
import threading

import numpy as np
import pytest
import torch

from bbmmopt.optimizer import NoCompleteTrial, Optimizer, SpaceExhausted
from bbmmopt.space import Categorical, Integer, Ordinal, Real
from bbmmopt.storage import MemoryStorage
from bbmmopt.trial import TrialState
from tests.bbmmopt.loops import MIXED, PLANE, branin, mixed, plane, run, step

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
