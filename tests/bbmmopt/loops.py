"""Short loops of an Optimizer, for several of its test files."""

import math

from bbmmopt.optimizer import Optimizer
from bbmmopt.space import Categorical, Integer, Real
from bbmmopt.trial import Trial

PLANE = {"x": Real(-5, 10), "y": Real(0, 15)}
MIXED = {
    "C": Real(1e-3, 1e3, log=True),
    "kernel": Categorical(["rbf", "poly"]),
    "degree": Integer(2, 5, when={"kernel": "poly"}),
    "shrink": Categorical([True, False]),
}


def branin(x, y):
    """Branin's function, whose minimum is 0.3979."""
    a = y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def mixed(C, kernel, shrink, degree=0):
    """An objective for MIXED."""
    return (math.log10(C) - 1) ** 2 + 0.3 * (kernel == "rbf") + 0.1 * abs(degree - 3) + 0.2 * shrink


def plane(storage=None, seed=0, **options) -> Optimizer:
    """An Optimizer of one objective, f, over PLANE."""
    return Optimizer(PLANE, minimize="f", storage=storage, seed=seed, **options)


def step(optimizer, f=branin, **options) -> Trial:
    """Ask, evaluate, tell."""
    trial = optimizer.ask(**options)
    return optimizer.tell(trial, f(**trial.params))


def run(optimizer, n, f=branin) -> list[dict]:
    """The points of n steps."""
    return [step(optimizer, f).params for _ in range(n)]
