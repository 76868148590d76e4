"""Facts about the numbers of the dashboard's pictures."""

import math
import threading

import numpy as np
import pytest

from bbmmopt import Integer, Optimizer, Real
from bbmmopt import plots as pictures
from bbmmopt.dashboard.thinning import kept, thinned
from bbmmopt.plots import (
    acquisition_data,
    history_data,
    parallel_data,
    pareto_belief_data,
    pareto_data,
    posterior_data,
)
from bbmmopt.storage import MemoryStorage, Storage, open_storage
from bbmmopt.study import Study
from tests.bbmmopt.dashboards import Client, client_of, conditional_study, get, smooth_study

DEEP = f'{{"fixed": {{"C": {"[" * 700}1{"]" * 700}}}}}'


@pytest.fixture
def storage() -> Storage:
    """A conditional study."""
    storage = MemoryStorage()
    conditional_study(storage)
    return storage


def columns(table) -> dict:
    """The columns of a table as the page gets them."""
    return {
        name: [
            None if isinstance(v, float) and not math.isfinite(v) else v for v in values.tolist()
        ]
        for name, values in table.items()
    }


def picture(client: Client, kind: str, study: str = "svm", **query: object) -> dict:
    return get(client, "picture", kind=kind, study=study, **query)


def test_the_history_is_that_of_history_data(client, storage):
    found = picture(client, "history")
    expected = columns(history_data(Study.open(storage, "svm")))
    assert found["columns"] == expected
    assert found["keep"] == 0


def test_parallel_coordinates_are_those_of_parallel_data(client, storage):
    found = picture(client, "parallel")["columns"]
    expected = columns(parallel_data(Study.open(storage, "svm")))
    del expected["params.huge"], found["params.huge"]  # see the test of large integers
    assert found == expected


def test_the_front_is_that_of_pareto_data():
    storage = MemoryStorage()
    space = {"x": Real(0, 1)}
    study = Study(space, minimize=["a", "b"], storage=storage, study="two")
    for k in range(6):
        study.add_trial({"x": k / 6}, {"a": k % 4, "b": 5 - k})
    with client_of(storage) as client:
        found = picture(client, "pareto", study="two")
    expected = pareto_data(study)
    assert found["columns"] == columns(expected)
    assert found["facts"]["hypervolume"] == pytest.approx(expected.facts["hypervolume"])


def test_the_front_that_the_model_expects_is_that_of_pareto_belief_data():
    optimizer = Optimizer({"x": Integer(0, 6)}, minimize=["a", "b"], study="two", seed=0)
    for k in range(5):
        optimizer.add_trial({"x": k}, {"a": k**2, "b": (4 - k) ** 2})
    with client_of(optimizer.storage) as client:
        found = picture(client, "belief", study="two")
    assert found["columns"] == columns(pareto_belief_data(optimizer))


def test_a_posterior_slice_is_that_of_posterior_data(client, storage):
    smooth = smooth_study(storage, "smooth")
    for c in (2.0, 90.0):
        options = f'{{"x": "a", "fixed": {{"b": 0.25, "c": {c}}}}}'
        found = picture(client, "posterior", study="smooth", options=options)
        expected = posterior_data(smooth, "a", fixed={"b": 0.25, "c": c})
        for name in expected:
            assert found["columns"][name] == pytest.approx(expected[name].tolist(), rel=1e-9)
        assert found["facts"]["held"] == {"b": 0.25, "c": c}


def test_an_acquisition_surface_is_that_of_acquisition_data(client, storage):
    smooth = smooth_study(storage, "smooth")
    options = '{"x": "a", "y": "b", "fixed": {"c": "10"}, "acquisition": "ucb"}'
    found = picture(client, "acquisition", study="smooth", options=options)
    expected = acquisition_data(smooth, "a", "b", fixed={"c": 10}, acquisition="ucb")
    assert found["columns"]["value"] == pytest.approx(expected["value"].tolist(), rel=1e-9)
    assert found["facts"]["acquisition"] == expected.facts["acquisition"]


def test_trials_are_marked_on_a_slice_if_they_have_a_place_there(client, storage):
    options = '{"x": "degree", "fixed": {"kernel": "poly"}}'
    marks = picture(client, "posterior", options=options)["facts"]["marks"]
    trials = [t for t in Study.open(storage, "svm").trials if t.params["kernel"] == "poly"]
    assert {mark["number"] for mark in marks} == {trial.number for trial in trials}
    assert all(mark["feasible"] is (True if mark["values"] else None) for mark in marks)
    assert all(mark["x"] == trials[-1 - k].params["degree"] for k, mark in enumerate(marks))


def test_the_best_are_marked_on_a_posterior_however_old_they_are(monkeypatch):
    monkeypatch.setattr("bbmmopt.dashboard.pictures._MARKS", 2)
    storage = MemoryStorage()
    one = Study({"x": Real(0, 1)}, minimize="loss", storage=storage, study="one")
    two = Study({"x": Real(0, 1)}, minimize=["loss", "cost"], storage=storage, study="two")
    for k, loss in enumerate((3.0, 1.0, 1.0, 2.0, 4.0)):
        one.add_trial({"x": k / 5}, loss)
        two.add_trial({"x": k / 5}, {"loss": loss, "cost": float(k)})
    with client_of(storage) as client:
        options = [("one", "{}"), ("two", '{"name": "loss"}')]
        found = [picture(client, "posterior", study=s, options=o)["facts"] for s, o in options]
        plain = picture(client, "acquisition", study="one")["facts"]["marks"]
    marked = [[(m["number"], m["best"]) for m in facts["marks"]] for facts in found]
    assert marked == [
        [(4, False), (3, False), (1, True)],
        [(4, False), (3, False), (1, True), (0, True)],
    ]
    assert [facts["objectives"] for facts in found] == [1, 2]
    assert [(m["number"], m["best"]) for m in plain] == [(4, False), (3, False)]


def test_marks_tell_what_broke_a_constraint_and_what_was_given_up():
    storage = MemoryStorage()
    study = Study(
        {"x": Real(0, 1)}, minimize="loss", constraints=["heat <= 1"], storage=storage, study="hot"
    )
    for k, heat in enumerate((0.5, 1.5)):
        study.add_trial({"x": k / 2}, {"loss": k, "heat": heat})
    for outcome in ({"failed": "broken"}, {"pruned": "hopeless"}):
        study.enqueue({"x": 1.0})
        study.tell(study.claim(), **outcome)
    with client_of(storage) as client:
        found = picture(client, "posterior", study="hot", options='{"name": "heat"}')["facts"]
    assert found["name"] == "heat"
    told = [(m["state"], m["feasible"], m["constraints"].get("heat")) for m in found["marks"]]
    assert told == [
        *(("pruned", None, None), ("failed", None, None)),
        *(("complete", False, 1.5), ("complete", True, 0.5)),
    ]


def test_only_rows_that_are_new_are_sent(client, storage):
    first = picture(client, "history")
    study = Study.open(storage, "svm")
    study.add_trial({"C": 2.0, "kernel": "rbf", "huge": 0}, 0.125)
    second = picture(client, "history", have=first["version"], shown=first["revision"])
    assert second["keep"] == 10
    assert second["columns"]["values.loss"] == [0.125]
    whole = {k: v[:10] + second["columns"][k] for k, v in first["columns"].items()}
    assert whole == columns(history_data(study))
    study.tell(8, 0.0625)  # in the middle: all after it are sent
    third = picture(client, "history", have=second["version"], shown=second["revision"])
    assert third["keep"] == 8
    assert third["columns"]["best"] == [0.0625] * 3


def test_a_version_that_is_not_known_gets_everything(client):
    first = picture(client, "history")
    again = picture(client, "history", have=first["version"] + 77, shown=-1)
    assert (again["keep"], again["columns"]) == (0, first["columns"])


def test_a_version_of_a_server_that_was_started_anew_is_not_known(client, storage):
    first = picture(client, "history")
    study = Study.open(storage, "svm")
    study.tell(8, 0.5)
    with client_of(storage) as other:
        again = picture(other, "history")
        study.tell(9, 0.25)
        found = picture(other, "history", have=first["version"], shown=again["revision"])
    assert found["keep"] == 0
    assert found["columns"] == columns(history_data(study))


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """The calls of a data function from now on."""
    calls: list[object] = []
    function = getattr(pictures, name)

    def call(*given, **options):
        calls.append(options)
        return function(*given, **options)

    monkeypatch.setattr(pictures, name, call)
    return calls


def test_a_picture_is_computed_once_for_what_it_shows(client, storage, monkeypatch):
    calls = counted(monkeypatch, "posterior_data")
    study = Study.open(storage, "svm")
    shown = -1
    for _ in range(3):
        shown = max(shown, picture(client, "posterior")["revision"])
    assert len(calls) == 1
    # Reports change the study, but not what the model knows.
    study.report(8, 0, 1.0)
    assert picture(client, "posterior", shown=shown - 1)["revision"] == shown
    assert len(calls) == 1
    study.tell(8, 1.0)
    assert picture(client, "posterior", shown=shown)["revision"] > shown
    assert len(calls) == 2


def test_an_older_picture_is_sent_at_once_while_a_newer_one_takes_long(
    client, storage, monkeypatch
):
    first = picture(client, "history")
    Study.open(storage, "svm").tell(8, 1.0)
    asked, go_on = threading.Event(), threading.Event()
    compute = pictures.history_data

    def slow(*given, **options):
        asked.set()
        assert go_on.wait(20)
        return compute(*given, **options)

    monkeypatch.setattr(pictures, "history_data", slow)
    newer: list[dict] = []
    waiting = threading.Thread(
        target=lambda: newer.append(picture(client, "history", shown=first["revision"]))
    )
    waiting.start()
    assert asked.wait(20)
    assert picture(client, "history")["revision"] == first["revision"]
    assert get(client, "study")["summary"]["counts"]["complete"] == 8  # nothing else waits
    go_on.set()
    waiting.join(20)
    assert newer[0]["revision"] > first["revision"]


@pytest.mark.parametrize("kind", ["history", "posterior", "acquisition", "calibration"])
def test_a_study_without_results_has_nothing_to_show_yet(kind):
    storage = MemoryStorage()
    Study({"x": Real(0, 1)}, minimize="loss", storage=storage, study="new")
    with client_of(storage) as client:
        assert "Tell a result first" in picture(client, kind, study="new")["nothing"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"kind": "pie"}, 404, "there is no picture 'pie'"),
        ({"kind": "posterior", "options": "{"}, 400, "not JSON"),
        ({"kind": "posterior", "options": "[]"}, 400, "must be a JSON object"),
        ({"kind": "posterior", "options": '{"z": 1}'}, 400, "takes x, y, name, fixed"),
        ({"kind": "posterior", "options": '{"fixed": [1]}'}, 400, "fixed must be"),
        ({"kind": "posterior", "options": '{"x": "D"}'}, 422, "must be a parameter"),
        ({"kind": "posterior", "options": '{"x": ["C"]}'}, 400, "x must be a text; got list"),
        (
            {"kind": "acquisition", "options": '{"acquisition": {}}'},
            400,
            "must be a text; got dict",
        ),
        ({"kind": "posterior", "options": DEEP}, 422, "nested too deeply"),
        ({"kind": "posterior", "options": '{"fixed": {"C": 1e9}}'}, 422, "is outside"),
        ({"kind": "posterior", "options": '{"fixed": {"degree": 3, "kernel": "rbf"}}'}, 422, "not"),
        ({"kind": "posterior", "have": "x"}, 400, "have= must be an integer"),
        ({}, 400, "kind= is missing"),
    ],
)
def test_a_wrong_ask_for_a_picture_says_what_is_wrong(client, query, status, words):
    answer = client.get("/api/picture", params={"study": "svm"} | query)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_what_is_no_number_is_null(client, storage):
    study = Study.open(storage, "svm")
    for step, value in enumerate((1.0, math.nan, math.inf)):
        study.report(8, step, value)
    assert picture(client, "curves")["columns"]["value"] == [1.0, None, None]


@pytest.mark.parametrize("count", [300, 20_000])
def test_a_long_history_keeps_each_record_and_its_end(count, monkeypatch):
    rng = np.random.default_rng(count)
    best = np.minimum.accumulate(rng.random(count))
    table = {"trial": np.arange(count), "best": best}
    drawn = thinned(table, 250, kept("history", table, {}, None), latest=False)
    records = np.flatnonzero(np.append(True, np.diff(best) < 0))
    assert set(records) <= set(drawn["trial"])
    assert drawn["trial"][-1] == count - 1
    assert len(drawn["trial"]) <= 250 + len(records) + 1
    longer = {"trial": np.arange(count + 5), "best": np.append(best, [best[-1]] * 5)}
    again = thinned(longer, 250, kept("history", longer, {}, None), latest=False)
    assert set(drawn["trial"][:-1]) <= set(again["trial"])  # what was drawn stays


def test_a_study_in_postgresql_is_served_and_changed(postgres_url):
    with open_storage(postgres_url) as storage:
        conditional_study(storage)
        with client_of(storage) as client:
            before = picture(client, "history")
            sent = {"study": "svm", "number": 8, "values": {"loss": 0.5}}
            assert client.post("/api/tell", json=sent).status_code == 200
            after = picture(client, "history", have=before["version"], shown=before["revision"])
            assert after["columns"]["values.loss"] == [0.5, None]
            assert storage.trial("svm", 8).values == {"loss": 0.5}
