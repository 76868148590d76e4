"""Gaussian-process fits at equal accuracy: ours beside GPyTorch, BoTorch and scikit-learn.

    python benchmarks/gp_fit.py --peer-python PATH
    python benchmarks/gp_fit.py --peer-python PATH --resume     go on with the last run
    python benchmarks/gp_fit.py --table                         what the last run found
    python benchmarks/gp_fit.py --growth                        ours alone, n from 1000 to 50,000

Every fit is a process of its own, see gp_fit_worker.py, with the same number of threads. What it
found is then judged in another process by a dense float64 Cholesky that no library had a hand in,
see gp_data.py: a quick fit that found less, or predicts worse than its own hyperparameters allow,
shows. Seconds are also given as Cholesky factorisations of that size, timed between the fits.
Lines of JSON are appended to --out as they come; a run has an id that groups them.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from processes import HERE, RESULTS, add_common_options, machine, revision, today

LIBRARIES = ("ours", "ours-flat", "gpytorch", "gpytorch-tuned", "botorch", "sklearn")
FURTHER = ("ours-cholesky", "ours-bbmm", "ours-cholesky-flat", "ours-bbmm-flat")
DATA = ("noise-0.1", "noise-0.01", "dead-dims")
SIZES = (1000, 3000)
GROWTH_SIZES = (1000, 3000, 5000, 10_000, 20_000, 50_000)
GROWTH_FROM = 3000  # where the slope is measured; below, fixed costs are a part of the time

# The better one for GPyTorch: at n = 1000 float64 found the same likelihoods to 0.001 per point
# (defaults, noise 0.1: 0.02 less) and took as long or up to three times longer.
GPYTORCH_DTYPE = "float32"

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def is_ours(library: str) -> bool:
    return library.split("-")[0] == "ours"


def work(
    task: dict,
    python: str,
    options: argparse.Namespace,
    limit: float | None,
    worker: str = "gp_fit_worker.py",
) -> dict:
    """Run a worker on a task; what it answered, with an "error" if it did not finish.

    This process must stay small: on Linux a child's peak memory begins with that of its parent.
    """
    environment = os.environ | dict.fromkeys(_THREADS, str(options.threads))
    command = [python, str(HERE / worker), json.dumps(task)]
    log_file = options.log.open("a") if options.log else nullcontext(subprocess.DEVNULL)
    with log_file as log, tempfile.TemporaryFile("w+") as answers:
        child = subprocess.Popen(command, stdout=answers, stderr=log, env=environment)
        try:
            child.wait(limit)
            outcome = {} if child.returncode == 0 else {"error": f"ended with {child.returncode}"}
        except subprocess.TimeoutExpired:
            outcome = {"error": f"stopped after {limit:g} s"}
        finally:
            child.kill()
            child.wait()
        answers.seek(0)
        lines = [json.loads(line) for line in answers if line.endswith("\n")]
    found: dict = {}
    for line in lines:
        found |= line
    return outcome | found


def fit_and_judge(task: dict, options: argparse.Namespace, exact: bool) -> dict:
    """One fit in its process, and what the oracle says of it."""
    python = sys.executable if is_ours(task["library"]) else options.peer_python
    with tempfile.TemporaryDirectory() as folder:
        files = {"predictions": str(Path(folder) / "predictions.npz")}
        settings = {"dtype": options.gpytorch_dtype, "memory_gib": options.memory}
        found = work({"do": "fit", **task, **settings, **files}, python, options, options.limit)
        if "parameters" in found:
            question = {"do": "judge", **task, **files, "parameters": found["parameters"]}
            verdict = work({**question, "exact": exact}, sys.executable, options, None)
            if "error" in verdict:
                verdict["oracle_error"] = verdict.pop("error")
            found |= verdict
    return found


def time_cholesky(n: int, options: argparse.Namespace) -> dict:
    times = 5 if n <= 2000 else 2 if n <= 5000 else 1
    task = {"do": "cholesky", "n": n, "threads": options.threads, "times": times}
    return work(task, sys.executable, options, None)


class Results:
    """The lines of one run in a file of JSON lines.

    Args:
        path: The file.
        run: Which run: an id, or "last"; None begins a new one.
    """

    def __init__(self, path: Path, run: str | None) -> None:
        self.path = path
        every = []
        if path.exists():
            every = [json.loads(line) for line in path.read_text().splitlines()]
        if run == "last" and every:
            run = every[-1]["run"]
        elif run in (None, "last"):
            run = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.run = run
        self.rows = [row for row in every if row["run"] == run]

    def add(self, row: dict) -> None:
        row = {"run": self.run, "date": today(), **row}
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(shortened(row)) + "\n")

    def fits(self) -> dict[tuple, dict]:
        """The last row of each fit, by (data, n, seed, library)."""
        return {key(row): row for row in self.rows if row["kind"] == "fit"}

    def cholesky(self, n: int) -> list[float]:
        rows = [row for row in self.rows if row["kind"] == "cholesky" and row["n"] == n]
        return [seconds for row in rows for seconds in row.get("seconds", [])]


def key(row: dict) -> tuple:
    return row["data"], row["n"], row["seed"], row["library"]


def shortened(value):
    """Seven digits are enough of any number that is kept."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {k: shortened(v) for k, v in value.items()}
    return [shortened(v) for v in value] if isinstance(value, list) else value


def campaign(
    tasks: list[dict], results: Results, options: argparse.Namespace, growth: bool
) -> None:
    """Do the tasks that have no result yet, each fit between two timings of a Cholesky."""
    finished = {
        which
        for which, row in results.fits().items()
        if row.get("error", "stopped").startswith("stopped")
        and which[-1] not in options.again.split(",")
    }
    tasks = [task for task in tasks if key(task) not in finished]
    about: dict = {"machine": machine(), "revision": revision()}
    for count, task in enumerate(tasks, start=1):
        n = task["n"]
        if not growth:
            results.add({"kind": "cholesky", "n": n, **time_cholesky(n, options)})
        about["load"] = os.getloadavg()[0]  # what others did to the clock
        found = fit_and_judge(task, options, exact=n <= options.exact_up_to)
        results.add({"kind": "fit", **task, "limit": options.limit, **about, **found})
        if not growth and (count == len(tasks) or tasks[count]["n"] != n):
            results.add({"kind": "cholesky", "n": n, **time_cholesky(n, options)})
        outcome = found.get("error") or f"fit {found['fit_seconds']:.2f} s"
        if "log_likelihood" in found:
            outcome += f", log likelihood per point {found['log_likelihood']:.4f}"
        print(
            f"{count}/{len(tasks)}  {task['data']} n {n} {task['library']}: {outcome}", flush=True
        )


def cell(value: float | None, width: int, digits: int) -> str:
    """A number; where it is too long for its place, as a power of ten; a dash for none."""
    if value is None or math.isnan(value):
        return f"{'-':>{width}}"
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.0000"
    return f"{text if len(text) <= width else f'{value:.1e}':>{width}}"


def print_table(results: Results) -> None:
    fits = results.fits()
    print(f"\nRun {results.run}. Log likelihood per point, exact, and its gap to the best found;")
    print("NLPD and RMSE of the library's predictions, and exact ones at what it found.")
    for data, n, seed in dict.fromkeys(which[:3] for which in fits):
        rows = {which[3]: row for which, row in fits.items() if which[:3] == (data, n, seed)}
        unit = statistics.median(results.cholesky(n)) if results.cholesky(n) else None
        best = max(row.get("log_likelihood", -math.inf) for row in rows.values())
        first = next((row for name, row in rows.items() if is_ours(name)), {})
        ours = first.get("fit_seconds", math.nan)
        total = ours + first.get("predict_seconds", math.nan)
        print(
            f"\n{data}, n = {n}, seed {seed}, {next(iter(rows.values()))['threads']} threads",
            end="",
        )
        print(f"; a Cholesky takes {unit:.3f} s" if unit else "", end="")
        print(f" (median of {len(results.cholesky(n))})" if unit else "")
        head = "  library              log lik     gap     NLPD  (exact)     RMSE  (exact)"
        print(head + "   fit s  Choleskys  / ours  pred s  / ours  evals    MiB  (base)")
        for name, row in rows.items():
            seconds, predict = row.get("fit_seconds"), row.get("predict_seconds")
            both = None if seconds is None or predict is None else seconds + predict
            value = row.get("log_likelihood")
            cells = [
                cell(value, 8, 4),
                cell(None if value is None else value - best, 7, 4),
                cell(row.get("nlpd"), 8, 3),
                cell(row.get("exact_nlpd"), 8, 3),
                cell(row.get("rmse"), 8, 4),
                cell(row.get("exact_rmse"), 8, 4),
                cell(seconds, 7, 2),
                cell(seconds and unit and seconds / unit, 10, 0),
                cell(seconds and seconds / ours, 7, 2),
                cell(predict, 7, 2),
                cell(both and both / total, 7, 2),
                cell(row.get("evaluations"), 6, 0),
                cell(row.get("peak_mib"), 6, 0),
                cell(row.get("base_mib"), 7, 0),
            ]
            remark = row.get("error") or row.get("oracle_error") or ""
            print(f"  {name:19}", *cells, remark)
    warned = {k: row["warnings"] for k, row in fits.items() if row.get("warnings")}
    if warned:
        print("\nWarnings, and how often:")
    for (data, n, _, library), counts in warned.items():
        print(f"  {data} n {n} {library}:", *(f"{name} × {c}" for name, c in counts.items()))


def slope(points: list[tuple[float, float]]) -> float:
    """The least-squares exponent p of seconds ~ nᵖ; NaN from fewer than two points."""
    if len(points) < 2:
        return math.nan
    x, y = zip(*[(math.log(n), math.log(seconds)) for n, seconds in points], strict=True)
    return statistics.linear_regression(x, y).slope


def print_growth(results: Results, figure: Path) -> None:
    fits = results.fits()
    print(f"\nRun {results.run}: seconds and peak memory of ours as n grows")
    libraries = list(dict.fromkeys((which[0], which[3]) for which in fits))
    curves: dict[str, dict[str, list]] = {}
    for data, library in libraries:
        rows = [row for which, row in fits.items() if (which[0], which[3]) == (data, library)]
        rows.sort(key=lambda row: row["n"])
        print(f"\n{data}, {library}, {rows[0]['threads']} threads")
        print("       n    fit s  predict s  evals      MiB  (base)     NLPD     RMSE   log lik")
        for row in rows:
            cells = [
                cell(row.get("fit_seconds"), 8, 2),
                cell(row.get("predict_seconds"), 10, 2),
                cell(row.get("evaluations"), 6, 0),
                cell(row.get("peak_mib"), 8, 0),
                cell(row.get("base_mib"), 7, 0),
                cell(row.get("nlpd"), 8, 3),
                cell(row.get("rmse"), 8, 4),
                cell(row.get("log_likelihood"), 9, 4),
            ]
            print(f"  {row['n']:6d}", *cells, row.get("error", ""))
        fields = ("fit_seconds", "predict_seconds", "peak_mib")
        curves[f"{data}, {library}"] = here = {
            field: [(row["n"], row[field]) for row in rows if field in row] for field in fields
        }
        slopes = [
            f"{field.split('_')[0]} {slope([p for p in here[field] if p[0] >= GROWTH_FROM]):.2f}"
            for field in fields[:2]
        ]
        print(f"  exponent of n from {GROWTH_FROM} on: {', '.join(slopes)}")
    draw_growth(curves, figure)


def draw_growth(curves: dict[str, dict[str, list]], figure: Path) -> None:
    """Seconds on the left, memory on the right, both axes logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    drawing, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for i, (name, curve) in enumerate(curves.items()):
        colour = f"C{i}"
        for field, style in (("fit_seconds", "o-"), ("predict_seconds", "s--")):
            if not curve[field]:
                continue
            p = slope([point for point in curve[field] if point[0] >= GROWTH_FROM])
            power = "" if math.isnan(p) else f", n^{p:.2f}"
            label = f"{name}: {field.split('_')[0]}{power}"
            left.loglog(*zip(*curve[field], strict=True), style, color=colour, label=label)
        if curve["peak_mib"]:
            right.loglog(*zip(*curve["peak_mib"], strict=True), "o-", color=colour, label=name)
    left.set(xlabel="observations n", ylabel="seconds", title="Time")
    right.set(xlabel="observations n", ylabel="MiB", title="Peak memory of the process")
    for axes in (left, right):
        axes.grid(True, which="both", alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    drawing.savefig(figure, dpi=120)
    plt.close(drawing)
    print(f"\nwrote {figure}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(LIBRARIES + FURTHER)
    parser.add_argument("--libraries", nargs="+", help=f"of {known}", choices=LIBRARIES + FURTHER)
    parser.add_argument("--data", nargs="+", help=f"of {', '.join(DATA)}, friedman")
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of observations")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=2, help="of every process")
    parser.add_argument("--limit", type=float, default=600, help="seconds until a fit is stopped")
    parser.add_argument("--memory", type=float, help="address space of a fit, GiB; default: all")
    parser.add_argument("--gpytorch-dtype", choices=("float32", "float64"), default=GPYTORCH_DTYPE)
    parser.add_argument("--sklearn-up-to", type=int, default=3000, help="its largest n")
    parser.add_argument("--exact-up-to", type=int, default=10_000, help="largest n for the oracle")
    parser.add_argument("--growth", action="store_true", help="ours alone, as n grows")
    parser.add_argument("--resume", nargs="?", const="last", metavar="RUN", help="default: last")
    parser.add_argument("--again", default="", help="when resuming, redo these libraries: a,b")
    parser.add_argument("--table", nargs="?", const="last", metavar="RUN", help="print, do nothing")
    parser.add_argument("--out", type=Path, help="default: results/gp_fit.jsonl or gp_growth.jsonl")
    add_common_options(parser)
    options = parser.parse_args()
    growth = options.growth
    options.libraries = options.libraries or (("ours",) if growth else LIBRARIES)
    options.data = options.data or (DATA[:1] if growth else DATA)
    options.sizes = options.sizes or (GROWTH_SIZES if growth else SIZES)
    options.out = options.out or RESULTS / ("gp_growth.jsonl" if growth else "gp_fit.jsonl")
    return options


def main() -> None:
    options = parsed()
    results = Results(options.out, options.table or options.resume)
    if not options.table:
        tasks = [
            {"data": data, "n": n, "seed": seed, "library": library, "threads": options.threads}
            for n in options.sizes
            for data in options.data
            for seed in options.seeds
            for library in options.libraries
            if library != "sklearn" or n <= options.sklearn_up_to
        ]
        campaign(tasks, results, options, options.growth)
    if options.growth:
        print_growth(results, options.out.with_suffix(".png"))
    else:
        print_table(results)


if __name__ == "__main__":
    main()
