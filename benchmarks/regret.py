"""How low each library gets on a small budget, beside BoTorch and Optuna.

    python benchmarks/regret.py --peer-python PATH --jobs 2
    python benchmarks/regret.py --peer-python PATH --jobs 2 --problems svm

Every run (problem, library, seed) is a process of its own on one thread. Finished runs are kept as
lines of JSON in --out and not done again, so that an interrupted campaign goes on where it stopped;
`--again ours` forgets the runs of one library, `--table-only` prints what there is.
"""

import argparse
import json
import statistics
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from problems import PROBLEMS
from processes import (
    LIBRARIES,
    RESULTS,
    WorkerFailed,
    add_common_options,
    machine,
    revision,
    start,
    today,
)

SYNTHETIC = ("branin", "hartmann6", "ackley5", "rosenbrock4")


def key(row: dict) -> tuple:
    return row["problem"], row["library"], row["seed"], row["budget"]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def one_run(task: dict, options: argparse.Namespace) -> dict:
    """A run in its own process; one that failed is a row with an "error" and no values."""
    about = {"date": today(), "machine": machine(), "revision": revision()}
    try:
        with start(task["library"], options) as worker:
            answer = worker.ask("run", problem=task["problem"], seed=task["seed"])
    except WorkerFailed as error:
        return {**task, **about, "error": str(error)}
    return {**task, **about, **answer}


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def print_table(rows: list[dict]) -> None:
    for name, problem in PROBLEMS.items():
        here = [row for row in rows if row["problem"] == name and row["budget"] == problem.budget]
        if not here:
            continue
        known = "" if problem.optimum is None else f", optimum {problem.optimum:.6g}"
        print(f"\n{name}: best of {problem.budget} trials{known}")
        print(
            "  library   runs  failed      median   quartiles                median regret  ms/ask"
        )
        for library in LIBRARIES:
            runs = [row for row in here if row["library"] == library]
            done = [row for row in runs if "error" not in row]
            if not runs:
                continue
            if not done:
                print(f"  {library:9} {0:4d}  {len(runs):6d}")
                continue
            low, middle, high = quartiles([min(row["values"]) for row in done])
            regret = "-" if problem.optimum is None else f"{middle - problem.optimum:.3g}"
            ms = statistics.median(1e3 * statistics.fmean(row["ask_seconds"]) for row in done)
            spread = f"{low:.5g} – {high:.5g}"
            print(
                f"  {library:9} {len(done):4d}  {len(runs) - len(done):6d}  {middle:10.5g}"
                f"   {spread:24} {regret:>13}  {ms:6.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=",".join(SYNTHETIC), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    parser.add_argument("--seeds", type=int, default=10, help="runs per problem and library")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--again", default="", help="forget the runs of these libraries first")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "regret.jsonl")
    add_common_options(parser)
    options = parser.parse_args()
    problems, libraries = options.problems.split(","), options.libraries.split(",")

    rows = read(options.out)
    if not options.table_only:
        forget = {(p, library) for p in problems for library in options.again.split(",")}
        rows = [
            row
            for row in rows
            if "error" not in row and (row["problem"], row["library"]) not in forget
        ]
        write(options.out, rows)
        finished = {key(row) for row in rows}
        tasks = [
            {"problem": name, "library": library, "seed": seed, "budget": PROBLEMS[name].budget}
            for name in problems
            for seed in range(options.seeds)
            for library in libraries
        ]
        tasks = [task for task in tasks if key(task) not in finished]
        with ThreadPoolExecutor(options.jobs) as pool:
            futures = [pool.submit(one_run, task, options) for task in tasks]
            for count, future in enumerate(as_completed(futures), start=1):
                row = future.result()
                rows.append(row)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                outcome = row.get("error") or f"best {min(row['values']):.6g}"
                print(f"{count}/{len(tasks)}  {row['problem']} {row['library']}", end=" ")
                print(f"seed {row['seed']}: {outcome}", flush=True)
        write(options.out, sorted(rows, key=key))
    print_table(rows)


if __name__ == "__main__":
    main()
