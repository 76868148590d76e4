"""The peers' part of benchmarks/gpu.py, in the Python that has them: KeOps, GPyTorch and BoTorch.

Products and pullbacks are timed as a user of each would write them, in float32:

- KeOps: a LazyTensor of the Matérn-5/2 formula, and autograd through it.
- GPyTorch: its kernel for KeOps where pykeops can be imported, else its own kernel, strip by strip,
  each as large as `gpu_data.at_once` says: a whole K would not fit.

Fits: GPyTorch in float32 at its defaults, `Plan.adam_steps` steps of Adam at 0.1, or as many as
there is time for; BoTorch with SingleTaskGP and fit_gpytorch_mll in float64.
"""

import itertools
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

from benchmarks.gpu_data import (
    VARIANCE,
    Observations,
    error_of_some,
    lengthscales,
    log_likelihood,
    observations,
    points,
    strips,
)
from benchmarks.gpu_plan import Plan
from benchmarks.gpu_timing import Clock, Row, guarded, peak_mib, reset_peak, serve, timed, wait

_RATE = 0.1
_FITS = 0.6  # of GPyTorch's time; the rest is for products


def by_gpytorch(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """The reference product and pullback, fits, and the other sizes."""
    yield from _at_reference(plan, device, clock, "gpytorch")
    yield from _fits(plan, device, Clock(_FITS * clock.left()), "gpytorch")
    yield from _grid(plan, device, clock, "gpytorch")


def by_keops(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """The reference product and pullback, and the other sizes."""
    if find_spec("pykeops") is None:
        yield {"remark": "left out: pykeops is not installed there"}
        return
    yield from _at_reference(plan, device, clock, "keops")
    yield from _grid(plan, device, clock, "keops")


def by_botorch(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Fits, in a process of their own: importing BoTorch changes settings of GPyTorch."""
    yield from _fits(plan, device, clock, "botorch")


def _at_reference(plan: Plan, device: torch.device, clock: Clock, name: str) -> Iterator[Row]:
    for what in ("product", "pullback"):
        yield _measured(plan, device, clock, name, what, plan.reference, plan.reference[0])


def _fits(plan: Plan, device: torch.device, clock: Clock, name: str) -> Iterator[Row]:
    for i, n in enumerate(plan.peer_fits):
        share = Clock(clock.left() / (len(plan.peer_fits) - i))
        yield from _fitted(plan, device, share, name, n)


def _grid(plan: Plan, device: torch.device, clock: Clock, name: str) -> Iterator[Row]:
    left_out = 0
    sizes = itertools.product(plan.sizes, plan.columns, plan.dims, ("product", "pullback"))
    for n, t, d, what in sizes:
        if (n, d, t) == plan.reference:
            continue
        if clock.left() < 0:
            left_out += 1
            continue
        rows = max(1, min(n, int(plan.slow_pairs / n)))
        yield _measured(plan, device, clock, name, what, (n, d, t), rows)
    if left_out:
        yield {"cut": f"left out, for want of time: {left_out}"}


def _measured(
    plan: Plan,
    device: torch.device,
    clock: Clock,
    name: str,
    what: str,
    size: tuple[int, int, int],
    rows: int,
) -> Row:
    n, d, t = size
    row: Row = {"what": what, "library": name, "n": n, "d": d, "t": t, "rows": rows}
    if clock.left() < 0:
        return row | {"cut": "left out: no time"}

    def measure() -> Row:
        data = tuple(M.to(device, torch.float32) for M in points(n, d, t))
        begin = _keops if name == "keops" else _gpytorch
        run, arithmetic = begin(what, d, data, rows)
        found = timed(run, device, clock, plan.runs, plan.run_seconds)
        about: Row = {"arithmetic": arithmetic}
        if what == "product":
            about["off"] = error_of_some(run(), data[0], data[2])
        return about | found | {"ps_per_pair": float(found["seconds"]) / (rows * n) * 1e12}

    return guarded(row, measure)


def _keops(
    what: str, d: int, data: tuple[Tensor, ...], rows: int
) -> tuple[Callable[[], object], str]:
    from pykeops.torch import LazyTensor

    X, A, B = data

    def product(ell: Tensor, variance: Tensor) -> Tensor:
        Z = X / ell
        i = LazyTensor(Z[:rows].contiguous()[:, None, :])
        j = LazyTensor(Z[None, :, :])
        u = math.sqrt(5) * ((i - j) ** 2).sum(-1).sqrt()
        K = (1 + u + u * u / 3) * (-u).exp()
        return variance * (K @ B)

    ell = X.new_tensor(lengthscales(d))
    if what == "product":
        return lambda: product(ell, ell.new_tensor(VARIANCE)), "KeOps float32"
    leaves = [ell.requires_grad_(), ell.new_tensor(VARIANCE).requires_grad_()]
    return (
        lambda: torch.autograd.grad((A[:rows] * product(*leaves)).sum(), leaves),
        "KeOps float32, autograd",
    )


def _gpytorch(
    what: str, d: int, data: tuple[Tensor, ...], rows: int
) -> tuple[Callable[[], object], str]:
    import gpytorch

    X, A, B = data
    with_keops = find_spec("pykeops") is not None
    if with_keops:
        from gpytorch.kernels.keops import MaternKernel
    else:
        MaternKernel = gpytorch.kernels.MaternKernel
    kernel = gpytorch.kernels.ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=d))
    kernel = kernel.to(X.device, X.dtype)
    kernel.base_kernel.lengthscale = X.new_tensor(lengthscales(d))
    kernel.outputscale = VARIANCE
    leaves = list(kernel.parameters())
    parts = [slice(0, rows)] if with_keops else list(strips(rows, len(X), X.device))
    arithmetic = "float32, its KeOps kernel" if with_keops else "float32, its kernel by strips"

    def product() -> Tensor:
        with torch.no_grad():
            return torch.cat([kernel(X[some], X) @ B for some in parts])

    def pullback() -> list[Tensor]:
        total = [torch.zeros_like(leaf) for leaf in leaves]
        for some in parts:
            loss = (A[some] * (kernel(X[some], X) @ B)).sum()
            found = torch.autograd.grad(loss, leaves)
            total = [a + b for a, b in zip(total, found, strict=True)]
        return total

    return (product if what == "product" else pullback), arithmetic


# --------------------------------------------------------------------------------------
# Fits
# --------------------------------------------------------------------------------------


def _fitted(plan: Plan, device: torch.device, clock: Clock, name: str, n: int) -> Iterator[Row]:
    row: Row = {"what": "fit", "library": name, "n": n}
    if clock.left() < 0:
        yield row | {"cut": "left out: no time"}
        return
    found = guarded(row, lambda: _fit(plan, device, clock, name, n))
    yield found
    if "parameters" in found and n <= plan.exact_up_to:
        about: Row = {"what": "judged", "library": name, "n": n, "by": "dense float64 Cholesky"}

        def judge() -> Row:
            data = observations(n, plan.predicted, device)
            parameters = found["parameters"]
            assert isinstance(parameters, dict)
            return {"log_likelihood": log_likelihood(data, parameters)}

        yield guarded(about, judge)


def _fit(plan: Plan, device: torch.device, clock: Clock, name: str, n: int) -> Row:
    data = observations(n, plan.predicted, device)
    reset_peak(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = (_fit_gpytorch if name == "gpytorch" else _fit_botorch)(plan, device, clock, data)
    found["warnings"] = dict(Counter(w.category.__name__ for w in caught))
    return found | {"peak_mib": peak_mib(device)}


def _fit_gpytorch(plan: Plan, device: torch.device, clock: Clock, data: Observations) -> Row:
    import gpytorch

    assert "botorch" not in sys.modules  # it changes GPyTorch's settings for the whole process
    keops = find_spec("pykeops") is not None
    if keops:
        from gpytorch.kernels.keops import MaternKernel
    else:
        MaternKernel = gpytorch.kernels.MaternKernel

    class Model(gpytorch.models.ExactGP):
        def __init__(self, X: Tensor, y: Tensor) -> None:
            super().__init__(X, y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean_module = gpytorch.means.ConstantMean()
            matern = MaternKernel(nu=2.5, ard_num_dims=X.shape[1])
            self.covar_module = gpytorch.kernels.ScaleKernel(matern)

        def forward(self, x):
            normal = gpytorch.distributions.MultivariateNormal
            return normal(self.mean_module(x), self.covar_module(x))

    torch.manual_seed(0)  # for its probes
    X, y = data.X.float(), data.y.float()
    model = Model(X, y).to(device).train()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    began, steps, last = time.perf_counter(), 0, 0.0
    while steps < plan.adam_steps and last < clock.left():
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = -mll(model(X), y)
        loss.backward()
        optimizer.step()
        wait(device)
        steps, last = steps + 1, time.perf_counter() - start
    scaled = model.covar_module
    found: Row = {
        "seconds": time.perf_counter() - began,
        "evaluations": steps,
        "arithmetic": "float32, KeOps" if keops else "float32",
        "parameters": {
            "lengthscale": scaled.base_kernel.lengthscale[0].tolist(),
            "variance": scaled.outputscale.item(),
            "noise": model.likelihood.noise.item(),
            "mean": model.mean_module.constant.item(),
        },
    }
    if steps < plan.adam_steps:
        found["cut"] = f"{steps} of {plan.adam_steps} steps, for want of time"
    return found


def _fit_botorch(plan: Plan, device: torch.device, clock: Clock, data: Observations) -> Row:
    import botorch
    from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
    from gpytorch.kernels import ScaleKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(0)  # for its second attempts
    X, y = data.X, data.y.unsqueeze(-1)
    matern = get_covar_module_with_dim_scaled_prior(X.shape[1], use_rbf_kernel=False)
    model = botorch.models.SingleTaskGP(X, y, covar_module=ScaleKernel(matern)).to(X)
    evaluations, forward = 0, model.forward

    def counted(*args):
        nonlocal evaluations
        evaluations += 1
        return forward(*args)

    model.forward = counted
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    began, most = time.perf_counter(), max(clock.left(), 1.0)
    botorch.fit_gpytorch_mll(mll, optimizer_kwargs={"timeout_sec": most})
    wait(device)
    seconds = time.perf_counter() - began
    del model.forward
    scaled, units = model.covar_module, model.outcome_transform
    centre, scale = units.means.item(), units.stdvs.item()  # it standardises once more
    found: Row = {
        "seconds": seconds,
        "evaluations": evaluations,
        "arithmetic": "float64",
        "parameters": {
            "lengthscale": scaled.base_kernel.lengthscale[0].tolist(),
            "variance": scaled.outputscale.item() * scale**2,
            "noise": model.likelihood.noise.item() * scale**2,
            "mean": model.mean_module.constant.item() * scale + centre,
        },
    }
    if seconds >= most:
        found["cut"] = f"told to stop after {most:.0f} s"
    return found


if __name__ == "__main__":
    serve({"gpytorch": by_gpytorch, "keops": by_keops, "botorch": by_botorch})
