"""Whole fits, and suggestions of an Optimizer, by ours on a device."""

import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_data import Observations, log_likelihood, observations
from benchmarks.gpu_plan import Plan
from benchmarks.gpu_products import OURS, measured, names_on
from benchmarks.gpu_timing import Clock, Row, guarded, peak_mib, reset_peak, wait
from benchmarks.problems import PROBLEMS
from surrogate import BBMM, ExactGP, Matern52, fit

_BY_STOP = 0.6  # of the time: what a search still does after that takes up to two evaluations more
_NOISE = 0.01


def fits(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Fit and predict at several sizes, each with an equal share of what time is left."""
    yield guarded({"what": "warm-up"}, partial(_warmed_up, plan, device))
    for i, n in enumerate(plan.fits):
        seconds = clock.left() / (len(plan.fits) - i)
        yield from _fitted(plan, device, Clock(seconds), n, predict=True)


def million(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """One product of that size, for what is to be expected, and the largest fit."""
    n, (_, d, t) = plan.million, plan.reference
    best = names_on(device)[0]
    assert best in OURS
    yield measured(plan, device, clock, best, "product", (n, d, t), n)
    yield from _fitted(plan, device, clock, n, predict=False)


def _warmed_up(plan: Plan, device: torch.device) -> Row:
    """Compile what a fit launches, as those after the first of a program find it."""
    began = time.perf_counter()
    n = min(2000, min(plan.fits))
    data = observations(n, 10, device)
    model = ExactGP(Matern52(6), solver=BBMM(storage="tiles"))
    fit(model, data.X, data.y, max_evaluations=2).condition(data.X, data.y).marginals(data.X_test)
    wait(device)
    return {"n": n, "seconds": time.perf_counter() - began}


def _fitted(
    plan: Plan, device: torch.device, clock: Clock, n: int, *, predict: bool
) -> Iterator[Row]:
    """A line each time that the search asks whether to stop, so that one cut off has told how far
    it came; then the fit, and then what it predicts.
    """
    row: Row = {"what": "fit", "library": "ours", "n": n}
    if clock.left() < 0:
        yield row | {"cut": "left out: no time"}
        return
    found = guarded(row, partial(_fit, plan, device, clock, n))
    model, data = found.pop("model", None), found.pop("data", None)
    yield found
    if not isinstance(model, ExactGP) or not isinstance(data, Observations):
        return
    if n <= plan.exact_up_to:
        about: Row = {"what": "judged", "library": "ours", "n": n, "by": "dense float64 Cholesky"}
        yield guarded(about, lambda: {"log_likelihood": log_likelihood(data, _parameters(model))})
    if predict:
        about = {"what": "predict", "library": "ours", "n": n}
        if clock.left() < 0:
            yield about | {"cut": "left out: no time"}
        else:
            yield guarded(about, partial(_predicted, model, data, device))


def _fit(plan: Plan, device: torch.device, clock: Clock, n: int) -> Row:
    data = observations(n, plan.predicted, device)
    asked: list[float] = []
    reset_peak(device)
    began = time.perf_counter()

    def stop() -> bool:
        asked.append(round(time.perf_counter() - began, 2))
        return clock.left() < (1 - _BY_STOP) * clock.seconds

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(ExactGP(Matern52(6)), data.X, data.y, stop=stop)
        wait(device)
    seconds, report = time.perf_counter() - began, model.report
    assert report is not None
    limited = clock.left() < (1 - _BY_STOP) * clock.seconds
    found: Row = {
        "seconds": seconds,
        "log_likelihood": report.log_marginal_likelihood / n,
        "half_width": report.likelihood.half_width / n,
        "gradient_norm": report.gradient_norm,
        "solver": report.solver,
        "storage": report.storage,
        "arithmetic": report.arithmetic,
        "evaluations": report.evaluations,
        "products": report.products,
        "converged": report.converged,
        "message": report.message,
        "parameters": _parameters(model),
        "evaluated_at": asked[-20:],
        "warnings": dict(Counter(w.category.__name__ for w in caught)),
        "peak_mib": peak_mib(device),
    }
    if limited and not report.converged:
        found["cut"] = f"told to stop after {_BY_STOP * clock.seconds:.0f} s"
    return found | {"model": model, "data": data}


def _parameters(model: ExactGP) -> dict:
    kernel = model.kernel
    assert isinstance(kernel, Matern52)
    return {
        "lengthscale": kernel.lengthscale.tolist(),
        "variance": float(kernel.variance.detach()),
        "noise": float(model.noise.detach()),
        "mean": float(model.mean.detach()),
    }


def _predicted(model: ExactGP, data: Observations, device: torch.device) -> Row:
    reset_peak(device)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        posterior = model.condition(data.X, data.y)
        wait(device)
        conditioned = time.perf_counter() - began
        mean, std = posterior.marginals(data.X_test)
        wait(device)
    seconds = time.perf_counter() - began
    miss = mean - data.f_test
    return {
        "seconds": seconds,
        "condition_seconds": conditioned,
        "points": len(mean),
        "rmse": float(miss.square().mean().sqrt()),
        "in_two_deviations": float((miss.abs() <= 2 * std).to(mean.dtype).mean()),
        "solver": posterior.info.solver,
        "warnings": dict(Counter(w.category.__name__ for w in caught)),
        "peak_mib": peak_mib(device),
    }


def asks(plan: Plan, device: torch.device, clock: Clock) -> Iterator[Row]:
    """The first suggestion, which fits, and those after it, each with one more value told."""
    for i, n in enumerate(plan.asks):
        yield from _asked(plan, device, Clock(clock.left() / (len(plan.asks) - i)), n)


def _asked(plan: Plan, device: torch.device, clock: Clock, n: int) -> Iterator[Row]:
    from bbmmopt import Optimizer, Real, Space

    row: Row = {"what": "ask", "library": "ours", "n": n}
    if clock.left() < 0:
        yield row | {"cut": "left out: no time"}
        return
    function, rng = PROBLEMS["hartmann6"].function, np.random.default_rng(n)
    space = Space({f"x{i}": Real(0.0, 1.0) for i in range(6)})
    optimizer = Optimizer(space, minimize="y", seed=0, device=str(device))
    began = time.perf_counter()
    for x in _tried(n, rng):
        params = {f"x{i}": float(value) for i, value in enumerate(x)}
        optimizer.add_trial(params, function(**params) + _NOISE * rng.standard_normal())
    yield {"what": "tell", "library": "ours", "n": n, "seconds": time.perf_counter() - began}

    def once() -> Row:
        reset_peak(device)
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trial = optimizer.ask()
            wait(device)
        seconds = time.perf_counter() - began
        value = function(**trial.params)
        optimizer.tell(trial, value + _NOISE * rng.standard_normal())
        counts = dict(Counter(w.category.__name__ for w in caught))
        return {
            "seconds": seconds,
            "value": value,
            "warnings": counts,
            "peak_mib": peak_mib(device),
        }

    for count in range(plan.asked + 1):
        this = row | {"count": count}  # 0 is the first
        if clock.left() < 0:
            yield this | {"cut": "left out: no time"}
            return
        done = guarded(this, once)
        yield done
        if "error" in done:
            return


def _tried(n: int, rng: np.random.Generator) -> np.ndarray:
    """Four fifths uniform, one fifth near the best, as a run would leave them: (n, 6)."""
    best = np.array([0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573])
    X, near = rng.random((n, 6)), n - n // 5
    X[near:] = np.clip(best + 0.05 * rng.standard_normal((n - near, 6)), 0, 1)
    return X


def judge(plan: Plan, device: torch.device, clock: Clock, found: list[dict]) -> Iterator[Row]:
    """log p(y) of parameters that peers found, by products: with bounds that hold for our K.

    Args:
        found: "library", "n" and "parameters" of each.
    """
    for one in found:
        n = one["n"]
        row: Row = {"what": "judged", "library": one["library"], "n": n}
        row["by"] = "our log likelihood, by products in float64 or float32"
        if clock.left() < 0:
            yield row | {"cut": "left out: no time"}
            continue
        yield guarded(row, partial(_judged, plan, device, one))


def _judged(plan: Plan, device: torch.device, one: dict) -> Row:
    parameters, n = one["parameters"], one["n"]
    data = observations(n, plan.predicted, device)
    kernel = Matern52(6, parameters["lengthscale"], parameters["variance"])
    noise, mean = parameters["noise"], parameters["mean"]
    model = ExactGP(kernel, mean=mean, noise=noise, priors="flat-1", solver=BBMM())
    with torch.no_grad():
        value = model.log_marginal_likelihood(data.X, data.y)
    return {"log_likelihood": float(value) / n, "half_width": value.half_width / n}
