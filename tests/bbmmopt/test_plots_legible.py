"""Facts about pictures one can read: names, small ones, crowded ones, dark backgrounds."""

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import (
    plot_acquisition,
    plot_calibration,
    plot_contours,
    plot_importance,
    plot_parallel,
    plot_pareto,
    plot_posterior,
)
from bbmmopt.plots.style import OFF_SLICE, short
from bbmmopt.space import Categorical, Real, Space
from tests.bbmmopt.pictures import run

pytestmark = pytest.mark.usefixtures("canvas")

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
METHODS = ("conjugate gradients with preconditioner", "Cholesky factorisation", "Lanczos, long")
SIZES = [(7.0, 5.0), (3.4, 2.8)]
PLOTS = [plot_acquisition, plot_posterior, plot_contours, plot_importance, plot_calibration]


@pytest.fixture(scope="module")
def choices() -> Optimizer:
    """Two parameters with long choices, and a number."""
    space = {"month": Categorical(MONTHS), "method": Categorical(METHODS), "x": Real(0, 1)}
    return run(space, [float(i % 7) for i in range(14)])


@pytest.fixture(scope="module")
def trade_off() -> Optimizer:
    optimizer = Optimizer(Space({"x": Real(0, 1)}), minimize=["cost", "time"], seed=0, n_start=8)
    for _ in range(8):
        trial = optimizer.ask()
        x = trial.params["x"]
        optimizer.tell(trial, {"cost": x**2, "time": (x - 1) ** 2 + (x > 0.6)})
    optimizer.ask()
    return optimizer


def of_size(size: tuple[float, float]) -> Axes:
    return plt.subplots(figsize=size, layout="constrained")[1]


def stays_inside(ax: Axes) -> None:
    """What is drawn lies in its figure."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01 and box.y1 <= height + 0.01


def lightness(colour: object) -> float:
    return float(np.dot(to_rgb(colour), (0.3, 0.59, 0.11)))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------


def test_long_names_that_differ_at_one_end_are_not_shortened_to_the_same():
    names = [f"learning_rate_of_layer_{i}" for i in range(10, 20)]
    assert len({short(name) for name in names}) == 10
    assert max(len(short(name)) for name in names) == 24
    assert len({short(f"{i}_th_learning_rate_of_all") for i in range(10)}) == 10
    assert short("September", 6) == "Septe…"
    assert short("two\nlines") == "two lines"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", [("month",), ("month", "method")])
def test_choices_are_written_side_by_side(choices, names, size):
    ax = plot_posterior(choices, *names, ax=of_size(size))
    stays_inside(ax)
    labels = ax.get_xticklabels()
    assert [label.get_text() for label in labels] == list(MONTHS)
    angle = math.radians(labels[0].get_rotation())
    ends = [label.get_window_extent() for label in labels]
    pixels = labels[0].get_fontsize() * ax.figure.dpi / 72
    for one, other in pairwise(ends):
        # Across turned lines of text, less what capitals leave free.
        assert (other.x1 - one.x1) * math.sin(angle) >= 0.75 * pixels
    legend = ax.get_legend().get_window_extent()
    assert legend.y1 <= ax.xaxis.label.get_window_extent().y0 + 1


def test_choices_that_fit_are_not_turned(choices):
    labels = plot_posterior(choices, "method").get_xticklabels()
    assert [label.get_rotation() for label in labels] == [0, 0, 0]
    assert len(labels[0].get_text()) >= 14


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("plot", [*PLOTS, plot_parallel])
def test_long_names_stay_within_the_picture(plot, size):
    space = {"parameter " + "p" * 50: Real(0, 1), "q" * 60: Real(0, 1)}
    optimizer = run(space, [1.0, 3.0, 2.0, 4.0, 2.5, 0.5], minimize="objective " + "o" * 50)
    drawn = plot(optimizer, ax=of_size(size))
    stays_inside(drawn[0, 0] if isinstance(drawn, np.ndarray) else drawn)


# --------------------------------------------------------------------------------------
# Crowded pictures
# --------------------------------------------------------------------------------------


def test_many_parallel_axes_get_a_wider_figure_and_no_number_touches_its_neighbour():
    optimizer = run({f"parameter_{i}": Real(1e-5, 1, log=True) for i in range(20)}, [1.0, 2.0])
    wide, _ = plot_parallel(optimizer).figure.get_size_inches()
    assert 10 < wide <= 20
    for ax in (plot_parallel(optimizer), plot_parallel(optimizer, ax=of_size((3.4, 2.8)))):
        stays_inside(ax)
        texts = [t for t in ax.texts if isinstance(t, Annotation) and isinstance(t.xy, tuple)]
        boxes = [(t.xy, t.get_window_extent()) for t in texts if t.get_text()]
        for (x, y), box in boxes:
            for (other_x, other_y), other in boxes:
                if other_x == x + 1 and other_y == y:
                    assert not box.overlaps(other)
        names = [label.get_window_extent() for label in ax.get_xticklabels()[:20]]
        assert ax.get_legend().get_window_extent().y1 <= min(box.y0 for box in names) + 1


def test_one_bar_does_not_fill_the_picture():
    ax = plot_importance(run({"x": Real(0, 1)}, [1.0, 3.0, 2.0, 0.0]))
    low, high = sorted(ax.get_ylim())
    assert max(bar.get_height() for bar in ax.patches) < 0.3 * (high - low)


def test_the_next_point_is_not_hidden_by_the_largest_here(mixed):
    ax = plot_acquisition(mixed, "C", fixed={"kernel": "poly"})
    layers = {c.get_label(): c.get_zorder() for c in ax.collections}
    assert layers[OFF_SLICE + "next"] > layers["largest here"]


def test_a_power_of_ten_stands_in_its_panel_and_not_in_the_title():
    optimizer = run({"x": Real(0, 1), "y": Real(0, 1)}, [1e-12, 3e-12, 2e-12, 5e-12, 4e-12])
    panels = plot_contours(optimizer)
    figure = panels[0, 0].figure
    figure.canvas.draw()
    for ax in (panels[0, 0], panels[1, 1]):
        assert not ax.yaxis.offsetText.get_visible()
        # What the labels are to be multiplied by, as matplotlib wrote it.
        power = ax.yaxis.get_major_formatter().get_offset()
        assert power and power in [text.get_text() for text in ax.texts]
    titles = [ax.get_title() for ax in figure.findobj(Axes)]
    assert any(t.startswith("loss (") and "1e" in t for t in titles)


def test_the_panels_of_contours_stand_evenly_under_a_long_title():
    space = {name: Real(0, 1) for name in "abc"}
    optimizer = run(space, [1.0, 3.0, 2.0, 4.0, 2.5], minimize="validation loss of the whole set")
    panels = plot_contours(optimizer, ax=of_size((4.5, 4.5)))
    panels[0, 0].figure.canvas.draw()
    boxes = [ax.get_window_extent() for ax in panels[2]]
    gaps = [right.x0 - left.x1 for left, right in pairwise(boxes)]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.1)
    heading, note = (text.get_window_extent() for text in panels[0, 0].texts[:2])
    top = panels[0, 0].get_window_extent().y1
    assert heading.y0 > note.y0 + 5 > top
    assert not Bbox.intersection(heading, note) or heading.y0 >= note.y1 - 3


def test_a_small_matrix_of_panels_has_room_for_its_legend():
    optimizer = run({name: Real(0, 1) for name in "abcd"}, [1.0, 3.0, 2.0, 4.0, 2.5])
    optimizer.ask()
    optimizer.tell(optimizer.ask(), failed="diverged")
    panels = plot_contours(optimizer, list("abcd"), ax=of_size((3.4, 3.4)))
    figure = panels[0, 0].figure
    figure.canvas.draw()
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    box = legend.get_window_extent()
    assert not any(ax.get_window_extent().overlaps(box) for ax in panels[np.tril_indices(4)])


def test_legends_explain_what_the_model_believes_before_the_marks(trade_off):
    legend = plot_pareto(trade_off, belief=True).get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    wanted = ["80 % band", "expected front", "dominated", "pending", "on the front"]
    assert [word for word in words if word in wanted] == wanted


# --------------------------------------------------------------------------------------
# Dark backgrounds
# --------------------------------------------------------------------------------------


def test_lines_and_letters_are_seen_on_a_dark_background(choices, trade_off):
    with plt.style.context("dark_background"):
        front = plot_pareto(trade_off)
        rails = plot_parallel(choices)
        bars = plot_importance(choices)
        for ax in (front, rails, bars):
            ax.figure.canvas.draw()
    assert lightness(front.get_facecolor()) == 0
    assert min(lightness(line.get_color()) for line in front.lines) > 0.5
    assert min(lightness(line.get_color()) for line in rails.lines[: len(choices.space) + 1]) > 0.5
    for text in rails.texts:
        (halo,) = text.get_path_effects()
        assert lightness(text.get_color()) - lightness(halo._gc["foreground"][:3]) > 0.5
    for whiskers in bars.containers:
        for line in getattr(whiskers, "lines", (None, (), ()))[2]:
            assert lightness(line.get_color()[0][:3]) > 0.5
