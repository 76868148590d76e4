"""Error against inference time: a classifier of handwritten digits that is good, or quick, or both.

    python examples/two_objectives.py

Extremely randomised trees on digits, of which number, depth, leaves and features are chosen. No
setting is best in both: the run looks for those that nothing beats in both at once, and prints
them. Writes two_objectives.png.
"""

import argparse
import time
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

from bbmmopt import Integer, Optimizer, Real, Space, run
from bbmmopt.plots import plot_pareto, plot_posterior

SPACE = Space(
    {
        "trees": Integer(1, 150, log=True),
        "depth": Integer(2, 16),
        "leaf": Integer(1, 20, log=True),  # fewest samples in a leaf
        "features": Real(0.02, 1, log=True),  # share of the pixels that a split looks at
    }
)
REPEATS = 5  # of the predictions that are timed


@cache
def digits() -> list[np.ndarray]:
    """Images to learn from and to be judged by, and the digit each shows."""
    X, y = load_digits(return_X_y=True)
    return train_test_split(X, y, test_size=0.4, random_state=0)


def evaluate(trees: int, depth: int, leaf: int, features: float) -> dict[str, float]:
    """Share of digits misread, and milliseconds for 1000 of them: the least of some repeats."""
    X, X_test, y, y_test = digits()
    model = ExtraTreesClassifier(
        trees, max_depth=depth, min_samples_leaf=leaf, max_features=features, random_state=0
    )
    model.fit(X, y)
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        model.predict(X_test)
        seconds.append(time.perf_counter() - began)
    return {
        "error": 1 - float(model.score(X_test, y_test)),
        "milliseconds": 1e6 * min(seconds) / len(X_test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Look for classifiers that are good and quick.")
    parser.add_argument("--trials", type=int, default=50)
    arguments = parser.parse_args()

    optimizer = Optimizer(
        SPACE,
        minimize=["error", "milliseconds"],
        # Worse than this in either is worth nothing: so no trials are spent there.
        reference_point={"error": 0.25, "milliseconds": 20},
        seed=0,
    )
    # One worker: two would slow each other down, and time is what is measured.
    result = run(optimizer, evaluate, n_trials=arguments.trials)

    print(result.stopped)
    print(f"{'error':>8} {'ms / 1000':>10}   settings")
    for trial in optimizer.pareto_front:
        values = trial.values or {}
        settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
        print(f"{values['error']:8.4f} {values['milliseconds']:10.2f}   {settings}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    plot_pareto(optimizer, ax=left)
    plot_posterior(optimizer, "trees", "depth", name="error", ax=right)
    figure.savefig("two_objectives.png", dpi=130)
    print("wrote two_objectives.png")


if __name__ == "__main__":
    main()
