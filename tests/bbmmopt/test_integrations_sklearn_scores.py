"""Scores of BBMMSearchCV: several of them, folds that have none, and when they are enough."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from bbmmopt import Integer, Patience, Real, Study
from tests.bbmmopt.sklearn_searches import Fragile, X, Y, search


def test_of_several_scores_refit_names_the_one_to_be_large() -> None:
    found = search(scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss").fit(X, Y)
    results = found.cv_results_
    assert found.optimizer_.problem.names == ("neg_log_loss",)
    assert found.best_index_ == np.argmax(results["mean_test_neg_log_loss"])
    told = [trial.value for trial in found.optimizer_.trials]
    assert told == pytest.approx(results["mean_test_neg_log_loss"], abs=1e-12)
    by_hand = cross_validate(
        LogisticRegression(**results["params"][3]), X, Y, cv=3, scoring="accuracy"
    )
    assert results["mean_test_accuracy"][3] == pytest.approx(by_hand["test_score"].mean())


def test_several_scores_without_such_a_name_are_traded_off() -> None:
    found = search(
        scoring={"accuracy": "accuracy", "loss": "neg_log_loss"},
        refit=lambda results: int(np.argmax(results["mean_test_loss"])),
    ).fit(X, Y)
    assert found.optimizer_.problem.names == ("accuracy", "loss")
    assert found.best_index_ == np.argmax(found.cv_results_["mean_test_loss"])
    assert found.best_index_ in [trial.number for trial in found.optimizer_.pareto_front]


def test_a_function_may_score_several_things() -> None:
    def scoring(estimator: Any, rows: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return {"size": -abs(estimator.coef_).sum(), "fit": estimator.score(rows, labels)}

    found = search(scoring=scoring, refit="size").fit(X, Y)
    assert found.best_params_["C"] == min(p["C"] for p in found.cv_results_["params"])
    with pytest.raises(ValueError, match="several scores, 'size', 'fit': say by refit='…'"):
        search(scoring=scoring, refit=False).fit(X, Y)


def expected_scores(C: float, lost: float) -> list[float]:
    """The scores of Fragile on three folds of 17, 17 and 16 flowers."""
    fine = cross_validate(LogisticRegression(C=C), X, Y, cv=3)["test_score"]
    return [lost if C > 10 or (C > 1 and fold == 2) else fine[fold] for fold in range(3)]


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
@pytest.mark.parametrize("n_points", [1, 2])
def test_candidates_that_cannot_be_fitted_are_failed_trials(n_points: int) -> None:
    # scikit-learn itself gives up where a whole batch fails.
    with pytest.warns(FitFailedWarning, match="C is too large"):
        found = search(Fragile(), n_points=n_points, n_iter=12).fit(X, Y)
    results, trials = found.cv_results_, found.optimizer_.trials
    assert {trial.state for trial in trials} == {"complete", "failed"}
    whole = sum(params["C"] > 10 for params in results["params"])
    assert 0 < whole < 6
    for k, params in enumerate(results["params"]):
        scores = [results[f"split{fold}_test_score"][k] for fold in range(3)]
        assert_array_equal(scores, expected_scores(params["C"], np.nan))
        assert (trials[k].state == "failed") == (params["C"] > 1)
        assert "C is too large" in (trials[k].reason or "C is too large")
    assert found.best_params_["C"] <= 1


def test_a_number_as_error_score_is_a_score_like_others() -> None:
    with pytest.warns(FitFailedWarning, match="C is too large"):
        found = search(Fragile(), n_iter=12, error_score=-1.0).fit(X, Y)
    for trial, params in zip(found.optimizer_.trials, found.cv_results_["params"], strict=True):
        assert trial.value == pytest.approx(np.mean(expected_scores(params["C"], -1.0)))


def test_what_is_raised_is_raised_where_error_score_says_so() -> None:
    with pytest.raises(ValueError, match=r"\AC is too large\Z"):
        search(Fragile(), error_score="raise").fit(X, Y)


def test_where_no_candidate_can_be_fitted_scikit_learn_says_so() -> None:
    with pytest.raises(ValueError, match=r"(?s)All the 3 fits failed.*C is too large"):
        search(Fragile(), {"C": Real(200, 300)}, n_iter=3).fit(X, Y)


def test_a_rule_stops_a_search() -> None:
    found = search(KNeighborsClassifier(), {"n_neighbors": Integer(1, 15)}, stop=Patience(3))
    found.fit(X, Y)
    scores = found.cv_results_["mean_test_score"]
    assert found.stopped_.startswith("no patience: no improvement in 3 trials")
    assert len(scores) == np.argmax(scores) + 4 < 8


def test_a_search_is_stopped_from_another_process(tmp_path: Path) -> None:
    calls = []

    def scoring(estimator: Any, rows: np.ndarray, labels: np.ndarray) -> float:
        calls.append(estimator)
        if len(calls) == 5:  # in the second candidate
            with Study.open(tmp_path / "search.db") as study:
                study.stop("the machine is needed")
        return estimator.score(rows, labels)

    found = search(storage=tmp_path / "search.db", scoring=scoring).fit(X, Y)
    assert found.stopped_ == "the machine is needed"
    assert len(found.cv_results_["params"]) == 2


class Watching:
    """A callback of scikit-learn that wants no third batch."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int]] = []

    def setup(self, estimator: Any, context: Any) -> None: ...

    def teardown(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_begin(self, estimator: Any, context: Any, **_: Any) -> None: ...

    def on_fit_task_end(self, estimator: Any, context: Any, **_: Any) -> bool:
        self.ended.append((context.task_name, context.task_id))
        return context.task_name == "batch" and context.task_id == 1


@pytest.mark.filterwarnings("ignore:The estimator SVC does not support callbacks")
def test_callbacks_of_scikit_learn_see_batches_and_may_stop_the_search() -> None:
    watching = Watching()
    found = search(SVC(), n_points=2).set_callbacks(watching).fit(X, Y)
    assert len(found.cv_results_["params"]) == 4
    assert found.stopped_ == "a callback of scikit-learn asked for it"
    whole = [name for name, _ in watching.ended if name != "candidate-split-evaluation"]
    assert whole == ["batch", "batch", "search", "refit-with-best-params", "fit"]
