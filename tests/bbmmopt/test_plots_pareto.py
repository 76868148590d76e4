"""The front: what was observed, what the model believes, and the picture of both."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from bbmmopt import NoCompleteTrial, Space, Study
from bbmmopt.pareto import pareto_front_of
from bbmmopt.plots import pareto_data, plot_pareto
from tests.bbmmopt.fronts import SQUARE, some, told
from tests.bbmmopt.pictures import marks, texts
from tests.bbmmopt.programs import run

pytestmark = pytest.mark.usefixtures("canvas")


def beats(a: dict, b: dict) -> bool:
    """Whether a is as good as b in both, and better in one."""
    better = a["error"] <= b["error"] and a["yield"] >= b["yield"]
    return better and a != b


def line(ax: Axes, colour: str) -> np.ndarray:
    """Points of the line of a colour, shape (n, 2)."""
    found = [line for line in ax.lines if line.get_color() == colour]
    assert len(found) == 1
    return np.asarray(found[0].get_xydata())


# --------------------------------------------------------------------------------------
# Observed
# --------------------------------------------------------------------------------------


def test_the_front_is_what_no_other_trial_beats() -> None:
    study = some()
    table = pareto_data(study)
    values = [trial.values or {} for trial in study.trials]
    front = [not any(beats(other, value) for other in values) for value in values]
    assert table["on_front"].tolist() == front
    assert table["values.yield"].tolist() == [value["yield"] for value in values]
    assert 2 < sum(front) < len(front)


def test_the_hypervolume_is_the_share_of_a_box_that_is_dominated() -> None:
    study = some(reference_point={"error": 1.0, "yield": -15.0})
    table = pareto_data(study)
    assert table.facts["reference_point"] == {"error": 1.0, "yield": -15.0}
    assert table.facts["inferred"] is False
    rng = np.random.default_rng(0)
    error, gain = rng.uniform(0, 1, 40_000), rng.uniform(-15, 0, 40_000)
    dominated = np.zeros(len(error), dtype=bool)
    for trial in study.trials:
        values = trial.values or {}
        dominated |= (error >= values["error"]) & (gain <= values["yield"])
    share, volume = dominated.mean(), 15.0
    spread = volume * (share * (1 - share) / len(error)) ** 0.5
    assert table.facts["hypervolume"] == pytest.approx(volume * share, abs=4 * spread)


def test_trials_that_break_a_constraint_are_on_no_front_and_leave_others_there() -> None:
    points = [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.2}]
    values = [{"error": 0.1, "yield": 5.0, "heat": 3.0}, {"error": 0.2, "yield": 4.0, "heat": 0.0}]
    study = told(points, values, constraints="heat <= 1")
    table = pareto_data(study)
    assert table["feasible"].tolist() == [False, True]
    assert table["on_front"].tolist() == [False, True]
    ax = plot_pareto(study)
    assert marks(ax, "infeasible").tolist() == [[0.1, 5.0]]
    assert marks(ax, "on the front").tolist() == [[0.2, 4.0]]


def test_where_no_trial_is_feasible_there_is_no_front_and_no_volume() -> None:
    values = [{"error": 0.1, "yield": 5.0, "heat": 3.0}]
    study = told([{"x": 0.1, "y": 0.1}], values, constraints="heat <= 1")
    facts = pareto_data(study).facts
    assert (facts["reference_point"], facts["hypervolume"]) == (None, 0.0)
    ax = plot_pareto(study)
    assert "0 of 1 trials on the front" in texts(ax)
    assert "hypervolume" not in texts(ax)


def test_chosen_objectives_have_a_front_of_their_own() -> None:
    names = ["a", "b", "c", "d"]
    study = Study(Space(SQUARE), minimize=names, seed=0, reference_point=dict.fromkeys(names, 9.0))
    rng = np.random.default_rng(0)
    Y = rng.random((30, 4))
    for row in Y:
        study.add_trial(
            {"x": float(row[0]), "y": float(row[1])}, dict(zip(names, row, strict=True))
        )
    table = pareto_data(study, objectives=["c", "a"])
    assert table.facts["objectives"] == ("c", "a")
    assert table.facts["reference_point"] == {"c": 9.0, "a": 9.0}
    assert table["on_front"].tolist() == pareto_front_of(-Y[:, [2, 0]]).tolist()
    ax = plot_pareto(study, objectives=["c", "a"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c (minimized)", "a (minimized)")


def test_it_opens_a_stored_study_without_torch(tmp_path) -> None:
    study = some(5, storage=tmp_path / "study.db")
    expected = pareto_data(study)["on_front"].tolist()
    study.close()
    code = (
        "import sys; from bbmmopt.plots import pareto_data, plot_pareto, plot_parallel\n"
        "table = pareto_data('study.db'); plot_pareto('study.db'); plot_parallel('study.db')\n"
        "print(table['on_front'].tolist(), 'torch' in sys.modules)"
    )
    assert run("-c", code, cwd=tmp_path).strip() == f"{expected} False"


# --------------------------------------------------------------------------------------
# The picture of it
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("senses", [*itertools.product(["minimize", "maximize"], repeat=2)])
def test_the_staircase_separates_what_is_dominated_for_each_pair_of_directions(senses) -> None:
    names = {"minimize": [], "maximize": []}
    for name, sense in zip("ab", senses, strict=True):
        names[sense].append(name)
    study = Study(Space(SQUARE), **names, seed=0)
    rng = np.random.default_rng(2)
    Y = rng.random((12, 2))
    for a, b in Y:
        study.add_trial({"x": float(a), "y": float(b)}, {"a": float(a), "b": float(b)})
    ax = plot_pareto(study, objectives=["a", "b"])
    stairs = line(ax, "#1a1a1a")
    sign = np.array([1 if sense == "maximize" else -1 for sense in senses])
    front = (Y * sign)[pareto_front_of(Y * sign)] * sign
    for value in front:  # each is a corner
        assert (stairs == value).all(1).any()
    # Steps only go along the axes, and each point of them is dominated, or nearly.
    assert (np.diff(stairs, axis=0) == 0).any(1).all()
    middle = 0.5 * (stairs[1:] + stairs[:-1])
    assert all(((sign * front) >= sign * point - 1e-12).all(1).any() for point in middle)
    beyond = middle + 1e-6 * sign
    assert not any(((sign * front) >= sign * point).all(1).any() for point in beyond)


def test_the_shaded_region_has_the_hypervolume_as_its_area() -> None:
    study = some(reference_point={"error": 1.0, "yield": -15.0})
    ax = plot_pareto(study)
    (patch,) = ax.patches
    x, y = patch.get_path().vertices[:-1].T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    assert area == pytest.approx(pareto_data(study).facts["hypervolume"])
    assert marks(ax, "reference point").tolist() == [[1.0, -15.0]]
    assert f"hypervolume {area:.4g} up to (1, -15)" in texts(ax)


def test_every_trial_is_marked_once_and_the_rest_is_counted(smooth) -> None:
    study = some(20)
    study.enqueue({"x": 0.5, "y": 0.5})
    study.tell(study.claim(), failed="no")
    study.enqueue({"x": 0.5, "y": 0.25})
    ax = plot_pareto(study)
    drawn = np.concatenate([marks(ax, "on the front"), marks(ax, "dominated")])
    values = [trial.values for trial in study.trials if trial.values]
    expected = sorted((v["error"], v["yield"]) for v in values)
    assert sorted(map(tuple, drawn)) == expected
    assert "not shown: 1 failed, 1 waiting" in texts(ax)


def test_a_trial_that_is_far_off_does_not_squeeze_the_front() -> None:
    study = some(20)
    study.add_trial({"x": 0.5, "y": 0.5}, {"error": 1e9, "yield": -1e9})
    ax = plot_pareto(study)
    front = marks(ax, "on the front")
    assert np.ptp(ax.get_xlim()) < 6 * np.ptp(front[:, 0])
    assert "1 out of view" in texts(ax)


def test_standard_errors_of_the_front_are_bars() -> None:
    points = [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.2}]
    values = [
        {"error": (0.1, 0.05), "yield": 5.0},
        {"error": (0.2, 0.07), "yield": 4.0},  # dominated
    ]
    ax = plot_pareto(told(points, values))
    spans = [np.ptp(np.array(s)[:, 0]) for c in ax.collections for s in _segments(c)]
    assert max(spans) == pytest.approx(0.1)
    assert 0.14 not in np.round(spans, 6)


def _segments(collection) -> list:
    return collection.get_segments() if hasattr(collection, "get_segments") else []


def test_a_third_objective_is_colour_bright_being_good() -> None:
    for sense, brightest in (("minimize", 0), ("maximize", 2)):
        study = Study(
            Space(SQUARE),
            **({"minimize": ["a", "b", "c"]} if sense == "minimize" else {}),
            **({"minimize": ["a", "b"], "maximize": "c"} if sense == "maximize" else {}),
            seed=0,
        )
        for k in range(3):  # all on the front
            study.add_trial({"x": 0.1 * k, "y": 0.0}, {"a": k, "b": -k, "c": 5.0 * k})
        ax = plot_pareto(study)
        (drawn,) = [c for c in ax.collections if c.get_label() == "on the front"]
        assert drawn.get_array().tolist() == [0.0, 5.0, 10.0]
        colours = drawn.to_rgba(drawn.get_array())
        assert int((colours[:, :3] @ [0.299, 0.587, 0.114]).argmax()) == brightest
        assert f"c ({sense}d)" in [other.get_ylabel() for other in ax.figure.axes]
        plt.close("all")


# --------------------------------------------------------------------------------------
# Refused
# --------------------------------------------------------------------------------------


def test_what_cannot_be_drawn_is_refused_with_what_to_do(smooth) -> None:
    with pytest.raises(ValueError, match=r"has one, 'loss'.*plot_history"):
        plot_pareto(smooth)
    many = Study(Space(SQUARE), minimize=["a", "b", "c", "d"], seed=0)
    with pytest.raises(ValueError, match=r"there are 4.*objectives=.*'a', 'b', 'c', 'd'"):
        plot_pareto(many)
    with pytest.raises(NoCompleteTrial, match="at least one complete trial"):
        plot_pareto(many, objectives=["a", "b"])
    two = some(3)
    with pytest.raises(ValueError, match=r"no objective 'eror'.*Did you mean 'error'"):
        plot_pareto(two, objectives=["eror", "yield"])
    for wrong in (["error"], ["error", "error"]):
        with pytest.raises(ValueError, match="two or three different"):
            plot_pareto(two, objectives=wrong)
    with pytest.raises(TypeError, match="list of names"):
        plot_pareto(two, objectives="error")
    with pytest.raises(TypeError, match="one matplotlib Axes"):
        plot_pareto(two, ax=3)  # type: ignore[arg-type]
    assert plt.get_fignums() == []
