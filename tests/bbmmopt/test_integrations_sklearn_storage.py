"""Searches of BBMMSearchCV that are kept, killed and gone on with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from bbmmopt import Integer, Optimizer, Real, Study
from bbmmopt.integrations.sklearn import BBMMSearchCV
from bbmmopt.study import StudyDiffers
from tests.bbmmopt.programs import forked
from tests.bbmmopt.sklearn_searches import SVM, Fragile, X, Y, assert_same_results, kept, search


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The C of each logistic regression that is fitted from now on."""
    fitted: list[float] = []
    plain = LogisticRegression.fit

    def fit(self: LogisticRegression, *args: Any, **kwargs: Any) -> LogisticRegression:
        fitted.append(self.C)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    return fitted


def test_a_complete_search_is_not_repeated(tmp_path: Path, fits: list[float]) -> None:
    first = kept(tmp_path).fit(X, Y)
    assert len(fits) == 8 * 3 + 1
    fits.clear()
    # Kept in another order in memory: what is in there is the same.
    again = kept(tmp_path).fit(np.asfortranarray(X), Y.copy())
    # scikit-learn has to see a score: it sees the quickest.
    quickest = again.cv_results_["params"][np.argmin(first.cv_results_["mean_fit_time"])]
    assert fits == [quickest["C"]] * 3 + [again.best_params_["C"]]
    assert_same_results(first.cv_results_, again.cv_results_)
    assert_array_equal(first.cv_results_["mean_fit_time"], again.cv_results_["mean_fit_time"])
    assert again.n_splits_ == 3
    assert again.multimetric_ is False


def test_a_search_goes_on_to_more_candidates(tmp_path: Path, fits: list[float]) -> None:
    kept(tmp_path, n_iter=6, random_state=None).fit(X, Y)
    fits.clear()
    more = kept(tmp_path, random_state=None).fit(X, Y)
    assert len(fits) == 2 * 3 + 1
    assert len(more.cv_results_["params"]) == 8


BATCHES: dict[str, Any] = {"n_points": 3, "n_iter": 8, "return_train_score": True}


@pytest.fixture(scope="module")
def whole() -> BBMMSearchCV:
    """A search in batches of three that nothing interrupted."""
    return search(SVC(), SVM, **BATCHES).fit(X, Y)


@pytest.mark.parametrize(
    ("method", "calls"),
    [("ask", 3), ("set_attrs", 1), ("set_attrs", 6), ("tell", 1), ("tell", 5)],
)
def test_a_search_that_was_interrupted_goes_on_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: BBMMSearchCV, method: str, calls: int
) -> None:
    plain, left = getattr(Optimizer, method), calls

    def interrupted(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            if method == "ask":  # within it: a part of the batch is stored
                plain(self, 1, **kwargs)
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    half = search(SVC(), SVM, storage=tmp_path / "search.db", **BATCHES)
    with monkeypatch.context() as patch:
        patch.setattr(Optimizer, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            half.fit(X, Y)
    assert not hasattr(half, "cv_results_")
    assert_same_results(half.fit(X, Y).cv_results_, whole.cv_results_)


@pytest.mark.alone
def test_two_jobs_find_what_one_finds(whole: BBMMSearchCV) -> None:
    try:
        two = search(SVC(), SVM, n_jobs=2, **BATCHES).fit(X, Y)
    finally:
        get_reusable_executor().shutdown()  # its processes would wait for more work
    assert_same_results(two.cv_results_, whole.cv_results_)


KILLED = """
import os, signal
import numpy as np
from sklearn.svm import SVC
from bbmmopt import Space
from bbmmopt.integrations.sklearn import BBMMSearchCV

plain, fits = SVC.fit, 0

def fit(self, *args, **kwargs):
    global fits
    fits += 1
    if fits == 14:  # in the second candidate of the second batch
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, *args, **kwargs)

SVC.fit = fit
BBMMSearchCV(
    SVC(), Space.from_json(SPACE), cv=3, random_state=0, storage="search.db", **OPTIONS
).fit(np.load("X.npy"), np.load("Y.npy"))
"""


@pytest.mark.alone
def test_a_search_that_was_killed_goes_on_as_it_would_have(
    tmp_path: Path, whole: BBMMSearchCV
) -> None:
    script = tmp_path / "script.py"
    options = repr(BATCHES)
    script.write_text(KILLED.replace("SPACE", repr(SVM.to_json())).replace("OPTIONS", options))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y)
    with forked(script, cwd=tmp_path) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == -9, errors
    with Study.open(tmp_path / "search.db") as study:
        assert [trial.state for trial in study.trials] == ["complete"] * 3 + ["running"] * 3
    resumed = search(SVC(), SVM, storage=tmp_path / "search.db", **BATCHES).fit(X, Y)
    assert_same_results(resumed.cv_results_, whole.cv_results_)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_failed_candidates_are_kept_too(tmp_path: Path) -> None:
    first, again = (
        search(Fragile(), storage=tmp_path / "search.db", scoring=["accuracy"], refit="accuracy")
        for _ in range(2)
    )
    assert_same_results(first.fit(X, Y).cv_results_, again.fit(X, Y).cv_results_)
    assert np.isnan(again.cv_results_["mean_test_accuracy"]).any()


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, (X + 1, Y), "of other data"),
        ({}, (X, Y[::-1]), "of other data"),
        ({"cv": 4}, (X, Y), "of other splits"),
        ({"scoring": "neg_log_loss"}, (X, Y), r"other scoring \(None, now 'neg_log_loss'\)"),
        ({"estimator": LogisticRegression(tol=0.1)}, (X, Y), r"now LogisticRegression\(tol=0.1\)"),
        ({"return_train_score": True}, (X, Y), "no scores of the training data"),
        ({"random_state": 1}, (X, Y), "seed: was 0 and is now 1"),
        ({"space": {"C": Real(1, 2)}}, (X, Y), "low was 0.001 and is now 1"),
    ],
)
def test_scores_of_something_else_are_not_gone_on_with(
    tmp_path: Path, options: dict[str, Any], data: tuple[Any, Any], message: str
) -> None:
    where = {"storage": tmp_path / "search.db", "n_iter": 2}
    search(**where).fit(X, Y)
    with pytest.raises(StudyDiffers, match=message):
        search(**where | {"n_iter": 3} | options).fit(*data)
    # It has done no harm.
    assert len(search(**where | {"n_iter": 3}).fit(X, Y).cv_results_["params"]) == 3


def test_splits_that_are_never_the_same_again_cannot_be_gone_on_with(tmp_path: Path) -> None:
    where = {"storage": tmp_path / "search.db", "n_iter": 2, "cv": KFold(3, shuffle=True)}
    search(**where).fit(X, Y)
    with pytest.raises(StudyDiffers, match="a cv that shuffles a random_state"):
        search(**where).fit(X, Y)


def test_more_workers_for_an_estimator_do_not_make_it_another(tmp_path: Path) -> None:
    where = {"space": {"n_neighbors": Integer(1, 9)}, "storage": tmp_path / "search.db"}
    search(KNeighborsClassifier(), **where, n_iter=2).fit(X, Y)
    more = search(KNeighborsClassifier(n_jobs=1), **where, n_iter=3).fit(X, Y)
    assert len(more.cv_results_["params"]) == 3
