"""Products with K and pullbacks: how exact, and how many picoseconds a pair of points takes."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_data import (
    VARIANCE,
    Exact,
    error_of_some,
    lengthscales,
    log_likelihood,
    observations,
    plain_product,
    plain_pullback,
    points,
)
from benchmarks.gpu_plan import Plan
from benchmarks.gpu_timing import Clock, Row, guarded, timed, told
from surrogate import (
    BBMM,
    Coregionalization,
    ExactGP,
    Hamming,
    Kernel,
    Matern32,
    Matern52,
    RationalQuadratic,
)
from surrogate.tiles import Tiles, fused
from surrogate.tiles.choose import tiles_for, why_not_fused

# Name of an implementation of ours: what `tiles_for` is asked for.
OURS = {
    "fused float32": ("triton", True),
    "fused float64": ("triton", False),
    "torch tiles": ("torch", False),
}
# How far apart points are, in lengthscales: each has kernels of its own.
SPREADS = (1.0, 0.05, 0.002)


# Ways to launch a kernel. From the middle outwards: what is likely to be quick is not cut off.
BLOCKS = sorted(
    (
        fused.Block(*way)
        for way in itertools.product((64, 128, 256), (32, 64, 128), (4, 8), (1, 2, 3, 4))
    ),
    key=lambda b: abs(b.rows - 128) / 64 + abs(b.columns - 64) / 32 + (b.stages != 2),
)


def tiles_of(name: str, kernel: Kernel, X: Tensor) -> Tiles:
    which, float32 = OURS[name]
    return tiles_for(kernel, X, "triton" if which == "triton" else "torch", float32=float32)


def matern(d: int, spread: float = 1.0) -> Matern52:
    return Matern52(d, [spread * ell for ell in lengthscales(d)], VARIANCE)


def names_on(device: torch.device) -> list[str]:
    """Implementations that can be used there; on the CPU fused ones only if interpreted."""
    can_fuse = why_not_fused(matern(1), device) is None
    return list(OURS) if can_fuse else ["torch tiles"]


# --------------------------------------------------------------------------------------
# Correctness
# --------------------------------------------------------------------------------------


def correctness(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Errors relative to |K| |V|, and to gradients without cancellation."""
    names = names_on(device)
    if "fused float32" not in names:
        yield {"remark": f"not fused: {why_not_fused(matern(1), device)}"}
    cases = itertools.product((SPREADS[0],), plan.check_dims, plan.check_columns)
    others = itertools.product(SPREADS[1:], plan.check_dims[:1], plan.check_columns[:1])
    for spread, d, t in (*cases, *others):
        X, A, B = points(plan.check, d, t)
        ell = X.new_tensor(lengthscales(d)) * spread
        exact = Exact.of(X, A, B, ell, B)
        for name in names:
            row: Row = {"what": "errors", "library": name, "n": plan.check, "d": d, "t": t}
            row["spread"] = spread
            if clock.left() < 0:
                yield row | {"cut": "left out: no time"}
                continue
            yield guarded(row, partial(_errors, name, d, spread, (X, A, B), exact, device))
    for name in names:
        row = {"what": "errors", "library": name, "n": plan.check, "kernel": "mixed"}
        yield guarded(row, partial(_mixed_errors, name, plan.check, device))
    yield guarded({"what": "likelihood"}, partial(_likelihood, plan, device))


def interpreted(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """The same of the fused kernels alone, on the CPU, where tensor cores are emulated exactly."""
    dims, columns = plan.check_dims[:2], plan.check_columns[:2]
    smaller = replace(plan, check=plan.interpreted, check_dims=dims, check_columns=columns)
    if find_spec("triton") is None:
        yield {"remark": "left out: Triton is not installed"}
        return
    for row in correctness(smaller, device, clock):
        if row.get("library") != "torch tiles":
            yield row


def _errors(
    name: str,
    d: int,
    spread: float,
    data: tuple[Tensor, Tensor, Tensor],
    exact: Exact,
    device: torch.device,
) -> Row:
    X, A, B = (M.to(device) for M in data)
    tiles = tiles_of(name, matern(d, spread), X)
    K_B = tiles.product(B)
    half = slice(0, len(X) // 2)
    gradients = torch.cat([g.reshape(-1) for g in tiles.pullback(A, B)])
    again = torch.cat([g.reshape(-1) for g in tiles.pullback(A, B)])
    return {
        "arithmetic": tiles.name,
        "product": exact.product_error(K_B),
        "some rows": exact.product_error(tiles.product(B, half), half),
        "cross": exact.product_error(tiles.cross(X[half].clone(), B), half),
        "pullback": exact.gradient_error(gradients),
        "same bits": torch.equal(K_B, tiles.product(B)) and torch.equal(gradients, again),
    }


def _mixed_errors(name: str, n: int, device: torch.device) -> Row:
    """All kinds of factors in one kernel, against its own matrix and autograd on the CPU."""
    X, A, B = points(n, 4, 3)
    X = torch.cat([X, (3 * X[:, :2].flip(0)).floor()], 1)
    kernel = 0.5 * Matern52(2, 0.6, 1.5, columns=[0, 1]) * Hamming(1, 0.8, columns=[4])
    tasks = Coregionalization(3, 1, factor=X.new_tensor([[1.0], [0.5], [-0.8]]))
    kernel = kernel + RationalQuadratic(3, 0.9, 1.2, 0.7, columns=[0, 2, 3]) * tasks
    kernel = kernel + Matern32(2, 0.7, 0.4, columns=[1, 3])
    K = kernel(X, X)
    exact = K.detach()
    parameters = list(kernel.parameters())
    wanted = torch.autograd.grad((A * (K @ B)).sum(), parameters)
    tiles = tiles_of(name, kernel, X.to(device))
    miss = (tiles.product(B.to(device)).cpu() - exact @ B).abs()
    found = tiles.pullback(A.to(device), B.to(device))
    pairs = zip(found, wanted, strict=True)
    off = [float((a.cpu() - b).abs().max() / _size(A, B, exact)) for a, b in pairs]
    return {
        "arithmetic": tiles.name,
        "product": float((miss / (exact.abs() @ B.abs())).max()),
        "pullback": max(off),
    }


def _size(A: Tensor, B: Tensor, K: Tensor) -> float:
    """Σ |a|ᵀ |K| |b|, which gradients in log-parameters are of the order of."""
    return float((A.abs() * (K.abs() @ B.abs())).sum())


def _likelihood(plan: Plan, device: torch.device) -> Row:
    """log p(y) by products on the device: whether its bounds hold the exact value."""
    n = min(plan.check, 4000)
    data = observations(n, 0, torch.device("cpu"))
    parameters = {"lengthscale": [0.9] * 6, "variance": 1.0, "noise": 0.02, "mean": 0.1}
    exact = log_likelihood(data, parameters) * n
    kernel = Matern52(6, parameters["lengthscale"], parameters["variance"])
    model = ExactGP(kernel, mean=0.1, noise=0.02, solver=BBMM(storage="tiles"))
    with torch.no_grad():
        found = model.log_marginal_likelihood(data.X.to(device), data.y.to(device))
    held = found.lower <= exact <= found.upper
    about: Row = {"n": n, "exact": exact, "lower": found.lower, "upper": found.upper}
    return about | {"held": held}


# --------------------------------------------------------------------------------------
# Times
# --------------------------------------------------------------------------------------


def reference(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Everything we have at the reference size, the whole of K."""
    n, d, t = plan.reference
    ours = [name for name in OURS if name in names_on(device)]
    names = [*ours[:1], "plain torch", *ours[1:]]
    for name, what in itertools.product(names, ("product", "pullback")):
        yield measured(plan, device, clock, name, what, (n, d, t), n)
    compared = [name for name in names if name != "torch tiles"]
    row: Row = {"what": "errors", "against": "torch tiles", "n": n, "d": d, "t": t}
    if clock.left() < 0:
        yield row | {"library": "all", "cut": "left out: no time"}
        return
    try:
        wanted, size, data = _pulled_by_torch(device, plan.reference)
    except Exception as error:
        yield row | {"library": "torch tiles", "error": told(error)}
        return
    for name in compared:
        about = row | {"library": name}
        yield guarded(about, partial(_compared, name, data, wanted, size))


def _pulled_by_torch(
    device: torch.device, size: tuple[int, int, int]
) -> tuple[Tensor, float, tuple[Tensor, ...]]:
    """Gradients in log ℓ and log s² in float64, what they would be without cancellation at most,
    and the data.
    """
    n, d, t = size
    data = X, A, B = tuple(M.to(device) for M in points(n, d, t))
    tiles = tiles_of("torch tiles", matern(d), X)
    most = float((A.abs() * tiles.product(B.abs())).sum())
    return _flat(tiles.pullback(A, B)), most, data


def _compared(name: str, data: tuple[Tensor, ...], wanted: Tensor, most: float) -> Row:
    """A pullback at a size that no dense K fits in memory for."""
    n, d = data[0].shape
    run, about = _runner(name, "pullback", d, data, n)
    found = _flat(run()).double()
    if name == "plain torch":  # in ℓ and s² themselves
        found = found * found.new_tensor([*lengthscales(d), VARIANCE])
    return about | {"pullback": float((found - wanted).abs().max() / most)}


def grid(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """The quickest of ours and plain torch at each other size."""
    best = names_on(device)[0]
    left_out: list[Row] = []
    sizes = itertools.product(plan.sizes, plan.columns, plan.dims, ("product", "pullback"))
    for n, t, d, what in sizes:
        if (n, d, t) == plan.reference:
            continue
        for name in (best, "plain torch"):
            if clock.left() < 0:
                left_out.append({"library": name, "what": what, "n": n, "d": d, "t": t})
                continue
            most = plan.slow_pairs if name in ("plain torch", "torch tiles") else plan.pairs
            rows = max(1, min(n, int(most / n)))
            yield measured(plan, device, clock, name, what, (n, d, t), rows)
    if left_out:
        yield {"cut": f"left out, for want of time: {len(left_out)}", "left_out": left_out}


def measured(
    plan: Plan,
    device: torch.device,
    clock: Clock,
    name: str,
    what: str,
    size: tuple[int, int, int],
    rows: int,
) -> Row:
    """Seconds of a product or a pullback, or of some rows of it, and picoseconds per pair.

    Args:
        name: An implementation of ours, or "plain torch".
        what: "product" or "pullback".
        size: n, d and t.
        rows: How many of K; where not all, the others are left out.
    """
    n, d, t = size
    row: Row = {"what": what, "library": name, "n": n, "d": d, "t": t, "rows": rows}
    if clock.left() < 0:
        return row | {"cut": "left out: no time"}

    def measure() -> Row:
        data = tuple(M.to(device) for M in points(n, d, t))
        run, about = _runner(name, what, d, data, rows)
        found = timed(run, device, clock, plan.runs, plan.run_seconds)
        if what == "product":
            found["off"] = error_of_some(run(), data[0], data[2])
        return about | found | {"ps_per_pair": float(found["seconds"]) / (rows * n) * 1e12}

    return guarded(row, measure)


def _runner(
    name: str, what: str, d: int, data: tuple[Tensor, ...], rows: int
) -> tuple[Callable[[], object], Row]:
    X, A, B = data
    if name == "plain torch":
        X, A, B = (M.float() for M in data)
        ell = X.new_tensor(lengthscales(d))
        if what == "product":
            return lambda: plain_product(X, B, rows, ell), {"arithmetic": "float32"}
        return lambda: plain_pullback(X, A, B, rows, ell), {"arithmetic": "float32"}
    tiles = tiles_of(name, matern(d), X)
    some = None if rows == len(X) else slice(0, rows)
    if what == "product":
        return lambda: tiles.product(B, some), {"arithmetic": tiles.name}
    return lambda: tiles.pullback(A, B, some), {"arithmetic": tiles.name}


def tune(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Each way to launch the fused kernels at the reference size, and how far results differ."""
    n, d, t = plan.reference
    data = tuple(M.to(device) for M in points(n, d, t))
    chosen = fused._blocks
    for what in ("product", "pullback"):
        run, _ = _runner("fused float32", what, d, data, n)
        wanted = _flat(run())
        before = guarded(
            {"what": what, "block": "as chosen"},
            partial(timed, run, device, clock, plan.runs, plan.run_seconds),
        )
        yield before
        end = clock.left() / 2 if what == "product" else 0.0
        for block in BLOCKS:
            row: Row = {"what": what, "rows": block.rows, "columns": block.columns}
            row |= {"warps": block.warps, "stages": block.stages, "n": n, "d": d, "t": t}
            if clock.left() < end:
                yield row | {"cut": "left out: no time"}
                continue
            fused._blocks = lambda *_, b=block: [b]
            try:
                yield guarded(row, partial(_tuned, plan, device, clock, run, wanted, n))
            finally:
                fused._blocks = chosen


def _tuned(
    plan: Plan,
    device: torch.device,
    clock: Clock,
    run: Callable[[], object],
    wanted: Tensor,
    n: int,
) -> Row:
    off = float((_flat(run()) - wanted).abs().max() / wanted.abs().max())
    found = timed(run, device, clock, plan.runs, plan.run_seconds)
    return found | {"ps_per_pair": float(found["seconds"]) / n**2 * 1e12, "differs_by": off}


def _flat(found: Any) -> Tensor:
    parts = found if isinstance(found, tuple | list) else (found,)
    return torch.cat([part.reshape(-1) for part in parts])
