"""What the processes of test_distributed.py do: a script that is started once for each of them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import surrogate.solvers.bbmm as bbmm
from surrogate import (
    BBMM,
    RBF,
    ExactGP,
    Hamming,
    Kernel,
    KernelOperator,
    Matern32,
    Matern52,
    fit,
)
from surrogate.operators import DistributedKernelOperator
from surrogate.operators.distributed import Ranks
from surrogate.tiles.choose import TilesName

SIZES = (0, 1, 3, 50, 2100)  # of 2100 rows parts begin at multiples of 128
KERNELS: dict[str, Callable[[], Kernel]] = {
    "matern52": lambda: Matern52(3, [0.3, 1.0, 2.0], 1.7),
    "mixed": lambda: (
        RBF(2, 0.5, columns=[0, 1]) * (1.3 * Hamming(1, 0.7, columns=[2]))
        + Matern32(1, 0.4, columns=[0])
    ),
}
PRECISE = BBMM(training_tolerance=1e-9, tolerance=1e-10, variance_tolerance=1e-8)
Answer = dict[str, Any]


def numbers(n: int, columns: int, seed: int) -> Tensor:
    """Normal ones, shape (n, columns)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, columns, generator=generator, dtype=torch.float64)


def points(n: int) -> Tensor:
    """Inputs whose last column has three values, shape (n, 3)."""
    X = numbers(n, 3, 0)
    X[:, 2] = X[:, 2].round().clamp(-1, 1)
    return X


def observations() -> tuple[Tensor, Tensor, Tensor]:
    """X, y, and points to predict at; of no number that ranks could share out evenly."""
    generator = torch.Generator().manual_seed(1)
    X = torch.rand(331, 2, generator=generator, dtype=torch.float64)
    y = torch.sin(6 * X).sum(1) + 0.1 * numbers(331, 1, 2).squeeze(1)
    return X, (y - y.mean()) / y.std(), X[:20] + 0.01


def multiplied(K: KernelOperator | DistributedKernelOperator) -> Answer:
    """Everything that an operator is asked for."""
    A, B = numbers(K.n, 2, 3), numbers(K.n, 2, 4)
    index = torch.arange(min(K.n, 2))
    return {
        "product": K.matmul(numbers(K.n, 5, 5)),
        "one": K.matmul(numbers(K.n, 1, 6)),
        "none": K.matmul(numbers(K.n, 0, 6)),
        "precise": K.precise.matmul(B),
        "pullback": K.pullback(A, B),
        "diagonal": K.diagonal(),
        "rows": K.rows(index),
        "blocks": K.blocks(index.unsqueeze(0)),
        "coordinates": K.coordinates,
    }


def operator(
    n: int, kernel: str = "matern52", tiles: TilesName = "auto", **options: Any
) -> KernelOperator:
    """All of K."""
    return KernelOperator(KERNELS[kernel](), points(n), storage="tiles", tiles=tiles, **options)


def fitted(solver: BBMM, **options: Any) -> Answer:
    """What a model has learnt, and what it predicts."""
    X, y, X_new = observations()
    model = fit(ExactGP(Matern52(2), solver=solver), X, y, **options)
    posterior = model.condition(X, y)
    mean, std = posterior.marginals(X_new)
    report = model.report
    assert report is not None
    return {
        "parameters": torch.cat([p.detach().reshape(-1) for p in model.parameters()]),
        "likelihood": report.log_marginal_likelihood,
        "half width": report.likelihood.half_width,
        "evaluations": report.evaluations,
        "products": report.products,
        "message": report.message,
        "arithmetic": report.arithmetic,
        "info": (posterior.info.storage, posterior.info.arithmetic),
        "mean": mean,
        "std": std,
    }


def likelihood(solver: BBMM) -> Answer:
    """Of a model that was not fitted: its value and gradients."""
    X, y, _ = observations()
    model = ExactGP(Matern52(2, 0.4), noise=0.02, solver=solver)
    value = model.log_marginal_likelihood(X, y).value
    value.backward()
    gradients = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    return {"value": value.detach(), "gradients": gradients}


def arithmetic(rank: int) -> Answer:
    """Products, of all sizes."""
    answers: Answer = {}
    for kernel in KERNELS:
        for n in SIZES:
            K = DistributedKernelOperator(operator(n, kernel))
            answers[f"{kernel} {n}"] = multiplied(K) | {"arithmetic": K.arithmetic}
    return answers


def modelling(rank: int) -> Answer:
    """Fits and predictions; only rank 0 is to be asked when to stop."""
    solver = replace(PRECISE, distributed=True)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(rank)
        return len(asked) > 3

    found, default = fitted(solver), fitted(BBMM(distributed=True))
    stopped = fitted(solver, stop=stop)
    return {
        "fit": found,
        "stopped": stopped | {"asked": len(asked)},
        "default": default,
        "likelihood": likelihood(solver),
    }


def fused(rank: int) -> Answer:
    """By Triton's interpreter, which takes its time."""
    answers: Answer = {}
    for kernel in KERNELS:
        for n in (1, 19):
            for float32 in (True, False):
                K = DistributedKernelOperator(operator(n, kernel, "triton", float32=float32))
                answers[f"{kernel} {n} {float32}"] = multiplied(K) | {
                    "arithmetic": K.arithmetic,
                    "roundoff": (K.roundoff, K.precise.roundoff),
                }
    return answers


def disagreements(rank: int) -> dict[str, Callable[[], object]]:
    """What ranks must not do, each of which all of them refuse; rank 1 is the odd one."""
    odd = rank == 1
    X, y, _ = observations()

    def made(kernel: Kernel, X: Tensor, noise: Tensor | None = None) -> object:
        return DistributedKernelOperator(KernelOperator(kernel, X, storage="tiles"), noise)

    def begun(X: Tensor, y: Tensor, *, seed: int = 0, stop: bool = False, **options: Any) -> object:
        model = ExactGP(Matern52(2), solver=BBMM(seed=seed, distributed=True))
        return fit(model, X, y, stop=(lambda: False) if stop else None, **options)

    def conditioned(noise: float) -> object:
        model = ExactGP(Matern52(2), noise=noise, solver=BBMM(distributed=True))
        return model.condition(X, y).marginals(X[:1])

    def unlike() -> object:
        K = DistributedKernelOperator(operator(50))
        V = numbers(50, 4, 0)
        return K.pullback(V, V) if odd else K.matmul(V)

    def inaccurate() -> object:
        K = DistributedKernelOperator(operator(50, tiles="triton"))
        return (K if odd else K.precise).matmul(numbers(50, 4, 0))

    last = points(50)
    last[-1, 0] += 1e-15 if odd else 0.0
    order = torch.arange(50).flip(0) if odd else torch.arange(50)
    V = numbers(50, 4, 0)[:, [1, 0, 2, 3] if odd else [0, 1, 2, 3]]
    noise = torch.full((50,), 0.5 if odd else 0.1, dtype=torch.float64)
    few = 330 if odd else 331
    return {
        "X": lambda: made(Matern52(3), last),
        "order": lambda: made(Matern52(3), points(50)[order]),
        "size": lambda: made(Matern52(3), points(49 if odd else 50)),
        "kernel": lambda: made(RBF(3) if odd else Matern52(3), points(50)),
        "parameters": lambda: made(Matern52(3, 0.5 if odd else 0.4), points(50)),
        "noise": lambda: made(Matern52(3), points(50), noise),
        "noise of a model": lambda: conditioned(0.5 if odd else 0.1),
        "tiles": lambda: DistributedKernelOperator(
            operator(50, tiles="triton" if odd else "torch")
        ),
        "vectors": lambda: DistributedKernelOperator(operator(50)).matmul(V),
        "columns": lambda: DistributedKernelOperator(operator(50)).matmul(V[:, : 3 + odd]),
        "precision": inaccurate,
        "step": unlike,
        "fit of fewer": lambda: begun(X[:few], y[:few]),
        "fit of others": lambda: begun(X, y + 1e-9 * odd),
        "options": lambda: begun(X, y, seed=int(odd)),
        "evaluations": lambda: begun(X, y, max_evaluations=9 if odd else 10),
        "stop": lambda: begun(X, y, stop=odd),
    }


def refusals(rank: int) -> Answer:
    """Messages of errors, and whether the ranks can go on together after each."""
    said: Answer = {}
    for name, attempt in disagreements(rank).items():
        try:
            attempt()
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
        said[f"after {name}"] = DistributedKernelOperator(operator(5)).matmul(numbers(5, 1, 0))
    try:
        Ranks.of(torch.device("cuda:0"))
    except ValueError as error:
        said["device"] = str(error)
    # Memory for a preconditioner of rank 10, 9 and 8, of 50 points.
    bbmm.default_budget = lambda device=None: (10 - rank) * 3 * 8 * 50
    K = DistributedKernelOperator(operator(50))
    said["pivots"] = BBMM(distributed=True).structure(K, torch.ones(50)).pivots
    return said


def death(rank: int) -> Answer:
    """One of them ends before a product."""
    K = DistributedKernelOperator(operator(50))
    if rank == 1:
        os._exit(3)
    try:
        K.matmul(numbers(50, 1, 0))
    except RuntimeError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {}


CASES: dict[str, Callable[[int], Answer]] = {
    case.__name__: case for case in (arithmetic, modelling, fused, refusals, death)
}


def main(rank: int, count: int, folder: Path, *cases: str) -> None:
    """What rank `rank` does, written into a file of its own."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count, timeout=limit)
    torch.save([CASES[case](rank) for case in cases], folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
