"""Facts about what the page of the dashboard can change, and what it is told when it cannot."""

from threading import Thread

import pytest

from bbmmopt.dashboard.strict import MOST_BYTES
from bbmmopt.storage import MemoryStorage, Storage
from bbmmopt.study import Study
from tests.bbmmopt.dashboards import Client, client_of, conditional_study, get

POINT = {"C": 10.0, "kernel": "rbf", "huge": 7}


@pytest.fixture
def storage() -> Storage:
    """A conditional study."""
    storage = MemoryStorage()
    conditional_study(storage)
    return storage


def post(client: Client, name: str, **sent: object) -> dict:
    """What the dashboard answers, which must have done it."""
    answer = client.post(f"/api/{name}", json={"study": "svm"} | sent)
    assert answer.status_code == 200, answer.text
    return answer.json()["done"]


def refused(client: Client, name: str, status: int, **sent: object) -> str:
    """Why it did not."""
    answer = client.post(f"/api/{name}", json={"study": "svm"} | sent)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_a_trial_is_put_in_line(client, storage):
    done = post(client, "enqueue", params=POINT)
    trial = storage.trial("svm", done["number"])
    assert (trial.state, trial.params) == ("waiting", POINT)
    assert trial.origin == {"phase": "enqueued"}


def test_texts_of_a_form_are_read_as_the_parameter_wants_them(client, storage):
    texts = {"C": "1e-2", "kernel": "poly", "degree": "4", "huge": str(2**60 - 1)}
    number = post(client, "enqueue", params=texts)["number"]
    params = storage.trial("svm", number).params
    assert params == {"C": 0.01, "kernel": "poly", "degree": 4, "huge": 2**60 - 1}
    assert [type(v) for v in params.values()] == [float, str, int, int]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"C": 1e9}, "parameter 'C': 1000000000.0 is outside [0.001, 1000.0]"),
        ({"C": "ten"}, "parameter 'C': expected a number in [0.001, 1000.0]; got 'ten'"),
        ({"C": ""}, "parameter 'C': expected a number"),
        ({"D": 1}, "unknown parameter 'D'"),
        ({"degree": 3}, "parameter 'degree' = 3 is not active"),
        ({"kernel": "poly"}, "parameter 'degree' is missing"),
        ({"kernel": 1}, "expected one of 'rbf', 'poly'"),
    ],
)
def test_a_wrong_point_is_refused_with_the_reason(client, storage, change, words):
    assert words in refused(client, "enqueue", 422, params=POINT | change)
    assert len(storage.changes("svm")[0]) == 10


def test_a_value_is_told_exactly(client, storage):
    done = post(client, "tell", number=8, values={"loss": "0.1"}, standard_errors={"loss": "0.02"})
    trial = storage.trial("svm", 8)
    assert (trial.state, trial.values, trial.standard_errors) == (
        "complete",
        {"loss": 0.1},
        {"loss": 0.02},
    )
    assert done["values"] == {"loss": 0.1}


@pytest.mark.parametrize("kind", ["failed", "pruned"])
def test_a_trial_without_a_value_is_told_with_the_reason(client, storage, kind):
    post(client, "tell", number=9, **{kind: "the power was cut"})
    trial = storage.trial("svm", 9)
    assert (trial.state, trial.reason) == (kind, "the power was cut")


def test_a_value_that_is_no_number_counts_as_failed(client, storage):
    done = post(client, "tell", number=8, values={"loss": "nan"})
    assert done["state"] == "failed"
    assert "nan" in storage.trial("svm", 8).reason


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"number": 8, "values": {"loss": "much"}}, 422, "loss must be a number; got 'much'"),
        ({"number": 8, "values": {"loss": ""}}, 422, "it is empty"),
        ({"number": 8, "values": {}}, 422, "loss"),
        ({"number": 8, "values": {"lost": "1"}}, 422, "lost"),
        ({"number": 8, "values": {"loss": "-inf"}}, 422, "inf"),
        ({"number": 8, "values": {"loss": "9" * 400}}, 422, "loss is too large for a float"),
        ({"number": 8, "values": {"loss": int("9" * 400)}}, 422, "too large for a float"),
        ({"number": int("9" * 400), "values": {"loss": 1}}, 404, "no trial 99"),
        ({"number": 8, "values": {"loss": 1}, "standard_errors": 3}, 422, "must be a JSON object"),
        ({"number": 8, "values": {"loss": 1}, "failed": "no"}, 422, "not two of them"),
        ({"number": 8, "failed": ""}, 422, "takes the reason"),
        ({"number": 8, "values": 3}, 422, "'values' must be a JSON object"),
        ({"number": 8}, 422, "'values' is missing"),
        ({"number": "8", "values": {"loss": 1}}, 422, "'number' must be an integer"),
        ({"number": True, "values": {"loss": 1}}, 422, "'number' must be an integer"),
        ({"number": 77, "values": {"loss": 1}}, 404, "no trial 77"),
        ({"number": 0, "values": {"loss": 1}}, 409, "trial 0"),
    ],
)
def test_a_wrong_outcome_is_refused_with_the_reason(client, storage, sent, status, words):
    before = storage.trial("svm", 8), storage.trial("svm", 0)
    assert words in refused(client, "tell", status, **sent)
    assert (storage.trial("svm", 8), storage.trial("svm", 0)) == before


def test_of_many_who_tell_one_trial_at_once_one_is_heard(client, storage):
    answers: list[tuple[int, int]] = []

    def tell(value: int) -> None:
        sent = {"study": "svm", "number": 8, "values": {"loss": value}}
        answers.append((client.post("/api/tell", json=sent).status_code, value))

    threads = [Thread(target=tell, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (heard,) = [value for status, value in answers if status == 200]
    assert sorted(status for status, _ in answers) == [200] + 5 * [409]
    assert storage.trial("svm", 8).values == {"loss": heard}


def test_runs_are_told_to_stop(client, storage):
    study = Study.open(storage, "svm")
    assert study.stop_reason is None
    post(client, "stop", reason="the reagent is used up")
    assert study.stop_reason == "the reagent is used up"
    found = client.get("/api/study", params={"study": "svm"}).json()
    assert found["summary"]["stopped"] == "the reagent is used up"
    study.claim()  # somebody has begun again
    found = client.get("/api/study", params={"study": "svm"}).json()
    assert found["summary"]["stopped"] is None


def test_a_study_that_went_on_after_a_stop_is_not_shown_as_stopped(storage):
    study = Study.open(storage, "svm")
    study.stop("the reagent is used up")

    def shown() -> str | None:
        with client_of(storage) as client:
            return get(client, "study")["summary"]["stopped"]

    assert shown() == "the reagent is used up"
    study.claim()
    assert shown() is None
    study.stop("for good")
    study.tell(8, failed="late")  # the end of what was begun before is no beginning
    assert shown() == "for good"


@pytest.mark.parametrize("reason", ["  ", None, 3])
def test_to_stop_needs_a_reason(client, storage, reason):
    refused(client, "stop", 422, reason=reason)
    assert Study.open(storage, "svm").storage.stop_asked("svm", 0)[0] is None


@pytest.mark.parametrize("name", ["enqueue", "tell", "stop"])
def test_a_dashboard_to_look_at_changes_nothing(storage, name):
    before = storage.stop_asked("svm", None)[1]
    with client_of(storage, read_only=True) as client:
        assert "--read-only" in refused(client, name, 403, params=POINT, number=8, reason="no")
        assert client.get("/api/studies").json()["read_only"]
    assert storage.stop_asked("svm", None)[1] == before


def test_a_change_of_a_study_that_is_not_there_is_404(client):
    assert "no study 'svn'" in refused(client, "stop", 404, study="svn", reason="typo")


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"\xff", "application/json", 400, "not JSON"),
        (b'{"study": "svm", "number": NaN}', "application/json", 400, "NaN is no number"),
        (b'{"study": "svm", "reason": -1e400}', "application/json", 400, "-1e400 is too large"),
        (b"[" * 50_000, "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "must be a JSON object"),
        (b"{}", "application/json", 400, "'study' is missing"),
        (b"{}", "text/plain", 415, "Content-Type"),
        (b"{}", "application/x-www-form-urlencoded", 415, "Content-Type"),
        (b" " * (MOST_BYTES + 1), "application/json", 413, "bytes"),
    ],
)
def test_what_is_no_request_gets_a_clear_answer(client, content, kind, status, words):
    answer = client.post("/api/stop", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_as_much_as_is_allowed_is_taken(client):
    start, end = b'{"study": "svm", "reason": "', b'"}'
    content = start + b"x" * (MOST_BYTES - len(start) - len(end)) + end
    kind = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post("/api/stop", content=content, headers=kind).status_code == 200


def test_addresses_and_methods_that_do_not_exist_get_clear_answers(client):
    assert client.get("/api/nothing").json() == {"error": "there is nothing at /api/nothing."}
    answer = client.get("/api/stop")
    assert (answer.status_code, answer.json()["error"]) == (405, "GET is not for /api/stop.")
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404
