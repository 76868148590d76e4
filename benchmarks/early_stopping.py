"""What early stopping saves, and what a stopped trial should teach the model.

Learning curves of 50 epochs: a final loss, plus what is still to be learnt, plus noise, at a speed
that depends on the parameters. Every run may spend 2000 epochs, 40 whole trials. Printed is the
regret of the complete trial with the best told loss, without noise, after 500, 1000, 2000 epochs.

    python benchmarks/early_stopping.py --jobs 2
    python benchmarks/early_stopping.py --jobs 2 --peer-python .venv-peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from problems import branin, hartmann6
from processes import RESULTS, add_common_options, machine, revision, run_to_limit, today
from scipy.optimize import minimize

EPOCHS = 50
SPENT = 2000  # epochs of a run
MARKS = (500, 1000, 2000)
LIMIT = 1800.0  # seconds of a run

# What stopped trials teach: nothing, that nobody goes there again, their last report, that report
# and what others gained from there on, or, as `bbmmopt` has it, the same with a standard error.
LESSONS = ("ignored", "kept away from", "last report", "forecast", "forecast ± error")
# "bests" is the median rule, but for comparing with the best of the others, not their averages.
RULES = ("median", "bests", "halving")


@dataclass(frozen=True)
class Problem:
    """Loss at an epoch = final(x) + gap exp(-rate(x) epoch) + noise.

    Attributes:
        d: How many parameters, each in [0, 1].
        final: What it tends to, of x (d,).
        start: A point near the best one.
        rate: How quickly, per epoch.
        gap: How much there is to be learnt.
        noise: Standard deviation.
    """

    d: int
    final: Callable[[np.ndarray], float]
    start: tuple[float, ...]
    rate: Callable[[np.ndarray], float]
    gap: float
    noise: float

    def loss(self, x: np.ndarray, epoch: int) -> float:
        """Without noise."""
        return self.final(x) + self.gap * math.exp(-self.rate(x) * epoch)

    @cache  # noqa: B019
    def optimum(self) -> float:
        """The least loss after all epochs."""
        start = np.array(self.start)
        bounds = [(0.0, 1.0)] * self.d
        found = minimize(self.loss, start, (EPOCHS,), "Nelder-Mead", bounds=bounds, tol=1e-10)
        return float(found.fun)


def _of_branin(x: np.ndarray) -> float:
    # In the third parameter, quick learners end higher: curves cross.
    value = branin(x0=15 * x[0] - 5, x1=15 * x[1])
    return math.log1p(value) / 5 + 0.3 * x[2] ** 2


def _of_hartmann(x: np.ndarray) -> float:
    return 1 + hartmann6(**{f"x{i}": float(v) for i, v in enumerate(x)}) / 3.32237


PROBLEMS = {
    "branin3": Problem(3, _of_branin, (0.9617, 0.165, 0.4), lambda x: 0.02 * 25 ** x[2], 1.5, 0.02),
    "hartmann6": Problem(
        6,
        _of_hartmann,
        (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573),
        lambda x: 0.06 * 5 ** x[0],
        1.0,
        0.01,
    ),
}


class Ours:
    """`bbmmopt` with one of its rules and one of the lessons; by itself with rule "none"."""

    def __init__(self, problem: Problem, rule: str, lesson: str, seed: int) -> None:
        import teaching

        from bbmmopt import Optimizer, Real, Space

        teaching.teach(lesson)
        if rule == "bests":
            teaching.compare_with_bests()
        self.optimizer = Optimizer(
            Space({f"x{i}": Real(0, 1) for i in range(problem.d)}),
            minimize="loss",
            seed=seed,
            budget=SPENT // EPOCHS,
            early_stopping=_rule(rule),
        )

    def ask(self) -> np.ndarray:
        self.trial = self.optimizer.ask()
        return np.array(list(self.trial.params.values()))

    def goes_on(self, epoch: int, loss: float) -> bool:
        self.optimizer.report(self.trial, epoch, loss)
        return self.optimizer.should_stop(self.trial) is None

    def end(self, loss: float | None) -> None:
        if loss is None:
            self.optimizer.tell(self.trial, pruned="stopped")
        else:
            self.optimizer.tell(self.trial, loss)


def _rule(name: str):
    """The rule of a name; halving begins at epoch 3."""
    from bbmmopt.early_stopping import MedianStop, SuccessiveHalving

    median = MedianStop()
    return {"none": None, "median": median, "bests": median, "halving": SuccessiveHalving(3)}[name]


class Optuna:
    """GPSampler and Optuna's own rule of the same name."""

    def __init__(self, problem: Problem, rule: str, lesson: str, seed: int) -> None:
        import optuna

        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruners = {
            "none": optuna.pruners.NopPruner(),
            "median": optuna.pruners.MedianPruner(),
            "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=3),
        }
        sampler = optuna.samplers.GPSampler(seed=seed)
        self.study = optuna.create_study(sampler=sampler, pruner=pruners[rule])
        self.pruned, self.d = optuna.trial.TrialState.PRUNED, problem.d

    def ask(self) -> np.ndarray:
        self.trial = self.study.ask()
        return np.array([self.trial.suggest_float(f"x{i}", 0, 1) for i in range(self.d)])

    def goes_on(self, epoch: int, loss: float) -> bool:
        self.trial.report(loss, epoch)
        return not self.trial.should_prune()

    def end(self, loss: float | None) -> None:
        if loss is None:
            self.study.tell(self.trial, state=self.pruned)
        else:
            self.study.tell(self.trial, loss)


def run(library: str, name: str, rule: str, lesson: str, seed: int) -> dict:
    """One run: regret at each mark, how many trials there were, and how many were stopped."""
    problem = PROBLEMS[name]
    optimiser = {"ours": Ours, "optuna": Optuna}[library](problem, rule, lesson, seed)
    spent, trials, stopped = 0, 0, 0
    best, regret = math.inf, math.nan
    regrets: dict[str, float] = {}
    while spent < SPENT:
        x = optimiser.ask()
        noise = problem.noise * np.random.default_rng([seed, trials]).standard_normal(EPOCHS)
        trials += 1
        loss = math.nan
        for epoch in range(1, EPOCHS + 1):
            loss = problem.loss(x, epoch) + noise[epoch - 1]
            spent += 1
            if spent in MARKS:
                regrets[str(spent)] = regret
            if not optimiser.goes_on(epoch, loss) and epoch < EPOCHS:
                stopped += 1
                optimiser.end(None)
                break
        else:
            optimiser.end(loss)
            if loss < best:
                best, regret = loss, problem.loss(x, EPOCHS) - problem.optimum()
    return {"regret": regrets, "trials": trials, "stopped": stopped}


def cases(options: argparse.Namespace) -> Iterator[dict]:
    """Every run there is to do."""
    for seed in range(options.seeds):
        for problem in options.problems:
            for rule in ("none", *RULES):
                lessons = ["none"] if rule == "none" else options.lessons
                for lesson in lessons:
                    yield _case("ours", problem, rule, lesson, seed)
                if options.peer_python != sys.executable and rule != "bests":
                    yield _case("optuna", problem, rule, "its own", seed)


def _case(library: str, problem: str, rule: str, lesson: str, seed: int) -> dict:
    return {"library": library, "problem": problem, "rule": rule, "lesson": lesson, "seed": seed}


def do(case: dict, options: argparse.Namespace) -> dict:
    """Run a case in a process of its own."""
    python = options.peer_python if case["library"] == "optuna" else sys.executable
    command = [python, __file__, "--case", json.dumps(case)]
    lines, outcome = run_to_limit(command, 1, LIMIT)
    about = {"date": today(), "machine": machine(), "revision": revision()}
    return case | (lines[-1] if lines else {}) | {"outcome": outcome} | about


def table(rows: list[dict]) -> None:
    """Medians over the seeds, quartiles in brackets."""
    keys = sorted({(r["problem"], r["library"], r["rule"], r["lesson"]) for r in rows})
    print("problem | library | rule | stopped trials teach | runs | regret at " + str(MARKS))
    for key in keys:
        mine = [r for r in rows if (r["problem"], r["library"], r["rule"], r["lesson"]) == key]
        done = [r for r in mine if r["outcome"] == "done"]
        told = []
        for mark in map(str, MARKS):
            values = [r["regret"][mark] for r in done]
            values = [math.inf if math.isnan(v) else v for v in values]
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method="nearest")
            told.append(f"{middle:.4f} ({low:.4f}-{high:.4f})")
        trials = np.mean([r["trials"] for r in done])
        print(*key, f"{len(done)}/{len(mine)}", *told, f"{trials:.0f} trials", sep=" | ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--lessons", nargs="+", default=list(LESSONS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results", type=Path, default=RESULTS / "early_stopping.jsonl")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        names = ("library", "problem", "rule", "lesson", "seed")
        print(json.dumps(run(*(options.case[name] for name in names))))
        return
    done = []
    if options.results.exists():
        done = [json.loads(line) for line in options.results.read_text().splitlines()]
    known = {json.dumps({k: r[k] for k in _case("", "", "", "", 0)}) for r in done}
    todo = [case for case in cases(options) if json.dumps(case) not in known]
    with ThreadPoolExecutor(options.jobs) as pool, options.results.open("a") as file:
        for future in as_completed([pool.submit(do, case, options) for case in todo]):
            row = future.result()
            file.write(json.dumps(row) + "\n")
            file.flush()
            done.append(row)
    table(done)


if __name__ == "__main__":
    main()
