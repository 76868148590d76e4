"""One library in one process: a JSON request per line in, a JSON answer per line out.

Started by ask_latency.py and regret.py with the interpreter that has the library. Clocks run here,
around the library's own calls, so that what passes between the processes is never timed.
"""

import json
import os
import sys
import time
import traceback

import numpy as np
from acquisition_quality import acquisition_quality
from libraries import LIBRARIES, prepare
from problems import PROBLEMS, box, hartmann6, vector

SPACE = box(0.0, 1.0, 6)


def observations(n: int, seed: int) -> list[tuple[dict, float]]:
    """n uniform points and their values on Hartmann-6, the same for every library."""
    points = np.random.default_rng([seed, n]).random((n, 6))
    rows = [{f"x{i}": float(x) for i, x in enumerate(point)} for point in points]
    return [(params, hartmann6(**params)) for params in rows]


class Worker:
    """Answers requests; each method that a request may name takes the request's other fields."""

    def __init__(self, library: str) -> None:
        self.library = LIBRARIES[library]
        self.running = {}

    def versions(self) -> dict:
        return {"versions": self.library.versions()}

    def _filled(self, n: int, seed: int):
        optimiser = self.library(SPACE, seed, exact=True)
        for params, value in observations(n, seed):
            optimiser.add(params, value)
        return optimiser

    def cold(self, n: int, seed: int) -> dict:
        """Time one ask of an optimiser that is new to its n observations."""
        self.last, self.key = self._filled(n, seed), (n, seed)
        start = time.perf_counter()
        params = self.last.ask()
        return {"seconds": time.perf_counter() - start, "point": vector(params).tolist()}

    def log_ei(self, points: list[list[float]]) -> dict:
        """LogEI of points under this library's own model of the data of the last cold ask."""
        if self.library is LIBRARIES["ours"]:
            # Asked a question, ours would count the trial that is out; so a fresh one answers.
            self.last = self._filled(*self.key)
        return {"log_ei": self.last.log_ei(points)}

    def belief(self) -> dict:
        return {"belief": self._filled(*self.key).belief()}

    def quality(self, **arguments) -> dict:
        return acquisition_quality(**arguments)

    def open(self, n: int, seed: int) -> dict:
        """Start a run that already has n observations, up to its first proposal."""
        optimiser = self._filled(n, seed)
        self.running[n] = (optimiser, optimiser.ask())
        return {}

    def step(self, n: int) -> dict:
        """Time one turn of a run: tell the value of the last proposal, ask for the next."""
        optimiser, params = self.running[n]
        value = hartmann6(**params)
        start = time.perf_counter()
        optimiser.tell(value)
        params = optimiser.ask()
        seconds = time.perf_counter() - start
        self.running[n] = (optimiser, params)
        return {"seconds": seconds}

    def run(self, problem: str, seed: int) -> dict:
        """One whole run on a problem: its values, and the seconds of each ask."""
        spec = PROBLEMS[problem]
        optimiser = self.library(spec.space, seed, spec.exact)
        values, seconds = [], []
        for _ in range(spec.budget):
            start = time.perf_counter()
            params = optimiser.ask()
            seconds.append(round(time.perf_counter() - start, 6))
            value = float(spec.function(**params))
            optimiser.tell(value)
            values.append(float(f"{value:.10g}"))  # the results are kept in the repository
        return {"values": values, "ask_seconds": seconds, "versions": self.library.versions()}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to stderr
    prepare()
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # told to the parent, which counts or raises it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
