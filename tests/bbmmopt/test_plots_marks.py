"""Facts about pictures: marks of trials, held values, axes and legends."""

import matplotlib.pyplot as plt
import pytest

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import plot_acquisition, plot_posterior
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
    assert "faint: off this slice" in labels
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


def test_of_several_objectives_the_hypervolume_improvement_is_drawn():
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="cost", maximize="gain", seed=0)
    for value in (3.0, 1.0, 2.0):
        optimizer.tell(optimizer.ask(), {"cost": value, "gain": 10 * value})
    ax = plot_acquisition(optimizer)
    assert "hypervolume" in ax.get_title() + ax.get_ylabel()
