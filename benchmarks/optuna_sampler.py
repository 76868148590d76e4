"""Samplers of Optuna side by side: ours, GPSampler and TPESampler, in Optuna's own loop.

    OMP_NUM_THREADS=1 python benchmarks/optuna_sampler.py --jobs 2

It runs in the environment of `bbmmopt` with its extra `optuna`. Every sampler is at its defaults
but for the seed, on the same problems, budgets and seeds; each task is a process on one thread.
"""

import argparse
import json
import multiprocessing
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from problems import PROBLEMS
from processes import RESULTS, machine, revision, today

SAMPLERS = ("ours", "gp", "tpe")


def sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    from bbmmopt.integrations.optuna import BBMMSampler

    return BBMMSampler(seed=seed)


def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def suggest(trial: optuna.Trial, space: list[dict]) -> dict:
    """The active parameters, asked for one after the other as an objective does."""
    params: dict = {}
    for p in space:
        if any(params.get(parent) != value for parent, value in p.get("when", {}).items()):
            continue
        if p["kind"] == "real":
            params[p["name"]] = trial.suggest_float(p["name"], p["low"], p["high"], log=p["log"])
        elif p["kind"] == "integer":
            params[p["name"]] = trial.suggest_int(p["name"], p["low"], p["high"])
        else:
            params[p["name"]] = trial.suggest_categorical(p["name"], p["choices"])
    return params


def one_run(task: tuple[str, str, int]) -> dict:
    """A run to the problem's budget: the best value after each trial, median seconds an ask."""
    name, which, seed = task
    quiet()
    problem = PROBLEMS[name]
    study = optuna.create_study(sampler=sampler(which, seed))
    best, seconds = [], []
    for _ in range(problem.budget):
        begin = time.perf_counter()
        trial = study.ask()
        params = suggest(trial, problem.space)
        seconds.append(time.perf_counter() - begin)
        study.tell(trial, problem.function(**params))
        best.append(study.best_value)
    return {
        "problem": name,
        "sampler": which,
        "seed": seed,
        "best": [float(f"{value:.8g}") for value in best],
        "seconds": round(statistics.median(seconds), 6),
    }


def asks(task: tuple[str, int, int]) -> dict:
    """Seconds of asks in a study of Hartmann-6 that has so many trials from elsewhere."""
    which, n, count = task
    quiet()
    function = PROBLEMS["hartmann6"].function
    space = {f"x{i}": FloatDistribution(0, 1) for i in range(6)}
    study = optuna.create_study(sampler=sampler(which, 0))
    for row in np.random.default_rng(0).random((n, 6)).tolist():
        params = dict(zip(space, row, strict=True))
        study.add_trial(
            optuna.create_trial(params=params, distributions=space, value=function(**params))
        )
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        trial = study.ask(space)
        seconds.append(time.perf_counter() - begin)
        study.tell(trial, function(**trial.params))
    return {"sampler": which, "trials": n, "seconds": [round(s, 6) for s in seconds]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=["branin", "hartmann6", "svm"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 500, 1000])
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        tasks = [
            (problem, which, seed)
            for problem in arguments.problems
            for seed in range(arguments.seeds)
            for which in SAMPLERS
        ]
        runs = list(pool.map(one_run, tasks))
        times = list(pool.map(asks, [(w, n, 9) for n in arguments.sizes for w in SAMPLERS]))

    for problem in arguments.problems:
        optimum = PROBLEMS[problem].optimum or 0.0
        print(f"{problem}: after {PROBLEMS[problem].budget} trials, above {optimum:.6g}")
        for which in SAMPLERS:
            last = [
                run["best"][-1] - optimum
                for run in runs
                if run["problem"] == problem and run["sampler"] == which
            ]
            print(f"  {which:5} median {statistics.median(last):.3g}, worst {max(last):.3g}")
    print("milliseconds of an ask, the first and the median of the others")
    for row in times:
        first, *others = (1e3 * s for s in row["seconds"])
        middle = statistics.median(others)
        print(f"  {row['sampler']:5} {row['trials']:5} trials: {first:7.0f} {middle:7.0f}")

    about = {
        "date": today(),
        "machine": machine(),
        "revision": revision(),
        "versions": {package: version(package) for package in ("torch", "optuna")},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "optuna_sampler.json"
    path.write_text(json.dumps({**about, "runs": runs, "asks": times}) + "\n")
    print(f"wrote results/{path.name}")


if __name__ == "__main__":
    main()
