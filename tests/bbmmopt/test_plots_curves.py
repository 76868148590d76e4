"""Facts about plot_curves: what trials reported, and how the stopped ones would have ended."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from bbmmopt import NoCompleteTrial, Optimizer, Real, Study
from bbmmopt.plots import curves_data, plot_curves
from tests.bbmmopt.pictures import texts
from tests.bbmmopt.told import study_of

pytestmark = pytest.mark.usefixtures("canvas")

NAN = math.nan

# Reports of each step 1, 2 …; then the state, and the value if it is complete.
COMPLETE = [([4.0, 2.0, 1.0], 1.0), ([5.0, 4.0, 2.0], 2.0), ([6.0, 3.5, 3.0], 3.0)]
STOPPED = [[7.0], [8.0, 6.0]]


def reported(curves: list[tuple[list[float], dict]], **options) -> Study:
    """A study of trials that reported these values."""
    study = study_of([fields for _, fields in curves], **options)
    for number, (values, _) in enumerate(curves):
        for step, value in enumerate(values, 1):
            study.report(number, step, value)
    return study


def typical(sign: float = 1.0, **options) -> Study:
    """Three complete trials, two that were stopped, one that failed, one that runs."""
    curves = [([sign * v for v in c], {"value": sign * end}) for c, end in COMPLETE]
    curves += [([sign * v for v in c], {"state": "pruned"}) for c in STOPPED]
    curves += [([sign * 9.0], {"state": "failed"}), ([sign * 4.5], {"state": "running"})]
    return reported(curves, **options)


def lines(ax: Axes, state: str) -> list[list[list[float]]]:
    """The lines that are drawn of trials of this state."""
    (found,) = [c for c in ax.collections if c.get_gid() == state]
    return [path.vertices.tolist() for path in found.get_paths()]


def ends(ax: Axes, label: str) -> list[list[float]]:
    """Where the marks of this label are."""
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return np.column_stack(found.get_data()).tolist()


def test_each_report_is_a_row_and_each_stopped_trial_has_a_forecast():
    study = typical()
    table = curves_data(study)
    rows = zip(table["trial"], table["step"], table["value"], table["kind"], strict=True)
    told = {(t, s): v for t, s, v, kind in rows if kind == "reported"}
    assert told == {(t, s): v for t, curve in study.curves.items() for s, v in curve.items()}
    foretold = np.flatnonzero(table["kind"] == "forecast")
    assert table["trial"][foretold].tolist() == [3, 4]
    # From step 1 on complete trials gained -3, -3, -3; from step 2 on -1, -2 and -0.5.
    assert table["value"][foretold].tolist() == [4.0, 5.0]
    assert table["step"][foretold].tolist() == [3, 3]
    # The distances of the gains from their median: 0, 0, 0, which is no error; and 0, 1, 0.5.
    spread = 1.4826 * 0.5
    np.testing.assert_allclose(table["low"][foretold], [NAN, 5.0 - spread])
    np.testing.assert_allclose(table["high"][foretold], [NAN, 5.0 + spread])
    assert np.isnan(table["low"][table["kind"] == "reported"]).all()
    assert table.facts == {"name": "loss", "direction": "minimize", "best": 0}


def test_what_is_foretold_is_what_the_model_learns_from():
    options = {"minimize": "loss", "seed": 0, "n_start": 3, "early_stopping": "median"}
    optimizer = Optimizer({"x": Real(0, 1)}, **options)
    for curve, end in COMPLETE:
        trial = optimizer.ask()
        for step, value in enumerate(curve, 1):
            trial.report(step, value)
        optimizer.tell(trial, end)
    trial = optimizer.ask()
    trial.report(1, 7.5)
    optimizer.tell(trial, pruned="poor")
    table = curves_data(optimizer)
    belief = optimizer.belief()
    assert belief.data.stopped == 1
    assert -float(belief.data.y[3]) == table["value"][table["kind"] == "forecast"] == 4.5


def test_every_curve_is_drawn_and_how_it_ended_is_marked():
    ax = plot_curves(typical())
    complete = [list(map(list, enumerate(c, 1))) for c, _ in COMPLETE]
    assert lines(ax, "complete") == complete[1:]
    (best,) = [line for line in ax.lines if str(line.get_label()).startswith("best")]
    assert best.get_label() == "best (trial 0)"
    assert np.column_stack(best.get_data()).tolist() == complete[0]
    assert best.get_markevery() == [2]
    assert ends(ax, "stopped early") == [[1, 7.0], [2, 6.0]]
    assert ends(ax, "failed") == [[1, 9.0]]
    assert ends(ax, "running") == [[1, 4.5]]
    marks = {
        line.get_marker()
        for line in ax.lines
        if line.get_label() in ("stopped early", "failed", "running")
    }
    assert len(marks) == 3
    assert "3 complete, 1 failed, 2 stopped early, 1 running" in texts(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (minimized)")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_forecast_is_a_dashed_line_to_a_mark_with_its_error(sign):
    ax = plot_curves(typical(sign, **({} if sign > 0 else {"minimize": None, "maximize": "gain"})))
    (dashed,) = [
        c
        for c in ax.collections
        if isinstance(c, LineCollection) and c.get_linestyle()[0][1] is not None
    ]
    tips = ends(ax, "forecast of its end")
    paths = [path.vertices.tolist() for path in dashed.get_paths()]
    assert sorted(path[0] for path in paths) == sorted([[1, sign * 7.0], [2, sign * 6.0]])
    assert sorted(path[1] for path in paths) == sorted(tips)
    assert sorted(tip[1] for tip in tips) == sorted([sign * 4.0, sign * 5.0])
    # Side by side, a little after the last step.
    assert tips[0][0] != tips[1][0]
    assert all(3 <= tip[0] <= 3.3 for tip in tips)
    (container,) = ax.containers
    ((low, high),) = [path.vertices[:, 1].tolist() for path in container.lines[2][0].get_paths()]
    assert (low, high) == pytest.approx((sign * 5.0 - 0.7413, sign * 5.0 + 0.7413))


def test_the_best_trial_is_best_in_the_direction_of_the_objective():
    study = typical(minimize=None, maximize="gain")
    assert curves_data(study).facts["best"] == 2
    assert ends(plot_curves(study), "best (trial 2)")[-1] == [3, 3.0]


def test_what_is_not_finite_is_a_gap():
    study = reported([([1.0, NAN, 3.0, math.inf], {"value": 3.0}), ([NAN], {"state": "running"})])
    ax = plot_curves(study)
    np.testing.assert_array_equal(
        np.array(ends(ax, "best (trial 0)")), [[1, 1], [2, NAN], [3, 3], [4, NAN]]
    )
    assert "3 reports cannot be drawn" in texts(ax)
    assert [line.get_label() for line in ax.lines] == ["best (trial 0)"]
    assert np.isnan(curves_data(study)["value"][1]) and curves_data(study)["value"][3] == math.inf


def test_a_logarithmic_scale_leaves_out_what_it_cannot_show():
    study = reported([([100.0, 1.0, -1.0], {"value": 1.0}), ([50.0, 0.0], {"state": "pruned"})])
    ax = plot_curves(study, log=True)
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert 0 < low < 1.0 and high > 100.0
    assert "2 reports cannot be drawn" in texts(ax)
    with pytest.raises(NoCompleteTrial, match="a finite value above 0"):
        plot_curves(reported([([-1.0], {"state": "running"})]), log=True)


def test_with_several_objectives_or_constraints_nothing_is_foretold():
    for options in ({"minimize": ["loss", "size"]}, {"constraints": "heat"}):
        study = reported([([4.0], {"state": "pruned"}), ([2.0], {"state": "running"})], **options)
        table = curves_data(study)
        assert table["kind"].tolist() == ["reported", "reported"]
        plot_curves(study)


def test_a_few_hopeless_reports_do_not_set_the_scale():
    curves = [([1e6, *np.linspace(5, 1, 9)], {"value": 1.0})]
    curves += [(np.linspace(6, 1 + k, 10).tolist(), {"value": 1.0 + k}) for k in range(3)]
    ax = plot_curves(reported(curves))
    assert ax.get_ylim()[1] < 10
    assert "1 lies beyond the scale" in texts(ax)


def test_where_curves_ended_is_in_sight_however_bad_they_began():
    curves = [([50.0 / s for s in range(1, 30)], {"value": 50 / 29}) for _ in range(6)]
    curves += [([60.0 + k], {"state": "pruned"}) for k in range(6)]
    ax = plot_curves(reported(curves))
    assert ax.get_ylim()[1] > 65


def test_hundreds_of_curves_are_a_few_artists():
    curves = [([3.0, 2.0, 1.0 + k / 100], {"value": 1.0 + k / 100}) for k in range(250)]
    curves += [([4.0], {"state": "pruned"}) for _ in range(250)]
    ax = plot_curves(reported(curves))
    assert len(ax.get_children()) < 30
    assert len(lines(ax, "complete")) == 249
    (stopped,) = [line for line in ax.lines if line.get_marker() == "."]  # of one report each
    assert len(stopped.get_xdata()) == 250


def test_without_reports_there_are_no_curves():
    silent = study_of([{"value": 1.0}])
    for draw in (curves_data, plot_curves):
        with pytest.raises(NoCompleteTrial, match="none of the 1 of study 'default' did"):
            draw(silent)
    with pytest.raises(NoCompleteTrial, match="needs a finite value that a trial has reported"):
        plot_curves(reported([([NAN], {"state": "running"})]))
    assert plt.get_fignums() == []


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("figsize", [(7, 5), (3.4, 2.8)])
def test_nothing_is_clipped_at_paper_size_either(figsize, log):
    figure, ax = plt.subplots(figsize=figsize, layout="constrained")
    plot_curves(typical(minimize="$loss$"), ax=ax, log=log)
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= figsize[0] and box.y1 <= figsize[1]
