"""Facts about `bbmmopt doctor`, `events`, `studies` and `explain`."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bbmmopt import Study
from bbmmopt.execution.owners import own_name
from bbmmopt.storage import open_storage
from bbmmopt.storage.sql import SQLStorage
from tests.bbmmopt.shell import LINE, SVM, create, line, lines, ok, refused, run

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")


def examined(where: str = "study.db", *, code: int = 0, hours: float = 24) -> list[dict]:
    """What the doctor found, having changed nothing."""
    before = {p: p.read_bytes() for p in Path().iterdir() if p.is_file()}
    result = run("doctor", where, "--json", "--hours", hours)
    assert result.exit_code == code, result.output
    assert bool(result.stderr) == bool(code)
    assert {p: p.read_bytes() for p in Path().iterdir() if p.is_file()} == before
    return [json.loads(text) for text in result.stdout.splitlines()]


def wrong(findings: list[dict]) -> list[tuple[str, str]]:
    return [(f["state"], f["about"]) for f in findings if f["state"] != "ok"]


def says(findings: list[dict], about: str) -> str:
    return " ".join(f"{f['says']} {f['advice']}" for f in findings if f["about"] == about)


# --------------------------------------------------------------------------------------
# Nothing wrong
# --------------------------------------------------------------------------------------


def test_a_sound_study_is_ok_in_every_respect(a_run):
    found = examined()
    assert wrong(found) == []
    assert says(found, "schema").startswith("version 2")
    assert "write-ahead log" in says(found, "journal")
    assert "2 complete, 1 failed" in says(found, "study default")
    assert "torch " in says(found, "packages")
    assert "psycopg 3" in says(found, "extras")
    text = ok("doctor", a_run)
    assert text.splitlines()[0].split() == ["about", "found", "what", "to", "do"]


def test_a_server_is_examined_too(postgres, postgres_url):
    create(where=postgres_url)
    found = examined(postgres_url)
    assert wrong(found) == [("warning", "journal")]  # the tests' server waits for no disk
    assert "fsync off" in says(found, "journal")
    assert says(found, "server").startswith("PostgreSQL")
    shown = run("doctor", postgres_url).output
    assert postgres.password not in shown


# --------------------------------------------------------------------------------------
# What cannot be opened
# --------------------------------------------------------------------------------------


def test_what_is_no_study_is_a_problem_that_is_named(postgres_url):
    Path("junk.db").write_text("no database " * 100)
    Path("empty.db").touch()
    for where, about, words in [
        ("nothing.db", "file", "there is no file nothing.db"),
        (".", "file", "is a directory"),
        ("junk.db", "opens", "file is not a database"),
        ("empty.db", "schema", "there are no tables"),
        ("mysql://u:secret@host/x", "opens", "not supported"),
        (postgres_url, "schema", "there are no tables"),
    ]:
        found = examined(where, code=7)
        assert [other for other in wrong(found) if other[0] == "problem"] == [("problem", about)]
        assert words in says(found, about)
        assert "secret" not in str(found)


def test_a_server_that_does_not_answer_is_a_problem():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        found = examined(f"postgresql+psycopg://u:secret@127.0.0.1:{port}/x", code=7)
    assert wrong(found) == [("problem", "opens")]
    assert "secret" not in str(found)


def test_another_programs_file_is_a_problem():
    with sqlite3.connect("other.db") as connection:
        connection.execute("CREATE TABLE photos (id)")
    connection.close()
    assert "belongs to another program" in says(examined("other.db", code=7), "opens")


def test_a_damaged_file_is_a_problem():
    create()
    line("ask", "study.db")
    with open_storage("study.db") as storage:
        for _ in range(200):
            storage.log_retry("default", 0, "x" * 200)
    data = bytearray(Path("study.db").read_bytes())
    data[-3 * 4096 :] = b"\xff" * (3 * 4096)
    Path("study.db").write_bytes(data)
    assert ("problem", "integrity") in wrong(examined(code=7))


def test_what_does_not_fit_together_is_a_problem(a_run):
    with SQLStorage(a_run) as storage, storage._database.transaction(write=True) as connection:
        connection.exec_driver_sql("DELETE FROM bbmmopt_events WHERE revision = 3")
    found = examined(code=7)
    assert wrong(found) == [("problem", "integrity")]
    assert "events and reports stand for" in says(found, "integrity")


def test_rows_that_cannot_be_read_are_a_problem(a_run):
    with SQLStorage(a_run) as storage, storage._database.transaction(write=True) as connection:
        connection.exec_driver_sql("UPDATE bbmmopt_trials SET params = '{' WHERE number = 1")
    assert ("problem", "study default") in wrong(examined(code=7))


@pytest.mark.parametrize(
    ("version", "state", "code", "words"),
    [(1, "warning", 0, "brings it up to date"), (99, "problem", 7, "Upgrade bbmmopt")],
)
def test_another_schema_is_told_and_left_as_it_is(a_run, version, state, code, words):
    with SQLStorage(a_run) as storage, storage._database.transaction(write=True) as connection:
        connection.exec_driver_sql(f"UPDATE bbmmopt_schema SET version = {version}")
    found = examined(code=code)  # which checks that no byte has changed
    assert wrong(found) == [(state, "schema")]
    assert words in says(found, "schema")


# --------------------------------------------------------------------------------------
# What somebody should know
# --------------------------------------------------------------------------------------


def test_a_full_disk_and_files_beside_a_study_are_noticed(a_run, monkeypatch):
    Path("study.db.before-v2").touch()
    Path("study.db.before-v2.partial").touch()
    found = examined()
    assert wrong(found) == [("warning", "backup")]
    assert "study.db.before-v2" in says(found, "size")
    usage = SimpleNamespace(free=10**6)
    monkeypatch.setattr("bbmmopt.storage.health.shutil.disk_usage", lambda _: usage)
    assert ("problem", "space") in wrong(examined(code=7))


def test_a_network_file_system_is_noticed(a_run, monkeypatch):
    monkeypatch.setattr("bbmmopt.storage.health.network_file_system", lambda _: "nfs4")
    found = examined()
    assert wrong(found) == [("warning", "file system")]
    assert "nfs4" in says(found, "file system")


def test_a_file_that_cannot_be_written_is_noticed(a_run, monkeypatch):
    monkeypatch.setattr("bbmmopt.storage.health.os.access", lambda _, mode: mode == os.R_OK)
    assert wrong(examined()) == [("warning", "file")]
    monkeypatch.setattr("bbmmopt.storage.health.os.access", lambda *_: False)
    assert wrong(examined(code=7)) == [("problem", "file")]


def test_trials_that_nobody_runs_are_noticed():
    create()
    code = "from bbmmopt.execution.owners import own_name\nwith own_name() as n: print(n)"
    gone = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with own_name() as alive:
        with Study.open("study.db") as study:
            for worker, lease in [(gone, None), (alive, None), ("bob", 1000.0)]:
                study.enqueue({"x": 1.0})
                study.claim(worker=worker, lease=lease)
        found = examined()
    assert wrong(found) == [("warning", "study default")]
    assert "trial 0: running, but the process that ran them has ended" in says(
        found, "study default"
    )


def test_a_lease_that_ran_out_and_a_trial_of_yesterday_are_noticed():
    create()
    with Study.open("study.db") as study:
        study.enqueue({"x": 1.0})
        study.enqueue({"x": 2.0})
        study.claim(worker="bob")
        study.claim(worker="ann", lease=0.05)
    time.sleep(0.06)
    assert "trial 1: their leases have run out" in says(examined(), "study default")
    found = examined(hours=1e-6)
    assert "trial 0: running for more than 1e-06 h" in says(found, "study default")
    assert "running for" not in says(examined(), "study default")


def test_a_clock_that_jumped_is_noticed(a_run):
    def shift(seconds: float, revision: int) -> None:
        with SQLStorage(a_run) as storage, storage._database.transaction(write=True) as connection:
            connection.exec_driver_sql(
                f"UPDATE bbmmopt_events SET time = time + {seconds} WHERE revision = {revision}"
            )

    shift(3600, 3)
    found = examined()
    assert wrong(found) == [("warning", "study default")]
    assert "a clock went back 1 times, by 3600 s at most (revision 4)" in says(
        found, "study default"
    )
    shift(-3600, 3)
    assert wrong(examined()) == []
    shift(7200, 8)
    assert "in the future" in says(examined(), "study default")


def test_a_study_of_another_way_of_suggesting_is_noticed():
    create()
    with open_storage("study.db") as storage:
        record = storage.study("default")
        assert record is not None
        storage.create_study(replace(record, name="old", version="1"))
    found = examined()
    assert wrong(found) == [("warning", "study old")]
    assert "begun by version 1" in says(found, "study old")


# --------------------------------------------------------------------------------------
# The log, the studies, the reasons
# --------------------------------------------------------------------------------------


def test_events_are_a_table_or_lines(a_run):
    found = lines("events", a_run, "--json")
    assert [event["kind"] for event in found] == [
        *("created", "asked", "asked", "asked", "asked", "told", "told", "told")
    ]
    assert found[-1]["detail"]["state"] == "failed"
    head, *rows = ok("events", a_run).splitlines()
    assert head.split() == ["revision", "time", "event", "trial", "worker", "detail"]
    assert len(rows) == len(found)
    assert rows[-1].rstrip().endswith("reason: ZeroDivisionError: [red]")
    assert lines("events", a_run, "--json", "--since", 6) == found[6:]
    assert lines("events", a_run, "--json", "--trial", 1) == [found[2], found[6]]
    assert lines("events", a_run, "--json", "--since", 10**9) == []
    assert "not in the range" in refused(2, "events", a_run, "--since", 10**30)


def test_studies_are_listed_with_what_they_hold(a_run):
    create(LINE, "--minimize", "a", "--maximize", "b", "--study", "second")
    first, second = lines("studies", a_run, "--json")
    assert first["study"] == "default"
    assert first["objectives"] == {"loss": "minimize"}
    assert first["parameters"] == list(SVM)
    assert first["trials"] == {
        **{"waiting": 0, "running": 1, "complete": 2, "failed": 1, "pruned": 0}
    }
    assert first["best"] == {"number": 1, "values": {"loss": 0.25}}
    assert (second["objectives"], second["best"]) == ({"a": "minimize", "b": "maximize"}, None)
    head, *rows = ok("studies", a_run).splitlines()
    assert head.split()[:3] == ["study", "objectives", "parameters"]
    assert "loss = 0.25 (trial 1)" in rows[0]
    assert rows[1].startswith("second")
    assert "no file" in refused(3, "studies", "nothing.db")
    Path("empty.db").touch()
    result = run("studies", "empty.db")
    assert (result.exit_code, result.stdout) == (0, "")


def test_explain_says_what_the_library_says(a_run):
    with Study.open(a_run) as study:
        expected = study.explain(1)
    assert ok("explain", a_run, 1) == f"{expected}\n"
    said = line("explain", a_run, 1, "--json")
    assert said["explanation"] == expected
    assert said["origin"]["phase"] == "space-filling"
    assert "no trial 9" in refused(2, "explain", a_run, 9)
