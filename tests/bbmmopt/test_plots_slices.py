"""The numbers of slices: held against what the optimizer says of the same points."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from bbmmopt.explain import ACQUISITIONS
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import acquisition_data, plot_acquisition, plot_posterior, posterior_data
from bbmmopt.plots.worth import WORDS
from bbmmopt.prior import Near
from bbmmopt.space import Categorical, Integer, Real, Space
from tests.bbmmopt.pictures import acquisition_at, marks, run, texts

pytestmark = pytest.mark.usefixtures("canvas")

XY = {"x": Real(0, 1), "y": Real(0, 1)}


def told(names: str, count: int = 10, **options) -> Optimizer:
    """Two parameters, and smooth outputs of these names."""
    outputs = {
        "cost": lambda x, y: (x - 0.7) ** 2 + y,
        "gain": lambda x, y: y + 0.3 * x,
        "heat": lambda x, y: x + 0.5 * y,
        "mass": lambda x, y: y + 0.1,
    }
    optimizer = Optimizer(Space(XY), seed=3, n_start=count, **options)
    for _ in range(count):
        trial = optimizer.ask()
        optimizer.tell(trial, {name: outputs[name](**trial.params) for name in names.split()})
    return optimizer


@pytest.fixture(scope="module")
def constrained() -> Optimizer:
    constraints = ["heat <= 0.8", "mass >= 0.4"]
    return told("cost heat mass", minimize="cost", constraints=constraints)


@pytest.fixture(scope="module")
def trade_off() -> Optimizer:
    return told("cost gain", minimize="cost", maximize="gain")


def points(optimizer: Optimizer, table, **others) -> list[dict]:
    """The points of a table's rows."""
    names = [name for name in table if name.startswith("params.")]
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    keys = [name.removeprefix("params.") for name in names]
    return [others | dict(zip(keys, row, strict=True)) for row in rows]


# --------------------------------------------------------------------------------------
# Acquisition functions
# --------------------------------------------------------------------------------------


def test_the_acquisition_table_is_the_function_at_its_points(smooth):
    table = acquisition_data(smooth, "a", "b", acquisition="log_ei")
    assert table.rows == 101**2
    wanted = acquisition_at(smooth, points(smooth, table), "log_ei")
    np.testing.assert_allclose(table["value"], wanted, rtol=1e-6, atol=1e-6)
    assert table["allowed"].all()
    curve = acquisition_data(smooth, "b", fixed={"a": 20.0})
    assert (curve.facts["x"], curve.facts["y"], curve.facts["held"]) == ("b", None, {"a": 20.0})
    assert curve.facts["next"] == smooth.preview().params
    wanted = acquisition_at(smooth, points(smooth, curve, a=20.0))
    np.testing.assert_allclose(curve["value"], wanted, rtol=1e-6, atol=1e-6)


def test_rows_come_row_by_row_and_what_is_not_active_is_missing(mixed):
    table = acquisition_data(mixed, "degree", "kernel", acquisition="ucb")
    assert table["params.kernel"].tolist() == ["rbf"] * 4 + ["poly"] * 4
    np.testing.assert_array_equal(table["params.degree"], [*[np.nan] * 4, 2, 3, 4, 5])
    assert np.ptp(table["value"][:4]) == 0 < np.ptp(table["value"][4:])
    held = table.facts["held"]
    assert held == {name: mixed.best.params[name] for name in ("C", "size", "width")}
    some = [held | {"kernel": "poly", "degree": k, "one": 7.0} for k in (2, 3, 4, 5)]
    np.testing.assert_allclose(table["value"][4:], acquisition_at(mixed, some, "ucb"))


def test_a_picture_shows_the_numbers_of_the_table(smooth):
    curve = plot_acquisition(smooth, "a").lines[0]
    table = acquisition_data(smooth, "a")
    np.testing.assert_array_equal(curve.get_xdata(), table["params.a"])
    np.testing.assert_array_equal(curve.get_ydata(), table["value"])
    ax = plot_posterior(smooth, "a", samples=2)
    table = posterior_data(smooth, "a", samples=2)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["median"], table["median"])
    np.testing.assert_array_equal(lines["drawn from the model"], table["sample_0"])
    np.testing.assert_array_equal(lines["_drawn"], table["sample_1"])


def test_every_acquisition_function_has_its_words():
    assert set(WORDS) == set(ACQUISITIONS) - {"auto"}
    assert len(set(WORDS.values())) == len(WORDS)


SINGLE = sorted(set(WORDS) - {"log_ehvi", "scalarised", "feasibility", "robust"})


@pytest.mark.parametrize("name", SINGLE)
def test_every_acquisition_function_of_one_objective_is_drawn(smooth, name):
    ax = plot_acquisition(smooth, "a", acquisition=name)
    assert ax.get_title().replace("\n", " ").lower().startswith(WORDS[name])
    table = acquisition_data(smooth, "a", acquisition=name)
    assert np.isfinite(table["value"]).all()
    assert table.facts["acquisition"] == WORDS[name]
    low, high = ax.get_ylim()
    assert low < table["value"].max() < high
    ((_, height),) = marks(ax, "next" if len(marks(ax, "next")) else "_off this slice: next")
    assert low <= height <= high


@pytest.mark.parametrize("name", ["log_ehvi", "scalarised"])
def test_those_of_several_objectives_are_drawn(trade_off, name):
    ax = plot_acquisition(trade_off, acquisition=name)
    assert ax.get_title().lower().startswith(WORDS[name])
    (mark,) = marks(ax, "next").tolist()
    assert mark == list(trade_off.preview(acquisition=name).params.values())


def test_what_auto_comes_to_is_named(smooth, trade_off, constrained):
    assert acquisition_data(trade_off, "x").facts["acquisition"] == WORDS["log_ehvi"]
    assert acquisition_data(constrained, "x").facts["acquisition"] == WORDS["log_ei"]
    assert acquisition_data(smooth, "a").facts["acquisition"] == WORDS["noisy_log_ei"]  # running


def test_what_weighs_besides_is_said(smooth, constrained):
    assert "weighed by success" in texts(plot_acquisition(smooth, "a"))
    assert "weighed by constraints" in texts(plot_acquisition(constrained))
    prior = {"x": Near(0.5, spread=0.1)}
    both = Optimizer(Space(XY), minimize="cost", seed=0, prior=prior, cost="seconds")
    for value in (3.0, 1.0, 2.0):
        both.tell(both.ask(), value)
    assert "weighed by the prior and the time it takes" in texts(plot_acquisition(both, "x"))
    assert "weighed" not in texts(plot_acquisition(both, "x", acquisition="ucb"))


def test_under_perturbation_the_posterior_is_of_exact_parameters(smooth):
    options = {"minimize": "loss", "seed": 1, "noise": "none"}
    plain = run({"x": Real(0, 1)}, [3.0, 1.0, 2.0, 1.5], **options)
    varied = Optimizer({"x": Real(0, 1)}, **options, perturbation={"x": 0.1})
    for trial in plain.trials:
        varied.add_trial(trial.params, trial.value)
    found, wanted = posterior_data(varied, "x"), posterior_data(plain, "x")
    mean, std = varied.belief().predict(varied.space.encode_many(points(varied, found)))
    np.testing.assert_allclose(found["median"], -mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found["high_68"] - found["low_68"], 2 * std, rtol=1e-6, atol=1e-9)
    assert wanted.facts["name"] == "loss"
    table = acquisition_data(varied, "x", acquisition="mean")
    assert table.facts["acquisition"] == "expected value under variation"
    # The mean over what the parameter may be: smoother than what exact ones give.
    model = acquisition_at(varied, points(varied, table), "mean")
    np.testing.assert_allclose(table["value"], model, rtol=1e-9)
    assert np.ptp(table["value"]) < np.ptp(acquisition_at(plain, points(plain, table), "mean"))


# --------------------------------------------------------------------------------------
# Beliefs
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cost", "gain"])
def test_the_posterior_of_each_objective_is_had_by_name(trade_off, name):
    table = posterior_data(trade_off, "x", "y", name=name)
    X = trade_off.space.encode_many(points(trade_off, table))
    mean, std = trade_off.belief(name).predict(X)
    sign = 1 if name == "gain" else -1
    np.testing.assert_allclose(table["median"], sign * mean, rtol=1e-9, atol=1e-9)
    for k, share in ((1, 68), (2, 95)):
        low, high = table[f"low_{share}"], table[f"high_{share}"]
        np.testing.assert_allclose(low, sign * mean - k * std, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(high, sign * mean + k * std, rtol=1e-6, atol=1e-9)
    assert table.facts["name"] == name
    front = [[t.params["x"], t.params["y"]] for t in trade_off.pareto_front]
    ax = plot_posterior(trade_off, "x", "y", name=name)
    assert sorted(marks(ax, "on the front").tolist()) == sorted(front)
    assert len(marks(ax, "observed")) == len(trade_off.trials) - len(front)


def test_without_a_name_several_objectives_are_refused(trade_off):
    with pytest.raises(ValueError, match="several objectives: say which output"):
        posterior_data(trade_off)
    with pytest.raises(ValueError, match="no output 'heat'; there are cost, gain"):
        posterior_data(trade_off, name="heat")


def test_held_values_of_several_objectives_are_those_of_the_middle_of_the_front(trade_off):
    held = acquisition_data(trade_off, "x").facts["held"]
    front = np.array([[t.values["cost"], -t.values["gain"]] for t in trade_off.pareto_front])
    distance = np.linalg.norm((front - front.min(0)) / np.ptp(front, axis=0), axis=1)
    assert held == {"y": trade_off.pareto_front[int(distance.argmin())].params["y"]}
    assert 0 < distance.argmin() < len(front) - 1


@pytest.mark.parametrize(("name", "bound"), [("heat", 0.8), ("mass", 0.4)])
def test_the_posterior_of_a_constraint_is_in_its_units_and_its_bound_is_drawn(
    constrained, name, bound
):
    ax = plot_posterior(constrained, "x", name=name)
    table = posterior_data(constrained, "x", name=name)
    y = table.facts["held"]["y"]
    truth = table["params.x"] + 0.5 * y if name == "heat" else np.full(table.rows, y + 0.1)
    inside = (table["low_95"] - 1e-3 <= truth) & (truth <= table["high_95"] + 1e-3)
    assert inside.mean() > 0.9
    assert np.abs(table["median"] - truth).max() < 0.1
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith("bound")]
    assert line.get_label() == f"bound: {'≤' if name == 'heat' else '≥'} {bound:g}"
    assert set(line.get_ydata()) == {bound} == {table.facts["bound"]}
    low, high = ax.get_ylim()
    assert low < bound < high
    best = constrained.best
    assert marks(ax, "best").tolist() == [[best.params["x"], best.constraints[name]]]
    ax = plot_posterior(constrained, "x", "y", name=name)
    assert bound_line(ax, constrained, name) < 0.02


def bound_line(ax, optimizer: Optimizer, name: str) -> float:
    """How far what the model expects on the dashed line is from the bound, at most."""
    lines = [c for c in ax.collections if getattr(c, "levels", None) is not None]
    (drawn,) = [c for c in lines if len(c.levels) == 1]
    vertices = np.concatenate([path.vertices for path in drawn.get_paths()])
    X = optimizer.space.encode_many({"x": x, "y": y} for x, y in vertices.clip(0, 1).tolist())
    belief = optimizer.belief(name)
    mean, _ = belief.marginals(X)
    assert len(mean) > 20
    return float(np.abs(mean - belief.bound).max())


def test_the_chance_is_that_all_constraints_hold(constrained):
    for table in (
        acquisition_data(constrained, "x", "y"),
        posterior_data(constrained, "x", "y"),
    ):
        X = constrained.space.encode_many(points(constrained, table))
        wanted = np.ones(len(X))
        for name in ("heat", "mass"):
            belief = constrained.belief(name)
            mean, std = belief.marginals(X)
            wanted *= norm.cdf((mean - belief.bound) / std)
        np.testing.assert_allclose(table["chance"], wanted, rtol=1e-9, atol=1e-12)
        assert wanted.min() < 1e-3 and wanted.max() > 0.999


def test_without_constraints_there_is_no_chance(smooth):
    assert "chance" not in acquisition_data(smooth, "a")
    assert "chance" not in posterior_data(smooth, "a")


# --------------------------------------------------------------------------------------
# Functions drawn from the belief
# --------------------------------------------------------------------------------------


def test_samples_are_drawn_over_the_whole_curve_together():
    optimizer = run({"x": Real(0, 1)}, [1.0, 4.0, 2.0], noise="none")
    count = 600
    table = posterior_data(optimizer, "x", samples=count)
    drawn = np.stack([table[f"sample_{i}"] for i in range(count)])  # (count, m)
    belief = optimizer.belief()
    X = belief.data.place(optimizer.space.encode_many(points(optimizer, table)))
    mean, covariance = belief.posterior.joint(X)
    scale = abs(belief.transform.inverse(np.array(1.0)) - belief.transform.inverse(np.array(0.0)))
    std = scale * covariance.diagonal().clamp_min(0).sqrt().numpy()
    expected = -belief.transform.inverse(mean.numpy())
    error = np.abs(drawn.mean(0) - expected)
    assert (error <= 4.5 * std / math.sqrt(count) + 1e-3 * scale).all()
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.15, atol=2e-3 * scale)
    # Neighbours go together as the model says: drawn one by one they would not.
    i, j = np.argsort(std)[-1], np.argsort(std)[-60]
    wanted = float(covariance[i, j]) * scale**2
    found = np.mean((drawn[:, i] - expected[i]) * (drawn[:, j] - expected[j]))
    assert abs(found - wanted) < 4 * std[i] * std[j] * math.sqrt(2 / count)
    assert wanted > 0.5 * std[i] * std[j]


def test_samples_follow_from_the_seed():
    first, again, other = (
        posterior_data(run({"x": Real(0, 1)}, [1.0, 4.0, 2.0], seed=seed), samples=2)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["sample_1"], again["sample_1"])
    assert not np.array_equal(first["sample_0"], other["sample_0"])
    assert "sample_2" not in first


def test_samples_of_choices_are_drawn_too():
    space = {"kind": Categorical(["a", "b", "c"]), "n": Integer(1, 5)}
    optimizer = run(space, [1.0, 4.0, 2.0, 3.0])
    ax = plot_posterior(optimizer, "kind", samples=3)
    drawn = [line for line in ax.lines if "drawn" in str(line.get_label())]
    assert [len(line.get_xdata()) for line in drawn] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": -1}, "samples must be an integer from 0 to 1000"),
        ({"samples": 1.5}, "samples must be an integer"),
        ({"samples": True}, "samples must be an integer"),
        ({"samples": 3}, "samples are drawn on curves: give x alone, such as x='a'"),
        ({"x": "a", "y": "b", "samples": 3}, "leave y='b' out"),
        ({"x": "a", "quantity": "std", "samples": 3}, 'samples go with quantity="mean"'),
    ],
)
def test_samples_that_make_no_sense_are_refused(smooth, options, message):
    with pytest.raises(ValueError, match=message):
        plot_posterior(smooth, **options)


# --------------------------------------------------------------------------------------
# A study that was extended
# --------------------------------------------------------------------------------------


def test_earlier_trials_stand_at_the_former_value_of_a_parameter_that_is_new(tmp_path):
    before = run({"x": Real(0, 1)}, [3.0, 1.0, 2.0, 1.5], storage=tmp_path / "run.db")
    before.close()
    space = {"x": Real(0, 1), "n": Integer(1, 5)}
    options = {"minimize": "loss", "storage": tmp_path / "run.db", "mode": "extend"}
    with Optimizer(space, **options, former={"n": 2}) as optimizer:
        optimizer.tell(optimizer.ask(), 2.5)
        ax = plot_acquisition(optimizer, "x", "n")
        wanted = [[t.params["x"], t.params.get("n", 2)] for t in optimizer.trials]
        assert marks(ax, "observed").tolist() == wanted
        assert "not shown" not in texts(ax)
        X = np.array([optimizer.former.row(t.params) for t in optimizer.trials])
        table = posterior_data(optimizer, "x", fixed={"n": 2})
        at = np.searchsorted(table["params.x"], [t.params["x"] for t in optimizer.trials[:4]])
        expected = -optimizer.belief().predict(X[:4])[0]
        np.testing.assert_allclose(table["median"][at], expected, rtol=1e-9)
