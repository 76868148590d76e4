"""Facts about the search within real tuners of Ray, on a cluster of this machine."""

import shutil
import signal
import tempfile
from collections.abc import Iterator

import psutil
import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from bbmmopt.integrations.ray import BBMMSearch
from bbmmopt.study import Study
from bbmmopt.trial import TrialState

pytestmark = pytest.mark.alone

SPACE = {"x": tune.uniform(0, 1), "opt": {"n": tune.randint(1, 4)}, "constant": "kept"}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two processors of this machine; nothing is sent elsewhere, and nothing left behind."""
    switches = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",  # or it writes a token into the home directory
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = tempfile.mkdtemp(prefix="ray")  # a short name: sockets are in there
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in switches.items():
            patch.setenv(name, value)
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=80_000_000,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    _, alive = psutil.wait_procs(
        set(psutil.Process().children(recursive=True)) - before, timeout=10
    )
    shutil.rmtree(folder)
    assert not alive


def tuner(trainable, search, folder, **options) -> tune.Tuner:
    """Without output."""
    return tune.Tuner(
        trainable,
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=search,
            reuse_actors=True,
            **options,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), name="run", verbose=0),
    )


def test_a_tuner_with_asha_tells_the_search_all_that_it_sees(tmp_path):
    def train(config):
        for epoch in range(1, 5):
            value = (config["x"] - 0.3) ** 2 + config["opt"]["n"] + 1 / epoch
            tune.report({"loss": value})

    search = BBMMSearch(seed=0, storage=tmp_path / "study.db")
    asha = ASHAScheduler(max_t=4, grace_period=1, reduction_factor=2)
    options = {"scheduler": asha, "num_samples": 6, "max_concurrent_trials": 1}
    results = tuner(train, search, tmp_path, **options).fit()
    assert not results.errors
    with Study.open(tmp_path / "study.db") as study:
        trials, curves = study.trials, study.curves
        assert study.settings["budget"] == 6
    assert len(trials) == len(results) == 6
    ends = {(r.config["x"], r.config["opt"]["n"]): r.metrics for r in results}
    for trial in trials:
        end = ends[trial.params["x"], trial.params["opt/n"]]
        epochs = end["training_iteration"]
        assert trial.state == (TrialState.COMPLETE if epochs == 4 else TrialState.PRUNED)
        assert curves[trial.number][epochs] == end["loss"]
        assert sorted(curves[trial.number]) == list(range(1, epochs + 1))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    best = results.get_best_result()
    assert best.config["constant"] == "kept"
    assert search.optimizer.best.values == {"loss": best.metrics["loss"]}
    search.optimizer.close()

    other = BBMMSearch(SPACE, "loss", "min", seed=0)
    other.add_evaluated_trials(results._experiment_analysis, "loss")
    learnt = other.optimizer.trials
    assert {(t.params["x"], t.params["opt/n"]): t.values["loss"] for t in learnt} == {
        key: end["loss"] for key, end in ends.items()
    }


def test_a_tuner_that_is_restored_goes_on_with_the_search_and_runs_again_what_failed(tmp_path):
    switch = tmp_path / "switch"

    def train(config):
        if config["x"] > 0.5 and not switch.exists():
            raise ValueError("out of memory")
        return {"loss": config["x"]}

    # By itself: a limiter of Ray's does not tell a search how a trial ended that is run again.
    search = BBMMSearch(seed=0, max_concurrent=2, storage=tmp_path / "study.db")
    first = tuner(train, search, tmp_path, num_samples=3).fit()
    search.optimizer.close()
    failed = {str(r.path) for r in first if r.error}
    assert 0 < len(failed) < 3
    switch.touch()
    restored = tune.Tuner.restore(str(tmp_path / "run"), train, restart_errored=True)
    results = restored.fit()
    assert not results.errors
    assert len(results) == 3
    with Study.open(tmp_path / "study.db") as study:
        trials = study.trials
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(t.params["x"] for t in complete) == sorted(r.config["x"] for r in results)
    assert [t.state for t in trials if t not in complete] == [TrialState.FAILED] * len(failed)
