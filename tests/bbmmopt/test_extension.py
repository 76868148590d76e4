"""Facts about a study that goes on with another problem: what its old trials are worth then."""

import math

import numpy as np
import pytest

from bbmmopt import (
    Categorical,
    Integer,
    OldTrialsWarning,
    Optimizer,
    Real,
    Simplex,
    Space,
)
from bbmmopt.strategies import building
from bbmmopt.strategies.fantasies import imagine
from tests.bbmmopt import extensions
from tests.bbmmopt.extensions import PLANE, POINTS, extended, parabola, spread, told

# --------------------------------------------------------------------------------------
# What old trials are to the model
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [(-1.0, 9.0), (0.4, 0.6)], ids=["widened", "narrowed"])
def test_after_other_bounds_the_model_trains_on_exactly_the_old_raw_data(to):
    study = told(PLANE, POINTS, parabola)
    optimizer = extended(study, {"x": Real(*to), "y": Real(-1, 1)})
    data = optimizer.belief().data
    low, high = to
    expected = [[(p["x"] - low) / (high - low), (p["y"] + 1) / 2] for p in POINTS]
    np.testing.assert_allclose(data.X, expected, rtol=1e-12)
    assert data.y.tolist() == [-parabola(**p) for p in POINTS]
    assert [t.params for t in optimizer.trials] == POINTS


def test_what_is_expected_at_old_points_stays_what_was_told_there():
    def wave(x, y):
        return math.sin(3 * x) + 0.3 * y

    study = told(PLANE, POINTS, wave, noise="none")
    optimizer = extended(study, {"x": Real(-2, 5), "y": Real(-3, 3)}, noise="none")
    belief = optimizer.belief()
    expected, _ = belief.predict(optimizer.space.encode_many(POINTS))
    np.testing.assert_allclose(-expected, [wave(**p) for p in POINTS], atol=1e-3)


def test_between_log_and_linear_old_values_are_encoded_anew():
    points = [{"x": x} for x in (0.1, 1.0, 2.5, 10.0)]
    study = told({"x": Real(0.1, 10)}, points, parabola)
    rows = extended(study, {"x": Real(0.1, 10, log=True)}).belief().data.X[:, 0]
    np.testing.assert_allclose(rows, [(math.log10(p["x"]) + 1) / 2 for p in points], rtol=1e-12)


def test_integers_that_new_steps_skip_lie_between_them():
    points = [{"n": n} for n in (0, 1, 2, 3, 6)]
    study = told({"n": Integer(0, 6)}, points, lambda n: float(n))
    rows = extended(study, {"n": Integer(0, 6, step=3)}).belief().data.X[:, 0]
    np.testing.assert_allclose(rows, [(p["n"] / 3 + 0.5) / 3 for p in points], rtol=1e-12)


def test_an_optimum_outside_the_first_bounds_is_found_once_they_are_widened():
    optimizer = Optimizer({"x": Real(0, 1), "y": Real(-1, 1)}, minimize="f", seed=0, n_start=4)
    for _ in range(14):
        trial = optimizer.ask()
        optimizer.tell(trial, parabola(**trial.params))
    assert (optimizer.best.value or 0.0) >= 4.0  # that of x = 1
    wider = extended(optimizer, {"x": Real(0, 6), "y": Real(-1, 1)})
    for _ in range(10):
        trial = wider.ask()
        assert trial.origin["phase"] == "model"
        wider.tell(trial, parabola(**trial.params))
    assert wider.best.value == pytest.approx(0.0, abs=0.01)
    assert wider.recommend().params["x"] == pytest.approx(3.0, abs=0.1)


def test_a_new_choice_is_tried_and_trials_of_one_that_is_gone_stay_listed():
    points = [{"x": x, "k": k} for x in (0.1, 0.5, 0.9) for k in "abc"]
    study = told(
        {"x": Real(0, 1), "k": Categorical(["a", "b", "c"])},
        points,
        lambda x, k: x + (0.0 if k == "a" else 1.0),
    )
    with pytest.warns(OldTrialsWarning, match=r"3 of 9 trials .* 3 as 'k' was 'a'") as caught:
        optimizer = extended(study, {"x": Real(0, 1), "k": Categorical(["d", "c", "b"])})
    assert caught[0].filename == extensions.__file__
    rows = optimizer.belief().data.X
    places = {"c": 3 / 6, "b": 5 / 6}
    kept = [p for p in points if p["k"] != "a"]
    np.testing.assert_allclose(rows, [[p["x"], places[p["k"]]] for p in kept])
    assert len(optimizer.trials) == 9
    assert optimizer.best.params == {"x": 0.1, "k": "a"}  # data is data
    assert optimizer.recommend().params["k"] in "bcd"
    tried = set()
    for _ in range(6):
        trial = optimizer.ask()
        tried.add(trial.params["k"])
        optimizer.tell(trial, trial.params["x"] + 1.0)
    assert "d" in tried <= set("bcd")


def test_a_parameter_that_is_added_had_its_former_value_and_without_one_trials_are_left_out():
    study = told(PLANE, POINTS, parabola)
    space = PLANE | {"z": Real(0, 2)}
    with pytest.warns(OldTrialsWarning, match=r"12 of 12 trials .*'z'.*former="):
        blind = extended(study, space)
    assert len(blind.belief().data.y) == 0
    assert blind.ask().origin["phase"] == "space-filling"
    optimizer = extended(study, space, former={"z": 3.0})  # outside: it was not tuned then
    data = optimizer.belief().data
    assert len(data.y) == 12
    assert set(data.X[:, 2]) == {1.5}
    assert "z" not in optimizer.trials[0].params


def test_a_parameter_that_is_fixed_is_learnt_from_at_its_other_values():
    study = told(PLANE, POINTS, parabola)
    fixed = {"x": Real(0, 1), "y": Real(1 / 3, 1 / 3)}  # more digits than values handed out have
    optimizer = extended(study, fixed)
    data = optimizer.belief().data
    np.testing.assert_allclose(data.X, [[p["x"], (p["y"] + 1) / 2] for p in POINTS])
    for _ in range(5):
        trial = optimizer.ask()
        assert trial.params["y"] == 1 / 3
        optimizer.tell(trial, parabola(**trial.params))
    assert len({t.params["x"] for t in optimizer.trials}) == 17
    held = optimizer.belief().data.X[12:, 1]
    np.testing.assert_allclose(held, 2 / 3, rtol=1e-11)
    assert len(set(held)) == 1
    assert optimizer.recommend().params["y"] == 1 / 3
    assert optimizer.remaining_improvement() < 1.0
    with pytest.raises(ValueError, match=r"'y'.*outside"):
        optimizer.enqueue({"x": 0.5, "y": 0.5})
    # And let go again: the trials of all times are one set of data.
    free = extended(optimizer, PLANE)
    assert len(free.belief().data.y) == 17
    assert free.former.held == {}


def test_a_choice_that_is_fixed_holds_suggestions_and_not_the_data():
    points = [{"x": x, "k": k} for x in (0.1, 0.5, 0.9) for k in "ab"]
    space = {"x": Real(0, 1), "k": Categorical(["a", "b"])}
    study = told(space, points, lambda x, k: (x - 0.3) ** 2 + (k == "b"))
    optimizer = extended(study, {"x": Real(0, 1), "k": Categorical(["b"])})
    assert optimizer.belief().data.X[:, 1].tolist() == [0.25, 0.75] * 3
    for _ in range(3):
        trial = optimizer.ask()
        assert trial.params["k"] == "b"
        optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2 + 1.0)


def test_of_a_parameter_that_is_gone_trials_at_its_former_value_count():
    points = [{"x": x, "y": y} for x in (0.0, 0.5, 1.0) for y in (0.0, 1.0)]
    study = told(PLANE, points, parabola)
    with pytest.warns(OldTrialsWarning, match=r"3 of 6 trials .*'y'.* was not 0.0"):
        optimizer = extended(study, {"x": Real(0, 1)}, former={"y": 0.0})
    data = optimizer.belief().data
    assert data.X[:, 0].tolist() == [0.0, 0.5, 1.0]
    assert data.y.tolist() == [-parabola(x) for x in (0.0, 0.5, 1.0)]
    assert list(optimizer.ask().params) == ["x"]


def test_conditions_that_change_decide_anew_what_matters():
    space = {
        "kernel": Categorical(["rbf", "poly"]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
    }
    points = [{"kernel": "rbf"}, {"kernel": "poly", "degree": 2}, {"kernel": "poly", "degree": 5}]
    study = told(space, points, lambda kernel, degree=3: float(degree))
    now = space | {"degree": Integer(2, 5, when={"kernel": "rbf"})}
    optimizer = extended(study, now, former={"degree": 3})
    # rbf had a degree of 3 that nobody chose; of poly it does not matter any more.
    assert optimizer.belief().data.X.tolist() == [[0.25, 0.375], [0.75, 0.5], [0.75, 0.5]]


def test_trials_too_far_outside_to_be_placed_are_left_out_and_counted():
    points = [{"x": x} for x in (0.5, 30.0, 80.0)]
    study = told({"x": Real(0, 100)}, points, parabola)
    with pytest.warns(OldTrialsWarning, match=r"2 of 3 .* 2 as 'x' is too far outside"):
        optimizer = extended(study, {"x": Real(0, 1)})
    assert optimizer.belief().data.X.tolist() == [[0.5]]


def test_trials_that_break_a_new_constraint_on_parameters_train_and_are_not_repeated():
    points = spread(8, x=(0.0, 1.0), y=(0.0, 1.0))
    square = {"x": Real(0, 1), "y": Real(0, 1)}
    optimizer = extended(
        told(square, points, parabola), Space(square, constraints=[Simplex(["x", "y"])])
    )
    assert len(optimizer.belief().data.y) == 8
    params = optimizer.ask().params
    assert params["x"] + params["y"] == pytest.approx(1.0)


def test_a_new_constraint_on_outcomes_is_learnt_from_those_who_were_told_it():
    points = spread(10, x=(0.0, 1.0), y=(0.0, 1.0))
    square = {"x": Real(0, 1), "y": Real(0, 1)}

    def f(x, y):
        return -x - y

    study = told(square, points, f, noise="none")
    with pytest.warns(OldTrialsWarning, match="10 trials have no value of constraint 'g'"):
        optimizer = extended(study, square, noise="none", constraints="g <= 0.5")
    assert not optimizer.beliefs().keep_constraints().any()
    for _ in range(12):
        trial = optimizer.ask()
        x, y = trial.params["x"], trial.params["y"]
        optimizer.tell(trial, {"f": f(x, y), "g": x**2 + y**2})
    assert len(optimizer.belief("f").data.y) == 22
    assert optimizer.best.number >= 10
    assert optimizer.best.value == pytest.approx(-1.0, abs=0.02)  # at (½, ½)
    # What nobody measured is no information: the model of g is that of the last twelve alone.
    alone = Optimizer(square, minimize="f", noise="none", constraints="g <= 0.5", seed=3)
    for trial in optimizer.trials[10:]:
        alone.add_trial(trial.params, {**(trial.values or {}), **trial.constraints})
    rows = np.random.default_rng(1).random((20, 2))
    expected = 0.5 - (rows**2).sum(1)
    for model in (optimizer, alone):
        error = model.belief("g").predict(rows)[0] - expected
        assert np.sqrt((error**2).mean()) < 0.06  # of a range of 2


def test_a_region_of_trust_takes_trials_of_an_unknown_constraint_for_none_that_keep_it():
    points = spread(8, x=(0.0, 1.0), y=(0.0, 1.0))
    square = {"x": Real(0, 1), "y": Real(0, 1)}
    study = told(square, points, lambda x, y: -x - y, strategy="trust_region")
    with pytest.warns(OldTrialsWarning, match="8 trials have no value"):
        optimizer = extended(study, square, constraints="g <= 0.5")
    for _ in range(3):
        trial = optimizer.ask()
        assert trial.origin["region"].get("violation") != 0
        optimizer.tell(trial, {"f": 0.0, "g": 1.0})


@pytest.mark.parametrize("noise", ["none", "unknown", "noisy"])
@pytest.mark.parametrize(
    "now",
    [{"x": Real(0, 0.5), "y": Real(-1, 1)}, {"x": Real(0.25, 0.25), "y": Real(-1, 1)}],
    ids=["narrowed", "fixed"],
)
def test_what_is_out_of_reach_is_not_what_has_to_be_beaten(noise, now):
    study = told(PLANE, POINTS, parabola, noise=noise)
    study.add_trial({"x": 0.25, "y": 0.5}, parabola(0.25, 0.5))
    optimizer = extended(study, now, noise=noise)
    assert optimizer.best.params["x"] > 0.5
    belief = optimizer.belief()
    (low,) = belief.transform.forward(-np.array([parabola(0.5)]))  # better than any within
    assert belief.incumbent <= low < float(belief.posterior.y.max())
    reachable = sum(t.params["x"] <= 0.5 for t in optimizer.trials) if now["x"].low == 0 else 1
    assert imagine(optimizer.beliefs(), seed=0).objectives.shape[-1] == reachable
    x = now["x"].high
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, parabola(**trial.params))
    found = optimizer.recommend().params
    assert found["x"] == pytest.approx(x, abs=0.02)
    assert found["y"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    "acquisition", ["max_value_entropy", "joint_entropy", "knowledge_gradient", "thompson"]
)
def test_what_a_trial_teaches_is_of_the_optimum_at_the_fixed_value(acquisition):
    study = told(PLANE, POINTS, parabola, acquisition=acquisition)
    optimizer = extended(study, {"x": Real(0.25, 0.25), "y": Real(-1, 1)})
    for _ in range(4):
        trial = optimizer.ask()
        assert trial.params["x"] == 0.25
        optimizer.tell(trial, parabola(**trial.params))
    assert optimizer.recommend().params["y"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("acquisition", ["integrated_variance", "max_value_entropy"])
def test_points_that_stand_for_the_space_are_at_the_fixed_value(acquisition, monkeypatch):
    study = told(PLANE, POINTS, parabola, acquisition=acquisition)
    optimizer = extended(study, {"x": Real(0.25, 0.25), "y": Real(-1, 1)})
    placed = []
    over = building._over

    def watched(*arguments):
        placed.append(over(*arguments))
        return placed[-1]

    monkeypatch.setattr(building, "_over", watched)
    optimizer.ask()
    assert {x for points in placed for x in points[:, 0].tolist()} == {0.25}
