"""Tune a classifier in an Optuna study by our sampler, and look at it by our plots; resumable.

    python examples/optuna_study.py

The objective is plain Optuna: it asks for parameters as it goes, those of a model only where that
model was chosen. Trials are kept in demo/optuna.db, where Optuna's dashboard finds them too: run
it again, and it goes on from there. Afterwards demo/optuna_study.png shows how the error fell, and
what the model makes of it along the parameters of the best classifier.
"""

import argparse
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bbmmopt.integrations.optuna import BBMMSampler, from_optuna
from bbmmopt.plots import plot_history, plot_posterior

FOLDS = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """569 biopsies, 30 numbers each, and whether the tumour was benign."""
    return load_breast_cancer(return_X_y=True)


def error(trial: optuna.Trial) -> float:
    """Share of biopsies misread, by 5-fold cross-validation."""
    if trial.suggest_categorical("model", ["svm", "logistic"]) == "svm":
        model = SVC(
            C=trial.suggest_float("C", 1e-2, 1e4, log=True),
            gamma=trial.suggest_float("gamma", 1e-6, 1, log=True),
        )
    else:
        model = LogisticRegression(
            C=trial.suggest_float("inverse_penalty", 1e-4, 1e3, log=True), max_iter=2000
        )
    pipeline = make_pipeline(StandardScaler(), model)
    return 1 - float(cross_val_score(pipeline, *data(), cv=FOLDS).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Tune a classifier in an Optuna study by our sampler."
    )
    parser.add_argument("--trials", type=int, default=40)
    arguments = parser.parse_args()

    folder = Path("demo")
    folder.mkdir(exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="biopsies",
        storage=f"sqlite:///{folder / 'optuna.db'}",
        sampler=BBMMSampler(seed=0),
        load_if_exists=True,
    )
    study.optimize(error, n_trials=arguments.trials)

    print(f"best of {len(study.trials)} trials is number {study.best_trial.number}:")
    print(f"  error {study.best_value:.4f}")
    for name, value in study.best_params.items():
        print(f"  {name} {value:.5g}" if isinstance(value, float) else f"  {name} {value}")

    # The same trials as one of our studies: every plot of ours draws them.
    optimizer = from_optuna(study)
    print(optimizer.space)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    plot_history(optimizer, ax=axes[0])
    best = optimizer.best.params
    if best["model"] == "svm":
        fixed = {"model": "svm"}
        plot_posterior(optimizer, x="C", y="gamma", fixed=fixed, ax=axes[1])
    else:
        fixed = {"model": "logistic"}
        plot_posterior(optimizer, x="inverse_penalty", fixed=fixed, ax=axes[1])
    figure.savefig(folder / "optuna_study.png", dpi=150)
    print(f"wrote {folder / 'optuna_study.png'}")


if __name__ == "__main__":
    main()
