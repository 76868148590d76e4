"""Approximate Gaussian processes for large data, ours beside GPyTorch's.

    python benchmarks/scalable.py --peer-python PATH
    python benchmarks/scalable.py --table                     what the last run found

Two cases, each library in a process of its own on the same number of threads, one after another:

  inducing  n = 20,000, d = 4, 500 inducing points (SGPR). A numpy oracle computes the collapsed
            bound per observation from the parameters and points that each library found.
  grid      n = 100,000, d = 2 (SKI): RMSE against the function and NLPD of noisy test targets.

GPyTorch trains by 100 steps of Adam at 0.1, as its tutorials do; its inducing points start on a
random subset and are learnt, as there; those of ours are learnt too; those of ours-chosen stay
where they begin. A library is stopped when it has taken longer than --limit seconds in all. Lines
of JSON are appended to --out.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from gp_data import matern52, matern_draw
from gp_fit_worker import limit_threads, peak_mib
from processes import RESULTS, add_common_options, machine, revision, run_to_limit, today
from scipy.linalg import cholesky, solve_triangular

CASES = {"inducing": (20_000, 4, 500), "grid": (100_000, 2, 0)}
NOISE_SD, N_TEST, STEPS, RATE = 0.1, 5000, 100, 0.1
GRID = 100  # points of GPyTorch's grid in each dimension, and of ours


def draw(d: int, n: int, seed: int) -> dict[str, np.ndarray]:
    """A function of unit variance at uniform points, with noise."""
    rng = np.random.default_rng([seed, d])
    f = matern_draw(np.linspace(0.25, 0.5, d), rng)
    X, X_test = rng.random((n, d)), rng.random((N_TEST, d))
    values, f_test = f(X), f(X_test)
    centre, scale = values.mean(), values.std()
    y = (values - centre) / scale + NOISE_SD * rng.standard_normal(n)
    f_test = (f_test - centre) / scale
    y_test = f_test + NOISE_SD * rng.standard_normal(N_TEST)
    return {"X": X, "y": y, "X_test": X_test, "f_test": f_test, "y_test": y_test}


def bound(data: dict, found: dict) -> float:
    """Collapsed bound per observation, in nats; Titsias (2009), eq. 9."""
    X, y, Z = data["X"], data["y"] - found["mean"], np.asarray(found["points"])
    ell, s2, noise = np.asarray(found["lengthscale"]), found["variance"], found["noise"]
    Kzz = s2 * matern52(Z, Z, ell) + 1e-8 * s2 * np.eye(len(Z))
    L = cholesky(Kzz, lower=True)
    A = solve_triangular(L, s2 * matern52(Z, X, ell), lower=True) / math.sqrt(noise)
    B = cholesky(np.eye(len(Z)) + A @ A.T, lower=True)
    c = solve_triangular(B, A @ y, lower=True) / math.sqrt(noise)
    n = len(y)
    value = -0.5 * n * math.log(2 * math.pi * noise) - np.log(np.diag(B)).sum()
    value += 0.5 * (c @ c - y @ y / noise)
    trace = (n * s2 - noise * np.square(A).sum()) / (2 * noise)
    return float((value - trace) / n)


def scores(data: dict, mean: np.ndarray, std: np.ndarray) -> dict:
    """RMSE against the function, NLPD of noisy targets; std has the noise in it."""
    z = (data["y_test"] - mean) / std
    nlpd = float(np.mean(0.5 * z * z + np.log(std) + 0.5 * math.log(2 * math.pi)))
    return {"rmse": float(np.sqrt(np.mean((mean - data["f_test"]) ** 2))), "nlpd": nlpd}


class Ours:
    """`InducingGP` and `GridGP` at their defaults but for the number of points."""

    learn: bool | None = None

    def __init__(self, case: str, d: int, M: int) -> None:
        import surrogate

        self.surrogate, kernel = surrogate, surrogate.Matern52
        if case == "inducing":
            self.model = surrogate.InducingGP(kernel(d), M, learn_inducing=self.learn)
        else:
            self.model = surrogate.GridGP(kernel, GRID, dims=d)

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        import torch

        X, y = torch.from_numpy(X), torch.from_numpy(y)
        self.fitted = self.surrogate.fit(self.model, X, y)
        self.posterior = self.fitted.condition(X, y)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        mean, std = self.posterior.predictive(torch.from_numpy(X))
        return mean.detach().numpy(), std.detach().numpy()

    def found(self) -> dict:
        model, report = self.fitted, self.fitted.report
        about = {"evaluations": report.evaluations, "solver": report.solver}
        about |= {"noise": float(model.noise.detach()), "mean": float(model.mean.detach())}
        if self.surrogate.InducingGP in type(model).__mro__:
            about |= {
                "lengthscale": model.kernel.lengthscale.tolist(),
                "variance": float(model.kernel.variance.detach()),
                "points": model.inducing_points.tolist(),
            }
        return about


class OursChosen(Ours):
    """With inducing points that stay where pivoted Cholesky chose them."""

    learn = False


class GPyTorch:
    """SGPR and SKI as in its tutorials."""

    def __init__(self, case: str, d: int, M: int) -> None:
        import gpytorch

        self.gpytorch, self.case, self.d, self.M = gpytorch, case, d, M

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        import torch

        gpytorch, case, d, M = self.gpytorch, self.case, self.d, self.M
        kernels = gpytorch.kernels
        torch.manual_seed(0)
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()

        class Model(gpytorch.models.ExactGP):
            def __init__(self) -> None:
                super().__init__(X, y, likelihood)
                self.mean_module = gpytorch.means.ConstantMean()
                base = kernels.ScaleKernel(kernels.MaternKernel(2.5, ard_num_dims=d))
                if case == "inducing":
                    Z = X[torch.randperm(len(X))[:M]].clone()
                    self.covar_module = kernels.InducingPointKernel(base, Z, likelihood)
                else:
                    # A product of one-dimensional Matérn kernels has no such wrapper there.
                    self.covar_module = kernels.GridInterpolationKernel(
                        base, grid_size=GRID, num_dims=d, grid_bounds=[(0.0, 1.0)] * d
                    )

            def forward(self, x):
                normal = gpytorch.distributions.MultivariateNormal
                return normal(self.mean_module(x), self.covar_module(x))

        self.model, self.likelihood = Model().double().train(), likelihood.train()
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, self.model)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = -mll(self.model(X), y)
            loss.backward()
            optimizer.step()

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        self.model.eval(), self.likelihood.eval()
        settings = self.gpytorch.settings
        with torch.no_grad(), settings.fast_pred_var():
            y = self.likelihood(self.model(torch.from_numpy(X)))
            return y.mean.numpy(), y.variance.sqrt().numpy()

    def found(self) -> dict:
        about = {"evaluations": STEPS, "noise": self.likelihood.noise.item()}
        about["mean"] = self.model.mean_module.constant.item()
        if self.case == "inducing":
            kernel = self.model.covar_module
            about |= {
                "lengthscale": kernel.base_kernel.base_kernel.lengthscale[0].tolist(),
                "variance": kernel.base_kernel.outputscale.item(),
                "points": kernel.inducing_points.tolist(),
            }
        return about


LIBRARIES = {"ours": Ours, "ours-chosen": OursChosen, "gpytorch": GPyTorch}


def child(case: str, name: str, n: int, threads: int, seed: int) -> None:
    """Run one library, and print a line for each step: what is stopped has then told something."""
    _, d, M = CASES[case]
    M = min(M, n // 10)
    data = draw(d, n, seed)
    warm_up = LIBRARIES[name](case, d, min(M, 20))
    limit_threads(threads)
    warm_up.fit(data["X"][:200], data["y"][:200])
    warm_up.predict(data["X_test"][:200])
    library = LIBRARIES[name](case, d, M)
    tell({"base_mb": peak_mib()})
    began = time.perf_counter()
    library.fit(data["X"], data["y"])
    tell({"fit": time.perf_counter() - began, "peak_mb": peak_mib()})
    found = library.found()
    if "points" in found:
        tell({"bound": bound(data, found)})
        del found["points"]
    tell({"found": found})
    began = time.perf_counter()
    mean, std = library.predict(data["X_test"])
    tell({"predict": time.perf_counter() - began, **scores(data, mean, std)})


def tell(record: dict) -> None:
    print(json.dumps(record), flush=True)


def measure(case: str, library: str, n: int, options: argparse.Namespace) -> dict:
    """What one library took and found, or how far it came."""
    python = sys.executable if library.startswith("ours") else options.peer_python
    command = [python, str(Path(__file__).resolve()), "--child", case, library, str(n)]
    command += ["--threads", str(options.threads), "--seed", str(options.seed)]
    lines, outcome = run_to_limit(command, options.threads, options.limit)
    record = {"case": case, "library": library, "n": n, "outcome": outcome, "seed": options.seed}
    for line in lines:
        record |= line
    return record


def show(record: dict) -> None:
    def cell(key: str, form: str) -> str:
        return format(record[key], form) if key in record else "-"

    print(
        f"{record['case']:9} {record['library']:11} {record['n']:7} {cell('fit', '.2f'):>8} "
        f"{cell('predict', '.2f'):>9} {cell('bound', '.4f'):>8} {cell('rmse', '.4f'):>7} "
        f"{cell('nlpd', '.4f'):>8} {cell('peak_mb', '.0f'):>8}  {record['outcome']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--n", type=int, help="observations; default: those of the case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for each library")
    parser.add_argument("--table", action="store_true", help="print what --out has, do nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "scalable.jsonl")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case, library, n = options.child
        child(case, library, int(n), options.threads, options.seed)
        return
    print(
        f"{'case':9} {'library':11} {'n':>7} {'fit s':>8} {'predict s':>9} {'bound':>8} "
        f"{'RMSE':>7} {'NLPD':>8} {'peak MB':>8}  outcome"
    )
    if options.table:
        for line in options.out.read_text().splitlines():
            show(json.loads(line))
        return
    about = {"date": today(), "machine": machine(), "revision": revision()}
    about |= {"threads": options.threads}
    for case in options.cases:
        for library in options.libraries:
            if case == "grid" and library == "ours-chosen":
                continue
            record = measure(case, library, options.n or CASES[case][0], options) | about
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            show(record)


if __name__ == "__main__":
    main()
