"""How much quicker several workers are than one, and how idle they are.

    OMP_NUM_THREADS=1 python benchmarks/workers.py

`minimize` of an objective that takes 200 ms, three parameters, 60 trials, serially and then over
four processes, in turns: the rates, their ratio, and the share of the workers' time that was not
spent in the objective. The rates count everything, processes that start and end too.
"""

import argparse
import json
import statistics
import time

from processes import RESULTS, machine, today

from bbmmopt import Real, RunResult, Space, minimize

SPACE = Space({name: Real(-1.0, 1.0) for name in ("x", "y", "z")})


def slow_bowl(x: float, y: float, z: float, seconds: float = 0.2) -> float:
    """A function with one minimum, which takes its time."""
    time.sleep(seconds)
    return (x - 0.3) ** 2 + 2 * (y - 0.5) ** 2 + (z - 0.1) ** 2 + 0.3 * abs(x * y)


def run(workers: int, trials: int, seed: int) -> RunResult:
    """One run, in this many processes."""
    return minimize(
        slow_bowl,
        SPACE,
        n_trials=trials,
        workers=workers,
        executor="processes",
        seed=seed,
        progress=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run(1, 8, 0)  # loads what is loaded once
    rounds = []
    for seed in range(options.rounds):
        row: dict[str, float] = {"seed": seed}
        for name, workers in (("serial", 1), ("parallel", options.workers)):
            result = run(workers, options.trials, seed)
            row[f"{name}_rate"] = options.trials / result.seconds
            row[f"{name}_idle"] = result.idle
        row["speedup"] = row["parallel_rate"] / row["serial_rate"]
        rounds.append(row)
        print(
            f"round {seed}: serial {row['serial_rate']:.2f} trials/s (idle "
            f"{row['serial_idle']:.1%}), {options.workers} processes {row['parallel_rate']:.2f} "
            f"trials/s (idle {row['parallel_idle']:.1%}): {row['speedup']:.2f} times as fast",
            flush=True,
        )
    speedup = statistics.median(row["speedup"] for row in rounds)
    idle = statistics.median(row["parallel_idle"] for row in rounds)
    print(f"median: {speedup:.2f} times as fast, workers idle {idle:.1%} of the time")
    RESULTS.mkdir(exist_ok=True)
    record = vars(options) | {"date": today(), "machine": machine(), "rounds": rounds}
    (RESULTS / "workers.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
