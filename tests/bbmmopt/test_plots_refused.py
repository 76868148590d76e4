"""Facts about pictures: what is refused, what is left behind, and what they stand on."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots import plot_acquisition, plot_history, plot_posterior
from bbmmopt.plots.surface import Range
from bbmmopt.space import Categorical, Integer, Real
from bbmmopt.storage import UnknownStudy
from tests.bbmmopt.pictures import EVERY, SURFACES, XY, marks, run, texts

pytestmark = pytest.mark.usefixtures("canvas")


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


def test_a_mistyped_name_of_an_output_or_a_function_is_guessed(mixed):
    with pytest.raises(ValueError, match=r"no output 'scor'.*Did you mean 'score'\?"):
        plot_posterior(mixed, name="scor")
    with pytest.raises(ValueError, match=r"no acquisition 'logei'.*Did you mean 'log_ei'\?"):
        plot_acquisition(mixed, acquisition="logei")


@pytest.mark.parametrize("plot", EVERY)
def test_a_directory_is_not_called_a_missing_file(plot, tmp_path):
    with pytest.raises(UnknownStudy, match="That is a directory: name the file in it"):
        plot(tmp_path)


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
    ax = plot_posterior(optimizer, "x")
    assert f"the model takes values above {cut} as {cut}" in texts(ax)
    assert ax.get_ylabel() == "loss"


def test_nothing_is_said_of_a_cut_that_cut_nothing():
    optimizer = run({"x": Real(0, 1), "y": Real(0, 1)}, [1.0, 1.1, 1.2, 1.05, 1.15, 1.12, 1.3])
    assert "takes values" not in texts(plot_posterior(optimizer, "x"))
