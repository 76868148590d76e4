"""Facts about plot_history: values and the best so far, of one study and of several."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from bbmmopt import NoCompleteTrial, Optimizer, Real, Study
from bbmmopt.plots import history_data, plot_history
from bbmmopt.study.warm_start import PHASE
from tests.bbmmopt.pictures import marks, run, texts
from tests.bbmmopt.told import study_of, study_told

pytestmark = pytest.mark.usefixtures("canvas")


def line(ax: Axes, label: str) -> Line2D:
    """The line of this label, or whose label begins so."""
    (found,) = [one for one in ax.lines if str(one.get_label()).startswith(label)]
    return found


# --------------------------------------------------------------------------------------
# The picture of one study
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_history_shows_each_value_and_the_best_so_far(direction):
    values = [3.0, 5.0, 1.0, 2.0, 6.0, 0.5]
    optimizer = run({"x": Real(0, 1)}, values, **{"minimize": None, direction: "y"})
    ax = plot_history(optimizer)
    assert marks(ax, "value").tolist() == [[i, v] for i, v in enumerate(values)]
    accumulate = np.minimum if direction == "minimize" else np.maximum
    step = line(ax, "best so far")
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


def test_trials_that_were_stopped_early_are_ticks_of_their_own():
    study = study_of([{"value": 1.0}, {"state": "pruned"}, {}], minimize=None, maximize="gain")
    ax = plot_history(study)
    assert marks(ax, "stopped early")[:, 0].tolist() == [1]
    assert marks(ax, "failed")[:, 0].tolist() == [2]
    assert (marks(ax, "stopped early")[:, 1] < 0.1).all()
    assert "1 complete, 1 failed, 1 stopped early" in texts(ax)


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
        assert f"distance from the optimum, {optimum:g}" in texts(ax)


def test_a_value_better_than_the_optimum_is_an_error():
    optimizer = run({"x": Real(0, 1)}, [3.0, 1.0])
    with pytest.raises(ValueError, match=r"trial 1 has loss = 1, better than optimum=2\.0"):
        plot_history(optimizer, optimum=2.0)
    with pytest.raises(ValueError, match=r"trial 1 of study 'b' has loss = 1, better"):
        plot_history({"a": study_told([4.0]), "b": optimizer}, optimum=2.0)
    with pytest.raises(ValueError, match="optimum must be finite"):
        plot_history(optimizer, optimum=math.nan)
    assert plt.get_fignums() == []


def test_an_infeasible_value_may_be_better_than_the_optimum():
    study = Study({"x": Real(0, 1)}, minimize="loss", constraints="heat", seed=0)
    study.add_trial({"x": 0.1}, {"loss": -9.0, "heat": 1.0})
    study.add_trial({"x": 0.2}, {"loss": 3.0, "heat": -1.0})
    study.add_trial({"x": 0.3}, {"loss": 7.0, "heat": 1.0})
    ax = plot_history(study, optimum=2.0)
    assert marks(ax, "value").tolist() == [[1, 1.0]]
    assert marks(ax, "infeasible").tolist() == [[2, 5.0]]  # the other one has no regret
    np.testing.assert_array_equal(history_data(study, optimum=2.0)["regret"], [np.nan, 1.0, 1.0])


def test_a_few_hopeless_values_do_not_set_the_scale():
    values = [1e6, 5.0, 4.0, 3.5, 3.0, 2.9, 2.8, 2.7, 2.6, 2.5]
    ax = plot_history(study_told(values))
    assert ax.get_ylim()[1] < 10
    assert marks(ax, "beyond the scale")[:, 0].tolist() == [0]
    assert len(marks(ax, "value")) == 9


def test_one_of_several_objectives_is_chosen_by_name():
    study = Study({"x": Real(0, 1)}, minimize="cost", maximize="gain", constraints="heat", seed=0)
    for value in (3.0, 1.0, 2.0):
        told = {"cost": value, "gain": 10 * value, "heat": 1.5 - value}
        study.add_trial({"x": 0.5}, told)
    ax = plot_history(study, name="gain")
    assert marks(ax, "value")[:, 1].tolist() == [30, 20]
    assert len(marks(ax, "infeasible")) == 1
    assert marks(ax, "best").tolist() == [[0, 30]]
    ax = plot_history(study, name="cost")
    assert marks(ax, "best").tolist() == [[2, 2.0]]  # the cheapest, trial 1, is infeasible
    with pytest.raises(ValueError, match="pass name=, one of 'cost', 'gain'"):
        plot_history(study)
    with pytest.raises(ValueError, match=r"no objective 'gian'.*Did you mean 'gain'"):
        plot_history(study, name="gian")


def test_by_seconds_results_stand_where_they_came_in():
    study = study_of(
        [
            {"value": 3.0, "started": 0.0, "finished": 600.0},
            {"value": 1.0, "started": 0.0, "finished": 120.0},
            {"value": 2.0, "started": 60.0, "finished": 240.0},
            {"started": 600.0, "finished": 660.0},
            {"state": "running", "started": 660.0},
        ]
    )
    ax = plot_history(study, by="seconds")
    assert ax.get_xlabel() == "minutes since the first start"
    assert marks(ax, "value").tolist() == [[2.0, 1.0], [4.0, 2.0], [10.0, 3.0]]
    assert marks(ax, "failed")[:, 0].tolist() == [11.0]
    x, y = line(ax, "best so far").get_data()
    assert (list(x), list(y)) == ([2.0, 4.0, 10.0, 11.0], [1.0] * 4)
    assert marks(ax, "best").tolist() == [[2.0, 1.0]]
    assert "1 (trial 1)" in texts(ax)
    assert len(ax.patches) == 0
    with pytest.raises(ValueError, match=r'by must be "trial" or "seconds"; got \'hours\''):
        plot_history(study, by="hours")


# --------------------------------------------------------------------------------------
# The numbers
# --------------------------------------------------------------------------------------


def random_study(seed: int, direction: str, count: int = 40) -> Study:
    """Trials of all states that overlap, some of them infeasible."""
    generator = np.random.default_rng(seed)
    trials, start = [], 0.0
    for _ in range(count):
        start += generator.exponential(5.0)
        state = generator.choice(["complete", "complete", "complete", "failed", "running"])
        trial = {"state": str(state), "started": start}
        if state != "running":
            trial["finished"] = start + generator.exponential(20.0)
        if state == "complete":
            trial["value"] = float(generator.normal())
            trial["constraints"] = {"heat": float(generator.normal() - 0.5)}
        trials.append(trial)
    return study_of(trials, **{"minimize": None, direction: "y"}, constraints="heat")


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("by", ["trial", "seconds"])
def test_the_best_of_each_row_is_that_of_the_feasible_ones_before_it(direction, by):
    study = random_study(0, direction)
    table = history_data(study, by=by)
    trials = {trial.number: trial for trial in study.trials}
    first = min(trial.started for trial in trials.values())
    better = min if direction == "minimize" else max
    before: list[float] = []
    for row in range(table.rows):
        trial = trials[int(table["trial"][row])]
        value = trial.values["y"] if trial.values else math.nan
        feasible = trial.state == "complete" and trial.constraints["heat"] <= 0
        before += [value] if feasible else []
        np.testing.assert_equal(table["values.y"][row], value)
        assert table["feasible"][row] == feasible
        np.testing.assert_equal(table["best"][row], better(before) if before else math.nan)
        seconds = math.nan if trial.finished is None else trial.finished - first
        np.testing.assert_equal(table["seconds"][row], seconds)
        assert table["state"][row] == trial.state
    if by == "trial":
        assert table["trial"].tolist() == list(range(40))
    else:
        finished = table["seconds"][np.isfinite(table["seconds"])]
        assert (np.diff(finished) >= 0).all()
        assert np.isnan(table["seconds"][len(finished) :]).all()
    assert table.facts == {"name": "y", "direction": direction, "optimum": None, "by": by}


def test_what_came_from_another_study_was_known_from_the_start():
    taken = {"value": 4.0, "started": -5000.0, "finished": -4000.0, "origin": {"phase": PHASE}}
    study = study_of([taken, {"value": 3.0, "started": 10.0, "finished": 15.0}])
    assert history_data(study, by="seconds")["seconds"].tolist() == [0.0, 5.0]


def test_without_a_finished_trial_there_is_no_history():
    running = study_of([{"state": "running", "started": 0.0}])
    for draw in (history_data, plot_history):
        with pytest.raises(NoCompleteTrial, match="study 'default' has 1 unfinished"):
            draw(running)
        with pytest.raises(NoCompleteTrial, match="2 studies have 2 unfinished"):
            draw([running, running])
    assert plt.get_fignums() == []


# --------------------------------------------------------------------------------------
# Several studies
# --------------------------------------------------------------------------------------


def test_each_study_of_a_list_is_a_line_of_its_best_so_far():
    ax = plot_history([study_told([3.0, 4.0, 1.0]), study_told([5.0, None, 2.0, 0.5])])
    first, second = line(ax, "default (1)"), line(ax, "default (2)")
    assert first.get_data()[0].tolist() == [0, 1, 2]
    assert first.get_data()[1].tolist() == [3, 3, 1]
    assert second.get_data()[1].tolist() == [5, 5, 2, 0.5]
    assert to_hex(first.get_color()) != to_hex(second.get_color())
    assert first.get_linestyle() != second.get_linestyle()
    assert "Best loss so far of 2 studies" in texts(ax)
    assert not ax.collections  # no band


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_studies_of_one_label_are_a_median_between_quartiles(direction):
    generator = np.random.default_rng(0)
    lengths = [12, 9, 15, 11]
    told = [generator.normal(size=n).tolist() for n in lengths]
    told[1][0] = None  # this one has a best from trial 1 on
    options = {"minimize": None, direction: "y"}
    ax = plot_history({"mine": [study_told(values, **options) for values in told]})
    better = min if direction == "minimize" else max
    trials = range(1, min(lengths))
    best = [[better(v for v in run[: k + 1] if v is not None) for run in told] for k in trials]
    x, y = line(ax, "mine (4 runs)").get_data()
    assert x.tolist() == list(trials)
    np.testing.assert_allclose(y, np.median(best, axis=1))
    (band,) = ax.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(9).tolist()}
    for k, heights in zip(trials, best, strict=True):
        for quarter in (0.25, 0.75):
            assert (k, round(np.quantile(heights, quarter), 9)) in corners
    assert "bands: their quartiles" in texts(ax)


def test_repeats_by_seconds_go_as_far_as_the_one_that_ended_first():
    slow = study_of([{"value": v, "started": 10.0 * i, "finished": 10.0 * i + 10} for i, v in
                     enumerate([4.0, 2.0, 1.0])])  # fmt: skip
    fast = study_of([{"value": v, "started": 4.0 * i, "finished": 4.0 * i + 4} for i, v in
                     enumerate([8.0, 6.0, 5.0, 3.0, 0.0, -1.0])])  # fmt: skip
    ax = plot_history({"both": [slow, fast]}, by="seconds")
    assert ax.get_xlabel() == "seconds since the first start"
    x, y = line(ax, "both").get_data()
    # From 10 s on both have a best; at 24 s the fast one ended.
    assert x.tolist() == [10, 12, 16, 20, 24]
    assert y.tolist() == [(4 + 6) / 2, (4 + 5) / 2, (4 + 3) / 2, (2 + 0) / 2, (2 - 1) / 2]


def test_a_line_ends_with_the_last_trial_that_has_finished():
    finished = [{"value": 3.0, "started": 0.0, "finished": 1.0}, {"state": "running"}]
    ax = plot_history([study_of(finished), study_told([5.0, 4.0])])
    assert line(ax, "default (1)").get_xdata().tolist() == [0]
    assert line(ax, "default (2)").get_xdata().tolist() == [0, 1]


def test_regret_of_several_studies_is_on_a_log_scale():
    ax = plot_history({"a": study_told([3.0, 2.0]), "b": study_told([5.0, 1.5])}, optimum=1.0)
    assert ax.get_yscale() == "log"
    assert line(ax, "a").get_ydata().tolist() == [2.0, 1.0]
    assert line(ax, "b").get_ydata().tolist() == [4.0, 0.5]
    low, high = ax.get_ylim()
    assert low < 0.5 and high > 4.0


def test_a_study_that_reached_nothing_is_named_in_the_legend():
    ax = plot_history({"good": study_told([3.0]), "bad": study_told([None, None])})
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["good", "bad: nothing yet"]


def test_a_bad_beginning_does_not_set_the_scale_of_several_lines():
    beginnings = [1e6, 1e5, *np.linspace(3.0, 1.0, 20)]
    ax = plot_history([study_told(beginnings), study_told(np.linspace(4.0, 2.0, 22).tolist())])
    assert ax.get_ylim()[1] < 10


def test_stored_studies_are_named_by_file_and_study(tmp_path):
    places = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        places.append(tmp_path / folder / "runs.db")
        for name in ("first", "second"):
            with Study({"x": Real(0, 1)}, minimize="loss", storage=places[-1], study=name) as study:
                study.add_trial({"x": 0.5}, 1.0)

    def labels(*sources: object) -> list[str]:
        return list(dict.fromkeys(history_data(list(sources))["study"].tolist()))

    one, two = map(str, places)
    assert labels(f"{one}#first", f"{one}#second") == ["first", "second"]
    assert labels(f"{one}#first", f"{two}#first") == [f"{one}#first", f"{two}#first"]
    single = tmp_path / "alone.db"
    with Study({"x": Real(0, 1)}, minimize="loss", storage=single) as study:
        study.add_trial({"x": 0.5}, 1.0)
        assert labels(single, study) == ["alone", "default"]
        assert labels(study, study) == ["default (1)", "default (2)"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "the list of studies given is empty"),
        ({}, ValueError, "there is no study in {}"),
        ({"a": []}, ValueError, "the list of studies of 'a' is empty"),
        (3, TypeError, "got 3"),
        ([3], TypeError, "expected an Optimizer, a Study, or where one is stored"),
        ({"a": {"b": "study.db"}}, TypeError, "the studies of 'a' must be"),
        (
            [study_told([1.0]), study_told([1.0], minimize=None, maximize="loss")],
            ValueError,
            r"need the same objective: 'default \(1\)' is to minimize 'loss', 'default \(2\)' to "
            r"maximize 'loss'",
        ),
        ([study_told([1.0]), study_told([1.0], minimize="error")], ValueError, "same objective"),
    ],
)
def test_studies_that_cannot_be_compared_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        plot_history(given)
    assert plt.get_fignums() == []


def test_a_history_of_an_optimizer_changes_nothing_in_it():
    optimizers = [run({"x": Real(0, 1)}, [1.0, 3.0, 2.0, 4.0, 5.0, 6.0]) for _ in range(2)]
    plot_history([optimizers[0], optimizers[0]], by="seconds")
    assert isinstance(optimizers[0], Optimizer)
    assert optimizers[0].ask().params == optimizers[1].ask().params


@pytest.mark.parametrize("by", ["trial", "seconds"])
@pytest.mark.parametrize("figsize", [(7, 5), (3.4, 2.8)])
def test_nothing_is_clipped_at_paper_size_either(by, figsize):
    studies = {"a $x$": [random_study(seed, "maximize") for seed in range(3)]}
    for given in (studies, random_study(3, "maximize")):
        figure, ax = plt.subplots(figsize=figsize, layout="constrained")
        plot_history(given, ax=ax, by=by)
        figure.canvas.draw()
        box = figure.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figsize[0] and box.y1 <= figsize[1]
