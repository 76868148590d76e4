"""Where there are many parameters: how low, and how long, beside BoTorch, its trust region, Optuna.

    python benchmarks/high_dimension.py --peer-python PATH --cores 0,1
    python benchmarks/high_dimension.py --peer-python PATH --batch 50 --budget 1000 \\
        --problems ackley20,levy20 --libraries trust_region,botorch-turbo

Of ours each strategy counts as a library, "auto" too. Every run is a process of its own on one
thread, pinned to one of --cores, and stopped after --limit seconds; what it had found by then is
kept. Runs are lines of JSON in --out and are not done again: `--again sparse,auto` forgets those of
two libraries, `--table-only` prints what there is. Seconds per batch are means of the second half
of a run.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue

import numpy as np
from problems import hartmann6
from processes import RESULTS, add_common_options, machine, revision, run_to_limit, today

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
USUAL = ("ackley20", "levy20", "hartmann100")
KEY = ("problem", "library", "seed", "budget", "batch")


def child(task: dict) -> None:
    """One run, and a line for each batch: what is stopped has then told something."""
    from batches import LIBRARIES
    from libraries import prepare

    prepare()
    if task["core"] is not None:
        os.sched_setaffinity(0, {task["core"]})
    d, function = PROBLEMS[task["problem"]]
    run = LIBRARIES[task["library"]](d, task["batch"], task["budget"], task["seed"])
    print(json.dumps({"versions": run.versions()}), flush=True)
    for _ in range(task["budget"] // task["batch"]):
        began = time.perf_counter()
        points = run.ask()
        seconds = time.perf_counter() - began
        values = np.array([function(u) for u in points])
        began = time.perf_counter()
        run.tell(values)
        seconds += time.perf_counter() - began
        rounded = [float(f"{value:.6g}") for value in values]  # kept in the repository
        print(json.dumps({"values": rounded, "seconds": round(seconds, 4)}), flush=True)


def measure(task: dict, options: argparse.Namespace) -> dict:
    """What one run found, or how far it came."""
    from batches import STRATEGIES

    python = sys.executable if task["library"] in STRATEGIES else options.peer_python
    command = [python, str(Path(__file__).resolve()), "--child", json.dumps(task)]
    lines, outcome = run_to_limit(command, 1, options.limit)
    batches = [line for line in lines if "values" in line]
    about = {"date": today(), "machine": machine(), "revision": revision()}
    for line in lines:
        about |= {"versions": line["versions"]} if "versions" in line else {}
    return {
        **{name: task[name] for name in KEY},
        "outcome": outcome,
        "values": [value for batch in batches for value in batch["values"]],
        "seconds": [batch["seconds"] for batch in batches],  # of each batch: asked and told
        **about,
    }


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key(row: dict) -> tuple:
    return tuple(row[name] for name in KEY)


def print_row(row: dict) -> None:
    """The best value after each quarter of the budget that was reached, and seconds per batch."""
    values, wanted = row["values"], [round(row["budget"] * q / 4) for q in range(1, 5)]
    best = [f"{min(values[:n]):9.4g}" if n <= len(values) else f"{'-':>9}" for n in wanted]
    model = row["seconds"][-(len(row["seconds"]) // 2) :]
    pace = f"{statistics.fmean(model):8.3f}" if model else f"{'-':>8}"
    done = "" if row["outcome"] == "done" else f"  after {len(values)}: {row['outcome']}"
    about = f"{row['problem']:12} {row['library']:14} {row['batch']:5d} {row['seed']:4d}"
    print(f"{about} {''.join(best)} {pace}{done}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=",".join(USUAL), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument(
        "--libraries",
        default="global,trust_region,sparse,botorch,botorch-turbo,optuna",
        help="strategies of ours, auto too, and peers (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1500.0, help="seconds for each run")
    parser.add_argument("--cores", help="such as 0,1: one run at a time on each")
    parser.add_argument("--again", default="", help="forget the runs of these libraries first")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "high_dimension.jsonl")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    add_common_options(parser)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    if options.budget % options.batch:
        parser.error(f"--budget {options.budget} must be a multiple of --batch {options.batch}")
    print("problem      library        batch seed   best after ¼, ½, ¾ and all trials  s/batch")
    rows = read(options.out)
    if options.table_only:
        for row in sorted(rows, key=key):
            print_row(row)
        return
    forget = options.again.split(",")
    rows = [row for row in rows if row["library"] not in forget]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finished = {key(row) for row in rows}
    cores: Queue[int | None] = Queue()
    for core in options.cores.split(",") if options.cores else [None]:
        cores.put(None if core is None else int(core))
    tasks = [
        {"problem": name, "library": library, "seed": seed}
        | {"budget": options.budget, "batch": options.batch}
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for name in options.problems.split(",")
        for library in options.libraries.split(",")
    ]

    def on_a_core(task: dict) -> dict:
        core = cores.get()
        try:
            return measure(task | {"core": core}, options)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        futures = [pool.submit(on_a_core, task) for task in tasks if key(task) not in finished]
        for future in as_completed(futures):
            row = future.result()
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print_row(row)


if __name__ == "__main__":
    main()
