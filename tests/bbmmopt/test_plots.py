"""Facts about pictures: what is drawn, held against what the optimizer says."""

import math
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots import plot_acquisition, plot_history, plot_posterior
from bbmmopt.plots.style import OFF_SLICE
from bbmmopt.plots.surface import Range
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from bbmmopt.storage import UnknownStudy

SURFACES = [plot_acquisition, plot_posterior]
EVERY = [*SURFACES, plot_history]


@pytest.fixture(autouse=True)
def canvas() -> Iterator[None]:
    """Draw without a window; leave nothing behind, neither figures nor settings."""
    plt.switch_backend("Agg")
    before = mpl.rcParams.copy()
    assert plt.get_fignums() == []
    yield
    assert dict(mpl.rcParams) == dict(before)
    plt.close("all")


def bowl(a: float, b: float) -> float:
    return (math.log10(a) - 0.5) ** 2 + (b - 3.2) ** 2 / 8


@pytest.fixture(scope="module")
def smooth() -> Optimizer:
    """Two parameters, one of them log; complete, failed, running and waiting trials."""
    space = Space({"a": Real(1e-2, 1e3, log=True), "b": Real(0, 10)})
    optimizer = Optimizer(space, minimize="loss", noise="none", seed=0, n_start=5)
    for number in range(12):
        trial = optimizer.ask()
        if number in (3, 8):
            optimizer.tell(trial, failed="diverged")
        else:
            optimizer.tell(trial, bowl(**trial.params))
    optimizer.ask(2)
    optimizer.enqueue({"a": 50.0, "b": 9.0})
    return optimizer


@pytest.fixture(scope="module")
def mixed() -> Optimizer:
    """A conditional space with every kind of parameter."""
    space = Space(
        {
            "C": Real(1e-3, 1e3, log=True),
            "kernel": Categorical(["rbf", "poly"]),
            "degree": Integer(2, 5, when={"kernel": "poly"}),
            "size": Ordinal([16, 32, 64]),
            "width": Integer(1, 300, log=True),
            "one": Real(7, 7),
        }
    )

    def score(C: float, kernel: str, size: int, width: int, one: float, degree: int = 0) -> float:
        return (
            (kernel == "rbf") - math.log10(C) ** 2 - degree / 10 - size / 64 - math.log(width) / 9
        )

    optimizer = Optimizer(space, maximize="score", seed=1, n_start=8)
    for _ in range(14):
        trial = optimizer.ask()
        optimizer.tell(trial, score(**trial.params))
    assert optimizer.best.params["kernel"] == "rbf"
    return optimizer


def run(space: dict, values: list[float], **options) -> Optimizer:
    optimizer = Optimizer(Space(space), **{"minimize": "loss", "seed": 0} | options)
    for value in values:
        optimizer.tell(optimizer.ask(), value)
    return optimizer


def marks(ax: Axes, label: str) -> np.ndarray:
    """Coordinates of the marks of this label, shape (n, 2)."""
    found = [c for c in ax.collections if c.get_label() == label]
    return np.concatenate([np.asarray(c.get_offsets()) for c in found] or [np.empty((0, 2))])


def texts(ax: Axes) -> str:
    return "\n".join(text.get_text() for text in (ax.title, *ax.texts))


def acquisition_at(optimizer: Optimizer, points: list[dict], name: str | None = None):
    X = torch.from_numpy(optimizer.space.encode_many(points)).unsqueeze(-2)
    with torch.no_grad():
        return optimizer.acquisition(name)(X).numpy()


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


def complete(optimizer: Optimizer):
    return [t for t in optimizer.trials if t.state == "complete"]


# --------------------------------------------------------------------------------------
# Marks, held values, axes
# --------------------------------------------------------------------------------------


def test_every_trial_is_marked_by_its_state_at_its_place(smooth):
    ax = plot_acquisition(smooth, "a", "b")
    states = {"observed": ["complete"], "failed": ["failed"], "pending": ["running", "waiting"]}
    for label, wanted in states.items():
        places = [[t.params["a"], t.params["b"]] for t in smooth.trials if str(t.state) in wanted]
        assert marks(ax, label).tolist() == places
    assert [len(marks(ax, label)) for label in states] == [10, 2, 3]
    ax = plot_posterior(smooth, "a", "b")
    assert len(marks(ax, "observed")) == 9
    best = smooth.best.params
    assert marks(ax, "best").tolist() == [[best["a"], best["b"]]]


def test_trials_off_the_slice_are_fainter_and_the_legend_says_so(smooth):
    ax = plot_posterior(smooth, "a", fixed={"b": smooth.trials[1].params["b"]})
    on, off = ([c for c in ax.collections if c.get_label() == p + "observed"] for p in OFF_SLICE_OR)
    assert len(on[0].get_offsets()) == 1
    assert off[0].get_alpha() < 1 and off[0].get_sizes()[0] < on[0].get_sizes()[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "fainter: off this slice" in labels
    assert not any(label.startswith("_") for label in labels)
    whole = plot_acquisition(smooth, "a", "b").get_legend()
    assert [t.get_text() for t in whole.get_texts()] == ["observed", "failed", "pending", "next"]


OFF_SLICE_OR = ("", OFF_SLICE)


@pytest.mark.parametrize("plot", SURFACES)
def test_held_values_are_the_best_trials_and_stand_over_the_picture(mixed, plot):
    ax = plot(mixed, "C")
    best = mixed.best.params
    assert f"held: kernel = rbf, size = {best['size']}, width = {best['width']}" in texts(ax)
    assert "degree" not in texts(ax)  # does not matter with rbf
    assert "one =" not in texts(ax)  # has no other value


@pytest.mark.parametrize("plot", SURFACES)
def test_many_held_values_are_shortened(plot):
    optimizer = run({f"parameter {i}": Real(0, 1) for i in range(40)}, [1.0, 2.0])
    ax = plot(optimizer, "parameter 0")
    (held,) = [text.get_text() for text in ax.texts if "held:" in text.get_text()]
    lines = held.split("\n")
    assert len(lines) <= 4
    shown = held.count(" = ")
    assert f"and {39 - shown} more" in held


@pytest.mark.parametrize("plot", SURFACES)
def test_trials_without_a_place_are_counted(mixed, plot):
    ax = plot(mixed, "degree", fixed={"kernel": "poly"})
    without = sum("degree" not in trial.params for trial in mixed.trials)
    assert f"not shown: {without} without degree" in texts(ax)
    assert [tick for tick in ax.get_xticks() if tick % 1] == []


@pytest.mark.parametrize("plot", SURFACES)
def test_a_trial_beyond_the_bounds_is_not_shown_but_counted(plot):
    optimizer = run({"x": Real(0, 1), "y": Real(0, 1)}, [1.0, 2.0, 3.0])
    optimizer.add_trial({"x": 5.0, "y": 0.5}, 0.5, outside=True)
    ax = plot(optimizer, "x", "y")
    assert "not shown: 1 out of view" in texts(ax)
    assert ax.get_xlim() == (0, 1)


@pytest.mark.parametrize("plot", SURFACES)
def test_log_parameters_have_log_axes_and_integers_integer_ticks(mixed, plot):
    ax = plot(mixed, "width", "C")
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_ylim() == (1e-3, 1e3)
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert ticks and all(tick == round(tick) for tick in ticks)


@pytest.mark.parametrize("plot", SURFACES)
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (None, None),
        ("kernel", None),
        ("size", None),
        ("width", None),
        ("C", "kernel"),
        ("kernel", "degree"),
        ("width", "C"),
    ],
)
def test_any_pair_of_parameters_can_be_drawn_and_nothing_is_clipped(mixed, plot, x, y):
    figure = plot(mixed, x, y).figure
    figure.canvas.draw()
    outside = figure.get_tightbbox()
    assert outside.x0 >= 0 and outside.y0 >= 0
    width, height = figure.get_size_inches()
    assert outside.x1 <= width and outside.y1 <= height


@pytest.mark.parametrize("plot", EVERY)
def test_a_legend_hides_nothing(smooth, plot):
    for figsize in ((7, 5), (4, 3.5)):
        figure, ax = plt.subplots(figsize=figsize, layout="constrained")
        plot(smooth, ax=ax)
        figure.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        label = ax.xaxis.label.get_window_extent()
        assert legend.y1 <= label.y0 + 1
        assert legend.y0 >= 0


@pytest.mark.parametrize("plot", EVERY)
def test_without_a_layout_engine_the_legend_goes_inside(smooth, plot):
    figure, ax = plt.subplots()
    assert plot(smooth, ax=ax) is ax
    figure.canvas.draw()
    legend, frame = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert frame.y0 <= legend.y0 and legend.y1 <= frame.y1


@pytest.mark.parametrize("plot", EVERY)
def test_the_legend_can_be_left_out(smooth, plot):
    assert plot(smooth, legend=False).get_legend() is None


# --------------------------------------------------------------------------------------
# History
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_history_shows_each_value_and_the_best_so_far(direction):
    values = [3.0, 5.0, 1.0, 2.0, 6.0, 0.5]
    optimizer = run({"x": Real(0, 1)}, values, **{"minimize": None, direction: "y"})
    ax = plot_history(optimizer)
    assert marks(ax, "value").tolist() == [[i, v] for i, v in enumerate(values)]
    accumulate = np.minimum if direction == "minimize" else np.maximum
    (step,) = [line for line in ax.lines if line.get_label() == "best so far"]
    assert step.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(step.get_ydata()[:-1], accumulate.accumulate(values))
    k = int(np.argmin(values) if direction == "minimize" else np.argmax(values))
    assert marks(ax, "best").tolist() == [[k, values[k]]]
    assert f"{values[k]:g} (trial {k})" in texts(ax)
    assert ax.get_ylabel() == f"y ({direction}d)"


def test_history_shades_the_start_and_ticks_the_failures(smooth):
    ax = plot_history(smooth)
    (shade,) = ax.patches
    assert (shade.get_x(), shade.get_width()) == (-0.5, 5)
    ticks = marks(ax, "failed")
    assert ticks[:, 0].tolist() == [3, 8]
    assert (ticks[:, 1] > 0.9).all()  # in fractions of the axes: the bad edge
    assert "10 complete, 2 failed, 2 running" in texts(ax)


def test_regret_is_the_distance_from_the_optimum_on_a_log_scale():
    values = [3.0, 5.0, 1.0, 2.0]
    for direction, optimum in (("minimize", 0.5), ("maximize", 5.0)):
        optimizer = run({"x": Real(0, 1)}, values, **{"minimize": None, direction: "y"})
        ax = plot_history(optimizer, optimum=optimum)
        assert ax.get_yscale() == "log"
        regret = np.abs(np.array(values) - optimum)
        shown = marks(ax, "value")[:, 1]
        np.testing.assert_allclose(shown[regret > 0], regret[regret > 0])
        assert (shown > 0).all()
        low, high = ax.get_ylim()
        assert low < shown.min() and shown.max() < high


def test_a_value_better_than_the_optimum_is_an_error():
    optimizer = run({"x": Real(0, 1)}, [3.0, 1.0])
    with pytest.raises(ValueError, match=r"trial 1 has loss = 1, better than optimum=2\.0"):
        plot_history(optimizer, optimum=2.0)
    with pytest.raises(ValueError, match="optimum must be finite"):
        plot_history(optimizer, optimum=math.nan)
    assert plt.get_fignums() == []


def test_a_few_hopeless_values_do_not_set_the_scale():
    values = [1e6, 5.0, 4.0, 3.5, 3.0, 2.9, 2.8, 2.7, 2.6, 2.5]
    ax = plot_history(run({"x": Real(0, 1)}, values))
    assert ax.get_ylim()[1] < 10
    assert marks(ax, "beyond the scale")[:, 0].tolist() == [0]
    assert len(marks(ax, "value")) == 9


def test_one_of_several_objectives_is_chosen_by_name():
    optimizer = Optimizer(
        {"x": Real(0, 1)}, minimize="cost", maximize="gain", constraints="heat", seed=0
    )
    for value in (3.0, 1.0, 2.0):
        told = {"cost": value, "gain": 10 * value, "heat": 1.5 - value}
        optimizer.tell(optimizer.ask(), told)
    ax = plot_history(optimizer, name="gain")
    assert marks(ax, "value")[:, 1].tolist() == [30, 20]
    assert len(marks(ax, "infeasible")) == 1
    assert marks(ax, "best").tolist() == [[0, 30]]
    ax = plot_history(optimizer, name="cost")
    assert marks(ax, "best").tolist() == [[2, 2.0]]  # the cheapest, trial 1, is infeasible
    with pytest.raises(ValueError, match="pass name=, one of 'cost', 'gain'"):
        plot_history(optimizer)
    with pytest.raises(ValueError, match=r"no objective 'gian'.*Did you mean 'gain'"):
        plot_history(optimizer, name="gian")
    with pytest.raises(ValueError, match="several objectives"):
        plot_posterior(optimizer)
    ax = plot_acquisition(optimizer)
    assert ax.get_title(loc="left").startswith("Log expected hypervolume improvement") or (
        "hypervolume" in ax.get_title() + ax.get_ylabel()
    )


# --------------------------------------------------------------------------------------
# What is refused, and what is left behind
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", SURFACES)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": "Cc"}, ValueError, "x must be a parameter of the space; got 'Cc'.*Did you mean 'C'"),
        ({"x": "C", "y": "zzz"}, ValueError, "got 'zzz'. The space has 'C'"),
        ({"y": "C"}, ValueError, "y='C' needs an x as well"),
        ({"x": "C", "y": "C"}, ValueError, "x and y are both 'C'"),
        ({"x": "C", "fixed": {"C": 1.0}}, ValueError, "'C' is both x and fixed"),
        ({"x": "one"}, ValueError, "'one' has a single value"),
        ({"x": "degree"}, ValueError, r"needs 'kernel' to be 'poly'. Pass fixed={'kernel': 'poly'"),
        ({"fixed": {"degree": 3}}, ValueError, "'degree' is not active on this slice"),
        ({"fixed": {"C": -1.0}}, ValueError, r"fixed: parameter 'C': -1.0 is outside"),
        ({"fixed": {"nope": 1}}, ValueError, "unknown parameter 'nope'"),
        ({"ax": [1]}, TypeError, "ax must be one matplotlib Axes"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(mixed, plot, options, error, message):
    figure, ax = plt.subplots()
    with pytest.raises(error, match=message):
        plot(mixed, **{"ax": ax} | options)
    assert not ax.has_data() and ax.get_title() == ""
    assert plt.get_fignums() == [figure.number]


def test_unknown_words_are_refused(mixed):
    with pytest.raises(ValueError, match='quantity must be "mean" or "std"'):
        plot_posterior(mixed, quantity="variance")
    with pytest.raises(ValueError, match="'ei'"):
        plot_acquisition(mixed, acquisition="ei")
    assert plt.get_fignums() == []


def test_the_advice_for_an_inactive_parameter_works(mixed):
    ax = plot_posterior(mixed, "degree", fixed={"kernel": "poly"})
    assert ax.get_xlabel() == "degree"


@pytest.mark.parametrize("plot", EVERY)
def test_without_data_the_error_says_what_there_is(plot):
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0)
    with pytest.raises(NoCompleteTrial, match=r"has (none|0 unfinished)"):
        plot(optimizer)
    optimizer.ask()
    with pytest.raises(NoCompleteTrial, match=r"has 1 (running|unfinished)"):
        plot(optimizer)
    assert plt.get_fignums() == []


def test_only_failed_trials_make_a_history_but_no_model():
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0)
    for _ in range(3):
        optimizer.tell(optimizer.ask(), failed="diverged")
    ax = plot_history(optimizer, optimum=0.0)
    assert len(marks(ax, "failed")) == 3
    for plot in SURFACES:
        with pytest.raises(NoCompleteTrial, match="has 3 failed"):
            plot(optimizer)


@pytest.mark.parametrize("plot", EVERY)
def test_a_figure_is_made_only_when_no_axes_are_given(smooth, plot):
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    assert plot(smooth, ax=ax) is ax
    assert plt.get_fignums() == []
    assert isinstance(plot(smooth), Axes)
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("plot", EVERY)
def test_plotting_changes_nothing_in_the_study(plot):
    optimizer = run({"x": Real(0, 1), "y": Real(0, 1)}, [1.0, 3.0, 2.0, 4.0, 5.0, 6.0])
    twin = run({"x": Real(0, 1), "y": Real(0, 1)}, [1.0, 3.0, 2.0, 4.0, 5.0, 6.0])
    before = optimizer.trials
    plot(optimizer)
    assert optimizer.trials == before
    assert optimizer.ask().params == twin.ask().params


@pytest.mark.parametrize("plot", EVERY)
@pytest.mark.parametrize(
    "values",
    [[5.0], [2.0] * 6, [1e300, -1e300, 3e299, 1.0, 2.0, 5e298], [1e-300, 2e-300, 0.0]],
    ids=["one", "constant", "huge", "tiny"],
)
def test_unusual_values_are_drawn(plot, values):
    for space in ({"x": Real(0, 1)}, {"x": Real(0, 1), "y": Integer(1, 9)}, XY):
        plot(run(space, values)).figure.canvas.draw()


XY = {"x": Real(0, 1), "y": Real(1, 1e4, log=True)}


@pytest.mark.parametrize("plot", EVERY)
def test_a_dollar_in_a_name_is_a_dollar(plot):
    space = {"a$b_c$": Real(0, 1), "k^$": Categorical(["$x_1^$", "$\\y$", "plain"])}
    optimizer = run(space, [1.0, 3.0, 2.0], minimize="$loss_{$")
    for names in ((), ("a$b_c$", "k^$")):
        ax = plot(optimizer, *(names if plot is not plot_history else ()))
        ax.figure.canvas.draw()
        # Text that matplotlib takes for a formula would not be found so.
        written = [text for text in ax.figure.findobj(Text) if "loss" in text.get_text()]
        assert not any(text._preprocess_math(text.get_text())[1] is True for text in written)


def test_a_range_is_cut_only_where_values_go_beyond():
    values = np.array([-100.0, -3.0, -2.0, -1.0])
    assert Range.of(values) == Range(-100.0, -1.0, "neither")
    assert Range.of(values, low=-4.0) == Range(-4.0, -1.0, "min")
    assert Range.of(values, high=-2.5) == Range(-100.0, -2.5, "max")
    assert Range.of(values, low=-4.0, high=-2.5) == Range(-4.0, -2.5, "both")
    assert Range.of(values, low=-200.0, high=7.0) == Range(-100.0, -1.0, "neither")
    constant = Range.of(np.full(3, 5.0))
    assert constant.low < 5 < constant.high


# --------------------------------------------------------------------------------------
# What pictures stand on: Optimizer.preview and Optimizer.open
# --------------------------------------------------------------------------------------


def test_preview_is_what_ask_then_suggests_and_stores_nothing():
    optimizer = Optimizer({"x": Real(0, 1), "n": Integer(1, 9)}, minimize="loss", seed=5, n_start=4)
    for value in (3.0, 1.0, 2.0, 4.0, 0.5, 0.7):
        before = optimizer.trials
        seen = optimizer.preview(fixed={"n": 3}), optimizer.preview()
        assert optimizer.trials == before
        assert seen[0].params["n"] == 3
        trial = optimizer.ask()
        assert (trial.number, trial.params, trial.origin) == (
            seen[1].number,
            seen[1].params,
            seen[1].origin,
        )
        optimizer.tell(trial, value)


def test_preview_of_another_acquisition_function_is_what_its_own_study_would_ask():
    options = {"minimize": "loss", "seed": 5, "n_start": 4}
    values = [3.0, 1.0, 2.0, 4.0]
    expected_improvement = run(XY, values, **options)
    bound = run(XY, values, **options, acquisition="ucb")
    assert expected_improvement.preview(acquisition="ucb").params == bound.ask().params
    with pytest.raises(ValueError, match="acquisition must be one of"):
        bound.preview(acquisition="nope")


def test_an_opened_study_makes_the_same_pictures(tmp_path):
    path = tmp_path / "study.db"
    with run(XY, [3.0, 1.0, 2.0, 4.0, 5.0, 6.0], storage=path, acquisition="ucb") as optimizer:
        wanted = marks(plot_acquisition(optimizer), "next")
    with Optimizer.open(path) as opened:
        ax = plot_acquisition(opened)
        assert ax.get_title().startswith("Upper confidence bound")
        np.testing.assert_array_equal(marks(ax, "next"), wanted)
        with pytest.raises(UnknownStudy, match=r"no study 'other'.*there are: 'default'"):
            Optimizer.open(path, "other")
        # A storage given stays open.
        with pytest.raises(UnknownStudy):
            Optimizer.open(opened.storage, "other")
        assert len(opened.trials) == 6
    with pytest.raises(UnknownStudy, match="there is no file"):
        Optimizer.open(tmp_path / "typo.db")
    assert [file.name for file in tmp_path.glob("typo*")] == []


def test_the_value_from_which_on_the_model_tells_no_difference_is_named():
    values = [1.0, 1.1, 1.2, 1.05, 1.15, 1.12, 1.3, 1.25, 1000.0]
    lower, upper = np.quantile(values, [0.25, 0.75])
    optimizer = run({"x": Real(0, 1), "y": Real(0, 1)}, values)
    cut = f"{upper + 1.5 * (upper - lower):.3g}"
    named = f"loss\n(the model takes values above {cut} as {cut})"
    assert plot_posterior(optimizer, "x").get_ylabel() == named


def test_nothing_is_said_of_a_cut_that_cut_nothing():
    optimizer = run({"x": Real(0, 1), "y": Real(0, 1)}, [1.0, 1.1, 1.2, 1.05, 1.15, 1.12, 1.3])
    assert plot_posterior(optimizer, "x").get_ylabel() == "loss"
