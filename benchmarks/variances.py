"""How exact predictive variances are, and what they cost, from much noise to hardly any.

    python benchmarks/variances.py

n observations of a smooth function in d = 6, σ² from 1e-1 to 1e-6, parameters fixed; the variance
of f at m test points in one call, each (solver, σ²) in a process of its own. The error is the
largest |v - v_exact| / (v_exact + σ²), v_exact by an independent dense Cholesky in SciPy. Products
alone solve for each variance that their cached root cannot vouch for, so they get fewer points.

Results: one line per process in results/variances.jsonl.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from processes import RESULTS, machine, revision, today

_LENGTHSCALES = (0.8, 1.0, 1.5, 2.0, 3.0, 6.0)


def data(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.random((n, 6))
    return X, np.sin(4 * X[:, 0]) + X[:, 1] * X[:, 2], rng.random((m, 6))


def exact(X: np.ndarray, new: np.ndarray, noise: float) -> np.ndarray:
    """Variances of a Matérn-5/2 process by SciPy, in pieces."""
    from scipy.linalg import cho_factor, solve_triangular
    from scipy.spatial.distance import cdist

    def k(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        r = math.sqrt(5) * cdist(A / _LENGTHSCALES, B / _LENGTHSCALES)
        return (1 + r + r**2 / 3) * np.exp(-r)

    L, _ = cho_factor(k(X, X) + noise * np.eye(len(X)), lower=True)
    pieces = np.array_split(new, max(1, len(new) // 2048))
    found = [1 - (solve_triangular(L, k(X, p), lower=True) ** 2).sum(0) for p in pieces]
    return np.concatenate(found)


def child(solver: str, n: int, m: int, noise: float, threads: int) -> None:
    import torch

    from surrogate import BBMM, Auto, ExactGP, Matern52

    torch.set_num_threads(threads)
    X, y, new = data(n, m)
    kernel = Matern52(6, lengthscale=_LENGTHSCALES, variance=1.0)
    model = ExactGP(kernel, noise=noise, solver={"auto": Auto(), "bbmm": BBMM()}[solver])
    base = peak_mb()
    began = time.perf_counter()
    posterior = model.condition(torch.from_numpy(X), torch.from_numpy(y))
    posterior.marginals(torch.from_numpy(new[:1]))
    ready = time.perf_counter()
    _, std = posterior.marginals(torch.from_numpy(new))
    seconds = time.perf_counter() - ready
    info, peak = posterior.info, peak_mb()
    truth = exact(X, new, noise)
    error = np.abs(std.square().numpy() - truth) / (truth + noise)
    record = {"used": info.solver, "rank": info.rank, "condition_seconds": ready - began}
    record |= {"seconds": seconds, "base_mb": base, "peak_mb": peak, "error": float(error.max())}
    print(json.dumps(record))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=3000, help="observations")
    parser.add_argument("--points", type=int, default=65_536, help="test points, solver chosen")
    parser.add_argument("--product-points", type=int, default=256, help="test points, BBMM()")
    parser.add_argument("--noise", type=float, nargs="+", default=[10.0**-i for i in range(1, 7)])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "variances.jsonl")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        solver, m = options.child
        child(solver, options.n, int(m), options.noise[0], options.threads)
        return
    about = {"date": today(), "machine": machine(), "revision": revision()}
    print("solver   n      points   noise    error    condition  marginals  peak MB (before)")
    for solver, m in (("auto", options.points), ("bbmm", options.product_points)):
        for noise in options.noise:
            command = [sys.executable, __file__, "--child", solver, str(m), "--n", str(options.n)]
            command += ["--noise", str(noise), "--threads", str(options.threads)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                print(solver, noise, run.stderr.strip().splitlines()[-1])
                continue
            record = {"solver": solver, "n": options.n, "points": m, "noise": noise}
            record |= json.loads(run.stdout) | about | {"threads": options.threads}
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"{record['used']:8} {options.n:5} {m:8} {noise:8.0e} {record['error']:8.1e} "
                f"{record['condition_seconds']:8.2f} s {record['seconds']:8.2f} s "
                f"{record['peak_mb']:7.0f} ({record['base_mb']:.0f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
