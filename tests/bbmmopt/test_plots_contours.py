"""Facts about contours: averages over a space, held against loops over the model's predictions."""

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots import contours_data, plot_contours
from bbmmopt.plots.regions import FORBIDDEN
from bbmmopt.plots.table import Table
from bbmmopt.space import Categorical, Integer, Linear, Nonlinear, Real, Simplex, Space
from tests.bbmmopt.pictures import marks, run

pytestmark = pytest.mark.usefixtures("canvas")


@pytest.fixture(scope="module")
def four() -> Optimizer:
    """Four parameters, one of them log, of which "c" does not matter."""
    space = {"a": Real(0, 1), "b": Real(1, 100, log=True), "c": Real(0, 1), "d": Real(-1, 1)}
    optimizer = Optimizer(Space(space), minimize="loss", noise="none", seed=0, n_start=40)
    for _ in range(40):
        trial = optimizer.ask()
        a, b, _, d = trial.params.values()
        optimizer.tell(trial, math.sin(4 * a) * math.log10(b) + d**2 * (1 + a))
    return optimizer


def effect(table: Table, x: str) -> dict[str, np.ndarray]:
    """The columns of one main effect."""
    rows = (table["x"] == x) & (table["y"] == None)  # noqa: E711, column of objects
    return {name: table[name][rows] for name in table}


def surface(table: Table, x: str, y: str) -> dict[str, np.ndarray]:
    """The columns of one pair."""
    rows = (table["x"] == x) & (table["y"] == y)
    return {name: table[name][rows] for name in table}


def draws(optimizer: Optimizer, count: int) -> list[dict]:
    """Points anywhere in the space, by another way than a Sobol sequence."""
    rng = np.random.default_rng(3)
    return [optimizer.space.decode(row) for row in rng.random((count, len(optimizer.space)))]


def mean_at(optimizer: Optimizer, points: list[dict]) -> np.ndarray:
    """What the model expects, in the user's sign."""
    mean, _ = optimizer.belief().predict(optimizer.space.encode_many(points))
    return optimizer.problem.objectives[0].sign * mean


def average_at(optimizer: Optimizer, points: list[dict]) -> float:
    """The average of what the model expects, in its units, taken back to the user's."""
    belief = optimizer.belief()
    mean, _ = belief.marginals(optimizer.space.encode_many(points))
    inverse = belief.transform.inverse(np.array([mean.mean()]))
    return optimizer.problem.objectives[0].sign * float(inverse[0])


# --------------------------------------------------------------------------------------
# Averages
# --------------------------------------------------------------------------------------


def test_a_surface_is_the_mean_over_all_other_parameters(four):
    table = surface(contours_data(four, ["a", "b", "d"]), "a", "b")
    others, span = draws(four, 4000), np.ptp(table["value"])
    for i in (0, 17, 312, 450, len(table["value"]) - 1):
        place = {"a": table["x_value"][i], "b": table["y_value"][i]}
        wanted = average_at(four, [{**point, **place} for point in others])
        assert table["value"][i] == pytest.approx(wanted, abs=0.01 * span)


def test_of_two_parameters_a_surface_is_the_posterior_itself(smooth):
    table = surface(contours_data(smooth), "a", "b")
    points = [{"a": a, "b": b} for a, b in zip(table["x_value"], table["y_value"], strict=True)]
    np.testing.assert_allclose(table["value"], mean_at(smooth, points), rtol=1e-9)
    assert (table["x_value"].min(), table["x_value"].max()) == (1e-2, 1e3)


def test_the_band_of_an_effect_is_that_of_the_averaged_function(four):
    table = effect(contours_data(four, ["a"]), "a")
    belief, others = four.belief(), draws(four, 1500)
    inverse = belief.transform.inverse
    for i in (0, 20, 60):
        place = {"a": table["x_value"][i]}
        X = torch.from_numpy(four.space.encode_many([{**point, **place} for point in others]))
        mean, covariance = belief.posterior.joint(X)
        mean, std = float(mean.mean()), math.sqrt(float(covariance.mean()))
        for name, k in (
            ("low_95", 2),
            ("low_68", 1),
            ("value", 0),
            ("high_68", -1),
            ("high_95", -2),
        ):
            wanted = -float(inverse(np.array([mean + k * std]))[0])
            assert table[name][i] == pytest.approx(wanted, abs=0.01 * np.ptp(table["value"]))
        width = table["high_68"][i] - table["low_68"][i]
        pointwise = float(covariance.diagonal().sqrt().mean())
        ends = inverse(np.array([mean - pointwise, mean + pointwise]))
        assert width < 0.7 * np.ptp(ends)  # the mean of standard deviations is another thing


def test_a_conditional_parameter_is_averaged_over_the_points_where_it_is_active(mixed):
    table = contours_data(mixed, ["degree", "kernel", "size"])
    found = effect(table, "degree")
    assert found["x_value"].tolist() == [2, 3, 4, 5]
    others = [point for point in draws(mixed, 3000) if point["kernel"] == "poly"]
    everywhere = contours_data(mixed, ["C"])["value"]
    for degree, value in zip(found["x_value"], found["value"], strict=True):
        wanted = average_at(mixed, [{**point, "degree": int(degree)} for point in others])
        assert value == pytest.approx(wanted, abs=0.03 * np.ptp(everywhere))
    pair = surface(table, "degree", "kernel")
    inactive = pair["y_value"] == "rbf"
    assert np.isnan(pair["value"][inactive]).all()
    np.testing.assert_allclose(pair["value"][~inactive], found["value"], rtol=1e-9)


def test_parameters_that_are_fixed_are_held(four):
    table = effect(contours_data(four, ["a"], fixed={"b": 100.0, "d": 0.0, "c": 0.5}), "a")
    points = [{"a": a, "b": 100.0, "c": 0.5, "d": 0.0} for a in table["x_value"]]
    np.testing.assert_allclose(table["value"], mean_at(four, points), rtol=1e-9)


def test_at_the_best_trial_all_others_are_held_there(four):
    best = four.best.params
    table = contours_data(four, ["a", "b"], at="best")
    pair = surface(table, "a", "b")
    places = zip(pair["x_value"], pair["y_value"], strict=True)
    wanted = mean_at(four, [{**best, "a": a, "b": b} for a, b in places])
    np.testing.assert_allclose(pair["value"], wanted, rtol=1e-6, atol=1e-9)
    one = effect(table, "b")
    points = four.space.encode_many([{**best, "b": b} for b in one["x_value"]])
    mean, std = four.belief().marginals(points)
    inverse = four.belief().transform.inverse
    np.testing.assert_allclose(one["high_68"], -inverse(mean - std), rtol=1e-6, atol=1e-9)


def test_of_a_mixture_averages_are_over_mixtures():
    names = ("a", "b", "c")
    space = Space({name: Real(0, 1) for name in names}, [Simplex(names)])
    optimizer = Optimizer(space, minimize="y", noise="none", seed=0, n_start=15)
    for _ in range(15):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.params["a"] - 2 * trial.params["b"])
    table = contours_data(optimizer, ["a", "b"])
    pair = surface(table, "a", "b")
    beyond = pair["x_value"] + pair["y_value"] > 1 + 1e-9
    np.testing.assert_array_equal(np.isnan(pair["value"]), beyond)
    wanted = (pair["x_value"] - 2 * pair["y_value"])[~beyond]
    np.testing.assert_allclose(pair["value"][~beyond], wanted, atol=0.02)
    # Given b, a is even between 0 and 1 - b.
    one = effect(table, "b")
    wanted = 0.5 * (1 - one["x_value"]) - 2 * one["x_value"]
    np.testing.assert_allclose(one["value"], wanted, atol=0.06)
    panels = plot_contours(optimizer, ["a", "b"])
    assert panels[1, 0].patch.get_hatch() == "////"
    legend = panels[1, 0].figure.axes[-1].get_legend() or _legend(panels)
    assert FORBIDDEN in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    "constraint",
    [
        Linear({"x": 1.0, "y": 1.0}, at_most=1.0),
        Nonlinear("near", lambda params: 1.0 - params["x"] - params["y"]),
    ],
)
def test_of_a_constrained_space_averages_are_over_what_may_be_tried(constraint):
    space = Space({"x": Real(0, 1), "y": Real(0, 1), "z": Real(0, 1)}, [constraint])
    optimizer = Optimizer(space, minimize="v", noise="none", seed=0, n_start=15)
    for _ in range(15):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.params["x"] + trial.params["z"])
    table = effect(contours_data(optimizer, ["y"]), "y")
    wanted = 0.5 * (1 - table["x_value"]) + 0.5  # x is even between 0 and 1 - y
    inside = table["x_value"] < 0.9
    np.testing.assert_allclose(table["value"][inside], wanted[inside], atol=0.06)


def test_a_constraint_is_drawn_in_its_own_units():
    space = {"x": Real(0, 1), "y": Real(0, 1)}
    optimizer = Optimizer(
        Space(space), minimize="f", constraints="h >= 200", noise="none", seed=0, n_start=15
    )
    for _ in range(15):
        trial = optimizer.ask()
        x, y = trial.params.values()
        optimizer.tell(trial, y, constraints={"h": 190 + 20 * x})
    table = effect(contours_data(optimizer, ["x"], name="h"), "x")
    np.testing.assert_allclose(table["value"], 190 + 20 * table["x_value"], atol=0.5)
    assert table["low_95"][0] <= table["value"][0] <= table["high_95"][0]


def test_the_most_important_parameters_are_drawn(four):
    assert contours_data(four).facts["parameters"] == ("a", "b", "c", "d")
    space = {f"x{i}": Real(0, 1) for i in range(7)}
    optimizer = Optimizer(Space(space), minimize="loss", noise="none", seed=0, n_start=40)
    for _ in range(40):
        trial = optimizer.ask()
        p = trial.params
        optimizer.tell(trial, 3 * p["x6"] + 2 * p["x1"] + 2 * p["x4"] ** 2 + 1.5 * p["x3"])
    assert contours_data(optimizer).facts["parameters"] == ("x1", "x3", "x4", "x6")
    fixed = contours_data(optimizer, fixed={"x6": 0.0}).facts["parameters"]
    assert {"x1", "x3", "x4"} < set(fixed) and "x6" not in fixed


def test_a_parameter_that_is_nowhere_active_is_left_out_or_refused(mixed):
    for at in ("average", "best"):
        table = contours_data(mixed, fixed={"kernel": "rbf"}, at=at)
        assert "degree" not in table.facts["parameters"]
    with pytest.raises(ValueError, match="no point that may be tried has a 'degree'"):
        contours_data(mixed, ["degree"], fixed={"kernel": "rbf"})
    with pytest.raises(ValueError, match="needs 'kernel' to be 'poly'"):
        contours_data(mixed, ["degree"], at="best")


# --------------------------------------------------------------------------------------
# The picture
# --------------------------------------------------------------------------------------


def _legend(panels: np.ndarray):
    """The legend above the diagonal."""
    figure = panels[0, 0].figure
    return next(ax.get_legend() for ax in figure.axes if ax.get_legend() is not None)


def test_panels_hold_what_the_data_say(mixed):
    names = ["kernel", "size", "C", "width"]
    table = contours_data(mixed, names)
    panels = plot_contours(mixed, names)
    assert panels.shape == (4, 4)
    assert all(panels[i, j] is None for i in range(4) for j in range(i + 1, 4))
    (mesh,) = [c for c in panels[1, 0].collections if isinstance(c, QuadMesh)]
    np.testing.assert_allclose(
        np.ravel(mesh.get_array()), surface(table, "kernel", "size")["value"]
    )
    line = next(line for line in panels[2, 2].lines if line.get_label() == "median")
    found = effect(table, "C")
    np.testing.assert_allclose(line.get_xdata(), found["x_value"].astype(float))
    np.testing.assert_allclose(line.get_ydata(), found["value"])
    tops = [bar.get_y() + bar.get_height() for bar in panels[0, 0].patches[:2]]
    np.testing.assert_allclose(tops, effect(table, "kernel")["high_95"])
    # One scale of colours for all of them.
    low, high = mesh.get_clim()
    filled = [c for c in panels[3, 2].collections if isinstance(c, QuadContourSet) and c.filled]
    assert filled[0].get_clim() == (low, high)
    values = table["value"][table["y"] != None]  # noqa: E711
    assert low <= np.quantile(values, 0.5) <= high


def test_ticks_and_labels_stand_on_the_outer_edges(mixed):
    panels = plot_contours(mixed, ["C", "kernel", "width"])
    panels[0, 0].figure.canvas.draw()
    assert [ax.get_xlabel() for ax in panels[2]] == ["C", "kernel", "width"]
    assert [panels[i, 0].get_ylabel() for i in range(3)] == ["", "kernel", "width"]
    assert panels[0, 0].get_xlabel() == panels[2, 1].get_ylabel() == ""
    assert [panels[2, j].get_xscale() for j in range(3)] == ["log", "linear", "log"]
    assert panels[2, 0].get_yscale() == "log"
    assert [text.get_text() for text in panels[2, 1].get_xticklabels()] == ["rbf", "poly"]
    assert not any(
        text.get_visible() and text.get_text() for text in panels[1, 0].get_xticklabels()
    )


def test_long_names_of_choices_do_not_run_into_each_other():
    names = ["a rather long name", "another long name", "short", "yet another one"]
    space = {"x": Real(0, 1), "how": Categorical(names)}
    panels = plot_contours(run(space, [1.0, 3.0, 2.0, 4.0, 2.5, 0.5, 3.5]), ["x", "how"])
    ax = panels[1, 1]
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))


def test_trials_are_marked_in_every_panel_that_has_a_place_for_them(smooth, mixed):
    panels = plot_contours(smooth)
    best = smooth.best.params
    assert marks(panels[1, 0], "best").tolist() == [[best["a"], best["b"]]]
    assert marks(panels[0, 0], "best")[0, 0] == best["a"]
    counts = {kind: len(marks(panels[1, 0], kind)) for kind in ("observed", "failed", "pending")}
    assert counts == {"observed": 9, "failed": 2, "pending": 3}
    poly = [t for t in mixed.trials if "degree" in t.params]
    panels = plot_contours(mixed, ["C", "degree"])
    assert sorted(marks(panels[1, 0], "observed")[:, 1]) == sorted(t.params["degree"] for t in poly)


def test_of_several_objectives_each_has_a_matrix_and_the_front_is_marked():
    optimizer = Optimizer(
        {"x": Real(0, 1), "y": Real(0, 1)}, minimize=["f", "g"], seed=0, n_start=8
    )
    for _ in range(8):
        trial = optimizer.ask()
        optimizer.tell(trial, {"f": trial.params["x"], "g": 1 - trial.params["x"] ** 2})
    panels = plot_contours(optimizer, name="g")
    assert len(marks(panels[1, 0], "on the front")) == len(optimizer.pareto_front)
    assert panels[0, 0].texts[0].get_text() == "g after 8 trials"
    with pytest.raises(ValueError, match="several objectives"):
        plot_contours(optimizer)


@pytest.mark.parametrize("layout", ["constrained", None])
def test_the_place_of_an_axes_is_divided(smooth, layout):
    figure = Figure((8, 4), layout=layout)
    left, right = figure.subplots(1, 2)
    middle = figure.axes[1].get_position().x0
    panels = plot_contours(smooth, ax=right)
    figure.canvas.draw()
    assert not right.axison
    assert left.axison and not left.has_data()
    for ax in panels[np.tril_indices(2)]:
        assert ax.figure is figure
        assert ax.get_position().x0 >= middle - 0.1
    free = Figure((5, 5))
    ax = free.add_axes((0.5, 0.5, 0.4, 0.4))
    for panel in plot_contours(smooth, ax=ax)[np.tril_indices(2)]:
        assert panel.get_position().x0 >= 0.5 and panel.get_position().y1 <= 0.91
    assert plt.get_fignums() == []


def test_one_parameter_is_one_panel_with_a_label(smooth):
    panels = plot_contours(smooth, ["b"], legend=False)
    assert panels.shape == (1, 1)
    assert panels[0, 0].get_ylabel() == "loss"
    assert panels[0, 0].get_legend() is None


def test_what_is_held_is_written_under_the_title(four):
    panels = plot_contours(four, ["a", "b"], fixed={"c": 0.25})
    written = [text.get_text() for text in panels[0, 0].texts]
    assert "all other parameters averaged out\nfixed: c = 0.25" in written


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"parameters": ["Cc"]}, ValueError, "got 'Cc'.*Did you mean 'C'"),
        ({"parameters": "C"}, TypeError, "parameters must be a list of names; got 'C'"),
        ({"parameters": []}, ValueError, "parameters is empty"),
        ({"parameters": ["C", "C"]}, ValueError, "must differ"),
        ({"parameters": ["one"]}, ValueError, "'one' has a single value"),
        ({"parameters": ["C"], "fixed": {"C": 1.0}}, ValueError, "'C' is both drawn and fixed"),
        ({"fixed": {"nope": 1}}, ValueError, "unknown parameter 'nope'"),
        ({"at": "mean"}, ValueError, 'at must be "average" or "best"'),
        ({"name": "scor"}, ValueError, "no output 'scor'"),
        ({"ax": [1]}, TypeError, "ax must be one matplotlib Axes"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(mixed, options, error, message):
    with pytest.raises(error, match=message):
        plot_contours(mixed, **options)
    assert plt.get_fignums() == []


def test_without_data_the_error_says_what_there_is():
    with pytest.raises(NoCompleteTrial, match="plot_contours needs at least one complete trial"):
        plot_contours(Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0))


@pytest.mark.parametrize(
    "values", [[5.0], [2.0] * 6, [1e300, -1e300, 3e299, 1.0], [1e-300, 2e-300, 0.0]]
)
def test_unusual_values_are_drawn(values):
    panels = plot_contours(run({"x": Real(0, 1), "y": Real(1, 9), "n": Integer(1, 9)}, values))
    panels[0, 0].figure.canvas.draw()


def test_a_stored_study_makes_the_same_picture_and_is_left_as_it_was(tmp_path):
    path = tmp_path / "study.db"
    with run({"x": Real(0, 1), "y": Real(0, 1)}, [3.0, 1.0, 2.0], storage=path) as optimizer:
        before = optimizer.trials
        wanted = contours_data(optimizer)
        assert optimizer.trials == before
    found = contours_data(str(path))
    np.testing.assert_array_equal(found["value"], wanted["value"])
