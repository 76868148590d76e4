"""The race: one model, the same data, fitted by Cholesky factors and by products (BBMM).

    python examples/bbmm_vs_cholesky.py --sizes 500 1000 2000 4000 8000 16000 --cholesky-to 8000

Every fit has a process of its own, so that its memory is its own too. A table is printed as the
fits end, then a picture of it is written: time, log likelihood with its error bars, memory. By
default solvers change over, `Auto()`, at 2000 observations for a fit.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from surrogate import BBMM, Cholesky, ExactGP, Matern52, fit

SOLVERS = {"Cholesky": Cholesky(), "BBMM": BBMM()}
LOOKS = {  # told apart by lightness and shape too
    "Cholesky": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "BBMM": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
}


@dataclass(frozen=True)
class Result:
    """What one fit took and found; log likelihoods are per observation, in nats."""

    n: int
    solver: str
    seconds: float
    evaluations: int
    products: int
    likelihood: float
    half_width: float
    megabytes: float


def data(n: int, noise: float, dims: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random function in the unit cube, seen with noise; targets are standardised."""
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    # A sum of random waves, about a sample of a Gaussian process with a lengthscale of 0.7.
    waves, phases = torch.randn(dims, 200, **draw) / 0.7, 2 * torch.pi * torch.rand(200, **draw)
    X = torch.rand(n, dims, **draw)
    f = (X @ waves + phases).cos().sum(1) / 10  # of variance 1 over all such functions
    y = f + noise * torch.randn(n, **draw)
    return X, (y - y.mean()) / y.std()


def race(n: int, solver: str, noise: float) -> Result:
    """One fit, in this process."""
    X, y = data(n, noise)
    before = peak()
    report = fit(ExactGP(Matern52(dims=X.shape[1]), solver=SOLVERS[solver]), X, y).report
    assert report is not None
    return Result(
        n=n,
        solver=solver,
        seconds=report.seconds,
        evaluations=report.evaluations,
        products=report.products,
        likelihood=float(report.likelihood) / n,
        half_width=report.likelihood.half_width / n,
        megabytes=peak() - before,
    )


def peak() -> float:
    """Most memory this process has had, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def in_its_own_process(n: int, solver: str, noise: float) -> Result:
    command = [sys.executable, __file__, "--one", str(n), solver, "--noise", str(noise)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Result(**json.loads(done.stdout))


HEADER = "       n  solver     seconds  evaluations  products  log likelihood / n      memory"


def row(result: Result) -> str:
    sure = f"{result.likelihood:9.4f}"
    if result.half_width:
        sure += f" ± {result.half_width:.4f}"
    return (
        f"{result.n:8d}  {result.solver:8s}  {result.seconds:8.2f}  {result.evaluations:11d}  "
        f"{result.products:8d}  {sure:18s}  {result.megabytes:7.0f} MB"
    )
