"""The problems: a space, a budget, and a function to be minimised.

A space is a list of plain dictionaries, one per parameter, which libraries.py puts into the words
of each library:

    {"name": "x", "kind": "real", "low": 0.0, "high": 1.0, "log": False}
    {"name": "k", "kind": "integer", "low": 2, "high": 5, "when": {"kernel": "poly"}}
    {"name": "kernel", "kind": "categorical", "choices": ["rbf", "poly"]}
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A function to minimise, and what is known about it.

    Attributes:
        space: One dictionary per parameter, as above.
        function: Takes the active parameters by name, returns a float.
        budget: How many trials a run has.
        optimum: The smallest value there is, or None where nobody knows.
        exact: Whether libraries that can be told so are told that there is no noise.
    """

    space: list[dict]
    function: Callable[..., float]
    budget: int
    optimum: float | None
    exact: bool = True


def box(low: float, high: float, d: int) -> list[dict]:
    return [
        {"name": f"x{i}", "kind": "real", "low": low, "high": high, "log": False} for i in range(d)
    ]


def vector(params: dict) -> np.ndarray:
    return np.array([params[f"x{i}"] for i in range(len(params))])


def branin(**params: float) -> float:
    """Branin on [-5, 10] × [0, 15]; three minima of 0.397887."""
    x, y = params["x0"], params["x1"]
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(**params: float) -> float:
    """Hartmann on [0, 1]^6; minimum -3.32237."""
    r = (_HARTMANN_A * (vector(params) - _HARTMANN_P) ** 2).sum(axis=1)
    return -float(_HARTMANN_WEIGHTS @ np.exp(-r))


# The classical Ackley function has its minimum in the middle of the box, where a start that
# includes the centre finds it at once. Here it lies off the centre in every coordinate.
ACKLEY_OPTIMUM = np.array([-11.3, 7.9, 14.2, -4.6, 19.1])


def ackley5(**params: float) -> float:
    """Ackley on [-32.768, 32.768]^5, moved so that its minimum 0 is at ACKLEY_OPTIMUM."""
    z = vector(params) - ACKLEY_OPTIMUM
    bowl = -20 * math.exp(-0.2 * math.sqrt(np.mean(z**2)))
    return bowl - math.exp(np.mean(np.cos(2 * math.pi * z))) + 20 + math.e


def rosenbrock4(**params: float) -> float:
    """Rosenbrock on [-5, 10]^4; minimum 0 at (1, 1, 1, 1)."""
    x = vector(params)
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


@cache
def _digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def svm(C: float, gamma: float, kernel: str, degree: int = 3) -> float:
    """The job of examples/tune_svm_digits.py: share of digits misread, 3-fold cross-validation."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    model = SVC(C=C, gamma=gamma, kernel=kernel, degree=degree)
    folds = StratifiedKFold(n_splits=3, shuffle=True, random_state=0)
    return 1 - float(cross_val_score(model, *_digits(), cv=folds).mean())


SVM_SPACE = [
    {"name": "C", "kind": "real", "low": 1e-3, "high": 1e3, "log": True},
    {"name": "gamma", "kind": "real", "low": 1e-6, "high": 1.0, "log": True},
    {"name": "kernel", "kind": "categorical", "choices": ["rbf", "poly", "sigmoid"]},
    {"name": "degree", "kind": "integer", "low": 2, "high": 5, "when": {"kernel": "poly"}},
]

BRANIN_SPACE = [
    {"name": "x0", "kind": "real", "low": -5.0, "high": 10.0, "log": False},
    {"name": "x1", "kind": "real", "low": 0.0, "high": 15.0, "log": False},
]

PROBLEMS = {
    "branin": Problem(BRANIN_SPACE, branin, budget=40, optimum=0.39788735772973816),
    "hartmann6": Problem(box(0.0, 1.0, 6), hartmann6, budget=60, optimum=-3.322368011391339),
    "ackley5": Problem(box(-32.768, 32.768, 5), ackley5, budget=50, optimum=0.0),
    "rosenbrock4": Problem(box(-5.0, 10.0, 4), rosenbrock4, budget=50, optimum=0.0),
    # Cross-validation repeats exactly but is no smooth function: each library keeps its defaults.
    "svm": Problem(SVM_SPACE, svm, budget=40, optimum=None, exact=False),
}
