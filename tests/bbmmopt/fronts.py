"""Studies of two objectives that are at odds, to draw their fronts."""

import numpy as np

from bbmmopt import Real, Space, Study

SQUARE = {"x": Real(0, 1), "y": Real(0, 1)}


def trade(x: float, y: float) -> dict[str, float]:
    return {"error": (x - 0.9) ** 2 + 0.3 * (y - 0.5) ** 2, "yield": -10 * (x**2 + 0.5 * y)}


def told(points: list[dict], values: list[dict], **options) -> Study:
    """A study that was told these."""
    study = Study(Space(SQUARE), **{"minimize": "error", "maximize": "yield", "seed": 0} | options)
    for params, value in zip(points, values, strict=True):
        study.add_trial(params, value)
    return study


def some(n: int = 25, **options) -> Study:
    rng = np.random.default_rng(3)
    points = [{"x": float(a), "y": float(b)} for a, b in rng.random((n, 2))]
    return told(points, [trade(**point) for point in points], **options)
