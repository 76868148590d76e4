"""A run as it went on: what was known at each moment, and the frames that show it."""

import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots import acquisition_data, animate_acquisition, posterior_data
from bbmmopt.plots.animate import Film, frames_of
from bbmmopt.plots.replay import Replay
from bbmmopt.space import Integer, Real, Space
from tests.bbmmopt.pictures import marks

pytestmark = pytest.mark.usefixtures("canvas")


def loss(x: float, n: int = 0) -> float:
    return math.sin(7 * x) + x + n / 10


def sequential(**options) -> Optimizer:
    """Trials one after the other; one failed, one reported and was stopped."""
    space = {"x": Real(0, 1), "n": Integer(1, 9)}
    optimizer = Optimizer(space, minimize="loss", seed=4, n_start=4, **options)
    for k in range(9):
        trial = optimizer.ask()
        if k == 2:
            optimizer.tell(trial, failed="diverged")
        elif k == 5:
            trial.report(0, 3.0)
            optimizer.tell(trial, pruned="too slow")
        else:
            trial.report(0, loss(**trial.params) + 1)
            optimizer.tell(trial, loss(**trial.params))
    return optimizer


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Where the same is stored."""
    return tmp_path_factory.mktemp("runs") / "run.db"


@pytest.fixture(scope="module")
def alone(stored) -> Iterator[Optimizer]:
    with sequential(storage=stored) as optimizer:
        yield optimizer


@pytest.fixture(scope="module")
def crowded() -> Optimizer:
    """Trials that overlap, and end in another order than they began; one enqueued, one added."""
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=1, n_start=3)
    optimizer.add_trial({"x": 0.9}, loss(0.9))
    first = optimizer.ask(3)
    optimizer.tell(first[1], loss(**first[1].params))
    second = optimizer.ask(2)
    for trial in (second[1], first[0]):
        optimizer.tell(trial, loss(**trial.params))
    optimizer.enqueue({"x": 0.05})
    third = [optimizer.ask(), optimizer.ask()]
    optimizer.tell(third[0], loss(0.05))
    optimizer.tell(first[2], loss(**first[2].params))
    optimizer.ask()
    return optimizer


# --------------------------------------------------------------------------------------
# What was known
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["alone", "crowded"])
def test_before_each_trial_the_replayed_study_suggests_that_trial(which, request):
    optimizer = request.getfixturevalue(which)
    replay = Replay(optimizer)
    suggested = [n for n, t in enumerate(optimizer.trials) if t.origin["phase"] not in PUT]
    assert set(replay.moments) <= set(suggested)
    assert len(replay.moments) >= len(suggested) - 1
    for number, revision in replay.moments.items():
        then = replay.before(revision)
        assert [t.number for t in then.trials] == list(range(number))
        seen = then.preview()
        wanted = optimizer.trials[number]
        assert (seen.number, seen.params) == (number, wanted.params)
        assert seen.origin == wanted.origin
    now = replay.before()
    assert [_outcome(t) for t in now.trials] == [_outcome(t) for t in optimizer.trials]
    assert now.curves == optimizer.curves
    assert now.preview().params == optimizer.preview().params


PUT = ("told", "enqueued")


def _outcome(trial):
    return trial.number, trial.params, trial.state, trial.values, trial.reason


def test_results_come_when_they_were_told_not_when_their_trial_was_asked_for(crowded):
    replay = Replay(crowded)
    states = {
        number: "".join(str(trial.state)[0] for trial in replay.before(revision).trials)
        for number, revision in replay.moments.items()
    }
    assert states == {
        1: "c",
        2: "cr",
        3: "crr",
        4: "crcr",
        5: "crcrr",
        7: "cccrrcr",
        8: "ccccrccr",
    }


def test_the_study_that_is_replayed_stays_as_it_is(alone):
    before, events = alone.trials, alone.events()
    Replay(alone).before().ask()
    assert alone.trials == before
    assert alone.events() == events


def test_a_study_of_added_results_is_replayed_as_they_were_added():
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0)
    for x in (0.1, 0.5, 0.9):
        optimizer.add_trial({"x": x}, loss(x))
    replay = Replay(optimizer)
    known = {n: len(replay.before(revision).trials) for n, revision in replay.moments.items()}
    assert known == {1: 1, 2: 2}


# --------------------------------------------------------------------------------------
# Frames
# --------------------------------------------------------------------------------------


def frames(study, x=None, y=None, *, fixed=None, acquisition=None, name=None, trials=None):
    return frames_of(study, x, y, fixed, acquisition, name, trials)


def test_a_frame_shows_what_the_model_knew_then_and_the_last_one_what_it_knows_now(alone):
    last = 7
    shown = frames(alone, "x", trials=[6, last])
    assert [frame.number for frame in shown] == [6, 7, None]
    # Another study, which was told the first trials alone.
    then = Optimizer(alone.space, minimize="loss", seed=alone.seed, n_start=4)
    for trial in alone.trials[:last]:
        twin = then.ask()
        for step, value in alone.curves.get(trial.number, {}).items():
            twin.report(step, value)
        if trial.state == "complete":
            then.tell(twin, trial.value)
        else:
            then.tell(twin, **{str(trial.state): trial.reason})
    held = alone.best.params["n"]
    for optimizer, frame in ((then, shown[1]), (alone, shown[2])):
        table = posterior_data(optimizer, "x", fixed={"n": held})
        every = np.isin(frame.believed.where.x.values, table["params.x"])
        some = np.isin(table["params.x"], frame.believed.where.x.values)
        assert every.sum() > 390
        median = frame.believed.middle[every]
        np.testing.assert_allclose(median, table["median"][some], rtol=1e-12)
        values = acquisition_data(optimizer, "x", fixed={"n": held})["value"][some]
        less = frame.worth.values[every] - values
        np.testing.assert_allclose(less, less[0], rtol=0, atol=1e-9)
        assert frame.worth.values.max() == 0
        following = frame.worth.following
        assert following is not None
        assert following.params == optimizer.preview().params


@pytest.mark.parametrize("y", [None, "n"])
def test_axes_colours_and_legend_are_the_same_in_all_frames(alone, y):
    film = Film(frames(alone, "x", y, trials=[4, 6, 8]))
    looks = []
    for k in range(4):
        film.draw(k)
        axes = film.figure.axes
        assert len(axes) == (2 if y is None else 4)
        legend = [text.get_text() for text in film.figure.legends[0].get_texts()]
        boxes = [ax.get_position().bounds for ax in axes]
        looks.append(([(ax.get_xlim(), ax.get_ylim()) for ax in axes], legend, boxes))
        number = (4, 6, 8, None)[k]
        when = "now" if number is None else f"when trial {number} was suggested"
        known = sum(t.state != "failed" for t in alone.trials[:number])
        assert film.figure.get_suptitle() == f"{known} trials known {when}"
    assert all(look == looks[0] for look in looks)
    assert {"observed", "best", "next", "failed", "stopped early"} <= set(looks[0][1])


def test_the_star_is_where_the_trial_was_put(alone):
    film = Film(frames(alone, "x", "n", trials=[6]))
    film.draw(0)
    place = alone.trials[6].params
    assert marks(film.figure.axes[1], "next").tolist() == [[place["x"], place["n"]]]


def test_values_that_are_no_logs_are_shown_as_they_are(alone):
    shown = frames(alone, "x", acquisition="ucb", trials=[8])
    table = acquisition_data(alone, "x", acquisition="ucb")
    np.testing.assert_array_equal(shown[-1].worth.values, table["value"])


def test_constraints_and_several_objectives_are_shown_too():
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    optimizer = Optimizer(
        space, minimize="cost", maximize="gain", constraints="heat <= 0.7", seed=0, n_start=3
    )
    for _ in range(5):
        trial = optimizer.ask()
        x, y = trial.params.values()
        optimizer.tell(trial, {"cost": x, "gain": y - x / 2, "heat": y})
    for name in (None, "heat"):
        film = Film(frames(optimizer, name=name, trials=[4]))
        film.draw(1)
        title = film.figure.axes[0].get_title()
        assert title == f"Posterior of {name or 'cost'}"
    with pytest.raises(ValueError, match="no output 'mass'"):
        animate_acquisition(optimizer, name="mass")


def test_left_out_trials_are_all_from_the_first_result_on_but_not_too_many(alone, monkeypatch):
    assert [frame.number for frame in frames(alone, "x")] == [*range(1, 9), None]
    monkeypatch.setattr("bbmmopt.plots.animate._MOST_FRAMES", 4)
    assert [frame.number for frame in frames(alone, "x")] == [1, 5, 8, None]


def test_a_gif_has_a_frame_a_trial_and_stays_at_the_end(alone, stored, tmp_path):
    path = tmp_path / "run.gif"
    animate_acquisition(stored, "x", "n", trials=[4, 8], path=path, fps=5)
    with Image.open(path) as image:
        durations = []
        for k in range(image.n_frames):
            image.seek(k)
            durations.append(image.info["duration"])
        assert durations == [200, 200, 1700]
        assert image.info["loop"] == 0
        # The star keeps its colour, though the colours of the surfaces are many more.
        colours = np.array(image.convert("RGB")).reshape(-1, 3).astype(int)
        vermilion = np.array([0xD5, 0x5E, 0x00])
        assert (np.abs(colours - vermilion).max(1) <= 8).sum() > 40


def test_the_animation_can_be_written_by_another_writer(alone, tmp_path):
    animation = animate_acquisition(alone, "x", trials=[8])
    animation.save(tmp_path / "run.gif", writer="pillow")
    with Image.open(tmp_path / "run.gif") as image:
        assert image.n_frames == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": [0]}, r"1 to 8; got 0"),
        ({"trials": [4, 99]}, r"numbers of trials that were suggested after a result.*got 99"),
        ({"trials": [1.5]}, r"got 1\.5"),
        ({"path": "run.mp4"}, r"path must end in \.gif; got 'run\.mp4'"),
        ({"fps": 0}, "fps must be a number"),
        ({"fps": True}, "fps must be a number"),
        ({"x": "z"}, "x must be a parameter"),
        ({"acquisition": "ei"}, "'ei'"),
    ],
)
def test_what_cannot_be_animated_is_refused_before_anything_is_drawn(alone, options, message):
    with pytest.raises(ValueError, match=message):
        animate_acquisition(alone, **options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("options", [{"trials": 3}, {"trials": "3"}, {"path": 3}])
def test_what_is_no_list_and_no_path_is_refused(alone, options):
    (name,) = options
    with pytest.raises(TypeError, match=f"{name} must be .*; got '?3"):
        animate_acquisition(alone, **options)


def test_without_a_result_there_is_nothing_to_animate():
    with pytest.raises(NoCompleteTrial, match="animate_acquisition needs at least one complete"):
        animate_acquisition(Optimizer({"x": Real(0, 1)}, minimize="loss"))
