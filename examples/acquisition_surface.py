"""Watch the model, and what it makes of each next point, change as trials come in.

    python examples/acquisition_surface.py --out surface

Three pictures: a run over one parameter, what the model believes above what each point promises;
and a run over two, the surface of what each point promises, then what the model has made of it.
"""

import argparse
from collections.abc import Callable
from math import cos, pi, sin
from pathlib import Path

import matplotlib.pyplot as plt

from bbmmopt import Optimizer, Real, Space
from bbmmopt.plots import plot_acquisition, plot_posterior


def hills(x: float) -> float:
    """Several hills; the highest, 1.79, is at x = 7.99."""
    return sin(x) + sin(10 * x / 3) * 0.4 + 0.05 * x


def branin(x: float, y: float) -> float:
    """Branin (1972), with the constants of Dixon & Szegő (1978): three minima of 0.398."""
    valley = y - 5.1 / (4 * pi**2) * x**2 + 5 / pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * pi)) * cos(x) + 10


def stages(trials: int, count: int = 4) -> list[int]:
    """After how many trials to look: a few times, evenly, and at the end."""
    return [max(2, round(trials * (i + 1) / count)) for i in range(count)]


def advance(optimizer: Optimizer, objective: Callable[..., float], until: int) -> None:
    """Ask and tell until there are so many trials."""
    while len(optimizer.trials) < until:
        trial = optimizer.ask()
        optimizer.tell(trial, objective(**trial.params))


def one_parameter(trials: int) -> plt.Figure:
    optimizer = Optimizer(
        Space({"x": Real(0, 10)}), maximize="height", noise="none", seed=0, n_start=3
    )
    figure, axes = plt.subplots(2, 4, figsize=(18, 8), layout="constrained")
    for i, until in enumerate(stages(trials)):
        advance(optimizer, hills, until)
        # Each plot function draws into the axes it is given. One legend per row is enough.
        plot_posterior(optimizer, ax=axes[0, i], legend=i == 0)
        plot_acquisition(optimizer, ax=axes[1, i], legend=i == 0)
    return figure


def two_parameters(trials: int) -> tuple[plt.Figure, plt.Figure]:
    space = Space({"x": Real(-5, 10), "y": Real(0, 15)})
    optimizer = Optimizer(space, minimize="loss", noise="none", seed=0)
    surfaces, axes = plt.subplots(2, 2, figsize=(13, 10), layout="constrained")
    for ax, until in zip(axes.flat, stages(trials), strict=True):
        advance(optimizer, branin, until)
        plot_acquisition(optimizer, "x", "y", ax=ax)

    models, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    plot_posterior(optimizer, "x", "y", ax=left)
    plot_posterior(optimizer, "x", "y", quantity="std", ax=right)
    return surfaces, models


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Watch the model and the acquisition surface change as trials come in."
    )
    parser.add_argument("--trials", type=int, default=24, help="trials over two parameters")
    parser.add_argument("--out", type=Path, default=Path("surface"), help="folder for pictures")
    arguments = parser.parse_args()
    if arguments.trials < 4:
        parser.error("--trials must be at least 4: there are four stages to look at")

    arguments.out.mkdir(parents=True, exist_ok=True)
    curve = one_parameter(max(4, arguments.trials // 2))
    surfaces, models = two_parameters(arguments.trials)
    for name, figure in [("one", curve), ("two", surfaces), ("model", models)]:
        figure.savefig(arguments.out / f"{name}.png", dpi=110)
        plt.close(figure)
        print(f"wrote {arguments.out / name}.png")


if __name__ == "__main__":
    main()
