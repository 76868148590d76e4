"""Tune gradient boosting on patients' data, with two workers, some trials of which diverge.

    python examples/tune_gradient_boosting.py

How far diabetes has advanced a year later, from ten measurements of 442 patients (Efron et al.,
Least angle regression, 2004). Boosting with scikit-learn's default settings does worse than a
straight line there; how much can be gained by its settings? Every trial is kept in
gradient_boosting.db, also those that failed: run it again, and it goes on from there.
Afterwards gradient_boosting.png shows the run, what mattered, the model, and who worked when.
"""

import argparse
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_score
from threadpoolctl import threadpool_limits

from bbmmopt import Categorical, Integer, Real, Space, TotalTrials, minimize
from bbmmopt.plots import plot_history, plot_importance, plot_posterior, plot_timeline

SPACE = Space(
    {
        "learning_rate": Real(0.01, 3, log=True),  # too large on purpose: boosting diverges there
        "max_iter": Integer(20, 400, log=True),
        "max_leaf_nodes": Integer(2, 64, log=True),
        "min_samples_leaf": Integer(1, 100, log=True),
        "max_features": Real(0.1, 1),
        "l2_regularization": Real(1e-6, 1e2, log=True),
        "loss": Categorical(["squared_error", "absolute_error", "poisson", "gamma"]),
    }
)

FOLDS = KFold(n_splits=5, shuffle=True, random_state=0)
# Of splits that no trial has seen: the best of many is partly lucky with those it was chosen by.
OTHER_FOLDS = KFold(n_splits=5, shuffle=True, random_state=1)


@cache  # each worker process reads the data once
def patients() -> tuple[np.ndarray, np.ndarray]:
    """Ten measurements of each of 442 patients, and how far the disease has advanced."""
    return load_diabetes(return_X_y=True)


def cross_validated(model: Any, folds: Any) -> float:
    """The error of a model, in units of the target: root mean square, mean over the folds."""
    with threadpool_limits(1):  # the other cores have work of their own
        scores = cross_val_score(
            model, *patients(), cv=folds, scoring="neg_root_mean_squared_error", error_score="raise"
        )
    return -float(scores.mean())


def boosting(**params: Any) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(**params, random_state=0)


def error(**params: Any) -> float:
    """What is minimised. Whoever raises has failed: the trial is kept, with the traceback."""
    found = cross_validated(boosting(**params), FOLDS)
    guess = float(patients()[1].std())
    if found > guess:
        raise ArithmeticError(
            f"diverged: an error of {found:.3g}, and guessing the mean gives {guess:.3g}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Tune gradient boosting on patients' data.")
    parser.add_argument("--trials", type=int, default=40, help="in all, earlier runs included")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    result = minimize(
        error,
        SPACE,
        stop=TotalTrials(arguments.trials),
        name="error",
        workers=arguments.workers,
        executor="processes",
        storage="gradient_boosting.db",
        seed=0,
        budget=arguments.trials,
    )
    optimizer = result.optimizer
    print(result.stopped)

    failed = [trial for trial in optimizer.trials if trial.state == "failed"]
    print(f"{len(failed)} of {len(optimizer.trials)} trials failed" + (", such as:" * bool(failed)))
    for trial in failed[:3]:
        rate, reason = trial.params["learning_rate"], (trial.reason or "").strip().splitlines()[-1]
        print(f"  trial {trial.number}, learning rate {rate:.3g}: {reason}")

    best = optimizer.best
    print(f"\nthe best, trial {best.number}:")
    for name, value in best.params.items():
        print(f"  {name} {value:.3g}" if isinstance(value, float) else f"  {name} {value}")

    print("\nerror               these folds  other folds")
    for name, model in [
        ("default settings", boosting()),
        ("tuned", boosting(**best.params)),
        ("a straight line", LinearRegression()),
    ]:
        here, there = (cross_validated(model, folds) for folds in (FOLDS, OTHER_FOLDS))
        print(f"{name:18s} {here:12.2f} {there:12.2f}")

    figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    plot_history(optimizer, ax=axes[0, 0])
    plot_importance(optimizer, ax=axes[0, 1])
    plot_posterior(optimizer, "learning_rate", "max_leaf_nodes", ax=axes[1, 0])
    plot_timeline(optimizer, ax=axes[1, 1])
    figure.savefig("gradient_boosting.png", dpi=120)
    plt.close(figure)
    print("\nwrote gradient_boosting.png")


if __name__ == "__main__":
    main()
