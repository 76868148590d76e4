"""from_optuna and to_optuna: the same trials on both sides."""

import math
from datetime import datetime

import optuna
import pytest
from optuna import TrialPruned
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from bbmmopt import (
    Categorical,
    Integer,
    Linear,
    Optimizer,
    Ordinal,
    Real,
    Space,
    Study,
)
from bbmmopt.integrations.optuna import from_optuna, to_optuna
from bbmmopt.storage import UnknownStudy
from bbmmopt.study import OldTrialsWarning
from tests.bbmmopt.optuna_runs import bowl, run

FIELDS = (
    "number",
    "state",
    "params",
    "distributions",
    "values",
    "intermediate_values",
    "user_attrs",
    "constraints",
    "datetime_start",
    "datetime_complete",
)


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def everything(trial: optuna.Trial) -> float:
    """Each kind of parameter, and each end that a trial can have."""
    kernel = trial.suggest_categorical("kernel", ["poly", "rbf", None])
    value = trial.suggest_float("C", 1e-3, 1e3, log=True) / 1e3
    value += trial.suggest_float("share", 0.1, 0.9, step=0.1)
    value += trial.suggest_int("leaves", 2, 10, step=4) + trial.suggest_float("fixed", 2, 2)
    if kernel == "poly":
        value += trial.suggest_int("degree", 2, 5)
    trial.set_constraint("memory", value - 11)
    trial.set_user_attr("note", {"deep": [1, "ä"]})
    for step in range(3):
        trial.report(value + step, step)
    if trial.number % 6 == 4:
        raise TrialPruned
    if trial.number % 6 == 5:
        raise ZeroDivisionError
    return value


def theirs() -> optuna.Study:
    """A study with trials in every state."""
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(direction="maximize", study_name="of optuna", sampler=sampler)
    study.optimize(everything, n_trials=18, catch=(ZeroDivisionError,))
    everything_but_the_end = study.ask()
    everything_but_the_end.suggest_categorical("kernel", ["poly", "rbf", None])
    study.enqueue_trial({"kernel": "rbf", "C": 1.0, "share": 0.3, "leaves": 6, "fixed": 2.0})
    return study


def differences(a: optuna.Study, b: optuna.Study) -> list[str]:
    """What two studies do not share, floats with a step being as near as they are to a decimal."""
    found = [] if a.directions == b.directions else ["directions"]
    found += [] if len(a.trials) == len(b.trials) else ["how many"]
    for one, other in zip(a.trials, b.trials, strict=True):
        for field in FIELDS:
            left, right = getattr(one, field), getattr(other, field)
            if field == "params" and left.keys() == right.keys() and "share" in left:
                assert left["share"] == pytest.approx(right["share"], abs=1e-15)
                left, right = left | {"share": 0}, right | {"share": 0}
            if left != right:
                found.append(f"trial {one.number}: {field}: {left} {right}")
    return found


def test_the_space_is_the_one_that_the_objective_asked_for():
    space = from_optuna(theirs()).space
    expected = {
        "kernel": Categorical({"poly": "poly", "rbf": "rbf", "None": None}),
        "C": Real(1e-3, 1e3, log=True),
        "share": Ordinal([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        "leaves": Integer(2, 10, step=4),
        "fixed": Real(2, 2),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
    }
    assert space.parameters == Space(expected).parameters


def test_trials_are_what_they_were():
    study = theirs()
    optimizer = from_optuna(study)
    assert optimizer.problem.objectives[0].direction == "maximize"
    assert optimizer.study == "of optuna"
    states = [trial.state for trial in optimizer.trials]
    assert states[:6] == ["complete"] * 4 + ["pruned", "failed"]
    assert states[-2:] == ["running", "waiting"]
    for ours, frozen in zip(optimizer.trials, study.trials, strict=True):
        assert ours.number == frozen.number
        if ours.state == "complete":
            assert ours.values == {"value": frozen.value}
            assert ours.constraints == {"memory": frozen.constraints["memory"]}
        if ours.state.finished:
            assert ours.attrs == {"note": {"deep": [1, "ä"]}}
            assert dict(optimizer.curves[ours.number]) == frozen.intermediate_values
            assert ours.duration == pytest.approx(frozen.duration.total_seconds(), abs=1e-6)
    feasible = [
        t for t in study.trials if t.state == TrialState.COMPLETE and t.constraints["memory"] <= 0
    ]
    assert optimizer.best.number == max(feasible, key=lambda t: t.value).number
    labelled = [t for t in optimizer.trials if t.params.get("kernel") == "None"]
    assert labelled
    assert all(trial.arguments["kernel"] is None for trial in labelled)


def test_there_and_back_again_is_the_same_study():
    study = theirs()
    assert differences(study, to_optuna(from_optuna(study))) == []


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution should be")
def test_choices_come_back_as_what_they_stand_for():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("kept", [None, True, 1, "1", 1.5, math.inf])
        trial.suggest_categorical("named", [(1, 2), (3, 4)])  # by text: files have no tuples
        return float(trial.number)

    study.optimize(objective, n_trials=20)
    before = from_optuna(study)
    after = from_optuna(to_optuna(before))
    assert [trial.params for trial in after.trials] == [trial.params for trial in before.trials]
    for one, other, frozen in zip(before.trials, after.trials, study.trials, strict=True):
        assert one.arguments == frozen.params
        kept, value = other.arguments["kept"], frozen.params["kept"]
        assert (type(kept), kept) == (type(value), value)
        assert other.arguments["named"] == str(frozen.params["named"])


def test_what_our_sampler_suggested_says_how_it_came_about():
    study = run(bowl, 9)
    phases = [trial.origin["phase"] for trial in from_optuna(study).trials]
    assert phases == ["told", *["space-filling"] * 4, *["model"] * 4]


def test_through_files_too(tmp_path):
    path, url = tmp_path / "ours.db", f"sqlite:///{tmp_path / 'theirs.db'}"
    study = theirs()
    with from_optuna(study, storage=path, name="mine") as optimizer:
        trials = optimizer.trials
    back = to_optuna(f"{path}#mine", storage=url)
    assert back.study_name == "mine"
    again = optuna.load_study(study_name="mine", storage=url)
    # Choices that stand for objects are their labels in a file.
    kernels = [trial.params.get("kernel") for trial in again.trials]
    assert "None" in kernels
    third = from_optuna(again)
    assert [t.params for t in third.trials] == [t.params for t in trials]


def ours() -> Optimizer:
    """A study of ours with what Optuna has no words for."""
    space = Space(
        {
            "size": Ordinal([16, 32, 64]),
            "a": Real(0, 1),
            "b": Real(0, 1),
            "on": Categorical([True, False]),
            "n": Integer(1, 9, when={"on": True}),
        },
        [Linear({"a": 1, "b": 1}, at_most=1.5)],
    )
    optimizer = Optimizer(
        space, minimize="cost", maximize="yield", constraints="purity >= 0.9", seed=4
    )
    for k in range(9):
        trial = optimizer.ask(worker="w")
        optimizer.report(trial, 2, 0.5 * k)
        if k == 3:
            optimizer.tell(trial, failed="no power")
        elif k == 5:
            optimizer.tell(trial, pruned="it was late")
        elif k < 8:
            told = {"cost": (k / 7, 0.1), "yield": k**0.5}
            optimizer.tell(trial, told, constraints={"purity": 0.8 + k / 40})
    optimizer.enqueue({"size": 16, "a": 0.1, "b": 0.1, "on": False})
    optimizer.set_attrs(0, {"note": "by hand"})
    optimizer.add_trial(
        {"size": 16, "a": 0.1, "b": 0.1, "on": True, "n": 40},
        {"cost": 1, "yield": 2, "purity": 0.95},
        outside=True,
    )
    return optimizer


def test_what_optuna_has_no_words_for_comes_back():
    before = ours()
    study = to_optuna(before)
    after = from_optuna(study, name="default")
    assert after.problem.to_json() == before.problem.to_json()
    assert after.trials == before.trials
    assert after.curves == before.curves
    assert after.explain(0) == before.explain(0)


def test_optuna_sees_the_same_front_and_the_same_constraints():
    before = ours()
    study = to_optuna(before)
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["cost", "yield"]
    assert {t.number for t in study.best_trials} == {t.number for t in before.pareto_front}
    assert study.trials[0].constraints == {"purity": pytest.approx(0.1)}
    assert study.trials[-1].distributions["n"].high == 40  # it was told from beyond the bounds
    assert study.trials[0].user_attrs == {"note": "by hand"}
    started = before.trials[0].started
    assert study.trials[0].datetime_start == datetime.fromtimestamp(started)


def test_optuna_goes_on_with_our_study_and_we_with_theirs():
    study = to_optuna(ours())

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.suggest_categorical("size", [16, 32, 64])
        a, b = trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)
        if trial.suggest_categorical("on", [True, False]):
            trial.suggest_int("n", 1, 9)
        trial.set_constraint("purity", a - 0.25)
        return a, b

    study.optimize(objective, n_trials=2)
    after = from_optuna(study, seed=0)
    told = [trial for trial in after.trials if "purity" in trial.constraints][-1]
    assert told.constraints["purity"] == pytest.approx(0.9 - told.params["a"] + 0.25)
    asked = after.ask()
    assert after.space.validate(asked.params) == asked.params


# --------------------------------------------------------------------------------------
# What cannot be known
# --------------------------------------------------------------------------------------


def by_a_real_number() -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return x + (trial.suggest_float("y", 0, 1) if x > 0.5 else 0)

    study.optimize(objective, n_trials=10)
    return study


def test_a_condition_that_the_trials_do_not_show_is_asked_for():
    with pytest.raises(ValueError, match=r"do not show when there is a parameter 'y'.*space="):
        from_optuna(by_a_real_number())


def test_a_space_of_ones_own_takes_the_trials_that_have_a_place_in_it():
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    study = by_a_real_number()
    count = sum("y" not in trial.params for trial in study.trials)
    assert count
    with pytest.warns(OldTrialsWarning, match=f"{count} of 10 trials, though complete, stay"):
        optimizer = from_optuna(study, space=space, seed=0)
    assert len(optimizer.trials) == 10
    assert len(optimizer.belief().data.y) == 10 - count


def test_ranges_that_moved_are_joined():
    study = optuna.create_study()
    for low, step in [(0.0, 0.5), (2.0, 0.5)]:
        range_ = {"x": FloatDistribution(low, low + 1), "s": FloatDistribution(low, 4, step=step)}
        study.add_trial(
            create_trial(params={"x": low + 1, "s": low}, distributions=range_, value=low)
        )
    space = from_optuna(study).space
    assert space.parameters["x"] == Real(0.0, 3.0)
    assert space.parameters["s"] == Ordinal([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])


def test_infinite_values_are_failures_and_enqueued_parts_are_pruned():
    study = optuna.create_study()
    range_ = {"x": FloatDistribution(0, 1)}
    for value in (1.0, math.inf):
        study.add_trial(create_trial(params={"x": 0.5}, distributions=range_, value=value))
    study.enqueue_trial({"z": 0.5})
    optimizer = from_optuna(study)
    assert [trial.state for trial in optimizer.trials] == ["complete", "failed", "pruned"]
    assert "inf" in (optimizer.trials[1].reason or "")
    assert optimizer.claim() is None


def test_a_study_without_a_complete_trial_needs_a_space():
    study = optuna.create_study()
    with pytest.raises(ValueError, match="no trial of the study is complete"):
        from_optuna(study)
    assert from_optuna(study, space=Space({"x": Real(0, 1)})).trials == []


def test_a_study_that_is_there_is_not_written_over(tmp_path):
    study = theirs()
    from_optuna(study, storage=tmp_path / "a.db").close()
    with pytest.raises(ValueError, match="has a study 'of optuna' already"):
        from_optuna(study, storage=tmp_path / "a.db")
    with Study.open(tmp_path / "a.db", "of optuna") as stored:
        assert len(stored.trials) == len(study.trials)


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"from_optuna takes an optuna\.Study"):
        from_optuna(ours())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="to_optuna takes an Optimizer"):
        to_optuna(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownStudy, match="no file"):
        to_optuna(tmp_path / "none.db")


def test_a_note_that_is_no_json_says_where(tmp_path):
    study = theirs()
    study._storage.set_trial_user_attr(study.trials[-1]._trial_id, "model", object())
    with pytest.raises(TypeError, match=r"trial\.attrs\['model'\]"):
        from_optuna(study, storage=tmp_path / "a.db")
    assert not (tmp_path / "a.db").exists()


def test_an_export_that_fails_leaves_nothing_behind(monkeypatch):
    storage = optuna.storages.InMemoryStorage()

    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(optuna.Study, "add_trials", full)
    with pytest.raises(OSError, match="no space left"):
        to_optuna(ours(), storage=storage)
    assert optuna.get_all_study_names(storage) == []
