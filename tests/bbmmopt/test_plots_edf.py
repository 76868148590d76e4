"""Facts about plot_edf: the share of trials that found a value this good."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.lines import Line2D

from bbmmopt import NoCompleteTrial, Real, Study
from bbmmopt.plots import edf_data, plot_edf
from tests.bbmmopt.pictures import texts
from tests.bbmmopt.told import study_of, study_told

pytestmark = pytest.mark.usefixtures("canvas")


def height(line: Line2D, x: float) -> float:
    """How high a step curve is at a place between its steps."""
    at, heights = map(np.asarray, line.get_data())
    if line.get_drawstyle() == "steps-post":
        return float(heights[np.searchsorted(at, x, side="right") - 1])
    assert line.get_drawstyle() == "steps-pre"
    return float(heights[np.searchsorted(at, x, side="left")])


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_curve_is_the_share_of_trials_at_least_this_good(direction):
    generator = np.random.default_rng(0)
    values = generator.integers(0, 9, size=40).astype(float).tolist()  # with ties
    values[3] = values[7] = None
    ax = plot_edf(study_told(values, **{"minimize": None, direction: "y"}))
    (line,) = ax.lines
    low, high = ax.get_xlim()
    for x in np.arange(-0.5, 9.0):
        good = [v is not None and (v <= x if direction == "minimize" else v >= x) for v in values]
        if low < x < high and 0 < sum(good) < 38:
            assert height(line, x) == pytest.approx(np.mean(good))
    best = min if direction == "minimize" else max
    at, shares = line.get_data()
    known = [v for v in values if v is not None]
    # From no trial at the best value to all that have one at the edge of the picture.
    ends = (0, -1) if direction == "minimize" else (-1, 0)
    assert (at[ends[0]], shares[ends[0]]) == (best(known), 0.0)
    assert shares[ends[1]] == pytest.approx(38 / 40)
    assert at[ends[1]] in (low, high)
    assert ax.get_xlabel() == f"y ({direction}d)"
    assert "2 of 40 trials never reached a value" in texts(ax)


def test_what_failed_was_stopped_or_broke_a_constraint_never_reached_a_value():
    study = Study({"x": Real(0, 1)}, minimize="loss", constraints="heat", seed=0)
    study.add_trial({"x": 0.1}, {"loss": 1.0, "heat": 1.0})  # infeasible
    study.add_trial({"x": 0.2}, {"loss": 2.0, "heat": -1.0})
    study.add_trial({"x": 0.2}, {"loss": 2.0, "heat": -1.0})
    study.add_trial({"x": 0.3}, {"loss": 5.0, "heat": -1.0})
    study.enqueue({"x": 0.4})  # not finished: does not count
    told = study.claim()
    study.tell(told, failed="diverged")
    table = edf_data(study)
    assert table["value"].tolist() == [2.0, 5.0]
    np.testing.assert_allclose(table["share"], [2 / 5, 3 / 5])
    assert table.facts == {
        "name": "loss",
        "direction": "minimize",
        "finished": {"default": 5},
        "without": {"default": 2},
    }
    pruned = edf_data(study_of([{"state": "pruned"}, {"value": 3.0}]))
    assert pruned["share"].tolist() == [0.5]


def test_each_study_is_a_curve_and_repeats_are_counted_together():
    studies = {"a": [study_told([1.0, 2.0]), study_told([3.0])], "b": study_told([2.0, None])}
    ax = plot_edf(studies)
    first, second = ax.lines
    assert [str(line.get_label()) for line in ax.lines] == ["a (3 trials)", "b (2 trials)"]
    assert [height(first, x) for x in (1.5, 2.5)] == pytest.approx([1 / 3, 2 / 3])
    assert height(second, 2.5) == 0.5
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_data()[0][-1] == second.get_data()[0][-1] == ax.get_xlim()[1]
    table = edf_data(studies)
    assert table["study"].tolist() == ["a", "a", "a", "b"]


def test_a_study_that_never_reached_a_value_has_a_name_but_no_curve():
    ax = plot_edf([study_told([1.0, 2.0]), study_told([None])])
    assert len(ax.lines[1].get_xdata()) == 0
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["default (1) (2 trials)", "default (2) (1 trial)"]


def test_a_few_hopeless_values_lie_beyond_the_scale():
    ax = plot_edf(study_told([1e9, *np.linspace(0, 1, 20)]))
    assert ax.get_xlim()[1] < 2
    assert height(ax.lines[0], 1.01) == pytest.approx(20 / 21)
    assert "1 lies beyond the scale" in texts(ax)


def test_without_a_feasible_value_there_is_no_distribution():
    for draw in (edf_data, plot_edf):
        with pytest.raises(NoCompleteTrial, match="there are 2 finished ones"):
            draw(study_told([None, None]))
    with pytest.raises(ValueError, match="same objective"):
        plot_edf([study_told([1.0]), study_told([1.0], minimize="error")])
    assert plt.get_fignums() == []


@pytest.mark.parametrize("values", [[5.0], [2.0] * 6, [1e300, -1e300, 3e299], [1e-300, 0.0]])
@pytest.mark.parametrize("figsize", [(7, 5), (3.4, 2.8)])
def test_unusual_values_are_drawn(values, figsize):
    figure, ax = plt.subplots(figsize=figsize, layout="constrained")
    plot_edf({"a $name$ of a study that is long": study_told(values)}, ax=ax)
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.y1 <= figsize[1]
