"""Facts about `bbmmopt export` and `trials_dataframe`: everything comes out, exactly."""

import csv
import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas
import pytest

from bbmmopt import Real, Study
from bbmmopt.storage import open_storage
from bbmmopt.trial import Trial, TrialState
from tests.bbmmopt.shell import LINE, UNICODE, create, line, ok, refused

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")

HEAD = [
    *("number", "state", "params.C", "params.kernel", "params.degree"),
    *("values.loss", "standard_errors.loss", "reason", "phase", "worker"),
    *("created", "started", "finished", "seconds", "lease", "lease_until", "attrs", "origin"),
]


def table(*options: str) -> list[dict[str, str]]:
    """The CSV, as a reader that knows nothing of pandas has it."""
    return list(csv.DictReader(ok("export", "study.db", *options).splitlines(keepends=True)))


def strict(text: str) -> object:
    """JSON, and nothing that only Python reads."""
    return json.loads(text, parse_constant=pytest.fail)


def test_a_table_has_a_column_for_everything(a_run):
    line("note", a_run, 1, 'by="ann, bob"', "n=[1, 2]")
    rows = table()
    assert list(rows[0]) == HEAD
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["state"] for row in rows] == ["complete", "complete", "failed", "running"]
    assert (rows[1]["values.loss"], rows[1]["standard_errors.loss"]) == ("0.25", "0.125")
    assert rows[2]["reason"] == "Traceback\n  in f\nZeroDivisionError: [red]"
    assert (rows[3]["values.loss"], rows[3]["finished"]) == ("", "")
    assert json.loads(rows[1]["attrs"]) == {"by": "ann, bob", "n": [1, 2]}
    assert json.loads(rows[0]["origin"])["phase"] == rows[0]["phase"] == "space-filling"
    with Study.open(a_run) as study:
        for trial, row in zip(study.trials, rows, strict=True):
            assert {k: row[f"params.{k}"] for k in trial.params} == {
                k: v if isinstance(v, str) else repr(v) for k, v in trial.params.items()
            }
            moment = datetime.fromisoformat(row["created"].replace("Z", "+00:00"))
            assert moment.tzinfo == UTC
            assert moment.timestamp() == pytest.approx(trial.created, abs=1e-6)


def test_pandas_reads_the_very_numbers_back():
    numbers = [0.1, 1e-300, -1.7976931348623157e308, 5e-324, 1 / 3, 123456789.123456789]
    with Study({"x": Real(0, 1)}, minimize="f", storage="study.db") as study:
        for k, number in enumerate(numbers):
            study.add_trial({"x": k / 7}, (number, abs(number)))
        expected = study.trials
    ok("export", "study.db", "-o", "a.csv")
    frame = pandas.read_csv("a.csv")
    assert frame["values.f"].tolist() == numbers
    assert frame["standard_errors.f"].tolist() == [abs(number) for number in numbers]
    assert frame["params.x"].tolist() == [trial.params["x"] for trial in expected]
    assert frame["number"].tolist() == list(range(len(numbers)))
    finished = pandas.to_datetime(frame["finished"], utc=True)
    assert finished.iloc[0].timestamp() == pytest.approx(expected[0].finished, abs=1e-6)


def test_a_data_frame_has_the_same_columns(a_run):
    with Study.open(a_run) as study:
        frame, trials = study.trials_dataframe(), study.trials
    assert list(frame.columns) == HEAD
    assert frame["number"].tolist() == [0, 1, 2, 3]
    assert frame["values.loss"].tolist()[:2] == [0.5, 0.25]
    assert frame["values.loss"].isna().tolist() == [False, False, True, True]
    assert frame["params.C"].tolist() == [trial.params["C"] for trial in trials]
    assert frame["params.degree"].isna().tolist() == ["degree" not in t.params for t in trials]
    assert frame["started"].iloc[0].timestamp() == pytest.approx(trials[0].started, abs=1e-6)
    assert frame["attrs"].tolist() == [{}] * 4
    assert len(Study({"x": Real(0, 1)}, minimize="f").trials_dataframe()) == 0


def test_without_pandas_a_data_frame_says_what_is_missing(a_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with Study.open(a_run) as study, pytest.raises(ImportError, match="pip install pandas"):
        study.trials_dataframe()
    assert len(table()) == 4  # needs none


def test_odd_names_and_values_come_out_in_utf_8():
    create(UNICODE, "--minimize", "f\ng", "--study", "étude")
    with Study.open("study.db", "étude") as study:
        point = {"größe ☃": 0.5, "$float": 3, "色": "青"}
        trial = study.enqueue(point)
        study.set_attrs(trial, {"a": math.inf, "$float": "ü,\n", "\ud800": "\ud800"})
        study.tell(trial, failed='"quoted", and\r\nmore; \x00 \ud800')
    ok("export", "study.db", "-o", "a.csv")
    with Path("a.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {k: row[f"params.{k}"] for k in point} == {k: str(v) for k, v in point.items()}
    assert "values.f\ng" in row
    assert row["reason"] == '"quoted", and\r\nmore; \x00 \\ud800'
    attrs = {"a": "inf", "$float": "ü,\n", "\ud800": "\ud800"}
    assert strict(row["attrs"]) == attrs
    for form in ("json", "jsonl"):
        ok("export", "study.db", "-o", f"a.{form}")
        read = strict(Path(f"a.{form}").read_text(encoding="ascii"))
        read = read[0] if form == "json" else read
        assert isinstance(read, dict)
        assert (read["attrs"], read["params"]) == (attrs, point)


def test_json_is_a_list_and_json_lines_are_lines(a_run):
    whole = strict(ok("export", a_run, "--format", "json"))
    lines = [strict(text) for text in ok("export", a_run, "--format", "jsonl").splitlines()]
    assert whole == lines
    assert [trial["state"] for trial in lines] == ["complete", "complete", "failed", "running"]
    assert lines[0]["values"] == {"loss": 0.5}
    assert lines[0]["created"].endswith("Z")
    assert lines[0]["phase"] == "space-filling"


def test_the_ending_of_the_file_says_which_format(a_run):
    for form in ("csv", "json", "jsonl"):
        assert ok("export", a_run, "-o", f"a.{form}") == ""
        assert Path(f"a.{form}").read_text() == ok("export", a_run, "--format", form)
    assert ok("export", a_run, "-o", "a.txt", "--format", "json") == ""
    assert Path("a.txt").read_text() == Path("a.json").read_text()


@pytest.mark.parametrize(("form", "empty"), [("json", "[]\n"), ("jsonl", "")])
def test_a_study_without_trials_is_an_empty_export(form, empty):
    create()
    assert ok("export", "study.db", "--format", form) == empty
    assert ok("export", "study.db").startswith("number,state,params.x,values.loss")
    assert ok("export", "study.db").count("\n") == 1


def test_curves_are_long_and_in_order_with_the_last_value_of_each_step():
    create()
    ok("ask", "study.db", "-n", 2)
    for number, step, value in [(1, 1, 9), (0, 2, 0.5), (1, 0, "nan"), (0, 0, "-inf"), (1, 1, 2)]:
        ok("report", "study.db", number, step, value)
    text = ok("export", "study.db", "--curves")
    assert text == "trial,step,value\n0,0,-inf\n0,2,0.5\n1,0,nan\n1,1,2.0\n"
    first = ok("export", "study.db", "--curves", "--format", "jsonl").splitlines()[0]
    assert strict(first) == {"trial": 0, "step": 0, "value": "-inf"}


def test_the_log_comes_out_whole(a_run):
    rows = table("--events")
    assert list(rows[0]) == ["revision", "time", "kind", "number", "worker", "detail"]
    with Study.open(a_run) as study:
        events = study.events()
    assert [row["kind"] for row in rows] == [event.kind for event in events]
    assert [int(row["revision"]) for row in rows] == [event.revision for event in events]
    assert json.loads(rows[-1]["detail"]) == events[-1].detail


def test_parameters_that_the_space_has_no_more_have_columns_after_the_others():
    create()
    with open_storage("study.db") as storage:
        storage.add_next("default", Trial(0, {"old": 1, "x": 2.0}, TrialState.FAILED))
    (row,) = table()
    names = list(row)
    assert names[names.index("params.x") + 1] == "params.old"
    assert row["params.old"] == "1"


def test_more_trials_than_a_page_come_out_once_each():
    create()
    with open_storage("study.db") as storage:
        for k in range(2003):
            storage.add_next("default", Trial(0, {"x": k / 2003}, TrialState.FAILED, created=1.0))
    assert [int(row["number"]) for row in table()] == list(range(2003))
    assert len(table("--events")) == 2004


def test_a_pipe_or_a_device_stays_what_it_is(a_run):
    os.mkfifo("pipe")
    reader = subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True)
    ok("export", a_run, "-o", "pipe")
    assert reader.communicate(timeout=60)[0] == ok("export", a_run)
    assert Path("pipe").is_fifo()
    os.symlink("real.csv", "link.csv")
    ok("export", a_run, "-o", "link.csv")
    assert Path("link.csv").is_symlink()
    assert Path("real.csv").read_text() == ok("export", a_run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "study.db"], "study.db is a storage, which would be lost"),
        (["-o", "no/a.csv"], "no/a.csv cannot be written: No such file"),
        (["-o", "."], "is a directory"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--curves", "--events"], "two exports"),
    ],
)
def test_a_wrong_export_is_refused_and_nothing_is_lost(a_run, options, message):
    before = Path(a_run).read_bytes()
    assert message in refused(2, "export", a_run, *options)
    assert Path(a_run).read_bytes() == before
    assert os.listdir() == [a_run]


def test_a_file_keeps_its_old_content_until_all_is_written(a_run, monkeypatch):
    Path("a.csv").write_text("old")

    def broken(*_: object) -> None:
        raise ValueError("in the middle")

    monkeypatch.setattr("bbmmopt.cli.exporting._cell", broken)
    refused(1, "export", a_run, "-o", "a.csv")
    assert Path("a.csv").read_text() == "old"
    assert sorted(os.listdir()) == ["a.csv", a_run]


def test_several_objectives_and_constraints_have_columns_each():
    create(LINE, "--minimize", "a", "--maximize", "b", "--constraint", "c <= 3")
    line("ask", "study.db")
    line("tell", "study.db", 0, "a=1", "b=2", "c=-1")
    (row,) = table()
    found = {name: row[name] for name in row if name.startswith(("values", "constraints"))}
    assert found == {"values.a": "1.0", "values.b": "2.0", "constraints.c": "-1.0"}
