"""A laboratory: batches of eight, a mixture, an error that is known, a limit on what comes out.

    python examples/lab_batches.py

Three solvents that sum to one, a catalyst and an oven that all vials of a day share. The robot
takes eight recipes a day and brings back mean and standard error of three measurements, and the
viscosity, which must stay below 12. The laboratory here is a formula with noise, so that in the end
the recommendation can be compared with the truth. Writes lab_batches.png; everything told is in
lab_batches.db: run it again and it goes on with more days.
"""

import argparse
import math
import random

import matplotlib.pyplot as plt

from bbmmopt import Optimizer, Real, Simplex, Space
from bbmmopt.plots import plot_calibration, plot_history, plot_posterior

SPACE = Space(
    {
        "water": Real(0, 1),
        "ethanol": Real(0, 1),
        "glycerol": Real(0, 0.6),
        "catalyst": Real(0.01, 10, log=True),  # per cent
        "oven": Real(20, 90),  # °C
    },
    constraints=[Simplex(["water", "ethanol", "glycerol"])],
)
BATCH, REPEATS, NOISE = 8, 3, 1.5


def truth(water: float, ethanol: float, glycerol: float, catalyst: float, oven: float) -> float:
    """The yield in per cent that nobody can measure without error."""
    blend = math.exp(-8 * ((ethanol - 0.35) ** 2 + (glycerol - 0.3) ** 2))
    heat = math.exp(-(((oven - 62) / 18) ** 2))
    amount = math.exp(-0.6 * (math.log10(catalyst) + 0.3) ** 2)
    return 90 * blend * heat * amount


def viscosity(glycerol: float, oven: float) -> float:
    """In mPa s; known without error once a vial is made."""
    return 2 + 44 * glycerol * (1 - oven / 150)


def measure(params: dict[str, float], number: int) -> tuple[float, float]:
    """Mean and standard error of three repeats of a trial's recipe."""
    rng = random.Random(number)
    repeats = [truth(**params) + rng.gauss(0, NOISE) for _ in range(REPEATS)]
    mean = sum(repeats) / REPEATS
    spread = math.sqrt(sum((r - mean) ** 2 for r in repeats) / (REPEATS - 1))
    return mean, max(spread, 0.2) / math.sqrt(REPEATS)  # three may agree by chance


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a laboratory for some days.")
    parser.add_argument("--days", type=int, default=6)
    arguments = parser.parse_args()

    optimizer = Optimizer(
        SPACE,
        maximize="yield",
        constraints="viscosity <= 12",
        noise="noisy",  # a recipe may be repeated where that teaches more
        storage="lab_batches.db",
        seed=0,
    )
    for _ in range(arguments.days):
        # The first recipe of a day says how hot the oven is, the others are made for it.
        first = optimizer.ask(worker="robot")
        oven = first.params["oven"]
        for trial in [first, *optimizer.ask(BATCH - 1, fixed={"oven": oven})]:
            glycerol = trial.params["glycerol"]
            optimizer.tell(
                trial,
                measure(trial.params, trial.number),
                constraints={"viscosity": viscosity(glycerol, oven)},
            )
        best = optimizer.best
        count = len(optimizer.trials)
        print(f"{count:3} vials, oven {oven:4.1f} °C, best measured {best.values['yield']:.1f} %")

    found = optimizer.recommend()
    print("recommended: " + ", ".join(f"{name} {v:.3g}" for name, v in found.params.items()))
    print(f"  expected {found.value:.1f} ± {found.uncertainty:.1f} %", end=", ")
    print(f"in truth {truth(**found.params):.1f} %", end=", ")
    print(f"viscosity {viscosity(found.params['glycerol'], found.params['oven']):.1f}")

    figure, axes = plt.subplots(2, 2, figsize=(13, 9.5), layout="constrained")
    plot_history(optimizer, ax=axes[0, 0])
    plot_posterior(optimizer, "ethanol", "oven", ax=axes[0, 1])
    plot_posterior(optimizer, "glycerol", name="viscosity", ax=axes[1, 0])
    plot_calibration(optimizer, ax=axes[1, 1])
    figure.savefig("lab_batches.png", dpi=120)
    print("wrote lab_batches.png")
    optimizer.close()


if __name__ == "__main__":
    main()
