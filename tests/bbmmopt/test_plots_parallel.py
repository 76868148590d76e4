"""Parallel coordinates: where each trial's line goes, its colour, and what the axes say."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from bbmmopt import Categorical, Integer, Real, Space, Study
from bbmmopt.plots import parallel_data, plot_parallel
from tests.bbmmopt.pictures import texts

pytestmark = pytest.mark.usefixtures("canvas")

SPACE = {
    "rate": Real(1e-4, 1.0, log=True),
    "layers": Integer(1, 4),
    "kind": Categorical(["adam", "sgd"]),
    "momentum": Real(0, 1, when={"kind": "sgd"}),
    "one": Real(7, 7),
}
ADAM = {"rate": 0.01, "layers": 2, "kind": "adam", "one": 7.0}
SGD = {"rate": 1.0, "layers": 4, "kind": "sgd", "momentum": 0.25, "one": 7.0}


def told(*results: tuple[dict, object], **options) -> Study:
    study = Study(Space(SPACE), **{"minimize": "loss", "seed": 0} | options)
    for params, value in results:
        if isinstance(value, str):
            study.enqueue(params)
            trial = study.claim()
            assert trial is not None
            if value != "running":
                study.tell(trial, **{value: "because"})
        else:
            study.add_trial(params, value)
    return study


@dataclass
class Drawn:
    """A line.

    Attributes:
        heights: Where it crosses each axis, up to where it ends.
        colour: RGBA.
        width: In points.
    """

    heights: np.ndarray
    colour: tuple[float, ...]
    width: float


def lines(ax: Axes, label: str) -> list[Drawn]:
    """The lines of a kind, in the order in which they were drawn."""
    found = []
    for collection in ax.collections:
        if collection.get_gid() != label or not isinstance(collection, LineCollection):
            continue
        collection.update_scalarmappable()
        segments = collection.get_segments()
        colours = np.resize(collection.get_edgecolor(), (len(segments), 4))
        width = float(np.ravel(collection.get_linewidth())[0])
        for segment, colour in zip(segments, colours, strict=True):
            np.testing.assert_array_equal(segment[:, 0], np.arange(len(segment)))
            found.append(Drawn(segment[:, 1], tuple(colour), width))
    return found


def axis_names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels()]


def ticks(ax: Axes, i: int) -> dict[str, float]:
    """{text: height} of the ticks of an axis."""
    return {t.get_text(): t.xy[1] for t in ax.texts if getattr(t, "xy", (None,))[0] == i}


def brightness(drawn: Drawn) -> float:
    return float(np.dot(drawn.colour[:3], [0.299, 0.587, 0.114]))


def test_a_line_crosses_each_axis_at_the_value_of_its_trial() -> None:
    ax = plot_parallel(told((ADAM, 3.0), (SGD, 1.0)))
    assert axis_names(ax) == ["rate", "layers", "kind", "momentum", "loss\n(minimized)"]
    (adam,), (sgd,) = lines(ax, "trial"), lines(ax, "best")
    assert adam.heights[0] == pytest.approx(0.5)  # the middle of 1e-4 … 1
    assert sgd.heights[0] == pytest.approx(1.0)
    # Within the cell of their level, which is a quarter and a half high.
    assert 0.25 <= adam.heights[1] <= 0.5 and 0.75 <= sgd.heights[1] <= 1.0
    assert 0.0 <= adam.heights[2] <= 0.5 <= sgd.heights[2] <= 1.0
    assert adam.heights[3] < -0.05  # not active
    assert sgd.heights[3] == pytest.approx(0.25)
    assert (adam.heights[4], sgd.heights[4]) == (1.0, 0.0)


def test_ticks_are_in_the_users_units() -> None:
    ax = plot_parallel(told((ADAM, 3.0), (SGD, 1.0)))
    rate = ticks(ax, 0)
    assert rate["0.01"] == pytest.approx(0.5) and rate["1"] == pytest.approx(1.0)
    assert ticks(ax, 1) == pytest.approx({"1": 0.125, "2": 0.375, "3": 0.625, "4": 0.875})
    assert ticks(ax, 2) == pytest.approx({"adam": 0.25, "sgd": 0.75})
    assert ticks(ax, 3)["–"] < -0.05 and "–" not in ticks(ax, 2)
    assert ticks(ax, 3)["0.2"] == pytest.approx(0.2)
    assert ticks(ax, 4)["2"] == pytest.approx(0.5)


def test_bounds_that_are_not_round_and_steps_are_shown() -> None:
    space = Space({"x": Real(0.27, 2.9), "n": Integer(3, 803, step=8), "m": Integer(7, 7_000_000)})
    study = Study(space, minimize="loss", seed=0)
    study.add_trial({"x": 1.0, "n": 11, "m": 9}, 1.0)
    ax = plot_parallel(study)
    assert {"0.27", "2.9", "1"} <= ticks(ax, 0).keys()
    assert all((float(text) - 3) % 8 == 0 for text in ticks(ax, 1))
    assert {"3", "803"} <= ticks(ax, 1).keys()
    assert {"1.5e+06", "7"} <= ticks(ax, 2).keys()


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
def test_good_is_dark_and_drawn_last(sense: str) -> None:
    options = {"minimize": None} | {sense: "loss"}
    values = [5.0, 1.0, 3.0, 9.0]
    study = told(*((ADAM | {"rate": 0.1 / (k + 1)}, v) for k, v in enumerate(values)), **options)
    ax = plot_parallel(study)
    rest = lines(ax, "trial")
    assert len(rest) == 3
    shades = [brightness(line) for line in rest]
    assert shades == sorted(shades, reverse=True) and len(set(shades)) == 3
    (best,) = lines(ax, "best")
    good = min(values) if sense == "minimize" else max(values)
    assert best.heights[-1] == pytest.approx((good - 1) / 8)
    assert best.width > 2 * rest[0].width


def test_trials_without_a_value_end_before_the_objective() -> None:
    ax = plot_parallel(
        told((ADAM, 3.0), (SGD, "failed"), (SGD, "pruned"), (SGD | {"layers": 1}, "running"))
    )
    for label in ("failed", "stopped early", "pending"):
        (line,) = lines(ax, label)
        assert len(line.heights) == 4
    (failed,) = [c for c in ax.collections if c.get_gid() == "failed"]
    assert failed.get_linestyle()[0][1] is not None  # dashed
    shown = ax.get_legend().get_texts()
    assert [text.get_text() for text in shown] == ["failed", "stopped early", "pending", "best"]
    assert "1 running, 1 complete, 1 failed, 1 pruned" in texts(ax)


def test_infeasible_trials_are_pale_and_never_the_best() -> None:
    cool, hot = {"loss": 3.0, "heat": 0.0}, {"loss": 1.0, "heat": 2.0}
    study = told((ADAM, cool), (SGD, hot), (SGD, {"loss": 4.0, "heat": 0.0}), constraints="heat")
    ax = plot_parallel(study)
    (pale,), (best,) = lines(ax, "infeasible"), lines(ax, "best")
    assert pale.heights[-1] == 0.0 and best.heights[-1] == pytest.approx(2 / 3)
    assert len({round(channel, 6) for channel in pale.colour[:3]}) == 1  # grey
    assert parallel_data(study)["feasible"].tolist() == [True, False, True]


def test_several_objectives_have_an_axis_each_and_the_front_stands_out() -> None:
    study = Study(Space(SPACE), minimize="loss", maximize="speed", seed=0)
    for rate, loss, speed in ((0.1, 1.0, 1.0), (0.2, 2.0, 5.0), (0.3, 3.0, 4.0)):
        study.add_trial(ADAM | {"rate": rate}, {"loss": loss, "speed": speed})
    ax = plot_parallel(study, name="speed")
    assert axis_names(ax)[-2:] == ["loss\n(minimized)", "speed\n(maximized)"]
    front = sorted(lines(ax, "on the front"), key=lambda line: line.heights[-2])
    assert [line.heights[-2] for line in front] == [0.0, 0.5]
    assert brightness(front[0]) > brightness(front[1])  # by speed
    (rest,) = lines(ax, "trial")
    assert rest.heights[-1] == pytest.approx(0.75)
    assert parallel_data(study)["best"].tolist() == [True, True, False]


def test_values_far_worse_than_all_others_stand_beyond_the_end() -> None:
    values = [*np.linspace(1, 2, 12).tolist(), 1e12]
    study = told(*((ADAM | {"rate": 0.1 / (k + 1)}, v) for k, v in enumerate(values)))
    ax = plot_parallel(study)
    heights = [line.heights[-1] for line in (*lines(ax, "trial"), *lines(ax, "best"))]
    assert sorted(heights)[-2:] == pytest.approx([1.0, 1.035])
    assert "1 of loss far beyond the scale" in texts(ax)


def test_values_from_beyond_the_bounds_stand_beyond_the_end() -> None:
    study = told((ADAM, 1.0))
    study.add_trial(ADAM | {"rate": 1e3}, 2.0, outside=True)
    (line,) = lines(plot_parallel(study), "trial")
    assert line.heights[0] == pytest.approx(1.035)


def test_the_same_choice_of_many_trials_is_spread_within_its_place() -> None:
    study = told(*((ADAM | {"rate": 0.001 * (k + 1)}, float(k)) for k in range(20)))
    crossed = [line.heights[2] for line in lines(plot_parallel(study), "trial")]
    assert len(set(crossed)) == len(crossed)
    assert min(crossed) > 0.1 and max(crossed) < 0.4


def test_parameters_are_drawn_in_the_order_asked_for() -> None:
    study = told((ADAM, 3.0), (SGD, 1.0))
    ax = plot_parallel(study, parameters=["kind", "rate"])
    assert axis_names(ax) == ["kind", "rate", "loss\n(minimized)"]
    assert list(parallel_data(study, parameters=["kind"])) == [
        *("trial", "params.kind", "values.loss", "state", "feasible", "best")
    ]


def test_the_data_are_those_of_the_trials() -> None:
    study = told((ADAM, 3.0), (SGD, "failed"), (SGD, 1.0))
    table = parallel_data(study)
    assert table["trial"].tolist() == [0, 1, 2]
    assert table["params.kind"].tolist() == ["adam", "sgd", "sgd"]
    assert table["params.layers"].tolist() == [2, 4, 4]
    assert table["params.layers"].dtype.kind == "i"
    np.testing.assert_array_equal(table["params.momentum"], [np.nan, 0.25, 0.25])
    np.testing.assert_array_equal(table["values.loss"], [3.0, np.nan, 1.0])
    assert table["state"].tolist() == ["complete", "failed", "complete"]
    assert table["best"].tolist() == [False, False, True]
    assert table.facts == {"name": "loss", "objectives": ("loss",)}


def test_thousands_of_trials_are_a_few_collections_of_pixels() -> None:
    results = [(ADAM | {"rate": 1e-4 + 1e-4 * k}, float(k % 7)) for k in range(2100)]
    ax = plot_parallel(told(*results))
    (many,) = [c for c in ax.collections if c.get_gid() == "trial"]
    assert len(many.get_segments()) == 2099
    assert many.get_rasterized()
    assert many.get_alpha() < 0.4
    assert len(ax.collections) < 6


def test_it_draws_what_has_no_value_yet_on_axes_of_ones_own() -> None:
    _, (left, right) = plt.subplots(1, 2)
    assert plot_parallel(told((ADAM, "failed")), ax=left, legend=False) is left
    assert left.get_legend() is None
    assert len(lines(left, "failed")) == 1
    plot_parallel(told((ADAM, 2.0)), ax=right)  # a single value has no scale
    assert lines(right, "best")[0].heights[-1] == 0.5
    assert ticks(right, 4) == {"2": 0.5}


def test_names_are_no_formulas() -> None:
    study = Study(
        Space({"$a$": Real(0, 1), "b_$": Categorical(["$x$", "y"])}), minimize="$", seed=0
    )
    study.add_trial({"$a$": 0.5, "b_$": "$x$"}, 1.0)
    ax = plot_parallel(study)
    ax.figure.canvas.draw()
    assert axis_names(ax)[0] == r"\$a\$"
    assert r"\$x\$" in ticks(ax, 1)


def test_what_cannot_be_drawn_is_refused() -> None:
    study = told((ADAM, 3.0))
    with pytest.raises(ValueError, match=r"no parameter 'rat'.*Did you mean 'rate'"):
        plot_parallel(study, parameters=["rat"])
    with pytest.raises(ValueError, match="'one' has a single value"):
        plot_parallel(study, parameters=["one"])
    with pytest.raises(ValueError, match="must differ"):
        plot_parallel(study, parameters=["rate", "rate"])
    with pytest.raises(TypeError, match="list of names"):
        plot_parallel(study, parameters="rate")
    with pytest.raises(ValueError, match=r"no objective 'los'.*Did you mean 'loss'"):
        plot_parallel(study, name="los")
    with pytest.raises(ValueError, match="at least one trial"):
        plot_parallel(told())
    with pytest.raises(ValueError, match="single value"):
        plot_parallel(Study(Space({"x": Real(1, 1)}), minimize="loss", seed=0))
    assert plt.get_fignums() == []
