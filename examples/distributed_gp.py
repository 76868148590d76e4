"""One exact Gaussian process on several GPUs, or on the cores of several processes.

    torchrun --standalone --nproc-per-node 2 examples/distributed_gp.py --points 2000

Each process runs this whole script on the same data. `BBMM(distributed=True)` makes it compute only
its own rows of each product with K, which nobody ever stores; the rest is done by every process
alike, so that all have the same model in the end. With CUDA each process takes a GPU of its own and
they talk by NCCL, else CPU cores and gloo. `torchrun` gives a process one thread unless
OMP_NUM_THREADS says otherwise: set it to the cores of the machine over the processes.
"""

import argparse
import math
import os
import time

import torch
import torch.distributed as dist

from surrogate import BBMM, ExactGP, Matern52, fit, rmse

DIMS, NEW = 3, 500


def data(n: int, noise: float) -> tuple[torch.Tensor, ...]:
    """X, y, and as many new points and f there, the same in every process: one seed, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(n + NEW, DIMS, generator=generator, dtype=torch.float64)
    f = torch.sin(6 * X).sum(1) + torch.cos(9 * X[:, 0] * X[:, 1])
    f = (f - f.mean()) / f.std()
    y = f[:n] + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return X[:n], y, X[n:], f[n:]


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=2000, help="observations")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation; that of f: 1")
    given = parser.parse_args()
    if given.points < 2 or not 0 <= given.noise < math.inf:
        parser.error("--points must be at least 2, --noise a number, 0 or more")
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it by torchrun --standalone --nproc-per-node 2 distributed_gp.py")

    here = device()
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    X, y, X_new, f_new = (values.to(here) for values in data(given.points, given.noise))

    began = time.perf_counter()
    model = fit(ExactGP(Matern52(DIMS), solver=BBMM(distributed=True)), X, y)
    # As `fit` does, this multiplies with K: every process has to ask the same.
    mean, _ = model.condition(X, y).marginals(X_new)
    seconds = time.perf_counter() - began

    if dist.get_rank() == 0:
        report = model.report
        likelihood, half_width = report.log_marginal_likelihood, report.likelihood.half_width
        print(f"{given.points} observations, {report.arithmetic}, on {here.type}")
        print(f"log likelihood  {likelihood:.1f} ± {half_width:.1f} nats")
        print(f"RMSE of f       {rmse(mean, f_new):.4f} at {NEW} new points")
        print(f"products with K {report.products} to fit, in {report.evaluations} evaluations")
        print(f"time            {report.seconds:.1f} s to fit, {seconds:.1f} s with predictions")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
