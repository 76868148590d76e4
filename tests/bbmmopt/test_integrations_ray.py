"""Facts about the search algorithm for Ray Tune, driven as Ray drives it; no cluster is started.

The oracle for what it suggests is an Optimizer that was told the same.
"""

import copy
import logging
import math
import textwrap

import numpy as np
import pytest
import torch
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from bbmmopt.integrations.ray import BBMMSearch
from bbmmopt.optimizer import Optimizer
from bbmmopt.space import Categorical, Integer, Real, Space
from bbmmopt.storage import MemoryStorage
from bbmmopt.trial import TrialState
from tests.bbmmopt.programs import run as run_program

SPACE = {"x": tune.uniform(-5, 10), "n": tune.randint(1, 9)}
OURS = {"x": Real(-5, 10), "n": Integer(1, 8)}


def loss(config):
    """A bowl whose lowest point is x = 2, n = 5."""
    return (config["x"] - 2) ** 2 + (config["n"] - 5) ** 2


def search(**options) -> BBMMSearch:
    """Of one metric over SPACE."""
    return BBMMSearch(SPACE, "loss", "min", **({"seed": 0} | options))


def optimizer(**options) -> Optimizer:
    """The same without Ray."""
    return Optimizer(OURS, minimize="loss", **({"seed": 0} | options))


def step(of, trial_id, f=loss):
    """Suggest, evaluate, tell."""
    config = of.suggest(trial_id)
    of.on_trial_complete(trial_id, {"loss": f(config)})
    return config


def run(of, n, first=0):
    """The configurations of n steps."""
    return [step(of, f"t{k}") for k in range(first, first + n)]


def states(of):
    return [str(trial.state) for trial in of.optimizer.trials]


def result(value, iteration, done=True):
    """As Ray hands it over."""
    return {"loss": value, "training_iteration": iteration, "done": done, "config/x": 1.0}


# --------------------------------------------------------------------------------------
# Suggesting
# --------------------------------------------------------------------------------------


def test_it_suggests_what_an_optimizer_that_was_told_the_same_would():
    ray, plain = search(), optimizer()
    for k in range(9):
        trial = plain.ask()
        plain.tell(trial, loss(trial.params))
        assert step(ray, f"t{k}") == trial.params
    assert ray.optimizer.best.params == plain.best.params


def test_trials_under_way_are_taken_into_account():
    ray, plain = search(), optimizer()
    run(ray, 6)
    for _ in range(6):
        trial = plain.ask()
        plain.tell(trial, loss(trial.params))
    assert [ray.suggest(f"w{k}") for k in range(3)] == [plain.ask().params for _ in range(3)]


def test_space_metric_and_mode_come_from_the_tuner_if_they_were_not_given():
    ray, late = search(budget=30), BBMMSearch(seed=0)
    config = SPACE | {"data": "digits"}
    assert late.set_search_properties("loss", "min", config, num_samples=30, stop={})
    assert late.metric == "loss"
    assert late.mode == "min"
    assert late.optimizer.settings["budget"] == 30
    assert [{"data": "digits"} | c for c in run(ray, 7)] == run(late, 7)


def test_what_a_function_returns_without_a_name_is_optimised_too():
    ray = BBMMSearch(seed=0)
    assert ray.set_search_properties(None, "max", SPACE)
    ray.suggest("a")
    ray.on_trial_complete("a", {"_metric": 3.0})
    assert ray.optimizer.best.values == {"_metric": 3.0}
    assert ray.optimizer.problem.objectives[0].direction == "maximize"


def test_a_space_that_was_given_already_is_not_replaced():
    ray = search()
    assert not ray.set_search_properties(None, None, {"y": tune.uniform(0, 1)})
    assert not ray.set_search_properties(None, None, {"y": 3})
    assert ray.set_search_properties(None, None, SPACE | {"y": 3})  # the same, and a constant
    assert ray.suggest("a").keys() == {"x", "n", "y"}


def test_before_it_knows_what_to_do_it_says_what_is_missing():
    with pytest.raises(RuntimeError, match=r"does not know what to tune: give it a space"):
        BBMMSearch(metric="loss", mode="min").suggest("a")
    with pytest.raises(RuntimeError, match=r"does not know what to optimise: give metric and mode"):
        BBMMSearch(SPACE).suggest("a")
    half = BBMMSearch(SPACE, metric="loss")
    with pytest.raises(RuntimeError, match=r"give metric and mode"):
        half.add_evaluated_point({"x": 0.0, "n": 1}, 1.0)
    assert not half.set_search_properties(None, "min", {"k": 1})
    assert half.suggest("a").keys() == {"x", "n"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "a", "mode": "minimum"}, ValueError, "'min' or 'max'; got 'minimum'"),
        ({"metric": ["a", "b"], "mode": "min"}, ValueError, "a list as long"),
        ({"metric": ["a", "b"], "mode": ["min"]}, ValueError, "a list as long"),
        ({"metric": ["a", "b"], "mode": ["min", "obs"]}, ValueError, "got 'obs'"),
        ({"max_concurrent": 0}, ValueError, "max_concurrent must be a positive integer; got 0"),
        ({"max_t": 2.5}, ValueError, "max_t must be a positive integer; got 2.5"),
        ({"early_stopping": "median"}, TypeError, "takes no early_stopping=.*scheduler"),
        ({"minimize": "loss"}, TypeError, "takes no minimize=: metric= and mode="),
        (
            {"points_to_evaluate": [{"x": 1.0, "n": 1}], "evaluated_rewards": [1, 2]},
            ValueError,
            "a value for each of the 1 points_to_evaluate; got 2",
        ),
    ],
)
def test_bad_arguments_are_refused_at_the_door(options, error, message):
    with pytest.raises(error, match=message):
        BBMMSearch(SPACE, **options)


def test_what_does_not_fit_together_is_told_when_all_is_known():
    with pytest.raises(ValueError, match=r"metric is 'loss' here and 'error' in the tuner"):
        BBMMSearch(metric="loss").set_search_properties("error", "min", SPACE)
    with pytest.raises(ValueError, match=r"mode is 'min' here and 'max' in the tuner"):
        search().set_search_properties("loss", "max", {})
    with pytest.raises(ValueError, match=r"'x': 11.*outside"):
        search(points_to_evaluate=[{"x": 11, "n": 1}]).suggest("a")
    with pytest.raises(ValueError, match=r"parameter 'n' is missing"):
        search(points_to_evaluate=[{"x": 1}]).suggest("a")
    twice = search()
    twice.suggest("a")
    with pytest.raises(ValueError, match="trial 'a' was given a configuration already"):
        twice.suggest("a")


def test_a_finite_space_that_was_tried_is_finished():
    ray = BBMMSearch({"n": tune.randint(0, 3)}, "loss", "min", noise="none", seed=0)
    tried = [ray.suggest(f"t{k}")["n"] for k in range(3)]
    assert sorted(tried) == [0, 1, 2]
    assert ray.suggest("t3") == Searcher.FINISHED
    assert len(ray.optimizer.trials) == 3


def test_no_more_than_max_concurrent_trials_are_under_way():
    ray = search(max_concurrent=2)
    assert ray.suggest("a") and ray.suggest("b")
    assert ray.suggest("c") is None
    ray.on_trial_complete("a", error=True)
    assert ray.suggest("c")
    assert ray.suggest("d") is None


def test_a_limiter_goes_before_max_concurrent_and_holds_batches_together():
    ray = search(max_concurrent=1)
    limited = ConcurrencyLimiter(ray, max_concurrent=2, batch=True)
    a, b = limited.suggest("a"), limited.suggest("b")
    assert limited.suggest("c") is None
    limited.on_trial_complete("a", {"loss": loss(a)})
    assert states(ray) == ["running", "running"]
    limited.on_trial_complete("b", {"loss": loss(b)})
    assert states(ray) == ["complete", "complete"]
    assert limited.suggest("c")


def test_who_runs_a_trial_is_a_lane_that_becomes_free():
    ray = search()
    for trial_id in "abc":
        ray.suggest(trial_id)
    ray.on_trial_complete("b", {"loss": 1.0})
    ray.suggest("d")
    lanes = [trial.worker.rsplit("-", 1)[1] for trial in ray.optimizer.trials]
    assert lanes == ["0", "1", "2", "1"]


# --------------------------------------------------------------------------------------
# Learning
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"result": {"loss": math.nan}}, "objective 'loss' is nan"),
        ({"result": {"loss": math.inf}}, "objective 'loss' is inf"),
        ({"result": {"loss": -math.inf}}, "better than anything can be"),
        ({"result": {"loss": "low"}}, "'loss' must be a number"),
        ({"result": {"loss": None}}, "its result has no 'loss'"),
        ({"result": {"other": 1.0}}, "its result has no 'loss'"),
        ({"result": None}, "it ended without a result"),
        ({"error": True}, "it raised an error in Ray"),
        ({"result": {"loss": 1.0}, "error": True}, "it raised an error in Ray"),
    ],
)
def test_a_trial_without_a_value_has_failed_and_the_search_goes_on(outcome, reason):
    ray, plain = search(n_start=3), optimizer(n_start=3)
    for k in range(5):
        config, trial = ray.suggest(f"t{k}"), plain.ask()
        if k in (1, 4):
            ray.on_trial_complete(f"t{k}", **outcome)
            plain.tell(trial, failed="for some reason")
        else:
            ray.on_trial_complete(f"t{k}", {"loss": loss(config)})
            plain.tell(trial, loss(trial.params))
    assert ray.suggest("last") == plain.ask().params
    assert ray.optimizer.trials[1].state == TrialState.FAILED
    assert reason in ray.optimizer.trials[1].reason


def test_numbers_of_numpy_and_torch_are_numbers():
    ray = search()
    for k, value in enumerate([np.float32(0.5), torch.tensor(0.5), np.array([0.5]), 1]):
        ray.suggest(f"t{k}")
        ray.on_trial_complete(f"t{k}", {"loss": value})
    assert [trial.value for trial in ray.optimizer.trials] == [0.5, 0.5, 0.5, 1.0]


def test_metrics_and_results_may_be_nested():
    ray = BBMMSearch(SPACE, "eval/loss", "min", seed=0)
    ray.suggest("a")
    ray.on_trial_complete("a", {"eval": {"loss": 2.0}})
    ray.suggest("b")
    ray.on_trial_complete("b", {"eval/loss": 1.0})
    assert [trial.value for trial in ray.optimizer.trials] == [2.0, 1.0]


def test_results_that_nobody_waits_for_change_nothing(caplog):
    ray, plain = search(), search()
    for k in range(7):
        trial_id, config = f"t{k}", ray.suggest(f"t{k}")
        assert config == plain.suggest(trial_id)
        ray.on_trial_result("unknown", result(1.0, 1))
        ray.on_trial_complete("unknown", result(1.0, 1))
        for of in (ray, plain):
            of.on_trial_complete(trial_id, {"loss": loss(config)})
        ray.on_trial_complete(trial_id, {"loss": 77.0})
        ray.on_trial_complete(trial_id, error=True)
        ray.on_trial_result(trial_id, result(-50.0, 3))
    assert [t.value for t in ray.optimizer.trials] == [t.value for t in plain.optimizer.trials]
    assert ray.optimizer.curves == {}
    texts = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert {
        "the end of trial 't0' is left out: it has ended already, as complete",
        "the end of trial 't0' is left out: it raised an error in Ray",
        "a result of trial 't0', which has ended, is left out.",
    } < texts
    assert any(
        text.startswith("the end of trial 'unknown' is left out") and "'n' is missing" in text
        for text in texts
    )


def test_many_reports_on_the_way_are_a_curve_and_change_no_suggestion():
    ray, plain = search(), search()
    for k in range(7):
        config = ray.suggest(f"t{k}")
        assert config == plain.suggest(f"t{k}")
        for iteration in (1, 2, 2, 3):
            ray.on_trial_result(f"t{k}", result(loss(config) + 1 / iteration, iteration))
        ray.on_trial_result(f"t{k}", {"training_iteration": 4})
        ray.on_trial_result(f"t{k}", {"loss": "low", "training_iteration": 4})
        ray.on_trial_result(f"t{k}", {"loss": 3.0})
        for of in (ray, plain):
            of.on_trial_complete(f"t{k}", result(loss(config), 5))
    curve = ray.optimizer.curves[0]
    first = ray.optimizer.trials[0]
    assert first.value is not None
    assert curve == pytest.approx({i: first.value + 1 / i for i in (1, 2, 3)} | {5: first.value})


def test_a_trial_that_failed_and_is_run_again_counts_as_another():
    ray = search()
    config = ray.suggest("a")
    ray.on_trial_complete("a", error=True)
    for _ in range(2):
        ray.on_trial_complete("a", {"loss": 0.5})
    failed, mended = ray.optimizer.trials
    assert failed.state == TrialState.FAILED
    assert (mended.params, mended.value) == (config, 0.5)


def test_a_trial_that_was_not_suggested_is_learnt_from_if_it_tells_its_configuration():
    """So Ray begins trials again that failed: under new names."""
    ray = BBMMSearch({"a": {"x": tune.uniform(0, 1)}, "k": 3}, "loss", "min", seed=0)
    there = {"config/a/x": 0.25, "config/k": 3, "done": True}
    for _ in range(2):
        ray.on_trial_result("new", there | {"loss": 0.7, "training_iteration": 1, "done": False})
        ray.on_trial_complete("new", there | {"loss": 0.5, "training_iteration": 2})
    ray.on_trial_complete("other", there | {"loss": 0.75, "training_iteration": 1})
    new, other = ray.optimizer.trials
    assert (new.params, new.value) == ({"a/x": 0.25}, 0.5)
    assert other.state == TrialState.PRUNED
    assert ray.optimizer.curves == {0: {2: 0.5}, 1: {1: 0.75}}


# --------------------------------------------------------------------------------------
# Several metrics, constraints
# --------------------------------------------------------------------------------------


def test_several_metrics_are_several_objectives():
    ray = BBMMSearch(SPACE, ["loss", "speed"], ["min", "max"], seed=0)
    plain = Optimizer(OURS, minimize="loss", maximize="speed", seed=0)
    for k in range(7):
        config, trial = ray.suggest(f"t{k}"), plain.ask()
        assert config == trial.params
        told = {"loss": loss(config), "speed": config["n"]}
        ray.on_trial_result(f"t{k}", told | {"training_iteration": 1})
        ray.on_trial_complete(f"t{k}", told)
        plain.tell(trial, told)
    assert [t.params for t in ray.optimizer.pareto_front] == [t.params for t in plain.pareto_front]
    ray.suggest("half")
    ray.on_trial_complete("half", {"loss": 1.0})
    assert "no 'speed'" in ray.optimizer.trials[-1].reason


def test_constraints_are_other_numbers_in_the_results():
    ray = search(constraints="latency <= 2")
    plain = optimizer(constraints="latency <= 2")
    for k in range(7):
        config, trial = ray.suggest(f"t{k}"), plain.ask()
        assert config == trial.params
        told = {"loss": loss(config), "latency": config["n"] / 2}
        ray.on_trial_complete(f"t{k}", told)
        plain.tell(trial, told)
    assert ray.optimizer.best.params == plain.best.params
    assert ray.optimizer.best.constraints["latency"] <= 2


def test_a_conditional_space_of_ours_is_suggested_as_configurations():
    space = Space(
        {
            "opt/kind": Categorical(["sgd", "adam"]),
            "opt/momentum": Real(0, 1, when={"opt/kind": "sgd"}),
        }
    )
    ray = BBMMSearch(space, "loss", "min", seed=0)
    configs = [step(ray, f"t{k}", lambda config: len(config["opt"])) for k in range(8)]
    assert {config["opt"]["kind"] for config in configs} == {"sgd", "adam"}
    for config in configs:
        assert ("momentum" in config["opt"]) == (config["opt"]["kind"] == "sgd")


# --------------------------------------------------------------------------------------
# Without Ray, and copies
# --------------------------------------------------------------------------------------


def test_without_ray_it_is_said_what_to_install(tmp_path):
    code = """
        import sys
        sys.modules["ray"] = None
        try:
            import bbmmopt.integrations.ray
        except ImportError as error:
            print(error, "torch" in sys.modules)
    """
    said = run_program("-c", textwrap.dedent(code), cwd=tmp_path)
    assert "needs Ray Tune, which is not there" in said
    assert said.endswith("pip install 'bbmmopt[ray]'. False\n")


def test_a_copy_goes_its_own_way():
    ray = search(storage=MemoryStorage())
    run(ray, 3)
    other = copy.deepcopy(ray)
    assert run(ray, 4, first=3) == run(other, 4, first=3)
    ray.suggest("one more")
    assert len(other.optimizer.trials) == 7
