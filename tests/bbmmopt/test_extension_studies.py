"""Facts about a study that is extended: once, twice, while others are at work, or not at all."""

import math
import shutil
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bbmmopt import (
    FailedTrialWarning,
    OldTrialsWarning,
    Optimizer,
    Real,
    Study,
    StudyDiffers,
    StudyRevised,
    TrialState,
    minimize,
    run,
)
from bbmmopt.plots import plot_posterior
from bbmmopt.storage import MemoryStorage
from tests.bbmmopt.extensions import PLANE, POINTS, extended, generation_of, parabola, told
from tests.bbmmopt.storages import next_line, output, start, together

# --------------------------------------------------------------------------------------
# Once, twice, not at all
# --------------------------------------------------------------------------------------


def test_extending_by_nothing_is_nothing():
    study = told(PLANE, POINTS, parabola)
    space = PLANE | {"z": Real(0, 2)}
    extended(study, space, former={"z": 1.0}, budget=40)
    # As a program does that is run twice.
    optimizer = extended(study, space, former={"z": 1.0}, budget=40)
    assert generation_of(optimizer) == 1
    kinds = [event.kind for event in optimizer.events()]
    assert kinds == ["created", *["added"] * 12, "revised"]
    fresh = Optimizer(space, minimize="f", mode="extend", former={"z": 1.0})
    assert generation_of(fresh) == 0


def test_extending_twice_keeps_what_was_said_first():
    study = told(PLANE, POINTS, parabola)
    once = extended(study, PLANE | {"z": Real(0, 2)}, former={"z": 1.0})
    once.add_trial({"x": 0.5, "y": 0.5, "z": 2.0}, 1.0)
    twice = extended(once, PLANE | {"z": Real(0, 4), "w": Real(0, 1)}, former={"w": 0.25})
    X = twice.belief().data.X
    assert X[:, 2].tolist() == [0.25] * 12 + [0.5]
    assert X[:, 3].tolist() == [0.25] * 13
    # What was said can be corrected: that is a change too.
    again = extended(twice, twice.space, former={"z": 3.0})
    assert again.belief().data.X[:, 2].tolist() == [0.75] * 12 + [0.5]
    revised = [event for event in again.events() if event.kind == "revised"]
    assert revised[2].detail["differences"] == [
        "'z' in trials that do not say: was 1.0 and is now 3.0."
    ]
    assert revised[0].detail["problem"] == study.problem.to_json()
    assert revised[0].detail["settings"] == study.settings


def test_settings_change_where_they_are_given_and_stay_where_not():
    study = told(PLANE, POINTS, parabola, n_start=7, acquisition="ucb", noise="none")
    optimizer = extended(study, PLANE, strategy="trust_region", budget=60, early_stopping="median")
    changed = {"strategy": "trust_region", "budget": 60, "n_start": 7, "acquisition": "ucb"}
    assert optimizer.settings.items() >= changed.items()
    assert optimizer.settings["early_stopping"]["rule"] == "median"
    assert optimizer.problem.objectives[0].noise == "unknown"
    assert generation_of(optimizer) == 1


def test_two_who_extend_at_once_do_so_one_after_the_other(tmp_path):
    study = told(PLANE, POINTS, parabola, storage=tmp_path / "study.db")
    study.close()

    def widen(i):
        space = {"x": Real(0, 2 + i), "y": Real(-1, 1)}
        try:
            with Study(space, minimize="f", storage=tmp_path / "study.db", mode="extend") as opened:
                return opened.former.own.parameters["x"]
        except (StudyDiffers, StudyRevised) as error:  # another one came in between
            return error

    found = together(4, widen)
    assert all(isinstance(one, Real | StudyDiffers | StudyRevised) for one in found), found
    with Study.open(tmp_path / "study.db") as last:
        assert generation_of(last) == 4
        assert len([e for e in last.events() if e.kind == "revised"]) == 4


# --------------------------------------------------------------------------------------
# The same bits
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "now",
    [{"x": Real(-1, 4), "y": Real(-1, 1)}, {"x": Real(0, 1), "y": Real(0.3, 0.3)}],
    ids=["widened", "fixed"],
)
def test_an_extended_study_reopened_after_any_trial_goes_on_bit_by_bit(now, tmp_path):
    path = tmp_path / "study.db"
    study = told(PLANE, POINTS, parabola, storage=path)
    with Optimizer(now, minimize="f", storage=study.storage, mode="extend") as optimizer:
        whole = []
        for k in range(5):
            trial = optimizer.ask()
            optimizer.tell(trial, parabola(**trial.params))
            whole.append((trial.params, trial.origin))
            shutil.copy(path, tmp_path / f"{k}.db")
            if Path(f"{path}-wal").exists():
                shutil.copy(f"{path}-wal", tmp_path / f"{k}.db-wal")
    for k in range(4):
        with Optimizer.open(tmp_path / f"{k}.db") as optimizer:
            rest = []
            for _ in range(4 - k):
                trial = optimizer.ask()
                optimizer.tell(trial, parabola(**trial.params))
                rest.append((trial.params, trial.origin))
        assert rest == whole[k + 1 :], f"reopened after trial {k}"


# --------------------------------------------------------------------------------------
# Others at work
# --------------------------------------------------------------------------------------


def test_who_has_the_study_open_may_tell_and_look_and_has_to_open_it_again_to_ask():
    study = told(PLANE, POINTS, parabola)
    before = Optimizer.open(study.storage)
    trial = before.ask()
    after = extended(study, PLANE | {"z": Real(0, 1)}, former={"z": 0.5})
    new = after.ask()
    with pytest.raises(StudyRevised, match=r"open the study again.*can be told"):
        before.ask()
    with pytest.raises(StudyRevised):
        before.preview()
    before.tell(trial, 1.5)
    assert before.trials[new.number].params == new.params
    assert "largest" in before.explain(trial)
    data = after.belief().data
    assert data.y[-1] == -1.5
    assert data.X[-1, 2] == 0.5


def test_a_run_that_loses_its_study_records_what_is_under_way():
    study = told(PLANE, POINTS[:2], parabola, n_start=20)
    optimizer = Optimizer.open(study.storage)

    def objective(x, y):
        if len(optimizer.storage.changes("default")[0]) == 4:
            extended(study, {"x": Real(0, 2), "y": Real(-1, 1)})
        return parabola(x, y)

    with pytest.raises(StudyRevised):
        run(optimizer, objective, n_trials=10, workers=1, progress=True)
    assert [t.state for t in optimizer.trials] == [TrialState.COMPLETE] * 4


def test_a_process_that_has_the_study_open_finds_out_at_its_next_ask(tmp_path):
    path = tmp_path / "study.db"
    told(PLANE, POINTS[:3], parabola, storage=path).close()
    worker = start(
        """
        from bbmmopt import Optimizer
        optimizer = Optimizer.open(where)
        trial = optimizer.ask()
        print(trial.number, flush=True)
        sys.stdin.readline()
        optimizer.tell(trial, 7.0)
        try:
            optimizer.ask()
        except StudyRevised as error:
            print(error)
        """,
        path,
    )
    number = int(next_line(worker))
    with Study(
        {"x": Real(0, 5), "y": Real(-1, 1)}, minimize="f", storage=path, mode="extend"
    ) as opened:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert "open the study again" in output(worker)
        assert opened.trials[number].values == {"f": 7.0}


def test_waiting_trials_that_are_not_in_the_space_stay_and_it_is_said():
    study = told(PLANE, POINTS, parabola)
    outside = study.enqueue({"x": 0.9, "y": 0.0})
    study.enqueue({"x": 0.2, "y": 0.0})
    with pytest.warns(OldTrialsWarning, match=rf"handed out all the same: {outside.number}\."):
        optimizer = extended(study, {"x": Real(0, 0.5), "y": Real(-1, 1)})
    assert optimizer.ask().params == outside.params


# --------------------------------------------------------------------------------------
# What cannot be
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimize": "g"}, "objective 'f' was removed.*objective 'g' was added"),
        ({"minimize": None, "maximize": "f"}, "objective 'f' is now to maximize"),
        ({"seed": 4}, "the seed is 3, not 4"),
    ],
)
def test_another_objective_direction_or_seed_is_another_study(options, words):
    study = told(PLANE, POINTS, parabola)
    given = {"minimize": "f", "storage": study.storage} | options
    with pytest.raises(StudyDiffers, match=rf"(?s)cannot be extended.*{words}.*warm_start"):
        Study(PLANE, mode="extend", **given)
    with pytest.raises(StudyDiffers, match=rf'(?s)mode="extend" cannot change.*{words}.*study=…'):
        Study(PLANE, **given)
    assert generation_of(study) == 0


def test_opening_it_otherwise_names_the_way_out():
    study = told(PLANE, POINTS, parabola)
    with pytest.raises(StudyDiffers, match=r'(?s)high was 1.0 and is now 2.0.*by mode="extend"'):
        Study({"x": Real(0, 2), "y": Real(-1, 1)}, minimize="f", storage=study.storage)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"former": {"zz": 1.0}}, ValueError, "former: unknown parameter 'zz'.*Did you mean 'z'"),
        ({"former": {"z": "a"}}, TypeError, "former: parameter 'z': expected a number"),
        ({"former": {"z": [1]}}, TypeError, "former: parameter 'z'.*list"),
        ({"former": 3}, TypeError, "former takes {parameter: value}; got 3"),
        ({"mode": "widen"}, ValueError, 'mode must be "resume" or "extend"'),
        ({"mode": "resume", "former": {}}, ValueError, 'it goes with mode="extend"'),
    ],
)
def test_what_makes_no_sense_changes_nothing(options, error, words):
    study = told(PLANE, POINTS, parabola)
    given = {"mode": "extend", "storage": study.storage} | options
    with pytest.raises(error, match=words):
        Study(PLANE | {"z": Real(0, 1)}, minimize="f", **given)
    assert generation_of(study) == 0


def test_a_setting_that_does_not_suit_the_new_problem_is_named():
    study = told(PLANE, POINTS, parabola, perturbation={"y": 0.1})
    with pytest.raises(ValueError, match=r"perturbation.*'y'.*Give that setting anew"):
        extended(study, {"x": Real(0, 1)}, former={"y": 0.0})
    assert generation_of(study) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldTrialsWarning)
        optimizer = extended(study, {"x": Real(0, 1)}, former={"y": 0.0}, perturbation={"x": 0.1})
    assert optimizer.settings["perturbation"] == {"x": 0.1}


def test_a_stored_extension_that_is_damaged_is_refused():
    study = told(PLANE, POINTS, parabola)
    record = study.storage.study("default")
    assert record is not None
    record.settings["extended"] = {"former": {}}
    study.storage.revise(record, detail={})
    with pytest.raises(ValueError, match="what is stored of earlier parameters is damaged"):
        Study.open(study.storage)


# --------------------------------------------------------------------------------------
# Looking back
# --------------------------------------------------------------------------------------


def test_an_old_trial_is_explained_by_the_parameters_it_had():
    optimizer = Optimizer(PLANE, minimize="f", seed=0, n_start=3)
    for _ in range(5):
        trial = optimizer.ask()
        optimizer.tell(trial, parabola(**trial.params))
    before = optimizer.explain(4)
    after = extended(
        optimizer, {"z": Real(0, 1), "y": Real(-1, 1), "x": Real(0, 1)}, former={"z": 0}
    )
    assert after.explain(4) == before
    new = after.ask()
    assert "z" in after.explain(new).splitlines()[-2]


def test_pictures_show_old_trials_where_the_model_has_them():
    points = [{"x": x, "y": y} for x in (0.1, 0.4, 0.8) for y in (-0.5, 0.5)]
    study = told(PLANE, points, parabola)
    optimizer = extended(study, {"x": Real(0, 2), "y": Real(0.5, 0.5)})
    ax = plot_posterior(optimizer, ax=Figure().add_subplot())
    assert ax.get_xlim() == (0.0, 2.0)
    assert any("held: y = 0.5" in text.get_text() for text in ax.texts)


def test_failed_trials_of_before_go_on_warning_of_their_place():
    study = told(PLANE, POINTS, parabola)
    with pytest.warns(FailedTrialWarning):
        study.add_trial({"x": 0.5, "y": 0.5}, math.nan)
    optimizer = extended(study, {"x": Real(0, 2), "y": Real(-1, 1)})
    assert optimizer.belief().data.failed.tolist() == [[0.25, 0.75]]


def test_minimize_extends_too_and_leaves_the_budget_as_it_was():
    storage = MemoryStorage()
    minimize(parabola, PLANE, name="f", n_trials=4, storage=storage, seed=0)
    wider = {"x": Real(0, 6), "y": Real(-1, 1)}
    for generation in (1, 1):
        result = minimize(parabola, wider, name="f", n_trials=3, storage=storage, mode="extend")
        assert len(result.trials) == 3
        record = storage.study("default")
        assert record is not None
        assert record.settings["budget"] == 4
        assert record.generation == generation
