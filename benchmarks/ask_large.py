"""How long an `ask` takes with ten thousand observations and more, and how much memory.

    python benchmarks/ask_large.py --peer-python PATH --sizes 10000 50000

Hartmann-6 with noise of standard deviation 0.01, d = 6: four fifths of the observations at uniform
points, one fifth near the best, as a run would leave them. Every library in its own process on
`--threads` threads, one after another. Reported are the first ask, which fits, and the asks after
it, each with one more value told: those are between two fits. A library is stopped when it has
taken longer than `--limit` seconds in all.

Results: one line per library and size in results/ask_large.jsonl.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from processes import (
    LIBRARIES,
    RESULTS,
    add_common_options,
    machine,
    revision,
    run_to_limit,
    today,
)

_NOISE = 0.01


def observations(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 6) in the order they were tried, and their values (n,)."""
    from problems import PROBLEMS, vector

    rng = np.random.default_rng(seed)
    best = np.array([0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573])
    X = rng.random((n, 6))
    near = n - n // 5
    X[near:] = np.clip(best + 0.05 * rng.standard_normal((n - near, 6)), 0, 1)
    function = PROBLEMS["hartmann6"].function
    assert len(vector(named(X[0]))) == 6
    y = np.array([function(**named(x)) for x in X])
    return X, y + _NOISE * rng.standard_normal(n)


def named(x: np.ndarray) -> dict[str, float]:
    return {f"x{i}": float(value) for i, value in enumerate(x)}


def child(library: str, n: int, asks: int, threads: int, seed: int) -> None:
    """Run one library, and print a line for each step: what is stopped has then told something."""
    import torch
    from libraries import LIBRARIES as CLASSES
    from libraries import prepare
    from problems import PROBLEMS

    prepare()
    torch.set_num_threads(threads)
    X, y = observations(n, seed)
    rng = np.random.default_rng(seed + 1)
    problem = PROBLEMS["hartmann6"]
    run = CLASSES[library](problem.space, seed, exact=False)
    tell({"versions": CLASSES[library].versions(), "base_mb": peak_mb()})
    began = time.perf_counter()
    for x, value in zip(X, y, strict=True):
        run.add(named(x), float(value))
    tell({"told": time.perf_counter() - began})
    for _ in range(asks + 1):
        began = time.perf_counter()
        params = run.ask()
        seconds = time.perf_counter() - began
        value = problem.function(**params)
        run.tell(value + _NOISE * float(rng.standard_normal()))
        tell({"ask": seconds, "value": value, "peak_mb": peak_mb()})


def tell(record: dict) -> None:
    print(json.dumps(record), flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(library: str, n: int, options: argparse.Namespace) -> dict:
    """What one library took, or how far it came."""
    python = sys.executable if library == "ours" else options.peer_python
    command = [python, str(Path(__file__).resolve()), "--child", library, str(n)]
    command += ["--asks", str(options.asks), "--threads", str(options.threads)]
    command += ["--seed", str(options.seed)]
    lines, outcome = run_to_limit(command, options.threads, options.limit)
    asks = [line for line in lines if "ask" in line]
    record = {"library": library, "n": n, "outcome": outcome, "seed": options.seed}
    record |= {key: value for line in lines if "ask" not in line for key, value in line.items()}
    if asks:
        record |= {"first": asks[0]["ask"], "peak_mb": asks[-1]["peak_mb"]}
    if asks[1:]:
        later = [line["ask"] for line in asks[1:]]
        record |= {"later": later, "median": statistics.median(later)}
        record |= {"values": [line["value"] for line in asks]}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--asks", type=int, default=9, help="asks after the first")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each library")
    parser.add_argument("--out", type=Path, default=RESULTS / "ask_large.jsonl")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        library, n = options.child
        child(library, int(n), options.asks, options.threads, options.seed)
        return
    about = {"date": today(), "machine": machine(), "revision": revision()}
    about |= {"threads": options.threads}
    print(f"{'library':10} {'n':>7} {'first ask':>10} {'later asks':>11} {'peak MB':>8}  outcome")
    for n in options.sizes:
        for library in options.libraries:
            record = measure(library, n, options) | about
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            cells = [
                f"{record[key]:.2f} s" if key in record else "-" for key in ("first", "median")
            ]
            memory = f"{record['peak_mb']:.0f}" if "peak_mb" in record else "-"
            row = f"{library:10} {n:7} {cells[0]:>10} {cells[1]:>11} {memory:>8}"
            print(f"{row}  {record['outcome']}", flush=True)


if __name__ == "__main__":
    main()
