"""Folds: what scikit-learn measured of a candidate, kept with its trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
from sklearn.model_selection import check_cv

from bbmmopt.study import Study, StudyDiffers
from bbmmopt.trial import Trial

NOTE = "cross-validation"  # what the folds are called among the notes of a trial

# Of each fold, what `cv_results_` is made of.
_COLUMNS = ("test_scores", "train_scores", "fit_time", "score_time")

Fold = Mapping[str, Any]


class Splits:
    """The splits of a cross-validator, made once: all candidates of a search get the same.

    One that shuffles without a seed would make new ones for each batch.

    Args:
        cv: The cross-validator, or what scikit-learn takes for one.
        classifier: Whether a number of folds means stratified ones.
        check: Called once with what the splits are of, {"data": hash, "splits": hash}; None where
            nobody needs to know.
    """

    def __init__(
        self, cv: Any, classifier: bool, check: Callable[[Mapping[str, str]], None] | None
    ) -> None:
        self._cv, self._classifier, self._check = cv, classifier, check
        self._found: list[Any] | None = None

    def split(self, X: Any, y: Any = None, **params: Any) -> list[Any]:
        """[(rows to train on, rows to test on), …]"""
        if self._found is None:
            cv: Any = check_cv(self._cv, y, classifier=self._classifier)
            found = list(cv.split(X, y, **params))
            if self._check is not None:
                self._check({"data": _fingerprint(X, y), "splits": _fingerprint(*found)})
            self._found = found
        return self._found

    @property
    def count(self) -> int:
        """How many there are; 0 before they were made."""
        return len(self._found or ())


def _fingerprint(*parts: Any) -> str:
    """A hash of numbers and names, whatever they are kept in."""
    return str(joblib.hash([_bare(part) for part in parts]))


def _bare(part: Any) -> Any:
    if hasattr(part, "tocoo"):  # sparse; what else is in there differs from copy to copy
        coo = part.tocoo()
        return [coo.shape, coo.row, coo.col, coo.data]
    if hasattr(part, "columns"):  # a table
        return [list(part.columns), np.ascontiguousarray(part)]
    return np.ascontiguousarray(part) if hasattr(part, "__array__") else part


class Folds:
    """The candidates of a search and their folds, in a study.

    Args:
        study: Where they are kept.
        about: What the scores are of, in words: {"estimator": …, "scoring": …}.
        train: Whether scores of the training data are wanted.
    """

    def __init__(self, study: Study, about: Mapping[str, str], train: bool) -> None:
        self._study, self._about, self._train = study, dict(about), train

    def trials(self) -> list[Trial]:
        """The candidates whose evaluation has ended, by number."""
        return [t for t in self._study.trials if t.state.finished and NOTE in t.attrs]

    def keep(self, trial: Trial, folds: Sequence[Fold] | None) -> None:
        """Note the folds of a candidate; None if none of them could be fitted."""
        columns = None
        if folds is not None:
            columns = {c: [_native(f[c]) for f in folds] for c in _COLUMNS if c in folds[0]}
        self._study.set_attrs(trial, {NOTE: {"of": self._about, "folds": columns}})

    def rows(self, trials: Sequence[Trial], n_splits: int, error_score: Any) -> list[Fold]:
        """The folds of several candidates, one candidate after the other.

        Args:
            trials: The candidates; of one of them at least some fold could be fitted.
            n_splits: How many folds each has.
            error_score: The score of folds that could not be fitted, or "raise".
        """
        error_score = math.nan if error_score == "raise" else float(error_score)
        found = [trial.attrs[NOTE]["folds"] for trial in trials]
        score = next(folds["test_scores"][0] for folds in found if folds is not None)
        lost = dict.fromkeys(score, error_score) if isinstance(score, dict) else error_score
        failed = {"test_scores": lost, "train_scores": lost}
        failed |= {"fit_time": math.nan, "score_time": math.nan}
        columns = [c for c in _COLUMNS if self._train or c != "train_scores"]
        return [
            {c: failed[c] if folds is None else folds[c][k] for c in columns}
            for folds in found
            for k in range(n_splits)
        ]

    def check(self, of: Mapping[str, str]) -> None:
        """Take note of what the splits are of; refuse to go on with the scores of something else.

        Raises:
            StudyDiffers: If the study holds some.
        """
        self._about |= of
        for trial in self.trials():
            before, folds = trial.attrs[NOTE]["of"], trial.attrs[NOTE]["folds"]
            others = [
                name if name in of else f"{name} ({before[name]}, now {now})"
                for name, now in self._about.items()
                if before[name] != now
            ]
            if others:
                raise StudyDiffers(
                    f"study {self._study.study!r} holds scores of other {' and '.join(others)}. "
                    f"Give this search a study of its own with study=…, and a cv that shuffles a "
                    f"random_state: without one, its splits are never the same again."
                )
            if self._train and folds is not None and "train_scores" not in folds:
                raise StudyDiffers(
                    f"study {self._study.study!r} has no scores of the training data: leave "
                    f"return_train_score=False, or give this search a study of its own."
                )


def quickest_of(trials: Sequence[Trial]) -> Trial | None:
    """The candidate that was fitted in the least time; None if no fold of any could be fitted."""
    fitted = [trial for trial in trials if trial.attrs[NOTE]["folds"] is not None]
    return min(fitted, key=lambda t: sum(t.attrs[NOTE]["folds"]["fit_time"]), default=None)


def _native(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: float(each) for name, each in value.items()}
    return float(value)
