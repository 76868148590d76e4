"""The ask/tell loop: you run the experiment, the optimizer says where.

    python examples/quickstart.py

The experiment here is Branin's function, which has three equally good minima of 0.398.
"""

import argparse
from math import cos, pi

from bbmmopt import Optimizer, Real, Space


def branin(x: float, y: float) -> float:
    """Branin (1972), with the constants of Dixon & Szegő (1978)."""
    valley = y - 5.1 / (4 * pi**2) * x**2 + 5 / pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * pi)) * cos(x) + 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The ask/tell loop: you run the experiment, the optimizer says where."
    )
    parser.add_argument("--trials", type=int, default=30)
    trials = parser.parse_args().trials

    space = Space({"x": Real(-5, 10), "y": Real(0, 15)})
    optimizer = Optimizer(space, minimize="loss", seed=0)

    for _ in range(trials):
        trial = optimizer.ask()
        loss = branin(**trial.params)
        optimizer.tell(trial, loss)
        x, y = trial.params["x"], trial.params["y"]
        print(f"trial {trial.number:2d}   x {x:7.3f}   y {y:7.3f}   loss {loss:8.3f}")

    best = optimizer.best
    print(f"\nbest: trial {best.number}, {best.params}, loss {best.values['loss']:.4f}")


if __name__ == "__main__":
    main()
