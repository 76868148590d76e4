"""What a notebook shows of our objects."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from bbmmopt import (
    Categorical,
    Integer,
    Linear,
    Optimizer,
    Ordinal,
    Real,
    Space,
    Study,
    Trial,
    minimize,
)
from bbmmopt.notebook import sparkline
from bbmmopt.plots import Table, parallel_data
from bbmmopt.storage.memory import MemoryStorage
from bbmmopt.study.html import best_so_far
from tests.bbmmopt.pages import HOSTILE, Page, page


def a_study(**options: Any) -> Study:
    return Study(Space({"x": Real(0, 1)}), **{"minimize": "loss", "seed": 7} | options)


# --------------------------------------------------------------------------------------
# What is shown of each
# --------------------------------------------------------------------------------------


def test_a_space_is_a_row_for_each_parameter() -> None:
    space = Space(
        {
            "rate": Real(1e-5, 0.1, log=True),
            "units": Integer(8, 512, step=8),
            "kind": Categorical(["adam", "sgd"]),
            "size": Ordinal([16, 32, 64]),
            "momentum": Real(0, 1, when={"kind": ["sgd"]}),
            "one": Integer(3, 3),
            "long": Categorical([f"c{i}" for i in range(20)]),
        },
        constraints=[Linear({"rate": 1, "units": 2}, at_most=900)],
    )
    rows = page(space).rows
    assert rows[0] == ["parameter", "kind", "range", "scale", "only if"]
    assert rows[1:8] == [
        ["rate", "Real", "1e-05 … 0.1", "logarithmic", ""],
        ["units", "Integer", "8 … 512, step 8", "linear", ""],
        ["kind", "Categorical", "adam, sgd", "", ""],
        ["size", "Ordinal", "16 < 32 < 64", "", ""],
        ["momentum", "Real", "0 … 1", "linear", "kind is sgd"],
        ["one", "Integer", "3", "fixed", ""],
        ["long", "Categorical", ", ".join(f"c{i}" for i in range(12)) + " and 8 more", "", ""],
    ]
    assert rows[8:] == [["constraint"], [repr(space.constraints[0])]]


def test_a_trial_tells_params_values_errors_times_and_attributes() -> None:
    trial = Trial(
        5,
        {"x": 0.123456789, "kind": "a"},
        "complete",  # type: ignore[arg-type]
        {"loss": 1 / 3},
        {"loss": 0.25},
        {"heat": 2.0},
        started=0.0,
        finished=90.5,
        worker="w1",
        attrs={"note": "good"},
        origin={"phase": "model"},
    )
    found = page(trial)
    assert "Trial 5 complete" in found.text
    assert found.facts == {
        "x": "0.123456789",  # what was handed out, to the last digit
        "kind": "a",
        "loss": "0.333333 ± 0.25",
        "heat": "2",
        "chosen by": "model",
        "worker": "w1",
        "started": "1970-01-01 00:00:00 UTC",
        "finished": "1970-01-01 00:01:30 UTC",
        "seconds": "90.5",
        "note": "good",
    }


def test_a_traceback_is_folded_and_a_short_reason_is_not() -> None:
    reason = "Traceback\n  in f\nZeroDivisionError: no"
    found = page(Trial(0, {"x": 1.0}, "failed", reason=reason))  # type: ignore[arg-type]
    assert {"details", "pre"} <= found.seen
    assert reason in found.text and found.text.count("ZeroDivisionError") == 2
    found = page(Trial(0, {"x": 1.0}, "failed", reason="diverged"))  # type: ignore[arg-type]
    assert "details" not in found.seen
    assert found.facts["reason"] == "diverged"


def test_a_study_tells_its_problem_its_counts_and_its_best() -> None:
    study = a_study(constraints="heat <= 2")
    for x, loss, heat in ((0.1, 3.0, 0.0), (0.2, 1.0, 9.0), (0.3, 2.0, 1.0), (0.4, 5.0, 1.0)):
        study.add_trial({"x": x}, {"loss": loss, "heat": heat})
    study.enqueue({"x": 0.5})
    study.tell(study.claim() or -1, failed="no")
    study.enqueue({"x": 0.6})
    found = page(study)
    assert found.text.startswith("Study study 'default'")
    assert found.facts == {
        "objectives": "minimize loss",
        "constraints": "heat ≤ 2",
        "trials": "6: 1 waiting, 4 complete, 1 failed",
        "storage": "in memory",
        "seed": "7",
        "best": "loss = 2 (trial 2)",
        "parameters": "x = 0.3",
        "constraints told": "heat = 1",
    }
    assert best_so_far(study.problem, study.trials) == [3.0, 2.0, 2.0]
    assert len(found.paths) == 1
    assert "1 parameter" in found.text  # folded


def test_a_study_without_results_is_shown_too() -> None:
    found = page(a_study())
    assert found.facts["trials"] == "none"
    assert "svg" not in found.seen


def test_several_objectives_show_their_front() -> None:
    study = a_study(minimize="loss", maximize="speed")
    for k in range(14):
        study.add_trial({"x": k / 20}, {"loss": float(k), "speed": float(k)})
    study.add_trial({"x": 1.0}, {"loss": 20.0, "speed": 1.0})
    found = page(study)
    assert "14 on the front" in found.text and "first 10" in found.text
    rows = [row for row in found.rows if len(row) == 4]
    assert rows[0] == ["trial", "loss", "speed", "parameters"]
    assert rows[1] == ["0", "0", "0", "x = 0"] and len(rows) == 11


def test_an_optimizer_is_shown_as_what_it_is_without_a_fit(monkeypatch) -> None:
    optimizer = Optimizer(Space({"x": Real(0, 1)}), maximize="gain", seed=0)
    optimizer.tell(optimizer.ask(), 1.5)
    monkeypatch.setattr(Optimizer, "beliefs", None)  # a model would be asked here
    found = page(optimizer)
    assert found.text.startswith("Optimizer")
    assert found.facts["best"] == "gain = 1.5 (trial 0)"


def test_no_password_gets_into_a_notebook(monkeypatch) -> None:
    address = "postgresql+psycopg://me:s3cret@host:5432/name?password=s3cret"
    study = a_study()
    monkeypatch.setattr(MemoryStorage, "address", address)
    found = page(study)
    assert "s3cret" not in found.text and "me:" not in found.text
    assert found.facts["storage"] == "postgresql+psycopg://host:5432/name"


def test_a_run_and_a_recommendation_are_shown() -> None:
    result = minimize(
        lambda x: (x - 0.5) ** 2, {"x": Real(0, 1)}, n_trials=6, seed=0, progress=False, name="loss"
    )
    found = page(result)
    assert "all 6 trials done" in found.text
    assert found.facts["trials of this run"] == "6 complete"
    assert found.facts["best"] == f"loss = {result.best.value:.6g} (trial {result.best.number})"
    recommended = result.optimizer.recommend()
    found = page(recommended)
    assert f"{recommended.value:.6g} ± {recommended.uncertainty:.6g} expected" in found.text
    assert found.facts == {"x": str(recommended.params["x"])}


def test_a_table_shows_its_first_rows_and_its_facts() -> None:
    table = Table({"a": np.arange(13), "b": [np.nan] + [0.5] * 12}, held={"x": 1.0}, names=("u",))
    found = page(table)
    assert found.rows[:3] == [["a", "b"], ["0", "–"], ["1", "0.5"]]
    assert "and 3 more" in found.text
    assert found.rows[11:] == [["held", "x = 1"], ["names", "u"]]


def test_whatever_the_user_wrote_is_text() -> None:
    space = Space({HOSTILE: Categorical([HOSTILE, "b"])})
    study = Study(space, minimize=HOSTILE, study=HOSTILE, constraints={f"{HOSTILE}2": 1}, seed=0)
    point = {HOSTILE: HOSTILE}
    study.add_trial(point, {HOSTILE: 1.0, f"{HOSTILE}2": 0.0})
    study.enqueue(point)
    trial = study.tell(study.claim(worker=HOSTILE) or -1, failed=f"a\n{HOSTILE}")
    study.set_attrs(trial, {HOSTILE: HOSTILE})
    for thing in (space, study, *study.trials, parallel_data(study)):
        html = thing._repr_html_()
        assert "<script" not in html
        assert HOSTILE in Page(html).text


# --------------------------------------------------------------------------------------
# The curve
# --------------------------------------------------------------------------------------


def corners(path: str) -> list[tuple[float, float]]:
    """The points that a path of M, H and V goes through."""
    (start,) = re.findall(r"^M([\d.]+) ([\d.]+)", path)
    points = [(float(start[0]), float(start[1]))]
    for direction, number in re.findall(r"([HV])([\d.]+)", path):
        x, y = points[-1]
        points.append((float(number), y) if direction == "H" else (x, float(number)))
    return points


def test_the_curve_goes_in_steps_from_corner_to_corner_of_its_room() -> None:
    (path,) = Page(sparkline([4.0, 2.0, 2.0, 0.0], "best so far")).paths
    assert corners(path) == [
        *((2.0, 2.0), (80.7, 2.0), (80.7, 20.0), (159.3, 20.0), (159.3, 20.0)),
        *((238.0, 20.0), (238.0, 38.0)),
    ]


@pytest.mark.parametrize("values", [[1.0, 1.0], [1.7e308, -1.7e308], list(range(5000))])
def test_a_curve_of_any_values_stays_within_its_room(values: list[float]) -> None:
    (path,) = Page(sparkline(values, "any")).paths
    points = corners(path)
    assert all(0 <= x <= 240 and 0 <= y <= 40 for x, y in points)
    assert points[-1][0] == 238.0
    assert len(points) <= 2 * 400
