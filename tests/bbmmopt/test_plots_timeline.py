"""Facts about plot_timeline: who worked when."""

import time
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from bbmmopt import NoCompleteTrial, Real, Study
from bbmmopt.plots import plot_timeline, timeline_data
from bbmmopt.plots.attempts import short_workers
from bbmmopt.plots.times import in_words, unit_for
from bbmmopt.study.warm_start import PHASE
from tests.bbmmopt.pictures import texts
from tests.bbmmopt.told import START, study_of

pytestmark = pytest.mark.usefixtures("canvas")


def bars(ax: Axes, label: str) -> list[tuple[float, float, float]]:
    """Left, right and middle of each bar of this label."""
    found = [c for c in ax.collections if isinstance(c, PolyCollection) and c.get_label() == label]
    corners = [path.vertices[:4] for collection in found for path in collection.get_paths()]
    return [(min(c[:, 0]), max(c[:, 0]), c[:, 1].mean()) for c in corners]


def random_trials(seed: int, count: int = 60) -> list[dict]:
    """Trials that overlap, of named workers and of none."""
    generator = np.random.default_rng(seed)
    trials, start = [], 0.0
    for _ in range(count):
        start += generator.exponential(2.0)
        trials.append(
            {
                "state": str(generator.choice(["complete", "failed", "pruned"])),
                "value": None,
                "started": start,
                "finished": start + generator.gamma(2.0, 5.0),
                "worker": generator.choice(["a", "b", None]),
            }
        )
    return trials


# --------------------------------------------------------------------------------------
# Bars and rows
# --------------------------------------------------------------------------------------


def test_each_trial_is_a_bar_from_start_to_end_in_the_row_of_its_worker():
    study = study_of(
        [
            {"value": 1.0, "started": 0.0, "finished": 600.0, "worker": "ann"},
            {"started": 60.0, "finished": 300.0, "worker": "bob"},
            {"state": "pruned", "started": 420.0, "finished": 480.0, "worker": "bob"},
        ]
    )
    ax = plot_timeline(study)
    assert ax.get_xlabel() == "minutes since the first start"
    assert bars(ax, "complete") == [(0.0, 10.0, 0.0)]
    assert bars(ax, "failed") == [(1.0, 5.0, 1.0)]
    assert bars(ax, "stopped early") == [(7.0, 8.0, 1.0)]
    # Of the 420 seconds of bob 120 were idle.
    names = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
    assert names == ["ann idle 0%", "bob idle 29%"]
    assert ax.get_yticks().tolist() == [0.0, 1.0]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first worker above
    assert "3 trials of 2 workers" in texts(ax)
    assert "first start: 2023-11-14 22:13 UTC" in texts(ax)
    table = timeline_data(study)
    assert table["started"].tolist() == [START, START + 60, START + 420]
    assert table["finished"].tolist() == [START + 600, START + 300, START + 480]
    assert table["worker"].tolist() == ["ann", "bob", "bob"]
    assert table["attempt"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_law_bars_of_a_row_never_overlap_and_no_row_is_wasted(seed):
    table = timeline_data(study_of(random_trials(seed)))
    rows: dict[str | None, set[int]] = {}
    for row in set(table["row"].tolist()):
        mine = np.flatnonzero(table["row"] == row)
        mine = mine[np.argsort(table["started"][mine])]
        assert (table["finished"][mine][:-1] <= table["started"][mine][1:]).all()
        (worker,) = set(table["worker"][mine].tolist())
        rows.setdefault(worker, set()).add(row)
    top = 0
    for worker in table.facts["workers"]:
        mine = table["worker"] == worker["name"]
        started, finished = table["started"][mine], table["finished"][mine]
        # As many rows as trials ran at once at most: counted at each start.
        most = max(((started <= t) & (finished > t)).sum() for t in started)
        assert worker["rows"] == most == len(rows[worker["name"]])
        assert rows[worker["name"]] == set(range(top, top + most))
        top += most
        busy = (finished - started).sum()
        assert worker["idle"] == pytest.approx(1 - busy / (most * np.ptp([*started, *finished])))


def test_states_differ_in_more_than_colour():
    ax = plot_timeline(study_of(random_trials(0)))
    drawn = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert len({c.get_hatch() for c in drawn}) == len(drawn) == 3
    heights = {np.ptp(c.get_paths()[0].vertices[:, 1]).round(6) for c in drawn}
    assert len(heights) == 3


def test_thousands_of_trials_are_a_few_artists():
    ax = plot_timeline(study_of(random_trials(0, count=6000)))
    assert len(ax.get_children()) < 30
    assert sum(len(bars(ax, label)) for label in ("complete", "failed", "stopped early")) == 6000
    assert all(c.get_rasterized() for c in ax.collections if isinstance(c, PolyCollection))


def test_a_bar_with_room_has_the_number_of_its_trial():
    study = study_of(
        [
            {"value": 1.0, "started": 0.0, "finished": 100.0},
            {"value": 1.0, "started": 100.0, "finished": 100.1},
            {"value": 1.0, "started": 101.0, "finished": 200.0},
        ]
    )
    ax = plot_timeline(study)
    numbers = {text.get_text(): text.get_position() for text in ax.texts if text.get_clip_on()}
    assert numbers["0"][0] == pytest.approx(50.0 / 60.0)
    assert {"0", "2"} <= numbers.keys() and "1" not in numbers


# --------------------------------------------------------------------------------------
# Several goes at a trial
# --------------------------------------------------------------------------------------


def test_a_trial_that_was_retried_and_taken_over_has_a_bar_for_each_go():
    study = Study({"x": Real(0, 1)}, minimize="loss", seed=0)
    study.enqueue({"x": 0.5})
    trial = study.claim(worker="ann")
    study.log_retry(trial, "ZeroDivisionError")
    study.storage.reclaim(study.study, 0, worker="bob", previous_worker="ann")
    study.tell(0, 1.0)
    _, _, claimed, retried, reclaimed, told = study.events()
    assert (claimed.kind, told.kind) == ("claimed", "told")
    table = timeline_data(study)
    assert table["attempt"].tolist() == [1, 2, 3]
    assert table["worker"].tolist() == ["ann", "ann", "bob"]
    assert table["state"].tolist() == ["retried", "taken over", "complete"]
    (ended,) = study.trials
    assert table["started"].tolist() == [ended.started, retried.time, reclaimed.time]
    assert table["finished"].tolist() == [retried.time, reclaimed.time, ended.finished]
    ax = plot_timeline(study)
    for label in ("went wrong, was tried again", "lost, was taken over", "complete"):
        assert len(bars(ax, label)) == 1
    assert "1 trial of 2 workers" in texts(ax)


def test_what_nobody_ran_has_no_bar():
    study = Study({"x": Real(0, 1)}, minimize="loss", seed=0)
    study.add_trial({"x": 0.5}, 1.0)  # told from elsewhere
    study.enqueue({"x": 0.1})
    for draw in (timeline_data, plot_timeline):
        with pytest.raises(NoCompleteTrial, match="study 'default' has 2 that nobody ran"):
            draw(study)
    assert plt.get_fignums() == []
    taken = {"value": 4.0, "started": -5000.0, "finished": -4000.0, "origin": {"phase": PHASE}}
    mixed = study_of([taken, {"value": 3.0, "started": 10.0, "finished": 15.0}])
    assert timeline_data(mixed)["trial"].tolist() == [1]


# --------------------------------------------------------------------------------------
# Running trials
# --------------------------------------------------------------------------------------


def test_a_running_trial_goes_on_until_now():
    before = time.time()
    study = study_of(
        [
            {"value": 1.0, "started": before - 100 - START, "finished": before - 50 - START},
            {"state": "running", "started": before - 50 - START},
        ]
    )
    table = timeline_data(study)
    assert before <= table.facts["until"] <= time.time()
    assert table.facts["silent"] is None
    assert np.isnan(table["finished"][1])
    ((left, right, _),) = bars(plot_timeline(study), "running")
    assert left == pytest.approx(50.0, abs=1e-3)
    assert 100.0 <= right <= 100.0 + time.time() - before + 1e-3


def test_the_picture_of_a_study_that_fell_silent_ends_there(monkeypatch):
    begin = time.time() - 1000
    study = study_of(
        [
            {"value": 1.0, "started": begin - START, "finished": begin + 500 - START},
            {"state": "running", "started": begin + 500 - START},
        ]
    )
    last = begin + 500
    for later, silent in ((1400.0, False), (1600.0, True), (7 * 86400.0, True)):
        now = SimpleNamespace(time=lambda later=later: last + later)
        monkeypatch.setattr("bbmmopt.plots.timeline.time", now)
        facts = timeline_data(study).facts
        if silent:
            assert facts["silent"] == pytest.approx(later)
            assert last < facts["until"] < last + 0.1 * (last - begin)
        else:
            assert (facts["silent"], facts["until"]) == (None, last + later)
    assert "nothing was heard for 7 days: running trials are cut" in texts(plot_timeline(study))
    # Ten minutes are not long, however short it had lasted.
    last = time.time() - 1
    brief = study_of([{"state": "running", "started": last - START}])
    for later in (590.0, 610.0):
        now = SimpleNamespace(time=lambda later=later: last + later)
        monkeypatch.setattr("bbmmopt.plots.timeline.time", now)
        assert (timeline_data(brief).facts["silent"] is not None) == (later > 600.0)
    # A report is a sign of life: here one that came just now.
    study.report(1, 1, 0.5)
    later = time.time() + 1600.0
    monkeypatch.setattr("bbmmopt.plots.timeline.time", SimpleNamespace(time=lambda: later))
    facts = timeline_data(study).facts
    assert (facts["silent"], facts["until"]) == (None, later)


# --------------------------------------------------------------------------------------
# Words
# --------------------------------------------------------------------------------------


def test_runs_are_called_by_host_and_process_as_far_as_that_tells_them_apart():
    own = ["box:17:99:m:b:n:0", "box:17:99:m:b:n:1", "box:18:99:m:b:n:0", "robot-1", None, "a:b"]
    assert short_workers(own) == {
        own[0]: "box 17, run 0",
        own[1]: "box 17, run 1",
        own[2]: "box 18",
        "robot-1": "robot-1",
        None: "no name",
        "a:b": "a:b",
    }


def test_spans_of_time_are_told_in_a_unit_that_people_read():
    spans = (0.0, 0.5, 2.0, 90.0, 7000.0, 7200.0, 1e6)
    names = [unit_for(span).name for span in spans]
    assert names == [
        *("seconds", "milliseconds", "seconds", "seconds", "minutes", "hours", "days"),
    ]
    assert in_words(7200.0) == "2 hours"
    assert in_words(9000.0) == "2.5 hours"
    assert in_words(86400.0 * 30) == "30 days"


@pytest.mark.parametrize("figsize", [(7, 5), (3.4, 2.8)])
def test_labels_neither_overlap_nor_leave_the_picture(figsize):
    trials = [trial | {"worker": f"a worker $w$ {i % 40}"} for i, trial in
              enumerate(random_trials(0))]  # fmt: skip
    figure, ax = plt.subplots(figsize=figsize, layout="constrained")
    plot_timeline(study_of(trials), ax=ax)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert len(boxes) >= 2
    ordered = sorted(boxes, key=lambda box: -box.y0)
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(ordered))
    whole = figure.get_tightbbox()
    assert whole.x0 >= 0 and whole.y0 >= 0
    assert whole.x1 <= figsize[0] and whole.y1 <= figsize[1]


def test_a_timeline_is_drawn_where_it_is_told_to_be():
    figure, ax = plt.subplots()
    assert plot_timeline(study_of(random_trials(0)), ax=ax, legend=False) is ax
    assert ax.get_legend() is None
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(TypeError, match="ax must be one matplotlib Axes"):
        plot_timeline(study_of(random_trials(0)), ax=[ax])
