"""Studies that are asked on the CPU and on the pretended device, for the test files of devices."""

import math
from collections.abc import Callable

import numpy as np

from bbmmopt import Categorical, Integer, Linear, Near, Optimizer, Space
from tests.bbmmopt.loops import MIXED, PLANE, branin, mixed

EXTENDED = MIXED | {"steps": Integer(1, 40), "kind": Categorical(["a", "b", "c"])}


def extended(steps, kind, **params):
    return mixed(**params) + (steps - 12) ** 2 / 300 + 0.1 * (kind == "a")


def noisy(x, y):
    return branin(x, y) + 20 * math.sin(1e4 * x + 3e3 * y)


def several(*names) -> Callable:
    """Branin's function and others, by name."""
    others = {"g": lambda x, y: (x - 3) ** 2 + y, "h": lambda x, y: x - y, "i": lambda x, y: -x * y}
    return lambda x, y: {"f": branin(x, y)} | {name: others[name](x, y) for name in names}


# name: space, objective, options of the study, trials of a batch
CASES = {
    "exact": (PLANE, branin, {"noise": "none"}, 1),
    "noise": (PLANE, noisy, {"noise": "noisy"}, 1),
    "noise told": (PLANE, lambda x, y: (branin(x, y), 5.0), {}, 1),
    "mixed": (EXTENDED, extended, {}, 1),
    "limited inputs": (
        Space(PLANE, constraints=[Linear({"x": 1, "y": 1}, at_most=12)]),
        branin,
        {},
        1,
    ),
    "constraints": (PLANE, several("h"), {"constraints": "h <= 3"}, 1),
    "two objectives": (
        PLANE,
        several("g", "h"),
        {"minimize": ["f", "g"], "constraints": "h <= 3"},
        1,
    ),
    "four objectives": (PLANE, several("g", "h", "i"), {"minimize": ["f", "g", "h", "i"]}, 1),
    "failures": (PLANE, lambda x, y: math.nan if x > 6 else branin(x, y), {}, 1),
    "batch": (PLANE, branin, {}, 3),
    "joint batch": (PLANE, branin, {"batches": "joint"}, 2),
    "trust region": (PLANE, branin, {"strategy": "trust_region"}, 1),
    "drawn in a trust region": (
        PLANE,
        several("h"),
        {"strategy": "trust_region", "constraints": "h <= 3"},
        9,
    ),
    "thompson": (PLANE, branin, {"acquisition": "thompson"}, 1),
    "knowledge gradient": (PLANE, branin, {"acquisition": "knowledge_gradient"}, 1),
    "joint entropy": (PLANE, noisy, {"acquisition": "joint_entropy"}, 1),
    "integrated variance": (PLANE, branin, {"acquisition": "integrated_variance"}, 1),
    "portfolio": (PLANE, branin, {"strategy": "portfolio"}, 1),
    "sparse": (PLANE, branin, {"strategy": "sparse"}, 1),
    "perturbed": (PLANE, branin, {"perturbation": {"x": 0.5}}, 1),
    "risk": (PLANE, branin, {"perturbation": {"x": 0.5}, "risk": 0.8}, 1),
    "prior": (MIXED, mixed, {"prior": {"kernel": {"rbf": 3.0}, "C": Near(10, factor=3)}}, 1),
    "cost": (PLANE, branin, {"cost": "seconds"}, 1),
}


def opened(case: str, **options) -> Optimizer:
    """A study of a case with seven trials told."""
    space, f, own, _ = CASES[case]
    optimizer = Optimizer(space, **({"minimize": "f"} | own | options), seed=1, n_start=5)
    for x in np.random.default_rng(3).random((7, len(optimizer.space))):
        params = optimizer.space.decode(optimizer.space.snap(x[None])[0])
        if not optimizer.space.constraints or optimizer.space.feasible(x[None])[0]:
            optimizer.add_trial(params, f(**params))
    return optimizer
