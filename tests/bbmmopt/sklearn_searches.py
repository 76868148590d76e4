"""Searches of BBMMSearchCV, and what they are of."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bbmmopt import Categorical, Integer, Real, Space
from bbmmopt.integrations.sklearn import BBMMSearchCV

X, Y = load_iris(return_X_y=True)
X, Y = StandardScaler().fit_transform(X[::3]), Y[::3]  # 50 flowers, in the order of their kinds
C = {"C": Real(1e-3, 30, log=True)}
SVM = Space(
    {
        "kernel": Categorical(["rbf", "poly"]),
        "C": Real(1e-2, 1e2, log=True),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
    }
)
TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")


def search(estimator: Any = None, space: Any = C, **options: Any) -> BBMMSearchCV:
    """A search of eight candidates on three folds."""
    estimator = LogisticRegression() if estimator is None else estimator
    return BBMMSearchCV(estimator, space, **{"n_iter": 8, "cv": 3, "random_state": 0} | options)


def assert_same_results(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Whether two `cv_results_` are the same, but for how long it took."""
    assert one.keys() == other.keys()
    for name in one.keys() - {*TIMES, "params"}:
        masked = np.ma.getmaskarray(one[name])
        assert_array_equal(masked, np.ma.getmaskarray(other[name]), name)
        # What is masked may be anything.
        assert_array_equal(*(np.ma.getdata(each[name])[~masked] for each in (one, other)), name)
    assert one["params"] == other["params"]


def kept(path: Path, **options: Any) -> BBMMSearchCV:
    """A search with scores of the training data, in a storage in this folder."""
    return search(storage=path / "search.db", return_train_score=True, **options)


class Fragile(LogisticRegression):
    """Cannot be fitted with C > 10; with C > 1, not on a third of the folds."""

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> "Fragile":
        if self.C > 10 or (self.C > 1 and len(X) == 34):
            raise ValueError("C is too large")
        return super().fit(X, y, sample_weight)
