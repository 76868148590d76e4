"""Facts about a study that begins with the results of another one."""

import math
from pathlib import Path

import pytest

from bbmmopt import (
    Categorical,
    OldTrialsWarning,
    Optimizer,
    Real,
    Study,
    TrialState,
    minimize,
)
from bbmmopt.storage import MemoryStorage, UnknownStudy
from bbmmopt.trial import Trial
from tests.bbmmopt.storages import everything, output, start, together

SPACE = {"x": Real(0, 1), "k": Categorical(["a", "b"])}
WIDER = {"x": Real(0, 4), "k": Categorical(["b", "a", "c"])}


def source(storage=None, study="default") -> Study:
    """Six complete trials, one failed, one stopped, one running, one waiting."""
    study = Study(SPACE, minimize="f", storage=storage or MemoryStorage(), seed=1, study=study)
    for i in range(6):
        study.add_trial({"x": i / 5, "k": "ab"[i % 2]}, (float(i), 0.5 if i == 3 else 0.25))
    failed, stopped, running = (study.enqueue({"x": x, "k": "a"}) for x in (0.11, 0.12, 0.13))
    for _ in range(3):
        study.claim(worker="w")
    study.tell(failed, failed="diverged")
    study.tell(stopped, pruned="hopeless")
    study.enqueue({"x": 0.14, "k": "a"})
    assert study.trials[running.number].state == TrialState.RUNNING
    study.set_attrs(2, {"by": "Ada"})
    return study


def started(given, space=WIDER, **options) -> Study:
    return Study(space, minimize="f", warm_start=given, **options)


# --------------------------------------------------------------------------------------
# What comes along
# --------------------------------------------------------------------------------------


def test_complete_and_failed_trials_come_along_as_they_were_told():
    old = source()
    new = started(old)
    assert [t.number for t in new.trials] == list(range(7))
    for theirs, ours in zip(old.trials, new.trials, strict=False):
        for name in ("params", "state", "values", "standard_errors", "reason", "attrs"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.duration == theirs.duration
        assert ours.origin["phase"] == "warm start"
        assert ours.origin["number"] == theirs.number
    assert new.trials[6].reason == "diverged"
    assert new.explain(3) == (
        "Trial 3 was taken along from study 'default', where it was trial 3, as a warm start."
    )
    assert len(old.trials) == 10


@pytest.mark.parametrize("form", ["path", "path#study", "pair", "url", "Path", "storage"])
def test_a_study_is_named_in_several_ways(form, tmp_path):
    path = tmp_path / "old.db"
    with source(path) as old:
        given = {
            "path": str(path),
            "path#study": f"{path}#default",
            "pair": (path, "default"),
            "url": f"sqlite:///{path}",
            "Path": path,
            "storage": old.storage,
        }[form]
        assert len(started(given).trials) == 7
        # The one it is among several has to be said.
        source(old.storage, "other").add_trial({"x": 0.5, "k": "a"}, 0.0)
        assert len(started((old.storage, "other")).trials) == 8
        with pytest.raises(UnknownStudy, match="'default', 'other'"):
            started(path)


def test_values_outside_the_bounds_come_along_and_are_not_suggested():
    new = Optimizer({"x": Real(0.3, 0.5), "k": WIDER["k"]}, minimize="f", warm_start=source())
    assert [t.params["x"] for t in new.trials[:6]] == [i / 5 for i in range(6)]
    assert new.belief().data.X[5, 0] == pytest.approx(3.5)
    assert 0.3 <= new.ask().params["x"] <= 0.5


def test_results_may_be_a_list():
    given = [
        ({"x": 0.2, "k": "a"}, 3.0),
        ({"x": 0.4, "k": "c"}, (1.0, 0.1)),
        ({"x": 1, "k": "a"}, math.nan),
    ]
    new = started(given)
    assert [t.values for t in new.trials] == [{"f": 3.0}, {"f": 1.0}, None]
    assert new.trials[1].standard_errors == {"f": 0.1}
    assert new.trials[2].state == TrialState.FAILED
    assert new.explain(0) == "Trial 0 was taken along from the results given, as a warm start."


def test_they_count_as_the_start_and_the_model_learns_from_them():
    new = Optimizer(WIDER, minimize="f", warm_start=source(), seed=0, n_start=5)
    trial = new.ask()
    assert trial.number == 7
    assert trial.origin["phase"] == "model"
    assert trial.origin["model"]["trials"] == 6
    assert trial.origin["model"]["failed"] == 1
    cold = Optimizer(WIDER, minimize="f", seed=0, n_start=5)
    assert cold.ask().origin["phase"] == "space-filling"


def test_minimize_takes_them_too():
    result = minimize(lambda x, k: x, WIDER, name="f", n_trials=2, warm_start=source(), seed=0)
    assert [t.number for t in result.trials] == [7, 8]
    assert result.best.value == 0.0


def test_constraints_come_along_where_they_were_told():
    old = Study(SPACE, minimize=["f", "g"], constraints=["h", "i"], seed=0)
    old.add_trial({"x": 0.5, "k": "a"}, {"f": 1.0, "g": (2.0, 0.5), "h": -1.0, "i": 3.0})
    new = Study(SPACE, minimize="g", constraints=["f <= 2", "i <= 4", "j"], warm_start=old)
    assert new.trials[0].values == {"g": 2.0}
    assert new.trials[0].standard_errors == {"g": 0.5}
    assert new.trials[0].constraints == {"f": 1.0, "i": 3.0}


# --------------------------------------------------------------------------------------
# Parameters that are not the same
# --------------------------------------------------------------------------------------


def test_a_parameter_that_is_new_has_its_former_value():
    space = WIDER | {"z": Real(0, 1)}
    with pytest.warns(OldTrialsWarning, match=r"7 of 7 results .*'z'.*former=") as caught:
        assert started(source(), space).trials == []
    assert caught[0].filename == __file__
    new = started(source(), space, former={"z": 2.0})
    assert {t.params["z"] for t in new.trials} == {2.0}


def test_of_a_parameter_that_is_gone_results_at_its_former_value_count():
    with pytest.warns(OldTrialsWarning, match=r"3 of 7 results .*'k'.* was not 'a'"):
        new = started(source(), {"x": Real(0, 1)}, former={"k": "a"})
    assert [t.params for t in new.trials] == [{"x": x} for x in (0.0, 0.4, 0.8, 0.11)]


def test_results_of_a_choice_that_is_gone_are_left_out():
    with pytest.warns(OldTrialsWarning, match=r"4 of 7 results .* 4 as parameter 'k'.*got 'a'"):
        new = started(source(), {"x": Real(0, 1), "k": Categorical(["b", "c"])})
    assert len(new.trials) == 3


# --------------------------------------------------------------------------------------
# Once
# --------------------------------------------------------------------------------------


def test_it_is_done_once_whatever_becomes_of_the_other_study(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    source(old).close()
    for _ in range(2):
        with started(str(old), storage=new) as study:
            assert len(study.trials) == 7
        with Study.open(old) as study:
            study.add_trial({"x": 0.5, "k": "a"}, 9.0)
    old.rename(tmp_path / "moved.db")
    for given in (str(old), tmp_path / "moved.db"):
        with started(given, storage=new) as study:
            assert len(study.trials) == 7
    source(tmp_path / "another.db", "another").close()
    with started(tmp_path / "another.db", storage=new) as study:
        assert len(study.trials) == 14


def test_what_is_left_out_is_said_once():
    storage, given = MemoryStorage(), [({"x": 0.5, "k": "a"}, 1.0), ({"x": 0.5, "k": "z"}, 2.0)]
    with pytest.warns(OldTrialsWarning, match="1 of 2 results of the results given are left out"):
        started(given, storage=storage)
    assert len(started(given, storage=storage).trials) == 1


def test_a_process_killed_while_it_copies_has_every_trial_once_when_it_starts_again(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    source(old).close()
    code = f"""
    from bbmmopt import Categorical, Real, Study
    from bbmmopt.storage import sql
    insert, left = sql._SQLSession.insert, [int(sys.stdin.readline())]
    def dying(session, *arguments):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        insert(session, *arguments)
    sql._SQLSession.insert = dying
    space = {{"x": Real(0, 4), "k": Categorical(["b", "a", "c"])}}
    with Study(space, minimize="f", seed=0, storage=where, warm_start={str(old)!r}) as study:
        print([t.origin["number"] for t in study.trials])
    """
    for after in (0, 1, 4, 6):
        process = start(code, new)
        process.communicate(f"{after}\n", timeout=60)
        assert process.returncode == 9
    process = start(code, new)
    assert process.stdin is not None
    process.stdin.write("100\n")
    process.stdin.flush()
    assert output(process).strip() == "[0, 1, 2, 3, 4, 5, 6]"


def test_of_several_that_start_at_once_one_copies(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    source(old).close()

    def begin(_):
        with started(str(old), storage=new, seed=0) as study:
            return len(study.trials)

    assert together(4, begin) == [7] * 4
    with Study.open(new) as study:
        assert [t.origin["number"] for t in study.trials] == list(range(7))


def test_a_run_that_is_opened_again_goes_on_bit_by_bit(tmp_path):
    source(tmp_path / "old.db").close()

    def steps(where: Path, pauses: bool) -> list:
        found = []
        optimizer = None
        for _ in range(4):
            if optimizer is None or pauses:
                optimizer = Optimizer(
                    WIDER, minimize="f", storage=where, seed=0, warm_start=tmp_path / "old.db"
                )
            trial = optimizer.ask()
            optimizer.tell(trial, trial.params["x"])
            found.append((trial.number, trial.params, trial.origin))
            if pauses:
                optimizer.close()
        assert optimizer is not None
        optimizer.close()
        return found

    assert steps(tmp_path / "one.db", False) == steps(tmp_path / "two.db", True)


# --------------------------------------------------------------------------------------
# What cannot be
# --------------------------------------------------------------------------------------


def test_other_objectives_or_directions_are_refused():
    old = source()
    with pytest.raises(
        ValueError, match="to maximize 'f', and study 'default' was to minimize 'f'"
    ):
        Study(SPACE, maximize="f", warm_start=old)
    with pytest.raises(ValueError, match=r"to minimize 'loss', and .* was to minimize 'f'"):
        Study(SPACE, minimize="loss", warm_start=old)
    with pytest.raises(ValueError, match="cannot start from itself"):
        Study(SPACE, minimize="f", storage=old.storage, warm_start=old)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("missing.db", UnknownStudy, "there is no file 'missing.db'"),
        (3, TypeError, "warm_start takes .*; got 3"),
        ({"x": 1.0}, TypeError, "warm_start takes"),
        ([({"x": 1.0}, 2.0, 3.0)], TypeError, "result 0 is"),
        ([({"x": 1.0, "k": "a"}, "high")], TypeError, "trial 0: 'f' must be a number; got 'high'"),
        ((3, "default"), TypeError, r"warm_start takes \(storage, study name\)"),
    ],
)
def test_what_is_no_source_is_refused(given, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        started(given)
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_not_there_is_refused(tmp_path):
    source(tmp_path / "old.db").close()
    with pytest.raises(UnknownStudy, match="no study 'mine'; there are: 'default'"):
        started(f"{tmp_path / 'old.db'}#mine")


# --------------------------------------------------------------------------------------
# How a storage writes them
# --------------------------------------------------------------------------------------


def test_a_storage_adds_all_of_several_trials_or_none(storage):
    waiting = [Trial(0, {"i": i}, TrialState.WAITING, origin={"of": "a"}) for i in range(3)]
    storage.add_next("svm", Trial(0, {"i": 9}, TrialState.WAITING))
    added = storage.add_all("svm", waiting, unless=lambda t: t.origin.get("of") == "a")
    assert [t.number for t in added] == [1, 2, 3]
    assert everything(storage)[1:] == added
    assert storage.add_all("svm", waiting, unless=lambda t: t.origin.get("of") == "a") == []
    spoilt = [*waiting, Trial(0, {"i": object()}, TrialState.WAITING)]
    with pytest.raises(TypeError, match="JSON"):
        storage.add_all("svm", spoilt, unless=lambda t: False)
    assert len(everything(storage)) == 4
    assert [e.kind for e in storage.events("svm")] == ["created", *["enqueued"] * 4]
