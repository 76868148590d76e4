"""Facts about trials that are stopped early: by which setting, and what the model makes of them."""

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbmmopt.early_stopping import Hyperband, MedianStop, SuccessiveHalving, forecast
from bbmmopt.execution import minimize
from bbmmopt.optimizer import Optimizer, StudyDiffers
from bbmmopt.space import Real
from bbmmopt.trial import TrialState
from tests.bbmmopt.loops import PLANE

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")

ROOT = Path(__file__).resolve().parents[2]
LINE = {"x": Real(0, 1)}
EPOCHS = 6


def curve(x, epoch):
    """A loss that ends, after EPOCHS, a little above (x - 0.3)²."""
    return (x - 0.3) ** 2 + math.exp(-epoch)


def line(storage=None, **options) -> Optimizer:
    """An Optimizer of one objective, loss, over LINE."""
    return Optimizer(LINE, minimize="loss", storage=storage, **({"seed": 0} | options))


def train(optimizer):
    """Ask, report after every epoch, tell."""
    trial = optimizer.ask()
    for epoch in range(1, EPOCHS + 1):
        trial.report(epoch, curve(trial.params["x"], epoch))
        if epoch < EPOCHS and trial.should_stop():
            return optimizer.tell(trial, pruned=optimizer.should_stop(trial))
    return optimizer.tell(trial, curve(trial.params["x"], EPOCHS))


# --------------------------------------------------------------------------------------
# The setting
# --------------------------------------------------------------------------------------


def test_the_rule_is_stored_and_goes_on_when_the_study_is_opened_by_name(tmp_path):
    rule = SuccessiveHalving(min_steps=2, reduction=3)
    with line(tmp_path / "study.db", early_stopping=rule) as optimizer:
        assert optimizer.settings["early_stopping"] == rule.to_json()
        for k, loss in enumerate([0.5, 0.4, 0.3]):
            optimizer.enqueue({"x": k / 2})
            optimizer.ask().report(2, loss)
    with Optimizer.open(tmp_path / "study.db") as optimizer:
        optimizer.report(0, 2, 0.5)
        assert optimizer.should_stop(0) == rule.stops(
            {0: {2: -0.5}, 1: {2: -0.4}, 2: {2: -0.3}}, 0, seed=0, sign=-1.0
        )
        assert optimizer.should_stop(2) is None


def test_a_study_has_one_rule_all_along(tmp_path):
    path = tmp_path / "study.db"
    line(path, early_stopping="median").close()
    line(path, early_stopping=MedianStop()).close()
    line(path).close()  # left out, it keeps its own
    with pytest.raises(
        StudyDiffers, match=r"early_stopping: was .*'median'.* and is now .*halving"
    ):
        line(path, early_stopping="halving")
    line(tmp_path / "other.db").close()
    with pytest.raises(StudyDiffers, match="early_stopping: was None and is now"):
        line(tmp_path / "other.db", early_stopping="median")


def test_a_study_without_a_rule_stops_no_trial_and_stores_none():
    optimizer = line()
    assert "early_stopping" not in optimizer.settings
    for loss in [1.0, 2.0, 3.0]:
        trial = optimizer.ask()
        trial.report(1, loss)
        assert not trial.should_stop()
        assert optimizer.should_stop(trial) is None


def test_of_several_objectives_no_trial_can_be_behind_in_all():
    with pytest.raises(ValueError, match=r"for one objective: of 2, .* best trade-off.*pruned="):
        Optimizer(PLANE, minimize=["f", "g"], early_stopping="median")


def test_a_wrong_rule_is_refused_before_anything_is_stored(tmp_path):
    with pytest.raises(ValueError, match="one of median, percentile, halving, hyperband"):
        line(tmp_path / "study.db", early_stopping="medain")
    assert not (tmp_path / "study.db").exists()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_rule_knows_which_way_is_better(direction):
    optimizer = Optimizer(
        LINE, **{direction: "score"}, seed=0, early_stopping=MedianStop(start_trials=3)
    )
    trials = optimizer.ask(5)
    for trial, value in zip(trials, [1.0, 2.0, 3.0, 4.0, 5.0], strict=True):
        trial.report(0, value)
    stopped = [trial.number for trial in trials if trial.should_stop()]
    assert stopped == ([3, 4] if direction == "minimize" else [0, 1])
    assert (
        "its best is 4, worse than 2.5" in str(optimizer.should_stop(3)) or direction != "minimize"
    )


def test_a_report_after_the_end_of_a_trial_is_kept_and_changes_no_outcome():
    optimizer = line(early_stopping=MedianStop(start_trials=1))
    trial = optimizer.ask()
    optimizer.tell(trial, pruned="enough")
    trial.report(7, 0.5)
    assert optimizer.curves[0] == {7: 0.5}
    assert optimizer.trials[0].state == TrialState.PRUNED
    assert trial.should_stop()


def test_minimize_takes_a_rule(tmp_path):
    minimize(
        lambda x: x,
        LINE,
        n_trials=1,
        storage=tmp_path / "study.db",
        progress=False,
        early_stopping=Hyperband(1, 9),
    )
    with Optimizer.open(tmp_path / "study.db") as optimizer:
        assert optimizer.settings["early_stopping"] == Hyperband(1, 9).to_json()


# --------------------------------------------------------------------------------------
# Across processes, and again
# --------------------------------------------------------------------------------------

WORKER = """
import sys
from bbmmopt import Study
with Study.open(sys.argv[1]) as study:
    for number in range(5):
        for step in range(1, 4):
            study.report(number, step, 0.1 * number)
"""


def test_what_one_process_reports_stops_a_trial_of_another(tmp_path):
    path = tmp_path / "study.db"
    with line(path, early_stopping="median") as optimizer:
        *_, mine = optimizer.ask(6)
        mine.report(1, 0.25)
        assert not mine.should_stop()
        subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(WORKER), str(path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
            timeout=120,
        )
        assert mine.should_stop()
        assert optimizer.should_stop(mine) == (
            "at step 1 its best is 0.25, worse than 0.2, the median of the running averages of 5 "
            "other trials"
        )


def test_a_run_with_stopped_trials_goes_on_bit_by_bit_when_it_is_opened_again(tmp_path):
    options = {"early_stopping": SuccessiveHalving(min_steps=1, reduction=2), "n_start": 5}
    whole, n = line(**options), 14
    expected = [train(whole) for _ in range(n)]
    states = [trial.state for trial in expected]
    assert TrialState.PRUNED in states[:-4] and TrialState.PRUNED in states[5:]
    found = []
    for _ in range(n):
        with line(tmp_path / "study.db", **options) as optimizer:
            found.append(train(optimizer))
    for a, b in zip(found, expected, strict=True):
        assert (a.params, a.state, a.reason, a.origin) == (b.params, b.state, b.reason, b.origin)


# --------------------------------------------------------------------------------------
# What the model makes of them
# --------------------------------------------------------------------------------------


def test_the_best_trial_was_never_stopped_however_good_its_reports():
    optimizer = line()
    for loss in [0.5, 0.4]:
        optimizer.tell(optimizer.ask(), loss)
    trial = optimizer.ask()
    trial.report(1, 0.01)
    optimizer.tell(trial, pruned="no time left")
    assert optimizer.best.number == 1


def test_explain_says_why_a_trial_was_stopped_and_what_the_model_made_of_it():
    optimizer = line(n_start=3)
    for k in range(4):
        trial = optimizer.ask()
        trial.report(1, 1.0 + k)
        optimizer.tell(trial, k / 10)
    trial = optimizer.ask()
    trial.report(1, 9.0)
    optimizer.tell(trial, pruned="at step 1 it was hopeless")
    assert optimizer.explain(trial).endswith("It was stopped early: at step 1 it was hopeless.")
    text = optimizer.explain(optimizer.ask())
    assert "saw 4 complete, 1 that were stopped early, whose ends were forecast, 0 pending" in text
    assert "stopped early" not in optimizer.explain(0)


def told(optimizer):
    """What the first objective's model would learn from."""
    return optimizer.beliefs().first.data


def test_the_model_learns_the_forecast_end_of_a_stopped_trial():
    optimizer = Optimizer(LINE, maximize="score", seed=0)
    trials = optimizer.ask(5)
    for trial, early, late in zip(trials, [1.0, 2.0, 3.0], [5.0, 5.0, 9.0], strict=False):
        trial.report(2, early)
        optimizer.tell(trial, late)
    trials[3].report(1, 8.0)
    trials[3].report(2, 0.5)
    optimizer.tell(trials[3], pruned="slow")
    data = told(optimizer)
    assert data.y.tolist() == [5.0, 5.0, 9.0, 0.5 + median([4.0, 3.0, 6.0])]
    assert (data.stopped, len(data.pending), len(data.failed)) == (1, 1, 0)
    np.testing.assert_array_equal(data.X[3], [trials[3].params["x"]])


def test_a_stopped_trial_that_reported_nothing_is_not_proposed_nor_gone_near_again():
    optimizer = line()
    for loss in [0.5, 0.4]:
        optimizer.tell(optimizer.ask(), loss)
    stopped = optimizer.ask()
    optimizer.tell(stopped, pruned="no idea")
    data = told(optimizer)
    assert (len(data.y), data.stopped) == (2, 0)
    np.testing.assert_array_equal(data.failed, [[stopped.params["x"]]])
    belief = optimizer.beliefs().first
    std = [
        float(p.marginals(belief.posterior.X.new_tensor(data.failed))[1])
        for p in (belief.posterior, belief.settled)
    ]
    assert std[1] < 0.1 * std[0]
    # Nobody said that it failed.
    assert optimizer.beliefs().success is None


@pytest.mark.parametrize("options", [{"constraints": "c"}, {"minimize": ["f", "g"]}])
def test_where_other_outcomes_are_missing_a_stopped_trial_is_only_kept_away_from(options):
    optimizer = Optimizer(PLANE, **({"minimize": "f"} | options), seed=0, n_start=3)
    names = [*optimizer.problem.names, *(c.name for c in optimizer.problem.constraints)]
    for k in range(4):
        optimizer.tell(optimizer.ask(), {name: float(k) for name in names})
    trial = optimizer.ask()
    trial.report(1, 3.0)
    optimizer.tell(trial, pruned="slow")
    data = told(optimizer)
    assert (len(data.y), len(data.failed), data.stopped) == (4, 1, 0)
    assert optimizer.ask().params != trial.params


@pytest.mark.parametrize("strategy", ["trust_region", "portfolio"])
def test_strategies_that_look_at_the_past_take_stopped_trials(strategy):
    rule = SuccessiveHalving(min_steps=1, reduction=2)
    optimizer = line(strategy=strategy, n_start=4, early_stopping=rule)
    states = {train(optimizer).state for _ in range(12)}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}


def test_suggestions_stay_away_from_where_trials_are_stopped():
    # Half the space is cut off at the first report: without a lesson, that half stays unknown,
    # and expected improvement keeps going there.
    optimizer = line(n_start=4)
    stopped = 0
    for _ in range(24):
        trial = optimizer.ask()
        x = trial.params["x"]
        trial.report(1, (x - 0.3) ** 2 + 1.0 + (x > 0.5))
        if x > 0.5:
            stopped += 1
            optimizer.tell(trial, pruned="over there")
        else:
            trial.report(2, (x - 0.3) ** 2)
            optimizer.tell(trial, (x - 0.3) ** 2)
    assert stopped <= 6
    assert optimizer.best.params["x"] == pytest.approx(0.3, abs=0.02)


@given(
    curves=st.dictionaries(
        st.integers(0, 9),
        st.dictionaries(st.integers(0, 3), st.floats(allow_nan=True), max_size=4),
        max_size=10,
    ),
    finals=st.dictionaries(st.integers(0, 4), st.floats(-1e6, 1e6), max_size=5),
)
def test_a_forecast_is_finite_and_shifts_the_last_report_by_what_others_gained(curves, finals):
    found = forecast(curves, finals, range(5, 10))
    for number in range(5, 10):
        steps = [s for s, v in curves.get(number, {}).items() if math.isfinite(v)]
        if not steps:
            assert number not in found
            continue
        last = curves[number][max(steps)]
        before = {
            k: [v for s, v in sorted(c.items()) if s <= max(steps) and math.isfinite(v)]
            for k, c in curves.items()
        }
        gains = [final - before[k][-1] for k, final in finals.items() if before.get(k)]
        gains = [gain for gain in gains if math.isfinite(gain)]
        value = last + (median(gains) if gains else 0.0)
        assert math.isfinite(found[number].value)
        assert found[number].value == (value if math.isfinite(value) else last)


def test_the_error_of_a_forecast_is_the_spread_of_what_others_gained():
    draws = np.random.default_rng(0)
    gains = draws.normal(-2.0, 0.3, 4000)
    curves = {k: {5: 1.0} for k in range(4000)} | {9999: {1: 7.0, 5: 3.0}}
    found = forecast(curves, {k: 1.0 + gains[k] for k in range(4000)}, [9999])[9999]
    assert found.value == pytest.approx(3.0 + np.median(gains), abs=1e-12)
    assert found.error == pytest.approx(0.3, rel=0.05)
    few = forecast(curves, {0: 0.0, 1: 0.5}, [9999])[9999]
    assert few.error is None  # of two trials that says nothing


def test_the_model_takes_a_forecast_for_as_good_as_its_error():
    optimizer = line()
    trials = optimizer.ask(5)
    for trial, loss in zip(trials, [0.1, 0.3, 0.2], strict=False):
        trial.report(1, 1.0)
        optimizer.tell(trial, (loss, 0.01))
    trials[3].report(1, 1.5)
    optimizer.tell(trials[3], pruned="slow")
    np.testing.assert_allclose(told(optimizer).errors, [0.01, 0.01, 0.01, 0.14826], rtol=1e-12)


def test_the_origin_of_a_suggestion_stays_json():
    optimizer = line(n_start=3, early_stopping=SuccessiveHalving(1, 2))
    for _ in range(8):
        json.dumps(train(optimizer).origin, allow_nan=False)
