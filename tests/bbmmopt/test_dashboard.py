"""Facts about what the dashboard tells of studies and trials."""

from pathlib import Path

import pytest

from bbmmopt import Optimizer, Real, dashboard
from bbmmopt.dashboard.rows import Query
from bbmmopt.storage import MemoryStorage, Storage
from bbmmopt.study import Study
from bbmmopt.trial import TrialState
from tests.bbmmopt.dashboards import (
    NASTY,
    TRACEBACK,
    client_of,
    conditional_study,
    get,
    smooth_study,
)


@pytest.fixture
def storage() -> Storage:
    """A conditional study."""
    storage = MemoryStorage()
    conditional_study(storage)
    return storage


# --------------------------------------------------------------------------------------
# Studies
# --------------------------------------------------------------------------------------


def test_the_studies_of_the_storage_are_listed(client, storage):
    smooth_study(storage, NASTY, 1)
    found = client.get("/api/studies").json()
    assert found == {
        "storage": "study.db",
        "studies": ["svm", NASTY],
        "first": None,
        "read_only": False,
    }


def test_a_study_is_described_with_all_that_a_form_needs(client):
    found = get(client, "study")
    by_name = {p["name"]: p for p in found["parameters"]}
    assert by_name["degree"]["when"] == {"kernel": ["poly"]}
    assert by_name["C"]["log"]
    assert by_name["C"]["expected"] == "a number in [0.001, 1000.0]"
    assert by_name["huge"]["high"] == str(2**60)  # JavaScript would round it
    assert found["objectives"] == [{"name": "loss", "direction": "minimize", "noise": "unknown"}]
    summary = found["summary"]
    assert summary["counts"] == {
        "waiting": 1,
        "running": 1,
        "complete": 7,
        "failed": 1,
        "pruned": 0,
    }
    assert summary["best"]["number"] == 4
    assert not summary["reported"]


def test_a_study_that_is_extended_is_described_anew(client, storage):
    before = get(client, "study")
    space = {"C": Real(1e-6, 1e6, log=True)}
    others = {p: v for p, v in Study.open(storage, "svm").space.parameters.items() if p != "C"}
    Optimizer(space | others, minimize="loss", storage=storage, study="svm", mode="extend")
    after = get(client, "study")
    assert before["parameters"][0]["high"] == 1e3
    assert after["parameters"][0]["high"] == 1e6
    assert after["generation"] == before["generation"] + 1


def test_a_study_that_is_not_there_is_404(client):
    answer = client.get("/api/study", params={"study": "svn"})
    assert answer.status_code == 404
    assert "no study 'svn'" in answer.json()["error"]


# --------------------------------------------------------------------------------------
# The table of trials
# --------------------------------------------------------------------------------------


def test_a_page_of_trials_holds_so_many_rows(client):
    found = get(client, "trials", sort="number", descending=0, start=2, most=3)
    assert [row["number"] for row in found["rows"]] == [2, 3, 4]
    assert (found["matching"], found["total"]) == (10, 10)
    assert len(get(client, "trials", most=100_000)["rows"]) == 10


def test_no_page_is_longer_than_two_hundred_trials():
    storage = MemoryStorage()
    study = Study({"x": Real(0, 1)}, minimize="loss", storage=storage, study="svm")
    for k in range(203):
        study.add_trial({"x": k / 203}, k)
    with client_of(storage) as client:
        assert len(get(client, "trials", most=100_000)["rows"]) == 200


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    "column", ["number", "state", "worker", "values.loss", "params.degree", "params.C", "seconds"]
)
def test_trials_are_sorted_with_missing_ones_last(column, descending, storage):
    trials = Study.open(storage, "svm").trials
    found = Query(column, descending).of(trials)
    part, _, name = column.partition(".")
    key = {"seconds": lambda t: t.duration}.get(
        column, lambda t: (getattr(t, part) or {}).get(name) if name else getattr(t, part)
    )
    there = [key(t) for t in found if key(t) is not None]
    assert there == sorted(there, reverse=descending)
    assert len(there) >= 1
    assert [key(t) for t in found[len(there) :]] == [None] * (len(trials) - len(there))


def test_trials_are_found_by_state_and_text(client):
    assert [r["number"] for r in get(client, "trials", state="failed")["rows"]] == [3]
    two = get(client, "trials", state=["failed", "waiting"])
    assert {r["number"] for r in two["rows"]} == {3, 9}
    assert [r["number"] for r in get(client, "trials", text="zerodiv")["rows"]] == [3]
    poly = get(client, "trials", text="kernel=poly")["rows"]
    assert poly
    assert all(row["params"]["kernel"] == "poly" for row in poly)
    assert get(client, "trials", text="no such text")["matching"] == 0


@pytest.mark.parametrize("query", [{"sort": "params"}, {"sort": "lease"}, {"state": "done"}])
def test_a_wrong_column_or_state_is_refused(client, query):
    assert client.get("/api/trials", params={"study": "svm"} | query).status_code == 422


def test_details_hold_the_whole_traceback_and_why_the_point_was_chosen(client):
    row = get(client, "trials", state="failed")["rows"][0]
    assert row["reason"] == "ZeroDivisionError: <b>zero</b>"
    found = get(client, "trial", number=3)
    assert found["reason"] == TRACEBACK
    assert "Sobol" in found["explanation"]
    assert client.get("/api/trial", params={"study": "svm", "number": 99}).status_code == 404


def test_integers_that_javascript_would_round_are_texts(client):
    assert get(client, "trial", number=9)["params"]["huge"] == str(2**60 - 1)


def test_states_have_the_names_of_the_page():
    page = Path(dashboard.__file__).parent / "static" / "trials.js"
    listed = page.read_text().split("const STATES = [")[1].split("]")[0]
    assert {name.strip(' "') for name in listed.split(",")} == {str(s) for s in TrialState}
