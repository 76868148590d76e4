"""What BBMMSearchCV may search, and what it refuses at the door."""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from bbmmopt import Categorical, Integer, Ordinal, Real, Space
from tests.bbmmopt.programs import run, run_forked
from tests.bbmmopt.sklearn_searches import X, Y, assert_same_results, search


def test_distributions_of_scipy_mean_what_our_parameters_mean() -> None:
    theirs = {
        "C": stats.loguniform(1e-2, 1e2),
        "tol": stats.uniform(1e-4, 1e-2),
        "degree": stats.randint(2, 5),
        "cache_size": range(50, 201, 50),
        "coef0": [0.0, 0.5, 2.0],
        "kernel": ["rbf", "poly"],
        "shrinking": np.array([True, False]),
    }
    ours = {
        "C": Real(1e-2, 1e2, log=True),
        "tol": Real(1e-4, 1e-4 + 1e-2),
        "degree": Integer(2, 4),  # scipy's upper bound is not included
        "cache_size": Integer(50, 200, step=50),
        "coef0": Ordinal([0.0, 0.5, 2.0]),
        "kernel": Categorical(["rbf", "poly"]),
        "shrinking": Categorical([True, False]),
    }
    one, other = (search(SVC(), space, refit=False).fit(X, Y) for space in (theirs, ours))
    assert one.optimizer_.space == Space(ours)
    assert_same_results(one.cv_results_, other.cv_results_)
    for params in one.cv_results_["params"]:
        assert {name: type(value) for name, value in params.items()} == {
            "C": float,
            "tol": float,
            "degree": int,
            "cache_size": int,
            "coef0": float,
            "kernel": str,
            "shrinking": bool,
        }


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        (stats.randint(0, 3, loc=5), Integer(5, 7)),
        (stats.loguniform(1, 10, scale=3), Real(3, 30, log=True)),
        (stats.reciprocal(1, 10), Real(1, 10, log=True)),
        (np.logspace(0, 2, 3), Ordinal([1.0, 10.0, 100.0])),
        ([3, 2, 1], Ordinal([3, 2, 1])),
        ([1, 10], Categorical([1, 10])),
        ([1.0, 2.0, 1.0], Categorical([1.0, 2.0])),
        ([1, 3, 2], Categorical([1, 3, 2])),
        ((np.float64(0.5), "auto"), Categorical([0.5, "auto"])),
        (["one"], Categorical(["one"])),
        (range(7, 8), Categorical([7])),
        (Integer(1, 4, log=True), Integer(1, 4, log=True)),
    ],
)
def test_a_distribution_or_a_list_is_this_parameter(given: Any, parameter: Any) -> None:
    found = search(KNeighborsClassifier(), {"leaf_size": given}, n_iter=1, error_score=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KNeighborsClassifier, "fit", lambda self, X, y: self)
        patch.setattr(KNeighborsClassifier, "score", lambda self, X, y: 0.0)
        space = found.fit(X, Y).optimizer_.space
    assert space == Space({"leaf_size": parameter})


def test_a_list_may_have_items_that_no_storage_keeps() -> None:
    scalers = [None, StandardScaler(), FunctionTransformer(np.tanh), FunctionTransformer(np.square)]
    pipeline = Pipeline([("scale", None), ("model", LogisticRegression())])
    space = {"scale": scalers, "model__class_weight": [None, "balanced", {0: 2, 1: 1, 2: 1}]}
    found = search(pipeline, space, n_iter=10).fit(X, Y)
    tried = [params["scale"] for params in found.cv_results_["params"]]
    assert {id(scaler) for scaler in tried} == {id(scaler) for scaler in scalers}
    assert list(found.optimizer_.space.parameters["scale"].labels) == [
        "None",
        "StandardScaler()",
        "FunctionTransformer(func=<ufunc 'tanh'>)",
        "FunctionTransformer(func=<ufunc 'square'>)",
    ]
    assert found.optimizer_.space.parameters["model__class_weight"].labels == (
        "None",
        "balanced",
        "{0: 2, 1: 1, 2: 1}",
    )
    # What is fitted is a copy.
    assert not hasattr(scalers[1], "mean_")


class Triple:
    """A function with a repr that says where it is in memory."""

    def __call__(self, A: np.ndarray) -> np.ndarray:
        return 3 * A


def test_labels_of_functions_do_not_tell_where_they_are_in_memory() -> None:
    functions = [lambda A: A, lambda A: 2 * A, np.square, partial(np.multiply, 3), Triple()]
    found = search(
        make_pipeline(FunctionTransformer(), LogisticRegression()),
        n_iter=3,
        space={"functiontransformer__func": functions},
    ).fit(X, Y)
    labels = found.optimizer_.space.parameters["functiontransformer__func"].labels
    assert labels[:3] == ("<lambda>", "<lambda> #2", "square")
    assert labels[3] == "functools.partial(<ufunc 'multiply'>, 3)"
    assert labels[4].endswith("test_integrations_sklearn_space.Triple object>")


def test_parts_of_a_pipeline_are_tuned_with_parameters_of_their_own() -> None:
    space = Space(
        {
            "model": Categorical({"svm": SVC(), "neighbours": KNeighborsClassifier()}),
            "model__C": Real(0.1, 10, log=True, when={"model": "svm"}),
            "model__n_neighbors": Integer(1, 9, when={"model": "neighbours"}),
        }
    )
    pipeline = Pipeline([("scale", StandardScaler()), ("model", SVC())])
    found = search(pipeline, space, n_iter=10).fit(X, Y)
    kinds = {
        (type(params["model"]).__name__, *sorted(params.keys() - {"model"}))
        for params in found.cv_results_["params"]
    }
    assert kinds == {("SVC", "model__C"), ("KNeighborsClassifier", "model__n_neighbors")}


def test_a_candidate_takes_one_of_several_dicts() -> None:
    several = [
        {"kernel": ["rbf"], "C": stats.loguniform(1, 10), "gamma": stats.loguniform(1e-3, 1)},
        {"kernel": ["poly"], "C": stats.loguniform(1, 10), "degree": [2, 3]},
        {"kernel": ["linear"], "C": stats.loguniform(100, 1000)},
    ]
    found = search(SVC(), several, n_iter=14).fit(X, Y)
    kinds = set()
    for params in found.cv_results_["params"]:
        kinds.add((params["kernel"], *sorted(params.keys() - {"kernel"})))
        low, high = (100, 1000) if params["kernel"] == "linear" else (1, 10)
        assert low <= params["C"] <= high
    assert kinds == {("rbf", "C", "gamma"), ("poly", "C", "degree"), ("linear", "C")}
    assert found.optimizer_.space.names == (
        "dict", "kernel [0]", "kernel [1]", "kernel [2]", "C [0, 1]", "C [2]", "gamma", "degree",
    )  # fmt: skip


def test_where_all_points_were_tried_the_search_ends() -> None:
    found = search(KNeighborsClassifier(), {"n_neighbors": [1, 3], "p": [1, 2]}, n_points=3)
    with pytest.warns(UserWarning, match="all 4 points of the space were tried; n_iter is 8"):
        found.fit(X, Y)
    params = found.cv_results_["params"]
    assert sorted((p["n_neighbors"], p["p"]) for p in params) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert found.stopped_ == "all 4 points of the space were tried"


# --------------------------------------------------------------------------------------
# At the door.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"space": {"C": stats.norm()}}, TypeError, r"'C': .*a distribution 'norm'.*has bounds"),
        ({"space": {"C": stats.loguniform(1, 2, loc=1)}}, ValueError, "'C': .*loc other than 0"),
        ({"space": {"C": 3}}, TypeError, r"'C': expected a parameter such as Real.*got 3"),
        ({"space": {"C": "abc"}}, TypeError, "'C': .*got 'abc'"),
        ({"space": {"C": []}}, ValueError, "'C': choices must not be empty"),
        ({"space": {"C": Real(2, 1)}}, ValueError, "'C': .*low"),
        ({"space": {}}, ValueError, "at least one parameter"),
        ({"space": []}, TypeError, "a list of such dicts; got"),
        ({"space": [{"C": [1]}, 3]}, TypeError, "a list of such dicts; got 3"),
        (
            {"space": [{"C": Real(1, 2)}, {"C": [1], "tol": Real(1, 2, when={"C": 1})}]},
            ValueError,
            "'tol' has a condition, and stands in one of several dicts",
        ),
        ({"space": {"c": Real(1, 2)}}, ValueError, "has 'c', which LogisticRegression does not"),
        ({"n_iter": 0}, ValueError, "n_iter must be at least 1"),
        ({"n_iter": 2.5}, TypeError, "n_iter must be an integer"),
        ({"n_points": True}, TypeError, "n_points must be an integer"),
        ({"stop": 3}, TypeError, "stop takes rules"),
        ({"storage": 3}, TypeError, "storage must be a path or the URL"),
        ({"optimizer_options": {"seed": 3}}, ValueError, "cannot set 'seed'"),
        ({"optimizer_options": {"acquisition": "x"}}, ValueError, "acquisition must be one of"),
        ({"random_state": "x"}, ValueError, "cannot be used to seed"),
        ({"scoring": ["accuracy", "neg_log_loss"]}, ValueError, "refit must be set to a scorer"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        search(**options).fit(X, Y)


def test_nothing_is_stored_of_a_search_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which SVC does not take"):
        search(SVC(), {"c": Real(1, 2)}, storage=tmp_path / "search.db").fit(X, Y)
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_loaded_and_predicts_without_torch(tmp_path: Path) -> None:
    # So do the workers of joblib, to which scikit-learn sends the search.
    joblib.dump(search(n_iter=5).fit(X, Y), tmp_path / "search.joblib")
    load = "import sys, joblib; search = joblib.load('search.joblib'); "
    predict = "print(search.predict([[0.0] * 4]), 'torch' in sys.modules)"
    assert run("-c", load + predict, cwd=tmp_path).split()[-1] == "False"


def test_a_search_that_was_not_fitted_has_no_optimizer() -> None:
    with pytest.raises(AttributeError, match="no optimizer_ before it was fitted"):
        _ = search().optimizer_


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("bbmmopt.integrations.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn.*pip install 'bbmmopt\[sklearn\]'"):
        importlib.import_module("bbmmopt.integrations.sklearn")


ALONE = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name in {"optuna", "ray", "pandas", "plotly", "starlette", "uvicorn", "psycopg"}:
            raise ModuleNotFoundError(name)
assert "pandas" not in sys.modules
sys.meta_path.insert(0, Absent())
from sklearn.datasets import load_iris
from sklearn.svm import SVC
from bbmmopt.integrations.sklearn import BBMMSearchCV
X, y = load_iris(return_X_y=True)
search = BBMMSearchCV(SVC(), {"C": [0.1, 1.0, 10.0]}, n_iter=2, storage="search.db").fit(X, y)
assert search.best_score_ > 0.9
"""


def test_no_other_optional_library_is_needed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ALONE)
    run_forked(tmp_path / "script.py", cwd=tmp_path)
