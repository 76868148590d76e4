"""BBMMSearchCV against scikit-learn's own checks, and against cross-validation done by hand."""

import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import stats
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from bbmmopt import Optimizer, Real
from bbmmopt.integrations.sklearn import BBMMSearchCV
from bbmmopt.plots import plot_acquisition
from tests.bbmmopt.sklearn_searches import SVM, C, X, Y, assert_same_results, search

# --------------------------------------------------------------------------------------
# scikit-learn's own checks, with the settings of its own searches.
# --------------------------------------------------------------------------------------

_CHECKED = [
    (LogisticRegression(), {"C": Real(0.1, 1)}),
    (Pipeline([("pca", PCA()), ("ridge", Ridge())]), {"ridge__alpha": Real(0.1, 1)}),
]
_CHECKS = parametrize_with_checks(
    [
        BBMMSearchCV(
            estimator,
            space,
            n_iter=3,
            cv=2,
            random_state=0,
            error_score="raise",
            optimizer_options={"n_start": 2},
        )
        for estimator, space in _CHECKED
    ]
)


@pytest.mark.parametrize(
    ("estimator", "check"),
    # Those of array libraries that are not installed, which skip themselves, say nothing of us.
    [(each, check) for each, check in _CHECKS.args[1] if "array_api" not in check.func.__name__],
    ids=_CHECKS.kwargs["ids"],
)
# scikit-learn's own, where it looks whether a y of infinities is made of integers.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_a_check_of_scikit_learn(estimator: BBMMSearchCV, check: Any) -> None:
    check(estimator)


# --------------------------------------------------------------------------------------
# What it finds.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_points", [1, 3])
def test_each_candidate_has_the_scores_that_cross_validation_gives_it(n_points: int) -> None:
    found = search(SVC(), SVM, n_points=n_points, return_train_score=True).fit(X, Y)
    results = found.cv_results_
    assert len(results["params"]) == 8
    for k, params in enumerate(results["params"]):
        alone = cross_validate(SVC(**params), X, Y, cv=3, return_train_score=True)
        for fold in range(3):
            assert results[f"split{fold}_test_score"][k] == alone["test_score"][fold]
            assert results[f"split{fold}_train_score"][k] == alone["train_score"][fold]
    best = int(np.argmax(results["mean_test_score"]))
    assert found.best_index_ == best
    assert found.best_params_ == results["params"][best] == found.optimizer_.best.params
    assert found.best_score_ == pytest.approx(found.optimizer_.best.value, abs=1e-12)
    refitted = SVC(**found.best_params_).fit(X, Y)
    assert_array_equal(found.predict(X), refitted.predict(X))


def test_parameters_that_are_not_active_are_neither_set_nor_in_the_results() -> None:
    # A degree that were left over from another candidate would be seen as that of the estimator.
    found = search(SVC(degree=9), SVM, n_iter=12).fit(X, Y)
    tried = found.cv_results_["params"]
    poly = np.array([params["kernel"] == "poly" for params in tried])
    assert 0 < poly.sum() < 12
    assert_array_equal(np.ma.getmaskarray(found.cv_results_["param_degree"]), ~poly)
    assert [("degree" in params) for params in tried] == poly.tolist()
    rbf = search(SVC(degree=9), SVM, refit=lambda _: int(np.argmin(poly))).fit(X, Y)
    assert rbf.best_estimator_.get_params()["degree"] == 9


def test_a_batch_is_what_the_optimizer_gives_as_a_batch() -> None:
    found = search(n_points=4, n_iter=8).fit(X, Y)
    optimizer = Optimizer(C, maximize="score", seed=0, budget=8)
    expected = []
    for _ in range(2):
        trials = optimizer.ask(4)
        expected += [trial.params for trial in trials]
        for trial in trials:
            optimizer.tell(trial, found.cv_results_["mean_test_score"][trial.number])
    assert found.cv_results_["params"] == expected


def test_the_last_batch_is_as_small_as_it_has_to_be() -> None:
    assert len(search(n_points=3, n_iter=7).fit(X, Y).cv_results_["params"]) == 7


def test_a_search_follows_from_its_random_state() -> None:
    first, again, other = (search(random_state=s, refit=False).fit(X, Y) for s in (0, 0, 1))
    assert_same_results(first.cv_results_, again.cv_results_)
    assert first.cv_results_["params"][1:] != other.cv_results_["params"][1:]


def test_a_search_without_a_random_state_follows_from_the_global_one() -> None:
    found = []
    state = np.random.get_state()
    try:
        for _ in range(2):
            np.random.seed(7)
            found.append(search(random_state=None, n_iter=6, refit=False).fit(X, Y))
            given = np.random.RandomState(7)
            found.append(search(random_state=given, n_iter=6, refit=False).fit(X, Y))
    finally:
        np.random.set_state(state)
    for each in found[1:]:
        assert_same_results(found[0].cv_results_, each.cv_results_)


def test_all_candidates_get_the_same_splits_of_a_cv_that_shuffles() -> None:
    # By accident, one row in 2 ** 25 would be tested alike in all eight.
    seen = []

    def scoring(estimator: Any, rows: np.ndarray, labels: np.ndarray) -> float:
        seen.append(rows.tobytes())
        return estimator.score(rows, labels)

    search(cv=KFold(2, shuffle=True), scoring=scoring, refit=False).fit(X, Y)
    assert len(seen) == 16
    assert len(set(seen)) == 2


# --------------------------------------------------------------------------------------
# Data and what comes with them.
# --------------------------------------------------------------------------------------


def test_tables_pipelines_and_sparse_matrices_are_searched_on() -> None:
    table = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(kind=list("uvwxy") * 10)
    columns = make_column_transformer((StandardScaler(), ["a", "b"]), ("passthrough", ["c", "d"]))
    pipeline = make_pipeline(columns, LogisticRegression())
    found = search(pipeline, {"logisticregression__C": Real(0.1, 10)}, n_iter=6)
    found.fit(table, pd.Series(Y))
    assert list(found.feature_names_in_) == [*"abcd", "kind"]
    assert found.score(table, Y) == found.best_estimator_.score(table, Y)
    sparse, dense = search(n_iter=6).fit(csr_array(X), Y), search(n_iter=6).fit(X, Y)
    assert sparse.best_params_ == dense.best_params_


def test_groups_and_weights_reach_the_splitter_and_the_estimator() -> None:
    groups, weights = np.arange(50) % 5, np.linspace(0.1, 3, 50)
    found = search(cv=GroupKFold(5)).fit(X, Y, groups=groups, sample_weight=weights)
    params = found.cv_results_["params"][2]
    for fold, (train, test) in enumerate(GroupKFold(5).split(X, Y, groups)):
        alone = LogisticRegression(**params).fit(X[train], Y[train], weights[train])
        score = alone.score(X[test], Y[test], weights[test])
        assert found.cv_results_[f"split{fold}_test_score"][2] == pytest.approx(score, abs=1e-12)


def test_metadata_is_routed() -> None:
    groups, weights = np.arange(50) % 5, np.linspace(0.1, 3, 50)
    with config_context(enable_metadata_routing=True):
        estimator = LogisticRegression().set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=False)
        routed = search(estimator, cv=GroupKFold(5))
        routed.fit(X, Y, groups=groups, sample_weight=weights)
        assert "sample_weight" in str(routed.get_metadata_routing())
    params = routed.cv_results_["params"][2]
    train, test = next(GroupKFold(5).split(X, Y, groups))
    alone = LogisticRegression(**params).fit(X[train], Y[train], weights[train])
    assert routed.cv_results_["split0_test_score"][2] == alone.score(X[test], Y[test])


# --------------------------------------------------------------------------------------
# Afterwards.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [None, "search.db"])
def test_a_fitted_search_is_pickled_with_its_optimizer(tmp_path: Path, storage: Any) -> None:
    space = {"scale": [None, StandardScaler()], "model__C": Real(0.1, 10, log=True)}
    pipeline = Pipeline([("scale", None), ("model", LogisticRegression())])
    where = None if storage is None else tmp_path / storage
    found = search(pipeline, space, storage=where).fit(X, Y)
    file = io.BytesIO()
    joblib.dump(found, file)
    file.seek(0)
    copy = joblib.load(file)
    assert_array_equal(copy.predict_proba(X), found.predict_proba(X))
    assert [t.to_json() for t in copy.optimizer_.trials] == [
        t.to_json() for t in found.optimizer_.trials
    ]
    following = copy.optimizer_.ask()
    assert following.params == found.optimizer_.preview().params
    assert following.arguments["scale"] is None or isinstance(
        following.arguments["scale"], StandardScaler
    )
    assert len(found.optimizer_.trials) == 8  # the copy is one of its own


def test_a_search_is_explained_and_drawn(canvas: None) -> None:
    found = search(SVC(), {"C": Real(0.1, 10), "gamma": Real(0.01, 1)}).fit(X, Y)
    number = int(found.cv_results_["trial"][found.best_index_])
    assert f"trial {number}" in found.optimizer_.explain(number).lower()
    ax = plot_acquisition(found.optimizer_)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("C", "gamma")


def test_arguments_are_neither_changed_nor_copied() -> None:
    space, options = {"C": stats.loguniform(1e-3, 1e3)}, {"acquisition": "ucb"}
    given = search(space=space, optimizer_options=options, n_iter=1).fit(X, Y)
    assert given.param_distributions is space
    assert given.optimizer_options is options
    assert given.optimizer_.settings["acquisition"] == "ucb"
    assert clone(given).get_params(deep=False).keys() == given.get_params(deep=False).keys()
    assert not hasattr(clone(given), "optimizer_")
