"""Fit a model: maximise the log marginal likelihood plus the log density of the priors."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from surrogate.models.descent import Minimum, follow, minimise
from surrogate.models.exact import ExactGP
from surrogate.models.objective import ExactObjective, Parameters, ProductObjective
from surrogate.operators.distributed import Ranks
from surrogate.operators.kernel import Storage
from surrogate.solvers.auto import is_distributed
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.cholesky import Cholesky
from surrogate.solvers.inv_quad_logdet import Estimate, certain
from surrogate.threads import one_thread

# Above this n one evaluation keeps several cores busy; below, threads only wait for each other.
_THREADS_PAY_FROM = 1000

_FAR = 30.0  # times the units that priors for scaled data expect: a mistake, not an outlier

# A fit by products begins on a subset, exactly, and grows it: steps there cost little, and what
# they learn of the curvature makes three or four full-size evaluations of twenty.
_GROW = 4
_SUBSET = 1000  # most rows of the first subset
_WHOLE = 128  # below this many, the subset is everything
# Probes leave an optimum undecided by about p / (2s) nats for p parameters and s of them.
_UNDECIDED = 0.1  # share of that which a search may leave
_OTHER_BASIN = 2.0  # change of a log-parameter that more data of the same kind do not explain
_ROUGH = 1e-2  # nats that a fit of a subset may leave


AModel = TypeVar("AModel", bound=ExactGP)


@dataclass(frozen=True)
class FitReport:
    """How a fit went.

    Attributes:
        value: Log marginal likelihood plus log prior density at the parameters found, in nats.
        likelihood: The first part alone, in nats, with its error bar.
        gradient_norm: Largest slope left, in nats per unit of a log-parameter; parameters held by
            a bound are left out.
        inverse_hessian: Estimated inverse Hessian over the free parameters but the mean and
            inducing points, (p, p): about their posterior covariance, and what a later warm start
            begins with. None if not a step was taken.
        n: Observations fitted to.
        solver: "cholesky", "bbmm", "inducing points" or, for a complete table, "eigenvectors".
        reason: Why that solver.
        evaluations: Likelihood evaluations with all the observations, over all starts.
        products: Products of K with a block of vectors on the way; 0 by Cholesky.
        storage: Where K was kept for them: "float64", "float32" or "tiles" (nowhere).
        starts: How many starting points were tried.
        seconds: Wall time.
        jitter: Largest amount added to a diagonal on the way; 0 when nothing was needed.
        converged: Whether the optimiser of the winning start stopped by itself.
        message: What it said.
        arithmetic: What computed K at each product where it was kept nowhere, and in which type:
            "torch float64", "triton float32" or "triton float64"; and on how many ranks, if asked.
    """

    value: float
    likelihood: Estimate
    gradient_norm: float
    inverse_hessian: np.ndarray | None = field(repr=False)
    n: int
    solver: str
    reason: str
    evaluations: int
    products: int
    storage: Storage
    starts: int
    seconds: float
    jitter: float
    converged: bool
    message: str
    arithmetic: str | None = None

    @property
    def log_marginal_likelihood(self) -> float:
        """`likelihood` without its error bar, in nats."""
        return float(self.likelihood)


def fit(
    model: AModel,
    X: Tensor,
    y: Tensor,
    *,
    noise: Tensor | None = None,
    restart: bool = True,
    max_evaluations: int = 200,
    tolerance: float = 1e-4,
    stop: Callable[[], bool] | None = None,
) -> AModel:
    """Return a copy of the model at the parameters of largest posterior density.

    Quasi-Newton on log-parameters from where the model stands, and from where the priors start:
    with their lengthscales, a fourth or a sixteenth of them, whichever is the likeliest (data that
    wiggle look like noise to a model that begins with long ones). The better result is kept; where
    both starts are the same, there is one. Passing the last fitted model is a warm start: its
    parameters and curvature are used. Parameters with `requires_grad` off stay.

    By products, which `model.solver` may ask for or choose, this is done exactly for a subset of up
    to 1000 rows; subsets four times as large each, and at last all rows, follow by gradients alone,
    each search from where the one before ended and with its curvature. The optimum is then found
    to within about p / (2s) nats for p parameters and s probes, whatever n.

    Args:
        model: What to fit; left as it is.
        X: Shape (n, d). For n < 2 there is nothing to learn and a copy comes back.
        y: Shape (n,); (n, T) for a model of T outputs, NaN where a value is missing.
        noise: Variance of each observation, in the shape of y, NaN where σ² is to be learnt.
        restart: Whether to guard against a bad basin by the second start.
        max_evaluations: Per start.
        tolerance: Stop when another step is predicted to gain less than this many nats; by products
            no less than a tenth of what the probes leave undecided. Where inducing points are
            learnt, this many for each observation.
        stop: Asked before each evaluation but the first of a search. From when it says True on,
            searches end where they are, and the report says that the fit has not converged. Of
            several ranks the first alone is asked.

    Raises:
        ValueError: If shapes do not match, values are not finite, or no parameter is free.
        RanksDisagree: If `BBMM(distributed=True)` is asked for, and ranks have different data.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "all parameters of the model are frozen, as those of posterior.model are; pass the "
            "model that was conditioned, or call model.requires_grad_(True) on a copy."
        )
    X, y, noise = model.as_data(X, y, noise)
    if is_distributed(model.solver):
        ranks = Ranks.of(X.device)
        options = f"{model.solver} {model.priors.name} {restart} {max_evaluations} {tolerance}"
        ranks.check_fit(X, y, noise, [*model.parameters()], options)
        stop = stop and ranks.asking_the_first(stop)
    _warn_of_scales(model, X, y)
    began, n = time.perf_counter(), len(X)
    model = model.prepared(X, y, noise, restart=restart)
    last = model.report
    model = model.clone()
    choice = model.choice_for_fit(X, noise)
    parameters = Parameters(model)
    if n < 2:
        found = _nothing(parameters)
    else:
        warm = _Warm.of(last, parameters.dense)
        limits = _Limits(restart and not model.is_guarded, max_evaluations, tolerance, stop)
        with _threads(n):
            if isinstance(choice.solver, Cholesky):
                found = _exactly(parameters, (X, y, noise), choice.solver, warm, limits)
            else:
                found = _by_products(parameters, (X, y, noise), choice.solver, warm, limits)
    best = found.minimum
    x, g = best.x, best.gradient
    held = ((x <= parameters.low) & (g > 0)) | ((x >= parameters.high) & (g < 0))
    model.report = FitReport(
        value=float(found.likelihood) + parameters.log_prior() if n >= 2 else 0.0,
        likelihood=found.likelihood,
        gradient_norm=float(np.abs(np.where(held, 0.0, g)).max(initial=0.0)),
        inverse_hessian=best.inverse_hessian,
        n=n,
        solver=choice.name,
        reason=choice.reason,
        evaluations=found.evaluations,
        products=found.products,
        storage=found.storage,
        arithmetic=found.arithmetic,
        starts=found.starts,
        seconds=time.perf_counter() - began,
        jitter=found.jitter,
        converged=best.converged,
        message=best.message,
    )
    return model


_Data = tuple[Tensor, Tensor, Tensor]  # X, y, noise


@dataclass(frozen=True)
class _Warm:
    """What an earlier fit left: how many observations it had, and its curvature."""

    n: int
    inverse_hessian: np.ndarray | None

    @staticmethod
    def of(report: FitReport | None, p: int) -> _Warm:
        if report is None:
            return _Warm(0, None)
        curvature = report.inverse_hessian
        if curvature is not None and len(curvature) != p:
            curvature = None  # other parameters were free then
        return _Warm(report.n, curvature)

    def at(self, n: int) -> np.ndarray | None:
        """The curvature to expect with n observations: more data bend the likelihood more."""
        if self.inverse_hessian is None or self.n >= n:
            return self.inverse_hessian
        return self.inverse_hessian * (self.n / n)


@dataclass(frozen=True)
class _Limits:
    restart: bool
    max_evaluations: int
    tolerance: float
    stop: Callable[[], bool] | None = None


@dataclass(frozen=True)
class _Found:
    minimum: Minimum
    likelihood: Estimate
    evaluations: int
    starts: int
    jitter: float = 0.0
    products: int = 0
    storage: Storage = "float64"
    arithmetic: str | None = None


def _rows(data: _Data, which: Tensor) -> _Data:
    X, y, noise = data
    return X[which], y[which], noise[which]


def _threads(n: int) -> AbstractContextManager[None]:
    return nullcontext() if n >= _THREADS_PAY_FROM else one_thread()


def _nothing(parameters: Parameters) -> _Found:
    x = parameters.position()
    minimum = Minimum(x, 0.0, np.zeros(len(x)), None, 0, True, "fewer than two observations")
    return _Found(minimum, certain(0.0), 0, 0)


def _exactly(
    parameters: Parameters, data: _Data, solver: Cholesky, warm: _Warm, limits: _Limits
) -> _Found:
    """The best of the descents, at which the model is left."""
    objective = ExactObjective(parameters, *data, solver)
    starts = [parameters.position()]
    if limits.restart:
        best = min(parameters.offered(), key=lambda start: objective(start)[0])
        differs = np.abs(starts[0] - best).max(initial=0.0) > 1e-3
        starts = [starts[0], best] if differs else [best]
    runs = [
        minimise(
            objective,
            x,
            parameters.low,
            parameters.high,
            inverse_hessian=warm.at(len(data[1])) if i == 0 else None,
            dense=parameters.dense,
            columns=parameters.columns,
            tolerance=limits.tolerance * (len(data[1]) if parameters.points else 1),
            max_evaluations=limits.max_evaluations,
            stop=limits.stop,
        )
        for i, x in enumerate(starts)
    ]
    best = min(runs, key=lambda run: run.value)
    if not parameters.at(best.x):
        objective(best.x)  # for its mean
    value = -best.value - parameters.log_prior()
    likelihood = parameters.model.bracketed(value, *data)
    return _Found(best, likelihood, objective.evaluations, len(starts), objective.jitter)


def _by_products(
    parameters: Parameters, data: _Data, options: BBMM, warm: _Warm, limits: _Limits
) -> _Found:
    """Exactly on a subset, then by products on larger ones and at last on all, each from the last.

    The first subset guards against a bad basin, by values; the last search is checked by them.
    """
    n, x = len(data[1]), parameters.position()
    order = torch.randperm(n, generator=options.generator()).to(data[0].device)
    first, *others = _sizes(n)
    starts, jitter = 1, 0.0
    if not warm.n or limits.restart:
        few = order[:first]
        rough = replace(limits, tolerance=max(_ROUGH, limits.tolerance))
        subset = _rows(data, few)
        with _threads(first):
            found = _exactly(parameters, subset, Cholesky(), warm, rough)
        starts, jitter = found.starts, found.jitter
        # Of a warm start, which knows more than the subset does, only a better basin is news.
        if not warm.n or float(np.abs(found.minimum.x - x).max(initial=0.0)) > _OTHER_BASIN:
            x, warm = found.minimum.x, _Warm(first, found.minimum.inverse_hessian)
    undecided = _UNDECIDED * len(x) / (2 * options.probes)
    for size in others[:-1]:
        if size > warm.n:
            objective = ProductObjective(parameters, *_rows(data, order[:size]), options)
            run = _follow(objective, x, warm, size, undecided, limits)
            x, warm = run.x, _Warm(size, run.inverse_hessian)
    objective = ProductObjective(parameters, *data, options)
    before, _ = objective.with_value(x)
    prior_before = parameters.log_prior()
    run = _follow(objective, x, warm, n, undecided, limits)
    after, gradient = objective.with_value(run.x)
    converged, message = run.converged, run.message
    loss = before.lower + prior_before - (after.upper + parameters.log_prior())
    if loss > len(x) / options.probes:  # twice what probes leave undecided
        # Slopes alone can lead over a ridge into a lower valley.
        after, gradient = objective.with_value(x)
        converged, message = False, "the search by slopes went astray; its start is better"
    else:
        x = run.x
    minimum = Minimum(
        x, -float(after), gradient, run.inverse_hessian, run.evaluations, converged, message
    )
    return _Found(
        minimum,
        after,
        objective.evaluations,
        starts,
        jitter,
        objective.products,
        objective.storage or "tiles",
        objective.arithmetic,
    )


def _follow(
    objective: ProductObjective,
    x: np.ndarray,
    warm: _Warm,
    n: int,
    undecided: float,
    limits: _Limits,
) -> Minimum:
    return follow(
        objective,
        x,
        objective.parameters.low,
        objective.parameters.high,
        inverse_hessian=warm.at(n),
        tolerance=max(limits.tolerance, undecided),
        max_evaluations=limits.max_evaluations,
        stop=limits.stop,
    )


def _sizes(n: int) -> list[int]:
    """How many rows are fitted to, one size after another; the last is n."""
    if n < _WHOLE:
        return [n, n]
    sizes = [n, -(-n // _GROW)]
    while sizes[-1] > _SUBSET:
        sizes.append(-(-sizes[-1] // _GROW))
    return sizes[::-1]


class UnscaledData(UserWarning):
    """Data are far from the units that the priors of the model were made for."""


def _warn_of_scales(model: ExactGP, X: Tensor, y: Tensor) -> None:
    if not model.priors.unit_scales or len(X) < 2:
        return
    width, centre, spread = torch.stack([X.abs().max(), y.mean().abs(), y.std()]).tolist()
    if width > _FAR or centre > _FAR * max(spread, 1.0) or spread > _FAR:
        warnings.warn(
            f"the priors {model.priors.name!r} expect inputs in the unit cube and targets of mean "
            f"0 and standard deviation 1; got inputs up to {width:.3g} and targets of mean "
            f"{centre:.3g} and standard deviation {spread:.3g}. Scale the data, or pass "
            f'priors="flat-1" to ExactGP.',
            UnscaledData,
            stacklevel=3,
        )
