"""Facts about what the search for Ray Tune learns of stopped trials and of points from elsewhere,
and how it goes on after a restart."""

import math
import textwrap

import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter

from bbmmopt.early_stopping import forecast
from bbmmopt.integrations.ray import BBMMSearch
from bbmmopt.optimizer import Optimizer
from bbmmopt.space import Real
from bbmmopt.study import Study
from bbmmopt.trial import TrialState
from tests.bbmmopt.programs import run_forked

SPACE = {"x": tune.uniform(-5, 10), "n": tune.randint(1, 9)}
EPOCHS = 4


def search(space=SPACE, **options) -> BBMMSearch:
    """Of one metric."""
    return BBMMSearch(space, "loss", "min", **({"seed": 0} | options))


def loss(config, epoch=math.inf):
    """A learning curve over SPACE."""
    return (config["x"] - 2) ** 2 + (config["n"] - 5) ** 2 + 8 / epoch


def shown(value, iteration):
    """A result as Ray shows it on the way."""
    return {"loss": value, "training_iteration": iteration, "done": False}


def last(value, iteration, done=True):
    """A result as Ray hands it over at the end."""
    return {"loss": value, "training_iteration": iteration, "done": done}


def train(of, trial_id, until=EPOCHS, stopped=True):
    """Suggest and train, stopped by a scheduler after `until` epochs, or returning by itself."""
    config = of.suggest(trial_id)
    for epoch in range(1, until + (not stopped)):
        of.on_trial_result(trial_id, shown(loss(config, epoch), epoch))
    of.on_trial_complete(trial_id, last(loss(config, until), until))
    return config


def run(of, n, first=0):
    """The configurations of n trials, some of them stopped early, one of them failed."""
    configs = []
    for k in range(first, first + n):
        if k % 5 == 3:
            configs.append(of.suggest(f"t{k}"))
            of.on_trial_complete(f"t{k}", error=True)
        else:
            configs.append(train(of, f"t{k}", EPOCHS if k % 3 else 1 + k % 2 * 2))
    return configs


# --------------------------------------------------------------------------------------
# Stopped early
# --------------------------------------------------------------------------------------


def test_a_trial_is_cut_short_where_another_was_let_go_on():
    ray = search()
    train(ray, "full")
    train(ray, "early", until=2)
    train(ray, "as long", until=EPOCHS)
    full, early, as_long = ray.optimizer.trials
    assert (full.state, as_long.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert early.state == TrialState.PRUNED
    assert early.reason == "Ray stopped it after training iteration 2"
    curve = {epoch: loss(early.params, epoch) for epoch in (1, 2)}
    assert ray.optimizer.curves[1] == pytest.approx(curve)


def test_the_model_learns_of_a_stopped_trial_what_it_would_have_ended_with():
    ray = search()
    for k in range(4):
        train(ray, f"full{k}")
    train(ray, "early", until=1)
    study = ray.optimizer
    finals = {k: study.trials[k].value for k in range(4)}
    expected = forecast(study.curves, finals, [4])[4]
    # All curves fall alike here, so what is forecast is what would have come.
    assert expected.value == pytest.approx(loss(study.trials[4].params, EPOCHS))
    plain = Optimizer(study.space, minimize="loss", seed=0)
    for k in range(5):
        trial = plain.ask()
        for epoch in range(1, (EPOCHS if k < 4 else 1) + 1):
            trial.report(epoch, loss(trial.params, epoch))
        plain.tell(trial, **({"value": finals[k]} if k < 4 else {"pruned": "early"}))
    assert ray.suggest("next") == plain.ask().params


def test_a_function_that_returns_by_itself_is_complete_however_short():
    ray = search()
    train(ray, "long", stopped=False)
    train(ray, "short", until=2, stopped=False)
    assert [t.state for t in ray.optimizer.trials] == [TrialState.COMPLETE] * 2


def test_the_first_trial_that_a_scheduler_stops_at_its_limit_is_complete():
    ray = search()
    ray.suggest("other")
    ray.on_trial_result("other", shown(3.0, EPOCHS - 1))
    train(ray, "full")
    assert ray.optimizer.trials[1].state == TrialState.COMPLETE


def test_a_trial_that_meets_the_criteria_of_the_experiment_is_complete():
    ray = BBMMSearch(seed=0)
    stop = {"eval": {"accuracy": 0.9}, "training_iteration": EPOCHS}
    assert ray.set_search_properties("loss", "min", SPACE, stop=stop)
    ray.suggest("a")
    ray.on_trial_result("a", shown(3.0, 3))
    for trial_id, accuracy in (("good", 0.95), ("bad", 0.5)):
        ray.suggest(trial_id)
        ray.on_trial_complete(trial_id, last(1.0, 2) | {"eval": {"accuracy": accuracy}})
    assert [t.state for t in ray.optimizer.trials[1:]] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_what_was_running_when_the_experiment_ended_is_cut_short():
    ray = search()
    ray.suggest("a")
    ray.on_trial_result("a", shown(3.0, 1))
    ray.on_trial_complete("a", last(3.0, 1, done=False))
    assert ray.optimizer.trials[0].state == TrialState.PRUNED


def test_a_paused_trial_that_is_given_up_ends_with_what_it_reported():
    ray = search()
    ray.suggest("paused")
    ray.on_trial_result("paused", shown(3.0, 2))
    ray.on_trial_complete("paused")
    trial = ray.optimizer.trials[0]
    assert (trial.state, trial.reason) == (
        TrialState.PRUNED,
        "Ray stopped it after training iteration 2",
    )
    assert ray.optimizer.curves == {0: {2: 3.0}}


def hyperband(of):
    """As HyperBandScheduler: trials are paused at 1 and at 3, and ended without a last result."""
    configs = {trial_id: of.suggest(trial_id) for trial_id in "abc"}
    for step, trial_ids, ended in ((1, "abc", "a"), (3, "bc", "bc")):
        for trial_id in trial_ids:
            of.on_trial_result(trial_id, shown(loss(configs[trial_id], step), step))
        for trial_id in ended:
            of.on_trial_complete(trial_id)


def test_what_was_paused_at_its_end_is_complete_where_the_end_is_known(caplog):
    ray = search(max_t=3)
    hyperband(ray)
    early, *ended = ray.optimizer.trials
    assert (early.state, early.reason) == (
        TrialState.PRUNED,
        "Ray stopped it after training iteration 1",
    )
    assert [trial.value for trial in ended] == [loss(trial.params, 3) for trial in ended]
    assert caplog.records == []


def test_where_the_end_is_not_known_all_that_were_paused_are_pruned_and_it_is_said_once(caplog):
    ray = search()
    hyperband(ray)
    assert [trial.state for trial in ray.optimizer.trials] == [TrialState.PRUNED] * 3
    assert [record.getMessage() for record in caplog.records if "paused" in record.msg] == [
        "Ray stopped trial 'a' while it was paused, as HyperBandScheduler does with its best ones "
        "too: all of them count as stopped early. Give BBMMSearch(max_t=…), that of the scheduler, "
        "and those which came to their end are complete."
    ]


@pytest.mark.parametrize("of", ["several metrics", "a constraint"])
def test_where_nothing_can_be_forecast_the_last_result_counts(of):
    if of == "several metrics":
        ray = BBMMSearch(SPACE, ["loss", "size"], ["min", "min"], seed=0)
    else:
        ray = search(constraints="size <= 3")
    ray.suggest("long")
    ray.on_trial_result("long", shown(3.0, 3) | {"size": 1})
    ray.suggest("early")
    ray.on_trial_complete("early", last(4.0, 1) | {"size": 2})
    ray.on_trial_complete("long")  # while it is paused
    for trial, value in zip(ray.optimizer.trials, (3.0, 4.0), strict=True):
        assert trial.state == TrialState.COMPLETE
        assert trial.values["loss"] == value


def test_a_stopped_trial_without_a_finite_value_has_failed():
    ray = search()
    ray.suggest("long")
    ray.on_trial_result("long", shown(3.0, 3))
    ray.suggest("early")
    ray.on_trial_complete("early", last(math.nan, 1))
    assert ray.optimizer.trials[1].state == TrialState.FAILED


# --------------------------------------------------------------------------------------
# Points from elsewhere
# --------------------------------------------------------------------------------------


def test_points_to_evaluate_come_first():
    points = [{"x": 1.0, "n": 3}, {"x": 2, "n": 4, "constant": "left out"}]
    ray = search(points_to_evaluate=points)
    assert [ray.suggest("a"), ray.suggest("b")] == [{"x": 1.0, "n": 3}, {"x": 2.0, "n": 4}]
    assert ray.suggest("c") not in points


def test_points_with_their_values_are_learnt_from_and_not_run():
    points = [{"x": float(k), "n": 1 + k} for k in range(6)]
    values = [loss(point) for point in points]
    ray = search(points_to_evaluate=points, evaluated_rewards=values)
    plain = Optimizer(ray.optimizer.space, minimize="loss", seed=0)
    for point, value in zip(points, values, strict=True):
        plain.add_trial(point, value)
    assert ray.suggest("a") == plain.ask().params


def test_points_are_added_once_to_a_study_that_is_opened_again(tmp_path):
    options = {"storage": tmp_path / "study.db", "points_to_evaluate": [{"x": 1.0, "n": 3}]}
    with search(**options).optimizer as first, search(**options).optimizer as second:
        assert len(first.trials) == len(second.trials) == 1


def test_evaluated_points_are_learnt_as_what_they_were():
    ray = search({"a": {"x": tune.uniform(0, 1)}, "q": tune.quniform(0, 1, 0.1)})
    ray.add_evaluated_point({"a": {"x": 0.5}, "q": 0.1 + 0.2}, 1.0)
    ray.add_evaluated_point({"a/x": 1.5, "q": 0.3}, 2.0)  # outside
    ray.add_evaluated_point({"a/x": 0.1, "q": 0.0}, 3.0, error=True)
    ray.add_evaluated_point({"a/x": 0.2, "q": 0.0}, math.nan)
    ray.add_evaluated_point({"a/x": 0.3, "q": 0.0}, 3.0, intermediate_values=[5.0, 3.0])
    ray.add_evaluated_point(
        {"a/x": 0.4, "q": 0.0}, 4.0, pruned=True, intermediate_values=[6.0, 4.0]
    )
    ray.add_evaluated_point({"a/x": 0.6, "q": 0.0}, 7.0, pruned=True)
    ray.add_evaluated_point({"a/x": 7.0, "q": 0.0}, 3.0, error=True)  # outside, without a value
    study = ray.optimizer
    assert [(str(t.state), t.value) for t in study.trials] == [
        *(("complete", 1.0), ("complete", 2.0), ("failed", None), ("failed", None)),
        *(("complete", 3.0), ("pruned", None), ("complete", 7.0)),
    ]
    assert study.trials[0].params == {"a/x": 0.5, "q": 0.3}
    assert study.curves == {4: {1: 5.0, 2: 3.0}, 5: {1: 6.0, 2: 4.0}}
    for bad, message in [({"q": 0.1}, "'a/x' is missing"), ({"a/x": 0.1, "q": 0.15}, "'q'")]:
        with pytest.raises(ValueError, match=message):
            ray.add_evaluated_point(bad, 1.0)
    with pytest.raises(TypeError, match="expected a configuration"):
        ray.add_evaluated_point([0.1, 0.2], 1.0)


def test_evaluated_points_of_several_metrics_are_told_by_name():
    ray = BBMMSearch(SPACE, ["loss", "size"], ["min", "max"], seed=0)
    ray.add_evaluated_point({"x": 1.0, "n": 1}, {"loss": 1.0, "size": 2.0})
    ray.add_evaluated_point({"x": 1.0, "n": 2}, 1.0)
    told, half = ray.optimizer.trials
    assert told.values == {"loss": 1.0, "size": 2.0}
    assert "no 'size'" in half.reason


# --------------------------------------------------------------------------------------
# Saved and restored
# --------------------------------------------------------------------------------------


def test_a_restored_search_goes_on_bit_for_bit(tmp_path):
    ray = search()
    run(ray, 8)
    ray.suggest("under way")
    ray.on_trial_result("under way", shown(9.0, 2))
    ray.save(str(tmp_path / "search.pkl"))
    other = BBMMSearch()
    other.restore(str(tmp_path / "search.pkl"))
    again = [t.to_json() for t in other.optimizer.trials]
    assert again == [t.to_json() for t in ray.optimizer.trials]
    assert other.optimizer.curves == ray.optimizer.curves
    assert (other.metric, other.mode) == ("loss", "min")
    rest = []
    for of in (ray, other):
        of.on_trial_complete("under way", last(8.0, 3))
        rest.append(run(of, 6, first=8))
    assert rest[0] == rest[1]
    states = [[(t.state, t.values) for t in of.optimizer.trials] for of in (ray, other)]
    assert states[0] == states[1]


def test_a_search_that_was_saved_before_it_began_begins_as_it_would_have(tmp_path):
    points = [{"x": 1.0, "n": 3}]
    ray = search(points_to_evaluate=points)
    ray.save_to_dir(str(tmp_path))
    other = search(seed=7)
    run(other, 2)
    other.restore_from_dir(str(tmp_path))
    assert run(ray, 7) == run(other, 7)
    assert other.optimizer.trials[0].params == points[0]


def test_through_a_limiter_ray_saves_and_restores_what_is_behind_it(tmp_path):
    ray = search()
    limited = ConcurrencyLimiter(ray, max_concurrent=2)
    config = limited.suggest("a")
    limited.on_trial_complete("a", last(loss(config), 1))
    limited.save(str(tmp_path / "search.pkl"))
    other = ConcurrencyLimiter(BBMMSearch(), max_concurrent=2)
    other.restore(str(tmp_path / "search.pkl"))
    assert limited.suggest("b") == other.suggest("b")


def test_a_restored_search_takes_the_same_space_from_its_tuner_again(tmp_path):
    ray = BBMMSearch(seed=0)
    ray.set_search_properties("loss", "min", SPACE)
    run(ray, 3)
    ray.save(str(tmp_path / "search.pkl"))
    other = BBMMSearch()
    other.restore(str(tmp_path / "search.pkl"))
    assert other.set_search_properties("loss", "min", SPACE)
    assert run(other, 4, first=3) == run(ray, 4, first=3)


def test_in_another_process_it_goes_on_with_the_same_objects_and_bits(tmp_path):
    ray = search({"x": tune.loguniform(1e-3, 1), "f": tune.choice([(1, 2), None, "a"])})
    for k in range(6):
        config = ray.suggest(f"t{k}")
        ray.on_trial_complete(f"t{k}", {"loss": config["x"] + (config["f"] is None)})
    ray.save(str(tmp_path / "search.pkl"))
    program = """
        from pathlib import Path
        from bbmmopt.integrations.ray import BBMMSearch

        search = BBMMSearch()
        search.restore("search.pkl")
        Path("next.txt").write_text(repr([search.suggest(f"n{k}") for k in range(4)]))
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    run_forked(tmp_path / "program.py", cwd=tmp_path)
    following = [ray.suggest(f"n{k}") for k in range(4)]
    assert (tmp_path / "next.txt").read_text() == repr(following)


def test_with_a_storage_it_goes_on_from_what_was_told_after_it_was_saved(tmp_path):
    """As after a crash of Ray: its checkpoint is older than the study."""
    path, kept = tmp_path / "study.db", str(tmp_path / "search.pkl")
    ray = search(storage=path)
    run(ray, 6)
    known = ray.suggest("known")
    ray.save(kept)
    ray.on_trial_complete("known", last(loss(known, EPOCHS), EPOCHS))
    lost = ray.suggest("lost")
    ray.optimizer.close()

    other = BBMMSearch()
    other.restore(kept)
    assert str(path) in other.optimizer.storage.address
    # Ray runs again what it knew of, and the first outcome stays.
    other.on_trial_complete("known", last(-1.0, EPOCHS))
    assert other.optimizer.trials[6].value == loss(known, EPOCHS)
    # What it did not know of is suggested again, under another name.
    assert other.suggest("new") == lost
    assert len(other.optimizer.trials) == 8
    assert other.suggest("newer") != lost
    with Study.open(path) as study:
        assert len(study.trials) == 9
    other.optimizer.close()


def test_what_ray_runs_again_is_not_handed_out_to_others(tmp_path):
    path, kept = tmp_path / "study.db", str(tmp_path / "search.pkl")
    ray = search(storage=path)
    first = ray.suggest("a")
    ray.save(kept)
    ray.optimizer.close()
    other = BBMMSearch()
    other.restore(kept)
    assert other.suggest("b") != first
    other.on_trial_complete("a", {"loss": 1.0})
    assert [t.state for t in other.optimizer.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    other.optimizer.close()


def test_the_study_is_there_for_plots_and_the_command_line(tmp_path):
    ray = search(storage=tmp_path / "study.db", study="tuning", n_start=4)
    run(ray, 5)
    ray.optimizer.close()
    with Study.open(tmp_path / "study.db", "tuning") as study:
        assert study.space.parameters["x"] == Real(-5.0, 10.0)
        assert [t.number for t in study.trials] == list(range(5))
        assert study.settings["n_start"] == 4
