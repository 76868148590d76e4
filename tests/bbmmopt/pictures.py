"""Optimizers to draw, and what is found in pictures of them."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import plot_acquisition, plot_history, plot_posterior
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space

SURFACES = [plot_acquisition, plot_posterior]
EVERY = [*SURFACES, plot_history]
XY = {"x": Real(0, 1), "y": Real(1, 1e4, log=True)}


def bowl(a: float, b: float) -> float:
    return (math.log10(a) - 0.5) ** 2 + (b - 3.2) ** 2 / 8


def smooth_run() -> Optimizer:
    """Two parameters, one of them log; complete, failed, running and waiting trials."""
    space = Space({"a": Real(1e-2, 1e3, log=True), "b": Real(0, 10)})
    optimizer = Optimizer(space, minimize="loss", noise="none", seed=0, n_start=5)
    for number in range(12):
        trial = optimizer.ask()
        if number in (3, 8):
            optimizer.tell(trial, failed="diverged")
        else:
            optimizer.tell(trial, bowl(**trial.params))
    optimizer.ask(2)
    optimizer.enqueue({"a": 50.0, "b": 9.0})
    return optimizer


def mixed_run() -> Optimizer:
    """A conditional space with every kind of parameter."""
    space = Space(
        {
            "C": Real(1e-3, 1e3, log=True),
            "kernel": Categorical(["rbf", "poly"]),
            "degree": Integer(2, 5, when={"kernel": "poly"}),
            "size": Ordinal([16, 32, 64]),
            "width": Integer(1, 300, log=True),
            "one": Real(7, 7),
        }
    )

    def score(C: float, kernel: str, size: int, width: int, one: float, degree: int = 0) -> float:
        return (
            (kernel == "rbf") - math.log10(C) ** 2 - degree / 10 - size / 64 - math.log(width) / 9
        )

    optimizer = Optimizer(space, maximize="score", seed=1, n_start=8)
    for _ in range(14):
        trial = optimizer.ask()
        optimizer.tell(trial, score(**trial.params))
    assert optimizer.best.params["kernel"] == "rbf"
    return optimizer


def run(space: dict, values: list[float], **options) -> Optimizer:
    """An Optimizer that was told these values."""
    optimizer = Optimizer(Space(space), **{"minimize": "loss", "seed": 0} | options)
    for value in values:
        optimizer.tell(optimizer.ask(), value)
    return optimizer


def marks(ax: Axes, label: str) -> np.ndarray:
    """Coordinates of the marks of this label, shape (n, 2)."""
    found = [c for c in ax.collections if c.get_label() == label]
    return np.concatenate([np.asarray(c.get_offsets()) for c in found] or [np.empty((0, 2))])


def texts(ax: Axes) -> str:
    """The title, and what is written in the picture."""
    return "\n".join(text.get_text() for text in (ax.title, *ax.texts))


def acquisition_at(optimizer: Optimizer, points: list[dict], name: str | None = None):
    """What it is worth at points in the user's units."""
    X = torch.from_numpy(optimizer.space.encode_many(points)).unsqueeze(-2)
    with torch.no_grad():
        return optimizer.acquisition(name)(X).numpy()


def complete(optimizer: Optimizer):
    """Its complete trials."""
    return [t for t in optimizer.trials if t.state == "complete"]
