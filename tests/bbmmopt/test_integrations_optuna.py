"""BBMMSampler: what it suggests, from what, and that it does so again."""

import math
import pickle

import numpy as np
import optuna
import pytest
from optuna import TrialPruned
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from bbmmopt.integrations.optuna import BBMMSampler
from tests.bbmmopt.optuna_runs import bowl, layers, models_made, origin, points, run


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


# --------------------------------------------------------------------------------------
# What follows from what
# --------------------------------------------------------------------------------------


def test_it_finds_the_minimum_of_a_bowl_to_four_digits():
    study = run(bowl, 20)
    assert study.best_value < 1e-4
    assert study.best_params["x"] == pytest.approx(0.3, abs=0.01)


def test_directions_are_heeded():
    study = run(lambda trial: -bowl(trial), 20, direction="maximize")
    assert study.best_value > -1e-3


@pytest.mark.parametrize(
    ("objective", "kind"), [(bowl, "sqlite"), (layers, "sqlite"), (layers, "journal")]
)
def test_a_study_that_is_loaded_again_goes_on_as_it_would_have(tmp_path, objective, kind):
    def storage() -> str | JournalStorage:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'optuna.db'}"
        return JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))

    whole = run(objective, 14)
    run(objective, 9, storage=storage(), study_name="s")
    again = optuna.load_study(study_name="s", storage=storage(), sampler=BBMMSampler(seed=0))
    again.optimize(objective, n_trials=5)
    assert points(again) == points(whole)


def test_a_pickled_sampler_goes_on_as_it_would_have():
    whole, study = run(bowl, 12), run(bowl, 9)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(bowl, n_trials=3)
    assert points(study) == points(whole)


def test_seeds_differ_and_none_is_drawn():
    first, second = (run(bowl, 4, sampler=BBMMSampler()) for _ in range(2))
    assert points(first) != points(second)
    assert points(run(bowl, 4, sampler=BBMMSampler(seed=1))) != points(run(bowl, 4))


def with_all_that_can_happen(trial: optuna.Trial) -> float:
    """Pruned, failed and infinite values, a range that moves, parameters that come and go."""
    value = layers(trial)
    trial.set_constraint("c", value - 1)
    shift = trial.suggest_float("shift", 0, 1 + trial.number % 3)
    trial.report(value, 0)
    trial.report(value + shift, 1)
    if trial.number % 5 == 3:
        raise TrialPruned
    if trial.number % 7 == 4:
        raise ZeroDivisionError
    return math.inf if trial.number % 9 == 8 else value + shift


def test_what_is_kept_between_asks_changes_nothing():
    kept = BBMMSampler(seed=3, n_startup_trials=4)
    study = optuna.create_study(sampler=kept)
    phases = set()
    for _ in range(14):
        study.enqueue_trial({"kind": "net"}) if len(study.trials) == 9 else None
        trial = study.ask()
        frozen = study.trials[trial.number]
        fresh = BBMMSampler(seed=3, n_startup_trials=4)
        space = fresh.infer_relative_search_space(study, frozen)
        expected = fresh.sample_relative(study, frozen, space)
        study._storage.set_trial_system_attr(frozen._trial_id, "bbmmopt", {})
        assert kept.infer_relative_search_space(study, frozen) == space
        assert trial.relative_params == expected
        phases.add(study.trials[-1].system_attrs["bbmmopt"].get("origin", {}).get("phase"))
        try:
            study.tell(trial, with_all_that_can_happen(trial))
        except TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except ZeroDivisionError:
            study.tell(trial, state=TrialState.FAIL)
    assert {"space-filling", "model"} <= phases


def test_models_are_kept_from_ask_to_ask(monkeypatch):
    made = models_made(monkeypatch)
    study = run(bowl, 12)
    assert len(made) == 1
    study.optimize(bowl, n_trials=3)
    assert len(made) == 1


def assert_it_remembers_nothing_wrong(study: optuna.Study) -> None:
    """The next suggestion is that of a sampler which sees the study for the first time."""
    number = study.ask().number
    frozen = study.trials[number]
    suggested = []
    for sampler in (study.sampler, BBMMSampler(seed=0)):
        space = sampler.infer_relative_search_space(study, frozen)
        suggested.append(sampler.sample_relative(study, frozen, space))
        study._storage.set_trial_system_attr(frozen._trial_id, "bbmmopt", {})
    assert suggested[0] == suggested[1]


def test_one_sampler_serves_several_studies_of_a_storage():
    def hill(trial: optuna.Trial) -> float:
        return -bowl(trial)

    storage, sampler = optuna.storages.InMemoryStorage(), BBMMSampler(seed=0)
    one, two = (optuna.create_study(sampler=sampler, storage=storage) for _ in range(2))
    for _ in range(6):
        one.optimize(bowl, n_trials=1)
        two.optimize(hill, n_trials=1)
    assert_it_remembers_nothing_wrong(one)
    assert_it_remembers_nothing_wrong(two)


def test_a_trial_that_did_not_take_what_was_planned_for_it_is_where_it_is():
    study = run(bowl, 8)
    theirs = study.ask()
    theirs.suggest_float("x", -1, 2)  # which plans a rate as well
    assert study.trials[-1].system_attrs["bbmmopt"]["params"]["rate"] < 0.5
    study.optimize(bowl, n_trials=1)  # with the plan in mind
    theirs.suggest_float("rate", 0.5, 1, log=True)
    study.tell(theirs, 3.0)
    assert_it_remembers_nothing_wrong(study)


def test_trials_that_know_the_same_differ_by_their_numbers():
    study = run(bowl, 1)
    suggested = []
    for trial in (study.ask(), study.ask()):
        frozen = study.trials[trial.number]
        space = study.sampler.infer_relative_search_space(study, frozen)
        suggested.append(BBMMSampler(seed=0).sample_relative(study, frozen, space))
        study._storage.set_trial_system_attr(frozen._trial_id, "bbmmopt", {})
    assert suggested[0]["x"] != suggested[1]["x"]


# --------------------------------------------------------------------------------------
# Spaces
# --------------------------------------------------------------------------------------


def test_conditional_parameters_are_in_one_model():
    study = run(layers, 22)
    assert study.best_params["count"] == 3
    assert study.best_value < 0.01
    asked = []
    study.sampler.sample_independent = lambda *arguments: asked.append(arguments)
    study.optimize(layers, n_trials=5)
    assert asked == []
    predicted = origin(study.trials[-1])["model"]["trials"]
    assert predicted == 26  # trees and nets


def test_what_a_real_number_decides_is_chosen_by_a_model_of_the_trials_that_had_it():
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return 1 if x < 0.25 else (trial.suggest_float("y", 0, 1) - x) ** 2

    study = optuna.create_study(sampler=BBMMSampler(seed=0, acquisition="mean"))
    for k in range(20):
        study.enqueue_trial({"x": (k % 5) / 4, "y": (k // 5) / 3})
    for x in (0.4, 0.9, 0.6):
        study.enqueue_trial({"x": x})
    study.optimize(objective, n_trials=23)
    assert "y" not in study.trials[0].params
    for trial in study.trials[-3:]:  # the best y depends on x, which is given
        assert trial.params["y"] == pytest.approx(trial.params["x"], abs=0.1)


def test_a_range_that_moves_is_followed_with_the_trials_from_before():
    def objective(trial: optuna.Trial) -> float:
        low = 0.0 if trial.number < 12 else 2.0
        return (trial.suggest_float("x", low, low + 4) - 3) ** 2

    study = run(objective, 16)
    assert all(2 <= trial.params["x"] <= 6 for trial in study.trials[12:])
    assert origin(study.trials[14])["model"]["trials"] == 14
    assert study.best_value < 1e-3


def test_integers_beyond_all_lists_objects_and_steps_are_tuned():
    def objective(trial: optuna.Trial) -> float:
        n = trial.suggest_int("n", 1, 2**60, log=True)
        m = trial.suggest_int("m", -(2**59), 2**59)
        step = trial.suggest_float("step", 0, 0.5, step=0.1)
        choice = trial.suggest_categorical("choice", [None, True, "1", 1.5])
        assert isinstance(n, int)
        assert 1 <= n <= 2**60
        assert step in (0, 0.1, 0.2, 0.3, 0.4, 0.5)
        return abs(math.log2(n) - 40) + abs(m / 2**59) + abs(step - 0.3) + (choice is not True)

    study = run(objective, 22)
    assert study.best_value < 2.0  # the median of random points is 21
    assert study.best_params["choice"] is True


def test_a_space_that_is_used_up_is_gone_through_again_where_it_is_good():
    def objective(trial: optuna.Trial) -> float:
        return float(trial.suggest_int("x", 0, 4)) + trial.suggest_categorical("y", [0, 3])

    study = run(objective, 16)
    firsts = {tuple(point.values()) for point in points(study)[:10]}
    assert len(firsts) >= 9  # of ten: the first point was drawn without knowing the space
    assert np.mean([trial.value for trial in study.trials[11:]]) < 2.0  # of all points, 3.5


def test_values_that_do_not_vary_are_no_parameters():
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("one", 2, 2) + bowl(trial)

    study = run(objective, 8)
    assert set(study.trials[-1].system_attrs["bbmmopt"]["params"]) == {"x", "rate"}
    assert all(trial.params["one"] == 2 for trial in study.trials)


def test_a_parameter_that_nobody_had_yet_is_drawn_by_seed_and_number():
    first, second = (run(bowl, 1).trials[0].params for _ in range(2))
    assert first == second
    other = run(bowl, 1, sampler=BBMMSampler(seed=7)).trials[0].params
    assert other != first
