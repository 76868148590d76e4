"""Facts about pictures: what is drawn, held against what the optimizer says."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import plot_acquisition, plot_posterior
from bbmmopt.plots.style import OFF_SLICE
from bbmmopt.space import Categorical, Integer, Real, Space
from tests.bbmmopt.pictures import XY, acquisition_at, complete, marks, run, texts

pytestmark = pytest.mark.usefixtures("canvas")


# --------------------------------------------------------------------------------------
# The acquisition function
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ucb", "mean", "log_ei", "log_pi"])
def test_contours_lie_where_the_acquisition_function_has_their_level(smooth, name):
    ax = plot_acquisition(smooth, "a", "b", acquisition=name)
    sets = [c for c in ax.collections if isinstance(c, QuadContourSet)]
    lines = next(c for c in sets if not c.filled)
    errors = []
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        inside = [(a, b) for a, b in path.vertices.tolist() if 1e-2 <= a <= 1e3 and 0 <= b <= 10]
        if inside:
            values = acquisition_at(smooth, [{"a": a, "b": b} for a, b in inside], name)
            errors.extend(np.abs(values - level))
    assert len(errors) > 200
    # Between two grid points a contour is a straight line.
    assert np.quantile(errors, 0.9) < 0.02 * np.ptp(lines.levels)


def test_cells_are_the_acquisition_function_at_each_value(mixed):
    ax = plot_acquisition(mixed, "size", "kernel", acquisition="ucb")
    (mesh,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    best = mixed.best.params
    base = {name: best[name] for name in ("C", "width", "one")}
    poly = next(t for t in _best_first(mixed) if "degree" in t.params)
    points = [
        base
        | {"size": size, "kernel": kernel}
        | ({"degree": poly.params["degree"]} if kernel == "poly" else {})
        for kernel in ("rbf", "poly")
        for size in (16, 32, 64)
    ]
    wanted = acquisition_at(mixed, points, "ucb").reshape(2, 3)
    np.testing.assert_allclose(mesh.get_array(), wanted, rtol=1e-9)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["16", "32", "64"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["rbf", "poly"]


def _best_first(optimizer: Optimizer):
    return sorted(optimizer.trials, key=lambda t: -t.values["score"])


def test_a_curve_is_the_acquisition_function_along_x(smooth):
    ax = plot_acquisition(smooth, "a")
    x, y = ax.lines[0].get_data()
    assert ax.get_xscale() == "log"
    assert (min(x), max(x)) == (1e-2, 1e3)
    b = smooth.best.params["b"]
    np.testing.assert_allclose(
        y, acquisition_at(smooth, [{"a": v, "b": b} for v in x]), rtol=1e-6, atol=1e-6
    )


def test_bars_reach_the_acquisition_value_of_each_category(mixed):
    ax = plot_acquisition(mixed, "kernel", acquisition="ucb")
    tops = [bar.get_y() + bar.get_height() for bar in ax.patches]
    base = {name: mixed.best.params[name] for name in ("C", "size", "width", "one")}
    degree = next(t for t in _best_first(mixed) if "degree" in t.params).params["degree"]
    points = [base | {"kernel": "rbf"}, base | {"kernel": "poly", "degree": degree}]
    np.testing.assert_allclose(tops, acquisition_at(mixed, points, "ucb"))


def test_the_next_mark_is_the_point_that_ask_then_proposes():
    space = Space({"x": Real(-5, 10), "y": Real(1e-3, 1, log=True)})
    optimizer = Optimizer(space, maximize="gain", seed=3, n_start=4)
    for number in range(9):
        if number:
            ax = plot_acquisition(optimizer)
            label = "next (of the start)" if number < 4 else "next"
            (mark,) = marks(ax, label).tolist()
            assert len(marks(ax, "largest here")) == (number < 4)
            plt.close("all")
        trial = optimizer.ask()
        if number:
            assert mark == [trial.params["x"], trial.params["y"]]
        optimizer.tell(trial, -((trial.params["x"] - 2) ** 2) - trial.params["y"])


def test_the_next_mark_on_a_curve_is_at_its_top():
    optimizer = run({"x": Real(0, 1)}, [0.9, 0.5, 0.4, 0.7, 0.8, 0.3], noise="none")
    ax = plot_acquisition(optimizer)
    ((x, y),) = marks(ax, "next").tolist()
    assert x == optimizer.ask().params["x"]
    assert y >= max(ax.lines[0].get_ydata()) - 1e-6


def test_a_next_point_off_the_slice_is_faint_and_the_largest_here_is_marked(mixed):
    ax = plot_acquisition(mixed, "C", fixed={"kernel": "poly"})
    following = mixed.preview().params
    assert marks(ax, "next").size == 0
    assert marks(ax, OFF_SLICE + "next")[0, 0] == following["C"]
    x, y = ax.lines[0].get_data()
    ((at, height),) = marks(ax, "largest here").tolist()
    assert (at, height) == (x[np.argmax(y)], max(y))


def test_of_a_logarithmic_function_only_values_far_below_the_largest_are_cut_off(smooth):
    ax = plot_acquisition(smooth, "a", "b")
    filled = next(c for c in ax.collections if isinstance(c, QuadContourSet) and c.filled)
    low, high = filled.levels[[0, -1]]
    assert filled.extend == "min"
    assert high - low >= 10
    label = filled.colorbar.ax.get_ylabel()
    assert f"one colour below {low:.3g}" in label
    # Where measurements are poor, all values lie within e^-12 of the largest.
    poor = run(XY, [(3.0, 0.5), (1.0, 0.5), (2.0, 0.5)], noise="noisy")
    shallow = plot_acquisition(poor, "x", "y", acquisition="log_ei")
    filled = next(c for c in shallow.collections if isinstance(c, QuadContourSet) and c.filled)
    assert filled.extend == "neither"
    assert 4 < np.ptp(filled.levels) < 12
    flat = plot_acquisition(smooth, "a", "b", acquisition="ucb")
    filled = next(c for c in flat.collections if isinstance(c, QuadContourSet) and c.filled)
    assert filled.extend == "neither"
    assert filled.colorbar.ax.get_ylabel() == "upper confidence bound"


def test_the_parameters_with_the_shortest_lengthscales_are_drawn():
    space = {name: Real(0, 1) for name in "abcd"}
    optimizer = Optimizer(Space(space), minimize="loss", noise="none", seed=0, n_start=20)
    for _ in range(20):
        trial = optimizer.ask()
        optimizer.tell(trial, math.sin(9 * trial.params["d"]) + math.cos(8 * trial.params["b"]))
    ax = plot_acquisition(optimizer)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b", "d")
    ax = plot_acquisition(optimizer, fixed={"b": 0.25})
    assert ax.get_ylabel() == "d"
    assert "b = 0.25" in texts(ax)


# --------------------------------------------------------------------------------------
# The posterior
# --------------------------------------------------------------------------------------


def band_edges(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, lower and upper edge of a band that fill_between drew."""
    (band,) = [c for c in ax.collections if c.get_label() == label]
    vertices = band.get_paths()[0].vertices
    n = (len(vertices) - 3) // 2
    lower, upper = vertices[1 : n + 1], vertices[n + 2 : 2 * n + 2][::-1]
    return lower[:, 0], lower[:, 1], upper[:, 1]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_median_and_bands_are_what_the_model_predicts_in_the_users_sign(direction):
    # Four values are too few for a warp: median and bands are mean ± k std.
    values = [3.0, 5.0, -1.0, 2.0]
    optimizer = run({"x": Real(-2, 2)}, values, **{"minimize": None, direction: "y"})
    ax = plot_posterior(optimizer)
    line = next(line for line in ax.lines if line.get_label() == "median")
    x, middle = line.get_data()
    mean, std = optimizer.belief().predict(optimizer.space.encode_many([{"x": v} for v in x]))
    mean = mean if direction == "maximize" else -mean
    np.testing.assert_allclose(middle, mean, rtol=1e-9, atol=1e-9)
    for label, k in (("68 % band", 1), ("95 % band", 2)):
        at, lower, upper = band_edges(ax, label)
        np.testing.assert_allclose(at, x)
        np.testing.assert_allclose(lower, mean - k * std, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(upper, mean + k * std, rtol=1e-6, atol=1e-6)
    best = max(values) if direction == "maximize" else min(values)
    assert marks(ax, "best")[0, 1] == best
    assert sorted(marks(ax, "observed")[:, 1]) == sorted(set(values) - {best})
    # An exact fit passes close by the data, in the user's sign.
    for trial in optimizer.trials:
        assert np.interp(trial.params["x"], x, middle) == pytest.approx(trial.value, abs=1.0)


def test_bands_of_a_warped_model_hold_their_share_of_what_it_believes():
    optimizer = Optimizer(Space({"x": Real(0, 4)}), minimize="loss", seed=0, n_start=12)
    for _ in range(12):
        trial = optimizer.ask()
        optimizer.tell(trial, math.exp(2 * trial.params["x"]))
    belief = optimizer.belief()
    assert type(belief.transform).__name__ == "YeoJohnson"
    ax = plot_posterior(optimizer)
    x, lower, upper = band_edges(ax, "68 % band")
    X = torch.from_numpy(optimizer.space.encode_many([{"x": v} for v in x]))
    mean, std = belief.posterior.marginals(X)
    z = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = -belief.transform.inverse((mean + std * z).numpy())  # (4000, m)
    share = ((draws >= lower) & (draws <= upper)).mean(0)
    assert np.abs(share - 0.683).max() < 4 * math.sqrt(0.683 * 0.317 / 4000)


@pytest.mark.parametrize(("quantity", "k"), [("mean", 0), ("std", 1)])
def test_cells_of_the_posterior_are_what_the_model_predicts(quantity, k):
    space = {"n": Integer(1, 6), "kind": Categorical(["a", "b", "c"])}
    optimizer = run(space, [1.0, 4.0, 2.0, 3.0])
    ax = plot_posterior(optimizer, "n", "kind", quantity=quantity)
    (mesh,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    points = [{"n": n, "kind": kind} for kind in "abc" for n in range(1, 7)]
    moments = optimizer.belief().predict(optimizer.space.encode_many(points))
    wanted = moments[k] if k else -moments[k]
    np.testing.assert_allclose(np.ravel(mesh.get_array()), wanted, rtol=1e-6, atol=1e-9)
    assert ax.get_xticks().tolist() == [1, 2, 3, 4, 5, 6]


def test_the_curve_of_the_uncertainty_is_the_standard_deviation():
    optimizer = run({"x": Real(0, 1)}, [1.0, 4.0, 2.0])
    x, y = plot_posterior(optimizer, quantity="std").lines[0].get_data()
    _, std = optimizer.belief().predict(optimizer.space.encode_many([{"x": v} for v in x]))
    np.testing.assert_allclose(y, std, rtol=1e-6, atol=1e-9)


def test_told_standard_errors_are_drawn():
    optimizer = run({"x": Real(0, 1)}, [1.0, (4.0, 0.5), (2.0, 0.25)], noise="noisy")
    ax = plot_posterior(optimizer)
    (bars,) = ax.containers[-1].lines[2]
    lengths = sorted(np.ptp(segment[:, 1]) for segment in bars.get_segments())
    assert lengths == pytest.approx([0.5, 1.0])


def test_a_band_without_end_does_not_set_the_scale(smooth):
    ax = plot_posterior(smooth, "a")
    low, high = ax.get_ylim()
    middle = next(line for line in ax.lines if line.get_label() == "median").get_ydata()
    assert low <= min(middle)
    assert max(middle) <= high
    assert high - low < 4 * np.ptp(middle) + 4 * np.ptp([t.value for t in complete(smooth)])
