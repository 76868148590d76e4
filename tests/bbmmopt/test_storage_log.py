"""Laws of reports, events and revisions, for every store; and tables of an older bbmmopt."""

import json
import math
import sqlite3
import time
from dataclasses import replace

import pytest

from bbmmopt.storage import StorageError, StudyRevised, open_storage
from bbmmopt.storage.records import StudyRecord
from bbmmopt.trial import Trial, TrialAlreadyTold, UnknownTrial
from tests.bbmmopt.storages import RECORD, RUNNING, WAITING, together


def kinds(storage) -> list[str]:
    return [event.kind for event in storage.events("svm")]


# --------------------------------------------------------------------------------------
# Reports
# --------------------------------------------------------------------------------------


def test_law_reports_come_back_in_order_once_to_who_follows(storage):
    for number in (0, 1):
        storage.add("svm", Trial(number, {}, RUNNING))
    before = time.time()
    told = [(0, 0, 1.5), (1, 0, math.inf), (0, 10**18, -math.inf), (0, 1, 5e-324), (0, 0, 2.0)]
    for report in told:
        storage.report("svm", *report)
    reports, seen = storage.reports("svm")
    assert [(r.number, r.step, r.value) for r in reports] == told
    assert all(before <= r.time <= time.time() for r in reports)
    assert [r.revision for r in reports] == sorted({r.revision for r in reports})
    assert storage.reports("svm", seen) == ([], seen)
    storage.report("svm", 1, 1, math.nan)
    (latest,), now = storage.reports("svm", seen)
    assert math.isnan(latest.value) and (latest.number, latest.step) == (1, 1)
    assert now == latest.revision > seen


def test_law_a_report_changes_no_trial_and_an_ended_one_can_still_report(storage):
    storage.add("svm", Trial(0, {}, RUNNING))
    trials, seen = storage.changes("svm")
    assert storage.report("svm", 0, 3, 0.5) == trials[0]
    assert storage.changes("svm", seen)[0] == []
    told = storage.finish("svm", 0, state="pruned", reason="slow", finished=1.0)
    assert storage.report("svm", 0, 4, 0.5) == told
    assert len(storage.reports("svm")[0]) == 2


def test_law_a_report_of_an_unknown_trial_is_refused(storage):
    with pytest.raises(UnknownTrial, match="no trial 7"):
        storage.report("svm", 7, 0, 0.5)
    assert storage.reports("svm")[0] == []


def test_law_reports_at_once_are_all_kept(storage):
    storage.add("svm", Trial(0, {}, RUNNING))
    together(6, lambda i: [storage.report("svm", 0, step, i) for step in range(5)])
    found = sorted((r.step, r.value) for r in storage.reports("svm")[0])
    assert found == sorted((step, float(i)) for step in range(5) for i in range(6))
    assert storage.check() == []


# --------------------------------------------------------------------------------------
# Events
# --------------------------------------------------------------------------------------


def test_law_every_write_is_an_event(storage):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a"))
    storage.add_next("svm", Trial(0, {}, WAITING))
    storage.add_next("svm", Trial(0, {}, "complete", values={"f": 1.0}))
    storage.claim("svm", worker="b")
    storage.reclaim("svm", 0, worker="c", previous_worker="a")
    storage.set_attrs("svm", 0, {"z": 1, "a": 2})
    storage.log_retry("svm", 1, "ZeroDivisionError")
    storage.finish("svm", 0, state="complete", values={"f": math.inf}, finished=5.0)
    storage.finish("svm", 0, state="complete", values={"f": math.inf}, finished=6.0)  # the same
    with pytest.raises(TrialAlreadyTold):
        storage.finish("svm", 0, state="failed", reason="no", finished=6.0)
    events = storage.events("svm")
    assert [(e.kind, e.number, e.worker, e.detail) for e in events] == [
        ("created", None, None, {}),
        ("asked", 0, "a", {}),
        ("enqueued", 1, None, {}),
        ("added", 2, None, {}),
        ("claimed", 1, "b", {}),
        ("reclaimed", 0, "c", {"from": "a"}),
        ("noted", 0, "c", {"names": ["a", "z"]}),
        ("retried", 1, "b", {"reason": "ZeroDivisionError"}),
        ("told", 0, "c", {"state": "complete", "values": {"f": math.inf}}),
        ("refused", 0, "c", {"state": "failed", "reason": "no"}),
    ]
    assert [event.revision for event in events] == list(range(1, 11))
    assert storage.events("svm", 8) == events[8:]
    assert storage.events("svm", kinds=("told", "claimed")) == [events[4], events[8]]
    assert storage.events("svm", 5, kinds=["told", "claimed"]) == [events[8]]
    assert storage.events("svm", kinds=["asked", "told", "claimed"], most=2) == events[1:5:3]
    assert storage.events("svm", kinds=[]) == []
    assert storage.check() == []


def test_law_a_stop_is_found_by_whoever_waits_for_it_and_by_nobody_later(storage):
    assert storage.stop_asked("svm", None) == (None, 1)
    storage.add("svm", Trial(0, {}, RUNNING))
    reason, seen = storage.stop_asked("svm", 1)
    assert (reason, seen) == (None, 2)
    storage.stop("svm", "first \N{SNOWMAN}")
    storage.stop("svm", "second")
    storage.add("svm", Trial(1, {}, RUNNING))
    assert storage.stop_asked("svm", seen) == ("second", 5)
    assert storage.stop_asked("svm", 3) == ("second", 5)
    assert storage.stop_asked("svm", 4) == storage.stop_asked("svm", None) == (None, 5)
    found = [(e.kind, e.number, e.detail) for e in storage.events("svm")]
    assert found[2] == ("stopped", None, {"reason": "first \N{SNOWMAN}"})


def test_law_what_raises_leaves_no_event(storage):
    storage.add("svm", Trial(0, {}, RUNNING))
    before = storage.events("svm")
    for use in (
        lambda: storage.add("svm", Trial(0, {})),
        lambda: storage.set_attrs("svm", 0, {"x": object()}),
        lambda: storage.set_attrs("svm", 1, {}),
        lambda: storage.log_retry("svm", 1, "why"),
    ):
        with pytest.raises((StorageError, TypeError, UnknownTrial)):
            use()
    assert storage.events("svm") == before
    assert storage.changes("svm")[1] == before[-1].revision


def test_law_what_a_caller_does_to_an_event_stays_with_the_caller(storage):
    storage.add("svm", Trial(0, {}, RUNNING))
    storage.finish("svm", 0, state="complete", values={"f": 1.0}, finished=5.0)
    storage.events("svm")[-1].detail["values"]["f"] = 2.0
    assert storage.events("svm")[-1].detail["values"] == {"f": 1.0}


# --------------------------------------------------------------------------------------
# Revisions
# --------------------------------------------------------------------------------------


def test_law_a_study_is_revised_once_by_whoever_saw_it_last(storage):
    before = storage.study("svm")
    other = replace(before, problem={"new": [1]}, settings={"n_start": 3})
    after = storage.revise(other, detail={"was": before.problem})
    assert after == replace(other, generation=1) == storage.study("svm")
    with pytest.raises(StudyRevised, match=r"'svm' were changed meanwhile .* open the study again"):
        storage.revise(replace(before, problem={}), detail={})
    assert storage.study("svm") == after
    assert storage.events("svm")[-1].detail == {"was": before.problem}


def test_law_trials_made_for_an_earlier_generation_are_refused_but_told(storage):
    storage.add("svm", Trial(0, {}, RUNNING), generation=0)
    storage.revise(storage.study("svm"), detail={})
    with pytest.raises(StudyRevised):
        storage.add("svm", Trial(1, {}, RUNNING), generation=0)
    with pytest.raises(StudyRevised):
        storage.changes("svm", generation=0)
    assert storage.finish("svm", 0, state="complete", values={"f": 1.0}, finished=1.0).values
    storage.add("svm", Trial(1, {}, RUNNING), generation=1)
    assert [trial.number for trial in storage.changes("svm", generation=1)[0]] == [0, 1]


# --------------------------------------------------------------------------------------
# Tables of an older bbmmopt
# --------------------------------------------------------------------------------------

_TABLES_1 = """
CREATE TABLE bbmmopt_schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE bbmmopt_studies (
    id INTEGER NOT NULL, name TEXT NOT NULL, problem TEXT NOT NULL, seed TEXT NOT NULL,
    settings TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, version TEXT NOT NULL,
    revision BIGINT NOT NULL, PRIMARY KEY (id), UNIQUE (name)
);
CREATE TABLE bbmmopt_trials (
    study INTEGER NOT NULL, number BIGINT NOT NULL, revision BIGINT NOT NULL, state TEXT NOT NULL,
    worker TEXT, lease_until DOUBLE PRECISION, created DOUBLE PRECISION, started DOUBLE PRECISION,
    finished DOUBLE PRECISION, params TEXT NOT NULL, outcome TEXT NOT NULL, attrs TEXT NOT NULL,
    origin TEXT NOT NULL, PRIMARY KEY (study, number),
    FOREIGN KEY(study) REFERENCES bbmmopt_studies (id)
);
CREATE INDEX bbmmopt_trials_by_revision ON bbmmopt_trials (study, revision);
CREATE INDEX bbmmopt_trials_by_state ON bbmmopt_trials (study, state, number);
INSERT INTO bbmmopt_schema VALUES (1);
"""
_TRIALS_1 = [
    Trial(0, {"x": 0.5}, "complete", values={"f": 1.0}, created=1.0, attrs={"a": [math.inf]}),
    Trial(1, {"x": 0.25}, RUNNING, worker="w", started=2.0),
]


def rows_1() -> list[tuple[str, tuple]]:
    """Statements that fill tables of version 1, and their values."""
    study = (1, "svm", json.dumps(RECORD.problem), str(RECORD.seed), "{}", 1.5, "0.1", 2)
    found = [("INSERT INTO bbmmopt_studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", study)]
    for revision, trial in enumerate(_TRIALS_1, start=1):
        data = trial.to_json()
        outcome = {n: data[n] for n in ("values", "standard_errors", "constraints", "reason")}
        row = (1, trial.number, revision, str(trial.state), trial.worker, None)
        row += (trial.created, trial.started, trial.finished, json.dumps(data["params"]))
        row += tuple(json.dumps(part) for part in (outcome, data["attrs"], data["origin"]))
        found.append((f"INSERT INTO bbmmopt_trials VALUES ({', '.join('?' * 13)})", row))
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def old(request, tmp_path) -> str:
    """A storage of the first layout."""
    if request.param == "sqlite":
        connection = sqlite3.connect(tmp_path / "study.db")
        connection.executescript(_TABLES_1)
        for statement, values in rows_1():
            connection.execute(statement, values)
        connection.commit()
        connection.close()
        return str(tmp_path / "study.db")
    import psycopg

    url = request.getfixturevalue("postgres_url")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(_TABLES_1)
        for statement, values in rows_1():
            connection.execute(statement.replace("?", "%s"), values)
    return url


def test_an_older_storage_is_brought_up_to_date(old):
    with open_storage(old) as storage:
        assert storage.study("svm") == replace(RECORD, generation=0)
        assert storage.changes("svm") == (_TRIALS_1, 2)
        assert storage.events("svm") == []
        storage.report("svm", 1, 0, 0.5)
        storage.finish("svm", 1, state="complete", values={"f": 2.0}, finished=3.0)
        storage.create_study(StudyRecord("new", {}, 0))
        assert kinds(storage) == ["told"]
        assert storage.check() == []
    with open_storage(old) as storage:
        assert [trial.values for trial in storage.changes("svm")[0]] == [{"f": 1.0}, {"f": 2.0}]


def test_before_that_a_backup_is_made_that_the_older_one_can_read(old, tmp_path):
    with open_storage(old):
        pass
    if "://" not in old:
        (backup,) = [path for path in tmp_path.iterdir() if "before-v2" in path.name]
        connection = sqlite3.connect(backup)
        assert connection.execute("SELECT max(version) FROM bbmmopt_schema").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM bbmmopt_trials").fetchone() == (2,)
        connection.close()
        return
    import psycopg

    with psycopg.connect(old.replace("+psycopg", "")) as connection:
        query = "SELECT count(*) FROM bbmmopt_trials_before_v2"
        assert connection.execute(query).fetchone() == (2,)


def test_processes_that_open_an_older_storage_at_once_bring_it_up_to_date_once(old):
    opened = together(4, lambda i: open_storage(old))
    for storage in opened:
        assert storage.changes("svm") == (_TRIALS_1, 2)
        storage.close()


def test_who_had_it_open_when_a_newer_bbmmopt_came_is_told(tmp_path):
    with open_storage(tmp_path / "study.db") as storage:
        storage.create_study(RECORD)
        other = sqlite3.connect(tmp_path / "study.db")
        other.execute("INSERT INTO bbmmopt_schema VALUES (99)")
        other.commit()
        other.close()
        with pytest.raises(StorageError, match=r"newer bbmmopt \(schema 99; this one knows 2\)"):
            storage.add("svm", Trial(0, {}, RUNNING))


# --------------------------------------------------------------------------------------
# What is wrong with it
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM bbmmopt_events WHERE revision = 2", "3 events and reports stand for"),
        ("UPDATE bbmmopt_trials SET revision = 9", "trial 0 is of a later revision"),
        ("UPDATE bbmmopt_reports SET number = 5", "reports of trial 5, but no such trial"),
        ("UPDATE bbmmopt_trials SET study = 7", "a row of bbmmopt_trials belongs to no study"),
    ],
)
def test_check_finds_what_does_not_fit_together(tmp_path, harm, said):
    with open_storage(tmp_path / "study.db") as storage:
        storage.create_study(RECORD)
        storage.add("svm", Trial(0, {}, RUNNING))
        storage.report("svm", 0, 0, 0.5)
        storage.set_attrs("svm", 0, {"a": 1})
        assert storage.check() == []
        other = sqlite3.connect(tmp_path / "study.db")
        other.execute(harm)
        other.commit()
        other.close()
        assert any(said in text for text in storage.check())


@pytest.mark.parametrize(
    "harm",
    [
        "params = '{\"x\": 0.'",
        "params = ''",
        "params = '{}],[{}'",
        "outcome = '[]'",
        "outcome = '{}'",
        "state = 'lost'",
    ],
)
def test_a_damaged_trial_is_named_and_says_what_to_do(tmp_path, harm):
    with open_storage(tmp_path / "study.db") as storage:
        storage.create_study(RECORD)
        for number in range(3):
            storage.add("svm", Trial(number, {"x": 0.5}, RUNNING))
        other = sqlite3.connect(tmp_path / "study.db")
        other.execute(f"UPDATE bbmmopt_trials SET {harm} WHERE number = 1")
        other.commit()
        other.close()
        with pytest.raises(StorageError, match=r"of trial 1 is damaged and cannot be read .* copy"):
            storage.changes("svm")
        assert storage.trial("svm", 2).params == {"x": 0.5}
