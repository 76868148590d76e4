"""For the test files of studies that are extended: one that was told, and the same extended."""

import numpy as np

from bbmmopt import Optimizer, Real, Study
from bbmmopt.storage import MemoryStorage


def told(space, points, f, *, storage=None, minimize="f", **options) -> Study:
    """A study that was told f at these points."""
    study = Study(space, minimize=minimize, storage=storage or MemoryStorage(), seed=3, **options)
    for point in points:
        study.add_trial(point, f(**point))
    return study


def extended(study: Study, space, minimize="f", **options) -> Optimizer:
    """The same study with another space."""
    return Optimizer(space, minimize=minimize, storage=study.storage, mode="extend", **options)


def spread(n: int, **bounds: tuple[float, float]) -> list[dict[str, float]]:
    """Points all over a box."""
    draws = np.random.default_rng(0).random((n, len(bounds)))
    return [
        {
            name: float(low + u * (high - low))
            for u, (name, (low, high)) in zip(row, bounds.items(), strict=True)
        }
        for row in draws
    ]


def parabola(x: float, y: float = 0.0) -> float:
    return (x - 3.0) ** 2 + y**2


PLANE = {"x": Real(0, 1), "y": Real(-1, 1)}
POINTS = spread(12, x=(0.0, 1.0), y=(-1.0, 1.0))


def generation_of(study: Study) -> int:
    """How often it was extended."""
    record = study.storage.study(study.study)
    assert record is not None
    return record.generation
