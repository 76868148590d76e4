"""Facts about what an Optimizer is told, and tells: outcomes, the best, explanations."""

import math

import numpy as np
import pytest

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.problem import Objective, Problem
from bbmmopt.space import Real, Space
from bbmmopt.storage import MemoryStorage
from bbmmopt.study import Study
from bbmmopt.trial import TrialAlreadyTold, TrialState, UnknownTrial
from tests.bbmmopt.loops import PLANE, branin, plane, run

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


def test_to_tell_by_number_or_to_put_in_line_reads_no_list_of_trials(monkeypatch):
    storage = MemoryStorage()
    run(plane(storage), 3)
    waiting = plane(storage).enqueue({"x": 0.5, "y": 0.5})

    def changes(*_: object, **__: object) -> None:
        raise AssertionError("all trials were read")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "changes", changes)
        study = Study.open(storage)
        study.tell(waiting.number, 1.0)
        study.set_attrs(waiting.number, {"by": "ann"})
        study.enqueue({"x": 0.25, "y": 0.5})
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    assert study.trials[3].attrs == {"by": "ann"}


def test_what_takes_a_trial_or_a_revision_says_so():
    optimizer = plane()
    optimizer.ask()
    with pytest.raises(TypeError, match=r"renew needs the Trial that ask returned; got 0\."):
        optimizer.renew(0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"since must be an integer, a revision; got 'a'\."):
        optimizer.events("a")  # pyright: ignore[reportArgumentType]


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
