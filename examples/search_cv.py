"""Search as scikit-learn does: a pipeline, its kernel, and what only that kernel has.

    python examples/search_cv.py

BBMMSearchCV stands where RandomizedSearchCV would. Scores are kept in search_cv.db: kill it and run
it again, and it goes on; run it once more, and it only says what it found. Afterwards search_cv.png
shows how the search went, and what the model makes of C and gamma.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bbmmopt import Categorical, Integer, Real, Space
from bbmmopt.integrations.sklearn import BBMMSearchCV
from bbmmopt.plots import plot_history, plot_posterior

PIPELINE = Pipeline([("scale", StandardScaler()), ("svm", SVC())])

SPACE = Space(
    {
        "scale": Categorical({"standard": StandardScaler(), "none": "passthrough"}),
        "svm__C": Real(1e-2, 1e3, log=True),
        "svm__kernel": Categorical(["linear", "rbf", "poly"]),
        "svm__gamma": Real(1e-5, 1e-1, log=True, when={"svm__kernel": ["rbf", "poly"]}),
        "svm__degree": Integer(2, 5, when={"svm__kernel": "poly"}),
    }
)


def in_words(params: dict[str, object]) -> str:
    """A candidate in a line, without the names of the pipeline's parts."""
    words = []
    for name, value in params.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        words.append(f"{name.removeprefix('svm__')} {text.removesuffix('()')}")
    return ", ".join(words)


def table(results: dict[str, np.ndarray], rows: int) -> None:
    """Print the best candidates of a search."""
    print("rank  accuracy        candidate")
    for k in np.argsort(results["rank_test_score"], kind="stable")[:rows]:
        mean, std = results["mean_test_score"][k], results["std_test_score"][k]
        rank = results["rank_test_score"][k]
        print(f"{rank:4d}  {mean:.4f} ± {std:.4f} {in_words(results['params'][k])}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Search as scikit-learn does.")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="processes that fit")
    arguments = parser.parse_args()

    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images, digits, test_size=0.5, random_state=0, stratify=digits)
    X, X_test, y, y_test = split
    search = BBMMSearchCV(
        PIPELINE,
        SPACE,
        n_iter=arguments.candidates,
        n_points=arguments.jobs,
        n_jobs=arguments.jobs,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        storage="search_cv.db",
        random_state=0,
    )
    search.fit(X, y)

    table(search.cv_results_, rows=8)
    default = PIPELINE.fit(X, y).score(X_test, y_test)
    tuned = search.score(X_test, y_test)
    print(f"\non unseen digits: default settings {default:.4f}, tuned {tuned:.4f}")

    # The surface over C and gamma, for the kernel, the degree and the scaling of the best one.
    best = search.optimizer_.trials[search.cv_results_["trial"][search.best_index_]].params
    axes = [name for name in ("svm__C", "svm__gamma") if name in best]
    fixed = {name: value for name, value in best.items() if name not in axes}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    plot_history(search.optimizer_, ax=left)
    plot_posterior(search.optimizer_, *axes, fixed=fixed, ax=right)
    figure.savefig("search_cv.png", dpi=120)
    plt.close(figure)
    print("wrote search_cv.png")


if __name__ == "__main__":
    main()
