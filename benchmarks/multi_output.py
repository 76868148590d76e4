"""Models of several outputs at equal accuracy: ours beside GPyTorch and BoTorch.

    python benchmarks/multi_output.py --peer-python PATH
    python benchmarks/multi_output.py --peer-python PATH --resume    go on with the last run
    python benchmarks/multi_output.py --table                        what the last run found

Two tables of values, see multi_output_data.py: "grid", 500 × 8 complete, drawn from a Gaussian
process, with 100 rows more to predict; "curves", 300 learning curves of 50 steps of which 40 % are
missing and to be predicted. Every fit is a process of its own, see multi_output_worker.py, with the
same number of threads; what it found is judged in another process by a dense float64 Cholesky that
no library had a hand in. Lines of JSON are appended to --out as they come; a run has an id that
groups them.

The libraries, by data:

    ours            MultiOutputGP(Matern52(3), 8); for curves, outputs at the steps and Matern52(1)
    ours-flat       the same with priors "flat-1"
    gpytorch        MultitaskKernel of rank 1, 100 steps of Adam                         grid alone
    botorch         KroneckerMultiTaskGP, of full rank; LatentKroneckerGP, by iterative methods
    ours-full, botorch-rank1    further: the other rank                                  grid alone
    ours-rbf        further: RBF(1) over the steps                                     curves alone
    botorch-exact   further: exact variances, instead of those of 64 samples           curves alone
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path

from gp_fit import GPYTORCH_DTYPE, Results, cell, is_ours, key, work
from processes import RESULTS, add_common_options, machine, revision

LIBRARIES = ("ours", "ours-flat", "gpytorch", "botorch")
FURTHER = ("ours-full", "ours-rbf", "botorch-rank1", "botorch-exact")
ALONE = {
    "gpytorch": "grid",
    "ours-full": "grid",
    "botorch-rank1": "grid",
    "ours-rbf": "curves",
    "botorch-exact": "curves",
}
DATA = ("grid", "curves")
WORKER = "multi_output_worker.py"


def fit_and_judge(task: dict, options: argparse.Namespace) -> dict:
    """One fit in its process, and what the oracle says of it."""
    python = sys.executable if is_ours(task["library"]) else options.peer_python
    with tempfile.TemporaryDirectory() as folder:
        task = task | {"predictions": str(Path(folder) / "predictions.npz")}
        settings = {"dtype": options.gpytorch_dtype}
        found = work({"do": "fit", **task, **settings}, python, options, options.limit, WORKER)
        if "parameters" in found:
            settings = {"parameters": found["parameters"], "exact_up_to": options.exact_up_to}
            question = {"do": "judge", **task, **settings}
            verdict = work(question, sys.executable, options, None, WORKER)
            if "error" in verdict:
                verdict["oracle_error"] = verdict.pop("error")
            found |= verdict
    return found


def campaign(tasks: list[dict], results: Results, options: argparse.Namespace) -> None:
    """Do the tasks that have no result yet."""
    finished = {
        which
        for which, row in results.fits().items()
        if row.get("error", "stopped").startswith("stopped")
        and which[-1] not in options.again.split(",")
    }
    tasks = [task for task in tasks if key(task) not in finished]
    about: dict = {"machine": machine(), "revision": revision()}
    for count, task in enumerate(tasks, start=1):
        about["load"] = os.getloadavg()[0]  # what others did to the clock
        found = fit_and_judge(task, options)
        results.add({"kind": "fit", **task, "limit": options.limit, **about, **found})
        outcome = found.get("error") or f"fit {found['fit_seconds']:.2f} s"
        if "log_likelihood" in found:
            outcome += f", log likelihood per value {found['log_likelihood']:.4f}"
        size = f"{task['n']} × {task['outputs']}"
        print(
            f"{count}/{len(tasks)}  {task['data']} {size} seed {task['seed']} {task['library']}: "
            f"{outcome}",
            flush=True,
        )


def median(rows: list[dict], field: str) -> float | None:
    values = [row[field] for row in rows if row.get(field) is not None]
    return statistics.median(values) if values else None


def ratio(rows: list[dict], base: list[dict], fields: tuple[str, ...]) -> float | None:
    """Median over seeds of a sum of seconds, in those of another library at the same seed."""
    there = {row["seed"]: row for row in base}
    quotients = []
    for row in rows:
        other = there.get(row["seed"], {})
        if all(field in r for field in fields for r in (row, other)):
            seconds, unit = (sum(r[field] for field in fields) for r in (row, other))
            quotients.append(seconds / unit)
    return statistics.median(quotients) if quotients else None


def gap(rows: list[dict], best: dict[int, float]) -> float | None:
    """Median over seeds of the log likelihood per value, below the best one found."""
    gaps = [r["log_likelihood"] - best[r["seed"]] for r in rows if "log_likelihood" in r]
    return statistics.median(gaps) if gaps else None


def print_table(results: Results) -> None:
    fits = list(results.fits().values())
    print(
        f"\nRun {results.run}, medians over seeds. Log likelihood per value, exact, and its gap to"
    )
    print("the best found; NLPD and RMSE of the library's predictions, and exact ones at what it")
    print("found; seconds, and as multiples of those of the first of ours.")
    sizes = dict.fromkeys((row["data"], row["n"], row["outputs"]) for row in fits)
    for size in sizes:
        here = [row for row in fits if (row["data"], row["n"], row["outputs"]) == size]
        names = dict.fromkeys(row["library"] for row in here)
        rows = {name: [row for row in here if row["library"] == name] for name in names}
        first = next((name for name in names if is_ours(name)), None)
        base = rows[first] if first else []
        best: dict[int, float] = {}
        for row in here:
            value = row.get("log_likelihood", -math.inf)
            best[row["seed"]] = max(value, best.get(row["seed"], -math.inf))
        values = max((row.get("values", 0) for row in here), default=0)
        print(f"\n{size[0]}, {size[1]} × {size[2]}, {values} values, ", end="")
        print(f"{len(best)} seed(s), {here[0]['threads']} threads")
        head = "  library          log lik     gap     NLPD  (exact)     RMSE  (exact)"
        print(head + "    fit s  / ours   pred s  both / ours  evals    MiB  (base)  failed")
        for name, those in rows.items():
            both = ratio(those, base, ("fit_seconds", "predict_seconds"))
            errors = [row for row in those if "error" in row or "oracle_error" in row]
            cells = [
                cell(median(those, "log_likelihood"), 8, 4),
                cell(gap(those, best), 7, 4),
                cell(median(those, "nlpd"), 8, 3),
                cell(median(those, "exact_nlpd"), 8, 3),
                cell(median(those, "rmse"), 8, 4),
                cell(median(those, "exact_rmse"), 8, 4),
                cell(median(those, "fit_seconds"), 8, 2),
                cell(ratio(those, base, ("fit_seconds",)), 7, 2),
                cell(median(those, "predict_seconds"), 8, 2),
                cell(both, 12, 2),
                cell(median(those, "evaluations"), 6, 0),
                cell(median(those, "peak_mib"), 6, 0),
                cell(median(those, "base_mib"), 7, 0),
                f"{len(errors):>7}",
            ]
            print(f"  {name:15}", *cells)
            for row in errors:
                remark = row.get("error") or f"oracle: {row['oracle_error']}"
                print(f"    seed {row['seed']}: {remark}")
    warned = [row for row in fits if row.get("warnings")]
    if warned:
        print("\nWarnings, and how often:")
    for row in warned:
        counts = ", ".join(f"{name} × {count}" for name, count in row["warnings"].items())
        print(f"  {row['data']} {row['n']} × {row['outputs']} seed {row['seed']} ", end="")
        print(f"{row['library']}: {counts}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = LIBRARIES + FURTHER
    parser.add_argument("--libraries", nargs="+", help="see above", choices=known)
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    size = {"nargs": 2, "type": int, "metavar": ("N", "T")}
    parser.add_argument("--grid", **size, default=(500, 8), help="rows and outputs of the grid")
    parser.add_argument("--curves", **size, default=(300, 50), help="curves and steps")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=2, help="of every process")
    parser.add_argument("--limit", type=float, default=600, help="seconds until a fit is stopped")
    parser.add_argument("--gpytorch-dtype", choices=("float32", "float64"), default=GPYTORCH_DTYPE)
    parser.add_argument("--exact-up-to", type=int, default=9000, help="most values for the oracle")
    parser.add_argument("--resume", nargs="?", const="last", metavar="RUN", help="default: last")
    parser.add_argument("--again", default="", help="when resuming, redo these libraries: a,b")
    parser.add_argument("--table", nargs="?", const="last", metavar="RUN", help="print, do nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "multi_output.jsonl")
    add_common_options(parser)
    options = parser.parse_args()
    options.libraries = options.libraries or LIBRARIES
    return options


def main() -> None:
    options = parsed()
    results = Results(options.out, options.table or options.resume)
    if not options.table:
        sizes = {"grid": options.grid, "curves": options.curves}
        tasks = [
            {
                "data": data,
                "n": sizes[data][0],
                "outputs": sizes[data][1],
                "seed": seed,
                "library": library,
                "threads": options.threads,
            }
            for data in options.data
            for seed in options.seeds
            for library in options.libraries
            if ALONE.get(library, data) == data
        ]
        campaign(tasks, results, options)
    print_table(results)


if __name__ == "__main__":
    main()
