"""BBMMSearchCV: the search itself, as scikit-learn knows searches."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state, get_tags

from bbmmopt.execution.owners import own_name
from bbmmopt.execution.stopping import checked_rules
from bbmmopt.integrations.choices import without_addresses
from bbmmopt.integrations.sklearn.copied import StudyCopy
from bbmmopt.integrations.sklearn.distributions import Candidates
from bbmmopt.integrations.sklearn.folds import Folds, Splits, quickest_of
from bbmmopt.integrations.sklearn.progress import Progress
from bbmmopt.space import Space
from bbmmopt.space.checks import shown

if TYPE_CHECKING:
    # Elsewhere imported where they are used: they need torch. Workers of joblib read this file, and
    # who loads a search to predict.
    from bbmmopt.integrations.sklearn.loop import Loop
    from bbmmopt.optimizer import Optimizer

# What the search itself says to its optimizer.
_OWN = ("space", "minimize", "maximize", "constraints", "storage", "study", "seed")


class BBMMSearchCV(BaseSearchCV):
    """Search for parameters by cross-validation, each candidate chosen by what came out before.

        search = BBMMSearchCV(SVC(), {"C": loguniform(1e-3, 1e3)}, n_iter=30, random_state=0)
        search.fit(X, y)
        print(search.best_params_, search.best_score_)

    Takes what RandomizedSearchCV takes and gives what it gives, and more. Suggestions follow from
    `random_state`, `n_points` and the scores: `n_jobs` changes nothing. All candidates are
    evaluated on the same splits, also by a `cv` that shuffles without a seed.

    What is told is the mean over the folds, without its standard error: folds are the same for all
    candidates, so most of their spread is no noise between candidates. (Told as such, the best
    score after 25 candidates was lower on three data sets out of three.)

    A candidate of which a fold could not be fitted, or has no finite score, is a failed trial, and
    its surroundings are avoided; with a number as `error_score` it is one with bad scores.

    Args:
        estimator: What to tune: an estimator or a pipeline.
        param_distributions: {parameter of the estimator: where to look}, a list of such dicts, of
            which each candidate takes one, or a Space. To look in: a parameter such as
            `Real(1e-3, 1e3, log=True)` or `Integer(2, 5, when={"kernel": "poly"})`; uniform,
            loguniform or randint of scipy.stats; a range; or a list, of which three or more numbers
            in order are an Ordinal, all others a Categorical. What is not active is not set.
        n_iter: How many candidates.
        n_points: How many are chosen, and evaluated, at a time. A fold of a candidate is a job:
            there are n_points times as many as folds.
        scoring: As of RandomizedSearchCV. Of several scores the one that `refit` names is made
            large; with another `refit`, all of them, as trade-offs: see `optimizer_.pareto_front`.
        n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score: As of
            RandomizedSearchCV.
        random_state: An integer makes the search repeatable.
        storage: "search.db" keeps each candidate with its scores, so that a search that was killed
            goes on when it is run again, and one that is complete is not repeated, but for its
            quickest candidate, without which scikit-learn cannot go on. None keeps them in memory.
        study: Name of the study within the storage. Each data set, estimator, scoring and cv needs
            one of its own.
        stop: Rules to stop by before `n_iter`, such as `Patience(20)`; see `minimize`.
        optimizer_options: What else `Optimizer` takes, such as {"strategy": "trust_region"}.

    Attributes:
        optimizer_: The Optimizer, for plots, `explain` and more. Where the search was unpickled, a
            copy of it in memory.
        stopped_: Why the search ended before `n_iter`; None if it did not.
        cv_results_: As of RandomizedSearchCV; "trial" is the number of the trial in `optimizer_`.
        best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, refit_time_,
        multimetric_, classes_, n_features_in_, feature_names_in_: As of RandomizedSearchCV.
    """

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        n_points: int = 1,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        storage: str | PathLike[str] | None = None,
        study: str = "default",
        stop: Any = None,
        optimizer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.n_points = n_points
        self.random_state = random_state
        self.storage = storage
        self.study = study
        self.stop = stop
        self.optimizer_options = optimizer_options

    @property
    def optimizer_(self) -> Optimizer:
        """The Optimizer of the last `fit`."""
        if "_study" not in vars(self):
            raise AttributeError(
                f"{type(self).__name__} has no optimizer_ before it was fitted: call fit first."
            )
        if isinstance(self._study, StudyCopy):
            self._study = self._study.open()
        return self._study

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # What y may be is up to the estimator; scikit-learn's own searches do not say so. That it
        # is needed the estimator says when it is fitted.
        targets = get_tags(self.estimator).target_tags
        tags.target_tags = replace(targets, required=tags.target_tags.required)
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(cast("Any", super().__getstate__()))
        study = state.get("_study")
        if study is not None and not isinstance(study, StudyCopy):
            state["_study"] = StudyCopy.of(study)
        return state

    def _run_search(
        self, evaluate_candidates: Callable[..., dict[str, Any]], *, callback_ctx: Any = None
    ) -> None:
        from bbmmopt.integrations.sklearn.loop import Loop

        _check_count("n_iter", self.n_iter, "how many candidates to evaluate")
        _check_count("n_points", self.n_points, "how many candidates to choose at a time")
        rules, metrics = checked_rules(self.stop), self._metrics()
        for rule in rules:
            rule.check(len(metrics), False)
        candidates = Candidates.of(self.param_distributions)
        _check_settable(self.estimator, candidates)
        optimizer = self._opened(candidates.space, metrics)
        try:
            folds = Folds(optimizer, self._about(), self.return_train_score)
            # Before scikit-learn 1.9, what it has made of cv is nowhere to be found.
            splits = Splits(
                getattr(self, "_checked_cv_orig", self.cv),
                is_classifier(self.estimator),
                # Of a study in memory all scores are of this call.
                None if self.storage is None else folds.check,
            )
            evaluate = partial(evaluate_candidates, cv=splits)
            progress = Progress(self, callback_ctx)
            with own_name() as worker, progress:
                loop = Loop(
                    optimizer,
                    candidates,
                    folds,
                    evaluate,
                    progress,
                    splits=splits,
                    n_iter=int(self.n_iter),
                    n_points=int(self.n_points),
                    metrics=metrics,
                    error_score=self.error_score,
                    rules=rules,
                    worker=worker,
                )
                self.stopped_ = loop.run()
            self._fill_in(loop, evaluate, splits)
        except BaseException:
            optimizer.close()
            raise
        self._study: Optimizer | StudyCopy = optimizer

    def _fill_in(self, loop: Loop, evaluate: Callable[..., dict[str, Any]], splits: Splits) -> None:
        """Put the folds of all candidates where scikit-learn goes on with those of this run."""
        trials = loop.folds.trials()
        quickest = quickest_of(trials)
        if quickest is None:
            ended = f"the search ended before its first candidate: {self.stopped_}."
            raise loop.failure or ValueError(trials[-1].reason if trials else ended)
        if loop.failure is not None:
            message = (
                f"candidates of which no fold could be fitted, the last of them:{loop.failure}"
            )
            warnings.warn(message, FitFailedWarning, stacklevel=2)
        results = loop.results
        if results is None:
            # Nothing was left to evaluate, or it failed. Without having seen a score, scikit-learn
            # cannot go on: it sees what takes least time.
            results = evaluate([loop.candidates.settings(quickest)])
        rows = loop.folds.rows(trials, splits.count, self.error_score)
        candidates = [loop.candidates.settings(trial) for trial in trials]
        numbers = {"trial": [trial.number for trial in trials]}
        results.clear()
        results |= super()._format_results(candidates, splits.count, rows, numbers)

    def _format_results(
        self, candidate_params: Any, n_splits: int, out: Any, more_results: Any = None
    ) -> dict[str, Any]:
        """What `evaluate_candidates` returns: the folds as they are, until all of them are there.

        To format all candidates after each batch takes ever longer, and warns of failures again.
        """
        return {"folds": out}

    # ------------------------------------------------------------------------------ inside

    def _metrics(self) -> tuple[str, ...]:
        """The scores that are to be large, by name."""
        scoring: Any = self.scoring
        several = isinstance(scoring, list | tuple | dict)
        if isinstance(self.refit, str) and (several or callable(scoring)):
            return (self.refit,)
        return tuple(scoring) if several else ("score",)

    def _opened(self, space: Space, metrics: tuple[str, ...]) -> Optimizer:
        if self.storage is not None and not isinstance(self.storage, str | PathLike):
            raise TypeError(
                f"storage must be a path or the URL of a database, which copies of this search "
                f"can open too, or None; got {shown(self.storage)} ({type(self.storage).__name__})."
            )
        options = dict(self.optimizer_options or {})
        for name in _OWN:
            if name in options:
                raise ValueError(
                    f"optimizer_options cannot set {name!r}: BBMMSearchCV says that itself."
                )
        from bbmmopt.optimizer import Optimizer

        return Optimizer(
            space,
            maximize=metrics,
            storage=self.storage,
            study=self.study,
            seed=self._seed(),
            **{"budget": self.n_iter, **options},
        )

    def _seed(self) -> int | None:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        if self.random_state is None and self.storage is not None:
            return None  # a stored study keeps its own
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _about(self) -> dict[str, str]:
        """What the scores are of, the same in every process."""
        estimator: Any = clone(self.estimator)
        for part in (estimator, *estimator.get_params().values()):
            if hasattr(part, "set_params") and not isinstance(part, type):
                known = signature(type(part)).parameters
                for name in known.keys() & {"n_jobs", "verbose"}:  # change no score
                    part.set_params(**{name: known[name].default})
        return {
            "estimator": without_addresses(repr(estimator)),
            "scoring": without_addresses(repr(self.scoring)),
        }


def _check_count(name: str, count: Any, meaning: str) -> None:
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise TypeError(f"{name} must be an integer, {meaning}; got {shown(count)}.")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, {meaning}; got {count}.")


def _check_settable(estimator: Any, candidates: Candidates) -> None:
    """Refuse parameters that the estimator does not have, before anything is stored.

    Raises:
        ValueError: Naming the parameter.
    """
    copy: Any = clone(estimator)
    tuned = set(candidates.names.values())
    for own, name in candidates.names.items():
        parts = name.split("__")
        if any("__".join(parts[:k]) in tuned for k in range(1, len(parts))):
            continue  # of a part that is tuned itself: which there are depends on the candidate
        value = candidates.space.parameters[own].from_unit(0.5)
        value = candidates.space.arguments({own: value})[own]
        try:
            copy.set_params(**{name: clone(value, safe=False)})
        except ValueError as error:
            raise ValueError(
                f"param_distributions has {name!r}, which {type(estimator).__name__} does not "
                f"take: {error}"
            ) from None
