"""BBMMSampler with trials that are not just complete, several numbers and several workers."""

import math

import numpy as np
import optuna
import pytest
from optuna import TrialPruned
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState, create_trial

from bbmmopt.integrations.optuna import BBMMSampler
from tests.bbmmopt.optuna_runs import bowl, models_made, origin, points, run
from tests.bbmmopt.programs import forked


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


# --------------------------------------------------------------------------------------
# Trials that are not just complete
# --------------------------------------------------------------------------------------


def test_trials_under_way_keep_others_away():
    study = run(bowl, 14)
    asked = [study.ask() for _ in range(4)]
    rows = np.array([[bowl(t), t.params["x"], math.log10(t.params["rate"]) / 2] for t in asked])
    apart = np.linalg.norm(rows[:, None, 1:] - rows[None, :, 1:], axis=-1)
    assert apart[np.triu_indices(4, 1)].min() > 1e-3
    assert [origin(t)["model"]["pending"] for t in study.trials[-4:]] == [0, 1, 2, 3]


def test_what_another_process_plans_is_known_before_its_objective_asks_for_it():
    study = run(bowl, 10)
    theirs = study.ask()
    theirs.suggest_float("x", -1, 2)  # and has not come to the rate yet
    study.sampler = BBMMSampler(seed=0)
    ours = study.ask()
    bowl(ours)
    assert origin(study.trials[-1])["model"]["pending"] == 1


def test_enqueued_values_are_kept_and_the_others_suit_them():
    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return (y - x) ** 2

    study = optuna.create_study(sampler=BBMMSampler(seed=0, acquisition="mean"))
    for k in range(16):
        study.enqueue_trial({"x": (k % 4) / 3, "y": (k // 4) / 3})
    study.enqueue_trial({"x": 0.8})
    study.enqueue_trial({"x": 0.1, "y": 0.5})
    study.optimize(objective, n_trials=18)
    some, all_of_them = study.trials[-2:]
    assert some.params["x"] == 0.8
    assert some.params["y"] == pytest.approx(0.8, abs=0.05)  # the best there is for this x
    assert all_of_them.params == {"x": 0.1, "y": 0.5}
    assert "bbmmopt" not in all_of_them.system_attrs  # nothing was left to choose


def test_what_pruned_trials_reported_is_forecast():
    def objective(trial: optuna.Trial) -> float:
        value = bowl(trial)
        for step in range(6):
            trial.report(value + 2.0**-step, step)
            if step == 3 and value > 0.3:
                raise TrialPruned
        return value

    study = run(objective, 20)
    pruned = [trial for trial in study.trials[:-1] if trial.state == TrialState.PRUNED]
    assert len(pruned) > 2
    assert origin(study.trials[-1])["model"]["stopped"] == len(pruned)


def test_where_trials_fail_is_learnt():
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if x > 0.6:
            raise ZeroDivisionError
        return -x

    study = run(objective, 25, catch=(ZeroDivisionError,))
    assert study.best_value < -0.55
    failed = [trial.state == TrialState.FAIL for trial in study.trials]
    assert any(failed[:10])
    assert sum(failed[-8:]) <= 3  # without a model of failures the best guess is x = 1


def test_infinite_values_are_failures_or_left_out():
    study = optuna.create_study(sampler=BBMMSampler(seed=0, n_startup_trials=3))
    range_ = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for x, value in [(0.1, 1.0), (0.2, 0.5), (0.3, 0.4), (0.9, math.inf), (0.5, -math.inf)]:
        study.add_trial(create_trial(params={"x": x}, distributions=range_, value=value))
    trial = study.ask(range_)
    model = origin(study.trials[trial.number])["model"]
    assert (model["trials"], model["failed"]) == (3, 1)


def test_trials_that_were_added_count():
    range_ = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study = optuna.create_study(sampler=BBMMSampler(seed=0))
    for x in np.linspace(0, 1, 12).tolist():
        study.add_trial(create_trial(params={"x": x}, distributions=range_, value=(x - 0.43) ** 2))
    assert study.ask(range_).params["x"] == pytest.approx(0.43, abs=0.02)


# --------------------------------------------------------------------------------------
# Several numbers, several workers, other parts of Optuna
# --------------------------------------------------------------------------------------


def constrained(trial: optuna.Trial) -> tuple[float, float]:
    """A value that falls with x, and what x may not exceed, 0.5, by how much it does."""
    x = trial.suggest_float("x", 0, 1)
    trial.suggest_float("y", 0, 1)
    return -x, x - 0.5


def test_constraints_are_kept_however_they_are_told():
    def told(trial: optuna.Trial) -> float:
        value, excess = constrained(trial)
        trial.set_constraint("0", excess)
        return value

    by_function = BBMMSampler(seed=0, constraints_func=lambda trial: (trial.params["x"] - 0.5,))
    first = run(told, 14)
    second = run(lambda trial: constrained(trial)[0], 14, sampler=by_function)
    assert points(first) == points(second)
    assert [t.constraints for t in first.trials] == [t.constraints for t in second.trials]
    assert -0.5 <= first.best_value < -0.49
    assert len(origin(first.trials[-1])["constraints_hold"]) == 1


def test_a_constraint_that_is_no_number_is_refused():
    sampler = BBMMSampler(seed=0, constraints_func=lambda trial: (math.nan,))
    with pytest.raises(ValueError, match="constraints_func must return numbers; for trial 0"):
        run(bowl, 1, sampler=sampler)


def test_several_objectives_give_a_front():
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, y = trial.suggest_float("x", -4, 4), trial.suggest_float("y", -4, 4)
        return (x - 1) ** 2 + y**2, -((x + 1) ** 2) - y**2

    study = run(objective, 24, directions=["minimize", "maximize"])
    # The best compromises lie on the line between the two optima.
    late = [trial.params for trial in study.trials[-10:]]
    near = [abs(p["y"]) < 0.3 and abs(p["x"]) < 1.3 for p in late]
    assert sum(near) >= 8


def test_threads_get_different_points():
    study = optuna.create_study(sampler=BBMMSampler(seed=0, n_startup_trials=4))
    study.optimize(bowl, n_trials=16, n_jobs=4)
    assert len({tuple(point.values()) for point in points(study)}) == 16
    assert study.best_value < 0.05


def test_it_goes_with_hyperband_which_shows_it_parts_of_a_study(monkeypatch):
    made = models_made(monkeypatch)

    def objective(trial: optuna.Trial) -> float:
        value = bowl(trial)
        for step in range(9):
            trial.report(value + 1 / (1 + step), step)
            if trial.should_prune():
                raise TrialPruned
        return value

    pruner = HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    study = run(objective, 30, pruner=pruner, study_name="hyperband")
    assert study.best_value < 0.2
    assert len(made) <= 3  # one for each bracket
    phases = [t.system_attrs.get("bbmmopt", {}).get("origin", {}) for t in study.trials]
    assert sum(phase.get("phase") == "model" for phase in phases) > 5


WORKER = """
import sys
import optuna
from bbmmopt.integrations.optuna import BBMMSampler
from tests.bbmmopt.optuna_runs import bowl, models_made

study = optuna.load_study(
    study_name="s", storage=sys.argv[1], sampler=BBMMSampler(seed=0, n_startup_trials=4)
)
study.optimize(bowl, n_trials=5)
"""


@pytest.mark.alone
def test_processes_share_a_study(tmp_path):
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(study_name="s", storage=storage)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with forked(script, storage) as one, forked(script, storage) as other:
        for worker in (one, other):
            _, errors = worker.communicate(timeout=120)
            assert worker.returncode == 0, errors
    study = optuna.load_study(study_name="s", storage=storage)
    assert len({tuple(point.values()) for point in points(study)}) == 10
    assert study.best_value < 0.2


# --------------------------------------------------------------------------------------
# Errors at the door
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"seed": "0"}, "seed must be an integer"),
        ({"n_startup_trials": 0}, "n_startup_trials must be"),
        ({"acquisition": "ei"}, "acquisition must be one of"),
        ({"strategy": "local"}, "strategy must be one of"),
        ({"noise": "some"}, "noise of objective"),
        ({"device": "tpu"}, "tpu"),
        ({"constraints_func": 3}, "constraints_func must be"),
    ],
)
def test_bad_settings_are_refused_before_the_first_trial(setting, said):
    with pytest.raises((ValueError, TypeError), match=said):
        BBMMSampler(**setting)
