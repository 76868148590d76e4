"""How long an `ask` takes, fit included, and how good its point is, beside BoTorch and Optuna.

    python benchmarks/ask_latency.py --peer-python PATH

Hartmann-6, d = 6, exact values, n observations at uniform points; one thread; every library in its
own process, all of them taking turns within each round, so that a noisy minute hits all alike.

- cold:    a new optimiser is given a new data set of n points; its first ask is timed
- running: an optimiser that has n points already goes on; each turn is timed, which is telling
           one new value and asking for the next point

Then, on the data sets of the cold asks, LogEI of each library's proposal under BoTorch's model and
under ours, and the two maximisers on one and the same function: see acquisition_quality.py.
"""

import argparse
import json
import statistics
from contextlib import ExitStack
from pathlib import Path

from processes import (
    LIBRARIES,
    RESULTS,
    Process,
    add_common_options,
    machine,
    revision,
    start,
    today,
)


def turns(workers: dict[str, Process], round_: int) -> list[str]:
    """The libraries in an order that rotates from round to round."""
    names = list(workers)
    return names[round_ % len(names) :] + names[: round_ % len(names)]


def time_cold(workers: dict[str, Process], n: int, rounds: int, judge: bool) -> tuple[list, list]:
    """Seconds of each library's first ask on `rounds` data sets, and what the points are worth."""
    timings, qualities = [], []
    for seed in range(rounds):
        points = {}
        for library in turns(workers, seed):
            answer = workers[library].ask("cold", n=n, seed=seed)
            points[library] = answer["point"]
            timings.append({"library": library, "seed": seed, "seconds": answer["seconds"]})
        if judge:
            qualities.append({"seed": seed, **judged(workers, points, seed)})
    return timings, qualities


def judged(workers: dict[str, Process], points: dict[str, list], seed: int) -> dict:
    """LogEI of every proposal under each library's model that can be asked, as nested dicts."""
    found: dict = {"under": {}}
    for judge in ("botorch", "ours"):
        if judge in workers:
            values = workers[judge].ask("log_ei", points=list(points.values()))["log_ei"]
            found["under"][judge] = dict(zip(points, values, strict=True))
    if {"botorch", "ours"} <= workers.keys():
        found["same_function"] = workers["botorch"].ask(
            "quality",
            belief=workers["ours"].ask("belief")["belief"],
            proposal=points["ours"],
            ours_says=found["under"]["ours"]["ours"],
            seed=seed,
        )
    return found


def time_running(workers: dict[str, Process], n: int, rounds: int) -> list:
    """Seconds of each library's turns, `rounds` of them, in a run that has n points at first."""
    for worker in workers.values():
        worker.ask("open", n=n, seed=0)
    return [
        {"library": library, "turn": turn, **workers[library].ask("step", n=n)}
        for turn in range(rounds)
        for library in turns(workers, turn)
    ]


def summary(timings: list) -> dict[str, dict[str, float]]:
    """Median, least and most milliseconds per library."""
    found = {}
    for library in LIBRARIES:
        ms = [1e3 * row["seconds"] for row in timings if row["library"] == library]
        if ms:
            found[library] = {
                "median": statistics.median(ms),
                "min": min(ms),
                "max": max(ms),
            }
    return found


def print_timings(title: str, by_n: dict[int, list]) -> None:
    print(f"\n{title}: milliseconds, median (least – most)")
    for n, timings in by_n.items():
        rows = summary(timings)
        cells = [
            f"{library} {row['median']:8.1f} ({row['min']:.1f} – {row['max']:.1f})"
            for library, row in rows.items()
        ]
        if "ours" in rows:
            cells += [
                f"{peer} / ours {rows[peer]['median'] / rows['ours']['median']:5.1f}"
                for peer in rows
                if peer != "ours"
            ]
        print(f"  n {n:4d}   " + "   ".join(cells))


def print_quality(by_n: dict[int, list]) -> None:
    mean = statistics.fmean
    first = next(iter(by_n.values()))[0]
    for judge in first["under"]:
        rows = {n: [q["under"][judge] for q in found] for n, found in by_n.items()}
        print(f"\nMean LogEI of the proposals, each judged by the model of: {judge}")
        for n, found in rows.items():
            cells = [f"{who} {mean(values[who] for values in found):8.3f}" for who in found[0]]
            print(f"  n {n:4d}   " + "   ".join(cells))
    if "same_function" not in first:
        return
    print("\nLogEI on one function, our belief rebuilt in BoTorch: our ask, optimize_acqf(10, 512)")
    for n, found in by_n.items():
        same = [q["same_function"] for q in found]
        wins = sum(q["ours"] >= q["botorch"] - 1e-4 for q in same)
        print(
            f"  n {n:4d}   ours {mean(q['ours'] for q in same):8.4f}"
            f"   botorch {mean(q['botorch'] for q in same):8.4f}"
            f"   ours at least that, less 1e-4, in {wins} of {len(same)}"
            f"   the two models differ by at most {max(q['disagreement'] for q in same):.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", default="20,50,100,200,500", help="numbers of observations")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each measurement")
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    parser.add_argument("--modes", default="cold,running")
    parser.add_argument("--no-quality", action="store_true", help="time only")
    parser.add_argument("--out", type=Path, default=RESULTS / "ask_latency.json")
    add_common_options(parser)
    options = parser.parse_args()
    sizes = [int(n) for n in options.n.split(",")]
    modes = options.modes.split(",")

    with ExitStack() as stack:
        workers = {
            library: stack.enter_context(start(library, options))
            for library in options.libraries.split(",")
        }
        versions = {
            library: worker.ask("versions")["versions"] for library, worker in workers.items()
        }
        for worker in workers.values():  # imports and first calls, not to be timed
            worker.ask("cold", n=20, seed=10_000)
        cold, quality, running = {}, {}, {}
        for n in sizes:
            if "cold" in modes:
                cold[n], quality[n] = time_cold(
                    workers, n, options.rounds, judge=not options.no_quality
                )
            if "running" in modes:
                running[n] = time_running(workers, n, options.rounds)
            print(f"n = {n} done", flush=True)

    for title, by_n in (("Cold ask", cold), ("Tell and ask in a running loop", running)):
        if by_n:
            print_timings(title, by_n)
    if cold and not options.no_quality:
        print_quality(quality)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "date": today(),
        "machine": machine(),
        "revision": revision(),
        "versions": versions,
        "problem": "Hartmann-6, exact, uniform points, one thread per process",
        "milliseconds": {
            mode: {n: summary(timings) for n, timings in by_n.items()}
            for mode, by_n in (("cold", cold), ("running", running))
        },
        "log_ei": quality,
        "timings": {"cold": cold, "running": running},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
