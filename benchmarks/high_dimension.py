"""Strategies where there are many parameters: best values, and the seconds a suggestion takes.

    python benchmarks/high_dimension.py                      # one after another, budget 200
    python benchmarks/high_dimension.py --batch 50 --budget 1000
    python benchmarks/high_dimension.py --problems ackley20 --strategies global,sparse --seeds 3

Pin it to a core or two: `taskset -c 3 env OMP_NUM_THREADS=1 …`.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
from problems import hartmann6

from bbmmopt import Optimizer, Real, Space

_SHIFT = np.random.default_rng(0).uniform(-0.4, 0.4, 100)  # of an optimum from the centre


def ackley(u: np.ndarray) -> float:
    """Ackley on [-5, 10]^d, moved so that its minimum 0 lies off the centre in every coordinate."""
    z = 15 * (u - 0.5 - _SHIFT[: len(u)])
    bowl = -20 * math.exp(-0.2 * math.sqrt(np.mean(z**2)))
    return bowl - math.exp(np.mean(np.cos(2 * math.pi * z))) + 20 + math.e


def levy(u: np.ndarray) -> float:
    """Levy on [-5, 10]^d; minimum 0 at (1, …, 1)."""
    w = 1 + (15 * u - 6) / 4
    middle = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return math.sin(math.pi * w[0]) ** 2 + float(np.sum(middle)) + last


def rosenbrock(u: np.ndarray) -> float:
    """Rosenbrock on [-5, 10]^d, in units of a thousand; minimum 0 at (1, …, 1)."""
    x = 15 * u - 5
    return 1e-3 * float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def embedded(u: np.ndarray) -> float:
    """Hartmann of the first six parameters; minimum -3.32237."""
    return hartmann6(**{f"x{i}": u[i] for i in range(6)})


PROBLEMS: dict[str, tuple[int, Callable[[np.ndarray], float]]] = {
    "ackley20": (20, ackley),
    "levy20": (20, levy),
    "rosenbrock20": (20, rosenbrock),
    "hartmann100": (100, embedded),
}


def run(name: str, strategy: str, seed: int, budget: int, batch: int) -> tuple[list[float], float]:
    """The best value after each quarter of the budget, and seconds per `ask` of a batch."""
    d, function = PROBLEMS[name]
    space = Space({f"x{i}": Real(0, 1) for i in range(d)})
    optimizer = Optimizer(
        space, minimize="f", noise="none", seed=seed, budget=budget, strategy=strategy
    )
    best, seconds = [], []
    while len(optimizer.trials) < budget:
        began = time.perf_counter()
        trials = optimizer.ask(batch)
        seconds.append(time.perf_counter() - began)
        for trial in trials:
            optimizer.tell(trial, function(np.array(list(trial.params.values()))))
        best += [optimizer.best.values["f"]] * batch
    quarters = [best[min(len(best), round(budget * q / 4)) - 1] for q in range(1, 5)]
    return quarters, statistics.fmean(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--strategies", default="global,trust_region,sparse")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    print("problem       strategy       seed   best after ¼, ½, ¾ and all trials        s/ask")
    for name in options.problems.split(","):
        for strategy in options.strategies.split(","):
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                best, seconds = run(name, strategy, seed, options.budget, options.batch)
                row = "".join(f"{value:10.4g}" for value in best)
                print(f"{name:13} {strategy:13} {seed:5d} {row}   {seconds:8.3f}", flush=True)


if __name__ == "__main__":
    main()
