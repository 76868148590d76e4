"""Facts about the choice of a strategy: what auto does, what is stored, what is said of it."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bbmmopt import Categorical, Optimizer, Real, Space, Study, StudyDiffers
from bbmmopt.cli import main
from bbmmopt.explain import STRATEGIES
from bbmmopt.modelling import Data, Known, Modellers, SparseModeller
from bbmmopt.storage import StudyRecord, open_storage
from bbmmopt.strategies import Chosen, Global, Request, TrustRegion, auto, choose_strategy

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})


def cube(d: int) -> Space:
    return Space({f"x{i}": Real(0, 1) for i in range(d)})


def told(space, n, seed=0) -> Data:
    X = np.random.default_rng(seed).random((n, len(space)))
    rows = X[:0]
    return Data(X, -((X[:, :2] - 0.3) ** 2).sum(1), np.full(n, np.nan), rows, rows, exact=True)


@pytest.mark.parametrize(
    ("d", "budget", "n", "options", "name"),
    [
        (2, 1000, 0, {}, "global"),
        (19, None, 5000, {}, "global"),
        (20, None, 0, {}, "global"),
        (20, 999, 999, {}, "global"),
        (20, 1000, 0, {}, "trust_region"),
        (20, 40, 1000, {}, "trust_region"),  # of a run that goes on and on
        (200, None, 1000, {"noise": "none"}, "trust_region"),
        (20, 1000, 0, {"noise": "noisy"}, "global"),
        (20, 1000, 0, {"objectives": 2}, "global"),
        (20, 1000, 0, {"guided": True}, "global"),
    ],
)
def test_what_auto_chooses(d, budget, n, options, name):
    chosen, because = choose_strategy(cube(d), budget, n, **options)
    assert chosen == name and because


def test_parameters_with_one_value_do_not_count():
    space = Space({f"x{i}": Real(0, 1) for i in range(19)} | {"k": Categorical(["only"])})
    assert choose_strategy(space, 5000, 0)[0] == "global"


def test_whatever_is_chosen_proposes_what_that_strategy_does():
    data = told(PLANE, 12)
    asked = Request(data, 12, 0)
    for name, strategy in (
        ("global", Global(PLANE, 5)),
        ("trust_region", TrustRegion(PLANE, 5)),
        ("auto", Global(PLANE, 5)),
    ):
        x = Chosen(PLANE, 5, strategy=name).propose(asked).x
        assert bytes(x) == bytes(strategy.propose(asked).x)
    with pytest.raises(ValueError, match="strategy must be one of auto, global"):
        Chosen(PLANE, 5, strategy="local")


def test_auto_moves_into_a_box_when_the_trials_have_become_many(monkeypatch):
    monkeypatch.setattr(auto, "MANY_COLUMNS", 2)
    monkeypatch.setattr(auto, "MANY_TRIALS", 10)
    optimizer = Optimizer(PLANE, minimize="f", seed=0, n_start=5)
    for _ in range(13):
        trial = optimizer.ask()
        optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2 + trial.params["y"])
    names = [t.origin["strategy"]["name"] for t in optimizer.trials]
    assert names == ["global"] * 10 + ["trust_region"] * 3
    assert [t.origin["region"]["known"] for t in optimizer.trials[10:]] == [10, 11, 12]


def test_auto_does_so_with_constraints_on_outcomes_too(monkeypatch):
    monkeypatch.setattr(auto, "MANY_COLUMNS", 2)
    monkeypatch.setattr(auto, "MANY_TRIALS", 6)
    optimizer = Optimizer(PLANE, minimize="f", constraints=["c"], seed=0, n_start=5)
    for _ in range(7):
        trial = optimizer.ask()
        optimizer.tell(trial, {"f": trial.params["x"], "c": 0.5 - trial.params["y"]})
    names = [t.origin["strategy"]["name"] for t in optimizer.trials]
    assert names == ["global"] * 6 + ["trust_region"]


def test_the_setting_is_checked_stored_and_not_changed(tmp_path):
    where = tmp_path / "study.db"
    with Optimizer(PLANE, minimize="f", storage=where, strategy="trust_region", budget=50) as first:
        assert (first.settings["strategy"], first.settings["budget"]) == ("trust_region", 50)
    with Study.open(where) as again:
        assert (again.settings["strategy"], again.settings["budget"]) == ("trust_region", 50)
    with pytest.raises(StudyDiffers, match="strategy: was 'trust_region' and is now 'global'"):
        Optimizer(PLANE, minimize="f", storage=where, strategy="global")
    with Optimizer(PLANE, minimize="f", storage=where, budget=80) as more:  # a run that goes on
        assert more.settings["budget"] == 50
    assert Optimizer(PLANE, minimize="f").settings["strategy"] == "auto"
    with pytest.raises(ValueError, match=r"strategy must be one of auto, .*; got 'turbo'"):
        Study(PLANE, minimize="f", strategy="turbo")


def test_the_command_line_takes_it(tmp_path):
    where = tmp_path / "study.db"
    words = ["create", where, "--space", '{"x": {"real": [0, 1]}}', "--minimize", "f"]
    words += ["--strategy", "trust_region"]
    assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
    with Study.open(where) as study:
        assert study.settings["strategy"] == "trust_region"


def test_trust_regions_are_refused_where_they_do_not_suit():
    Study(PLANE, minimize="f", constraints=["c"], strategy="trust_region")
    with pytest.raises(ValueError, match=r"trust_region.* is for one objective, and there are 2"):
        Study(PLANE, minimize=["f", "g"], strategy="trust_region")


def test_a_study_stored_before_there_was_a_choice_goes_on_as_it_was(tmp_path):
    where = tmp_path / "study.db"
    new = Study(PLANE, minimize="f")
    settings = {"n_start": 5, "acquisition": "auto"}
    with open_storage(where) as storage:
        storage.create_study(StudyRecord("default", new.problem.to_json(), 0, settings))
    with Optimizer(PLANE, minimize="f", storage=where) as old:
        assert (old.settings["strategy"], old.settings["budget"]) == ("global", None)
    with Optimizer(PLANE, minimize="f", storage=where, strategy="global") as old:
        assert old.settings["n_start"] == 5
    with pytest.raises(StudyDiffers, match="strategy: was 'global' and is now 'auto'"):
        Optimizer(PLANE, minimize="f", storage=where, strategy="auto")


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_runs_and_explains_itself(name):
    optimizer = Optimizer(PLANE, minimize="f", seed=0, n_start=5, strategy=name)
    for _ in range(9):
        trial = optimizer.ask()
        optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2 + trial.params["y"])
    used = "global" if name == "auto" else name
    because = "2 parameters are few" if name == "auto" else "it was asked for"
    text = optimizer.explain(8)
    assert f"Strategy: {used} ({STRATEGIES[used]}), because {because}" in text
    assert ("Trust region 1 had a mean side of" in text) == (name == "trust_region")
    assert optimizer.recommend().value < 0.2


# --------------------------------------------------------------------------------------
# Sparse models
# --------------------------------------------------------------------------------------


def test_a_sparse_model_predicts_what_is_left_out_no_worse():
    space = cube(30)
    rng = np.random.default_rng(0)
    X = rng.random((60, 30))
    y = np.sin(5 * X[:, 0]) + 2 * (X[:, 1] - 0.4) ** 2
    data = Data(X, y, np.full(60, np.nan), X[:0], X[:0], exact=True)
    usual = Modellers(space).beliefs(Known((data,))).first
    sparse = Modellers(space, SparseModeller).beliefs(Known((data,))).first
    Z = rng.random((200, 30))
    truth = np.sin(5 * Z[:, 0]) + 2 * (Z[:, 1] - 0.4) ** 2
    error = [float(np.mean((b.predict(Z)[0] - truth) ** 2)) for b in (usual, sparse)]
    assert error[1] <= error[0] * 1.2
    assert sparse.lengthscales[:2].max() < sparse.lengthscales[2:].min()


def test_sparse_models_that_predict_about_as_well_are_all_believed_in():
    space = cube(8)

    def names(function, n):
        X = np.random.default_rng(n).random((n, 8))
        y = function(X)
        data = Data(X, y, np.full(n, np.nan), X[:0], X[:0], exact=False)
        belief = SparseModeller(space).belief(data)
        found = [member.posterior.model.priors.name for member in belief.members]
        assert found[:1] in ([], [belief.posterior.model.priors.name])  # the best comes first
        assert len(found) == len(set(found)) != 1
        return found

    # All columns matter alike: some scales do as well as others.
    assert len(names(lambda X: ((X - 0.3) ** 2).sum(1), 24)) > 1
    # Few do, and that shows.
    assert not names(lambda X: np.sin(5 * X[:, 0]) + 2 * (X[:, 1] - 0.4) ** 2, 48)
    assert not Modellers(space).beliefs(Known((told(space, 24),))).first.members


def test_a_sparse_model_is_a_function_of_the_data():
    space = cube(8)
    used = SparseModeller(space)
    for n in (9, 14, 22):
        used.belief(told(space, n))
    fresh = SparseModeller(space).belief(told(space, 22))
    again = used.belief(told(space, 22))
    assert bytes(again.lengthscales.numpy()) == bytes(fresh.lengthscales.numpy())
    assert again.posterior.model.priors.name == fresh.posterior.model.priors.name
    for one, other in zip(again.members, fresh.members, strict=True):
        assert torch.equal(one.lengthscales, other.lengthscales)
