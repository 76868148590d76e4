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
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.ticker import LogLocator, NullFormatter

from surrogate import BBMM, Cholesky, ExactGP, Matern52, fit

SOLVERS = {"Cholesky": Cholesky(), "BBMM": BBMM()}
LOOKS = {  # told apart by lightness and shape too; open squares show what lies under them
    "BBMM": {"color": "#0072B2", "marker": "o", "markersize": 4, "linestyle": "-"},
    "Cholesky": {
        "color": "#D55E00",
        "marker": "s",
        "markersize": 7,
        "markerfacecolor": "none",
        "linestyle": "--",
    },
}
AT_PAPER_SIZE = {"font.size": 8.5, "axes.titlesize": 9, "lines.linewidth": 1.3}


@dataclass(frozen=True)
class Result:
    """What one fit took and found.

    Attributes:
        likelihood: Log likelihood as the fit reports it, per observation, in nats.
        half_width: How far off that may be; 0 by Cholesky.
        exact: The same at the parameters found, by Cholesky; None where that is too dear.
        megabytes: Memory that the fit added to what the process had.
    """

    n: int
    solver: str
    seconds: float
    evaluations: int
    products: int
    likelihood: float
    half_width: float
    exact: float | None
    megabytes: float


def data(n: int, noise: float, dims: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random function in the unit cube, seen with noise; targets are standardised."""
    generator = torch.Generator().manual_seed(0)
    # 200 random waves: about a sample of a Gaussian process of variance 1 and lengthscale 0.7.
    waves = torch.randn(dims, 200, generator=generator, dtype=torch.float64) / 0.7
    phases = 2 * torch.pi * torch.rand(200, generator=generator, dtype=torch.float64)
    X = torch.rand(n, dims, generator=generator, dtype=torch.float64)
    f = 0.1 * (X @ waves + phases).cos().sum(1)
    y = f + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return X, (y - y.mean()) / y.std()


def race(n: int, solver: str, noise: float, cholesky_to: int) -> Result:
    """One fit, in this process."""
    X, y = data(n, noise)
    before = peak()
    model = fit(ExactGP(Matern52(dims=X.shape[1]), solver=SOLVERS[solver]), X, y)
    megabytes, report = peak() - before, model.report
    exact = None
    if n <= cholesky_to:
        model.solver = Cholesky()
        with torch.no_grad():
            exact = float(model.log_marginal_likelihood(X, y)) / n
    return Result(
        n=n,
        solver=solver,
        seconds=report.seconds,
        evaluations=report.evaluations,
        products=report.products,
        likelihood=float(report.likelihood) / n,
        half_width=report.likelihood.half_width / n,
        exact=exact,
        megabytes=megabytes,
    )


def peak() -> float:
    """Most memory that this process has had, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def in_its_own_process(n: int, solver: str, noise: float, cholesky_to: int) -> Result:
    command = [sys.executable, __file__, "--one", solver, "--sizes", str(n)]
    command += ["--noise", str(noise), "--cholesky-to", str(cholesky_to)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the fit of {n} observations by {solver} ended with {done.returncode}")
    return Result(**json.loads(done.stdout))


HEADER = (
    "      n  solver    seconds  evaluations  products  log likelihood / n  exact there    memory"
)


def row(r: Result) -> str:
    reported = f"{r.likelihood:8.4f}" + (f" ± {r.half_width:.4f}" if r.half_width else "")
    exact = "-" if r.exact is None else f"{r.exact:.4f}"
    return (
        f"{r.n:7d}  {r.solver:8s}  {r.seconds:7.2f}  {r.evaluations:11d}  {r.products:8d}  "
        f"{reported:18s}  {exact:>11s}  {r.megabytes:6.0f} MB"
    )


def draw(results: list[Result]) -> plt.Figure:
    """Seconds, log likelihood and memory over n, as wide as a page."""
    figure, (times, likelihoods, memory) = plt.subplots(1, 3, figsize=(7.2, 2.6), dpi=200)
    figure.set_layout_engine("constrained", w_pad=0.08)
    for solver, look in LOOKS.items():
        mine = [r for r in results if r.solver == solver]
        n = [r.n for r in mine]
        times.plot(n, [r.seconds for r in mine], label=solver, **look)
        bars = [r.half_width for r in mine] if solver == "BBMM" else None
        likelihoods.errorbar(n, [r.likelihood for r in mine], bars, capsize=3, **look)
        memory.plot(n, [max(r.megabytes, 1.0) for r in mine], **look)
    sizes = sorted({r.n for r in results})
    titles = ["Seconds for a fit", "Log likelihood / observation", "Memory of a fit, MB"]
    for ax, title in zip(figure.axes, titles, strict=True):
        ax.set_title(title)
        tidy(ax, sizes)
    for ax in (times, memory):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    times.legend(frameon=False, reverse=True)
    return figure


def tidy(ax: Axes, sizes: list[int]) -> None:
    """The sizes on a logarithmic axis, a light frame and grid."""
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n / 1000:g}k" if n >= 1000 else str(n) for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("observations")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="0.9", linewidth=0.6)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="One model, the same data, fitted by Cholesky factors and by products."
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument("--cholesky-to", type=int, default=4000, help="largest n for Cholesky")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation; that of f: 1")
    parser.add_argument("--out", type=Path, default=Path("race.png"), help="the picture")
    parser.add_argument("--one", choices=SOLVERS, help=argparse.SUPPRESS)  # a fit of the race
    given = parser.parse_args()
    if min(given.sizes) < 2:
        parser.error("--sizes must be at least 2: one observation has nothing to teach")
    if not 0 <= given.noise < float("inf"):
        parser.error(f"--noise must be a number of at least 0; got {given.noise}")
    if given.out.suffix[1:] not in FigureCanvasBase.filetypes:
        parser.error(f"--out must end like a picture, such as .png or .pdf; got {given.out}")
    return given


def main() -> None:
    given = arguments()
    if given.one:
        result = race(given.sizes[0], given.one, given.noise, given.cholesky_to)
        print(json.dumps(asdict(result)))
        return

    print(HEADER, flush=True)
    results = []
    for n in sorted(set(given.sizes)):
        for solver in SOLVERS:
            if solver == "BBMM" or n <= given.cholesky_to:
                results.append(in_its_own_process(n, solver, given.noise, given.cholesky_to))
                print(row(results[-1]), flush=True)

    given.out.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(AT_PAPER_SIZE):
        figure = draw(results)
        figure.savefig(given.out)
    plt.close(figure)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
