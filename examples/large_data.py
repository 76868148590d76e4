"""The same three lines at 200 and at 20,000 observations: what they take, and how good they are.

    python examples/large_data.py --sizes 200 2000 20000

    model = fit(ExactGP(Matern52(dims)), X, y)
    posterior = model.condition(X, y)
    mean, std = posterior.marginals(X_new)

Which solver does the work is chosen by the number of observations; the reasons are printed below
the table. The last row is `InducingGP` at the largest size, an approximation by 500 points: where
these are too few, the bounds of its log likelihood are wide, and its bands of f are too narrow.
Every row has a process of its own, so that its memory is its own too. The default takes about five
minutes on one core.
"""

import argparse
import math
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from surrogate import ExactGP, InducingGP, Matern52, coverage, fit, rmse

DIMS = 3
MODELS = {"ExactGP": ExactGP, "InducingGP": InducingGP}


@dataclass(frozen=True)
class Row:
    """What fit, condition and marginals took, and how good the predictions are.

    Attributes:
        likelihood, half_width: Log p(y) per observation in nats, and how far off that may be.
        rmse, coverage: Of f at new points: error, and share of true values in the 90 % band.
        megabytes: Memory added to what the process had.
        choices: Which solver did the fit, and which the predictions, each with its reason.
    """

    name: str
    n: int
    fit_seconds: float
    predict_seconds: float
    likelihood: float
    half_width: float
    rmse: float
    coverage: float
    megabytes: float
    choices: tuple[str, str]

    def __str__(self) -> str:
        likelihood = f"{self.likelihood:.4f} ± {self.half_width:.4f}"
        return (
            f"{self.name:10}  {self.n:6d}  {self.fit_seconds:7.2f}  {self.predict_seconds:7.2f}  "
            f"{likelihood:>16}  {self.rmse:6.4f}  {self.coverage:8.1%}  {self.megabytes:6.0f} MB"
        )


HEADER = (
    "model            n  fit [s]  predict     log p(y) / n    RMSE  in band    memory\n"
    "                                 [s]                     of f   of 90%"
)


def data(n: int, new: int, noise: float) -> tuple[torch.Tensor, ...]:
    """X, y with noise, X_new and f there, for a random f of the kind that a Matérn-5/2 expects."""
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(n + new, DIMS, generator=generator, dtype=torch.float64)
    # 1000 waves, of a lengthscale of 0.5: their frequencies have Student's t-distribution.
    z = torch.randn(DIMS + 5, 1000, generator=generator, dtype=torch.float64)
    frequencies = z[:DIMS] / (0.5 * z[DIMS:].square().mean(0).sqrt())
    phases = 2 * math.pi * torch.rand(1000, generator=generator, dtype=torch.float64)
    f = math.sqrt(2 / 1000) * (X @ frequencies + phases).cos().sum(1)
    f = (f - f.mean()) / f.std()
    y = f[:n] + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return X[:n], y, X[n:], f[n:]


def measure(name: str, n: int, new: int, noise: float) -> Row:
    """The three lines, timed, in this process."""
    X, y, X_new, f_new = data(n, new, noise)
    before = peak()
    model = fit(MODELS[name](Matern52(DIMS)), X, y)
    began = time.perf_counter()
    posterior = model.condition(X, y)
    mean, std = posterior.marginals(X_new)
    ended = time.perf_counter()
    report, info = model.report, posterior.info
    return Row(
        name=name,
        n=n,
        fit_seconds=report.seconds,
        predict_seconds=ended - began,
        likelihood=report.log_marginal_likelihood / n,
        half_width=report.likelihood.half_width / n,
        rmse=rmse(mean, f_new),
        coverage=coverage(mean, std, f_new),
        megabytes=peak() - before,
        choices=(f"{report.solver} ({report.reason})", f"{info.solver} ({info.reason})"),
    )


def peak() -> float:
    """Most memory that this process has had, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="The same three lines at any size of data.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 20_000])
    parser.add_argument("--new", type=int, default=1000, help="points to predict")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation; that of f: 1")
    given = parser.parse_args()
    if min(given.sizes) < 2 or given.new < 1 or not 0 <= given.noise < math.inf:
        parser.error("--sizes must be at least 2, --new at least 1, --noise a number, 0 or more")

    sizes, rows = sorted(set(given.sizes)), []
    print(HEADER, flush=True)
    for name, n in [*(("ExactGP", n) for n in sizes), ("InducingGP", sizes[-1])]:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows.append(process.submit(measure, name, n, given.new, given.noise).result())
        print(rows[-1], flush=True)
    print()
    for row in rows:
        print(f"{row.name}, {row.n}: fit by {row.choices[0]}")
        print(f"{'':{len(row.name)}}  predictions by {row.choices[1]}")


if __name__ == "__main__":
    main()
