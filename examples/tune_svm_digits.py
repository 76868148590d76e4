"""Tune a support vector machine on handwritten digits, with two workers; resumable.

    python examples/tune_svm_digits.py

Every trial is kept in demo/study.db: run it again, and it goes on from there with more trials.
Afterwards demo/ holds three pictures: history.png, acquisition.png and posterior.png.
"""

import argparse
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC

from bbmmopt import Categorical, Integer, Real, Space, minimize
from bbmmopt.plots import plot_acquisition, plot_history, plot_posterior

SPACE = Space(
    {
        "C": Real(1e-3, 1e3, log=True),
        "gamma": Real(1e-6, 1, log=True),
        "kernel": Categorical(["rbf", "poly", "sigmoid"]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),  # asked for only when it matters
    }
)

FOLDS = StratifiedKFold(n_splits=3, shuffle=True, random_state=0)


@cache  # each worker process reads the data once
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8 × 8 grey levels, and the digit each shows."""
    return load_digits(return_X_y=True)


def error(C: float, gamma: float, kernel: str, degree: int = 3) -> float:
    """Share of digits misread, by 3-fold cross-validation."""
    model = SVC(C=C, gamma=gamma, kernel=kernel, degree=degree)
    return 1 - float(cross_val_score(model, *digits(), cv=FOLDS).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Tune a support vector machine on handwritten digits."
    )
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    folder = Path("demo")
    folder.mkdir(exist_ok=True)
    result = minimize(
        error,
        SPACE,
        n_trials=arguments.trials,
        name="error",
        workers=arguments.workers,
        executor="processes",
        storage=str(folder / "study.db"),
        seed=0,
        progress=True,
    )

    best = result.best
    print(result.stopped)
    print(f"best of {len(result.optimizer.trials)} trials is number {best.number}:")
    print(f"  error {best.values['error']:.4f}")
    for name, value in best.params.items():
        print(f"  {name} {value:.5g}" if isinstance(value, float) else f"  {name} {value}")

    # The surfaces over C and gamma, for the kernel (and degree) of the best trial.
    others = {name: best.params[name] for name in best.params if name not in ("C", "gamma")}
    slice_ = {"x": "C", "y": "gamma", "fixed": others}
    for name, plot, options in [
        ("history", plot_history, {}),
        ("acquisition", plot_acquisition, slice_),
        ("posterior", plot_posterior, slice_),
    ]:
        figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
        plot(result.optimizer, ax=ax, **options)
        figure.savefig(folder / f"{name}.png", dpi=150)
        plt.close(figure)
        print(f"wrote {folder / name}.png")


if __name__ == "__main__":
    main()
