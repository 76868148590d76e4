"""Facts about pictures: marks of trials, held values, axes, legends, and the history."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import plot_acquisition, plot_history, plot_posterior
from bbmmopt.plots.style import OFF_SLICE
from bbmmopt.space import Real
from tests.bbmmopt.pictures import EVERY, SURFACES, marks, run, texts

pytestmark = pytest.mark.usefixtures("canvas")


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
